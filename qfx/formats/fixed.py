"""Fixed-point formats with the semantics of ``ap_fixed``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.rounding import OVERFLOW, ROUNDING, cast_codes, code_range, overflow_codes, shift_round

if TYPE_CHECKING:
    import torch

MAX_WIDTH = 62
MAX_FRAC = 256


@dataclass(frozen=True)
class FixedPoint(Format):
    """A fixed-point format: ``ap_fixed<width, width - frac>`` (``ap_ufixed`` when unsigned).

    A code ``c`` stands for ``c * 2**-frac``. The binary point may lie outside the word on either side.

    Args:
        width: bits of a code, 1 to 62.
        frac: fraction bits (position of the binary point), -256 to 256; one integer, or a sequence with one
            per channel.
            ``None`` in a :class:`qfx.Config` means: calibrated from data, then learned.
        signed: two's complement when true.
        rounding: ``TRN``, ``TRN_ZERO``, ``RND``, ``RND_ZERO``, ``RND_INF``, ``RND_MIN_INF`` or ``RND_CONV``,
            as in ``ap_fixed``.
        overflow: ``SAT``, ``SAT_ZERO``, ``SAT_SYM``, ``WRAP`` or ``WRAP_SM``, as in ``ap_fixed`` (no
            saturated bits).

    NaN stays NaN in :meth:`quantize` and is refused by :meth:`encode`. Infinities give the end of the range
    under ``SAT`` and
    ``SAT_SYM`` and 0 under every other overflow mode.

    Source: AMD UG1399 "Vitis HLS User Guide", arbitrary precision fixed-point data types; docs/graph.md,
        section 2.
    """

    width: int
    frac: int | tuple[int, ...] | None = None
    signed: bool = True
    rounding: str = field(default="RND_CONV")
    overflow: str = field(default="SAT")

    def __post_init__(self) -> None:
        if isinstance(self.width, bool) or not isinstance(self.width, int | np.integer):
            raise QfxError(f"FixedPoint: width must be an integer, found {self.width!r}")
        object.__setattr__(self, "width", int(self.width))
        if not 1 <= self.width <= MAX_WIDTH:
            raise QfxError(f"FixedPoint: width {self.width} is outside 1..{MAX_WIDTH}")
        if self.rounding not in ROUNDING:
            raise QfxError(
                f"FixedPoint: unknown rounding {self.rounding!r}; supported: {', '.join(ROUNDING)}"
            )
        if self.overflow not in OVERFLOW:
            raise QfxError(
                f"FixedPoint: unknown overflow {self.overflow!r}; supported: {', '.join(OVERFLOW)}"
            )
        object.__setattr__(self, "signed", bool(self.signed))
        if not self.signed and self.overflow == "WRAP_SM":
            raise QfxError(
                "FixedPoint: WRAP_SM exists for signed formats only (ap_ufixed refuses it too); use WRAP"
            )
        if self.signed and self.width == 1 and self.overflow == "SAT_SYM":
            raise QfxError(
                "FixedPoint: a signed 1-bit format with SAT_SYM holds nothing but 0; use more bits or SAT"
            )
        object.__setattr__(self, "frac", _checked_frac(self.frac))

    # -- the codes
    # --------------------------------------------------------------------------

    @property
    def code_min(self) -> int:
        """The smallest code that a cast to this format gives."""
        return code_range(self.width, self.signed, self.overflow)[0]

    @property
    def code_max(self) -> int:
        """The largest code."""
        return code_range(self.width, self.signed, self.overflow)[1]

    def with_frac(self, frac: int | Sequence[int] | None) -> FixedPoint:
        """This format with another binary point."""
        return replace(self, frac=frac if frac is None or isinstance(frac, int | np.integer) else tuple(frac))

    # -- the integers, which are the codes ---------------------------------------------------------------

    @property
    def integer_min(self) -> int:
        """The smallest code."""
        return self.code_min

    @property
    def integer_max(self) -> int:
        """The largest code."""
        return self.code_max

    def round_scaled(self, scaled: torch.Tensor) -> torch.Tensor:
        """See :meth:`Format.round_scaled`."""
        from qfx.exact import round_

        if self.overflow in ("SAT", "SAT_SYM"):
            return round_(scaled, self.rounding).clamp_(self.code_min, self.code_max)
        before = scaled.clone() if self.overflow == "WRAP_SM" else None
        rounded = round_(scaled, self.rounding)
        outside = (rounded < self.code_min) | (rounded > self.code_max)
        if self.overflow == "SAT_ZERO":
            return rounded.masked_fill_(outside, 0.0)
        # A remainder by a power of two is exact at any size, and keeps the bits that wrapping looks at.
        # Infinities become 0.
        modulus = 2.0 ** (self.width + 1)
        low = _low_bits(rounded, modulus)
        floor = low if before is None else _low_bits(before.floor(), modulus)
        wrapped = overflow_codes(low, floor, self.width, self.signed, self.overflow, outside)
        return wrapped.to(rounded.dtype).where(outside, rounded)

    def cast_integers(self, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Format.cast_integers`."""
        shifts = [p - f for p, f in zip(points, self.fracs(len(points)), strict=True)]
        shift: Any = shifts[0]
        if len(set(shifts)) > 1:
            shift = np.asarray(shifts).astype(codes.dtype).reshape(1, -1, *(1,) * (codes.ndim - 2))
        return cast_codes(codes, shift, self.width, self.signed, self.rounding, self.overflow)

    def result_points(self, points: tuple[int, ...]) -> tuple[int, ...]:
        """The declared binary points, whatever the operand's are."""
        return self.fracs(len(points))

    def cast_interval(
        self, low: np.ndarray, high: np.ndarray, points: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Format.cast_interval`. Wrapping and ``SAT_ZERO`` are not monotonic."""
        ends = np.stack([low, high])
        a, b = self.cast_integers(ends, points)
        if self.overflow in ("SAT", "SAT_SYM"):
            return a, b
        shifts = [p - f for p, f in zip(points, self.fracs(len(points)), strict=True)]
        rounded = np.stack(
            [shift_round(ends[:, i], s, self.rounding)[0] for i, s in enumerate(shifts)], axis=1
        )
        for i, (c, d) in enumerate(rounded.T):
            if self.code_min <= c and d <= self.code_max:
                continue
            if self.overflow == "SAT_ZERO":
                a[i], b[i] = min(0, max(c, self.code_min)), max(0, min(d, self.code_max))
            else:
                a[i], b[i] = self.code_min, self.code_max
        return a, b

    def members(self, integers: np.ndarray) -> np.ndarray:
        """Integers within the range of the word, the code that ``SAT_SYM`` avoids included."""
        low, high = code_range(self.width, self.signed)
        return (integers >= low) & (integers <= high)

    def integers(self, x: Any, axis: int = 0) -> np.ndarray:
        """As :meth:`encode`, for numpy arrays."""
        return self._encode_numpy(np.asarray(x), axis)

    # -- the values --------------------------------------------------------------------------------------

    @property
    def min(self) -> Any:
        """The smallest value: a float, or a float64 array when there is one binary point per channel."""
        return self._scaled(self.code_min)

    @property
    def max(self) -> Any:
        """The largest value: a float, or a float64 array when there is one binary point per channel."""
        return self._scaled(self.code_max)

    def values(self) -> np.ndarray:
        """Every value of the format in ascending order, float64; shape ``(2**width,)`` (one fewer under
        ``SAT_SYM``)."""
        if self.per_channel:
            raise QfxError(f"{self}: values() needs one binary point; take with_frac(...) for one channel")
        if self.width > 24:
            raise QfxError(f"{self}: values() would list 2**{self.width} values; 24 bits at most")
        return np.arange(self.code_min, self.code_max + 1, dtype=np.int64) * self._scaled(1)

    def encode(self, x: Any, axis: int = 0) -> Any:
        """The codes that the values ``x`` are cast to.

        Args:
            x: numpy array, number, or torch tensor of any floating or integer dtype; NaN is refused.
            axis: where the channels are, when there is one binary point per channel.

        Returns:
            int64 of the same kind (numpy or torch) and shape.
        """
        if _is_torch(x):
            import torch

            codes = self._encode_numpy(x.detach().cpu().to(_wide(x)).numpy(), axis)
            return torch.from_numpy(np.ascontiguousarray(codes)).to(x.device)
        return self._encode_numpy(np.asarray(x), axis)

    def decode(self, codes: Any, axis: int = 0) -> Any:
        """The values of codes: float64 of the same kind (numpy or torch) and shape. Exact up to 53 bits."""
        if _is_torch(codes):
            import torch

            return torch.from_numpy(np.asarray(self.decode(codes.detach().cpu().numpy(), axis))).to(
                codes.device
            )
        codes = np.asarray(codes)
        return codes.astype(np.float64) * np.ldexp(1.0, -self._shape_frac(codes.ndim, axis))

    def quantize(self, x: Any, axis: int = 0) -> Any:
        """The nearest values of the format, by its rounding and overflow modes.

        The result has the kind, shape and floating dtype of ``x`` wherever that dtype holds every value of
        the format (float32 up to
        24 bits), and float64 otherwise. NaN stays NaN. No gradient: trainable quantizers are in
        :mod:`qfx.nn`.
        """
        if _is_torch(x):
            import torch

            wide = x.detach().cpu().to(_wide(x)).numpy()
            values = torch.from_numpy(self._quantize_numpy(wide, axis)).to(x.device)
            return values.to(x.dtype) if self._fits(str(x.dtype).removeprefix("torch.")) else values
        x = np.asarray(x)
        y = self._quantize_numpy(x, axis)
        return y.astype(x.dtype) if self._fits(str(x.dtype)) else y

    @property
    def short(self) -> str:
        """The type without its modes: ``ap_fixed<8,3>``."""
        if self.frac is None:
            where = "?"
        elif isinstance(self.frac, tuple):
            low, high = min(self.frac), max(self.frac)
            where = f"{self.width - high}..{self.width - low}"
        else:
            where = str(self.width - self.frac)
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width},{where}>"

    def __str__(self) -> str:
        return f"{self.short[:-1]},{self.rounding},{self.overflow}>"

    # -- helpers -----------------------------------------------------------------------------------------

    def _scaled(self, code: int) -> Any:
        frac = self._frac()
        if isinstance(frac, int):
            return float(np.ldexp(float(code), -frac))
        return np.ldexp(float(code), -np.asarray(frac))

    def _shape_frac(self, ndim: int, axis: int) -> Any:
        frac = self._frac()
        if isinstance(frac, int):
            return np.asarray(frac)
        shape = [1] * ndim
        shape[axis] = len(frac)
        return np.asarray(frac).reshape(shape)

    def _fits(self, dtype: str) -> bool:
        mantissa = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}.get(dtype)
        if mantissa is None:
            return False
        fracs = self._frac()
        exponents = list(fracs if isinstance(fracs, tuple) else (fracs,))
        low, high = {
            "float64": (-1022, 1023),
            "float32": (-126, 127),
            "float16": (-14, 15),
            "bfloat16": (-126, 127),
        }[dtype]
        return self.width <= mantissa and all(-f >= low and self.width - f <= high for f in exponents)

    def _quantize_numpy(self, x: np.ndarray, axis: int) -> np.ndarray:
        nan = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, dtype=bool)
        y = np.asarray(self.decode(self._encode_numpy(np.where(nan, x.dtype.type(0), x), axis), axis))
        return np.where(nan, np.nan, y)

    def _encode_numpy(self, x: np.ndarray, axis: int) -> np.ndarray:
        if x.dtype.kind not in "fiub":
            raise QfxError(f"{self}: cannot encode an array of dtype {x.dtype}; give floats or integers")
        if x.dtype.kind in "iu" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > 1 << 53:
            raise QfxError(f"{self}: integers beyond 2**53 cannot be encoded from {x.dtype}")
        x = x.astype(np.float64)
        if np.isnan(x).any():
            place = tuple(int(i) for i in np.argwhere(np.isnan(x))[0])
            raise QfxError(f"{self}: NaN at index {place} has no code; remove NaNs from the data first")
        with np.errstate(over="ignore", under="ignore"):
            scaled = np.ldexp(x, self._shape_frac(x.ndim, axis))
        # A product too small for a double only keeps its sign and that it is not zero; that is all that
        # rounding asks of it.
        scaled = np.where((scaled == 0) & (x != 0), np.copysign(2.0**-1000, x), scaled)
        infinite = np.isinf(scaled)
        floor = np.floor(np.where(infinite, 0.0, scaled))
        rounded = np.where(infinite, 0.0, round_real(np.where(infinite, 0.0, scaled), self.rounding))
        if self.overflow in ("SAT", "SAT_SYM", "SAT_ZERO"):
            # Powers of two, unlike code_max, are exact as doubles at every width.
            top = 2.0 ** (self.width - 1) if self.signed else 2.0**self.width
            bottom = -top if self.signed else 0.0
            over, under = rounded >= top, rounded < bottom
            over |= infinite & (scaled > 0)
            under |= infinite & (scaled < 0)
            codes = np.where(over | under, 0.0, rounded).astype(np.int64)
            if self.overflow == "SAT_ZERO":
                return codes
            codes = np.where(over, self.code_max, np.where(under, self.code_min, codes))
            return np.maximum(codes, self.code_min)
        # Wrapping looks at the low bits only: fmod by 2**(width+1) is exact and keeps them and the lowest
        # deleted bit.
        modulus = 2.0 ** (self.width + 1)
        outside = (rounded < self.code_min) | (rounded > self.code_max)
        low, low_floor = _exact_low_bits(rounded, modulus), _exact_low_bits(floor, modulus)
        codes = overflow_codes(low, low_floor, self.width, self.signed, self.overflow, outside)
        return np.where(outside, codes, np.where(outside, 0.0, rounded).astype(np.int64))


def _low_bits(codes: torch.Tensor, modulus: float) -> torch.Tensor:
    import torch

    return torch.fmod(codes, modulus).nan_to_num_(0.0).to(torch.int64)


def _exact_low_bits(values: np.ndarray, modulus: float) -> np.ndarray:
    return np.fmod(values, modulus).astype(np.int64)


def round_real(x: np.ndarray, rounding: str) -> np.ndarray:
    """Round float64 values to integers, exactly.

    The distance to the floor of a small negative number is not always a double; the distance to the nearest
    integer is, and it tells ties: +0.5 where the tie went down, -0.5 where it went up.
    """
    if rounding == "RND_CONV":
        return np.rint(x)
    if rounding == "TRN":
        return np.floor(x)
    if rounding == "TRN_ZERO":
        return np.trunc(x)
    nearest = np.rint(x)
    rest = x - nearest
    up, down = rest == 0.5, rest == -0.5
    if rounding == "RND":
        return nearest + up
    if rounding == "RND_MIN_INF":
        return nearest - down
    if rounding == "RND_ZERO":
        return nearest + (up & (x < 0)) - (down & (x > 0)).astype(np.float64)
    return nearest + (up & (x > 0)) - (down & (x < 0)).astype(np.float64)


def smallest_format(low: int, high: int, frac: int | tuple[int, ...] | None = 0) -> FixedPoint:
    """The narrowest format whose codes include ``low`` and ``high``.

    Raises:
        QfxError: when that takes more than 62 bits.
    """
    signed = bool(low < 0)
    width = max(1, max(high, 0).bit_length() + signed, (-low - 1).bit_length() + 1 if signed else 0)
    if width > MAX_WIDTH:
        raise QfxError(
            f"codes {low}..{high} need {width} bits; {MAX_WIDTH} is the most that a tensor "
            "can have: narrow the operands"
        )
    return FixedPoint(width, frac, signed)


def _checked_frac(frac: object) -> int | tuple[int, ...] | None:
    if frac is None:
        return None
    if isinstance(frac, int | np.integer) and not isinstance(frac, bool):
        if abs(int(frac)) > MAX_FRAC:
            raise QfxError(f"FixedPoint: frac {frac} is outside -{MAX_FRAC}..{MAX_FRAC}")
        return int(frac)
    if isinstance(frac, Sequence | np.ndarray) and not isinstance(frac, str):
        if not len(frac) or not all(isinstance(f, int | np.integer) for f in frac):
            raise QfxError(f"FixedPoint: frac must be integers, one per channel, found {frac!r}")
        outside = [int(f) for f in frac if abs(f) > MAX_FRAC]
        if outside:
            raise QfxError(f"FixedPoint: frac {outside[0]} is outside -{MAX_FRAC}..{MAX_FRAC}")
        return tuple(int(f) for f in frac)
    raise QfxError(f"FixedPoint: frac must be an integer, a sequence of integers, or None, found {frac!r}")


def _is_torch(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch" or hasattr(x, "requires_grad")


def _wide(x: torch.Tensor) -> torch.dtype:
    """A numpy-compatible dtype that holds every value of ``x`` exactly."""
    import torch

    return torch.float64 if x.dtype.is_floating_point else torch.int64
