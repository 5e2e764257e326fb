"""K-hot numbers: integers with few nonzero digits, which multiply by shifts and adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qfx.errors import QfxError
from qfx.formats.scaled import ScaledFormat, checked_frac, checked_integer, is_torch, to_numpy

if TYPE_CHECKING:
    import torch

DIGITS = ("csd", "binary")
MAX_WIDTH = 53  # a double holds every number
#: Magnitudes in the table of a format: every format of up to 24 bits, and wider ones with small ``k``.
MAX_MAGNITUDES = 1 << 23
# Up to here a cast looks up the answer, which is faster than a search, in a table of half a megabyte.
_MAX_DIRECT_BITS = 14


@dataclass(frozen=True)
class KHot(ScaledFormat):
    """Integers with at most ``k`` nonzero digits, times ``2**-frac``.

    A product with such a number is a sum of ``k`` shifted copies: ``k`` shifts, ``k - 1`` adders, no
    multiplier.

    Args:
        width: bits of the integers, 2 to 53: they lie in ``-(2**(width-1) - 1) .. 2**(width-1) - 1``, or in
            ``0 .. 2**width - 1`` when unsigned (then 1 to 52).
        frac: position of the binary point, -256 to 256; one integer, or a sequence with one per channel.
            ``None`` in a :class:`qfx.Config` means: calibrated from data, then learned.
        k: the largest number of nonzero digits, at least 1.
        digits: ``csd``: digits -1, 0 and 1, in the canonical signed digit form, which has the fewest
            nonzero digits of all such forms; ``binary``: the ones of the magnitude.
        signed: whether there are numbers below zero.

    A cast gives the nearest number of the format, found in a table of all of them (a greedy choice of one
    digit after the other is not always nearest). Of two equally near numbers it gives the one with
    fewer nonzero digits, and when these are as many, the one with the smaller magnitude. Beyond the range it
    gives the end of the range, for infinities too.

    Raises:
        QfxError: arguments outside these bounds, or a format with more than 2**23 magnitudes.

    Source: canonical signed digits: G. W. Reitwiesner, "Binary arithmetic", Advances in Computers 1, 1960;
        numbers with few ones in place of multipliers: D. Dai et al., "Trainable fixed-point quantization for
        deep learning acceleration on FPGAs" (QFX), arXiv 2401.17544.
    """

    width: int
    frac: int | tuple[int, ...] | None = None
    k: int = 0
    digits: str = "csd"
    signed: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "signed", bool(self.signed))
        least, most = (2, MAX_WIDTH) if self.signed else (1, MAX_WIDTH - 1)
        object.__setattr__(self, "width", checked_integer("KHot", "width", self.width, least, most))
        object.__setattr__(self, "frac", checked_frac("KHot", self.frac))
        object.__setattr__(self, "k", checked_integer("KHot", "k (nonzero digits)", self.k, 1, MAX_WIDTH))
        if self.digits not in DIGITS:
            raise QfxError(f"KHot: unknown digits {self.digits!r}; supported: {', '.join(DIGITS)}")
        count = _count(self._bits, self.k, self.digits)
        if count > MAX_MAGNITUDES:
            raise QfxError(
                f"KHot: {self.width} bits with {self.k} nonzero digits are about {count} numbers, too many "
                f"for the table of a nearest-number cast ({MAX_MAGNITUDES}); use fewer bits or digits, or "
                "FixedPoint"
            )

    def with_frac(self, frac: int | Sequence[int] | None) -> KHot:
        """This format with another binary point; ``None`` leaves it open."""
        return replace(self, frac=frac)  # type: ignore[arg-type]

    # -- the integers ------------------------------------------------------------------------------------

    @property
    def integer_min(self) -> int:
        """The smallest number as an integer: ``-integer_max``, or 0 when unsigned."""
        return -self.integer_max if self.signed else 0

    @property
    def integer_max(self) -> int:
        """The largest number as an integer. All ones are two signed digits: ``2**bits - 1``."""
        every = (1 << self._bits) - 1
        if self.digits == "csd":
            return every if self.k > 1 else 1 << (self._bits - 1)
        return every >> max(self._bits - self.k, 0) << max(self._bits - self.k, 0)

    @property
    def dense_below(self) -> float:
        """The integer before the first gap, ``inf`` when there is none."""
        magnitudes = self._table.magnitudes
        if len(magnitudes) == 1 << self._bits:
            return float("inf")
        # Before the first gap every magnitude equals its place in the table.
        return float(np.count_nonzero(magnitudes == np.arange(len(magnitudes))) - 1)

    @property
    def pass_range(self) -> tuple[float, float]:
        """The range, and half of its last step beyond."""
        magnitudes = self._table.magnitudes
        half = float(magnitudes[-1] - magnitudes[-2]) / 2
        return (self.integer_min - half if self.signed else -0.5), self.integer_max + half

    def round_scaled(self, scaled: torch.Tensor) -> torch.Tensor:
        """See :meth:`Format.round_scaled`. NaN stays NaN."""
        import torch

        if self._bits <= _MAX_DIRECT_BITS:
            # Midpoints are halves: the floor and the ceiling of twice a number tell where it belongs.
            end, table = _direct_table(*self._key, self.signed, scaled.dtype, str(scaled.device))
            doubled = (scaled * 2.0).clamp_(-end, end).nan_to_num_(nan=end + 1.0)
            place = doubled.floor().add_(doubled.ceil_()).add_(2.0 * end).to(torch.int32)
            return torch.index_select(table, 0, place.flatten()).view_as(scaled)
        bounds, magnitudes = _torch_table(*self._key, scaled.dtype, str(scaled.device))
        magnitude = scaled.abs() if self.signed else scaled.clamp(min=0.0)
        nearest = magnitudes[torch.bucketize(magnitude, bounds, right=True)]
        if self.signed:
            nearest = nearest.copysign_(scaled)
        return torch.where(scaled.isnan(), scaled, nearest)

    def cast_integers(self, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Format.cast_integers`. Exact: codes are compared with midpoints as integers."""
        fracs, results = self.fracs(len(points)), self.result_points(points)
        integers = np.empty(codes.shape, dtype=np.int64)
        shifts = [p - f for p, f in zip(points, fracs, strict=True)]
        for shift in set(shifts):
            channels = [i for i, s in enumerate(shifts) if s == shift]
            integers[:, channels] = self._nearest(codes[:, channels], shift)
        down = np.asarray([f - r for f, r in zip(fracs, results, strict=True)])
        # Nothing is lost here: see Format.result_points.
        return (integers >> down.reshape(1, -1, *(1,) * (codes.ndim - 2))).astype(codes.dtype)

    def members(self, integers: np.ndarray) -> np.ndarray:
        """Integers within the range that have at most ``k`` nonzero digits."""
        inside = (integers >= self.integer_min) & (integers <= self.integer_max)
        magnitude = np.abs(np.where(inside, integers, 0)).astype(np.int64)
        return np.asarray(inside, dtype=bool) & (digit_counts(magnitude, self.digits) <= self.k)

    def adders(self, integers: Any) -> tuple[np.ndarray, np.ndarray]:
        """Shifts and adders that a product with each integer costs.

        Args:
            integers: numbers of the format in units of ``2**-frac``, any shape.

        Returns:
            (shifts, adders): int64 of the same shape; a number with n nonzero digits takes n shifts and
            n - 1 adders (a shift is wiring where the number is a constant); 0 takes none.

        Raises:
            QfxError: an integer that is not a number of the format.
        """
        array = np.asarray(integers)
        outside = ~self.members(array)
        if outside.any():
            place = tuple(int(i) for i in np.argwhere(outside)[0])
            raise QfxError(f"{self}: {array[place]} at index {place} is not a number of the format")
        shifts = digit_counts(np.abs(array).astype(np.int64), self.digits)
        return shifts, np.maximum(shifts - 1, 0)

    # -- bits --------------------------------------------------------------------------------------------

    @property
    def shift_bits(self) -> int:
        """Bits of a shift amount: enough for the highest digit of any number."""
        places, _ = self._digits(np.array([self.integer_max]))
        return int(places[0][0]).bit_length()

    @property
    def encoded_width(self) -> int:
        """Bits of a code of :meth:`encode`."""
        common = int(self.signed and self.digits == "binary")
        return common + self.k * (1 + int(self.digits == "csd") + self.shift_bits)

    def encode(self, x: Any, axis: int = 0) -> Any:
        """The codes that the numbers ``x`` are cast to: which shifts to add and subtract.

        A code has ``k`` slots, slot 0 in its lowest bits. From its lowest bit, a slot holds: whether it is
        used; for ``csd`` whether its digit is -1; the shift amount in ``shift_bits`` bits. Digits fill the
        slots from the most significant digit on; unused slots are 0. For signed ``binary`` numbers one sign
        bit above all slots stands for all digits.

        Args:
            x: number, numpy array or torch tensor of any shape, of a floating or integer dtype.
            axis: where the channels are, when there is one binary point per channel.

        Returns:
            int64 of the same kind and shape, each in ``0 .. 2**encoded_width - 1``.

        Raises:
            QfxError: NaN; a code of more than 62 bits.
        """
        if is_torch(x):
            import torch

            return torch.from_numpy(self.encode(to_numpy(x), axis)).to(x.device)
        self._check_encodable()
        integers = self._encoded_integers(x, axis)
        places, negative = self._digits(np.abs(integers))
        slot = 1 + int(self.digits == "csd") + self.shift_bits
        codes = np.zeros(integers.shape, dtype=np.int64)
        flip = integers < 0
        for i in range(self.k):
            used = places[i] >= 0
            shift = np.where(used, places[i], 0)
            if self.digits == "csd":
                shift = shift << 1 | (negative[i] ^ flip) & used
            codes |= (shift << 1 | used) << (slot * i)
        if self.signed and self.digits == "binary":
            codes |= flip.astype(np.int64) << (slot * self.k)
        return codes

    def decode(self, codes: Any, axis: int = 0) -> Any:
        """The numbers that codes stand for: float64 of the same kind (numpy or torch) and shape.

        Digits may be in any slots. Shift and sign of an unused slot are ignored.

        Args:
            codes: integers of any shape, laid out as in :meth:`encode`.
            axis: where the channels are, when there is one binary point per channel.

        Raises:
            QfxError: codes that are not integers, have bits outside the layout, or whose digits add up to
                something that is not a number of the format.
        """
        if is_torch(codes):
            import torch

            if codes.dtype.is_floating_point or codes.dtype.is_complex:
                raise QfxError(f"{self}: codes are integers, found {codes.dtype}")
            return torch.from_numpy(np.asarray(self.decode(to_numpy(codes), axis))).to(codes.device)
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iu":
            raise QfxError(f"{self}: codes are integers, found {codes.dtype}")
        self._check_encodable()
        outside = (codes < 0) | (codes >= 1 << self.encoded_width)
        signed_slots = int(self.digits == "csd")
        slot = 1 + signed_slots + self.shift_bits
        total = np.zeros(codes.shape, dtype=np.int64)
        codes = codes.astype(np.int64)
        for i in range(self.k):
            field = codes >> (slot * i)
            used, field = field & 1, field >> 1
            sign = 1 - 2 * (field & 1) if signed_slots else 1
            total += used * sign * (1 << (field >> signed_slots & ((1 << self.shift_bits) - 1)))
        if self.signed and not signed_slots:
            total *= 1 - 2 * (codes >> (slot * self.k) & 1)
        outside |= ~self.members(total)
        if outside.any():
            place = tuple(int(i) for i in np.argwhere(outside)[0])
            raise QfxError(f"{self}: {codes[place]:#x} at index {place} is not a code of the format")
        return np.ldexp(total.astype(np.float64), -self._shaped_fracs(total.ndim, axis))

    def __str__(self) -> str:
        point = f"frac {self.frac}" if isinstance(self.frac, int) else "frac ?"
        if isinstance(self.frac, tuple):
            point = f"frac {min(self.frac)}..{max(self.frac)}"
        sign = "" if self.signed else "U"
        return f"{sign}KHot<{self.width},{point},k {self.k},{self.digits}>"

    # -- helpers -----------------------------------------------------------------------------------------

    @property
    def _bits(self) -> int:
        return self.width - int(self.signed)

    @property
    def _key(self) -> tuple[int, int, str]:
        return self._bits, self.k, self.digits

    @property
    def _table(self) -> Table:
        return _table(*self._key)

    def _all_integers(self) -> np.ndarray:
        positive = self._table.magnitudes
        return np.concatenate((-positive[:0:-1], positive)) if self.signed else positive.copy()

    def _project(self, scaled: np.ndarray) -> np.ndarray:
        magnitude = np.abs(scaled) if self.signed else np.maximum(scaled, 0.0)
        index = np.searchsorted(_float_bounds(*self._key, "float64"), magnitude, side="right")
        nearest = self._table.magnitudes[index].astype(np.float64)
        return np.where(np.signbit(scaled), -nearest, nearest) if self.signed else nearest

    def _nearest(self, codes: np.ndarray, shift: int) -> np.ndarray:
        """``codes * 2**-shift`` cast to int64 integers in units of ``2**-frac``."""
        magnitude = np.abs(codes) if self.signed else np.maximum(codes, 0)
        # Past the end a little more or less makes no difference, and leaves room for shifting.
        top = self.integer_max
        if shift <= 0:
            up = min(-shift, 62)
            magnitude = np.minimum(magnitude, (top >> up) + 1)
            doubled = np.minimum(magnitude.astype(object) << (up + 1), 2 * top + 2).astype(np.int64)
            rest = np.zeros(codes.shape, dtype=bool)
        else:
            down = shift - 1 if codes.dtype == object else min(shift - 1, 62)
            whole = magnitude >> down
            rest = np.asarray(whole << down != magnitude, dtype=bool)
            doubled = np.minimum(whole, 2 * top + 2).astype(np.int64)
        # Four times the number, rounded so that it compares with four times a midpoint as the number does:
        # what lies strictly between two doubled integers becomes the odd number between.
        key = 2 * doubled + rest
        table = self._table
        index = np.searchsorted(2 * table.middles + ~table.tie_up, key, side="right")
        nearest = table.magnitudes[index]
        return np.where(codes < 0, -nearest, nearest) if self.signed else nearest

    def _digits(self, magnitude: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Position (-1: none) and sign of up to ``k`` digits, the most significant first."""
        ones, minus = _csd(magnitude) if self.digits == "csd" else (magnitude, magnitude * 0)
        both = ones | minus
        places, negative = [], []
        for _ in range(self.k):
            place = np.frexp(both.astype(np.float64))[1].astype(np.int64) - 1
            digit = np.where(place >= 0, np.int64(1) << np.maximum(place, 0), 0)
            places.append(place)
            negative.append((minus & digit) != 0)
            both = both & ~digit
        return places, negative

    def _check_encodable(self) -> None:
        if self.encoded_width > 62:
            raise QfxError(
                f"{self}: {self.k} slots take {self.encoded_width} bits; codes hold 62. Use fewer digits, or "
                "the integers themselves (integers())"
            )


def PowerOfTwo(width: int, frac: int | Sequence[int] | None = None) -> KHot:  # noqa: N802
    """0 and ``2**(e - frac)``, ``e`` from 0 to ``width - 2``, of both signs: a product is one shift."""
    return KHot(width, frac, k=1)  # type: ignore[arg-type]


def Ternary(frac: int | Sequence[int] | None = None) -> KHot:  # noqa: N802
    """-1, 0 and 1, times ``2**-frac``: the smallest K-hot format."""
    return KHot(2, frac, k=1)  # type: ignore[arg-type]


def digit_counts(magnitude: np.ndarray, digits: str) -> np.ndarray:
    """The nonzero digits of int64 integers of 0 or more (below 2**60): int64 of the same shape."""
    both = np.bitwise_or(*_csd(magnitude)) if digits == "csd" else magnitude
    return np.bitwise_count(both).astype(np.int64)


def _csd(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where canonical signed digits are 1 and where they are -1 (Reitwiesner's non-adjacent form)."""
    half = magnitude >> 1
    sum_ = magnitude + half
    nonzero = half ^ sum_
    return sum_ & nonzero, half & nonzero


def _count(bits: int, k: int, digits: str) -> int:
    """How many magnitudes of ``bits`` bits have at most ``k`` nonzero digits; an upper bound for csd."""
    if digits == "binary":
        return sum(math.comb(bits, j) for j in range(min(k, bits) + 1))
    # No two neighbours of bits + 1 digits are nonzero; all but the highest have either sign.
    places = bits + 1
    ways = (math.comb(places - j + 1, j) << max(j - 1, 0) for j in range(min(k, (places + 1) // 2) + 1))
    return min(1 << bits, sum(ways))


class Table(NamedTuple):
    """Every magnitude of a format in ascending order (int64, from 0); for each two neighbours their sum, and
    whether the number halfway between them goes up."""

    magnitudes: np.ndarray
    middles: np.ndarray
    tie_up: np.ndarray


@lru_cache(maxsize=32)
def _table(bits: int, k: int, digits: str) -> Table:
    magnitudes = _magnitudes(bits, k, digits)
    counts = digit_counts(magnitudes, digits)
    return Table(magnitudes, magnitudes[:-1] + magnitudes[1:], counts[1:] < counts[:-1])


def _magnitudes(bits: int, k: int, digits: str) -> np.ndarray:
    if bits <= 12 or _count(bits, k, digits) > 1 << max(bits - 3, 0):
        # A large part of all: leave out the others.
        every = np.arange(1 << bits, dtype=np.int64)
        return every[digit_counts(every, digits) <= k]
    # Digit by digit, from the most significant one on: every number once. `lowest[q]` are those whose last
    # digit is at place q; the next digit is below it, for csd not next to it.
    gap, signs = (2, (1, -1)) if digits == "csd" else (1, (1,))
    lowest = [np.array([1 << q], dtype=np.int64) for q in range(bits + (digits == "csd"))]
    found = [np.zeros(1, dtype=np.int64), *lowest]
    for _ in range(k - 1):
        grown = []
        for q in range(len(lowest)):
            above = np.concatenate([np.zeros(0, dtype=np.int64), *lowest[q + gap :]])
            grown.append(np.concatenate([above + sign * (1 << q) for sign in signs]))
        lowest = grown
        found += lowest
    magnitudes = np.concatenate(found)
    return np.sort(magnitudes[magnitudes < 1 << bits])


@lru_cache(maxsize=64)
def _float_bounds(bits: int, k: int, digits: str, dtype: str) -> np.ndarray:
    """For each two neighbours: the smallest number of a float dtype that goes to the upper one."""
    table = _table(bits, k, digits)
    doubled = table.middles.astype(dtype)
    # A midpoint that the dtype does not hold was rounded to one of its neighbours.
    whole = doubled.astype(np.int64)
    low = (whole < table.middles) | ((whole == table.middles) & ~table.tie_up)
    return np.where(low, np.nextafter(doubled, np.asarray(np.inf, dtype)), doubled) / 2


@lru_cache(maxsize=64)
def _torch_table(
    bits: int, k: int, digits: str, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    bounds = _float_bounds(bits, k, digits, str(dtype).removeprefix("torch."))
    magnitudes = _table(bits, k, digits).magnitudes
    return torch.from_numpy(bounds).to(device), torch.from_numpy(magnitudes).to(device, dtype)


@lru_cache(maxsize=64)
def _direct_table(
    bits: int, k: int, digits: str, signed: bool, dtype: torch.dtype, device: str
) -> tuple[float, torch.Tensor]:
    """``end`` and a table: a number ``x``, with ``y = min(max(2 * x, -end), end)``, is cast to the entry at
    ``floor(y) + ceil(y) + 2 * end``. The last entry is NaN."""
    import torch

    fmt = KHot(bits + signed, 0, k, digits, signed)
    end = 2 * fmt.integer_max + 2
    quarters = np.arange(-2 * end, 2 * end + 1)[:, None]
    answers = fmt.cast_integers(quarters, (2,))[:, 0].astype(np.float64)
    entries = np.concatenate((answers, [0.0, np.nan]))
    return float(end), torch.from_numpy(entries).to(device, dtype)
