"""How large the integers of a computation can become, and the float dtype that holds them exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.exact import FLOAT32_BOUND, FLOAT64_BOUND
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint

# Bounds are computed in float64; this covers the rounding of the longest sums.
_MARGIN = 1.0 + 1e-6
# Values are codes times a power of two: both ends must stay clear of subnormals and infinities.
_LARGEST_EXPONENT = {torch.float32: 120, torch.float64: 1000}


@dataclass(frozen=True, eq=False)
class Bound:
    """What is known of a tensor on a grid.

    Attributes:
        shape: without the batch axis.
        fracs: int64 ``(channels,)``, the binary point of every channel.
        magnitude: float64 ``(channels,)``, an upper bound of the absolute value of every code and of every
            partial sum that leads to it.
        encoding: the format with gaps that it was cast to, where that is known.
    """

    shape: tuple[int, ...]
    fracs: np.ndarray
    magnitude: np.ndarray
    encoding: Format | None = None

    @staticmethod
    def of_format(shape: tuple[int, ...], fmt: Format) -> Bound:
        """A tensor that can hold any number of a format."""
        fracs = np.asarray(fmt.fracs(shape[0]), dtype=np.int64)
        largest = np.full(shape[0], float(max(-fmt.integer_min, fmt.integer_max)))
        return Bound(shape, fracs, largest, None if isinstance(fmt, FixedPoint) else fmt)

    def cast(self, fmt: Format) -> Bound:
        """After a cast to a format.

        A format with gaps keeps numbers on the operand's grid where that is coarser, and rounds none beyond
        what the operand's largest becomes: wide formats stay as narrow as the sums that they are cast from.
        """
        if isinstance(fmt, FixedPoint):
            return Bound.of_format(self.shape, fmt)
        points = tuple(int(f) for f in self.fracs)
        largest = np.array([math.ceil(m * _MARGIN) for m in self.magnitude.tolist()], dtype=object)
        low, high = fmt.cast_interval(-largest, largest, points)
        ends = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
        return Bound(self.shape, np.asarray(fmt.result_points(points), dtype=np.int64), ends, fmt)

    def scaled(self, fracs: np.ndarray) -> np.ndarray:
        """The magnitudes as codes with other, larger binary points."""
        return np.ldexp(self.magnitude, (fracs - self.fracs).astype(np.int64))

    def moved(self, move) -> Bound:  # type: ignore[no-untyped-def]
        """The bound after elements changed place; ``move`` does it to an array of this shape."""
        place = (-1, *(1,) * (len(self.shape) - 1))

        def rows(values: np.ndarray) -> np.ndarray:
            moved = move(np.broadcast_to(values.reshape(place), self.shape))
            return np.asarray(moved.reshape(moved.shape[0], -1))

        shape = move(np.broadcast_to(np.int8(0), self.shape)).shape
        fracs, e = rows(self.fracs), self.encoding
        if (fracs.min(axis=1) == fracs.max(axis=1)).all():
            known = None if e is None or not e.has_point or e.per_channel else e
            return Bound(shape, fracs[:, 0], rows(self.magnitude).max(axis=1), known)
        # All codes are brought to one binary point first.
        top = np.full_like(self.fracs, self.fracs.max())
        return Bound(shape, rows(top)[:, 0], rows(self.scaled(top)).max(axis=1))


def float_dtype(*bounds: Bound) -> torch.dtype | None:
    """float32 or float64, whichever is the first in which all of these tensors are exact; ``None`` when
    neither is."""
    largest = max(float(b.magnitude.max()) for b in bounds) * _MARGIN
    small = max(int(b.fracs.max()) for b in bounds)
    tops = [np.log2(np.maximum(b.magnitude, 1.0)) - b.fracs for b in bounds]
    large = max(float(t.max()) for t in tops)
    for dtype, limit in ((torch.float32, FLOAT32_BOUND), (torch.float64, FLOAT64_BOUND)):
        if largest < limit and max(small, large) <= _LARGEST_EXPONENT[dtype]:
            return dtype
    return None


def exact_dtype(where: str, *bounds: Bound) -> torch.dtype:
    """As :func:`float_dtype`.

    Raises:
        QfxError: neither holds the tensors.
    """
    dtype = float_dtype(*bounds)
    if dtype is None:
        largest = max(float(b.magnitude.max()) for b in bounds)
        small = max(int(b.fracs.max()) for b in bounds)
        raise QfxError(
            f"{where}: the result can reach {largest:.3g} steps of 2**-{small}, and a float64 result holds "
            "2**53 of them: end the network with a cast (output=), or run the frozen graph: "
            "qfx.freeze(q).run_codes(x)"
        )
    return dtype
