"""What formats share whose numbers are a set of integers times one power of two: scaling, dtypes, bounds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format

MAX_FRAC = 256

# dtype -> (bits of the significand, exponent of the smallest subnormal, exponent of the largest binade)
_FLOATS = {
    "float64": (53, -1074, 1023),
    "float32": (24, -149, 127),
    "float16": (11, -24, 15),
    "bfloat16": (8, -133, 127),
}


class ScaledFormat(Format):
    """A format that says how a number in units of ``2**-frac`` is projected to its integers.

    All integers are below 2**53 in magnitude, so that a double holds every number.
    """

    frac: int | tuple[int, ...] | None

    @abstractmethod
    def _project(self, scaled: np.ndarray) -> np.ndarray:
        """The integers (as float64) that float64 numbers in units of ``2**-frac`` are cast to; no NaN."""

    @abstractmethod
    def _all_integers(self) -> np.ndarray:
        """Every integer of the format in ascending order, int64."""

    @property
    def min(self) -> Any:
        """The smallest number: a float, or a float64 array when there is one binary point per channel."""
        return self._scaled(self.integer_min)

    @property
    def max(self) -> Any:
        """The largest number: a float, or a float64 array when there is one binary point per channel."""
        return self._scaled(self.integer_max)

    def values(self) -> np.ndarray:
        """Every number of the format in ascending order, float64."""
        if self.per_channel:
            raise QfxError(f"{self}: values() needs one binary point; take with_frac(...) for one channel")
        return self._all_integers() * self._scaled(1)

    def quantize(self, x: Any, axis: int = 0) -> Any:
        """The numbers of the format that ``x`` is cast to.

        Args:
            x: number, numpy array or torch tensor of any shape, of a floating or integer dtype.
            axis: where the channels are, when there is one binary point per channel.

        Returns:
            the kind, shape and floating dtype of ``x`` wherever that dtype holds every number of the
            format, float64 otherwise (also for integers). NaN stays NaN. No gradient.
        """
        if is_torch(x):
            import torch

            numbers = torch.from_numpy(self._quantize(to_numpy(x), axis)).to(x.device)
            return numbers.to(x.dtype) if self._fits(str(x.dtype).removeprefix("torch.")) else numbers
        array = np.asarray(x)
        y = self._quantize(array, axis)
        return y.astype(array.dtype) if self._fits(str(array.dtype)) else y

    def _quantize(self, x: np.ndarray, axis: int) -> np.ndarray:
        wide = real_numbers(self, x)
        nan = np.isnan(wide)
        y = self._project(self._to_units(np.where(nan, 0.0, wide), axis))
        return np.where(nan, np.nan, np.ldexp(y, -self._shaped_fracs(y.ndim, axis)))

    def _encoded_integers(self, x: Any, axis: int) -> np.ndarray:
        """The int64 integers that ``x`` is cast to; NaN is refused."""
        wide = real_numbers(self, to_numpy(x) if is_torch(x) else np.asarray(x))
        refuse_nan(self, wide)
        return self._project(self._to_units(wide, axis)).astype(np.int64)

    def _to_units(self, x: np.ndarray, axis: int) -> np.ndarray:
        with np.errstate(over="ignore", under="ignore"):
            scaled = np.ldexp(x, self._shaped_fracs(x.ndim, axis))
        # A product too small for a double keeps its sign and that it is not zero.
        return np.where((scaled == 0) & (x != 0), np.copysign(2.0**-1000, x), scaled)

    def _scaled(self, integer: int) -> Any:
        frac = self._frac()
        return (
            float(np.ldexp(float(integer), -frac))
            if isinstance(frac, int)
            else np.ldexp(float(integer), -np.asarray(frac))
        )

    def _shaped_fracs(self, ndim: int, axis: int) -> np.ndarray:
        frac = self._frac()
        if isinstance(frac, int):
            return np.asarray(frac)
        shape = [1] * ndim
        shape[axis] = len(frac)
        return np.asarray(frac).reshape(shape)

    def _fits(self, dtype: str) -> bool:
        if dtype not in _FLOATS:
            return False
        bits, smallest, largest = _FLOATS[dtype]
        fracs = self._frac()
        fracs = fracs if isinstance(fracs, tuple) else (fracs,)
        top = max(self.integer_max, -self.integer_min).bit_length()
        return top <= bits and -max(fracs) >= smallest and top - 1 - min(fracs) <= largest


def checked_frac(name: str, frac: object) -> int | tuple[int, ...] | None:
    """A binary point as constructors take it: an integer, a sequence with one per channel, or ``None``.

    Raises:
        QfxError: something else, or outside -256..256.
    """
    if frac is None:
        return None
    many = isinstance(frac, Sequence | np.ndarray) and not isinstance(frac, str)
    fracs: list[Any] = list(frac) if isinstance(frac, Sequence | np.ndarray) and many else [frac]
    if not fracs or any(isinstance(f, bool) or not isinstance(f, int | np.integer) for f in fracs):
        raise QfxError(f"{name}: frac must be an integer, a sequence of integers, or None, found {frac!r}")
    outside = [int(f) for f in fracs if abs(int(f)) > MAX_FRAC]
    if outside:
        raise QfxError(f"{name}: frac {outside[0]} is outside -{MAX_FRAC}..{MAX_FRAC}")
    return tuple(int(f) for f in fracs) if many else int(fracs[0])


def checked_integer(name: str, what: str, value: object, low: int, high: int) -> int:
    """An integer argument of a constructor within its bounds.

    Raises:
        QfxError: not an integer, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise QfxError(f"{name}: {what} must be an integer, found {value!r}")
    if not low <= value <= high:
        raise QfxError(f"{name}: {what} {value} is outside {low}..{high}")
    return int(value)


def real_numbers(fmt: object, x: np.ndarray) -> np.ndarray:
    """An array of real numbers as float64.

    Raises:
        QfxError: another dtype; integers that a double does not hold.
    """
    if x.dtype.kind not in "fiub" or x.dtype.itemsize > 8:
        raise QfxError(
            f"{fmt}: cannot cast an array of dtype {x.dtype}; give float64, float32, float16 or integers"
        )
    if x.dtype.kind in "iu" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > 1 << 53:
        raise QfxError(f"{fmt}: integers beyond 2**53 cannot be cast from {x.dtype}")
    return x.astype(np.float64)


def refuse_nan(fmt: object, x: np.ndarray) -> None:
    """Raise :class:`QfxError` that names the first NaN."""
    if np.isnan(x).any():
        place = tuple(int(i) for i in np.argwhere(np.isnan(x))[0])
        raise QfxError(f"{fmt}: NaN at index {place} has no code; remove NaNs from the data first")


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor; does not import torch."""
    return type(x).__module__.partition(".")[0] == "torch" or hasattr(x, "requires_grad")


def to_numpy(x: Any) -> np.ndarray:
    """A torch tensor as an array that holds the same numbers; no gradient."""
    import torch

    if x.dtype.is_complex:
        raise QfxError(f"cannot cast a tensor of dtype {x.dtype}; give floats or integers")
    wide = torch.float64 if x.dtype.is_floating_point else torch.int64
    return x.detach().cpu().to(wide).numpy()
