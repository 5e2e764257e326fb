"""Minifloat formats: sign, exponent and mantissa in a few bits, with subnormals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.rounding import ROUNDING, shift_round

if TYPE_CHECKING:
    import torch

SPECIALS = ("none", "fn", "ieee")
MINIFLOAT_OVERFLOW = ("SAT", "INF")
MAX_EXPONENT_BITS = 8
MAX_MANTISSA_BITS = 10
MAX_BIAS = 300  # keeps every value, and its distance to the next one, a normal double

# dtype -> (bits of the significand, exponent of the smallest subnormal, exponent of the largest binade)
_FLOATS = {
    "float64": (53, -1074, 1023),
    "float32": (24, -149, 127),
    "float16": (11, -24, 15),
    "bfloat16": (8, -133, 127),
}


@dataclass(frozen=True)
class Minifloat(Format):
    """A small binary floating-point format with subnormals.

    A code is, from the top: the sign bit (when signed), ``exponent_bits`` bits ``e`` and ``mantissa_bits``
    bits ``m``. It stands for

    * ``(-1)**s * 2**(e - bias) * (1 + m / 2**mantissa_bits)`` when ``e > 0``,
    * ``(-1)**s * 2**(1 - bias) * m / 2**mantissa_bits`` when ``e == 0``,

    except for the codes that ``specials`` takes away. With ``exponent_bits=0`` every code is of the second
    kind: sign and magnitude.

    Args:
        exponent_bits: 0 to 8.
        mantissa_bits: stored bits of the significand, 0 to 10.
        bias: exponent bias, -300 to 300; one integer, or a sequence with one per channel.
            ``2**(exponent_bits-1) - 1`` when not given (0 without exponent bits); a :class:`qfx.Config` takes
            that as calibrated from data, then learned. One more in the bias halves every number.
        signed: with a sign bit. Without one, negative numbers are cast to 0.
        specials: ``none``: every code is a number (OCP FP4 and FP6). ``fn``: the codes with all exponent and
            mantissa bits set are NaN, there is no infinity (OCP E4M3). ``ieee``: codes with all exponent bits
            set are infinity (``m == 0``) and NaN (others), as in IEEE 754 (OCP E5M2).
        rounding: ``TRN``, ``TRN_ZERO``, ``RND``, ``RND_ZERO``, ``RND_INF``, ``RND_MIN_INF`` or ``RND_CONV``
            with the directions of ``ap_fixed``; ties of ``RND_CONV`` go to the even code, as in IEEE 754.
        overflow: ``SAT``: what lies beyond the range, infinities included, becomes the largest number of that
            sign. ``INF``: it becomes infinity, or NaN in an ``fn`` format; not for ``specials="none"``. As in
            IEEE 754, "beyond the range" is judged after rounding with an unbounded exponent, and a mode that
            rounds a finite number towards zero gives the largest number instead.

    The sign of a zero is kept: -0.0, and negative numbers that are rounded to zero, give the code with only
    the sign bit set; both zeros decode to zeros and hardware treats them alike. NaN becomes the positive NaN
    code ``nan_code``; a format without NaN keeps it in :meth:`quantize` and refuses it in :meth:`encode`,
    like :class:`qfx.FixedPoint`.

    Source: OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0; IEEE 754-2019, sections
        3.4 and 7.4.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | tuple[int, ...] | None = None
    signed: bool = True
    specials: str = "none"
    rounding: str = "RND_CONV"
    overflow: str = "SAT"
    #: Whether the bias was left open.
    bias_open: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "exponent_bits", _integer("exponent_bits", self.exponent_bits, 0, MAX_EXPONENT_BITS)
        )
        object.__setattr__(
            self, "mantissa_bits", _integer("mantissa_bits", self.mantissa_bits, 0, MAX_MANTISSA_BITS)
        )
        object.__setattr__(self, "bias_open", self.bias is None)
        bias: int | tuple[int, ...] = self._default_bias
        if isinstance(self.bias, Sequence | np.ndarray) and not isinstance(self.bias, str):
            bias = tuple(_integer("bias", b, -MAX_BIAS, MAX_BIAS) for b in self.bias)
            if not bias:
                raise QfxError("Minifloat: bias must be integers, one per channel, found an empty sequence")
        elif self.bias is not None:
            bias = _integer("bias", self.bias, -MAX_BIAS, MAX_BIAS)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "signed", bool(self.signed))
        for name, value, known in (
            ("specials", self.specials, SPECIALS),
            ("rounding", self.rounding, tuple(ROUNDING)),
            ("overflow", self.overflow, MINIFLOAT_OVERFLOW),
        ):
            if value not in known:
                raise QfxError(f"Minifloat: unknown {name} {value!r}; supported: {', '.join(known)}")
        if self.overflow == "INF" and self.specials == "none":
            raise QfxError(
                'Minifloat: overflow="INF" needs a code for it; use specials="fn" or "ieee", '
                'or overflow="SAT"'
            )
        if self.specials != "none" and self.exponent_bits == 0:
            raise QfxError(f'Minifloat: specials="{self.specials}" needs at least one exponent bit')
        if self.specials == "ieee" and self.mantissa_bits == 0:
            raise QfxError('Minifloat: specials="ieee" needs a mantissa bit to tell NaN from infinity')
        if self.code_max < 1:
            raise QfxError(
                f"Minifloat: {self.exponent_bits} exponent and {self.mantissa_bits} mantissa "
                "bits hold no number but 0"
            )

    # -- shape of the format -----------------------------------------------------------------------------

    @property
    def width(self) -> int:  # type: ignore[override]
        """Bits of a code."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits

    @property
    def code_max(self) -> int:
        """The code of the largest number. Codes of positive numbers ascend with the number."""
        all_ones = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        if self.specials == "fn":
            return all_ones - 1
        if self.specials == "ieee":
            return all_ones - 2**self.mantissa_bits
        return all_ones

    @property
    def sign_bit(self) -> int:
        """The code with only the sign bit set (negative zero); 0 when unsigned."""
        return 2 ** (self.exponent_bits + self.mantissa_bits) if self.signed else 0

    @property
    def nan_code(self) -> int | None:
        """The code that NaN is encoded as (positive, quiet), or None when the format has no NaN."""
        if self.specials == "none":
            return None
        all_ones = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        # The quiet NaN of IEEE 754: only the top mantissa bit set.
        return all_ones if self.specials == "fn" else self.code_max + 1 + 2 ** (self.mantissa_bits - 1)

    @property
    def infinity_code(self) -> int | None:
        """The code of plus infinity, or None when the format has none."""
        return self.code_max + 1 if self.specials == "ieee" else None

    @property
    def _default_bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1 if self.exponent_bits else 0

    @property
    def learned(self) -> bool:
        """Whether the bias was left open: a :class:`qfx.Config` calibrates it, then learns it."""
        return self.bias_open

    @property
    def min_exponent(self) -> Any:
        """Exponent of the smallest normal number, which subnormal numbers share: ``1 - bias``; an integer, or
        a tuple with one per channel."""
        return tuple(1 - b for b in self.bias) if isinstance(self.bias, tuple) else 1 - self._bias

    @property
    def frac(self) -> Any:
        """Position of the binary point of the finest grid: every number is an integer times ``2**-frac``;
        ``mantissa_bits + bias - 1``, an integer, or a tuple with one per channel."""
        up = self.mantissa_bits - 1
        return tuple(up + b for b in self.bias) if isinstance(self.bias, tuple) else up + self._bias

    def with_frac(self, frac: int | Sequence[int] | None) -> Minifloat:
        """This format with the bias that puts the finest grid at ``2**-frac``; ``None`` leaves it open."""
        if frac is None:
            return replace(self, bias=None)
        down = 1 - self.mantissa_bits
        if isinstance(frac, int | np.integer):
            return replace(self, bias=int(frac) + down)
        return replace(self, bias=tuple(int(f) + down for f in frac))

    @property
    def smallest_subnormal(self) -> Any:
        """The distance of the numbers next to zero, ``2**-frac``; the smallest positive number when there
        are mantissa bits. A float, or a float64 array with one per channel."""
        return _power(-np.asarray(self.frac))

    @property
    def smallest_normal(self) -> Any:
        """``2**(1 - bias)``, the smallest number with a full significand (it lies beyond ``max`` without
        exponent bits). A float, or a float64 array with one per channel."""
        return _power(np.asarray(self.min_exponent))

    @property
    def max(self) -> Any:
        """The largest number: a float, or a float64 array with one per channel."""
        return self.integer_max * self.smallest_subnormal

    @property
    def min(self) -> Any:
        """The smallest number: ``-max``, or 0 when unsigned."""
        return -self.max if self.signed else self.max * 0.0

    # -- the integers ------------------------------------------------------------------------------------

    @property
    def integer_max(self) -> int:
        """The largest number in units of :attr:`smallest_subnormal`."""
        e, m = self.code_max >> self.mantissa_bits, self.code_max & (2**self.mantissa_bits - 1)
        return (m + 2**self.mantissa_bits) << (e - 1) if e else m

    @property
    def integer_min(self) -> int:
        """``-integer_max``, or 0 when unsigned."""
        return -self.integer_max if self.signed else 0

    @property
    def dense_below(self) -> float:
        """Up to here numbers are subnormal or of the first binade, which has the same spacing."""
        return 2.0 ** (self.mantissa_bits + 1) if self.exponent_bits else float("inf")

    @property
    def pass_range(self) -> tuple[float, float]:
        """The range, and half of its last step beyond."""
        last = self.code_max >> self.mantissa_bits
        half = 0.5 * 2.0 ** max(last - 1, 0)
        return self.integer_min - (half if self.signed else 0.5), self.integer_max + half

    def round_scaled(self, scaled: torch.Tensor) -> torch.Tensor:
        """See :meth:`Format.round_scaled`. Infinities saturate."""
        import torch

        from qfx.exact import round_

        self._check_saturating()
        # Far beyond the range only the sign matters; 4 times it still rounds to something beyond.
        scaled = scaled.clamp_(4.0 * self.integer_min, 4.0 * self.integer_max)
        integer, exponent_bits = (
            (torch.int32, 0x7F800000) if scaled.dtype == torch.float32 else (torch.int64, 0x7FF << 52)
        )
        # The power of two below each number, out of its own bits: exact, unlike a logarithm.
        power = scaled.view(integer) & exponent_bits
        step = power.view(scaled.dtype).mul(2.0**-self.mantissa_bits).clamp_(min=1.0)
        significand = scaled.div_(step)
        if self._ties_alternate:
            # The bias of IEEE 754 formats is odd: an even field is an odd exponent.
            down = (significand.abs() == 1.5) & (power & (exponent_bits & -exponent_bits) == 0)
            significand = torch.where(down, significand.sign(), significand)
        rounded = round_(significand, self.rounding).mul_(step)
        return rounded.clamp_(float(self.integer_min), float(self.integer_max))

    def cast_integers(self, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Format.cast_integers`."""
        self._check_saturating()
        results = self.result_points(points)
        shift = _column([p - r for p, r in zip(points, results, strict=True)], codes)
        # Bits that a number has above the grid of the result, beyond those of the significand, are rounded
        # away too.
        extra = bit_length(codes) - shift - (self.mantissa_bits + 1)
        extra = np.maximum(extra, 0).astype(codes.dtype) if self.exponent_bits else codes * 0
        leading = (
            bit_length(codes)
            - 1
            + _column([f - p for f, p in zip(self.fracs(len(points)), points, strict=True)], codes)
        )
        rounded = self.rounded(codes, shift + extra, leading) << extra
        limits = [self.integer_max >> (f - r) for f, r in zip(self.fracs(len(points)), results, strict=True)]
        if codes.dtype != object:
            limits = [min(limit, 1 << 62) for limit in limits]
        limit = _column(limits, codes)
        return np.minimum(np.maximum(rounded, -limit if self.signed else limit * 0), limit)

    def members(self, integers: np.ndarray) -> np.ndarray:
        """Integers in range with at most ``mantissa_bits + 1`` significant bits."""
        magnitude = np.abs(integers)
        extra = np.maximum(bit_length(magnitude) - (self.mantissa_bits + 1), 0)
        extra = extra.astype(integers.dtype) if self.exponent_bits else magnitude * 0
        inside = (integers >= self.integer_min) & (integers <= self.integer_max)
        return np.asarray(inside & ((magnitude >> extra) << extra == magnitude), dtype=bool)

    def rounded(self, codes: np.ndarray, drop: np.ndarray, leading: np.ndarray) -> np.ndarray:
        """``codes * 2**-drop`` rounded to integers.

        Args:
            leading: the exponent of each number's leading bit in units of ``2**-frac``.
        """
        if not self._ties_alternate:
            return shift_round(codes, drop, self.rounding)[0]
        down, up = (shift_round(codes, drop, mode)[0] for mode in ("RND_ZERO", "RND_INF"))
        return np.where(leading & 1 == 1, down, up)

    @property
    def _ties_alternate(self) -> bool:
        """Without mantissa bits every significand is 1: the even code is the one with the even exponent
        field, which is the lower one of two when the exponent in units of ``2**-frac`` is odd."""
        return self.mantissa_bits == 0 and self.rounding == "RND_CONV"

    def _check_saturating(self) -> None:
        if self.overflow != "SAT":
            raise QfxError(
                f'{self}: a network needs overflow="SAT": infinity and NaN have no integers to compute with'
            )

    @property
    def _bias(self) -> int:
        assert isinstance(self.bias, int)
        return self.bias

    def values(self) -> np.ndarray:
        """Every number of the format once, in ascending order, float64; zero once and positive; no infinity,
        no NaN."""
        if self.per_channel:
            raise QfxError(f"{self}: values() needs one bias; take with_frac(...) for one channel")
        positive = self._table[: self.code_max + 1]
        return np.concatenate((-positive[:0:-1], positive)) if self.signed else positive.copy()

    # -- casts -------------------------------------------------------------------------------------------

    def encode(self, x: Any, axis: int = 0) -> Any:
        """The codes that the numbers ``x`` are cast to.

        Args:
            x: number, numpy array or torch tensor of any shape, of a floating or integer dtype.
            axis: where the channels are, when there is one bias per channel.

        Returns:
            int64 of the same kind and shape, each in ``0 .. 2**width - 1``.

        Raises:
            QfxError: for NaN when the format has no code for it; for a dtype that is not a real number.
        """
        xp, wide = self._wide(x)
        nan = xp.isnan(wide)
        if self.nan_code is None and bool(nan.any()):
            place = tuple(int(i) for i in np.argwhere(np.asarray(nan.tolist()))[0])
            raise QfxError(f"{self}: NaN at index {place} has no code; remove NaNs from the data first")
        return self._codes(xp, wide, nan, axis)

    def decode(self, codes: Any, axis: int = 0) -> Any:
        """The numbers that codes stand for: float64 of the same kind (numpy or torch) and shape.

        Args:
            codes: bit patterns, integers of any shape.
            axis: where the channels are, when there is one bias per channel.

        Raises:
            QfxError: when a code lies outside ``0 .. 2**width - 1`` or is not an integer.
        """
        if _is_torch(codes):
            import torch

            if codes.dtype.is_floating_point or codes.dtype.is_complex:
                raise QfxError(f"{self}: codes are integers, found {codes.dtype}")
            self._check_codes(codes)
            numbers = torch.from_numpy(self._table).to(codes.device)[codes.long()]
            return numbers if not self.per_channel else numbers * self._unit(torch, numbers, axis)
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iu":
            raise QfxError(f"{self}: codes are integers, found {codes.dtype}")
        self._check_codes(codes)
        numbers = self._table[codes.astype(np.int64)]
        return numbers if not self.per_channel else numbers * self._unit(np, numbers, axis)

    def quantize(self, x: Any, axis: int = 0) -> Any:
        """The numbers of the format that ``x`` is cast to: ``decode(encode(x))``.

        The result has the kind, shape and floating dtype of ``x`` wherever that dtype holds every number of
        the format, and float64 otherwise (also for integers). NaN stays NaN. No gradient.
        """
        xp, wide = self._wide(x)
        nan = xp.isnan(wide)
        y = self.decode(self._codes(xp, wide, nan, axis), axis)
        if self.nan_code is None:
            y = xp.where(nan, wide, y)
        name = str(getattr(x, "dtype", "float64")).removeprefix("torch.")
        if name == "float64" or not self._fits(name):
            return y
        return y.to(x.dtype) if xp is not np else y.astype(x.dtype)

    def __str__(self) -> str:
        parts = [f"{'' if self.signed else 'U'}E{self.exponent_bits}M{self.mantissa_bits}"]
        if isinstance(self.bias, tuple):
            parts += [f"bias {min(self.bias)}..{max(self.bias)}"]
        else:
            parts += [f"bias {self.bias}"] if self.bias != self._default_bias else []
        parts += [self.specials] if self.specials != "none" else []
        parts += [self.rounding] if self.rounding != "RND_CONV" else []
        parts += [self.overflow] if self.overflow != "SAT" else []
        return " ".join(parts)

    # -- helpers -----------------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> np.ndarray:
        """The number of every code, float64, shape ``(2**width,)``; in units of ``2**-frac`` when there is
        one bias per channel."""
        magnitude = np.arange(2 ** (self.exponent_bits + self.mantissa_bits), dtype=np.int64)
        e, m = magnitude >> self.mantissa_bits, magnitude & (2**self.mantissa_bits - 1)
        significand = np.where(e > 0, m + 2**self.mantissa_bits, m).astype(np.float64)
        unit = 0 if self.per_channel else self.frac
        numbers = np.ldexp(significand, np.maximum(e, 1) - 1 - unit)
        if self.specials == "ieee":
            numbers[self.code_max + 1] = np.inf
        if self.specials != "none":
            numbers[self.code_max + (2 if self.specials == "ieee" else 1) :] = np.nan
        table = np.concatenate((numbers, -numbers)) if self.signed else numbers
        table.flags.writeable = True  # torch.from_numpy warns about arrays that it may not write to
        return table

    def _check_codes(self, codes: Any) -> None:
        size = codes.numel() if _is_torch(codes) else codes.size
        if size and not (int(codes.min()) >= 0 and int(codes.max()) < 2**self.width):
            raise QfxError(
                f"{self}: codes are bit patterns 0..{2**self.width - 1}, found "
                f"{int(codes.min())}..{int(codes.max())}"
            )

    def _fits(self, dtype: str) -> bool:
        if dtype not in _FLOATS:
            return False
        bits, smallest, largest = _FLOATS[dtype]
        finest, top = np.max(self.frac), float(np.max(self.max))
        return bool(self.mantissa_bits + 1 <= bits and -finest >= smallest and top < 2.0**largest * 2)

    def _wide(self, x: Any) -> tuple[Any, Any]:
        """The array module of ``x`` and ``x`` as float64."""
        if _is_torch(x):
            import torch

            x = x.detach()
            if x.dtype.is_complex:
                raise QfxError(f"{self}: cannot cast a tensor of dtype {x.dtype}; give floats or integers")
            self._check_integers(x, not x.dtype.is_floating_point and x.dtype != torch.bool)
            return torch, x.to(torch.float64)
        x = np.asarray(x)
        if x.dtype.kind not in "fiub" or x.dtype.itemsize > 8:
            # ml_dtypes arrays (kind V) and others hold numbers, but float64 is the place to start from.
            raise QfxError(
                f"{self}: cannot cast an array of dtype {x.dtype}; give float64, float32, float16 or integers"
            )
        self._check_integers(x, x.dtype.kind in "iu")
        return np, x.astype(np.float64)

    def _check_integers(self, x: Any, integers: bool) -> None:
        size = x.numel() if _is_torch(x) else x.size
        if integers and size and max(abs(int(x.min())), abs(int(x.max()))) > 1 << 53:
            raise QfxError(f"{self}: integers beyond 2**53 cannot be cast from {x.dtype}")

    def _unit(self, xp: Any, like: Any, axis: int) -> Any:
        """``2**-frac`` per channel, shaped to broadcast against ``like``."""
        shape = [1] * like.ndim
        fracs = np.asarray(self.fracs(like.shape[axis]))
        shape[axis] = len(fracs)
        unit = np.ldexp(1.0, -fracs).reshape(shape)
        return unit if xp is np else xp.from_numpy(unit).to(like.device)

    def _codes(self, xp: Any, x: Any, nan: Any, axis: int) -> Any:
        """Codes of float64 numbers; NaN gives ``nan_code``, or 0 when there is none."""
        int64, float64 = xp.int64, xp.float64
        bits_m = self.mantissa_bits
        if self.per_channel:
            # In units of the finest grid every channel looks alike: bias 0 is the format of that.
            with np.errstate(over="ignore", under="ignore"):
                scaled = x / self._unit(xp, x, axis)
            # What leaves the range of a double stays finite and other than zero.
            for lost, stand_in in (
                ((scaled == 0) & (x != 0), 2.0**-1000),
                (xp.isinf(scaled) & ~xp.isinf(x), 2.0**1000),
            ):
                scaled = xp.where(lost, xp.copysign(xp.full_like(x, stand_in), x), scaled)
            x = scaled
            low = bits_m
        else:
            low = self.min_exponent
        # Two binades above the largest number nothing but the sign matters; far below the smallest subnormal
        # only that it is not zero. Clipping there keeps every power of two below a normal double, so that all
        # scaling is exact.
        top = low + max(2**self.exponent_bits - 2, 0) + 2
        tiny = 2.0 ** (low - bits_m - 3)
        negative = xp.signbit(x)
        a = xp.clip(xp.abs(xp.where(nan, xp.zeros_like(x), x)), 0.0, 2.0**top)
        a = xp.where((a > 0) & (a < tiny), xp.full_like(a, tiny), a)
        # The exponent field of the double itself: exact, unlike a logarithm.
        exponent = xp.clip((a.view(int64) >> 52) - 1023, low, top)
        scale = ((bits_m - exponent + 1023) << 52).view(float64)
        q = a * scale  # significand in units of its last place; below 2**(bits_m + 1)
        floor = xp.floor(q)
        whole = floor.astype(int64) if xp is np else floor.to(int64)
        code = (
            (exponent - low) << bits_m
        ) + whole  # the carry of a rounded significand moves into the exponent by itself
        rest = q - floor
        code = code + self._up(rest, code, negative)
        over = code > self.code_max
        if self.overflow == "SAT":
            code = xp.where(over, xp.full_like(code, self.code_max), code)
        else:
            beyond = self.infinity_code if self.infinity_code is not None else self.nan_code
            assert beyond is not None
            target = xp.full_like(code, beyond)
            towards_zero = self._towards_zero(xp, negative) & ~xp.isinf(x)
            target = xp.where(towards_zero, xp.full_like(code, self.code_max), target)
            code = xp.where(over, target, code)
        if self.signed:
            code = xp.where(
                negative & (code != self.nan_code if self.nan_code is not None else negative),
                code + self.sign_bit,
                code,
            )
        else:
            code = xp.where(negative, xp.zeros_like(code), code)
        if self.nan_code is not None:
            code = xp.where(nan, xp.full_like(code, self.nan_code), code)
        return code

    def _up(self, rest: Any, code: Any, negative: Any) -> Any:
        """Whether the magnitude is rounded up, from the part below its last place (0 <= rest < 1)."""
        mode = self.rounding
        if mode == "TRN":
            return negative & (rest > 0)
        if mode == "TRN_ZERO":
            return rest > 1
        tie = rest == 0.5
        tie_up = {
            "RND": ~negative,
            "RND_ZERO": rest > 1,
            "RND_INF": tie,
            "RND_MIN_INF": negative,
            "RND_CONV": (code & 1) == 1,
        }[mode]
        return (rest > 0.5) | (tie & tie_up)

    def _towards_zero(self, xp: Any, negative: Any) -> Any:
        """Where the rounding mode takes a finite number beyond the range back to the "
        "largest number (IEEE 754, 7.4)."""
        if self.rounding == "TRN":
            return ~negative
        return xp.full_like(negative, self.rounding == "TRN_ZERO")


def bit_length(integers: np.ndarray) -> np.ndarray:
    """Bits of the magnitude of every integer: int64, 0 for 0."""
    magnitude = np.abs(integers)
    if magnitude.dtype == object:
        return np.frompyfunc(int.bit_length, 1, 1)(magnitude).astype(np.int64)
    exponent = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    # Conversion to float64 may round up to the next power of two.
    high = np.maximum(exponent - 1, 0)
    return exponent - ((exponent > 0) & (magnitude >> high == 0))


def _column(values: Sequence[int], like: np.ndarray) -> np.ndarray:
    """One integer per channel, shaped to broadcast along axis 1 of ``like``, in its dtype."""
    return np.asarray(values, dtype=object).astype(like.dtype).reshape(1, -1, *(1,) * (like.ndim - 2))


def _power(exponent: np.ndarray) -> Any:
    numbers = np.ldexp(1.0, exponent)
    return float(numbers) if numbers.ndim == 0 else numbers


def _integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise QfxError(f"Minifloat: {name} must be an integer, found {value!r}")
    if not low <= value <= high:
        raise QfxError(f"Minifloat: {name} {value} is outside {low}..{high}")
    return int(value)


def _is_torch(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch" or hasattr(x, "requires_grad")
