"""FixedPoint by itself, and against apytypes."""

from __future__ import annotations

from fractions import Fraction

import apytypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.errors import QfxError
from qfx.formats import OVERFLOW, ROUNDING, FixedPoint, cast_codes, smallest_format

APY_ROUNDING = {
    "TRN": apytypes.QuantizationMode.TRN,
    "TRN_ZERO": apytypes.QuantizationMode.TRN_ZERO,
    "RND": apytypes.QuantizationMode.RND,
    "RND_ZERO": apytypes.QuantizationMode.RND_ZERO,
    "RND_INF": apytypes.QuantizationMode.RND_INF,
    "RND_MIN_INF": apytypes.QuantizationMode.RND_MIN_INF,
    "RND_CONV": apytypes.QuantizationMode.RND_CONV,
}
# apytypes has no SAT_ZERO, SAT_SYM and WRAP_SM; for those ap_fixed itself is the yardstick
# (test_fixed_ap_fixed.py).
APY_OVERFLOW = {"SAT": apytypes.OverflowMode.SAT, "WRAP": apytypes.OverflowMode.WRAP}


@st.composite
def casts(draw):
    source_width, width = draw(st.integers(1, 32)), draw(st.integers(1, 32))
    source_frac = draw(st.integers(-10, 40))
    frac = source_frac - draw(st.integers(-8, 24))
    signed = draw(st.booleans())
    low, high = (
        (-(1 << (source_width - 1)), (1 << (source_width - 1)) - 1)
        if signed
        else (0, (1 << source_width) - 1)
    )
    codes = draw(st.lists(st.integers(low, high), min_size=1, max_size=20))
    fmt = FixedPoint(
        width,
        frac,
        draw(st.booleans()),
        draw(st.sampled_from(ROUNDING)),
        draw(st.sampled_from(sorted(APY_OVERFLOW))),
    )
    return source_width, source_frac, signed, codes, fmt


@given(casts())
@settings(max_examples=600, deadline=None)
def test_equal_to_apytypes(case):
    source_width, source_frac, signed, codes, fmt = case
    bits = [c & ((1 << source_width) - 1) for c in codes]
    array = apytypes.APyFixedArray(bits, int_bits=source_width - source_frac, frac_bits=source_frac)
    if not signed:
        # apytypes is two's complement throughout: one more bit makes room for unsigned codes.
        array = apytypes.APyFixedArray(bits, int_bits=source_width - source_frac + 1, frac_bits=source_frac)
    if fmt.signed:
        wanted = array.cast(
            int_bits=fmt.width - fmt.frac,
            frac_bits=fmt.frac,
            quantization=APY_ROUNDING[fmt.rounding],
            overflow=APY_OVERFLOW[fmt.overflow],
        )
        expected = [int(v) - (1 << fmt.width) * (int(v) >> (fmt.width - 1)) for v in wanted.to_bits()]
    else:
        rounded = array.cast(
            int_bits=max(source_width - source_frac + 3, 1 - fmt.frac),
            frac_bits=fmt.frac,
            quantization=APY_ROUNDING[fmt.rounding],
        )
        total = max(source_width - source_frac + 3, 1 - fmt.frac) + fmt.frac
        values = [int(v) - (1 << total) * (int(v) >> (total - 1)) for v in rounded.to_bits()]
        top = (1 << fmt.width) - 1
        expected = [min(max(v, 0), top) if fmt.overflow == "SAT" else v & top for v in values]
    found = cast_codes(
        np.array(codes), source_frac - fmt.frac, fmt.width, fmt.signed, fmt.rounding, fmt.overflow
    )
    assert found.tolist() == expected


def exact_cast(x: Fraction, fmt: FixedPoint) -> int:
    """The definition in docs/graph.md, in rational arithmetic."""
    scaled = x * Fraction(2) ** fmt.frac
    floor = scaled.numerator // scaled.denominator
    rest = scaled - floor
    half = Fraction(1, 2)
    up = {
        "TRN": False,
        "TRN_ZERO": scaled < 0 and rest != 0,
        "RND": rest >= half,
        "RND_ZERO": rest > half or (rest == half and scaled < 0),
        "RND_INF": rest > half or (rest == half and scaled > 0),
        "RND_MIN_INF": rest > half,
        "RND_CONV": rest > half or (rest == half and floor % 2 == 1),
    }[fmt.rounding]
    v = floor + up
    low, high = fmt.code_min, fmt.code_max
    if low <= v <= high:
        return v
    if fmt.overflow in ("SAT", "SAT_SYM"):
        return low if v < low else high
    if fmt.overflow == "SAT_ZERO":
        return 0
    bits = v % (1 << fmt.width)
    if fmt.overflow == "WRAP_SM" and (floor >> fmt.width) & 1 != (bits >> (fmt.width - 1)) & 1:
        bits = (bits ^ ((1 << fmt.width) - 1)) & ((1 << (fmt.width - 1)) - 1) | (
            (floor >> fmt.width) & 1
        ) << (fmt.width - 1)
    return bits - (1 << fmt.width) if fmt.signed and bits >> (fmt.width - 1) else bits


@st.composite
def any_format(draw):
    signed = draw(st.booleans())
    overflow = draw(st.sampled_from([o for o in OVERFLOW if signed or o != "WRAP_SM"]))
    width = draw(st.integers(2, 53))
    return FixedPoint(width, draw(st.integers(-40, 60)), signed, draw(st.sampled_from(ROUNDING)), overflow)


@given(
    any_format(),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10),
    st.data(),
)
@settings(max_examples=500, deadline=None)
def test_any_double_is_cast_from_its_exact_value(fmt, values, data):
    near = data.draw(st.lists(st.integers(-(1 << fmt.width), 1 << fmt.width), max_size=10))
    values = values + [n / 4 * 2.0**-fmt.frac for n in near]
    expected = [exact_cast(Fraction(v), fmt) for v in values]
    assert fmt.encode(np.array(values)).tolist() == expected
    assert fmt.encode(torch.tensor(values, dtype=torch.float64)).tolist() == expected
    quantized = fmt.quantize(np.array(values))
    assert quantized.dtype == np.float64
    assert [Fraction(q) for q in quantized] == [Fraction(e) * Fraction(2) ** -fmt.frac for e in expected]
    single = np.array([v for v in values if abs(v) < 3e38], dtype=np.float32)
    assert fmt.encode(single).tolist() == [exact_cast(Fraction(float(v)), fmt) for v in single]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("overflow", OVERFLOW)
def test_infinities_and_nan(overflow, dtype):
    fmt = FixedPoint(5, 2, overflow=overflow)
    ends = np.array([np.inf, -np.inf], dtype=dtype)
    expected = {"SAT": [15, -16], "SAT_SYM": [15, -15]}.get(overflow, [0, 0])
    assert fmt.encode(ends).tolist() == expected
    assert np.isnan(fmt.quantize(np.array([1.0, np.nan], dtype=dtype))).tolist() == [False, True]
    assert torch.isnan(fmt.quantize(torch.tensor([1.0, np.nan]))).tolist() == [False, True]
    with pytest.raises(QfxError, match=r"NaN at index \(1,\)"):
        fmt.encode(np.array([1.0, np.nan], dtype=dtype))


def test_dtypes_are_kept_where_they_hold_the_format():
    assert FixedPoint(24, 3).quantize(torch.zeros(2)).dtype == torch.float32
    assert FixedPoint(25, 3).quantize(torch.zeros(2)).dtype == torch.float64
    assert FixedPoint(8, 3).quantize(np.zeros(2, np.float32)).dtype == np.float32
    assert FixedPoint(8, 3).quantize(torch.zeros(2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert FixedPoint(9, 3).quantize(torch.zeros(2, dtype=torch.bfloat16)).dtype == torch.float64
    assert FixedPoint(8, 3).quantize([1, 2]).dtype == np.float64


def test_per_channel():
    fmt = FixedPoint(4, (0, 2))
    x = np.array([[1.3, 9.0], [1.3, 9.0]])
    np.testing.assert_array_equal(fmt.quantize(x), [[1.0, 7.0], [1.25, 1.75]])
    np.testing.assert_array_equal(fmt.quantize(x, axis=1), [[1.0, 1.75], [1.0, 1.75]])
    np.testing.assert_array_equal(fmt.max, [7.0, 1.75])
    assert fmt.decode(fmt.encode(torch.tensor(x))).tolist() == fmt.quantize(x).tolist()


def test_values_and_ends():
    assert FixedPoint(3, 1).values().tolist() == [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    assert FixedPoint(3, 1, overflow="SAT_SYM").values().tolist() == [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    assert FixedPoint(2, -3, signed=False).values().tolist() == [0.0, 8.0, 16.0, 24.0]
    assert (FixedPoint(4, 6).min, FixedPoint(4, 6).max) == (-0.125, 7 / 64)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": 0}, "width 0"),
        ({"width": 2.5}, "width must be an integer"),
        ({"width": 63}, "1..62"),
        ({"width": 8, "frac": 1.5}, "frac must be"),
        ({"width": 8, "frac": ()}, "frac must be"),
        ({"width": 8, "frac": 1000}, "frac 1000"),
        ({"width": 8, "rounding": "ROUND"}, "supported: TRN"),
        ({"width": 8, "overflow": "CLIP"}, "supported: SAT"),
        ({"width": 8, "signed": False, "overflow": "WRAP_SM"}, "signed formats only"),
        ({"width": 1, "overflow": "SAT_SYM"}, "nothing but 0"),
    ],
)
def test_impossible_formats(arguments, message):
    with pytest.raises(QfxError, match=message):
        FixedPoint(**arguments)


def test_open_binary_point():
    with pytest.raises(QfxError, match="binary point is not set"):
        FixedPoint(8).quantize(np.zeros(2))


@given(st.integers(-(1 << 60), 1 << 60), st.integers(-(1 << 60), 1 << 60))
def test_smallest_format(a, b):
    low, high = min(a, b), max(a, b)
    fmt = smallest_format(low, high)
    assert fmt.code_min <= low and high <= fmt.code_max
    if fmt.width > 1:
        narrower = FixedPoint(fmt.width - 1, 0, fmt.signed)
        assert low < narrower.code_min or high > narrower.code_max
