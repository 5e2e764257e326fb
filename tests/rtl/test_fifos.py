"""FIFO depths: enough, not more than needed, and proved."""

from __future__ import annotations

import pytest
from rtl_networks import NETWORKS, Net
from test_timing import skip_net, starved

import qfx.rtl
from qfx import FixedPoint
from qfx.graph import Graph, ops
from qfx.rtl import fifos, timing
from qfx.rtl.build import build
from qfx.rtl.fold import choose
from qfx.rtl.library import window_span
from qfx.rtl.lower import lower


def dense_blocks() -> Graph:
    """Forks within forks, and a concat that takes from every depth."""
    n = Net((2, 5, 5), FixedPoint(4, 2), 11)
    weight = FixedPoint(3, 2)
    parts = [n.cast(n.x, 4, 1)]
    for _ in range(3):
        joined = parts[0] if len(parts) == 1 else n.cast(n.add(ops.Concat(), *parts), 4, 1)
        parts.append(n.cast(n.conv(joined, 2, (3, 3), weight, padding=1), 4, 1))
    return n.build(n.add(ops.Concat(), *parts))


def long_branch() -> Graph:
    """One branch that sees the whole frame before it says anything, one that is a wire."""
    n = Net((3, 4, 4), FixedPoint(4, 2), 12)
    x = n.cast(n.x, 4, 1)
    turned = n.cast(n.conv(n.add(ops.Transpose((0, 2, 1)), x), 3, (1, 1), FixedPoint(3, 2)), 4, 0)
    return n.build(n.add(ops.Mul(), x, n.add(ops.Transpose((0, 2, 1)), turned)))


BRANCHES = {"skip": skip_net, "dense": dense_blocks, "whole_frame": long_branch}


@pytest.mark.parametrize("name", BRANCHES)
def test_short_fifos_deadlock_and_sized_ones_do_not(name: str) -> None:
    graph = BRANCHES[name]()
    short = starved(graph)
    assert timing.simulate(short, 1).status == timing.DEADLOCK
    assert not fifos.is_alive(short)
    design = qfx.rtl.plan(graph)
    assert timing.simulate(design, 8).status == timing.FINISHED
    assert fifos.is_alive(design)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_design_is_proved_and_reaches_its_target(name: str) -> None:
    for interval in (None, 5000):
        design = qfx.rtl.plan(NETWORKS[name](), interval=interval)
        assert fifos.is_alive(design)
        assert design.interval <= design.target
        assert design.target <= (interval or design.target)
        for fifo in design.fifos:
            assert fifo.number("DEPTH") >= (3 if fifo.number("STYLE") else 2)
            assert fifo.number("WIDTH") == design.stream(fifo.inputs[0]).bits
        for kernel in design.kernels:
            if kernel.module == "qfx_window":
                assert kernel.number("DEPTH") >= window_span(kernel)


def test_depths_are_small() -> None:
    """One place less on the skip and the frame no longer passes, or passes too slowly."""
    design = qfx.rtl.plan(skip_net())
    skip = max(design.fifos, key=lambda f: f.number("DEPTH"))
    shallow = fifos._with_depths(design, {skip.name: skip.number("DEPTH") - 2})
    run = timing.simulate(shallow, 8)
    alive = run.status == timing.FINISHED and fifos.is_alive(shallow)
    assert not alive or max(run.intervals[4:]) > design.target


def test_without_effort_depths_are_larger_and_still_enough() -> None:
    """What the effort bounds is how small FIFOs become, not whether the design works."""
    graph = NETWORKS["residual_cnn"]()
    program = lower(graph)
    folding = choose(graph, program, interval=1000)
    design = build(graph, program, folding.folds, folding.input_lanes, folding.target, "top")
    none, usual = fifos.size(design, effort=0), fifos.size(design)
    for sized in (none, usual):
        assert fifos.is_alive(sized) and sized.interval <= folding.target
    bits = [sum(f.number("DEPTH") * f.number("WIDTH") for f in d.fifos) for d in (none, usual)]
    assert bits[0] >= bits[1]


def test_large_fifos_go_to_block_ram() -> None:
    n = Net((2, 24, 24), FixedPoint(16, 2), 13)
    weight = FixedPoint(3, 2)
    x = n.cast(n.x, 16, 1)
    y = x
    for _ in range(3):
        y = n.cast(n.conv(y, 2, (5, 5), weight, padding=2), 16, 0)
    design = qfx.rtl.plan(n.build(n.add(ops.Add(), x, y)))
    large = [f for f in design.fifos if f.number("DEPTH") * f.number("WIDTH") >= 4096]
    assert large and all(f.number("STYLE") == 1 for f in large)
    assert fifos.is_alive(design) and design.interval <= design.target
