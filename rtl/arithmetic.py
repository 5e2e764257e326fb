"""How a matrix multiplies: the kind of its dot products, and the codes of weights in memory and of elements
on streams (docs/kernels.md, "qfx_matvec")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import gcd

import numpy as np

from qfx.formats import Binary, Block, Format, KHot, Minifloat
from qfx.graph.tensor import Tensor, integers
from qfx.rtl.estimate import dot, scaled_dot

#: ``KIND`` of ``qfx_dot``.
INTEGER, LUT_INTEGER, DIGITS, FLOAT, XNOR, DECODED, LUT_DECODED = range(7)
#: What a caller may ask for.
MULTIPLIERS = ("auto", "lut", "shift")
_NONE = {"KIND": INTEGER, "DIGITS": 1, "FINE": 1, "PLACES": 1, "ZERO": 1, "A_EXP": 1, "W_EXP": 1}
#: Pairs of the dot product by which kinds are compared.
_PAIRS = 8
#: Bits of minifloat codes that one look-up table per bit turns into integers.
_TABLE_BITS = 6
#: Bits of weights that a dot product may have on the way to blocks.
_MOST_BITS = 60


@dataclass(frozen=True)
class FloatCode:
    """Minifloat codes for a range of integers, in their units: a code with exponent field ``e > 0`` and
    mantissa ``m`` is ``(2**mantissa + m) << (e - 1)``, with ``e = 0`` it is ``m``.
    """

    exponent: int
    mantissa: int
    signed: bool

    @property
    def width(self) -> int:
        """Bits of a code: sign, exponent, mantissa from the top."""
        return int(self.signed) + self.exponent + self.mantissa

    def encode(self, values: np.ndarray) -> np.ndarray:
        """``object`` integers as codes; each must have at most ``mantissa + 1`` significant bits."""
        codes = [self._code(int(v)) for v in values.reshape(-1)]
        return integers(codes).reshape(values.shape)

    def _code(self, value: int) -> int:
        magnitude = abs(value)
        e = max(0, magnitude.bit_length() - self.mantissa)
        code = magnitude if e == 0 else e << self.mantissa | (magnitude >> (e - 1)) - (1 << self.mantissa)
        assert e < 1 << self.exponent and magnitude == (magnitude >> max(e - 1, 0)) << max(e - 1, 0)
        return code | (value < 0) << (self.exponent + self.mantissa)


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """How a matrix multiplies.

    Attributes:
        codes: what stands in memory for each weight, ``object`` integers.
        width, signed: of a code.
        parameters: of ``qfx_dot``.
        element: how elements travel to the multipliers: as integers (``None``), as ``FloatCode``, or as their
            signs (``"sign"``).
        shift: bits by which sums count more than those of integers.
        offset: per output, what is to be added to the sums (after ``shift``), or ``None``.
        scales: shifts that neighbouring weights share, ``int64`` ``(groups, outputs, inputs // run)``, or
            ``None``: a weight is its code's number shifted left by the scale of its ``run`` inputs.
        otherwise: the cheapest arithmetic without scales that takes the same elements, for folds in which a
            step has few weights of a block; only beside ``scales``.
    """

    codes: np.ndarray
    width: int
    signed: bool
    parameters: Mapping[str, int] = field(default_factory=lambda: dict(_NONE))
    element: FloatCode | str | None = None
    shift: int = 0
    offset: np.ndarray | None = None
    scales: np.ndarray | None = None
    otherwise: Arithmetic | None = None


def plain(weight: np.ndarray) -> Arithmetic:
    """Integers times integers."""
    return _integers(weight)


def choose(
    x: Tensor,
    width: int,
    signed: bool,
    weight: np.ndarray,
    encoding: Format | None,
    padded: bool,
    multipliers: str = "auto",
    bits: int = 32,
    codes_of_elements: bool = True,
    blocks: bool = False,
) -> Arithmetic:
    """The cheapest arithmetic for a matrix, by the estimate of a dot product.

    Args:
        x: the tensor that is multiplied; width, signed: of its codes on the stream.
        weight: ``object`` integers ``(groups, outputs, inputs)`` on one grid.
        encoding: the number format of the weights, or ``None``.
        padded: whether zeros stand around the tensor, which one bit has no code for.
        multipliers: ``auto``: DSP blocks where products are large; ``lut``: no DSP blocks; ``shift``: none,
            and weights of few digits are never multiplied.
        bits: of the accumulators.
        codes_of_elements: whether elements may travel in other codes than integers.
        blocks: whether weights may have scales.

    Returns:
        The arithmetic; its ``parameters`` go to the kernel as they are.
    """
    integers_only = _integers(weight)
    small = int(abs(weight).max()) <= 1
    if (
        codes_of_elements
        and small
        and not padded
        and isinstance(x.encoding, Binary)
        and bool((abs(weight) == 1).all())
    ):
        # Equal signs count 1 instead of 1 and -1.
        count = integers([-weight.shape[2]] * (weight.shape[0] * weight.shape[1]))
        ones = integers((weight > 0).astype(np.int64))
        return Arithmetic(ones, 1, False, {**_NONE, "KIND": XNOR}, "sign", 1, count)
    found: list[Arithmetic] = []
    magnitude: np.ndarray = np.asarray(abs(weight))
    few = isinstance(encoding, KHot | Binary) or not (magnitude & (magnitude - 1)).any()
    if multipliers == "shift" and few:
        return _digits(weight)
    in_tables = dot(_numbers(integers_only, width, signed, bits), _PAIRS).dsp == 0
    if multipliers == "auto" or in_tables:
        found.append(integers_only)
    if multipliers != "auto" or in_tables:
        found.append(_integers(weight, LUT_INTEGER))
    if few or multipliers != "auto":
        found.append(_digits(weight))
    if codes_of_elements and (isinstance(x.encoding, Minifloat) or isinstance(encoding, Minifloat)):
        found.append(_floats(x, signed, weight))

    def cost(a: Arithmetic) -> float:
        numbers = _numbers(a, width, signed, bits)
        # A LUT for each bit of a weight: memories of up to 64 words, or a share of a block RAM.
        if a.scales is None:
            return dot(numbers, _PAIRS).weight + _PAIRS * a.width + _encoder(a, width)
        run, scale = weight.shape[2] // a.scales.shape[2], int(a.scales.max()).bit_length()
        multiply = scaled_dot(numbers, _PAIRS, gcd(_PAIRS, run), scale).weight
        return multiply + _PAIRS * (a.width + scale / run) + _encoder(a, width)

    best = min(found, key=cost)
    if not blocks or not isinstance(encoding, Block):
        return best
    scaled = min(_blocks(x, width, signed, weight, encoding, multipliers, bits), key=cost, default=None)
    if scaled is None:
        return best
    if scaled.scales is not None and scaled.element == best.element:
        return replace(scaled, otherwise=best)
    return min(best, scaled, key=cost)


def _numbers(a: Arithmetic, width: int, signed: bool, bits: int) -> dict[str, int]:
    """The parameters that the estimate of ``qfx_dot`` looks at."""
    if isinstance(a.element, FloatCode):
        width, signed = a.element.width, a.element.signed
    return {
        **a.parameters,
        "A_WIDTH": width,
        "A_SIGNED": int(signed),
        "W_WIDTH": a.width,
        "W_SIGNED": int(a.signed),
        "OUT_WIDTH": bits,
    }


def _encoder(a: Arithmetic, width: int) -> float:
    """What it costs to bring elements into codes, shared by several rows of the matrix."""
    return 2.0 * width if isinstance(a.element, FloatCode) else 0.0


def _integers(weight: np.ndarray, kind: int = INTEGER) -> Arithmetic:
    low, high = int(weight.min()), int(weight.max())
    signed = low < 0
    width = max(1, high.bit_length() + signed, (-low - 1).bit_length() + 1 if signed else 0)
    return Arithmetic(weight, width, signed, {**_NONE, "KIND": kind})


def _floats(x: Tensor, signed: bool, weight: np.ndarray) -> Arithmetic:
    """Significands multiply and exponents add; plain integers are numbers with one exponent bit."""
    size = x.magnitude.bit_length()
    precision = size
    if isinstance(x.encoding, Minifloat) and x.encoding.exponent_bits:
        precision = min(size, x.encoding.mantissa_bits + 1)
    element = _float_code(precision, size, signed)
    code = _float_code(_precision(weight), int(abs(weight).max()).bit_length(), bool((weight < 0).any()))
    parameters = {**_NONE, "KIND": FLOAT, "A_EXP": element.exponent, "W_EXP": code.exponent}
    return Arithmetic(code.encode(weight), code.width, code.signed, parameters, element)


def _precision(weight: np.ndarray) -> int:
    """Most significant bits of a number."""
    magnitudes = {abs(int(w)) for w in set(weight.reshape(-1).tolist())}
    return max((m.bit_length() - (m & -m).bit_length() + 1 for m in magnitudes if m), default=1)


def _float_code(precision: int, size: int, signed: bool) -> FloatCode:
    """The code for integers of ``size`` bits with at most ``precision`` significant ones."""
    mantissa = max(precision, 1) - 1
    return FloatCode(max(1, max(size - mantissa, 0).bit_length()), mantissa, signed)


# -- weights in blocks ---------------------------------------------------------------------------------------


def _blocks(
    x: Tensor, width: int, signed: bool, weight: np.ndarray, encoding: Block, multipliers: str, bits: int
) -> list[Arithmetic]:
    """Weights as elements of a block format, and the scales of the blocks."""
    element = encoding.element
    floats = isinstance(element, Minifloat) and element.exponent_bits > 0
    code = _float_code(1, 1, False)
    if isinstance(element, Minifloat) and floats:
        code = FloatCode(element.exponent_bits, element.mantissa_bits, bool((weight < 0).any()))
        low = high = ((2 << code.mantissa) - 1) << ((1 << code.exponent) - 2)
        if _precision(weight) > code.mantissa + 1:
            return []
    else:
        low, high = -element.integer_min, element.integer_max
    found = block_scales(weight, low, high)
    if found is None:
        return []
    run, scales = found
    elements = weight >> integers(np.repeat(scales, run, axis=2))
    kept = scales if scales.any() else None
    if not floats:
        ways = [replace(_integers(elements, kind), scales=kept) for kind in (INTEGER, LUT_INTEGER)]
    else:
        codes = Arithmetic(code.encode(elements), code.width, code.signed, scales=kept)
        parameters = {**_NONE, "W_EXP": code.exponent}
        kinds = (DECODED, LUT_DECODED) if code.width <= _TABLE_BITS else ()
        ways = [replace(codes, parameters={**parameters, "KIND": kind}) for kind in kinds]
    free = dot(_numbers(ways[0], width, signed, bits), _PAIRS).dsp == 0 if ways else False
    if multipliers == "auto" and not free:
        ways = ways[:1]
    elif multipliers != "auto" and not free:
        ways = ways[1:]
    if floats:
        # Significands that multiply; integers without sign are such codes already.
        size = x.magnitude.bit_length()
        number = _float_code(size, size, True) if signed else None
        exponent = number.exponent if number else 1
        ways.append(
            replace(codes, parameters={**parameters, "KIND": FLOAT, "A_EXP": exponent}, element=number)
        )
    return ways


def block_scales(weight: np.ndarray, low: int, high: int) -> tuple[int, np.ndarray] | None:
    """Powers of two that neighbouring integers share, so that what is left is small.

    The blocks of a format are found again from the integers alone, whatever order the columns have got; runs
    are shorter than the blocks where the order has broken them, and longer where neighbours agree.

    Args:
        weight: ``object`` integers ``(groups, outputs, inputs)``.
        low, high: what is left is ``-low .. high``.

    Returns:
        (run, scales): columns that share a power of two, the largest possible divisor of all inputs; and the
        powers, ``int64`` ``(groups, outputs, inputs // run)``, the largest of which is as small as it can be.
        ``None``: not even single weights fit, or they are too large to look at.
    """
    if int(abs(weight).max()).bit_length() > _MOST_BITS:
        return None
    numbers = weight.astype(np.int64)
    groups, outputs, columns = numbers.shape
    for run in sorted((d for d in range(1, columns + 1) if columns % d == 0), reverse=True):
        tiles = numbers.reshape(groups, outputs, -1, run)
        union = np.bitwise_or.reduce(np.abs(tiles), axis=3)
        most = np.where(union == 0, _MOST_BITS, np.bitwise_count((union & -union) - 1)).astype(np.int64)
        above, below = tiles.max(axis=3), -tiles.min(axis=3)
        least = sum(
            (((above >> s) > high) | ((below >> s) > low)).astype(np.int64) for s in range(_MOST_BITS)
        )
        if (least <= most).all():
            return run, np.minimum(most, int(np.max(least)))
    return None


# -- weights of few digits -----------------------------------------------------------------------------------


def digit_slots(places: int, digits: int) -> tuple[int, int, int]:
    """Slots for the digits of numbers: how many, ``FINE`` and ``PLACES`` of ``qfx_dot_khot``.

    Args:
        places: of the highest canonical signed digit, counted from 1.
        digits: most nonzero digits of a number.
    """
    count = max(1, min(digits, (places + 1) // 2))
    # Digit k is at least 2k above the lowest place, and there are 2 more above it for each further digit.
    reach = places if count == 1 else max(2, places - 2 * (count - 1))
    fine = 1 if reach <= 2 else 2 if reach <= 6 else 4
    return count, fine, -(-reach // fine)


def _digits(weight: np.ndarray) -> Arithmetic:
    """Weights as canonical signed digits, each in the lowest slot that reaches its place."""
    flat = weight.reshape(-1)
    if int(abs(flat).max()) < 1 << 60:
        flat = flat.astype(np.int64)
    magnitude: np.ndarray = np.asarray(abs(flat))
    negative = flat < 0
    thrice: np.ndarray = magnitude * 3
    nonzero, minus = (magnitude ^ thrice) >> 1, (magnitude & ~thrice) >> 1
    places = max(1, int(nonzero.max()).bit_length())
    at = [(nonzero >> p & 1).astype(bool) for p in range(places)]
    count, fine, steps = digit_slots(places, int(sum(a.astype(np.int64) for a in at).max()))
    reach = fine * steps
    zero = not (count == 1 and steps == 1 and fine == 1 and bool((magnitude != 0).all()))
    fine_bits = fine.bit_length() - 1
    slot_bits = 1 + fine_bits + (steps.bit_length() if zero else 0)
    slots = np.zeros((count, flat.size), dtype=np.int64)
    free = np.zeros(flat.shape, dtype=np.int64)  # the next slot
    for p, here in enumerate(at):
        slot = np.maximum(free, max(0, -(-(p - reach + 1) // 2)))
        assert not (here & ((slot >= count) | (2 * slot > p))).any()
        shift = np.where(here, p - 2 * slot, 0)
        word = ((minus >> p & 1).astype(bool) ^ negative.astype(bool)) | (shift % fine) << 1
        if zero:
            word |= (shift // fine + 1) << (1 + fine_bits)
        (which,) = np.nonzero(here)
        slots[slot[which], which] = word[which]
        free = np.where(here, slot + 1, free)
    codes = sum(word.astype(object) << (slot_bits * k) for k, word in enumerate(slots))
    parameters = {**_NONE, "KIND": DIGITS, "DIGITS": count, "FINE": fine, "PLACES": steps, "ZERO": int(zero)}
    return Arithmetic(
        np.asarray(codes, dtype=object).reshape(weight.shape), slot_bits * count, True, parameters
    )
