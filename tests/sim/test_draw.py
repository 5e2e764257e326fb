"""What the fuzzer draws: it must reach every corner that the specification has."""

from __future__ import annotations

import numpy as np
import pytest

from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph import OPS, Graph, Op, ops
from qfx.graph.reference import trace_reference
from qfx.sim.draw import draw_graph, draw_input

COUNT = 150


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [draw_graph(np.random.default_rng([3, index])) for index in range(COUNT)]


def test_every_operator_mode_and_geometry_is_drawn(graphs: list[Graph]) -> None:
    nodes = [node for graph in graphs for node in graph.nodes]
    # The others are drawn on demand: tests/graph/test_array_operators.py, tests/sim/test_layers.py.
    assert {node.op.kind for node in nodes} == {k for k, op in OPS.items() if op.evaluate is Op.evaluate}
    formats = [node.op.format for node in nodes if isinstance(node.op, ops.Cast | ops.Input)]
    pairs = {(fmt.rounding, fmt.overflow) for fmt in formats}
    assert {rounding for rounding, _ in pairs} == set(ROUNDING)
    assert {overflow for _, overflow in pairs} == set(OVERFLOW)
    assert {fmt.signed for fmt in formats} == {False, True}
    assert {1, 2, 4, 8, 16} <= {fmt.width for fmt in formats}
    assert any(fmt.per_channel for fmt in formats)
    assert any(fmt.max_frac > fmt.width for fmt in formats)
    assert any(fmt.max_frac < 0 for fmt in formats)
    assert {len(graph.input_node.tensor.shape) for graph in graphs} == {1, 2, 3}

    convolutions = [
        (node, graph) for graph in graphs for node in graph.nodes if isinstance(node.op, ops.Conv)
    ]
    assert any(max(node.op.stride) > 1 for node, _ in convolutions)
    assert any(max(node.op.dilation) > 1 for node, _ in convolutions)
    assert any(a != b for node, _ in convolutions for a, b in node.op.padding)
    channels = [(node.op.groups, graph.operands(node)[0].channels) for node, graph in convolutions]
    assert any(groups == n > 1 for groups, n in channels), "no depthwise convolution"
    assert any(1 < groups < n for groups, n in channels), "no grouped convolution"
    assert any(len(graph.consumers(node.name)) > 1 for graph in graphs for node in graph.nodes), "no fork"


def test_inputs_reach_ties_ends_and_beyond(graphs: list[Graph]) -> None:
    ties = beyond = infinite = 0
    for graph in graphs[:40]:
        x = draw_input(np.random.default_rng(5), graph, 8)
        tensor = graph.input_node.tensor
        fracs = np.asarray(tensor.fracs).reshape(-1, *(1,) * (len(tensor.shape) - 1))
        codes = np.ldexp(x, fracs)
        finite = codes[np.isfinite(codes)]
        ties += np.count_nonzero(finite % 1 == 0.5)
        beyond += np.count_nonzero((finite < tensor.format.code_min) | (finite > tensor.format.code_max))
        infinite += np.count_nonzero(np.isinf(codes))
        assert (codes[0] == tensor.format.code_min).all() and (codes[1] == tensor.format.code_max).all()
    assert ties > 100 and beyond > 100 and infinite > 10


def test_drawing_is_reproducible(graphs: list[Graph]) -> None:
    for index in (0, 7, 31):
        again = draw_graph(np.random.default_rng([3, index]))
        assert again.summary() == graphs[index].summary()


def test_the_interpreter_equals_plain_integers_on_drawn_graphs(graphs: list[Graph]) -> None:
    for index, graph in enumerate(graphs):
        x = draw_input(np.random.default_rng(index), graph, 6)
        trace, reference = graph.trace(x), trace_reference(graph, x)
        for node in graph.nodes:
            assert (trace[node.name] == reference[node.name]).all(), (index, node.where)
