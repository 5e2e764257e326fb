"""The interpreter against plain integers, on every operator, format and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qfx.errors import QfxError
from qfx.formats import OVERFLOW, ROUNDING, FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.graph.interpreter import make_plan, partial_sum_bound
from qfx.graph.reference import trace_reference


def random_format(rng: np.random.Generator, channels: int, width: int | None = None) -> FixedPoint:
    signed = bool(rng.integers(4))
    overflow = str(rng.choice([o for o in OVERFLOW if signed or o != "WRAP_SM"]))
    width = int(rng.integers(2, 9)) if width is None else width
    frac = int(rng.integers(-2, 8))
    fracs = tuple(int(f) for f in frac + rng.integers(-1, 3, channels)) if rng.integers(3) == 0 else frac
    return FixedPoint(width, fracs, signed, str(rng.choice(ROUNDING)), overflow)


def random_codes(rng: np.random.Generator, fmt: FixedPoint, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(fmt.code_min, fmt.code_max + 1, shape)


class Draw:
    """Builds a graph by appending random operators."""

    def __init__(self, seed: int, shape: tuple[int, ...], width: int | None) -> None:
        self.rng = np.random.default_rng(seed)
        self.width = width
        self.builder = GraphBuilder()
        self.last = self.builder.add(ops.Input(shape, random_format(self.rng, shape[0], width)))

    @property
    def tensor(self):
        return self.builder.tensor(self.last)

    def add(self, op: ops.Op, *inputs: str) -> str:
        self.last = self.builder.add(op, inputs or (self.last,))
        return self.last

    def cast(self) -> str:
        return self.add(ops.Cast(random_format(self.rng, self.tensor.channels, self.width)))

    def constant(self, shape: tuple[int, ...]) -> tuple[np.ndarray, FixedPoint]:
        fmt = random_format(self.rng, shape[0], self.width)
        return random_codes(self.rng, fmt, shape), fmt

    def weighted(self) -> str:
        rng, (channels, *spatial) = self.rng, self.tensor.shape
        out = int(rng.integers(1, 4))
        if not spatial:
            weight, fmt = self.constant((out, channels))
            bias = self.constant((out,)) if rng.integers(2) else (None, None)
            return self.add(ops.Linear(weight, fmt, *bias))
        groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        kernel = tuple(int(rng.integers(1, min(3, n) + 1)) for n in spatial)
        weight, fmt = self.constant((out * groups, channels // groups, *kernel))
        bias = self.constant((out * groups,)) if rng.integers(2) else (None, None)
        padding = tuple((int(rng.integers(3)), int(rng.integers(3))) for _ in spatial)
        stride = tuple(int(rng.integers(1, 3)) for _ in spatial)
        dilation = tuple(
            int(rng.integers(1, 3)) if 2 * (k - 1) < n else 1 for k, n in zip(kernel, spatial, strict=True)
        )
        return self.add(ops.Conv(weight, fmt, *bias, stride, padding, dilation, groups))

    def step(self) -> None:
        rng, tensor = self.rng, self.tensor
        spatial = tensor.shape[1:]
        kind = str(
            rng.choice(["weighted", "affine", "relu", "leaky", "clip", "pool", "merge", "move", "cast"])
        )
        if kind == "weighted":
            self.weighted()
            if rng.integers(2):
                self.add(ops.Relu())
            self.cast()
        elif kind == "affine":
            scale, offset = (self.constant((tensor.channels if rng.integers(2) else 1,)) for _ in range(2))
            self.add(ops.Affine(*scale, *offset))
            self.cast()
        elif kind == "relu":
            self.add(ops.Relu())
        elif kind == "leaky":
            self.add(ops.LeakyRelu(int(rng.integers(-50, 50)), int(rng.integers(0, 6))))
            self.cast()
        elif kind == "clip":
            low, high = sorted(int(v) for v in rng.integers(-20, 20, 2))
            bounds = [(low, high), (None, high), (low, None)][rng.integers(3)]
            self.add(ops.Clip(*bounds, int(rng.integers(-1, 4))))
        elif kind == "pool" and spatial:
            kernel = tuple(int(rng.integers(1, min(3, n) + 1)) for n in spatial)
            padding = tuple((int(rng.integers(k)), int(rng.integers(k))) for k in kernel)
            stride = tuple(int(rng.integers(1, 3)) for _ in spatial)
            if rng.integers(2):
                self.add(ops.MaxPool(kernel, stride, padding))
            else:
                scale = int(rng.integers(1, 40)), int(rng.integers(0, 8))
                self.add(ops.AvgPool(kernel, stride, padding, *scale))
                self.cast()
        elif kind == "merge":
            first = self.last
            branch = self.cast()
            op = [ops.Add(), ops.Sub(), ops.Mul(), ops.Concat()][rng.integers(4)]
            if isinstance(op, ops.Concat) and tensor.channels > 8:
                op = ops.Add()
            self.add(op, first, branch)
            self.cast()
        elif kind == "move" and not tensor.format.per_channel:
            if rng.integers(2):
                self.add(ops.Transpose(tuple(int(a) for a in rng.permutation(len(tensor.shape)))))
            else:
                self.add(ops.Reshape((tensor.size,)))
        else:
            self.cast()

    def graph(self, steps: int) -> Graph:
        for _ in range(steps):
            self.step()
        if self.tensor.format.width > 40:
            self.cast()
        return self.builder.build(self.last)


def hard_inputs(graph: Graph, rng: np.random.Generator, samples: int) -> np.ndarray:
    """Ties, ends, values beyond them and infinities, on the grid of the input format."""
    tensor = graph.input_node.tensor
    lsb = np.ldexp(1.0, -np.asarray(tensor.fracs)).reshape(-1, *(1,) * (len(tensor.shape) - 1))
    spread = 1 << (tensor.format.width + 1)
    x = rng.integers(-2 * spread, 2 * spread, (samples, *tensor.shape)) / 2 * lsb
    x.reshape(-1)[:2] = [np.inf, -np.inf]
    return x


@pytest.mark.parametrize("width", [None, 12, 20, 27])
@pytest.mark.parametrize("shape", [(5,), (4, 7), (3, 6, 5)])
def test_random_graphs(shape, width):
    seen = set()
    graphs = 0
    for seed in range(25):
        draw = Draw(seed, shape, width)
        try:
            graph = draw.graph(6)
        except QfxError as error:
            # Multiplying wide numbers again and again ends beyond 62 bits; nothing else may be refused.
            assert "bits; 62 is the most" in str(error)
            continue
        graphs += 1
        x = hard_inputs(graph, np.random.default_rng(seed), 5)
        expected = trace_reference(graph, x)
        found = graph.trace(x)
        for node in graph.nodes:
            np.testing.assert_array_equal(found[node.name], expected[node.name].astype(np.int64), node.where)
            codes, tensor = expected[node.name], node.tensor
            flat = np.moveaxis(codes, 1, 0).reshape(tensor.channels, -1)
            assert (flat.min(axis=1) >= tensor.low).all() and (flat.max(axis=1) <= tensor.high).all(), (
                node.where
            )
        np.testing.assert_array_equal(graph.run_codes(x), found[graph.output])
        np.testing.assert_array_equal(
            graph.run(torch.tensor(x)), graph.output_node.tensor.format.decode(found[graph.output], 1)
        )
        seen.update(graph.interpreter.arithmetic.values())
    assert graphs > 10
    assert seen >= {None: {"float32"}, 12: {"float32"}, 20: {"float64"}, 27: {"int64"}}[width]


@pytest.mark.parametrize(
    "width, signed, expected",
    [
        (12, True, "float32"),
        (13, True, "float64"),
        (27, True, "float64"),
        (28, True, "int64"),
        (31, False, "object"),
    ],
)
def test_arithmetic_is_the_cheapest_exact_one(width, signed, expected):
    """One product with both operands at the ends of their ranges: the bound is met exactly."""
    builder = GraphBuilder()
    fmt = FixedPoint(width, 0, signed)
    x = builder.add(ops.Input((1,), fmt))
    extreme = fmt.code_min if signed else fmt.code_max
    graph = builder.build(builder.add(ops.Linear(np.array([[extreme]]), fmt, None, None), [x]))
    assert list(graph.interpreter.arithmetic.values()) == [expected]
    values = [fmt.code_min, -1 if signed else 1, fmt.code_max]
    assert graph.run_codes(np.array([[float(v)] for v in values])).reshape(-1).tolist() == [
        v * extreme for v in values
    ]


def test_actual_weights_decide():
    """Formats alone would ask for float64; these weights do not."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((64,), FixedPoint(12, 0)))
    weight = np.zeros((1, 64), dtype=np.int64)
    weight[0, 0] = 7
    graph = builder.build(builder.add(ops.Linear(weight, FixedPoint(12, 0), None, None), [x]))
    assert partial_sum_bound(graph.nodes[1], graph.operands(graph.nodes[1])) == 7 * 2048
    assert list(graph.interpreter.arithmetic.values()) == ["float32"]


def test_low_precision_flags_do_not_reach_the_interpreter():
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    x = builder.add(ops.Input((64, 14, 14), FixedPoint(8, 0)))
    weight = rng.integers(-128, 128, (64, 64, 3, 3))
    weight[:, 16:] = 0
    y = builder.add(ops.Conv(weight, FixedPoint(8, 0), None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1), [x])
    graph = builder.build(y)
    assert list(graph.interpreter.arithmetic.values()) == ["float32"]
    data = rng.integers(-128, 128, (4, 64, 14, 14)).astype(np.float32)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = graph.run_codes(data)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found, trace_reference(graph, data)[y].astype(np.int64))


def test_chains_are_fused_and_forks_are_not():
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(4, 0)))
    weight = np.array([[1, 2], [3, -4]])
    product = builder.add(ops.Linear(weight, FixedPoint(4, 0), None, None), [x])
    relu = builder.add(ops.Relu(), [product])
    cast = builder.add(ops.Cast(FixedPoint(4, -1)), [relu])
    assert [s.node.name for s in make_plan(builder.build(cast), fuse=True)] == [cast]
    merged = builder.add(ops.Add(), [cast, relu])
    assert len(make_plan(builder.build(merged), fuse=True)) == 4


def test_large_batches_are_cut():
    builder = GraphBuilder()
    x = builder.add(ops.Input((1, 600, 600), FixedPoint(4, 0)))
    graph = builder.build(builder.add(ops.MaxPool((600, 600), (600, 600), ((0, 0), (0, 0))), [x]))
    data = np.arange(7.0).reshape(7, 1, 1, 1) * np.ones((1, 1, 600, 600))
    assert graph.run(data).reshape(-1).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert graph.run(data[:0]).shape == (0, 1, 1, 1)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((2, 3)), r"found shape \(2, 3\), expected \(samples, 2\)"),
        (np.zeros(2), r"found shape \(2,\)"),
        (np.array([[0.0, np.nan]]), "sample 0 holds NaN"),
        (np.array([["a", "b"]]), "expected real numbers"),
    ],
)
def test_wrong_inputs(x, message):
    builder = GraphBuilder()
    name = builder.add(ops.Input((2,), FixedPoint(4, 0)))
    graph = builder.build(builder.add(ops.Relu(), [name]))
    with pytest.raises(QfxError, match=message):
        graph.run(x)
