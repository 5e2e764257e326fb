"""Shrinking with faults that are properties of the graph: the result must keep them, and little else."""

from __future__ import annotations

import numpy as np
import pytest

from qfx.formats import Binary, FixedPoint, Format, KHot, Minifloat
from qfx.graph import ops
from qfx.sim.case import Case, architecture
from qfx.sim.draw import draw_graph, draw_input
from qfx.sim.shrink import shrink, size


def drawn(index: int) -> Case:
    rng = np.random.default_rng([21, index])
    graph = draw_graph(rng)
    return Case(graph, draw_input(rng, graph, 16), simulations=({}, {"reset_after": 3}), hls={"io": "stream"})


def has_strided_conv(case: Case) -> str:
    found = any(isinstance(n.op, ops.Conv) and max(n.op.stride) > 1 for n in case.graph.nodes)
    return "a convolution with a stride" if found else ""


def drops_bits(case: Case) -> str:
    """A value fault: some cast changes a value of some sample."""
    trace = case.graph.trace(case.x)
    for node in case.graph.nodes:
        if isinstance(node.op, ops.Cast):
            (operand,) = node.inputs
            before = case.graph[operand].tensor.format.decode(trace[operand], axis=1)
            after = node.tensor.format.decode(trace[node.name], axis=1)
            if (before != after).any():
                return node.where
    return ""


@pytest.mark.parametrize("fails", [has_strided_conv, drops_bits])
def test_what_remains_is_small_and_still_fails(fails) -> None:  # type: ignore[no-untyped-def]
    failing = [case for case in map(drawn, range(60)) if fails(case)]
    assert len(failing) > 5
    for case in failing[:4]:
        small = shrink(case, fails, attempts=400)
        assert fails(small)
        assert size(small) == (2, 1)
        assert small.simulations == ({},) and small.hls == {}


@pytest.mark.parametrize("kind", [Minifloat, KHot, Binary])
def test_formats_with_gaps(kind: type[Format]) -> None:
    """A fault of one kind of cast: it remains, with one binary point and nothing around it."""

    def fails(case: Case) -> str:
        found = any(isinstance(n.op, ops.Cast) and isinstance(n.op.format, kind) for n in case.graph.nodes)
        return "such a cast" if found else ""

    def gapped(index: int) -> Case:
        rng = np.random.default_rng([22, index])
        graph = draw_graph(rng, every_format=True)
        return Case(graph, draw_input(rng, graph, 4))

    small = shrink(next(case for case in map(gapped, range(200)) if fails(case)), fails, attempts=400)
    (_, cast) = small.graph.nodes
    assert isinstance(cast.op, ops.Cast) and isinstance(cast.op.format, kind)
    assert not cast.op.format.per_channel and size(small) == (2, 1)
    assert isinstance(small.graph.input_node.op, ops.Input)
    assert isinstance(small.graph.input_node.op.format, FixedPoint)


def test_only_the_design_that_fails_remains() -> None:
    """With the architecture that the fault needs and no other option; layers by name while they exist."""
    parallel = {"architecture": "parallel", "levels": 2}
    case = drawn(3).replace(rtl=({"interval": 100}, parallel))
    small = shrink(case, lambda c: "parallel" if "parallel" in map(architecture, c.rtl) else "", attempts=400)
    assert small.rtl == ({"architecture": "parallel"},)

    def mixed(case: Case) -> str:
        return "mixed" if "mixed" in map(architecture, case.rtl) and has_strided_conv(case) else ""

    case = next(c for c in map(drawn, range(60)) if has_strided_conv(c))
    paths = [n.path for n in case.graph.nodes if isinstance(n.op, ops.Conv)]
    small = shrink(
        case.replace(rtl=({"architecture": dict.fromkeys(paths, "parallel")},)), mixed, attempts=400
    )
    left = [n.path for n in small.graph.nodes if isinstance(n.op, ops.Conv)]
    assert small.rtl == ({"architecture": dict.fromkeys(left, "parallel")},)


def test_the_number_of_attempts_is_bounded() -> None:
    calls = 0

    def fails(case: Case) -> str:
        nonlocal calls
        calls += 1
        return drops_bits(case)

    case = next(case for case in map(drawn, range(60)) if drops_bits(case))
    shrink(case, fails, attempts=5)
    assert calls == 5
