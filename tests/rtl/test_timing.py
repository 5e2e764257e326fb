"""The timing model by itself: its two implementations, its digests, and what it says of small pipelines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from rtl_networks import NETWORKS, Net

import qfx.rtl
from qfx import FixedPoint
from qfx.graph import Graph
from qfx.rtl import fifos, timing
from qfx.rtl.design import Design, Kernel
from qfx.rtl.library import window_sequence, window_span

compiled = pytest.mark.skipif(timing._library() is None, reason="no C++ compiler")


@compiled
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "options", [{}, {"source_interval": 700}, {"capacity_one": True, "source_frames": 1}]
)
def test_both_implementations_agree(name: str, options: dict[str, int]) -> None:
    design = qfx.rtl.plan(NETWORKS[name]())
    frames = 1 if "source_frames" in options else 3
    python = timing.simulate(design, frames, python=True, **options)
    fast = timing.simulate(design, frames, **options)
    assert dataclasses.replace(python, states=()) == dataclasses.replace(fast, states=())
    assert python.status == timing.FINISHED
    # The digests differ, what they say must not: which frames left the same state.
    assert [python.states.index(s) for s in python.states] == [fast.states.index(s) for s in fast.states]


@compiled
def test_both_implementations_find_the_same_deadlock() -> None:
    design = starved(skip_net())
    python = timing.simulate(design, 2, python=True)
    fast = timing.simulate(design, 2)
    assert python.status == fast.status == timing.DEADLOCK
    assert python.cycles == fast.cycles
    assert python.occupancy == fast.occupancy


def test_time_limit() -> None:
    design = qfx.rtl.plan(NETWORKS["minimal"]())
    run = timing.simulate(design, 5, max_cycles=design.latency + design.interval // 2)
    assert run.status == timing.OUT_OF_TIME
    assert len(run.last_out) == 1


def test_predictions_are_those_of_the_model() -> None:
    for make in NETWORKS.values():
        design = qfx.rtl.plan(make())
        run = timing.simulate(design, 24)
        assert run.latency == design.latency
        assert set(run.intervals[12:]) == {design.interval}


def test_source_at_the_pace_of_the_interval_sets_the_pace() -> None:
    design = qfx.rtl.plan(NETWORKS["minimal"]())
    run = timing.simulate(design, 6, source_interval=5 * design.interval)
    assert set(run.intervals) == {5 * design.interval}


def test_digest_tells_a_settled_design_from_one_that_still_fills() -> None:
    design = qfx.rtl.plan(NETWORKS["residual_cnn"]())
    deep = fifos._with_depths(design, {"input_fifo": 5000})
    # A large input FIFO goes on filling for several frames although the output is steady.
    assert timing.simulate(deep, 4).steady_interval() is None
    assert fifos.steady_interval(deep) == design.interval


@pytest.mark.parametrize("seed", range(12))
def test_window_steps_follow_the_definition(seed: int) -> None:
    """The vectorized sequence against the loops of docs/kernels.md."""
    rng = np.random.default_rng(seed)
    p = {
        name: int(rng.integers(1, 5))
        for name in ("IN_H", "IN_W", "OUT_H", "OUT_W", "KERNEL_H", "KERNEL_W", "STRIDE_H", "STRIDE_W")
    }
    p |= {name: int(rng.integers(1, 3)) for name in ("DILATION_H", "DILATION_W")}
    p |= {name: int(rng.integers(0, 3)) for name in ("PAD_TOP", "PAD_LEFT")}
    p["GROUPS"] = int(rng.integers(1, 3))
    p["BEATS"] = p["GROUPS"] * int(rng.integers(1, 3))
    kernel = Kernel("w", "qfx_window", {**p, "DEPTH": 1}, (), (), "")
    kernel = kernel.with_parameters(DEPTH=window_span(kernel) + int(rng.integers(0, 4)))
    need, drop, fill0 = window_sequence(kernel)

    beats, group_beats, row = p["BEATS"], p["BEATS"] // p["GROUPS"], p["IN_W"] * p["BEATS"]
    assert fill0 == p["PAD_TOP"] * row + p["PAD_LEFT"] * beats
    last_x = min(p["OUT_W"] - 1, (p["IN_W"] - 1 + p["PAD_LEFT"]) // p["STRIDE_W"])
    last_y = min(p["OUT_H"] - 1, (p["IN_H"] - 1 + p["PAD_TOP"]) // p["STRIDE_H"])
    bases = [
        min(oy, last_y) * p["STRIDE_H"] * row + min(ox, last_x) * p["STRIDE_W"] * beats - fill0
        for oy in range(p["OUT_H"])
        for ox in range(p["OUT_W"])
    ]
    step = pixel = 0
    for oy in range(p["OUT_H"]):
        for ox in range(p["OUT_W"]):
            for g in range(p["GROUPS"]):
                for ky in range(p["KERNEL_H"]):
                    for kx in range(p["KERNEL_W"]):
                        for b in range(group_beats):
                            iy = oy * p["STRIDE_H"] - p["PAD_TOP"] + ky * p["DILATION_H"]
                            ix = ox * p["STRIDE_W"] - p["PAD_LEFT"] + kx * p["DILATION_W"]
                            off = (
                                ky * p["DILATION_H"] * row
                                + kx * p["DILATION_W"] * beats
                                + g * group_beats
                                + b
                            )
                            wanted = off if 0 <= iy < p["IN_H"] and 0 <= ix < p["IN_W"] else -(1 << 62)
                            if step == 0:
                                wanted = max(wanted, min(fill0 + 1, kernel.number("DEPTH")) - 1)
                            assert need[step] == wanted
                            step += 1
            after = bases[pixel + 1] if pixel + 1 < len(bases) else p["IN_H"] * row + bases[0]
            assert drop[step - 1] == after - bases[pixel]
            pixel += 1
    assert step == len(need)
    assert np.count_nonzero(drop) <= len(bases)


def skip_net(length: int = 6) -> Graph:
    """A residual block whose long branch holds more beats than a short FIFO on the skip."""
    from qfx.graph import ops

    n = Net((2, length, length), FixedPoint(4, 2), 9)
    x = n.cast(n.x, 4, 1)
    weight = FixedPoint(3, 2)
    y = n.cast(n.conv(x, 2, (3, 3), weight, padding=1), 4, 0)
    y = n.cast(n.conv(y, 2, (3, 3), weight, padding=1), 4, 0)
    return n.build(n.add(ops.Add(), x, y))


def starved(graph: Graph) -> Design:
    """A design with the least FIFOs that structure allows: its residual blocks cannot finish a frame."""
    from qfx.rtl.build import build
    from qfx.rtl.fold import choose
    from qfx.rtl.lower import lower

    program = lower(graph)
    folding = choose(graph, program)
    design = build(graph, program, folding.folds, folding.input_lanes, folding.target, "top")
    return fifos._with_depths(design, {fifo.name: fifo.required for fifo in design.fifos})
