"""Small networks of functions and of operators on whole arrays: every kernel, loops in every order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rtl_networks import W4, Net

from qfx import FixedPoint, Minifloat
from qfx.approx import Real, pieces, roots, table
from qfx.formats import Format, KHot
from qfx.graph import Graph, arrays, functions, ops


def function(n: Net, x: str, name: str, fmt: Format, extra: int = 0) -> str:
    """A table of a function; ``extra``: how many bits finer than the operand its grid is."""
    t = n.builder.tensor(x)
    frac = t.format.max_frac + extra
    shifts = ops.to_frac(t, frac)
    codes = range(int((t.low << shifts).min()), int((t.high << shifts).max()) + 1)
    made = table(Real(name), frac, codes, fmt)
    return n.add(functions.Table(frac, fmt, codes[0], None, np.array(made.entries)), x)


def polynomials(n: Net, x: str, name: str, fmt: Format, degree: int = 2) -> str:
    t = n.builder.tensor(x)
    frac = t.format.max_frac
    shifts = ops.to_frac(t, frac)
    low, high = int((t.low << shifts).min()), int((t.high << shifts).max())
    p = pieces(Real(name), frac, low, high, fmt, degree)
    return n.add(functions.Piecewise(frac, fmt, p.first, p.shift, p.coefficients, p.fracs), x)


def inverse_root(n: Net, x: str, root: int, bits: int, offset: int = 0, least: int = 1) -> str:
    r = roots(root, 1.0, bits, bits + 2)
    op = functions.InverseRoot(
        r.root, r.bits, r.shift, r.coefficients, r.guard, r.frac, offset, least
    )  # fmt: skip
    return n.add(op, x)


def transposed(n: Net, x: str, *axes: int) -> str:
    return n.add(ops.Transpose(axes), x)


def repeat(n: Net, x: str, *times: int) -> str:
    return n.add(arrays.Repeat(times), x)


def total(n: Net, x: str, *axes: int) -> str:
    return n.add(arrays.ReduceSum(axes), x)


def largest(n: Net, x: str, *axes: int) -> str:
    return n.add(arrays.ReduceMax(axes), x)


def constant(n: Net, shape: tuple[int, ...], fmt: FixedPoint) -> str:
    return n.builder.add(arrays.Constant(n.codes(shape, fmt), fmt), (), "constant")


def softmax() -> Graph:
    """Along the last axis of (heads, rows, columns), which is not the one that streams go along."""
    n = Net((2, 3, 4), FixedPoint(6, 3))
    x = transposed(n, transposed(n, n.x, 0, 2, 1), 0, 2, 1)
    peak = repeat(n, largest(n, x, 2), 1, 1, 4)
    e = function(n, n.add(ops.Sub(), x, peak), "exp", FixedPoint(8, 7, False))
    share = n.cast(inverse_root(n, total(n, e, 2), 1, 6), 9, 8, False)
    y = n.add(ops.Mul(), e, repeat(n, share, 1, 1, 4))
    return n.build(n.cast(y, 8, 7, False))


def layer_norm() -> Graph:
    """Mean and variance over features, a learned factor and offset as constants, GELU behind."""
    n = Net((4, 6), FixedPoint(7, 4), 1)
    mean = n.cast(total(n, n.x, 1), 8, 2)
    x = n.cast(n.add(ops.Sub(), n.x, repeat(n, mean, 1, 6)), 7, 3)
    spread = total(n, n.add(ops.Mul(), x, x), 1)
    scale = n.cast(inverse_root(n, spread, 2, 5, 1, 2), 9, 8, False)
    y = n.cast(n.add(ops.Mul(), x, repeat(n, scale, 1, 6)), 8, 5)
    factor = repeat(n, constant(n, (1, 6), FixedPoint(5, 3)), 4, 1)
    y = n.add(ops.Mul(), y, factor)
    y = n.add(ops.Add(), repeat(n, constant(n, (1, 6), FixedPoint(6, 4)), 4, 1), y)
    return n.build(function(n, n.cast(y, 8, 4), "gelu", FixedPoint(6, 4), 1))


def attention() -> Graph:
    """Scores and weighted sums of two heads: a matrix that comes by rows, one that comes by columns."""
    n = Net((4, 5), FixedPoint(5, 3), 2)  # (features, tokens)
    heads = []
    for _ in range(3):
        y = n.cast(n.conv(n.x, 6, (1,), W4), 5, 2)
        heads.append(transposed(n, n.reshape(y, 2, 3, 5), 0, 2, 1))  # (heads, tokens, features)
    q, k, v = heads
    scores = n.cast(n.add(arrays.MatMul(), q, transposed(n, k, 0, 2, 1)), 6, 2)
    weights = function(n, scores, "sigmoid", FixedPoint(5, 5, False))
    y = n.cast(n.add(arrays.MatMul(), weights, v), 7, 4)
    y = n.reshape(transposed(n, y, 0, 2, 1), 6, 5)
    return n.build(n.cast(n.conv(y, 3, (1,), W4), 7, 3))


def pictures() -> Graph:
    """Upsampling, a transposed convolution, slices with steps, zeros for the front of a frame."""
    n = Net((4, 3, 5), FixedPoint(5, 2), 3)
    x = n.add(arrays.Slice((0, 0, 1), (4, 3, 5), (1, 2, 3)), n.x)  # (4, 2, 2)
    x = n.add(ops.Relu(), repeat(n, x, 1, 2, 3))
    x = n.add(arrays.InsertZeros((2, 3)), x)
    x = n.cast(n.conv(x, 6, (3, 2), W4, padding=((2, 1), (0, 1))), 6, 2)
    x = n.add(arrays.Slice((1, 0, 0), (6, *n.builder.tensor(x).shape[1:]), (2, 1, 1)), x)
    x = polynomials(n, x, "tanh", FixedPoint(7, 6))
    y = largest(n, x, 0, 2)
    return n.build(n.add(ops.Concat(), y, total(n, n.cast(x, 4, 3), 0, 2)))


def per_channel() -> Graph:
    """A binary point per channel in front of everything that has to bring channels together."""
    n = Net((3, 4), FixedPoint(6, 3), 4)
    x = n.cast(n.affine(n.x, W4, FixedPoint(6, 4)), 6, (2, 4, 3))
    ends = [total(n, x, 0), largest(n, x, 0), total(n, x, 1), largest(n, x, 0, 1)]
    ends += [n.add(arrays.Slice((1, 0), (3, 4), (1, 2)), x), repeat(n, x, 2, 1)]
    ends += [function(n, x, "silu", FixedPoint(5, 3), 1), polynomials(n, x, "tanh", FixedPoint(6, 5), 1)]
    ends += [n.cast(inverse_root(n, n.add(ops.Mul(), x, x), 2, 4, 3, 2), 8, 5, False)]
    y = n.cast(n.affine(transposed(n, n.x, 1, 0), W4, W4), 5, (3, 1, 2, 3))
    ends += [n.add(arrays.MatMul(), x, y), n.add(arrays.MatMul(), y, x)]
    flat = [n.cast(n.reshape(e, n.builder.tensor(e).size), 12, 4, True, "TRN", "WRAP") for e in ends]
    return n.build(n.add(ops.Concat(), *flat))


def formats() -> Graph:
    """Tables and polynomials of minifloats and K-hot numbers; an embedding of whole numbers."""
    n = Net((5,), FixedPoint(4, 0), 5)
    rows = n.codes((6, 3), FixedPoint(5, 3))
    x = n.add(arrays.Gather(rows, FixedPoint(5, 3)), n.x)  # (5, 3)
    wide = Minifloat(4, 3, specials="fn")
    y = n.format(n.add(ops.Mul(), x, x), wide)
    t = n.builder.tensor(y)
    inputs = functions.members_between(wide, t.format.max_frac, int(t.low.min()), int(t.high.max()))
    entries = table(Real("sqrt"), t.format.max_frac, tuple(inputs), FixedPoint(6, 4, False)).entries
    y = n.add(
        functions.Table(t.format.max_frac, FixedPoint(6, 4, False), 0, np.array(inputs), np.array(entries)), y
    )
    ends = [y, polynomials(n, n.x, "silu", Minifloat(3, 2)), polynomials(n, x, "tanh", KHot(6, 5, 2))]
    ends += [function(n, x, "exp", Minifloat(2, 3))]
    flat = [n.cast(n.reshape(e, n.builder.tensor(e).size), 12, 5) for e in ends]
    return n.build(n.add(ops.Concat(), *flat))


ARRAY_NETWORKS: dict[str, Callable[[], Graph]] = {
    make.__name__: make for make in (softmax, layer_norm, attention, pictures, per_channel, formats)
}
