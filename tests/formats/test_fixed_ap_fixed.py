"""FixedPoint against ``ap_fixed`` compiled by g++."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from qfx.errors import QfxError
from qfx.formats import OVERFLOW, ROUNDING, FixedPoint, cast_codes
from tests.formats import ap_fixed_oracle
from tests.formats.ap_fixed_oracle import Case


def formats(width: int, frac: int) -> list[FixedPoint]:
    """Every mode of a width and binary point, signed and unsigned, where the format exists."""
    found = []
    for signed, rounding, overflow in product((True, False), ROUNDING, OVERFLOW):
        try:
            found.append(FixedPoint(width, frac, signed, rounding, overflow))
        except QfxError:
            assert (overflow, signed) == ("WRAP_SM", False) or (overflow, signed, width) == (
                "SAT_SYM",
                True,
                1,
            )
    return found


def check(cases: list[Case], tmp_path) -> None:
    for case, expected in zip(cases, ap_fixed_oracle.run(cases, tmp_path), strict=True):
        target = case.target
        if case.source is None:
            found, shown = target.encode(case.inputs), case.inputs
        else:
            shift = case.source.max_frac - target.max_frac
            found = cast_codes(
                case.inputs.astype(np.int64),
                shift,
                target.width,
                target.signed,
                target.rounding,
                target.overflow,
            )
            shown = case.inputs
            np.testing.assert_array_equal(target.encode(case.source.decode(case.inputs)), found)
        wrong = np.flatnonzero(found != expected)
        assert not wrong.size, (
            f"{case.source} -> {target}: {wrong.size} of {len(found)} differ, first: "
            f"{shown[wrong[0]]} gives {found[wrong[0]]}, ap_fixed {expected[wrong[0]]}"
        )


def all_codes(fmt: FixedPoint) -> np.ndarray:
    low, high = (
        (-(1 << (fmt.width - 1)), (1 << (fmt.width - 1)) - 1) if fmt.signed else (0, (1 << fmt.width) - 1)
    )
    return np.arange(low, high + 1)


# (source width, source frac, source signed, target width, target frac): fractions dropped, kept and added;
# integer bits lost and gained;
# binary points left and right of the word.
NARROW = [
    (6, 3, True, 4, 2), (6, 3, False, 4, 1), (7, 4, True, 3, -1), (5, 1, True, 6, 4),
    (8, 9, True, 4, 5), (6, -2, False, 5, -3), (7, 5, True, 1, 2), (4, 0, True, 4, 0),
]  # fmt: skip


@pytest.mark.parametrize("source_width, source_frac, signed, width, frac", NARROW)
def test_every_code_of_narrow_formats(source_width, source_frac, signed, width, frac, tmp_path):
    source = FixedPoint(source_width, source_frac, signed)
    check([Case(source, target, all_codes(source)) for target in formats(width, frac)], tmp_path)


def wide_cases(rng: np.random.Generator, count: int) -> list[Case]:
    """Random pairs of formats up to 32 bits; inputs at ties, at both ends of source and target, and
    anywhere."""
    cases = []
    while len(cases) < count:
        source = FixedPoint(int(rng.integers(1, 33)), int(rng.integers(-8, 40)), bool(rng.integers(2)))
        width = int(rng.integers(1, 33))
        # The open-source ap_fixed asserts when a cast drops more bits than the source has; test_fixed.py
        # covers those.
        frac = source.max_frac - int(rng.integers(-6, min(20, source.width + 1)))
        target = formats(width, frac)[rng.integers(len(formats(width, frac)))]
        low, high = all_codes_range(source)
        shift = source.max_frac - target.max_frac
        ends = [low, low + 1, -1, 0, 1, high - 1, high]
        if shift > 0:
            edges = [target.code_min - 1, target.code_min, -1, 0, 1, target.code_max, target.code_max + 1]
            half = 1 << (shift - 1)
            ends += [
                (e << shift) + d
                for e in edges
                for d in (-half - 1, -half, -half + 1, -1, 0, 1, half - 1, half, half + 1)
            ]
        anywhere = rng.integers(low, high + 1, size=60)
        inputs = np.array([e for e in ends if low <= e <= high] + list(anywhere), dtype=np.int64)
        cases.append(Case(source, target, inputs))
    return cases


def all_codes_range(fmt: FixedPoint) -> tuple[int, int]:
    return (-(1 << (fmt.width - 1)), (1 << (fmt.width - 1)) - 1) if fmt.signed else (0, (1 << fmt.width) - 1)


def test_formats_up_to_32_bits(tmp_path):
    check(wide_cases(np.random.default_rng(20), 120), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_formats_up_to_32_bits(seed, tmp_path):
    check(wide_cases(np.random.default_rng(seed), 400), tmp_path)


def test_real_numbers(tmp_path):
    """ap_fixed made from doubles: halves of LSBs, ends, tiny and large numbers."""
    cases = []
    rng = np.random.default_rng(3)
    for width, frac in ((4, 2), (8, 11), (5, -3), (16, 8)):
        lsb = 2.0**-frac
        grid = np.concatenate([np.arange(-40, 41) / 4, [(1 << width) + d / 2 for d in range(-3, 4)]])
        inputs = np.concatenate(
            [grid * lsb, -grid * lsb, rng.normal(size=50) * lsb * 2**width, [1e-30, -1e-30]]
        )
        cases += [Case(None, target, inputs) for target in formats(width, frac)]
    check(cases, tmp_path)


def test_the_comparison_can_fail(tmp_path):
    """The oracle must notice ties that are rounded the other way."""
    source, target = FixedPoint(6, 3), FixedPoint(4, 1, rounding="RND")
    (expected,) = ap_fixed_oracle.run([Case(source, target, all_codes(source))], tmp_path)
    other = cast_codes(all_codes(source), 2, 4, True, "RND_CONV", "SAT")
    assert (other != expected).any()
