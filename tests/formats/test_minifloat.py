"""Minifloat against ml_dtypes, gfloat, apytypes and the definition in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import apytypes
import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.errors import QfxError
from qfx.formats.minifloat import Minifloat

MODES = ("TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV")

# name: our format, ml_dtypes type, gfloat format
OCP = {
    "E2M1": (Minifloat(2, 1), ml_dtypes.float4_e2m1fn, gfloat.formats.format_info_ocp_e2m1),
    "E2M3": (Minifloat(2, 3), ml_dtypes.float6_e2m3fn, gfloat.formats.format_info_ocp_e2m3),
    "E3M2": (Minifloat(3, 2), ml_dtypes.float6_e3m2fn, gfloat.formats.format_info_ocp_e3m2),
    "E4M3": (
        Minifloat(4, 3, specials="fn", overflow="INF"),
        ml_dtypes.float8_e4m3fn,
        gfloat.formats.format_info_ocp_e4m3,
    ),
    "E5M2": (
        Minifloat(5, 2, specials="ieee", overflow="INF"),
        ml_dtypes.float8_e5m2,
        gfloat.formats.format_info_ocp_e5m2,
    ),
}


def hard_inputs(fmt: Minifloat, seed: int = 0) -> np.ndarray:
    """Every number, every midpoint, their float64 and float32 neighbours, both ends, random "
    "and extreme numbers."""
    values = fmt.values()
    past = fmt.max + (values[-1] - values[-2]) * np.array([0.25, 0.5, 0.75, 1, 2])
    points = np.concatenate((values, (values[1:] + values[:-1]) / 2, past, -past))
    around = [points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)]
    around += [
        np.nextafter(points.astype(np.float32), np.float32(s)).astype(np.float64) for s in (np.inf, -np.inf)
    ]
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal(4000) * 2.0 ** rng.uniform(-fmt.frac - 4, np.log2(fmt.max) + 2, 4000)
    extremes = [0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 1e308, -1e308, np.inf, -np.inf]
    return np.concatenate((*around, spread, extremes))


def same_numbers(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal numbers and signs (of zeros too), NaN where NaN."""
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    number = ~np.isnan(ours)
    np.testing.assert_array_equal(ours[number], theirs[number])
    np.testing.assert_array_equal(np.signbit(ours[number]), np.signbit(theirs[number]))


@pytest.mark.parametrize("name", OCP)
def test_decode_every_code(name: str) -> None:
    ours, dtype, info = OCP[name]
    codes = np.arange(2**ours.width)
    same_numbers(ours.decode(codes), codes.astype(np.uint8).view(dtype).astype(np.float64))
    same_numbers(ours.decode(codes), np.array([gfloat.decode_float(info, int(c)).fval for c in codes]))


@pytest.mark.parametrize("name", OCP)
def test_encode_like_ml_dtypes(name: str) -> None:
    ours, dtype, _ = OCP[name]
    x = hard_inputs(ours)
    # ml_dtypes narrows float64 through float32 for some types; only numbers that float32 holds can be
    # compared.
    with np.errstate(over="ignore"):
        x = x[x.astype(np.float32).astype(np.float64) == x]
    theirs = x.astype(np.float32).astype(dtype)
    same_numbers(ours.quantize(x), theirs.astype(np.float64))
    codes, numbers = ours.encode(x), ~np.isnan(ours.quantize(x))
    np.testing.assert_array_equal(codes[numbers], theirs.view(np.uint8)[numbers])


@pytest.mark.parametrize("name", OCP)
@pytest.mark.parametrize("source", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_every_16_bit_float_like_ml_dtypes(name: str, source: Any) -> None:
    """All 65536 bit patterns, infinities and NaNs with them."""
    ours, dtype, _ = OCP[name]
    x = np.arange(1 << 16, dtype=np.uint16).view(source)
    if ours.specials == "none":
        x = x[np.isfinite(x)]  # no code for NaN; ml_dtypes saturates infinities as we do
    theirs = x.astype(np.float32).astype(dtype)
    same_numbers(ours.quantize(x.astype(np.float64)), theirs.astype(np.float64))
    numbers = ~np.isnan(x.astype(np.float64))
    np.testing.assert_array_equal(
        ours.encode(x.astype(np.float64))[numbers & ~np.isnan(theirs.astype(np.float64))],
        theirs.view(np.uint8)[numbers & ~np.isnan(theirs.astype(np.float64))],
    )


@pytest.mark.parametrize("name", OCP)
def test_every_pair_like_ml_dtypes(name: str) -> None:
    """Products and sums of every two numbers, cast once."""
    ours, dtype, _ = OCP[name]
    numbers = ours.values()
    for exact in (np.multiply.outer(numbers, numbers), np.add.outer(numbers, numbers)):
        exact = exact[exact.astype(np.float32) == exact]  # what ml_dtypes takes without rounding
        theirs = exact.astype(np.float32).astype(dtype).astype(np.float64)
        same_numbers(ours.quantize(exact), theirs)


@pytest.mark.parametrize("name", OCP)
def test_every_integer_like_ml_dtypes(name: str) -> None:
    """The cast of the graph, from the format's own grid and finer and coarser ones."""
    base, dtype, _ = OCP[name]
    ours = Minifloat(base.exponent_bits, base.mantissa_bits, specials=base.specials)
    beyond = min(ours.integer_max + (ours.integer_max >> 3) + 9, 1 << 19)
    codes = np.arange(-beyond, beyond + 1)[:, None]
    for point in (ours.frac, ours.frac + 2, ours.frac - 3):
        x = np.ldexp(codes, -point).astype(np.float32)
        top = np.float32(ours.max)
        theirs = np.clip(x, -top, top).astype(dtype).astype(np.float64)
        (result,) = ours.result_points((point,))
        np.testing.assert_array_equal(np.ldexp(ours.cast_integers(codes, (point,)), -result), theirs)
        scaled = torch.from_numpy(np.ldexp(codes, ours.frac - point).astype(np.float32))
        np.testing.assert_array_equal(
            np.ldexp(ours.round_scaled(scaled).double().numpy(), -ours.frac), theirs
        )


@pytest.mark.parametrize("name", OCP)
@pytest.mark.parametrize(
    ("mode", "theirs"),
    [
        ("RND_CONV", gfloat.RoundMode.TiesToEven),
        ("RND_INF", gfloat.RoundMode.TiesToAway),
        ("TRN_ZERO", gfloat.RoundMode.TowardZero),
        ("TRN", gfloat.RoundMode.TowardNegative),
    ],
)
@pytest.mark.parametrize("overflow", ["SAT", "INF"])
def test_encode_like_gfloat(name: str, mode: str, theirs: gfloat.RoundMode, overflow: str) -> None:
    base, _, info = OCP[name]
    if base.specials == "none" and overflow == "INF":
        pytest.skip("no code for infinity")
    ours = Minifloat(
        base.exponent_bits, base.mantissa_bits, specials=base.specials, rounding=mode, overflow=overflow
    )
    x = hard_inputs(ours, seed=1)
    if mode == "RND_INF":
        # gfloat 0.5.2 computes `delta + 0.5 >= 1.0` in doubles, which is true for the double just below a
        # tie.
        below = np.nextafter(ours.smallest_subnormal / 2, 0)
        x = x[np.abs(x) != below]
    expected = np.array([gfloat.round_float(info, float(v), theirs, sat=overflow == "SAT") for v in x])
    same_numbers(ours.quantize(x), expected)
    codes = [gfloat.encode_float(info, v) for v in expected if not np.isnan(v)]
    np.testing.assert_array_equal(ours.encode(x)[~np.isnan(expected)], codes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("e", "m", "bias"),
    [(1, 2, None), (2, 1, 3), (3, 4, None), (4, 3, 11), (5, 10, None), (8, 7, None), (6, 1, 5)],
)
def test_encode_like_apytypes(e: int, m: int, bias: int | None, mode: str) -> None:
    """APyFloat has IEEE specials at every size and all seven modes; its directed overflow "
    "is IEEE's as well."""
    ours = Minifloat(e, m, bias, specials="ieee", rounding=mode, overflow="INF")
    x = hard_inputs(ours, seed=2)
    # apytypes 0.5.1 loses the carry of a subnormal that is rounded up to the smallest normal number, and
    # gives 0.
    largest_subnormal = ours.smallest_normal - ours.smallest_subnormal
    x = x[~((np.abs(x) > largest_subnormal) & (np.abs(x) < ours.smallest_normal))]
    wide = apytypes.APyFloatArray.from_array(x, exp_bits=11, man_bits=52)
    cast = wide.cast(e, m, ours.bias, getattr(apytypes.QuantizationMode, mode))
    same_numbers(ours.quantize(x), np.asarray(cast.to_numpy(), dtype=np.float64))


def exact(fmt: Minifloat, x: float) -> float:
    """The cast by its definition: among the format's numbers (and one more beyond the end) the right
    neighbour of ``x``.

    Finite ``x``, saturating formats.
    """
    numbers = [Fraction(v) for v in fmt.values()]
    if not fmt.signed and x < 0:
        return 0.0
    step = numbers[-1] - numbers[-2]
    numbers = ([-numbers[-1] - step] if fmt.signed else []) + numbers + [numbers[-1] + step]
    v = min(max(Fraction(x), numbers[0]), numbers[-1])
    below = max(i for i, n in enumerate(numbers) if n <= v)
    if numbers[below] == v:
        chosen = below
    else:
        low, high = numbers[below], numbers[below + 1]
        zero = next(i for i, n in enumerate(numbers) if n == 0)
        tie = v - low == high - v
        nearest = below if v - low < high - v else below + 1
        toward_zero = below if v > 0 else below + 1
        chosen = {
            "TRN": below,
            "TRN_ZERO": toward_zero,
            "RND": below + 1 if tie else nearest,
            "RND_ZERO": toward_zero if tie else nearest,
            "RND_INF": 2 * below + 1 - toward_zero if tie else nearest,
            "RND_MIN_INF": below if tie else nearest,
            # Numbers are in the order of their codes, counted from zero.
            "RND_CONV": (below if (below - zero) % 2 == 0 else below + 1) if tie else nearest,
        }[fmt.rounding]
    return float(min(max(numbers[chosen], Fraction(fmt.min)), Fraction(fmt.max)))


@st.composite
def formats(draw: st.DrawFn) -> Minifloat:
    e, m = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    specials = draw(st.sampled_from(("none", "fn", "ieee")))
    bias = draw(st.one_of(st.none(), st.integers(-40, 40), st.sampled_from((-300, 300))))
    try:
        return Minifloat(e, m, bias, draw(st.booleans()), specials, draw(st.sampled_from(MODES)))
    except QfxError:
        return Minifloat(max(e, 1), max(m, 1), bias, specials=specials, rounding=draw(st.sampled_from(MODES)))


@settings(max_examples=150, deadline=None)
@given(formats(), st.data())
def test_cast_by_definition(fmt: Minifloat, data: st.DataObject) -> None:
    values = fmt.values()
    i = data.draw(st.integers(0, len(values) - 2))
    middle = values[i] / 2 + values[i + 1] / 2
    free = data.draw(st.floats(-fmt.max * 1.5, fmt.max * 1.5, allow_nan=False))
    points = np.array(
        [
            values[i],
            middle,
            np.nextafter(middle, np.inf),
            np.nextafter(middle, -np.inf),
            free,
            5e-324,
            -5e-324,
        ]
    )
    ours = fmt.quantize(points)
    np.testing.assert_array_equal(ours, [exact(fmt, float(p)) for p in points])
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(points) & fmt.signed)
    np.testing.assert_array_equal(fmt.decode(fmt.encode(points)), ours)
    np.testing.assert_array_equal(fmt.encode(torch.tensor(points)).numpy(), fmt.encode(points))


@pytest.mark.parametrize(
    "fmt",
    [Minifloat(4, 3), Minifloat(0, 3), Minifloat(3, 0), Minifloat(2, 2, signed=False), Minifloat(8, 10)],
)
def test_every_number_is_kept(fmt: Minifloat) -> None:
    values = fmt.values()
    np.testing.assert_array_equal(fmt.quantize(values), values)
    assert (np.diff(values) > 0).all()
    assert values[0] == fmt.min and values[-1] == fmt.max
    codes = np.arange(2**fmt.width)
    np.testing.assert_array_equal(fmt.encode(fmt.decode(codes)), codes)


def test_facts_of_known_formats() -> None:
    e4m3, e5m2 = Minifloat(4, 3, specials="fn"), Minifloat(5, 2, specials="ieee")
    assert (e4m3.max, e4m3.smallest_subnormal, e4m3.smallest_normal, e4m3.bias) == (
        448.0,
        2.0**-9,
        2.0**-6,
        7,
    )
    assert (e5m2.max, e5m2.smallest_subnormal, e5m2.bias) == (57344.0, 2.0**-16, 15)
    assert (Minifloat(2, 3).max, Minifloat(3, 2).max, Minifloat(2, 1).max) == (7.5, 28.0, 6.0)
    np.testing.assert_array_equal(
        Minifloat(2, 1).values(), [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6]
    )
    assert (e4m3.nan_code, e4m3.infinity_code) == (0x7F, None)
    assert (e5m2.nan_code, e5m2.infinity_code) == (0x7E, 0x7C)
    # Sign and magnitude fixed point: m * 2**(1 - bias - M).
    np.testing.assert_array_equal(Minifloat(0, 2).values(), [-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    assert str(Minifloat(4, 3, 9, specials="fn", overflow="INF")) == "E4M3 bias 9 fn INF"


def test_nan_and_infinity() -> None:
    x = np.array([np.nan, np.inf, -np.inf])
    sat, inf = Minifloat(5, 2, specials="ieee"), Minifloat(5, 2, specials="ieee", overflow="INF")
    np.testing.assert_array_equal(sat.encode(x), [0x7E, 0x7B, 0xFB])
    np.testing.assert_array_equal(inf.encode(x), [0x7E, 0x7C, 0xFC])
    fn = Minifloat(4, 3, specials="fn", overflow="INF")
    np.testing.assert_array_equal(fn.encode(x), [0x7F, 0x7F, 0x7F])
    # IEEE 754: rounding towards zero never reaches infinity from a finite number.
    toward = Minifloat(5, 2, specials="ieee", overflow="INF", rounding="TRN_ZERO")
    np.testing.assert_array_equal(toward.quantize(np.array([1e9, np.inf])), [57344.0, np.inf])
    plain = Minifloat(2, 1)
    assert np.isnan(plain.quantize(x))[0] and plain.quantize(x)[1] == 6.0
    with pytest.raises(QfxError, match=r"E2M1: NaN at index \(1, 0\) has no code"):
        plain.encode(np.array([[0.0], [np.nan]]))
    with pytest.raises(QfxError, match="NaN at index"):
        plain.encode(torch.tensor([0.0, float("nan")]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_torch_and_numpy_agree(dtype: torch.dtype) -> None:
    fmt = Minifloat(4, 3, specials="fn")
    x = torch.tensor(hard_inputs(fmt)).to(dtype).reshape(3, -1, 1)
    y = fmt.quantize(x)
    assert y.dtype == dtype and y.shape == x.shape
    same_numbers(y.double().numpy(), fmt.quantize(x.double().numpy()))


def test_result_dtype_holds_the_format() -> None:
    assert Minifloat(4, 3).quantize(np.float16([1.2])).dtype == np.float16
    assert Minifloat(8, 3).quantize(np.float16([1.2])).dtype == np.float64
    assert (
        Minifloat(8, 7, specials="ieee").quantize(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.bfloat16
    )
    assert Minifloat(8, 8).quantize(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float64
    assert Minifloat(8, 3, 200).quantize(np.float32([1])).dtype == np.float64
    assert Minifloat(4, 3).quantize(np.array([1, 1000])).tolist() == [1.0, 480.0]
    assert Minifloat(4, 3).quantize(torch.tensor([1, 1000])).dtype == torch.float64


def test_scalars_and_empty_arrays() -> None:
    fmt = Minifloat(4, 3)
    assert (
        float(fmt.quantize(1.26)) == 1.25 and int(fmt.encode(1.0)) == 0x38 and float(fmt.decode(0x38)) == 1.0
    )
    assert fmt.encode(np.zeros((0, 3))).shape == (0, 3) and fmt.quantize(torch.zeros(0)).shape == (0,)
    assert fmt.quantize(torch.tensor(1.26, requires_grad=True)).item() == 1.25


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((9, 1), {}, "exponent_bits 9 is outside 0..8"),
        ((2, 11), {}, "mantissa_bits 11 is outside 0..10"),
        ((2, 1.5), {}, "mantissa_bits must be an integer"),
        ((2, 1, 301), {}, "bias 301 is outside"),
        ((2, 1), {"specials": "inf"}, "unknown specials 'inf'; supported: none, fn, ieee"),
        ((2, 1), {"rounding": "NEAREST"}, "unknown rounding"),
        ((2, 1), {"overflow": "WRAP"}, "unknown overflow 'WRAP'; supported: SAT, INF"),
        ((2, 1), {"overflow": "INF"}, 'use specials="fn" or "ieee"'),
        ((0, 3), {"specials": "fn"}, "at least one exponent bit"),
        ((3, 0), {"specials": "ieee"}, "needs a mantissa bit"),
        ((0, 0), {}, "hold no number but 0"),
        ((1, 0), {"specials": "fn"}, "hold no number but 0"),
    ],
)
def test_bad_formats_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        Minifloat(*args, **kwargs)


@pytest.mark.parametrize(
    "codes", [np.array([-1]), np.array([256]), np.array([1.0]), torch.tensor([256]), torch.tensor([0.5])]
)
def test_bad_codes_are_refused(codes: Any) -> None:
    with pytest.raises(QfxError, match="E4M3: codes are"):
        Minifloat(4, 3).decode(codes)


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([1j]), torch.tensor([1j]), np.array([2**60])])
def test_bad_numbers_are_refused(x: Any) -> None:
    with pytest.raises(QfxError, match="cannot|cast"):
        Minifloat(4, 3).encode(x)


# -- one bias per channel, and the integers of the graph -------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("e", "m", "signed", "specials"),
    [
        (3, 2, True, "none"),
        (4, 3, True, "fn"),
        (2, 0, True, "none"),
        (0, 3, True, "none"),
        (2, 2, False, "ieee"),
    ],
)
@pytest.mark.parametrize("axis", [0, -1])
def test_bias_per_channel_is_one_format_per_channel(
    e: int, m: int, signed: bool, specials: str, mode: str, axis: int
) -> None:
    biases = (3, -7, 40, 0)
    fmt = Minifloat(e, m, biases, signed, specials, mode)
    singles = [Minifloat(e, m, b, signed, specials, mode) for b in biases]
    assert fmt.frac == tuple(s.frac for s in singles) and fmt.per_channel and not fmt.learned
    assert fmt.max.tolist() == [s.max for s in singles] and fmt.min.tolist() == [s.min for s in singles]
    assert fmt.smallest_normal.tolist() == [s.smallest_normal for s in singles]
    x = np.stack([hard_inputs(s)[-4000:] for s in singles])
    together = np.moveaxis(x.reshape(4, 20, -1), 0, axis)
    expected = np.moveaxis(
        np.stack([s.quantize(r) for s, r in zip(singles, x, strict=True)]).reshape(4, 20, -1), 0, axis
    )
    codes = np.moveaxis(
        np.stack([s.encode(r) for s, r in zip(singles, x, strict=True)]).reshape(4, 20, -1), 0, axis
    )
    same_numbers(fmt.quantize(together, axis), expected)
    np.testing.assert_array_equal(fmt.encode(together, axis), codes)
    same_numbers(fmt.decode(codes, axis), expected)
    in_torch = torch.from_numpy(np.ascontiguousarray(together))
    same_numbers(fmt.quantize(in_torch, axis).numpy(), expected)
    np.testing.assert_array_equal(fmt.encode(in_torch, axis).numpy(), codes)
    same_numbers(fmt.decode(torch.from_numpy(codes.copy()), axis).numpy(), expected)


@settings(max_examples=100, deadline=None)
@given(formats(), st.data())
def test_integers_by_definition(fmt: Minifloat, data: st.DataObject) -> None:
    """cast_integers and round_scaled, at every offset of the operand's grid, with a bias per channel."""
    shifts = data.draw(st.lists(st.integers(-12, 12), min_size=2, max_size=2))
    fracs = (fmt.frac, min(max(fmt.frac - 5, fmt.mantissa_bits - 300), fmt.mantissa_bits + 200))
    both = fmt.with_frac(fracs)
    points = tuple(f + s for f, s in zip(fracs, shifts, strict=True))
    top = 3 * fmt.integer_max + 9
    columns = []
    for shift in shifts:
        wide = top << shift if shift >= 0 else top >> -shift
        columns.append(data.draw(st.lists(st.integers(-wide - 3, wide + 3), min_size=5, max_size=5)))
    codes = np.array(columns, dtype=object).T
    results = both.result_points(points)
    cast = both.cast_integers(codes, points)
    for channel, frac in enumerate(fracs):
        single = fmt.with_frac(frac)
        for code, found in zip(codes[:, channel], cast[:, channel], strict=True):
            number = Fraction(int(code)) / Fraction(2) ** points[channel]
            # The codes have at most 60 bits: move the grid to 0, where doubles hold the operand.
            expected = exact(single.with_frac(0), float(number * Fraction(2) ** frac))
            if float(number * Fraction(2) ** frac) == number * Fraction(2) ** frac:
                assert (
                    Fraction(int(found)) / Fraction(2) ** results[channel]
                    == Fraction(expected) / Fraction(2) ** frac
                )
    assert both.members(
        cast << np.array([f - r for f, r in zip(fracs, results, strict=True)], dtype=object)
    ).all()
    if max(map(abs, codes.reshape(-1))) < 1 << 50:
        assert (both.cast_integers(codes.astype(np.int64), points) == cast).all()
        scaled = np.ldexp(codes.astype(float), np.array(fracs) - np.array(points))
        rounded = both.round_scaled(torch.tensor(scaled)).numpy()
        np.testing.assert_array_equal(
            np.ldexp(rounded, np.array(results) - np.array(fracs)), cast.astype(float)
        )


def test_wide_formats_stay_on_the_grid_of_narrow_operands() -> None:
    """bfloat16 spans 260 bits; the cast of a sum of 20 bits has 20, and equals ml_dtypes."""
    fmt = Minifloat(8, 7, specials="ieee")
    assert (
        fmt.integer_max.bit_length() == 261 - 7 + 7 - 7 + 0 if False else fmt.integer_max.bit_length() > 250
    )
    rng = np.random.default_rng(0)
    codes = np.concatenate((np.arange(-5000, 5000), rng.integers(-(1 << 19), 1 << 19, 30000)))[:, None]
    for point in (0, 12, -30, 100, 140):
        results = fmt.result_points((point,))
        assert results == (min(point, fmt.frac),)
        cast = fmt.cast_integers(codes, (point,))
        assert cast.dtype == np.int64 and int(np.abs(cast).max()) <= 1 << 19
        x = np.ldexp(codes.astype(float), -point)
        assert (x.astype(np.float32) == x).all()
        theirs = x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
        np.testing.assert_array_equal(np.ldexp(cast.astype(float), -results[0]), theirs)
        low, high = fmt.cast_interval(
            np.array([-(1 << 19)], dtype=object), np.array([255], dtype=object), (point,)
        )
        if point <= fmt.frac:
            assert (low[0], high[0]) == (-(1 << 19), 255)
    per_channel = Minifloat(8, 7, (127, 100, 150), specials="ieee")
    points = (12, -3, 30)
    cast = per_channel.cast_integers(np.repeat(codes, 3, axis=1), points)
    for i, bias in enumerate((127, 100, 150)):
        single = Minifloat(8, 7, bias, specials="ieee").cast_integers(codes, points[i : i + 1])
        np.testing.assert_array_equal(cast[:, i], single[:, 0])
    with pytest.raises(QfxError, match="its numbers span .* bits, and tensors hold 62"):
        fmt.integers(np.ones(3))


def test_saturation_off_the_operands_grid() -> None:
    """The largest number 28 = 7 * 2**2 is no multiple of 2**5: the result needs the finer grid."""
    fmt = Minifloat(3, 2)
    assert fmt.result_points((-5, fmt.frac + 3, 0)) == (-2, fmt.frac, 0)
    assert fmt.cast_integers(np.array([[2, -9, 0]]), (-5, -5, -5)).tolist() == [[7, -7, 0]]
    assert fmt.result_points((-5,) * 3) == (-2,) * 3


def test_finite_numbers_beyond_a_double_after_scaling() -> None:
    """IEEE 754: rounding towards zero never reaches infinity from a finite number, however large the bias."""
    fmt = Minifloat(5, 2, (300, 15), specials="ieee", overflow="INF", rounding="TRN_ZERO")
    x = np.array([[1e300, 1e300], [np.inf, -np.inf], [-1e308, -1e308]])
    expected = [[fmt.max[0], fmt.max[1]], [np.inf, -np.inf], [-fmt.max[0], -fmt.max[1]]]
    assert fmt.quantize(x, axis=1).tolist() == expected
    assert fmt.quantize(torch.tensor(x), axis=1).tolist() == expected
    tiny = Minifloat(5, 2, (-300, 15), rounding="TRN").quantize(np.array([[-5e-324, -5e-324]]), axis=1)
    assert tiny.tolist() == [[-(2.0**299), -(2.0**-16)]]


def test_members_of_wide_and_channelled_formats() -> None:
    fmt = Minifloat(3, 2, (3, 5))
    numbers = set(fmt.with_frac(0).values().astype(int).tolist())
    every = np.arange(-600, 600)
    assert [int(i) for i in every[fmt.members(every)]] == sorted(numbers)
    huge = Minifloat(8, 7)
    integers = np.array([255 << 200, 257 << 200, huge.integer_max, huge.integer_max + 1, 0], dtype=object)
    assert huge.members(integers).tolist() == [True, False, True, False, True]


def test_networks_need_saturation_and_matching_channels() -> None:
    infinite = Minifloat(5, 2, specials="ieee", overflow="INF")
    for call in (
        lambda: infinite.cast_integers(np.ones((1, 1), dtype=np.int64), (0,)),
        lambda: infinite.round_scaled(torch.ones(1)),
    ):
        with pytest.raises(QfxError, match='a network needs overflow="SAT"'):
            call()
    two = Minifloat(4, 3, (7, 8))
    with pytest.raises(QfxError, match="2 binary points for 3 channels"):
        two.quantize(np.ones((3, 3)))
    with pytest.raises(QfxError, match="2 binary points for 3 channels"):
        two.cast_integers(np.ones((1, 3), dtype=np.int64), (0, 0, 0))
    with pytest.raises(QfxError, match="needs one bias"):
        two.values()
    with pytest.raises(QfxError, match="bias must be integers, one per channel, found an empty"):
        Minifloat(4, 3, ())
    assert two.with_frac(None).learned and two.with_frac((9, 10)) == two and str(two) == "E4M3 bias 7..8"
