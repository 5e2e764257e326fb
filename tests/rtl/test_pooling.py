"""Pooling over the whole frame: no pixels are kept, only results so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rtl_networks import Net, inputs

import qfx.rtl
import qfx.sim
from qfx import FixedPoint
from qfx.graph import Graph, ops
from qfx.rtl import estimate, timing
from qfx.rtl.values import bits_of


def pooled(kind: str, channels: int, signed: bool, *scale: int) -> Graph:
    """A convolution, then one window that is the whole 8x8 frame."""
    n = Net((2, 8, 8), FixedPoint(5, 2), 4)
    x = n.cast(n.conv(n.x, channels, (3, 3), FixedPoint(4, 3), padding=1), 6, 2, signed)
    return n.build(n.cast(n.pool(x, kind, 8, 8, 0, *scale), 9, 3))


CASES = {
    "mean": ("avg", 6, False, 1, 6),
    "mean_of_signed": ("avg", 6, True, 1, 6),
    "scaled": ("avg", 6, True, 21, 11),
    "one_channel": ("avg", 1, True, 21, 11),
    "maximum": ("max", 6, True),
    "maximum_unsigned": ("max", 1, False),
}


FEW = {("mean_of_signed", 576), ("scaled", 5000), ("maximum", 576)}


@pytest.mark.parametrize(
    ("case", "interval"),
    [
        (case, i) if (case, i) in FEW else pytest.param(case, i, marks=pytest.mark.slow)
        for case in CASES
        for i in (576, 5000)
    ],
)
def test_bits_and_cycles(case: str, interval: int, tmp_path: Path) -> None:
    kind, channels, signed, *scale = CASES[case]
    graph = pooled(kind, channels, signed, *scale)  # type: ignore[arg-type]
    design = qfx.rtl.generate(graph, tmp_path / "rtl", interval=interval)
    assert sum(k.module == "qfx_window" for k in design.kernels) == 1  # the convolution's
    assert design.interval <= interval
    x = inputs(graph, 4)
    for stalls in (None, 0.4):
        result = qfx.sim.run(design, x, tap=stalls is None, stalls=stalls)
        np.testing.assert_array_equal(result.codes, graph.run_codes(x))
        trace = graph.trace(x)
        for stream in result.streams:
            np.testing.assert_array_equal(stream.codes, trace[stream.node], err_msg=stream.name)
        if stalls is None:
            assert (result.latency, result.interval) == (design.latency, design.interval)
            assert timing.simulate(design, 4).status == timing.FINISHED


def test_memory_does_not_grow_with_the_frame() -> None:
    """56x56 pixels of 64 channels: sums of 64 channels are kept, not 200,704 elements."""
    n = Net((64, 56, 56), FixedPoint(4, 2), 4)
    graph = n.build(n.cast(n.pool(n.x, "avg", 56, 56, 0, 1, 11), 8, 4))
    for interval in (3136, 50176, 200704):
        design = qfx.rtl.plan(graph, interval=interval)
        assert estimate.total(design.kernels).bram18 <= 1 and design.interval <= interval
        assert "qfx_window" not in design.modules


def test_smaller_windows_are_windows() -> None:
    n = Net((4, 8, 8), FixedPoint(4, 2), 4)
    assert "qfx_window" in qfx.rtl.plan(n.build(n.pool(n.x, "max", 4, 4))).modules
    n = Net((4, 1, 1), FixedPoint(4, 2), 4)
    design = qfx.rtl.plan(n.build(n.add(ops.AvgPool((1, 1), (1, 1), ((0, 0), (0, 0)), 3, 2), n.x)))
    assert "qfx_reduce" not in design.modules


@pytest.mark.parametrize(
    ("low", "high", "width", "signed"),
    [(0, 0, 1, False), (0, 1, 1, False), (3, 4, 3, False), (-1, -1, 1, True), (-1, 0, 1, True)]
    + [(-8, -8, 4, True), (-9, -8, 5, True), (-8, -1, 4, True), (-2, -2, 2, True), (-8, 7, 4, True)]
    + [(-8, 8, 5, True), (-3, 7, 4, True)],
)
def test_bits_of_a_range(low: int, high: int, width: int, signed: bool) -> None:
    assert bits_of(low, high) == (width, signed)


def test_bits_of_every_small_range() -> None:
    for low in range(-20, 20):
        for high in range(low, 20):
            width, signed = bits_of(low, high)

            def holds(w: int, signed: bool = signed, low: int = low, high: int = high) -> bool:
                return -(1 << w - 1) <= low and high < 1 << w - 1 if signed else low >= 0 and high < 1 << w

            assert holds(width) and signed == (low < 0) and (width == 1 or not holds(width - 1))
