"""Casts to formats with gaps and products, scalar by scalar: every code of several intervals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from netlist_model import evaluate, value

from qfx.formats import Binary, Block, FixedPoint, Format, KHot, Minifloat
from qfx.formats.rounding import ROUNDING
from qfx.graph import ops
from qfx.graph.tensor import Tensor, integers
from qfx.rtl.parallel import gaps
from qfx.rtl.parallel.multiply import product_of
from qfx.rtl.parallel.netlist import Netlist, Ref, width_of

INTERVALS = [(-64, 63), (0, 127), (-37, 0), (-5, 90), (40, 63), (-63, -17), (-1, 0), (5, 5)]
MINIFLOATS = [
    Minifloat(2, 1, 1, rounding=rounding, signed=signed) for rounding in ROUNDING for signed in (True, False)
] + [
    Minifloat(3, 0, 3),
    Minifloat(2, 0, 1, signed=False),
    Minifloat(3, 0, 2, rounding="RND_ZERO"),
    Minifloat(0, 2, 0),
    Minifloat(3, 2, 3),
    Minifloat(4, 3, 7, specials="fn"),
    Minifloat(5, 2, 15, specials="ieee"),
]
KHOTS = [
    KHot(width, 0, k, digits, signed)
    for width, k, digits, signed in product((4, 7), (1, 2, 3, 4), ("csd", "binary"), (True, False))
]


def source(low: int, high: int) -> tuple[Netlist, Ref]:
    net = Netlist()
    return net, net.input(0, 0, width_of(low, high), low, high)


def operand(low: int, high: int, point: int) -> Tensor:
    fmt = FixedPoint(width_of(low, high), point, low < 0)
    return Tensor((1,), fmt, integers([low]), integers([high]))


@pytest.mark.parametrize("fmt", MINIFLOATS + KHOTS, ids=str)
def test_every_code(fmt: Minifloat | KHot) -> None:
    """Operands on finer and coarser grids, and with zeros at the bottom of the code."""
    finest = fmt.max_frac
    for point, (low, high), shift in product((finest - 3, finest, finest + 2, finest + 9), INTERVALS, (0, 2)):
        net, x = source(low, high)
        tensor = operand(low << shift, high << shift, point)
        result = gaps.GappedCaster(net, tensor, fmt).cast(x.shifted(shift), 0)
        codes = np.arange(low, high + 1)
        wanted = fmt.cast_integers((codes << shift).reshape(-1, 1), (point,))[:, 0]
        found = value(result, evaluate(net, {0: codes}))
        assert (found == wanted).all(), (point, low, high, shift)
        ends = net.interval(result)
        assert ends == (wanted.min(), wanted.max()), (point, low, high, shift)


def test_what_the_interval_excludes_is_left_out() -> None:
    """Between two powers of two a minifloat is on one grid: a cast like that to fixed point."""
    net, x = source(32, 63)
    result = gaps.GappedCaster(net, operand(32, 63, 0), Minifloat(3, 2, -1, rounding="RND")).cast(x, 0)
    kinds = {net.nodes[n].kind for n in net.live(iter([result]))}
    assert kinds == {"input", "offset", "floor"}


def test_sign() -> None:
    for low, high in INTERVALS:
        net, x = source(low, high)
        codes = np.arange(low, high + 1)
        found = value(gaps.sign(net, x), evaluate(net, {0: codes}))
        assert (found == Binary(0).cast_integers(codes.reshape(-1, 1), (0,))[:, 0]).all()


BLOCKS: list[tuple[Format, int]] = [
    (FixedPoint(4, 2, rounding="RND_CONV", overflow="SAT"), 3),
    (FixedPoint(3, 1, rounding="TRN_ZERO", overflow="SAT_SYM"), 3),
    (FixedPoint(3, 3, False, rounding="RND", overflow="SAT"), 3),
    (Minifloat(2, 1), 2),
    (Minifloat(2, 0, 1), 3),
    (Minifloat(3, 2, rounding="RND_INF"), 2),
]


@pytest.mark.parametrize(("element", "size"), BLOCKS, ids=str)
def test_blocks(element: FixedPoint | Minifloat, size: int) -> None:
    """Three channels with different binary points and intervals, all codes of small ones."""
    fmt = Block(element, size)
    for points, intervals in product(
        ((0, 0, 0), (1, -1, 3)),
        (((-8, 7), (-8, 7), (-8, 7)), ((0, 15), (-3, 9), (-16, -2)), ((0, 7), (0, 12), (4, 4))),
    ):
        low, high = (integers([i[end] for i in intervals]) for end in (0, 1))
        x = Tensor((3,), FixedPoint(5, points, True), low, high)
        result = ops.Cast(fmt).infer(x)
        net, scalars = Netlist(), np.empty(3, dtype=object)
        for c, (least, most) in enumerate(intervals):
            scalars[c] = net.input(0, 8 * c, width_of(least, most), least, most)
        grid = np.meshgrid(*(np.arange(least, most + 1) for least, most in intervals), indexing="ij")
        codes = np.stack([axis.reshape(-1) for axis in grid], axis=1)
        found = gaps.blocks(net, scalars, x, fmt, result)
        values = evaluate(net, {8 * c: codes[:, c] for c in range(3)})
        wanted = fmt.cast_integers(codes, points)
        for c in range(3):
            assert (value(found[c], values) == wanted[:, c]).all(), (points, intervals, c)


@pytest.mark.parametrize("a", INTERVALS[:-1])
def test_products(a: tuple[int, int]) -> None:
    for b in ((-8, 7), (0, 5), (0, 1), (-1, 0), (-7, -2), (3, 9)):
        net, x = source(*a)
        y = net.input(0, 8, width_of(*b), *b)
        grid = np.meshgrid(np.arange(a[0], a[1] + 1), np.arange(b[0], b[1] + 1))
        left, right = (axis.reshape(-1) for axis in grid)
        result = product_of(net, x.shifted(1), y)
        values = evaluate(net, {0: left, 8: right})
        assert (value(result, values) == 2 * left * right).all(), b
        square = product_of(net, x, x)
        values = evaluate(net, {0: left, 8: right})
        assert (value(square, values) == left * left).all()
        assert net.interval(square) == ((left * left).min(), (left * left).max())
