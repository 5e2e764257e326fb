"""Every operator in C simulation, arrays and streams, against the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hls_exact import Branches, assert_exact, conv, weights
from hls_random import edge_inputs

from qfx.formats.fixed import FixedPoint
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph import ops

IO = pytest.mark.parametrize("io", ["parallel", "stream"])
NONE1, NONE2 = ((0, 0),), ((0, 0), (0, 0))


def check(branches: Branches, folder: Path, io: str, samples: int = 60) -> None:
    """C simulation of the branches at ties, ends, saturation and infinities."""
    graph = branches.graph()
    assert_exact(graph, folder / "project", io, edge_inputs(np.random.default_rng(7), graph, samples))


def test_casts_of_every_code(tmp_path: Path) -> None:
    """All rounding and overflow modes, in hls4ml's result types and in our kernel."""
    branches = Branches((2,), FixedPoint(8, 3))
    negate = ops.Affine(np.array([-1]), FixedPoint(2, 0), np.array([1]), FixedPoint(2, 4))
    for i, rounding in enumerate(ROUNDING):
        for j, overflow in enumerate(OVERFLOW):
            signed = overflow == "WRAP_SM" or (i + j) % 2 == 0
            width = 4 if signed else 3
            branches.add(ops.Cast(FixedPoint(width, 0 if i % 2 else (1, 0), signed, rounding, overflow)))
            producer = ops.Relu() if j % 2 else negate
            branches.add(producer, ops.Cast(FixedPoint(width, 1, signed, rounding, overflow)))
    codes = np.arange(-128, 128)
    x = np.stack([codes, np.roll(codes, 77)], axis=1) / 8
    assert_exact(branches.graph(), tmp_path / "project", "parallel", x)


@IO
def test_cast_shifts(io: str, tmp_path: Path) -> None:
    """Binary points far outside the word on either side; casts that only append bits; casts in a row."""
    branches = Branches((3,), FixedPoint(7, 40))
    modes = (("RND_CONV", "SAT"), ("TRN_ZERO", "WRAP"), ("TRN", "SAT_ZERO"), ("RND_INF", "WRAP_SM"))
    for i, frac in enumerate((38, 33, 20, -30, 44, 47, 60, 100, -90)):
        for rounding, overflow in (modes[i % 4], modes[(i + 1) % 4]):
            branches.add(ops.Cast(FixedPoint(5, frac, True, rounding, overflow)))
            branches.add(ops.Relu(), ops.Cast(FixedPoint(5, frac, True, rounding, overflow)))
    branches.add(ops.Cast(FixedPoint(6, (60, 39, -20), True, "RND", "SAT_SYM")), ops.Relu())
    casts = [ops.Cast(FixedPoint(6, 39)), ops.Cast(FixedPoint(5, 38)), ops.Cast(FixedPoint(4, 38, False))]
    branches.add(*casts)
    check(branches, tmp_path, io)


@IO
def test_elementwise(io: str, tmp_path: Path) -> None:
    """affine, relu, leaky_relu, clip, add, sub, mul with one binary point and with one per channel."""
    branches = Branches((3, 2, 2), FixedPoint(6, 3))
    plain = branches.input
    points = branches.node(ops.Cast(FixedPoint(5, (1, 4, 2))), plain)
    unsigned = branches.node(ops.Cast(FixedPoint(4, 2, False)), plain)
    rng = np.random.default_rng(3)
    scale, offset = FixedPoint(4, (1, 3, 2)), FixedPoint(5, 9)
    per_channel = ops.Affine(rng.integers(-8, 8, 3), scale, rng.integers(-16, 16, 3), offset)
    shared = ops.Affine(np.array([-3]), FixedPoint(3, 1), np.array([5]), FixedPoint(4, 6))
    tight = ops.Cast(FixedPoint(5, 2, True, "RND", "SAT_SYM"))
    split = ops.Cast(FixedPoint(5, (2, 1, 3), True, "RND_ZERO", "WRAP"))
    for operand in (plain, points, unsigned):
        branches.add(per_channel, tight, start=operand)
        branches.add(shared, split, start=operand)
        branches.add(ops.Relu(), split, start=operand)
        branches.add(ops.LeakyRelu(3, 4), tight, start=operand)
        branches.add(ops.LeakyRelu(-5, 2), start=operand)
        branches.add(ops.Clip(-9, 14, 1), start=operand)
        branches.add(ops.Clip(None, 6, 0), tight, start=operand)
        branches.add(ops.Clip(-3, None, 4), split, start=operand)
    for operation in (ops.Add(), ops.Sub(), ops.Mul()):
        for pair in ((plain, unsigned), (points, plain), (plain, plain)):
            branches.add(tight, start=branches.node(operation, *pair))
        branches.add(split, start=branches.node(operation, points, points))
        branches.end(branches.node(operation, unsigned, plain))
    check(branches, tmp_path, io)


@IO
def test_linear(io: str, tmp_path: Path) -> None:
    """One binary point and one per output or input channel; a flattened operand; no bias; unsigned types."""
    rng = np.random.default_rng(5)
    branches = Branches((2, 3, 2), FixedPoint(5, 2))
    flat = branches.node(ops.Reshape((12,)), branches.input)
    mixed = branches.node(ops.Cast(FixedPoint(4, tuple(int(f) for f in rng.integers(0, 4, 12)))), flat)
    tight = ops.Cast(FixedPoint(6, 2, True, "RND_MIN_INF", "SAT"))
    points = FixedPoint(4, (1, 4, 2))
    for operand in (flat, mixed):
        for fmt in (FixedPoint(4, 2), points, FixedPoint(3, 5, False)):
            for bias in (None, FixedPoint(6, 4), FixedPoint(6, (3, 9, 5))):
                operator = ops.Linear(**weights(rng, (3, 12), fmt, bias))  # type: ignore[arg-type]
                branches.add(operator, tight, start=operand)
        branches.add(ops.Linear(**weights(rng, (3, 12), points, None)), start=operand)  # type: ignore[arg-type]
        far = ops.Linear(**weights(rng, (3, 12), FixedPoint(3, -70), None))  # type: ignore[arg-type]
        branches.add(far, ops.Cast(FixedPoint(6, -69)), start=operand)
        branches.add(ops.Relu(), ops.Linear(**weights(rng, (2, 12))), start=operand)  # type: ignore[arg-type]
    check(branches, tmp_path, io)


@IO
def test_conv2d(io: str, tmp_path: Path) -> None:
    """Kernel, stride, padding, dilation, groups; hls4ml's layers and ours."""
    rng = np.random.default_rng(11)
    branches = Branches((4, 6, 5), FixedPoint(5, 2))
    tight = ops.Cast(FixedPoint(6, 2, True, "RND_INF", "SAT"))
    asymmetric = ((1, 0), (0, 2))
    for operator in (
        conv(rng, 3, 4, (3, 3)),
        conv(rng, 2, 4, (3, 2), stride=(2, 1), padding=asymmetric),
        conv(rng, 2, 4, (1, 1), stride=(2, 3)),
        conv(rng, 2, 4, (1, 3), stride=(2, 1)),
        conv(rng, 2, 4, (2, 1), stride=(3, 2), padding=((2, 2), (1, 1))),
        conv(rng, 2, 4, (6, 5), fmt=FixedPoint(3, 1, False), bias=None),
        conv(rng, 2, 4, (3, 2), dilation=(2, 3), padding=asymmetric),
        conv(rng, 4, 4, (3, 3), groups=4, padding=((1, 1), (1, 1))),
        conv(rng, 6, 4, (2, 3), groups=2, stride=(2, 2)),
        conv(rng, 3, 4, (2, 2), fmt=FixedPoint(4, (1, 4, 2)), bias=FixedPoint(6, (9, 2, 5))),
    ):
        branches.add(operator, tight)
    points = branches.node(ops.Cast(FixedPoint(4, (0, 3, 1, 2))), branches.input)
    branches.add(conv(rng, 3, 4, (3, 3), padding=asymmetric), start=points)
    branches.add(conv(rng, 4, 4, (2, 2), groups=4, fmt=FixedPoint(4, (1, 4, 2, 0))), tight, start=points)
    check(branches, tmp_path, io, 30)


@IO
def test_conv1d(io: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    branches = Branches((4, 9), FixedPoint(5, 2))
    tight = ops.Cast(FixedPoint(6, 2, False, "RND", "SAT"))
    for operator in (
        conv(rng, 3, 4, (3,)),
        conv(rng, 2, 4, (3,), stride=(2,), padding=((2, 1),)),
        conv(rng, 2, 4, (1,), stride=(2,)),
        conv(rng, 2, 4, (2,), stride=(4,)),
        conv(rng, 2, 4, (3,), dilation=(2,), padding=((0, 3),)),
        conv(rng, 4, 4, (3,), groups=4),
        conv(rng, 4, 4, (3,), groups=2, stride=(3,), fmt=FixedPoint(4, (1, 4, 2, 0))),
    ):
        branches.add(operator, tight)
    check(branches, tmp_path, io)


@IO
def test_pools(io: str, tmp_path: Path) -> None:
    """max_pool and avg_pool: tiling, overlapping, padded; one and two axes; per-channel points, unsigned."""
    branches = Branches((2, 5, 6), FixedPoint(6, 3))
    tight = ops.Cast(FixedPoint(4, 1, True, "RND_CONV", "WRAP"))
    unsigned = branches.node(ops.Cast(FixedPoint(4, 2, False)), branches.input)
    points = branches.node(ops.Cast(FixedPoint(5, (1, 4))), branches.input)
    row = branches.node(ops.Reshape((2, 30)), branches.input)
    for operand in (branches.input, unsigned, points):
        branches.add(ops.MaxPool((2, 2), (2, 2), NONE2), tight, start=operand)
        branches.add(ops.MaxPool((3, 2), (1, 2), ((2, 1), (0, 1))), start=operand)
        branches.add(ops.AvgPool((2, 2), (2, 2), NONE2, 1, 2), start=operand)
        branches.add(ops.AvgPool((5, 6), (5, 6), NONE2, 137, 12), tight, start=operand)
        branches.add(ops.AvgPool((3, 2), (2, 1), ((0, 2), (1, 0)), 43, 8), tight, start=operand)
    branches.add(ops.MaxPool((5, 6), (5, 6), NONE2))
    branches.add(ops.MaxPool((1, 2), (1, 2), NONE2))
    for pool in (((2,), (2,), NONE1), ((3,), (3,), NONE1), ((3,), (2,), ((1, 2),))):
        branches.add(ops.MaxPool(*pool), start=row)
        branches.add(ops.AvgPool(*pool, 171, 9), tight, start=row)
    check(branches, tmp_path, io)


@IO
def test_moves(io: str, tmp_path: Path) -> None:
    """reshape, transpose and concat, alone and before operators that care about the order in memory."""
    rng = np.random.default_rng(17)
    branches = Branches((2, 3, 4), FixedPoint(5, 2))
    x = branches.input
    for axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        branches.add(ops.Transpose(axes), ops.Relu())
    for shape in ((24,), (4, 6), (6, 4), (3, 2, 4), (1, 24), (24, 1, 1), (2, 12)):
        branches.add(ops.Reshape(shape), ops.Relu())
    branches.add(ops.Transpose((2, 0, 1)), ops.Reshape((24,)), ops.Linear(**weights(rng, (3, 24))))  # type: ignore[arg-type]
    flat = branches.node(ops.Reshape((24,)), x)
    points = branches.node(ops.Cast(FixedPoint(4, tuple(int(f) for f in rng.integers(0, 4, 24)))), flat)
    branches.add(ops.Reshape((2, 3, 4)), conv(rng, 2, 2, (2, 2)), start=branches.node(ops.Relu(), flat))
    turned = branches.node(ops.Reshape((24,)), branches.node(ops.Transpose((2, 1, 0)), x))
    for pair in ((flat, turned), (points, flat), (points, turned)):
        branches.end(branches.node(ops.Add(), *pair))
        joined = branches.node(ops.Concat(), *pair)
        branches.add(ops.Linear(**weights(rng, (2, 48))), start=joined)  # type: ignore[arg-type]
    other = branches.node(ops.Cast(FixedPoint(4, 1, False)), x)
    channel = branches.node(ops.Cast(FixedPoint(4, (0, 3))), x)
    branches.add(ops.Cast(FixedPoint(4, 1)), start=branches.node(ops.Concat(), x, other, x))
    branches.add(conv(rng, 2, 6, (2, 2)), start=branches.node(ops.Concat(), channel, other, x))
    check(branches, tmp_path, io)


@IO
def test_wide(io: str, tmp_path: Path) -> None:
    """Words beyond 32 and 53 bits: sums, products and casts stay exact, in the output and in the trace."""
    rng = np.random.default_rng(19)
    branches = Branches((3,), FixedPoint(30, 20))
    wide = branches.node(ops.Mul(), branches.input, branches.input)
    branches.add(ops.Cast(FixedPoint(55, 38, True, "RND", "WRAP")), start=wide)
    branches.add(ops.Relu(), ops.Cast(FixedPoint(24, 30, False, "RND_CONV", "SAT")), start=wide)
    branches.add(ops.Linear(**weights(rng, (2, 3), FixedPoint(28, 20), FixedPoint(40, 30))))  # type: ignore[arg-type]
    branches.add(ops.Linear(**weights(rng, (2, 3), FixedPoint(3, (12, 9)), FixedPoint(58, 30))))  # type: ignore[arg-type]
    branches.add(ops.LeakyRelu(12345, 20), start=branches.input)
    check(branches, tmp_path, io)


@pytest.mark.parametrize("io", ["parallel", "stream"])
def test_many_readers_of_one_tensor(io: str, tmp_path: Path) -> None:
    """More readers than hls4ml copies a stream for, one node reading a tensor twice among them."""
    branches = Branches((2,), FixedPoint(4, 1))
    x = branches.node(ops.Relu(), branches.input)
    for frac in range(-2, 8):
        branches.add(ops.Cast(FixedPoint(5, frac)), start=x)
    branches.end(branches.node(ops.Mul(), x, x))
    check(branches, tmp_path, io)


@pytest.mark.parametrize("io", ["parallel", "stream"])
@pytest.mark.parametrize("moved", [False, True])
def test_input_or_its_reshape_as_output(io: str, moved: bool, tmp_path: Path) -> None:
    branches = Branches((2, 2, 3), FixedPoint(4, 1, False))
    output = branches.node(ops.Reshape((12,)), branches.input) if moved else branches.input
    graph = branches.builder.build(output)
    x = edge_inputs(np.random.default_rng(0), graph, 20)
    assert_exact(graph, tmp_path / "project", io, x)
