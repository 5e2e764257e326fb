"""Multiply-accumulate kernels of every number format: their parameters, and what they cost side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from qfx.cost.kernel import Kernel
from qfx.cost.measure import measure
from qfx.errors import QfxError
from qfx.formats.block import MXFP4, Block
from qfx.formats.fixed import FixedPoint
from qfx.formats.khot import KHot
from qfx.formats.minifloat import SPECIALS, Minifloat
from qfx.rtl.arithmetic import digit_slots

Format = FixedPoint | Minifloat

# The formats of the comparison; E4M3 and E5M2 as OCP has them, NaN and infinity included.
FORMATS: Mapping[str, Format] = {
    "int3": FixedPoint(3, 0),
    "int4": FixedPoint(4, 0),
    "E2M1": Minifloat(2, 1),
    "E1M2": Minifloat(1, 2),
    "int5": FixedPoint(5, 0),
    "E2M2": Minifloat(2, 2),
    "E3M1": Minifloat(3, 1),
    "int6": FixedPoint(6, 0),
    "E2M3": Minifloat(2, 3),
    "E3M2": Minifloat(3, 2),
    "int7": FixedPoint(7, 0),
    "int8": FixedPoint(8, 0),
    "E4M3": Minifloat(4, 3, specials="fn"),
    "E5M2": Minifloat(5, 2, specials="ieee"),
}
# The pairs of one size that most people compare: seconds in place of minutes.
USUAL: Mapping[str, Format] = {
    name: FORMATS[name] for name in ("int4", "E2M1", "int6", "E2M3", "E3M2", "int8", "E4M3", "E5M2")
}
# Weights of a kind of their own, times integers of as many bits; blocks that carry a scale.
OTHERS: Mapping[str, KHot | Block] = {
    **{f"int8 x KHot(8, k={k})": KHot(8, 0, k) for k in (1, 2, 3)},
    "MXFP4": MXFP4(),
}
# The longest dot product of ResNet-18: 512 channels of a 3 x 3 convolution.
DOT_PRODUCT = 4608
#: From so many bits on, an integer product is worth a DSP block.
DSP_BITS = 8


@dataclass(frozen=True)
class AccumulatorBits:
    """Widths of an exact accumulator, in bits.

    Attributes:
        published: by the formulas of "Shedding the Bits" (arXiv 2311.12359).
        exact: the least that holds every sum of ``n`` products, from the largest product of the two formats.
    """

    published: int
    exact: int


def accumulator_bits(a: Format, b: Format, n: int) -> AccumulatorBits:
    """Accumulator widths for a dot product of ``n`` pairs of ``a`` and ``b`` (both fixed point or both
    minifloat).

    Published: integers ``ra + rb + ceil(log2 n) + 1``, minifloats ``2**ea + ma + 2**eb + mb + ceil(log2 n) -
        1`` with ``r`` the
    width and ``e``, ``m`` the exponent and mantissa bits. The integer formula always has a bit or two to
    spare. The minifloat formula counts every code as a number, so it is generous where the top exponent is
    infinity and NaN, and it counts a sign bit.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise QfxError(f"accumulator_bits: the length of a dot product is a positive integer, found {n!r}")
    growth = (n - 1).bit_length()
    if isinstance(a, FixedPoint) and isinstance(b, FixedPoint):
        published = a.width + b.width + growth + 1
        low, high = _fixed_range(a, b)
    elif isinstance(a, Minifloat) and isinstance(b, Minifloat):
        _check_exponents(a, b)
        published = 2**a.exponent_bits + a.mantissa_bits + 2**b.exponent_bits + b.mantissa_bits + growth - 1
        # Integers in units of the smallest subnormal steps.
        top = int(a.max * 2**a.frac) * int(b.max * 2**b.frac)
        low, high = (-top if a.signed or b.signed else 0), top
    else:
        raise QfxError(
            f"accumulator_bits: {a} and {b} are of different families; both must be fixed point "
            "or both minifloat"
        )
    exact = 1 + max((n * high).bit_length(), (-n * low - 1).bit_length() if low < 0 else 0)
    return AccumulatorBits(published, exact)


def mac_kernel(
    a: Format,
    b: Format | None = None,
    n: int = DOT_PRODUCT,
    *,
    cast: bool = False,
    dsp: bool = False,
    bits: int | None = None,
    specials: bool = True,
) -> Kernel:
    """The multiply-accumulate kernel of two formats as a module with parameters.

    Args:
        a, b: the operands; ``b`` is like ``a`` when not given. Binary points and biases only scale the
            result.
        n: length of the longest dot product.
        cast: with the cast of the sum back to format ``a``: nearest even, saturating (or ``a.overflow``).
        dsp: leave the integer multiplier to synthesis, which may take a DSP block, and do not build it from
            look-up tables.
        bits: width of the accumulator; the published formula by default, or the exact need where that is
            wider.
        specials: whether NaN and infinity are handled. Without, operands must be numbers.
    """
    b = a if b is None else b
    need = accumulator_bits(a, b, n)
    width = max(need.published, need.exact) if bits is None else bits
    if width < need.exact:
        raise QfxError(
            f"mac_kernel: {n} products of {a} and {b} need {need.exact} accumulator bits, found {width}"
        )
    if isinstance(a, FixedPoint) and isinstance(b, FixedPoint):
        return _integer_kernel(a, b, width, cast, dsp)
    assert isinstance(a, Minifloat) and isinstance(b, Minifloat)
    return _minifloat_kernel(a, b, width, cast, specials)


def cast_kernel(fmt: Minifloat, in_width: int, shift: int) -> Kernel:
    """The cast of an exact ``in_width``-bit sum to ``fmt`` on its own; ``shift`` as in "
    "``qfx_minifloat_cast``."""
    if fmt.exponent_bits == 0 or fmt.rounding != "RND_CONV":
        raise QfxError(
            f"cast_kernel: qfx_minifloat_cast has formats with exponent bits and RND_CONV, not {fmt}"
        )
    special = SPECIALS.index(fmt.specials)
    parameters = {
        "IN_WIDTH": in_width,
        "SHIFT": shift,
        "EXP": fmt.exponent_bits,
        "MAN": fmt.mantissa_bits,
        "SIGNED": int(fmt.signed),
        "SPECIALS": special,
        "OVERFLOW": int(fmt.overflow == "INF"),
    }
    return Kernel("qfx_minifloat_cast", _sources("qfx_minifloat_cast"), parameters)


def khot_kernel(
    a: FixedPoint, b: KHot, n: int = DOT_PRODUCT, *, cast: bool = False, bits: int | None = None
) -> Kernel:
    """The multiply-accumulate kernel of integers ``a`` and weights ``b`` of few digits.

    Args:
        a, b: the operands; ``b`` has at most 4 digits, and the code that docs/kernels.md describes.
        n: length of the longest dot product.
        cast: with the cast of the sum back to format ``a``, as for integers.
        bits: width of the accumulator; that of integers of the same widths by default.
    """
    top = (3 * b.integer_max ^ b.integer_max).bit_length() - 1
    digits, fine, places = digit_slots(top, b.k if b.digits == "csd" else min(b.k, (top + 1) // 2))
    if digits > 4 or (fine == 4 and digits > 1):
        raise QfxError(
            f"khot_kernel: {b} needs {digits} digits with {fine * places} places each; supported are up to "
            "4 digits, and more than 6 places for one digit"
        )
    least = a.width + fine * places + 2 * digits - 1
    width = accumulator_bits(a, FixedPoint(b.width, 0, b.signed), n).published if bits is None else bits
    parameters = {
        "A_WIDTH": a.width,
        "A_SIGNED": int(a.signed),
        "K": digits,
        "FINE": fine,
        "PLACES": places,
        "ACC_WIDTH": max(width, least),
    }
    names: tuple[str, ...] = ("qfx_mac_khot", "qfx_sum_placed", "qfx_add_tree", "qfx_extend")
    if not cast:
        return Kernel("qfx_mac_khot", _sources(*names), parameters)
    parameters |= {"SHIFT": b.width - 1, "OUT_WIDTH": a.width, "OUT_SIGNED": int(a.signed)}
    return Kernel("qfx_mac_khot_cast", _sources("qfx_mac_khot_cast", "qfx_cast", *names), parameters)


def mx_kernel(fmt: Block) -> Kernel:
    """The multiply-accumulate kernel of blocks of minifloats: one block is one dot product.

    Its accumulator has the width that the formula for minifloats gives for a block.
    """
    element = fmt.element
    if not isinstance(element, Minifloat) or not element.signed or fmt.size is None:
        raise QfxError(f"mx_kernel: blocks of signed minifloats are supported, found {fmt}")
    _check_exponents(element)
    parameters = {
        "EXP": element.exponent_bits,
        "MAN": element.mantissa_bits,
        "ACC_WIDTH": accumulator_bits(element, element, fmt.size).published,
    }
    names = ("qfx_mac_mx", "qfx_mac_minifloat", "qfx_minifloat_product_specials")
    helpers = ("qfx_multiply_significands", "qfx_add_logic")
    return Kernel("qfx_mac_mx", _sources(*names, *helpers), parameters)


def mac_table(
    n: int = DOT_PRODUCT,
    *,
    formats: Mapping[str, Format] | None = None,
    others: Mapping[str, KHot | Block] | None = None,
    full: bool = False,
    fmax: bool = False,
    workers: int = 2,
) -> list[dict[str, Any]]:
    """The cost of a multiply-accumulate kernel for each format.

    Args:
        n: length of the dot product that the accumulator is for; of blocks, their size.
        formats: by name; :data:`FORMATS` with ``full``, :data:`USUAL` otherwise.
        others: by name; :data:`OTHERS` with ``full``, none otherwise.
        full: also with the cast; integers of 8 bits and more with DSP blocks; formats with NaN or infinity
            without them.
        fmax: also the clock frequency on an ECP5 (the ``fmax`` extra), of the kernel and of that with the
            cast.
        workers: syntheses at a time.

    Returns:
        One dictionary per format: ``format``, ``bits`` (of an operand), ``integer``, ``accumulator_bits`` (of
        the kernel that was measured, by the published formula), ``accumulator_bits_exact`` (None for
        ``others``), ``lut``, ``ff``, ``carry``, ``dsp``, ``tool``, ``version``; ``ratio``: look-up tables
        over those of the integer of the same width, None without one. Multipliers are built from look-up
        tables, so ``dsp`` is 0. ``full`` adds ``lut_cast``, ``ff_cast``, ``carry_cast``, ``ratio_cast`` (over
        the integer without cast), ``ratio_cast_cast`` (over the integer with its cast), None for blocks,
        which have no cast of one number; ``lut_finite`` (no special values), ``lut_dsp`` and ``dsp_dsp``
        (multipliers left to synthesis), None where they were not measured. ``fmax`` adds
        ``fmax`` and ``fmax_cast`` in MHz.
    """
    if formats is None:
        formats = FORMATS if full else USUAL
    others = (OTHERS if full else {}) if others is None else others
    jobs: dict[tuple[str, str], tuple[Kernel, dict[str, bool]]] = {}
    for name, fmt in formats.items():
        jobs[name, ""] = mac_kernel(fmt, n=n), {"dsp": False, "fmax": fmax}
        if not full:
            continue
        jobs[name, "cast"] = mac_kernel(fmt, n=n, cast=True), {"dsp": False, "fmax": fmax}
        if isinstance(fmt, FixedPoint) and fmt.width >= DSP_BITS:
            jobs[name, "dsp"] = mac_kernel(fmt, n=n, dsp=True), {"dsp": True}
        elif isinstance(fmt, Minifloat) and fmt.specials != "none":
            jobs[name, "finite"] = mac_kernel(fmt, n=n, specials=False), {"dsp": False}
    for name, other in others.items():
        if isinstance(other, Block):
            jobs[name, ""] = mx_kernel(other), {"dsp": False, "fmax": fmax}
            continue
        number = FixedPoint(other.width, 0)
        jobs[name, ""] = khot_kernel(number, other, n), {"dsp": False, "fmax": fmax}
        if full:
            jobs[name, "cast"] = khot_kernel(number, other, n, cast=True), {"dsp": False, "fmax": fmax}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = dict(zip(jobs, pool.map(lambda job: measure(job[0], **job[1]), jobs.values()), strict=True))

    integers = {fmt.width: name for name, fmt in formats.items() if isinstance(fmt, FixedPoint)}
    rows = []
    every: list[tuple[str, Format | KHot | Block]] = [*formats.items(), *others.items()]
    for name, entry in every:
        cost = found[name, ""]
        width = entry.element.width if isinstance(entry, Block) else entry.width
        integer = integers.get(width)
        exact = None if isinstance(entry, KHot | Block) else accumulator_bits(entry, entry, n).exact
        row: dict[str, Any] = {
            "format": name,
            "bits": width,
            "integer": isinstance(entry, FixedPoint),
            "accumulator_bits": int(jobs[name, ""][0].parameters["ACC_WIDTH"]),
            "accumulator_bits_exact": exact,
            **{kind: getattr(cost, kind) for kind in ("lut", "ff", "carry", "dsp", "tool", "version")},
            "ratio": cost.lut / found[integer, ""].lut if integer else None,
        }
        if full:
            cast = found.get((name, "cast"))
            row |= {
                "lut_cast": cast.lut if cast else None,
                "ff_cast": cast.ff if cast else None,
                "carry_cast": cast.carry if cast else None,
                "ratio_cast": cast.lut / found[integer, ""].lut if cast and integer else None,
                "ratio_cast_cast": cast.lut / found[integer, "cast"].lut if cast and integer else None,
                "lut_finite": getattr(found.get((name, "finite")), "lut", None),
                "lut_dsp": getattr(found.get((name, "dsp")), "lut", None),
                "dsp_dsp": getattr(found.get((name, "dsp")), "dsp", None),
            }
        if fmax:
            row["fmax"] = cost.fmax
            if full:
                row["fmax_cast"] = cast.fmax if cast else None
        rows.append(row)
    return rows


def _integer_kernel(a: FixedPoint, b: FixedPoint, width: int, cast: bool, dsp: bool) -> Kernel:
    parameters = {
        "A_WIDTH": a.width,
        "A_SIGNED": int(a.signed),
        "B_WIDTH": b.width,
        "B_SIGNED": int(b.signed),
        "ACC_WIDTH": max(width, a.width + b.width),
        "DSP": int(dsp),
    }
    if not cast:
        return Kernel("qfx_mac_int", _sources("qfx_mac_int", "qfx_multiply_booth"), parameters)
    # Back to the format of a, as if b's numbers were below 1: the sum loses the fraction bits of b.
    parameters |= {"SHIFT": b.width - int(b.signed), "OUT_WIDTH": a.width, "OUT_SIGNED": int(a.signed)}
    names = ("qfx_mac_int_cast", "qfx_mac_int", "qfx_multiply_booth")
    return Kernel("qfx_mac_int_cast", _sources(*names, "qfx_cast", "qfx_extend"), parameters)


def _minifloat_kernel(a: Minifloat, b: Minifloat, width: int, cast: bool, specials: bool) -> Kernel:
    _check_exponents(a, b)
    parameters: dict[str, int] = {}
    for side, fmt in (("A", a), ("B", b)):
        parameters |= {f"{side}_EXP": fmt.exponent_bits, f"{side}_MAN": fmt.mantissa_bits}
        parameters |= {
            f"{side}_SIGNED": int(fmt.signed),
            f"{side}_SPECIALS": SPECIALS.index(fmt.specials) * specials,
        }
    parameters["ACC_WIDTH"] = width
    names: Sequence[str] = (
        *(
            "qfx_mac_minifloat",
            "qfx_minifloat_product_specials",
            "qfx_multiply_significands",
            "qfx_add_logic",
        ),
    )
    if not cast:
        return Kernel("qfx_mac_minifloat", _sources(*names), parameters)
    if a.rounding != "RND_CONV":
        raise QfxError(f"mac_kernel: the cast of the kernel rounds to nearest even, not {a.rounding}")
    # The sum counts in units of both smallest steps; the result in units of that of a.
    parameters |= {
        "SHIFT": b.frac,
        "OUT_EXP": a.exponent_bits,
        "OUT_MAN": a.mantissa_bits,
        "OUT_SIGNED": int(a.signed),
    }
    parameters |= {"OUT_SPECIALS": SPECIALS.index(a.specials), "OUT_OVERFLOW": int(a.overflow == "INF")}
    names = ("qfx_mac_minifloat_cast", "qfx_minifloat_cast", *names)
    return Kernel("qfx_mac_minifloat_cast", _sources(*names), parameters)


def _fixed_range(a: FixedPoint, b: FixedPoint) -> tuple[int, int]:
    """The least and the greatest product of two codes of these widths, whatever the overflow mode."""
    ends = [
        (-(2 ** (f.width - 1)), 2 ** (f.width - 1) - 1) if f.signed else (0, 2**f.width - 1) for f in (a, b)
    ]
    products = [x * y for x in ends[0] for y in ends[1]]
    return min(products), max(products)


def _check_exponents(*formats: Minifloat) -> None:
    for fmt in formats:
        if fmt.exponent_bits == 0:
            raise QfxError(
                f"{fmt}: the minifloat kernels need exponent bits; a sign-magnitude number is an integer"
            )


def _sources(*modules: str) -> tuple[Path, ...]:
    """The files of modules; the helpers that the stream kernels use too are theirs."""
    folders = [Path(str(files("qfx.rtl").joinpath(folder))) for folder in ("mac", "kernels")]
    return tuple(
        next(folder / f"{module}.v" for folder in folders if (folder / f"{module}.v").is_file())
        for module in modules
    )
