"""What kernels cost, to compare foldings and to fill budgets: by the table of measured kernels
(:mod:`qfx.cost`), and by structure where that has none like them.

By structure an adder of n bits is n LUTs, a flip-flop per register bit, a product of narrow operands one LUT
per partial-product bit, memories by shape. Six-input LUTs, 18 Kbit block RAMs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from typing import TypeVar

from qfx.rtl.design import Kernel
from qfx.rtl.library import clog2

LUT_RAM_BITS = 64
_DSP_BITS = (
    37  # narrower products (a*b bits of partial products) are cheaper in LUTs than what a DSP block is worth
)


@dataclass(frozen=True)
class Resources:
    """LUTs, flip-flops, multiplier blocks, block RAMs of 18 Kbit."""

    lut: float = 0
    ff: float = 0
    dsp: float = 0
    bram18: float = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.lut + other.lut, self.ff + other.ff, self.dsp + other.dsp, self.bram18 + other.bram18
        )

    def __mul__(self, count: float) -> Resources:
        return Resources(self.lut * count, self.ff * count, self.dsp * count, self.bram18 * count)

    @property
    def vector(self) -> tuple[float, float, float, float]:
        """LUT, FF, DSP, BRAM18."""
        return self.lut, self.ff, self.dsp, self.bram18

    @property
    def weight(self) -> float:
        """One figure to compare foldings by, in LUTs: on common devices there are 150 to 300 LUTs to a DSP
        block or a block RAM.
        """
        return self.lut + 0.5 * self.ff + 150 * self.dsp + 200 * self.bram18


_R = TypeVar("_R")
_BY_STRUCTURE = ContextVar("qfx.rtl.estimate by structure", default=False)


@contextmanager
def by_structure_alone() -> Iterator[None]:
    """Estimates without the table, in this thread: the designs that a table is measured on must not depend on
    the table that there was before."""
    token = _BY_STRUCTURE.set(True)
    try:
        yield
    finally:
        _BY_STRUCTURE.reset(token)


def remembered(function: Callable[..., _R]) -> Callable[..., _R]:
    """``functools.cache`` for what depends on estimates: with and without the table apart."""

    @cache
    def kept(_: bool, *arguments: Hashable) -> _R:
        return function(*arguments)

    @wraps(function)
    def wrapped(*arguments: Hashable) -> _R:
        return kept(_BY_STRUCTURE.get(), *arguments)

    return wrapped


def of(kernel: Kernel) -> Resources:
    """One instance as a part of a design: what it adds to the estimate of the whole
    (:func:`qfx.cost.resources`), with random words in its memories: the folding is chosen before they are
    filled, and a budget must hold for what was weighed."""
    if kernel.nested is not None:
        return Resources(lut=kernel.nested.lut, ff=kernel.nested.ff)
    if _BY_STRUCTURE.get():
        return structure(kernel)
    from qfx.cost.folding import resources

    return resources(kernel)


def total(kernels: Iterable[Kernel]) -> Resources:
    """The sum over kernels."""
    return sum((of(kernel) for kernel in kernels), Resources())


#: Depth and width that a block RAM of 18 Kbit can be used in (AMD UG473, table 1-7; UG573 has the same).
_BLOCK_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))


def block_rams(depth: int, width: int) -> int:
    """Block RAMs of 18 Kbit for a memory: the best of the shapes that they have."""
    return min(math.ceil(depth / d) * math.ceil(width / w) for d, w in _BLOCK_SHAPES)


def memory(depth: int, width: int, *, rom: bool, style: str = "auto") -> Resources:
    """A memory.

    Args:
        depth: words.
        width: bits of a word.
        rom: nothing is written at run time.
        style: ``"distributed"`` (look-up tables), ``"block"``, or ``"auto"``: where the tool puts it when
            left to itself.
    """
    lut = width * math.ceil(depth / LUT_RAM_BITS) * (1 if rom else 1.5)
    if style == "block" or style == "auto" and (depth >= 256 and lut > 100 or lut > 2000):
        return Resources(lut=4, bram18=block_rams(depth, width))
    return Resources(lut=lut, ff=width)


def product(a: int, b: int) -> Resources:
    """A multiplier of a by b bits."""
    if a == 1 or b == 1:
        return Resources(lut=max(a, b))
    if a * b < _DSP_BITS:
        return Resources(lut=a * b)
    return Resources(dsp=math.ceil(max(a, b) / 24) * math.ceil(min(a, b) / 17))


def booth(a: int, a_signed: int, b: int, b_signed: int) -> int:
    """LUTs of ``qfx_multiply_booth``: a row of one operand for every two bits of the other."""

    def one_way(row: int, digits: int, digits_signed: int) -> int:
        count = (digits + 1) // 2 if digits_signed else digits // 2 + 1
        return count * (row + 2)

    return min(one_way(a, b, b_signed), one_way(b, a, a_signed))


def dot(numbers: Mapping[str, int | str], pairs: int) -> Resources:
    """``qfx_dot`` of so many pairs, by its parameters."""

    def n(name: str) -> int:
        value = numbers[name]
        assert isinstance(value, int)
        return value

    a, w, out = n("A_WIDTH"), n("W_WIDTH"), n("OUT_WIDTH")
    groups = math.ceil(pairs / 4)
    match n("KIND"):
        case 2:
            fine, places, digits = n("FINE"), n("PLACES"), n("DIGITS")
            number = a + fine - 1
            row = min(number + fine * (places - 1) + 2, out)
            # A row takes two places and a sign, or three places behind an inversion, into its adder.
            if places > (3 if fine == 2 else 2):
                row *= 1 + math.ceil((places - 2) / 3)
            shift = number if fine > 1 else 0
            lut = digits * (pairs * (row + shift) + (groups - 1) * (row + 3)) + (digits - 1) * (row + 5)
            ff = digits * (pairs * (shift + (w // digits if shift else 0)) + (2 * groups - 1) * (row + 3))
            return Resources(lut=lut, ff=ff + (digits - 1) * (row + 5))
        case 3:
            a_exp, w_exp = n("A_EXP"), n("W_EXP")
            a_man, w_man = a - n("A_SIGNED") - a_exp, w - n("W_SIGNED") - w_exp
            size, shift = a_man + w_man + 2, (1 << a_exp) + (1 << w_exp) - 2
            step = 8 if size <= 9 else 16 if size <= 17 else 32
            fine = size + min(step - 1, shift)
            places = shift // step + 1
            row = min(size + shift, out)
            direct = a_exp + a_man + w_exp + w_man <= 6
            multiply = 0 if direct else (w_man + 2) // 2 * (a_man + 3) + (a_man + 3)
            one = multiply + fine * (1 if direct else 2) + places + 6 + row
            ff = fine + places + 1 + (0 if direct else size + a_exp + 2)
            return Resources(
                lut=pairs * one + (groups - 1) * (row + 3), ff=pairs * ff + 2 * groups * (row + 3)
            )
        case 4:
            leaves = math.ceil(pairs / 3)
            return Resources(lut=2 * leaves + 3 * (leaves - 1), ff=5 * leaves)
    decoded = 0
    if n("KIND") in (5, 6):
        # A table for each bit of the integers.
        w += (1 << n("W_EXP")) - 1 - n("W_EXP")
        decoded = pairs * w
    product_bits = a + w
    sums = (2 * pairs - 1) * product_bits  # products and the tree behind them, each with its register
    lane = product(a, w)
    if n("KIND") in (1, 6):
        lane = Resources(lut=booth(a, n("A_SIGNED"), w, n("W_SIGNED")))
    return lane * pairs + Resources(lut=decoded + sums - pairs * product_bits, ff=sums)


def scaled_dot(numbers: Mapping[str, int | str], pairs: int, block: int, scale: int) -> Resources:
    """``qfx_dot_scaled``: a dot product for every ``block`` pairs, a shifter of ``scale`` bits, a tree."""
    out = numbers["OUT_WIDTH"]
    assert isinstance(out, int)
    count = pairs // block
    # A look-up table takes two bits of a shift.
    shifters = Resources(lut=count * out * math.ceil(scale / 2), ff=count * out)
    return dot(numbers, block) * count + shifters + Resources(lut=out, ff=out) * (count - 1)


def structure(kernel: Kernel) -> Resources:
    """One instance, by structure."""
    if kernel.nested is not None:
        return Resources(lut=kernel.nested.lut, ff=kernel.nested.ff)
    n = kernel.number
    match kernel.module:
        case "qfx_fifo":
            depth, width = max(n("DEPTH"), 2), n("WIDTH")
            style = "block" if n("STYLE") else "distributed"
            return memory(depth, width, rom=False, style=style) + Resources(
                lut=2 * clog2(depth) + 4, ff=2 * clog2(depth) + 2
            )
        case "qfx_fork":
            return Resources(lut=2 * n("N"), ff=n("N"))
        case "qfx_upsize" | "qfx_downsize":
            big = max(n("IN"), n("OUT")) * n("WIDTH")
            return Resources(lut=0.5 * big + 6, ff=1.5 * big + 4)
        case "qfx_window":
            counters = 12 * (clog2(n("IN_W") * n("IN_H") * n("BEATS") + 1) + 2)
            return memory(n("DEPTH"), n("WIDTH"), rom=False) + Resources(
                lut=counters + n("WIDTH"), ff=counters + n("WIDTH")
            )
        case "qfx_matvec" | "qfx_matvec_stream":
            macs, acc = n("PE") * n("SIMD"), n("ACC_WIDTH")
            numbers = {**kernel.parameters, "OUT_WIDTH": acc}
            if n("BLOCK"):
                cost = scaled_dot(numbers, n("SIMD"), n("BLOCK"), n("SCALE_WIDTH")) * n("PE")
                words = n("GROUPS") * n("NF") * n("SF") // n("HOLD")
                scales = n("PE") * n("SIMD") // n("BLOCK") * n("SCALE_WIDTH")
                cost += memory(words, scales, rom=True)
            else:
                cost = dot(numbers, n("SIMD")) * n("PE")
            cost += Resources(lut=n("PE") * acc + 40, ff=2 * n("PE") * acc + 40)
            if kernel.module == "qfx_matvec":
                style = str(kernel.parameters["ROM_STYLE"])
                cost += memory(n("GROUPS") * n("NF") * n("SF"), macs * n("W_WIDTH"), rom=True, style=style)
            else:
                cost += Resources(ff=macs * n("W_WIDTH"))
            if n("HAS_BIAS"):
                cost += memory(n("GROUPS") * n("NF"), n("PE") * acc, rom=True)
            if n("NF") > 1 and n("SF") > 1:
                cost += memory(n("SF"), n("SIMD") * n("A_WIDTH"), rom=False)
            return cost
        case "qfx_depthwise":
            p, acc = n("P"), n("ACC_WIDTH")
            cost = dot({**kernel.parameters, "OUT_WIDTH": acc}, 1) * p
            cost += Resources(lut=acc, ff=acc + n("A_WIDTH") + n("W_WIDTH")) * p
            style = str(kernel.parameters["ROM_STYLE"])
            weights = memory(n("GROUPS") * n("K"), p * n("W_WIDTH"), rom=True, style=style)
            return cost + weights + Resources(lut=20, ff=20)
        case "qfx_affine":
            width, scale = n("IN_WIDTH"), n("SCALE_WIDTH")
            numbers = {"A_WIDTH": width, "A_SIGNED": n("IN_SIGNED"), "W_WIDTH": scale}
            signed = {"W_SIGNED": n("SCALE_SIGNED")}
            lane = dot({**kernel.parameters, **numbers, **signed}, 1) + Resources(
                lut=n("OUT_WIDTH"), ff=n("OUT_WIDTH") + width
            )
            return lane * n("P") + memory(n("BEATS"), n("P") * (scale + n("OUT_WIDTH")), rom=True)
        case "qfx_pool":
            return Resources(lut=2 * n("OUT_WIDTH"), ff=2 * n("OUT_WIDTH")) * n("P") + Resources(
                lut=10, ff=10
            )
        case "qfx_cast_stream":
            shifter = n("IN_WIDTH") * clog2(n("ALIGN_MAX") + 1) if n("PER_CHANNEL") else 0
            return Resources(
                lut=shifter + n("IN_WIDTH") + n("OUT_WIDTH"), ff=n("OUT_WIDTH") + shifter / 2
            ) * n("P")
        case "qfx_cast_minifloat" | "qfx_cast_khot":
            # Of the bits below the result's, only whether any is set matters.
            wide = max(n("IN_WIDTH") - n("SHIFT") / 2, n("OUT_WIDTH"))
            digits = n("K") + 4 * n("CSD") if kernel.module == "qfx_cast_khot" else 1
            # Finding a leading one takes about 2 LUTs per bit, rounding and saturation 3.
            return Resources(lut=(2 * digits + 3) * wide, ff=(4 * digits + 3) * wide) * n("P")
        case "qfx_cast_block":
            wide = n("IN_WIDTH") + 1
            # A negation, a leading one and a rounding per number; a leading one and a limit per block.
            lanes, blocks = n("P"), math.ceil(n("P") / n("SIZE"))
            return (
                Resources(lut=9 * wide, ff=6 * wide) * lanes + Resources(lut=4 * wide, ff=2 * wide) * blocks
            )
        case "qfx_cast_binary" | "qfx_encode_binary":
            return Resources(ff=1) * n("P")
        case "qfx_encode_minifloat":
            wide, code = n("IN_WIDTH"), n("EXP") + n("MAN") + n("IN_SIGNED")
            return Resources(lut=3 * wide + n("MAN") * math.ceil(wide / 6), ff=wide + code) * n("P")
        case "qfx_decode_float":
            wide = n("OUT_WIDTH")
            shifter = wide * math.ceil(n("EXP") / 2)
            return Resources(lut=shifter + wide + n("EXP"), ff=2 * wide + 1) * n("P")
        case "qfx_relu":
            return Resources(lut=n("OUT_WIDTH"), ff=n("OUT_WIDTH")) * n("P")
        case "qfx_leaky_relu":
            return (
                product(n("IN_WIDTH"), n("SLOPE_WIDTH")) + Resources(lut=n("OUT_WIDTH"), ff=n("OUT_WIDTH"))
            ) * n("P")
        case "qfx_clip":
            return Resources(lut=3 * n("OUT_WIDTH"), ff=n("OUT_WIDTH")) * n("P")
        case "qfx_binary":
            if n("MODE") == 2:
                return (product(n("WIDTH0"), n("WIDTH1")) + Resources(ff=2 * n("OUT_WIDTH"))) * n("P")
            return Resources(lut=n("OUT_WIDTH"), ff=n("OUT_WIDTH")) * n("P")
        case "qfx_concat":
            return Resources(lut=n("WIDTH") + 10, ff=n("WIDTH") + 10)
        case "qfx_table":
            p = n("P")
            if n("PRECISION"):
                # Magnitude, leading one, a shifter.
                wide = n("IN_WIDTH")
                index = Resources(lut=(3 + clog2(wide)) * wide, ff=wide + 2)
            else:
                index = Resources(lut=clog2(n("DEPTH")))
            # Two lanes share a memory of two ports.
            depth, width = n("DEPTH"), n("OUT_WIDTH")
            rom = memory(depth, width, rom=True)
            copies = (p + 1) // 2 if rom.bram18 else p
            return (index + Resources(ff=clog2(depth) + 1)) * p + rom * copies
        case "qfx_piecewise":
            width, t = n("C_WIDTH"), max(n("SHIFT"), 1)
            lane = memory(n("SEGMENTS"), width * (n("DEGREE") + 1), rom=True)
            lane += Resources(lut=n("IN_WIDTH") + 2 * n("OUT_WIDTH"), ff=n("IN_WIDTH") + 3 * n("OUT_WIDTH"))
            if n("DEGREE") > 0:
                lane += product(width, t)
            if n("DEGREE") > 1:
                lane += product(t, t) + product(width, 2 * t)
            return lane * n("P")
        case "qfx_inverse_root":
            wide, width = n("WIDE"), n("C_WIDTH")
            lane = memory(n("SEGMENTS"), width * (n("DEGREE") + 1), rom=True)
            # Comparison, leading one, and two shifters.
            lane += Resources(
                lut=4 * wide + clog2(wide) * (wide + n("OUT_WIDTH")), ff=4 * wide + n("OUT_WIDTH")
            )
            if n("DEGREE"):
                lane += product(width, max(n("SHIFT"), 1))
            return lane * n("P")
        case "qfx_slice":
            counters = 3 * sum(clog2(n(axis) + 1) for axis in "ABC")
            return Resources(lut=counters, ff=n("WIDTH") + counters)
        case "qfx_insert_zeros":
            size = n("IN_H") * n("FACTOR_H") * n("IN_W") * n("FACTOR_W") * n("BEATS")
            return Resources(lut=n("WIDTH") + 3 * clog2(size), ff=n("WIDTH") + 2 * clog2(size))
        case "qfx_repeat":
            width, block = n("P") * n("WIDTH"), n("BLOCK")
            counters = 2 * clog2(block * n("TIMES")) + 4
            cost = Resources(lut=counters, ff=counters + width)
            return cost + memory(block, width, rom=False) if block > 1 and n("TIMES") > 1 else cost
        case "qfx_reduce":
            width, inner = n("P") * n("OUT_WIDTH"), n("INNER")
            elements = n("P") * n("SIMD")
            cost = Resources(
                lut=elements * n("OUT_WIDTH") + 12, ff=2 * elements * n("OUT_WIDTH") + width + 12
            )
            return cost + memory(inner, width, rom=False) if inner > 1 else cost
        case "qfx_constant":
            return memory(n("BEATS"), n("WIDTH"), rom=True) + Resources(lut=clog2(n("BEATS")) + 3, ff=8)
        case "qfx_gather":
            depth = n("ROWS") * n("BEATS")
            return memory(depth, n("P") * n("WIDTH"), rom=True) + Resources(
                lut=n("IN_WIDTH") + 2 * clog2(depth) + 6, ff=2 * clog2(depth) + 6
            )
        case "qfx_matmul":
            macs, width = n("PE") * n("SIMD"), n("OUT_WIDTH")
            bits = n("A_WIDTH") + n("B_WIDTH")
            cost = product(n("A_WIDTH"), n("B_WIDTH")) * macs + Resources(lut=macs * bits, ff=2 * macs * bits)
            cost += Resources(lut=n("PE") * width + 60, ff=2 * n("PE") * width + 60)
            lanes, banks = (n("PE"), n("SIMD")) if n("B_LAYOUT") else (n("SIMD"), n("PE"))
            cost += memory(2 * n("SF") * n("NF"), lanes * n("B_WIDTH"), rom=False) * banks
            if n("NF") > 1 and n("SF") > 1:
                cost += memory(n("SF"), n("SIMD") * n("A_WIDTH"), rom=False)
            return cost
        case "qfx_reorder":
            width, length = n("WIDTH"), n("LENGTH")
            return memory(2 * length, width, rom=False) + memory(length, max(1, clog2(length)), rom=True)
    raise AssertionError(kernel.module)
