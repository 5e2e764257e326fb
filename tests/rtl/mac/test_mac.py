"""The multiply-accumulate kernels against the number formats, bit by bit, in simulation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qfx.cost.mac import FORMATS, Format, accumulator_bits, cast_kernel, mac_kernel
from qfx.formats.fixed import FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.sim import verilator

HERE = Path(__file__).parent
NAN, PLUS, MINUS = 1, 2, 4  # bits of m_axis_tuser
LONGEST = 40  # pairs in a dot product


def latency(a: Format, b: Format, cast: bool) -> int:
    """As the kernels document it."""
    if isinstance(a, FixedPoint):
        return 2 + cast
    assert isinstance(b, Minifloat)
    bits = a.exponent_bits + a.mantissa_bits + b.exponent_bits + b.mantissa_bits
    return (2 if bits <= 6 else 3) + cast


def step(fmt: Format) -> Fraction:
    """The unit that a kernel counts a format's numbers in."""
    if isinstance(fmt, FixedPoint):
        assert isinstance(fmt.frac, int)
        return Fraction(2) ** -fmt.frac
    return Fraction(2) ** -fmt.frac


@cache
def numbers(fmt: Format) -> list[float]:
    """The number that each bit pattern stands for, by the software format."""
    codes = np.arange(1 << fmt.width)
    if isinstance(fmt, FixedPoint) and fmt.signed:
        codes -= (codes >> (fmt.width - 1)) << fmt.width
    return [float(x) for x in fmt.decode(codes)]


def dot(a: Format, b: Format, pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The exact sum of products in units of both steps, and the flags of NaN and infinity."""
    total = Fraction(0)
    flags = 0
    for code_a, code_b in pairs:
        x, y = numbers(a)[code_a], numbers(b)[code_b]
        product = x * y
        if math.isnan(product):
            flags |= NAN
        elif math.isinf(product):
            flags |= PLUS if product > 0 else MINUS
        else:
            total += Fraction(x) * Fraction(y)
    if flags & NAN or flags == PLUS | MINUS:
        flags = NAN
    units = total / (step(a) * step(b))
    assert units.denominator == 1
    return int(units), flags


def cast_sum(fmt: Format, units: int, flags: int, weight: Fraction) -> int:
    """The code of the sum `units * weight`, by the software format, without rounding twice."""
    if flags:
        assert isinstance(fmt, Minifloat)
        return int(
            fmt.encode(math.nan if flags == NAN else math.copysign(math.inf, 1 if flags == PLUS else -1))
        )
    exponent = weight.numerator.bit_length() - weight.denominator.bit_length()
    assert weight == Fraction(2) ** exponent
    # A double holds 53 bits; what is below them only matters as being there.
    drop = max(abs(units).bit_length() - 50, 0)
    kept = abs(units) >> drop << 1 | (abs(units) & ((1 << drop) - 1) != 0)
    value = math.copysign(math.ldexp(kept, drop + exponent - 1), units)
    code = int(fmt.encode(value if units else 0.0))
    return code % (1 << fmt.width)


def simulate(
    a: Format,
    b: Format,
    dots: Sequence[Sequence[tuple[int, int]]],
    tmp_path: Path,
    *,
    cast: bool = False,
    runs: Sequence[dict[str, Any]] = ({"stalls": 0.0}, {"stalls": 0.4}),
) -> None:
    """Send dot products through the kernel and compare every bit of every result.

    Sums are accumulated in the narrowest accumulator that is enough, casts start from the published width.
    """
    assert max(len(pairs) for pairs in dots) <= LONGEST
    bits = None if cast else accumulator_bits(a, b, LONGEST).exact
    kernel = mac_kernel(a, b, LONGEST, cast=cast, bits=bits)
    sums = [dot(a, b, pairs) for pairs in dots]
    if cast:
        # The kernel casts the sum in units of a's step, see mac_kernel.
        shift = Fraction(1, 2 ** int(kernel.parameters["SHIFT"]))
        weight = shift * (step(a) if isinstance(a, Minifloat) else Fraction(1))
        target = a if isinstance(a, Minifloat) else FixedPoint(a.width, 0, a.signed)
        tdata = [cast_sum(target, units, flags, weight) for units, flags in sums]
        tuser = [0] * len(sums)
    else:
        tdata = [units % (1 << int(kernel.parameters["ACC_WIDTH"])) for units, _ in sums]
        tuser = [flags for _, flags in sums]
    built = verilator.build(kernel.paths, kernel.top, parameters=kernel.parameters)
    for number_of_run, run in enumerate(runs):
        case = {
            "data": [code_b << a.width | code_a for pairs in dots for code_a, code_b in pairs],
            "last": [int(i == len(pairs) - 1) for pairs in dots for i in range(len(pairs))],
            "tdata": tdata,
            "tuser": tuser,
            "latency": latency(a, b, cast),
            "seed": number_of_run,
            "reset_after": 0,
            **run,
        }
        place = tmp_path / f"run{number_of_run}"
        place.mkdir()
        (place / "case.json").write_text(json.dumps(case))
        env = {"QFX_MAC_CASE": str(place / "case.json")}
        verilator.run(built, "bench_mac", test_dir=place, python_path=[HERE], env=env)


def all_pairs(a: Format, b: Format) -> list[list[tuple[int, int]]]:
    return [[(x, y)] for x in range(1 << a.width) for y in range(1 << b.width)]


def random_dots(a: Format, b: Format, seed: int, count: int = 60) -> list[list[tuple[int, int]]]:
    """Dot products of many lengths, and those that fill the accumulator; codes of numbers only."""
    rng = np.random.default_rng(seed)
    codes_a = [c for c in range(1 << a.width) if math.isfinite(numbers(a)[c])]
    codes_b = [c for c in range(1 << b.width) if math.isfinite(numbers(b)[c])]
    dots = []
    for length in rng.integers(1, LONGEST + 1, count):
        dots.append([(int(rng.choice(codes_a)), int(rng.choice(codes_b))) for _ in range(length)])
    low_a, high_a = min(codes_a, key=numbers(a).__getitem__), max(codes_a, key=numbers(a).__getitem__)
    low_b, high_b = min(codes_b, key=numbers(b).__getitem__), max(codes_b, key=numbers(b).__getitem__)
    dots += [
        [(high_a, high_b)] * LONGEST,
        [(low_a, high_b)] * LONGEST,
        [(low_a, low_b)] * LONGEST,
        [(high_a, low_b)] * LONGEST,
    ]
    return dots


@pytest.mark.parametrize("name", ["int4", "E2M1", "int6", "E2M3", "E3M2"])
@pytest.mark.parametrize("cast", [False, True], ids=["sum", "cast"])
def test_all_operand_pairs(name: str, cast: bool, tmp_path: Path) -> None:
    fmt = FORMATS[name]
    simulate(fmt, fmt, all_pairs(fmt, fmt), tmp_path, cast=cast)


@pytest.mark.parametrize("name", ["int8", "E4M3", "E5M2"])
def test_all_operand_pairs_of_eight_bits(name: str, tmp_path: Path) -> None:
    """65,536 pairs, NaN and infinity among them."""
    fmt = FORMATS[name]
    simulate(fmt, fmt, all_pairs(fmt, fmt), tmp_path, runs=[{"stalls": 0.0}])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cast", [False, True], ids=["sum", "cast"])
def test_dot_products_with_stalls_and_reset(name: str, cast: bool, tmp_path: Path) -> None:
    fmt = FORMATS[name]
    runs = [{"stalls": 0.0}, {"stalls": 0.5}, {"stalls": 0.3, "reset_after": 171}]
    simulate(fmt, fmt, random_dots(fmt, fmt, seed=1), tmp_path, cast=cast, runs=runs)


SLOW = pytest.mark.slow
MIXED = [
    (FixedPoint(5, 0), FixedPoint(4, 0, signed=False)),
    (Minifloat(3, 0), Minifloat(2, 5)),
    (Minifloat(2, 2, signed=False), Minifloat(1, 3)),
    (Minifloat(3, 3, specials="fn"), Minifloat(3, 2, specials="ieee")),
    pytest.param(FixedPoint(4, 0, signed=False), FixedPoint(7, 0), marks=SLOW),
    pytest.param(FixedPoint(3, 0, signed=False), FixedPoint(5, 0, signed=False), marks=SLOW),
    pytest.param(FixedPoint(1, 0), FixedPoint(2, 0), marks=SLOW),
    pytest.param(Minifloat(1, 0), Minifloat(1, 1), marks=SLOW),
    pytest.param(Minifloat(1, 3), Minifloat(1, 3), marks=SLOW),
    pytest.param(Minifloat(4, 1, bias=3), Minifloat(1, 2), marks=SLOW),
    pytest.param(Minifloat(5, 2, specials="ieee"), Minifloat(2, 1), marks=SLOW),
    pytest.param(Minifloat(2, 7), Minifloat(2, 5), marks=SLOW),
]


@pytest.mark.parametrize(("a", "b"), MIXED, ids=str)
@pytest.mark.parametrize("cast", [False, True], ids=["sum", "cast"])
def test_other_and_mixed_formats(a: Format, b: Format, cast: bool, tmp_path: Path) -> None:
    pairs = all_pairs(a, b) if a.width + b.width <= 16 else []
    simulate(a, b, pairs + random_dots(a, b, seed=3), tmp_path, cast=cast)


@pytest.mark.parametrize("name", ["E4M3", "E5M2"])
@pytest.mark.parametrize("overflow", ["SAT", "INF"])
def test_special_values_in_dot_products(name: str, overflow: str, tmp_path: Path) -> None:
    """NaN, infinities of both signs, and 0 * inf, each among numbers; the dot product after "
    "is clean again."""
    base = FORMATS[name]
    assert isinstance(base, Minifloat)
    fmt = Minifloat(base.exponent_bits, base.mantissa_bits, specials=base.specials, overflow=overflow)
    one, zero, huge, sign = int(fmt.encode(1.0)), 0, fmt.code_max, fmt.sign_bit
    assert fmt.nan_code is not None
    odd = [fmt.nan_code, fmt.nan_code | sign]
    if fmt.infinity_code is not None:
        odd += [fmt.infinity_code, fmt.infinity_code | sign, fmt.infinity_code + 1]
    dots = [[(x, y), (one, one)] for x in odd for y in (*odd, zero, one, one | sign, huge)]
    dots += [[(one, x), (y, one)] for x in odd for y in odd]
    dots += [[(huge, huge)] * 3, [(huge, huge | sign)] * 3, [(one, one)]]
    dots = [pairs for special in dots for pairs in (special, [(one, one), (one, zero)])]
    simulate(fmt, fmt, dots, tmp_path)
    (tmp_path / "cast").mkdir()
    simulate(fmt, fmt, dots, tmp_path / "cast", cast=True)


CASTS = [
    *(
        (Minifloat(e, m), shift)
        for e, m in ((1, 1), (1, 3), (2, 0), (2, 1), (2, 3), (3, 2), (4, 3))
        for shift in (-4, 0, 3)
    ),
    (Minifloat(3, 2), 9),
    (Minifloat(2, 2), 16),
    (Minifloat(4, 3), 40),
    (Minifloat(5, 2, specials="ieee"), -3),
    (Minifloat(5, 2, specials="ieee", overflow="INF"), -20),
    (Minifloat(4, 3, specials="fn"), -6),
    (Minifloat(3, 3, specials="fn", overflow="INF"), 1),
    (Minifloat(3, 2, signed=False), 2),
    (Minifloat(6, 1), -52),
]


def check_casts(
    casts: Sequence[tuple[Minifloat, int]], width: int, inputs: Sequence[int], tmp_path: Path
) -> None:
    """All casts side by side, one simulation."""
    instances, low = [], 0
    columns = []
    special = [0] * len(inputs) + [NAN, PLUS, MINUS]
    inputs = [*inputs, 0, 1, -1]
    for number, (fmt, shift) in enumerate(casts):
        kernel = cast_kernel(fmt, width, shift)
        parameters = ", ".join(f".{name}({value})" for name, value in kernel.parameters.items())
        flags = "special" if fmt.specials != "none" else "3'd0"
        instances.append(
            f"  {kernel.top} #({parameters}) cast{number} (.x(x), .special({flags}), "
            f".code(code[{low}+:{fmt.width}]));"
        )
        weight = step(fmt) / Fraction(2) ** shift
        seen = [f if fmt.specials != "none" else 0 for f in special]
        columns.append([cast_sum(fmt, x, f, weight) << low for x, f in zip(inputs, seen, strict=True)])
        low += fmt.width
    ports = f"input wire [{width - 1}:0] x, input wire [2:0] special, output wire [{low - 1}:0] code"
    head = f"module casts ({ports});"
    top = tmp_path / "casts.v"
    top.write_text("\n".join([head, *instances, "endmodule", ""]))
    case = {
        "x": [x % (1 << width) for x in inputs],
        "special": special,
        "code": [sum(c) for c in zip(*columns, strict=True)],
    }
    (tmp_path / "case.json").write_text(json.dumps(case))
    built = verilator.build([top, *kernel.paths], "casts")
    env = {"QFX_CAST_CASE": str(tmp_path / "case.json")}
    verilator.run(built, "bench_cast", test_dir=tmp_path, python_path=[HERE], env=env)


def test_cast_of_every_number(tmp_path: Path) -> None:
    """Every 14-bit input to formats of all kinds, the step of the result below, at and "
    "above that of the input."""
    check_casts(CASTS, 14, range(-(1 << 13), 1 << 13), tmp_path)


def test_cast_of_fewer_bits_than_the_result(tmp_path: Path) -> None:
    check_casts([(Minifloat(3, 4), shift) for shift in (-7, -1, 0, 2)], 3, range(-4, 4), tmp_path)


@pytest.mark.parametrize("name", ["E2M3", "E3M2", "E4M3", "E5M2"])
def test_cast_of_whole_accumulators(name: str, tmp_path: Path) -> None:
    """At the width of a real accumulator: around every number of the format, every "
    "midpoint, both ends, and random."""
    fmt = FORMATS[name]
    assert isinstance(fmt, Minifloat)
    kernel = mac_kernel(fmt, cast=True)
    width, shift = int(kernel.parameters["ACC_WIDTH"]), int(kernel.parameters["SHIFT"])
    grid = [int(Fraction(v) / step(fmt) * 2**shift) for v in fmt.values()]
    middle = [(x + y) // 2 for x, y in zip(grid, grid[1:], strict=False)]
    inputs = [x + d for x in grid + middle for d in (-1, 0, 1)]
    limit = 1 << (width - 1)
    inputs += [limit - 1, -limit, -limit + 1]
    rng = np.random.default_rng(5)
    for _ in range(3000):
        # Any length, and runs of ones or zeros below the leading bits: that is where sticky bits go wrong.
        size = int(rng.integers(1, width))
        x = int.from_bytes(rng.bytes(16)) % (1 << size)
        keep = int(rng.integers(0, size))
        x = (x >> keep << keep) + int(rng.choice([0, 1, 2])) * ((1 << keep) - 1) // 2
        inputs += [x, -x]
    check_casts([(fmt, shift)], width, [x for x in inputs if -limit <= x < limit], tmp_path)
