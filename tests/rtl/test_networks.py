"""Generated designs in simulation: bit for bit the interpreter, cycle for cycle the timing model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rtl_networks import NETWORKS, inputs

import qfx.rtl
import qfx.sim
from qfx.rtl import timing
from qfx.sim import Stalls

FRAMES = 6


@pytest.mark.parametrize("name", NETWORKS)
def test_bits_and_cycles(name: str, tmp_path: Path) -> None:
    """Every tensor on every stream, and the cycle of the end of every frame."""
    graph = NETWORKS[name]()
    x = inputs(graph, FRAMES)
    design = qfx.rtl.generate(graph, tmp_path / "rtl")
    result = qfx.sim.run(design, x, tap=True)
    # The graph that was built may lack channels that contribute nothing; the result is that of the one given.
    expected = design.graph.trace(x)
    for stream in result.streams:
        np.testing.assert_array_equal(stream.codes, expected[stream.node], err_msg=stream.name)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    np.testing.assert_array_equal(result.outputs, graph.run(x))

    model = timing.simulate(design, FRAMES)
    start = int(result.input_cycles[0, 0])
    assert (result.output_cycles[:, 1] - start).tolist() == [t - model.first_in[0] for t in model.last_out]
    assert (result.output_cycles[:, 0] - start).tolist() == [t - model.first_in[0] for t in model.first_out]
    assert (result.input_cycles[:, 0] - start).tolist() == [t - model.first_in[0] for t in model.first_in]
    assert result.latency == design.latency
    assert result.interval == design.interval


# The fastest that the kernels offer, and close to the slowest: other converters, folds, FIFOs.
@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("residual_cnn", 4000),
        ("per_channel", 2000),
        ("one_dimension", 400),
        ("moves", 2000),
        ("depthwise", 6000),
        ("far_points", 60),
    ],
)
@pytest.mark.slow
def test_other_foldings(name: str, interval: int, tmp_path: Path) -> None:
    graph = NETWORKS[name]()
    x = inputs(graph, FRAMES, seed=1)
    design = qfx.rtl.generate(graph, tmp_path / "rtl", interval=interval)
    result = qfx.sim.run(design, x)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    assert (result.latency, result.interval) == (design.latency, design.interval)
    assert design.interval <= interval


def test_folding_by_hand(tmp_path: Path) -> None:
    """Widths of which neither divides the other, from end to end."""
    graph = NETWORKS["residual_cnn"]()
    x = inputs(graph, FRAMES, seed=2)
    fold = {"block.conv1": {"pe": 3, "simd": 18}, "block.conv2": {"pe": 2, "simd": 27}, "n3_relu": {"pe": 2}}
    design = qfx.rtl.generate(graph, tmp_path / "rtl", fold=fold)
    folds = {layer.path: (layer.pe, layer.simd) for layer in design.layers if layer.simd is not None}
    assert folds["block.conv1"] == (3, 18)
    assert folds["block.conv2"] == (2, 27)
    result = qfx.sim.run(design, x)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    assert (result.latency, result.interval) == (design.latency, design.interval)


@pytest.mark.parametrize("stalls", [Stalls(0.6, 0.1, 32, seed=3), Stalls(0.05, 0.7, 8, True, seed=4)])
def test_stalls_do_not_stop_a_residual_block(stalls: Stalls, tmp_path: Path) -> None:
    graph = NETWORKS["residual_cnn"]()
    x = inputs(graph, 8, seed=3)
    design = qfx.rtl.generate(graph, tmp_path / "rtl")
    result = qfx.sim.run(design, x, stalls=stalls)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))


def test_input_alone(tmp_path: Path) -> None:
    """A graph that is nothing but its input is a design that passes frames on."""
    from rtl_networks import Net

    from qfx import FixedPoint

    n = Net((2, 3), FixedPoint(5, 1))
    graph = n.build(n.x)
    x = inputs(graph, 4)
    design = qfx.rtl.generate(graph, tmp_path / "rtl")
    result = qfx.sim.run(design, x)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    assert (result.latency, result.interval) == (design.latency, design.interval)
