"""Block formats against gfloat, ml_dtypes and the OCP specification in plain fractions."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qfx
from qfx.errors import QfxError
from qfx.formats import Block, FixedPoint, Minifloat
from qfx.graph import GraphBuilder, ops
from qfx.graph.reference import trace_reference

MX = {
    "MXINT8": (qfx.MXINT8(), gfloat.formats.format_info_mxint8, None),
    "MXFP8 E4M3": (qfx.MXFP8("e4m3"), gfloat.formats.format_info_mxfp8_e4m3, ml_dtypes.float8_e4m3fn),
    "MXFP8 E5M2": (qfx.MXFP8("e5m2"), gfloat.formats.format_info_mxfp8_e5m2, ml_dtypes.float8_e5m2),
    "MXFP6 E2M3": (qfx.MXFP6("e2m3"), gfloat.formats.format_info_mxfp6_e2m3, ml_dtypes.float6_e2m3fn),
    "MXFP6 E3M2": (qfx.MXFP6("e3m2"), gfloat.formats.format_info_mxfp6_e3m2, ml_dtypes.float6_e3m2fn),
    "MXFP4": (qfx.MXFP4(), gfloat.formats.format_info_mxfp4_e2m1, ml_dtypes.float4_e2m1fn),
}


def hard_blocks(fmt: Block, count: int = 200, size: int = 32, seed: int = 0) -> np.ndarray:
    """Blocks of elements, midpoints between elements, their neighbours, and random numbers, at any scale;
    some of zeros, and some with few numbers that are not zero."""
    rng = np.random.default_rng(seed)
    values = np.unique(fmt.element.values())
    points = np.concatenate((values, (values[1:] + values[:-1]) / 2))
    points = np.concatenate((points, np.nextafter(points, 9e9), np.nextafter(points, -9e9)))
    blocks = np.where(
        rng.random((count, size)) < 0.7,
        rng.choice(points, (count, size)),
        rng.standard_normal((count, size)) * 2.0 ** rng.integers(-6, 3, (count, size)) * fmt.element.max,
    )
    blocks *= (rng.random((count, size)) < rng.choice([0.05, 1.0], (count, 1))) * 1.0
    blocks *= 2.0 ** rng.integers(-20, 20, (count, 1))
    blocks[::4] = blocks[::4].astype(np.float32)
    blocks[1::9] *= 2.0 ** rng.integers(-160, 120, (len(blocks[1::9]), 1))
    return blocks


def gfloat_blocks(fmt: Block, count: int) -> np.ndarray:
    """Without those whose largest magnitude is the double just below a power of two: gfloat 0.5.2 takes the
    logarithm in doubles, which rounds it up to the next integer."""
    blocks = hard_blocks(fmt, count)
    largest = np.abs(blocks).max(axis=1)
    with np.errstate(divide="ignore"):
        right = np.floor(np.log2(largest)) == np.frexp(largest)[1] - 1
    assert right.mean() > 0.75
    return blocks[right | (largest == 0)]


def by_the_specification(fmt: Block, block: list[Fraction]) -> list[Fraction]:
    """OCP Microscaling Formats 1.0, 6.3, on exact numbers: the result of one block."""
    element = fmt.element
    if not element.signed:
        block = [max(b, Fraction(0)) for b in block]
    largest = max(abs(b) for b in block)
    if largest == 0:
        return [Fraction(0)] * len(block)
    exponent = floor_log2(largest) - floor_log2(Fraction(element.max))
    limit = 2 ** (fmt.exponent_bits - 1) - 1
    scale = Fraction(2) ** max(-limit, min(limit, exponent))
    return [nearest_element(element, b / scale) * scale for b in block]


def floor_log2(x: Fraction) -> int:
    n = x.numerator.bit_length() - x.denominator.bit_length()
    return n if Fraction(2) ** n <= x else n - 1


@cache
def fractions(element: FixedPoint | Minifloat) -> list[Fraction]:
    return [Fraction(float(v)) for v in element.values()]


def nearest_element(element: FixedPoint | Minifloat, x: Fraction) -> Fraction:
    """Nearest, ties to the even code, saturating: a search among all elements."""
    numbers = fractions(element)
    zero = bisect_right(numbers, 0) - 1
    x = max(numbers[0], min(x, numbers[-1]))
    below = bisect_right(numbers, x) - 1
    if numbers[below] == x:
        return x
    low, high = numbers[below], numbers[below + 1]
    if x - low == high - x:
        return low if (below - zero) % 2 == 0 else high
    return low if x - low < high - x else high


@pytest.mark.parametrize("name", MX)
def test_like_gfloat(name: str) -> None:
    ours, theirs, _ = MX[name]
    blocks = gfloat_blocks(ours, 300)
    quantized = ours.quantize(blocks)
    for block, result in zip(blocks, quantized, strict=True):
        expected = gfloat.quantize_block(theirs, block, gfloat.block.compute_scale_amax)
        if name == "MXINT8":
            # gfloat uses the code of -2; ours is symmetric.
            scale = gfloat.block.compute_scale_amax(theirs.etype.emax, block)
            expected = np.maximum(expected, -127 / 64 * scale)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", MX)
def test_codes_like_gfloat(name: str) -> None:
    """Bytes: the scale as E8M0, then the elements."""
    ours, theirs, _ = MX[name]
    blocks = gfloat_blocks(ours, 100)
    codes, exponents = ours.encode(blocks)
    assert codes.shape == blocks.shape and exponents.shape == (len(blocks), 1)
    for block, mine, exponent in zip(blocks, codes, exponents[:, 0], strict=True):
        scale = gfloat.block.compute_scale_amax(theirs.etype.emax, block)
        scaled = block / scale
        if name == "MXINT8":
            scaled = np.maximum(scaled, -127 / 64)
            mine = mine & 0xFF  # two's complement
        found = list(gfloat.encode_block(theirs, scale, scaled))
        assert found[0] == exponent + 127
        np.testing.assert_array_equal(mine, found[1:])
        decoded = list(gfloat.decode_block(theirs, found))
        np.testing.assert_array_equal(ours.quantize(block[None])[0], decoded)
    np.testing.assert_array_equal(ours.decode(codes, exponents), ours.quantize(blocks))


@pytest.mark.parametrize("name", [n for n, (_, _, dtype) in MX.items() if dtype])
def test_elements_like_ml_dtypes(name: str) -> None:
    """Scales by numpy's frexp, elements cast by ml_dtypes (which does not saturate: clipped before)."""
    ours, _, dtype = MX[name]
    blocks = hard_blocks(ours, seed=3).astype(np.float32)
    blocks = blocks[(np.abs(blocks).max(axis=1) < 2.0**100) & (np.abs(blocks).max(axis=1) > 2.0**-90)]
    top = float(ml_dtypes.finfo(dtype).max)
    emax = np.frexp(top)[1] - 1
    exponent = np.frexp(np.abs(blocks).max(axis=1, keepdims=True))[1] - 1 - emax
    elements = np.clip(np.ldexp(blocks, -exponent), -top, top).astype(dtype).astype(np.float64)
    np.testing.assert_array_equal(ours.quantize(blocks), np.ldexp(elements, exponent))


ELEMENTS = [
    FixedPoint(2, 0, overflow="SAT_SYM"),
    FixedPoint(4, 2, overflow="SAT_SYM"),
    FixedPoint(4, 2),
    FixedPoint(3, -2, overflow="SAT_SYM"),
    FixedPoint(3, 3, signed=False),
    Minifloat(2, 1),
    Minifloat(3, 0),
    Minifloat(0, 3),
    Minifloat(2, 2, 5),
    Minifloat(4, 3, specials="fn"),
    Minifloat(3, 2, specials="ieee"),
    Minifloat(2, 1, signed=False),
]


@pytest.mark.parametrize("element", ELEMENTS, ids=str)
@pytest.mark.parametrize("exponent_bits", [2, 3, 8])
def test_by_the_specification(element: FixedPoint | Minifloat, exponent_bits: int) -> None:
    """Every pair of codes of 6 bits and more, at several binary points, in integers and in floating point."""
    fmt = Block(element, 2, exponent_bits)
    rng = np.random.default_rng(0)
    pairs = np.concatenate(
        (np.array(list(product(range(-20, 21, 3), range(-33, 34)))), rng.integers(-300, 300, (200, 2)))
    )
    for points in ((0, 0), (5, 5), (-9, -9), (2, 6), (-7, 3)):
        results = fmt.result_points(points)
        cast = fmt.cast_integers(pairs, points)
        assert (cast == fmt.cast_integers(pairs.astype(object), points)).all()
        x = np.ldexp(pairs.astype(float), -np.array(points))
        expected = [by_the_specification(fmt, [Fraction(float(v)) for v in row]) for row in x]
        np.testing.assert_array_equal(
            np.ldexp(cast.astype(float), -np.array(results)), np.array(expected, dtype=float)
        )
        np.testing.assert_array_equal(fmt.quantize(x), np.array(expected, dtype=float))
        np.testing.assert_array_equal(
            fmt.round_scaled(torch.tensor(x)).numpy(), np.array(expected, dtype=float)
        )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ELEMENTS),
    st.integers(2, 8),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
)
def test_any_float32(element: FixedPoint | Minifloat, exponent_bits: int, drawn: list[float]) -> None:
    fmt = Block(element, 5, exponent_bits)
    block = np.array([drawn])
    expected = [float(v) for v in by_the_specification(fmt, [Fraction(d) for d in drawn])]
    np.testing.assert_array_equal(fmt.quantize(block)[0], expected)
    np.testing.assert_array_equal(fmt.round_scaled(torch.tensor(block))[0].numpy(), expected)
    if np.isfinite(np.array(expected, dtype=np.float32)).all():
        in_float32 = fmt.round_scaled(torch.tensor(block, dtype=torch.float32))[0]
        np.testing.assert_array_equal(in_float32.double().numpy(), expected)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ELEMENTS),
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(-(1 << 20), 1 << 20), st.integers(-30, 30)), min_size=1, max_size=4),
)
def test_result_lies_on_the_declared_grid(
    element: FixedPoint | Minifloat, exponent_bits: int, drawn: list[tuple[int, int]]
) -> None:
    """Also where the exponent of the scale is clamped: nothing is lost in the integers of the result."""
    fmt = Block(element, 4, exponent_bits)
    codes, points = np.array([[c for c, _ in drawn]], dtype=object), tuple(p for _, p in drawn)
    results = fmt.result_points(points)
    expected = by_the_specification(fmt, [Fraction(c) / Fraction(2) ** p for c, p in drawn])
    on_grid = [v * Fraction(2) ** r for v, r in zip(expected, results, strict=True)]
    assert all(v.denominator == 1 for v in on_grid)
    assert fmt.cast_integers(codes, points)[0].tolist() == [int(v) for v in on_grid]


def test_the_grid_is_the_operands_when_nothing_is_clamped() -> None:
    for fmt in (
        qfx.MXINT8(),
        qfx.MXFP8(),
        qfx.MXFP8("e5m2"),
        qfx.MXFP6(),
        qfx.MXFP4(),
        qfx.DynamicFixedPoint(8),
    ):
        assert fmt.result_points((0, 40, -60, 100)) == (0, 40, -60, 100)
    # Exponents of the scale up to 3: 4 * 2**9 becomes 7 * 2**3, which is no multiple of 2**9.
    fmt = Block(FixedPoint(4, 0, overflow="SAT_SYM"), 2, 3)
    assert fmt.result_points((-9, 0)) == (-3, 0)
    assert fmt.cast_integers(np.array([[4, 21]]), (-9, 0)).tolist() == [[7, 24]]


@pytest.mark.parametrize("element", ELEMENTS, ids=str)
@pytest.mark.parametrize("exponent_bits", [2, 8])
def test_interval_covers_every_block_and_is_tight(
    element: FixedPoint | Minifloat, exponent_bits: int
) -> None:
    """All blocks of two channels, for intervals of every kind; casts are not monotonic."""
    fmt = Block(element, 2, exponent_bits)
    tight = total = 0
    for points in ((3, 3), (0, 2), (-3, 1)):
        for first, second in product(
            [(-9, 7), (3, 6), (-2, 2), (0, 0), (-8, -5)], [(-17, 20), (1, 1), (-6, -3), (0, 9)]
        ):
            blocks = np.array(list(product(range(first[0], first[1] + 1), range(second[0], second[1] + 1))))
            cast = fmt.cast_integers(blocks, points)
            low, high = fmt.cast_interval(
                np.array([first[0], second[0]], dtype=object),
                np.array([first[1], second[1]], dtype=object),
                points,
            )
            assert (cast.min(axis=0) >= low).all() and (cast.max(axis=0) <= high).all()
            tight += int((cast.min(axis=0) == low).sum() + (cast.max(axis=0) == high).sum())
            total += 4
    # Two ends of 5760 are not reached: no neighbour can have the exponent that would do it.
    assert tight >= total - 2


def test_interval_of_many_channels_and_wide_codes() -> None:
    rng = np.random.default_rng(0)
    fmt = Block(FixedPoint(5, 3, rounding="TRN"), 16)
    points = tuple(int(p) for p in rng.integers(-30, 30, 40))
    low = rng.integers(-(1 << 40), 1 << 20, 40).astype(object)
    high = low + rng.integers(0, 1 << 41, 40)
    least, most = fmt.cast_interval(low, high, points)
    draws = np.array(
        [[int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True)] for _ in range(300)],
        dtype=object,
    )
    draws = np.where(rng.random(draws.shape) < 0.2, low, np.where(rng.random(draws.shape) < 0.2, high, draws))
    cast = fmt.cast_integers(draws, points)
    assert (cast >= least).all() and (cast <= most).all()


@pytest.mark.parametrize("element", ELEMENTS, ids=str)
def test_members_are_blocks_with_a_common_scale(element: FixedPoint | Minifloat) -> None:
    """Every pair of integers against a search over all scales."""
    fmt = Block(element, 2)
    numbers = np.ldexp(element.values(), element.max_frac).astype(np.int64)
    if isinstance(element, FixedPoint) and element.overflow == "SAT_SYM":
        numbers = np.concatenate((numbers, [element.integer_min]))
    pairs = np.array(list(product(range(-40, 41), range(-40, 41))))
    known = {(int(a) << s, int(b) << s) for s in range(7) for a, b in product(numbers, numbers)}
    expected = [tuple(map(int, pair)) in known for pair in pairs]
    found = fmt.members(pairs)
    assert found.dtype == bool and (found[:, 0] == found[:, 1]).all()
    np.testing.assert_array_equal(found[:, 0], expected)
    assert fmt.members(pairs.astype(object) << 70)[:, 0].tolist() == expected


@pytest.mark.parametrize("shape", [(3, 7), (3, 7, 2), (3, 7, 2, 3)])
@pytest.mark.parametrize("size", [1, 3, 7, 32, None])
def test_blocks_run_along_axis_1(shape: tuple[int, ...], size: int | None) -> None:
    fmt = Block(Minifloat(2, 1), size)
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-5, 5, shape)
    expected = np.empty(shape)
    for row in range(shape[0]):
        if size is None:
            flat = x[row].reshape(1, -1)
            expected[row] = Block(Minifloat(2, 1), flat.size).quantize(flat).reshape(x[row].shape)
            continue
        for place in np.ndindex(*shape[2:]):
            for start in range(0, 7, size):
                block = x[(row, slice(start, start + size), *place)]
                whole = by_the_specification(fmt, [Fraction(float(v)) for v in block])
                expected[(row, slice(start, start + size), *place)] = np.array(whole, dtype=float)
    np.testing.assert_array_equal(fmt.quantize(x), expected)
    np.testing.assert_array_equal(fmt.quantize(x, axis=1), expected)
    np.testing.assert_array_equal(fmt.round_scaled(torch.tensor(x)).numpy(), expected)
    in_float32 = fmt.round_scaled(torch.tensor(x, dtype=torch.float32)).double().numpy()
    np.testing.assert_array_equal(in_float32, fmt.quantize(x.astype(np.float32)))
    codes, exponents = fmt.encode(x)
    blocks = 1 if size is None else -(-7 // size)
    assert exponents.shape == (3, blocks, *((1,) * len(shape[2:]) if size is None else shape[2:]))
    np.testing.assert_array_equal(fmt.decode(codes, exponents), expected)
    integers, points = fmt.integers_and_points(x)
    assert integers.dtype == np.int64 and len(points) == 3
    np.testing.assert_array_equal(
        np.ldexp(integers, -np.array(points).reshape(-1, *(1,) * (x.ndim - 1))), expected
    )
    assert fmt.members(integers).all()
    # The largest points that will do: each row has an odd number, or is zero.
    assert all((row % 2 != 0).any() for row in integers)
    np.testing.assert_array_equal(fmt.integers_and_points(torch.tensor(x))[0], integers)


def test_constructors() -> None:
    assert qfx.MXINT8() == Block(FixedPoint(8, 6, overflow="SAT_SYM"), 32, 8)
    assert qfx.MXFP8() == Block(Minifloat(4, 3, 7, specials="fn")) and qfx.MXFP4() == Block(
        Minifloat(2, 1, 1)
    )
    assert qfx.MXFP8("E5M2").element == Minifloat(5, 2, 15, specials="ieee")
    assert (qfx.MXFP6().element, qfx.MXFP6("e3m2").element) == (Minifloat(2, 3, 1), Minifloat(3, 2, 3))
    emax = [
        f.emax
        for f in (
            qfx.MXINT8(),
            qfx.MXFP8("e4m3"),
            qfx.MXFP8("e5m2"),
            qfx.MXFP6("e2m3"),
            qfx.MXFP6("e3m2"),
            qfx.MXFP4(),
        )
    ]
    assert emax == [0, 8, 15, 2, 4, 2]  # the specification, table 1
    assert qfx.BlockFloatingPoint(5, 16) == Block(FixedPoint(5, 3, overflow="SAT_SYM"), 16)
    assert qfx.DynamicFixedPoint(6) == Block(FixedPoint(6, 4, overflow="SAT_SYM"), None)
    fmt = qfx.MXFP4()
    assert (fmt.width, fmt.signed, fmt.frac, fmt.learned, fmt.has_point) == (4, True, 0, False, False)
    assert fmt.with_frac(3) is fmt and fmt.with_frac(None) is fmt and not fmt.per_channel
    assert (fmt.min, fmt.max, fmt.exponent_max) == (-6 * 2.0**127, 6 * 2.0**127, 127)
    assert str(fmt) == "Block<E2M1 x 32, scale 8 bits>" and "x all" in str(qfx.DynamicFixedPoint(4))


def test_infinity_nan_and_zero() -> None:
    fmt = qfx.MXFP4()
    x = np.array([[np.inf, 1.0, -np.inf], [0.0, -0.0, 0.0], [np.nan, 3.0, 1.4]])
    y = fmt.quantize(x)
    assert y[0].tolist() == [fmt.max, 0, fmt.min] and not y[1].any()
    assert np.isnan(y[2, 0]) and y[2, 1:].tolist() == [3, 1.5]
    assert fmt.round_scaled(torch.tensor(x[:2])).tolist() == y[:2].tolist()
    # The largest float32 has the exponent 127.
    in_float32 = fmt.round_scaled(torch.tensor(x[:1], dtype=torch.float32))
    assert in_float32.tolist() == [[6 * 2.0**125, 0, -6 * 2.0**125]]
    assert torch.isnan(fmt.round_scaled(torch.tensor(x[2:])))[0, 0]
    with pytest.raises(QfxError, match=r"NaN at index \(2, 0\)"):
        fmt.encode(x)
    with pytest.raises(QfxError, match=r"NaN at index \(2, 0\)"):
        fmt.integers_and_points(x)
    _, exponents = fmt.encode(np.zeros((1, 3)))
    assert exponents.tolist() == [[-127]]
    assert fmt.integers_and_points(np.zeros((2, 3)))[1] == (0, 0)


def test_the_code_of_minus_two() -> None:
    """With the lowest code of two's complement, a block that was cast may not be the cast of itself."""
    x = np.array([[-127.6, 1.0]])
    once = Block(FixedPoint(8, 6), 2).quantize(x)
    assert once.tolist() == [[-128.0, 1.0]]
    assert Block(FixedPoint(8, 6), 2).quantize(once).tolist() == [[-128.0, 0.0]]
    assert Block(FixedPoint(8, 6), 2).members(once.astype(np.int64)).all()
    assert qfx.MXINT8().quantize(x).tolist() == [[-127.0, 1.0]]


def test_dynamic_fixed_point_shares_one_exponent_per_sample() -> None:
    x = np.array([[[1.0, 100.0], [3.0, 0.4]], [[0.01, 0.02], [0.03, 0.013]]])
    y = qfx.DynamicFixedPoint(4).quantize(x)
    assert y[0].tolist() == [[0, 96], [0, 0]]
    np.testing.assert_array_equal(y[1], np.array([[3, 5], [7, 3]]) / 256)


def test_gradient_passes_everywhere() -> None:
    assert qfx.MXFP4().pass_range == (-float("inf"), float("inf"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "the element must be a FixedPoint or a Minifloat, found 3"),
        ((qfx.MXFP4(),), "the element must be"),
        ((qfx.KHot(4, 0, 1),), "the element must be"),
        ((FixedPoint(8),), "needs one explicit binary point"),
        ((FixedPoint(8, (1, 2)),), "needs one explicit binary point"),
        ((Minifloat(2, 1, (1, 2)),), "needs one explicit binary point"),
        ((FixedPoint(8, 6, overflow="WRAP"),), "must saturate"),
        ((Minifloat(5, 2, specials="ieee", overflow="INF"),), "must saturate"),
        ((FixedPoint(1, 0),), "no number above 0"),
        ((FixedPoint(8, 65),), "binary point 65; supported"),
        ((Minifloat(8, 3),), "spans 258 bits"),
        ((Minifloat(2, 1), 0), "size 0 is outside"),
        ((Minifloat(2, 1), 2.5), "size must be an integer"),
        ((Minifloat(2, 1), 32, 1), "exponent_bits 1 is outside 2..8"),
        ((Minifloat(2, 1), 32, 9), "exponent_bits 9 is outside 2..8"),
    ],
)
def test_bad_formats_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(QfxError, match=f"Block: .*{message}"):
        Block(*arguments)


def test_other_refusals() -> None:
    fmt = qfx.MXFP4()
    for call in (fmt.quantize, fmt.encode, fmt.members, lambda x: fmt.round_scaled(torch.tensor(x))):
        with pytest.raises(QfxError, match="blocks run along axis 1; an array of 1 axes has none"):
            call(np.array([1.0, 2.0]))
    for refused in (lambda: fmt.integer_max, lambda: fmt.integer_min, lambda: fmt.integers(np.ones((2, 2)))):
        with pytest.raises(QfxError, match=r"no grid of its own; use .* integers_and_points\(\)"):
            refused()
    with pytest.raises(QfxError, match=r"expected \(2, 1\)"):
        fmt.decode(np.zeros((2, 5), dtype=int), np.zeros((2, 2), dtype=int))
    with pytest.raises(QfxError, match="scale exponents lie in -127..127"):
        fmt.decode(np.zeros((2, 5), dtype=int), np.full((2, 1), 128))
    with pytest.raises(QfxError, match="output channel 1 span"):
        Block(Minifloat(2, 1), 1).integers_and_points(np.array([[1.0, 1.0], [1e12, 1e-12]]))
    with pytest.raises(QfxError, match="unknown element 'e3m4'; supported: e4m3, e5m2"):
        qfx.MXFP8("e3m4")
    with pytest.raises(QfxError, match="mantissa_width 1 is outside"):
        qfx.BlockFloatingPoint(1)
    with pytest.raises(QfxError, match="width must be an integer"):
        qfx.DynamicFixedPoint(4.0)  # type: ignore[arg-type]
    with pytest.raises(QfxError, match="takes its scale from the data"):
        GraphBuilder().add(ops.Input((4,), fmt))


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("frac", [4, -6, 30, (3, -2, 5, 0, 1, 1)])
def test_network_with_blocks(name: str, frac: int | tuple[int, ...]) -> None:
    """Weights and activations in blocks, the sum of products exact and cast once."""
    fmt = MX[name][0]
    block = Block(fmt.element, 4)
    rng = np.random.default_rng(0)
    real = rng.standard_normal((5, 6, 2, 2)) * 2.0 ** rng.integers(-3, 3, (5, 1, 2, 2))
    integers, points = block.integers_and_points(real)
    low, high = int(integers.min()), int(integers.max())
    carrier = qfx.formats.smallest_format(low, high, points)
    builder = GraphBuilder()
    source = builder.add(ops.Input((6, 4, 4), FixedPoint(10, frac)))
    cast = builder.add(ops.Cast(block), (source,))
    weighted = ops.Conv(
        integers, carrier, None, None, (1, 1), ((0, 1), (1, 0)), (1, 1), 1, weight_encoding=block
    )
    product_ = builder.add(weighted, (cast,))
    rectified = builder.add(ops.Relu(), (product_,))
    last = builder.add(ops.Cast(qfx.DynamicFixedPoint(6)), (rectified,))
    kept = builder.add(ops.Relu(), (last,))
    graph = builder.build(kept)
    assert builder.tensor(cast).encoding == block and builder.tensor(kept).encoding == qfx.DynamicFixedPoint(
        6
    )
    x = FixedPoint(10, frac).quantize(rng.standard_normal((12, 6, 4, 4)) * 2.0 ** (6 - np.min(frac)), axis=1)
    reference = trace_reference(graph, x)
    for node, codes in graph.trace(x).items():
        np.testing.assert_array_equal(codes, reference[node].astype(np.int64))
    # The same in real numbers: every partial sum is far below 53 bits here when the points are alike.
    if isinstance(frac, int) and graph[product_].tensor.format.width <= 40:
        blocks, weights = torch.tensor(block.quantize(x)), torch.tensor(block.quantize(real))
        sums = torch.nn.functional.conv2d(torch.nn.functional.pad(blocks, (1, 0, 0, 1)), weights)
        expected = qfx.DynamicFixedPoint(6).quantize(sums.relu().numpy())
        np.testing.assert_array_equal(graph.run(x), expected)
    changed = integers.copy()
    changed[2, :4, 0, 0] = [1, 0, 1 << (carrier.width - 2), 0]
    if not block.members(changed).all():
        bad = ops.Conv(
            changed, carrier, None, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, weight_encoding=block
        )
        with pytest.raises(QfxError, match=r"at \(2, 0, 0, 0\) is not a number of Block<"):
            builder.add(bad, (cast,))


def test_reshape_and_pooling_drop_the_encoding() -> None:
    builder = GraphBuilder()
    name = builder.add(ops.Input((8, 4), FixedPoint(8, 4)))
    name = builder.add(ops.Cast(qfx.MXFP4()), (name,))
    for op in (ops.Reshape((32,)), ops.Transpose((1, 0)), ops.MaxPool((2,), (2,), ((0, 0),))):
        assert builder.tensor(builder.add(op, (name,))).encoding is None
