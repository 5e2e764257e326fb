"""Scalars: casts in every mode on every code, and what the constructors leave out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from netlist_model import evaluate, value

from qfx import FixedPoint
from qfx.formats.rounding import OVERFLOW, ROUNDING, cast_codes
from qfx.rtl.parallel.casts import cast
from qfx.rtl.parallel.netlist import Netlist, Ref, width_of

INTERVALS = [(-32, 31), (0, 63), (-32, 0), (-5, 17), (3, 40), (-40, -3), (-1, 0), (7, 7)]
BOUNDS = [(None, 0), (None, 2), ((0, None), 0), ((-3, 9), 0), ((0, 15), 2)]


def source(low: int, high: int) -> tuple[Netlist, Ref]:
    net = Netlist()
    return net, net.input(0, 0, width_of(low, high), low, high)


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("overflow", OVERFLOW)
def test_cast(rounding: str, overflow: str) -> None:
    """Every code of several intervals, through formats that drop, keep and append bits, saturate and do
    not."""
    for drop, width, signed in product((-2, 0, 1, 3, 8), (1, 3, 9), (True, False)):
        if (overflow == "WRAP_SM" and not signed) or (overflow == "SAT_SYM" and signed and width == 1):
            continue  # formats that do not exist
        fmt = FixedPoint(width, 0, signed, rounding, overflow)
        for (low, high), (bounds, shift) in product(INTERVALS, BOUNDS):
            net, x = source(low, high)
            operand = x.shifted(shift)
            bounded = operand if bounds is None else net.clamp(operand, *bounds)
            result = cast(net, bounded, drop, fmt)
            codes = np.arange(low, high + 1)
            exact = codes << shift
            if bounds is not None:
                exact = np.clip(exact, *bounds)
            wanted = cast_codes(exact, drop, width, signed, rounding, overflow)
            found = value(result, evaluate(net, {0: codes}))
            assert (found == wanted).all(), (drop, fmt, low, high, shift, bounds)


def kinds(net: Netlist, result: Ref) -> list[str]:
    return sorted(net.nodes[n].kind for n in net.live(iter([result])))


@pytest.mark.parametrize(
    ("interval", "drop", "fmt", "needed"),
    [
        # Nothing to saturate, nothing to round: wires.
        ((-8, 7), 0, FixedPoint(4, 0), ["input"]),
        ((-8, 7), 2, FixedPoint(4, 0, True, "TRN"), ["floor", "input"]),
        # A tie needs no sign where there is none.
        ((0, 31), 2, FixedPoint(5, 0, True, "RND_ZERO"), ["floor", "input", "offset"]),
        ((0, 31), 2, FixedPoint(4, 0, True, "TRN_ZERO"), ["floor", "input"]),
        # 31 / 4 rounds to 8: one bound of the two.
        ((0, 31), 2, FixedPoint(4, 0, True, "RND"), ["clamp", "floor", "input", "offset"]),
        ((-32, 31), 0, FixedPoint(9, 0, True, "RND", "SAT_SYM"), ["input"]),
        ((-32, 31), 0, FixedPoint(4, 0, True, "RND", "WRAP"), ["input", "wrap"]),
        # Far below the lowest bit.
        ((0, 7), 9, FixedPoint(4, 0, True, "RND"), []),
    ],
)
def test_casts_leave_out_what_the_interval_excludes(
    interval: tuple[int, int], drop: int, fmt: FixedPoint, needed: list[str]
) -> None:
    net, x = source(*interval)
    assert kinds(net, cast(net, x, drop, fmt)) == needed


def test_relu_and_saturation_are_one() -> None:
    net, x = source(-128, 127)
    result = cast(net, net.clamp(x, 0, None), 2, FixedPoint(4, 0, False, "RND"))
    assert kinds(net, result) == ["clamp", "floor", "input", "offset"]
    assert result.node is not None
    assert (net.nodes[result.node].low, net.nodes[result.node].high) == (0, 15)


def test_constants_meet() -> None:
    """A bias and the half of a rounding are one adder."""
    net, x = source(-8, 7)
    once = net.offset(net.offset(x, 5), 3)
    assert kinds(net, once) == ["input", "offset"]
    assert net.offset(net.offset(x, 5), -5) == x
    assert net.offset(net.offset(x, 3, -1), 3, -1) == x


def test_shared_and_trivial_sums() -> None:
    net, x = source(-8, 7)
    y = net.input(0, 4, 4, -8, 7)
    assert net.add(x, y) == net.add(y, x)
    assert net.add(x, y, 1, -1) != net.add(y, x, 1, -1)
    assert net.add(x.shifted(3), y.shifted(3)) == net.add(x, y).shifted(3)
    assert net.add(x, x) == x.shifted(1)
    assert net.add(x, x, 1, -1) == Ref(None, 0, 0)
    assert net.add(x, Ref(None, 0, 0)) == x


def test_maximum() -> None:
    net, x = source(-8, 7)
    y, z = net.input(0, 4, 3, 0, 7), net.input(0, 7, 4, 8, 15)
    assert net.maximum(x, z) == z
    pairs = [(x, y), (x.shifted(1), y), (y, Ref(None, 0, 3)), (x, x)]
    results = [net.maximum(a, b) for a, b in pairs]
    cx, cy = (v.reshape(-1) for v in np.meshgrid(np.arange(-8, 8), np.arange(8)))
    values = evaluate(net, {0: cx, 4: cy, 7: np.full(cx.shape, 9)})
    for (a, b), result in zip(pairs, results, strict=True):
        assert (value(result, values) == np.maximum(value(a, values), value(b, values))).all()


def test_leaky() -> None:
    net, x = source(-8, 7)
    result = net.select(x, x.shifted(2), net.offset(x, 0, -1))
    codes = np.arange(-8, 8)
    found = value(result, evaluate(net, {0: codes}))
    assert (found == np.where(codes >= 0, codes << 2, -codes)).all()


def test_width() -> None:
    for low, high in product(range(-9, 10), repeat=2):
        if low <= high:
            width = width_of(low, high)
            signed = low < 0
            holds = [w for w in range(1, 9) if -(1 << (w - 1)) * signed <= low and high < 1 << (w - signed)]
            assert width == holds[0]
