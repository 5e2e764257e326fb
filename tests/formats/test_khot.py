"""K-hot numbers against their definition in plain Python: every digit string, every distance."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qfx
from qfx.errors import QfxError
from qfx.formats import FixedPoint, KHot, PowerOfTwo, Ternary
from qfx.formats.khot import MAX_MAGNITUDES, digit_counts
from qfx.graph import GraphBuilder, ops


@cache
def fewest_digits(bits: int, digits: str) -> dict[int, int]:
    """The least number of nonzero digits of every magnitude of ``bits`` bits, by writing down all strings of
    digits in order of their number of nonzero ones."""
    found = {0: 0}
    places = bits + 1 if digits == "csd" else bits
    for count in range(1, places + 1):
        if len(found) == 1 << bits:
            break
        for chosen in combinations(range(places), count):
            for signs in product((1, -1), repeat=count) if digits == "csd" else [(1,) * count]:
                value = abs(sum(s << p for s, p in zip(signs, chosen, strict=True)))
                if value < 1 << bits:
                    found.setdefault(value, count)
    return found


def members(fmt: KHot) -> list[int]:
    counts = fewest_digits(fmt.width - fmt.signed, fmt.digits)
    positive = sorted(m for m, n in counts.items() if n <= fmt.k)
    return sorted({*positive, *(-m for m in positive)}) if fmt.signed else positive


def nearest(fmt: KHot, x: Fraction) -> int:
    """By the definition: nearest, then fewest digits, then smallest magnitude."""
    counts = fewest_digits(fmt.width - fmt.signed, fmt.digits)
    return min(members(fmt), key=lambda m: (abs(m - x), counts[abs(m)], abs(m)))


SMALL = [
    KHot(width, 0, k, digits, signed)
    for width in (2, 3, 5, 7, 8)
    for k in (1, 2, 3)
    for digits in ("csd", "binary")
    for signed in (True, False)
]


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_members_and_every_cast(fmt: KHot) -> None:
    known = members(fmt)
    np.testing.assert_array_equal(fmt.values(), known)
    assert (fmt.integer_min, fmt.integer_max) == (known[0], known[-1])
    # Sixteenths, past both ends: every number, every midpoint, and what lies between.
    sixteenths = np.arange(16 * known[0] - 80, 16 * known[-1] + 80)
    steps = {Fraction(int(s), 16): int(s) for s in sixteenths[::7]}
    steps |= {Fraction(a + b, 2): 8 * (a + b) for a, b in zip(known, known[1:], strict=False)}
    steps |= {
        Fraction(a + b, 2) + Fraction(d, 16): 8 * (a + b) + d
        for a, b in zip(known, known[1:], strict=False)
        for d in (-1, 1)
    }
    expected = [nearest(fmt, x) for x in steps]
    codes = np.array(list(steps.values()))
    np.testing.assert_array_equal(fmt.quantize(codes / 16), expected)
    np.testing.assert_array_equal(fmt.cast_integers(codes[:, None], (4,))[:, 0], expected)
    np.testing.assert_array_equal(fmt.cast_integers(codes[:, None].astype(object), (4,))[:, 0], expected)
    for dtype in (torch.float32, torch.float64):
        np.testing.assert_array_equal(
            fmt.round_scaled(torch.tensor(codes / 16, dtype=dtype)).numpy(), expected
        )


@pytest.mark.parametrize("fmt", [*SMALL, KHot(15, 0, 3), KHot(16, 0, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_of_ties_in_floating_point(fmt: KHot, dtype: type) -> None:
    """Two ways through torch (a direct table, a search) and one through numpy."""
    values = fmt.values()[:: max(1, len(fmt.values()) // 500)]
    ties = ((fmt.values()[1:] + fmt.values()[:-1]) / 2)[:: max(1, len(fmt.values()) // 500)]
    rng = np.random.default_rng(0)
    spread = rng.standard_normal(2000) * 2.0 ** rng.uniform(-40, fmt.width + 3, 2000)
    points = np.concatenate((values, ties, spread)).astype(dtype)
    x = np.concatenate((points, np.nextafter(points, dtype(np.inf)), np.nextafter(points, dtype(-np.inf))))
    np.testing.assert_array_equal(fmt.round_scaled(torch.from_numpy(x)).numpy(), fmt.quantize(x))


@pytest.mark.parametrize("digits", ["csd", "binary"])
def test_digit_counts(digits: str) -> None:
    counts = fewest_digits(8, digits)
    found = digit_counts(np.arange(256), digits)
    assert found.tolist() == [counts[m] for m in range(256)]


def test_digits_like_alkaid() -> None:
    binary = pytest.importorskip("alkaid._binary")
    integers = np.arange(1 << 16)
    theirs = binary.int_arr_to_csd(integers.astype(np.int32))
    np.testing.assert_array_equal(theirs.astype(np.int64) @ (1 << np.arange(theirs.shape[-1])), integers)
    np.testing.assert_array_equal(digit_counts(integers, "csd"), np.count_nonzero(theirs, axis=-1))
    places, negative = KHot(20, 0, k=9)._digits(integers)
    ours = sum(
        np.where(p >= 0, np.where(n, -1, 1) << np.maximum(p, 0), 0)
        for p, n in zip(places, negative, strict=True)
    )
    np.testing.assert_array_equal(ours, integers)


def test_what_the_docstring_says_of_ties() -> None:
    # 3 is halfway between 2 and 4, 6 between 4 and 8: one digit each, the smaller magnitude.
    np.testing.assert_array_equal(PowerOfTwo(6, 0).quantize([3.0, -3.0, 6.0, 0.5, -0.5]), [2, -2, 4, 0, 0])
    # 3.5 is halfway between 3 = 4 - 1 and 4, 4.5 between 4 and 5 = 4 + 1: fewer digits.
    np.testing.assert_array_equal(KHot(6, 0, k=2).quantize([3.5, -3.5, 4.5, 2.5]), [4, -4, 4, 2])


def test_greedy_choices_are_not_nearest() -> None:
    """Taking the leading ones, or the nearest power of two again and again, is worse somewhere."""
    fmt = KHot(8, 0, k=2, digits="binary")
    leading = []
    for value in range(128):
        digits = [1 << p for p in range(7) if value >> p & 1]
        leading.append(sum(sorted(digits)[-2:]))
    ours = fmt.quantize(np.arange(128.0))
    exact = np.abs(ours - np.arange(128))
    assert (exact <= np.abs(np.array(leading) - np.arange(128))).all()
    assert (exact < np.abs(np.array(leading) - np.arange(128))).sum() > 20


@pytest.mark.parametrize(("width", "k"), [(24, 2), (24, 5), (25, 2), (26, 3), (40, 2), (53, 3)])
def test_wide_formats(width: int, k: int) -> None:
    """Ties and their neighbours, in integers and in floating point, where midpoints need more bits than
    float32 or float64 have."""
    fmt = KHot(width, 0, k)
    numbers = np.concatenate((fmt.values()[-300:], fmt.values()[::7001])).astype(np.int64)
    doubled = np.concatenate((2 * numbers, numbers[1:] + numbers[:-1]))
    doubled = np.concatenate((doubled, doubled + 1, doubled - 1))
    cast = fmt.cast_integers(doubled[:, None], (1,))[:, 0]
    every = [int(v) for v in fmt.values()]
    counts = dict(zip(every, digit_counts(np.abs(fmt.values()).astype(np.int64), "csd"), strict=True))
    places = np.searchsorted(fmt.values(), doubled / 2)
    for i in range(0, len(doubled), max(1, len(doubled) // 500)):
        near = every[max(places[i] - 2, 0) : places[i] + 3]
        want = min(near, key=lambda m: (abs(2 * m - int(doubled[i])), counts[m], abs(m)))
        assert cast[i] == want, doubled[i]
    exact64 = np.abs(doubled) < 1 << 53
    np.testing.assert_array_equal(fmt.quantize(doubled[exact64] / 2), cast[exact64])
    np.testing.assert_array_equal(fmt.round_scaled(torch.tensor(doubled[exact64] / 2)).numpy(), cast[exact64])
    if width <= 25:  # the numbers fit float32; the midpoints of 25 bits do not
        held = (doubled / 2).astype(np.float32).astype(np.float64) == doubled / 2
        assert held.sum() > 0
        rounded = fmt.round_scaled(torch.tensor((doubled[held] / 2).astype(np.float32)))
        np.testing.assert_array_equal(rounded.double().numpy(), cast[held])


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 12),
    st.integers(1, 4),
    st.sampled_from(("csd", "binary")),
    st.booleans(),
    st.integers(-70, 70),
    st.integers(-70, 70),
    st.lists(st.integers(-(1 << 60), 1 << 60), min_size=1, max_size=20),
)
def test_cast_integers_at_any_shift(
    width: int, k: int, digits: str, signed: bool, frac: int, point: int, drawn: list[int]
) -> None:
    fmt = KHot(width, frac, k, digits, signed)
    codes = np.array(drawn + [d >> 50 for d in drawn], dtype=object)[:, None]
    (result,) = fmt.result_points((point,))
    assert result <= frac
    cast = fmt.cast_integers(codes, (point,))
    expected = [nearest(fmt, Fraction(int(c)) * Fraction(2) ** (frac - point)) for c in codes[:, 0]]
    assert [Fraction(int(c)) * Fraction(2) ** (frac - result) for c in cast[:, 0]] == expected
    assert (fmt.cast_integers(codes.astype(np.int64), (point,)) == cast).all()


@pytest.mark.parametrize("fmt", [*SMALL, KHot(6, (2, -1), 2), KHot(20, 3, 3)], ids=str)
def test_codes(fmt: KHot) -> None:
    one = fmt.with_frac(0)
    integers = one.values()[:: max(1, len(one.values()) // 2000)].astype(np.int64)
    codes = one.encode(integers)
    assert codes.min() >= 0 and int(codes.max()) < 1 << one.encoded_width
    assert len(set(codes.tolist())) == len(integers)
    # Read the layout as the docstring tells it.
    sign = fmt.digits == "csd"
    slot = 1 + sign + one.shift_bits
    for integer, code in zip(integers.tolist(), codes.tolist(), strict=True):
        total, last = 0, None
        for i in range(fmt.k):
            field = code >> slot * i & (1 << slot) - 1
            used, minus, shift = field & 1, sign and field >> 1 & 1, field >> 1 + sign
            assert used or field == 0
            assert not used or last is None or shift < last
            last = shift if used else last
            total += used * (-1 if minus else 1) * (1 << shift)
        if fmt.signed and not sign:
            total *= -1 if code >> slot * fmt.k else 1
        assert total == integer
    x = np.random.default_rng(0).normal(size=(50, 2)) * one.integer_max / 2
    np.testing.assert_array_equal(fmt.decode(fmt.encode(x, axis=1), axis=1), fmt.quantize(x, axis=1))


def test_decode_takes_any_slots_and_refuses_other_sums() -> None:
    fmt = KHot(6, 0, k=2)  # shifts 0 to 5: slots of 5 bits
    assert (fmt.shift_bits, fmt.encoded_width) == (3, 10)
    eight, minus_one = 3 << 2 | 1, 0 << 2 | 0b11
    assert fmt.decode(eight | minus_one << 5) == 7 and fmt.decode(minus_one | eight << 5) == 7
    assert fmt.decode(0b11110 | eight << 5) == 8  # an unused slot holds anything
    for bad in (-1, 1 << 10, (5 << 2 | 1) | (0 << 2 | 1) << 5, 7 << 2 | 1):
        with pytest.raises(QfxError, match="is not a code of the format"):
            fmt.decode(np.array([bad]))
    with pytest.raises(QfxError, match="codes are integers"):
        fmt.decode(np.array([1.0]))
    with pytest.raises(QfxError, match="codes are integers"):
        fmt.decode(torch.tensor([1.0]))
    with pytest.raises(QfxError, match="slots take .* bits; codes hold 62"):
        KHot(24, 0, k=9).encode(1.0)


def test_adders() -> None:
    fmt = KHot(8, 3, k=3)
    shifts, adds = fmt.adders(np.array([[0, 1, -64], [7, -11, 127]]))
    assert shifts.tolist() == [[0, 1, 1], [2, 3, 2]] and adds.tolist() == [[0, 0, 0], [1, 2, 1]]
    shifts, _ = KHot(8, 3, k=7, digits="binary").adders([7, 127])
    assert shifts.tolist() == [3, 7]
    with pytest.raises(QfxError, match=r"85 at index \(1,\) is not a number of the format"):
        fmt.adders([1, 85])


def test_family() -> None:
    assert PowerOfTwo(5, 1) == KHot(5, 1, 1) and Ternary() == KHot(2, None, 1)
    np.testing.assert_array_equal(PowerOfTwo(5, 1).values(), [-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4])
    np.testing.assert_array_equal(Ternary(2).values(), [-0.25, 0, 0.25])
    assert Ternary(0).encoded_width == 2
    np.testing.assert_array_equal(Ternary(0).encode([-3.0, -0.5, 0.0, 0.5, 0.75]), [0b11, 0, 0, 0, 0b01])
    assert qfx.KHot(width=8, k=2).learned and qfx.KHot(8, 4, 2, digits="binary").digits == "binary"
    assert (KHot(8, 0, 1).dense_below, KHot(8, 0, 2).dense_below) == (2, 10)
    assert KHot(8, 0, 2, "binary").dense_below == 6 and KHot(8, 0, 4).dense_below == float("inf")
    # The step at the end of 7 bits and one digit is from 32 to 64: what is past 80 is more than clipped.
    assert KHot(8, 0, 1).pass_range == (-80, 80) and KHot(8, 0, 7).pass_range == (-127.5, 127.5)
    assert str(KHot(8, 3, 2)) == "KHot<8,frac 3,k 2,csd>" and "U" in str(KHot(8, (1, 2), 2, signed=False))


def test_nan_goes_through_training() -> None:
    scaled = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    rounded = KHot(6, 0, 2).round_scaled(scaled)
    assert torch.isnan(rounded[0]) and rounded[1:].tolist() == [31, -31, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 8}, "k .nonzero digits. 0 is outside 1"),
        ({"width": 1, "k": 1}, "width 1 is outside 2..53"),
        ({"width": 54, "k": 1}, "width 54 is outside"),
        ({"width": 53, "k": 1, "signed": False}, "width 53 is outside 1..52"),
        ({"width": 8.0, "k": 1}, "width must be an integer"),
        ({"width": 8, "k": 1, "digits": "ternary"}, "unknown digits 'ternary'; supported: csd, binary"),
        ({"width": 8, "k": 1, "frac": 300}, "frac 300 is outside -256..256"),
        ({"width": 8, "k": 1, "frac": 0.5}, "frac must be an integer"),
        ({"width": 8, "k": 1, "frac": ()}, "frac must be an integer"),
        ({"width": 32, "k": 10}, "too many for the table of a nearest-number cast"),
    ],
)
def test_bad_formats_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(QfxError, match=f"KHot: .*{message}"):
        KHot(**arguments)


def test_every_format_of_24_bits_has_a_table() -> None:
    for k in range(1, 24):
        for digits in ("csd", "binary"):
            assert KHot(24, 0, k, digits).width == 24
    assert MAX_MAGNITUDES == 1 << 23


def test_open_point_and_wrong_channels() -> None:
    with pytest.raises(QfxError, match="binary point is not set yet"):
        KHot(8, k=2).quantize([1.0])
    with pytest.raises(QfxError, match="needs one binary point"):
        KHot(8, (1, 2), 2).values()
    with pytest.raises(QfxError, match="2 binary points for 3 channels"):
        KHot(8, (1, 2), 2).cast_integers(np.ones((1, 3), dtype=np.int64), (0, 0, 0))


def test_weights_of_a_graph() -> None:
    fmt = KHot(8, (4, 6, 5), k=2)
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(3, 10))
    weight, carrier = fmt.integers(numbers), FixedPoint(8, fmt.frac)
    builder = GraphBuilder()
    source = builder.add(ops.Input((10,), FixedPoint(6, 3)))
    name = builder.add(ops.Linear(weight, carrier, None, None, weight_encoding=fmt), (source,))
    graph = builder.build(name)
    x = FixedPoint(6, 3).quantize(rng.normal(size=(20, 10)))
    # Sums of a few multiples of 2**-9 below 2**7 are exact in float64.
    np.testing.assert_array_equal(graph.run(x), x @ fmt.quantize(numbers).T)
    weight = weight.copy()
    weight[1, 4] = 11  # 8 + 2 + 1
    with pytest.raises(QfxError, match=r"the code 11 at \(1, 4\) is not a number of KHot<8,"):
        builder.add(ops.Linear(weight, carrier, None, None, weight_encoding=fmt), (source,))
