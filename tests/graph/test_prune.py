"""Pruned graphs compute what the whole ones compute, and are as small as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from qfx import FixedPoint
from qfx.graph import Graph, GraphBuilder, arrays, functions, ops
from qfx.graph.prune import prune
from qfx.graph.reference import trace_reference
from qfx.sim.draw import Sizes, draw_graph, draw_input

Rng = np.random.Generator
BYTE = FixedPoint(8, 4)


def with_dead_channels(rng: Rng, graph: Graph) -> Graph:
    """The same graph with random output channels, input channels and affine channels set to 0, and biases of
    some of them left alone, so that there are constants other than 0 as well."""
    builder = GraphBuilder()
    for node in graph.nodes:
        op = node.op
        if isinstance(op, ops.Weighted):
            weight, bias = op.weight.copy(), None if op.bias is None else op.bias.copy()
            dead = rng.random(len(weight)) < 0.4
            weight[dead] = 0
            weight[:, rng.random(weight.shape[1]) < 0.3] = 0
            if bias is not None:
                bias[dead & (rng.random(len(bias)) < 0.7)] = 0
            op = replace(op, weight=weight, bias=bias)
        elif isinstance(op, ops.Affine):
            scale, offset = op.scale.copy(), op.offset.copy()
            scale[rng.random(len(scale)) < 0.4] = 0
            offset[rng.random(len(offset)) < 0.5] = 0
            op = replace(op, scale=scale, offset=offset)
        builder.add(op, node.inputs, node.path, node.name)
    return builder.build(graph.output)


@pytest.mark.parametrize("seed", range(300))
def test_a_pruned_graph_computes_the_same(seed: int) -> None:
    rng = np.random.default_rng([5, seed])
    graph = with_dead_channels(rng, draw_graph(rng, Sizes(steps=14)))
    x = draw_input(rng, graph, 24)
    pruned = prune(graph)
    np.testing.assert_array_equal(pruned.run(x), graph.run(x))
    assert pruned.output_node.tensor.shape == graph.output_node.tensor.shape
    assert prune(pruned) is pruned


def test_values_inside_are_the_same_too() -> None:
    """Nodes that kept their shape hold the same numbers: freeze keeps their taps."""
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng([6, seed])
        graph = with_dead_channels(rng, draw_graph(rng, Sizes(steps=14)))
        x = draw_input(rng, graph, 3)
        pruned = prune(graph)
        before, after = trace_reference(graph, x), trace_reference(pruned, x)
        for node in pruned.nodes:
            if node.tensor.shape == graph[node.name].tensor.shape:
                values = [
                    np.asarray(codes[node.name], dtype=np.float64)
                    / np.exp2(
                        np.reshape(g[node.name].tensor.fracs, (-1, *(1,) * (len(node.tensor.shape) - 1)))
                    )
                    for codes, g in ((before, graph), (after, pruned))
                ]
                np.testing.assert_array_equal(*values)
                compared += node.name not in (graph.input_node.name, graph.output)
    assert compared > 50


def test_the_fuzzer_prunes_something() -> None:
    """Otherwise the test above shows nothing."""
    changed, channels = 0, 0
    for seed in range(100):
        rng = np.random.default_rng([5, seed])
        graph = with_dead_channels(rng, draw_graph(rng, Sizes(steps=14)))
        pruned = prune(graph)
        changed += pruned is not graph
        channels += sum(n.tensor.channels for n in graph.nodes) - sum(n.tensor.channels for n in pruned.nodes)
    assert changed > 30 and channels > 300


# -- by hand ------------------------------------------------------------------------------------------


def linear(weight: Sequence[Sequence[int]], bias: Sequence[int] | None = None) -> ops.Linear:
    return ops.Linear(
        np.asarray(weight, dtype=np.int64), BYTE,
        None if bias is None else np.asarray(bias, dtype=np.int64), None if bias is None else BYTE,
    )  # fmt: skip


def conv(weight: np.ndarray, bias: Sequence[int] | None = None, groups: int = 1, pad: int = 1) -> ops.Conv:
    rank = weight.ndim - 2
    return ops.Conv(
        weight.astype(np.int64), BYTE,
        None if bias is None else np.asarray(bias, dtype=np.int64), None if bias is None else BYTE,
        (1,) * rank, ((pad, pad),) * rank, (1,) * rank, groups,
    )  # fmt: skip


def chain(shape: tuple[int, ...], *operators: ops.Op) -> Graph:
    builder = GraphBuilder()
    name = builder.add(ops.Input(shape, BYTE))
    for op in operators:
        name = builder.add(op, (name,))
    return builder.build(name)


def shapes(graph: Graph) -> list[tuple[int, ...]]:
    return [node.tensor.shape for node in graph.nodes]


def assert_same(graph: Graph, pruned: Graph) -> None:
    x = np.random.default_rng(0).uniform(-9, 9, (50, *graph.input_node.tensor.shape))
    np.testing.assert_array_equal(pruned.run(x), graph.run(x))


def test_dead_neurons_go_with_what_fed_them() -> None:
    """The second layer ignores neuron 1 of the first, and its own neuron 0 is always 0; neuron 2 of the first
    feeds only that."""
    graph = chain(
        (3,),
        linear([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [1, 1, 1]),
        ops.Relu(),
        ops.Cast(BYTE),
        linear([[0, 0, 0], [5, 0, 0], [6, 0, 0]]),
        ops.Cast(BYTE),
        linear([[1, 2, 3]]),
    )
    pruned = prune(graph)
    assert shapes(pruned) == [(3,), (1,), (1,), (1,), (2,), (2,), (1,)]
    assert_same(graph, pruned)


def test_a_constant_neuron_moves_into_the_bias_of_the_next_layer() -> None:
    graph = chain(
        (2,),
        linear([[1, 1], [0, 0]], [0, 37]),
        ops.Cast(BYTE),
        linear([[3, -5], [0, 2]], [1, 0]),
        ops.Cast(BYTE),
    )
    pruned = prune(graph)
    assert shapes(pruned) == [(2,), (1,), (1,), (2,), (2,)]
    assert_same(graph, pruned)
    (layer,) = [n.op for n in pruned.nodes if isinstance(n.op, ops.Linear) and n.op.out_channels == 2]
    assert layer.bias is not None and layer.bias_format is not None
    # The cast rounds 37/16 to 37/16; 1/16 - 5/16 * 37/16 and 2/16 * 37/16.
    np.testing.assert_array_equal(layer.bias_format.decode(layer.bias), [(16 - 5 * 37) / 256, 2 * 37 / 256])


def test_a_constant_channel_stays_before_padding() -> None:
    """Padding is 0 where the channel is not."""
    weight = np.ones((1, 2, 3, 3), dtype=np.int64)
    dead = np.zeros((2, 1, 1, 1), dtype=np.int64)
    dead[0] = 1
    for pad, channels in ((1, 2), (0, 1)):
        graph = chain((1, 4, 4), conv(dead, [0, 16], pad=0), ops.Cast(BYTE), conv(weight, pad=pad))
        pruned = prune(graph)
        assert pruned.nodes[1].tensor.channels == channels
        assert_same(graph, pruned)


def test_a_group_goes_as_a_whole() -> None:
    first = np.arange(1, 5).reshape(4, 1, 1, 1)
    first[1] = 0
    depthwise, paired = np.ones((4, 1, 3, 3)), np.ones((2, 2, 3, 3))
    last = np.ones((1, 4, 1, 1))
    graph = chain((1, 4, 4), conv(first, pad=0), conv(depthwise, groups=4), conv(last, pad=0))
    assert shapes(prune(graph)) == [(1, 4, 4), (3, 4, 4), (3, 4, 4), (1, 4, 4)]
    assert_same(graph, prune(graph))
    # In groups of two, a channel stays with its neighbour.
    graph = chain((1, 4, 4), conv(first, pad=0), conv(paired, groups=2), conv(last[:, :2], pad=0))
    assert prune(graph) is graph
    first[0] = 0
    graph = chain((1, 4, 4), conv(first, pad=0), conv(paired, groups=2), conv(last[:, :2], pad=0))
    pruned = prune(graph)
    assert shapes(pruned) == [(1, 4, 4), (2, 4, 4), (1, 4, 4), (1, 4, 4)]
    assert_same(graph, pruned)


def test_through_pooling_concatenation_and_flattening() -> None:
    builder = GraphBuilder()
    x = builder.add(ops.Input((2, 4, 4), BYTE))
    weight = np.ones((3, 2, 1, 1), dtype=np.int64)
    weight[1] = 0
    a = builder.add(ops.MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), [builder.add(conv(weight, pad=0), [x])])
    b = builder.add(
        ops.AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), 1, 2), [builder.add(conv(weight, pad=0), [x])]
    )
    flat = builder.add(ops.Reshape((24,)), [builder.add(ops.Concat(), [a, b])])
    graph = builder.build(builder.add(linear(np.ones((2, 24), dtype=np.int64).tolist()), [flat]))
    pruned = prune(graph)
    assert pruned[flat].tensor.shape == (16,)
    assert_same(graph, pruned)


def test_a_sum_needs_both_and_a_branch_of_zeros_disappears() -> None:
    weight = np.ones((2, 2, 3, 3), dtype=np.int64)
    for dead, kinds in (
        ([], ["input", "conv", "cast", "add", "cast"]),
        ([0], ["input", "conv", "cast", "add", "cast"]),
        ([0, 1], ["input", "cast"]),
    ):
        branch = weight.copy()
        branch[dead] = 0
        builder = GraphBuilder()
        x = builder.add(ops.Input((2, 4, 4), BYTE))
        y = builder.add(ops.Cast(BYTE), [builder.add(conv(branch), [x])])
        graph = builder.build(builder.add(ops.Cast(BYTE), [builder.add(ops.Add(), [y, x])]))
        pruned = prune(graph)
        assert [n.op.kind for n in pruned.nodes] == kinds
        assert_same(graph, pruned)


def test_formats_per_channel_follow_their_channels() -> None:
    graph = chain(
        (2,),
        ops.Linear(
            np.asarray([[1, 2], [0, 0], [3, 4]]), FixedPoint(8, (4, 5, 6)),
            np.asarray([1, 0, 2]), FixedPoint(8, (7, 5, 3)),
        ),
        ops.Cast(FixedPoint(6, (3, 2, 1))),
        ops.Affine(
            np.asarray([1, 2, 3]), FixedPoint(4, (1, 2, 3)), np.asarray([1, 0, 3]), FixedPoint(4, (0, 1, 2))
        ),
        linear([[1, 1, 1]]),
    )  # fmt: skip
    pruned = prune(graph)
    assert shapes(pruned) == [(2,), (2,), (2,), (2,), (1,)]
    layer, cast, affine = (node.op for node in pruned.nodes[1:4])
    assert layer.weight_format.frac == (4, 6) and layer.bias_format.frac == (7, 3)
    assert cast.format.frac == (3, 1)
    assert affine.scale_format.frac == (1, 3) and affine.offset_format.frac == (0, 2)
    assert_same(graph, pruned)


def test_a_network_of_zeros_keeps_one_channel_each() -> None:
    graph = chain((2,), linear(np.zeros((5, 2), dtype=int).tolist()), ops.Cast(BYTE), linear([[1] * 5] * 3))
    pruned = prune(graph)
    assert shapes(pruned) == [(2,), (1,), (1,), (3,)]
    assert_same(graph, pruned)


def test_operators_on_arrays() -> None:
    """A mean over the image lets a dead channel go; a product of tensors keeps all of its operands."""
    weight = np.ones((3, 1, 1, 1), dtype=np.int64)
    weight[1] = 0
    graph = chain(
        (1, 4, 4),
        conv(weight, pad=0),
        arrays.ReduceSum((1, 2)),
        arrays.Repeat((1, 2, 3)),
        arrays.InsertZeros((2, 1)),
        ops.Reshape((27,)),
        linear([[1] * 27]),
    )
    pruned = prune(graph)
    assert shapes(pruned) == [(1, 4, 4), (2, 4, 4), (2, 1, 1), (2, 2, 3), (2, 3, 3), (18,), (1,)]
    assert_same(graph, pruned)
    builder = GraphBuilder()
    x = builder.add(ops.Input((1, 2, 2), BYTE))
    y = builder.add(conv(weight, pad=0), [x])
    graph = builder.build(builder.add(arrays.MatMul(), [y, y]))
    assert prune(graph) is graph


def test_codes_that_matter_keep_their_grid() -> None:
    """An inverse root adds its offset to the code: it must not see a coarser grid than it was made for."""
    fine = ops.Linear(np.asarray([[1], [0]]), FixedPoint(4, (0, 6)), None, None)
    root = functions.InverseRoot(1, 1, 0, np.asarray([[4], [3]]), guard=0, frac=0, offset=100, least=1)
    assert shapes(prune(chain((1,), fine, linear([[1, 1]])))) == [(1,), (1,), (1,)]
    graph = chain((1,), fine, linear([[1, 1]]), root)
    assert prune(graph) is graph
