"""What every number format offers to the graph and to the quantizers.

A format is a finite set of numbers, each an integer times ``2**-frac``: ``frac`` is the binary point of its
finest grid. :class:`qfx.FixedPoint` holds every integer of a range, :class:`qfx.Minifloat` those with few
significant bits, :class:`qfx.KHot` those with few nonzero digits. The graph computes with these integers;
how a number is laid out in bits (``encode``, ``decode``) matters to hardware only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError

if TYPE_CHECKING:
    import torch


class Format(ABC):
    """Base of all number formats.

    Attributes:
        width: bits that one number takes.
        signed: whether there are numbers below zero.
        frac: position of the binary point of the finest grid: an integer, a tuple with one per channel, or
            ``None`` where the format has none yet (it is to be calibrated, then learned).
    """

    width: int
    signed: bool

    # -- the binary point --------------------------------------------------------------------------------

    @property
    def learned(self) -> bool:
        """Whether the binary point was left open: a :class:`qfx.Config` calibrates it, then learns it."""
        return self.frac is None  # type: ignore[attr-defined]

    @property
    def has_point(self) -> bool:
        """Whether there is a binary point at all; block formats take their scale from the data."""
        return True

    @abstractmethod
    def with_frac(self, frac: int | Sequence[int] | None) -> Any:
        """This format with another binary point; ``None`` leaves it open."""

    @property
    def per_channel(self) -> bool:
        """Whether there is one binary point per channel."""
        return isinstance(self.frac, tuple)  # type: ignore[attr-defined]

    @property
    def max_frac(self) -> int:
        """The largest binary point of any channel."""
        frac = self._frac()
        return max(frac) if isinstance(frac, tuple) else frac

    def fracs(self, channels: int) -> tuple[int, ...]:
        """The binary points of ``channels`` channels, also when there is only one for all."""
        frac = self._frac()
        if isinstance(frac, int):
            return (frac,) * channels
        if len(frac) != channels:
            raise QfxError(f"{self}: {len(frac)} binary points for {channels} channels")
        return frac

    def _frac(self) -> int | tuple[int, ...]:
        frac = self.frac  # type: ignore[attr-defined]
        if frac is None:
            raise QfxError(
                f"{self}: the binary point is not set yet; give frac=, or calibrate and freeze a model first"
            )
        return frac

    # -- the integers ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def integer_min(self) -> int:
        """The smallest number as an integer in units of ``2**-frac``."""

    @property
    @abstractmethod
    def integer_max(self) -> int:
        """The largest number as an integer in units of ``2**-frac``."""

    @property
    def dense_below(self) -> float:
        """All integers of smaller magnitude are numbers of the format; ``inf`` when there are no gaps.

        Where there are gaps, moving the binary point by one changes nothing but the two ends of the range:
        the gradient of a learned binary point comes from numbers below this bound, and from clipped ones.
        """
        return float("inf")

    @property
    def pass_range(self) -> tuple[float, float]:
        """Numbers between these (in units of ``2**-frac``) are rounded; beyond, they are clipped and get no
        gradient."""
        return self.integer_min - 0.5, self.integer_max + 0.5

    @abstractmethod
    def round_scaled(self, scaled: torch.Tensor) -> torch.Tensor:
        """The cast, in floating point.

        Args:
            scaled: real numbers in units of ``2**-frac`` (``x * 2**frac``), float32 or float64, batch or
                output channel first, channels on axis 1; may be overwritten. Infinities are allowed.

        Returns:
            the integers that they are cast to, same dtype and shape; exact as long as the numbers of the
            format have no more significant bits than the dtype.
        """

    @abstractmethod
    def cast_integers(self, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
        """The ``cast`` operator of the graph, in exact integers.

        Args:
            codes: integers, shape ``(samples, channels, ...)``, ``int64`` (below 2**61 in magnitude, also
                after alignment) or ``object``; channel ``c`` has binary point ``points[c]``.

        Returns:
            integers of the same dtype and shape with binary points :meth:`result_points`.
        """

    def units(self, points: tuple[int, ...]) -> tuple[int, ...]:
        """The binary points of the units that :meth:`round_scaled` wants, for an operand with ``points``."""
        return self.fracs(len(points))

    def result_points(self, points: tuple[int, ...]) -> tuple[int, ...]:
        """The binary points of a cast's result.

        A format with gaps never needs a finer grid than its operand has: a number on a coarser grid than the
        finest of the format is kept, rounded to a coarser one, or saturates; so the result stays on the
        operand's grid wherever the largest number of the format lies on it. This keeps wide formats (bfloat16
        spans 260 bits) as narrow as the sums that they are cast from.
        """
        if self.integer_max <= 0:
            return self.fracs(len(points))
        coarse = (self.integer_max & -self.integer_max).bit_length() - 1
        return tuple(min(f, max(p, f - coarse)) for f, p in zip(self.fracs(len(points)), points, strict=True))

    def cast_interval(
        self, low: np.ndarray, high: np.ndarray, points: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The interval of a cast's result per channel: ``object`` arrays, binary points as in
        :meth:`result_points`. Casts to most formats are monotonic: the ends become the ends."""
        ends = self.cast_integers(np.stack([low, high]), points)
        return ends[0], ends[1]

    @abstractmethod
    def members(self, integers: np.ndarray) -> np.ndarray:
        """Which integers (units of ``2**-frac``; ``int64`` or ``object``, output channel first) are numbers
        of the format: booleans of the same shape."""

    # -- the values --------------------------------------------------------------------------------------

    @abstractmethod
    def quantize(self, x: Any, axis: int = 0) -> Any:
        """The numbers of the format that ``x`` (numpy or torch) is cast to. No gradient."""

    def integers(self, x: Any, axis: int = 0) -> np.ndarray:
        """The numbers that ``x`` is cast to as int64 integers in units of ``2**-frac``.

        Raises:
            QfxError: NaN; a format that spans more than 62 bits, whose integers are too large.
        """
        x = np.asarray(x, dtype=np.float64)
        if np.isnan(x).any():
            place = tuple(int(i) for i in np.argwhere(np.isnan(x))[0])
            raise QfxError(f"{self}: NaN at index {place} has no code; remove NaNs from the data first")
        if max(self.integer_max, -self.integer_min) >= 1 << 62:
            raise QfxError(
                f"{self}: its numbers span {self.integer_max.bit_length()} bits, and tensors hold 62; "
                "use fewer exponent bits here"
            )
        shape = [1] * x.ndim
        shape[axis] = -1
        fracs = np.asarray(self.fracs(x.shape[axis])).reshape(shape)
        return np.ldexp(self.quantize(x, axis), fracs).astype(np.int64)
