"""EBOPs, counted once more: one multiplication at a time, from the codes and intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qfx import FixedPoint, QfxError
from qfx.graph import Graph, GraphBuilder, arrays, ops
from qfx.graph.ebops import constant_bits, ebops, ebops_by_node, inside
from qfx.sim.draw import draw_graph


def spelled(code: int) -> int:
    """Bits of a constant from its binary digits: without sign, leading and trailing zeros."""
    return len(bin(abs(code))[2:].strip("0"))


def needed(low: int, high: int) -> int:
    """Bits of the smallest two's complement or unsigned word that holds all of ``low..high``."""
    if low == high:
        return 0
    return next(
        w
        for w in range(1, 200)
        if (low >= 0 and high < 1 << w) or (low < 0 and -(1 << (w - 1)) <= low and high < 1 << (w - 1))
    )


def conv_products(op: ops.Conv, x_shape: tuple[int, ...], out: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """For every weight, at how many positions it meets the image."""
    times: dict[tuple[int, ...], int] = {}
    for index in np.ndindex(*op.weight.shape):
        count = 0
        for position in np.ndindex(*out[1:]):
            place = [
                p * s + t * d - before
                for p, s, t, d, (before, _) in zip(
                    position, op.stride, index[2:], op.dilation, op.padding, strict=True
                )
            ]
            count += all(0 <= p < n for p, n in zip(place, x_shape[1:], strict=True))
        times[index] = count
    return times


def slowly(graph: Graph, per: str) -> int:
    total = 0
    for node in graph.nodes:
        op, y = node.op, node.tensor
        if not node.inputs:
            continue
        operands = graph.operands(node)
        x = operands[0]
        bits = [needed(int(a), int(b)) for a, b in zip(x.low, x.high, strict=True)]
        varies = [a != b for a, b in zip(y.low, y.high, strict=True)]
        positions = int(np.prod(y.shape[1:])) if per == "inference" else 1
        if isinstance(op, ops.Weighted):
            groups = op.groups if isinstance(op, ops.Conv) else 1
            times = conv_products(op, x.shape, y.shape) if isinstance(op, ops.Conv) else {}
            for index in np.ndindex(*op.weight.shape):
                group = index[0] // (op.out_channels // groups)
                operand = bits[group * op.weight.shape[1] + index[1]]
                often = times[index] if isinstance(op, ops.Conv) and per == "inference" else 1
                total += spelled(int(op.weight[index])) * operand * often
            if op.bias is not None:
                total += positions * sum(spelled(int(b)) for b, v in zip(op.bias, varies, strict=True) if v)
        elif isinstance(op, ops.Affine):
            for c, b in enumerate(bits):
                scale, offset = (int(v[c if len(v) > 1 else 0]) for v in (op.scale, op.offset))
                total += positions * (b * spelled(scale) if spelled(scale) > 1 else 0)
                total += positions * (spelled(offset) if varies[c] else 0)
        elif isinstance(op, ops.Add | ops.Sub | ops.Mul):
            z = operands[1]
            other = [needed(int(a), int(b)) for a, b in zip(z.low, z.high, strict=True)]
            for a, b in zip(bits, other, strict=True):
                total += positions * (a * b if isinstance(op, ops.Mul) else max(a, b) if a and b else 0)
        elif isinstance(op, ops.LeakyRelu):
            slope = spelled(op.slope_code) if spelled(op.slope_code) > 1 else 0
            total += positions * slope * sum(b for b, low in zip(bits, x.low, strict=True) if low < 0)
        elif isinstance(op, ops.AvgPool):
            n = int(np.prod(op.kernel))
            scale = spelled(op.scale_code) if spelled(op.scale_code) > 1 else 0
            for b, low, high in zip(bits, x.low, x.high, strict=True):
                total += positions * ((n - 1) * b + scale * needed(int(low) * n, int(high) * n))
    return total


@pytest.mark.parametrize("per", ["kernel", "inference"])
def test_every_multiplication_counted_by_itself(per: str) -> None:
    kinds: set[str] = set()
    for seed in range(120):
        graph = draw_graph(np.random.default_rng([9, seed]))
        assert ebops(graph, per) == slowly(graph, per), seed
        kinds |= {graph[name].op.kind for name in ebops_by_node(graph, per)}
    assert kinds == {"linear", "conv", "affine", "add", "sub", "mul", "leaky_relu", "avg_pool"}


def test_bits_of_constants() -> None:
    codes = np.asarray([0, 1, -1, 2, 3, -12, 5, 40, (1 << 61) - 1, -(1 << 61), (1 << 54) + 1, 3 << 40])
    np.testing.assert_array_equal(constant_bits(codes), [0, 1, 1, 1, 2, 2, 3, 3, 61, 1, 55, 2])
    small = np.arange(-600, 600)
    np.testing.assert_array_equal(constant_bits(small), [spelled(int(c)) for c in small])


def test_an_example_by_hand() -> None:
    """Two inputs of 4 bits; weights 3, -4 and 0, 5: (2 + 1) * 4 + 3 * 4; biases 6 (two bits) and 0."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(4, 0)))
    weight, bias = np.asarray([[3, -4], [0, 5]]), np.asarray([6, 0])
    y = builder.add(ops.Linear(weight, FixedPoint(4, 1), bias, FixedPoint(5, 1)), [x])
    graph = builder.build(y)
    assert ebops(graph) == 12 + 12 + 2
    assert ebops_by_node(graph) == {y: 26}


def test_positions_on_padding_cost_nothing() -> None:
    """A kernel of 3 over 4 places with padding 1: the outer places are inside at 3 positions, the middle at
    4."""
    np.testing.assert_array_equal(inside((4,), (3,), (1,), ((1, 1),), (1,)), [3, 4, 3])
    counts = inside((5, 7), (3, 2), (2, 1), ((1, 0), (0, 2)), (1, 3))
    for (i, j), count in np.ndenumerate(counts):
        positions = itertools.product(range(2), range(6))
        assert count == sum(0 <= 2 * a + i - 1 < 5 and 0 <= b + 3 * j < 7 for a, b in positions)


def test_only_two_ways_to_count() -> None:
    graph = draw_graph(np.random.default_rng(0))
    with pytest.raises(QfxError, match="'kernel', 'inference'"):
        ebops(graph, "pixel")


def test_operators_on_arrays() -> None:
    """Products of two tensors, and sums over axes, counted place by place."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((3, 4), FixedPoint(5, 2)))
    y = builder.add(ops.Cast(FixedPoint(3, 1, signed=False)), [builder.add(ops.Relu(), [x])])
    t = builder.add(ops.Transpose((1, 0)), [x])
    product = builder.add(arrays.MatMul(), [y, t])
    graph = builder.build(builder.add(arrays.ReduceSum((1,)), [product]))
    widest = graph[product].tensor.format.width
    assert ebops_by_node(graph) == {product: 3 * 4 * 3 * (3 * 5), graph.output: 3 * 2 * widest}
    over_channels = builder.build(builder.add(arrays.ReduceSum((0,)), [y]))
    assert ebops(over_channels) == 2 * 3 and ebops(over_channels, "inference") == 4 * 2 * 3
