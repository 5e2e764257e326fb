"""Designs of functions and of operators on whole arrays: bits of the interpreter, cycles of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_networks import ARRAY_NETWORKS
from rtl_networks import inputs

import qfx.rtl
import qfx.sim
from qfx.graph import Graph
from qfx.rtl import timing
from qfx.sim import Stalls

FRAMES = 6


def check(graph: Graph, folder: Path, **options: object) -> qfx.rtl.Design:
    """Every tensor on every stream, and the cycle in which every frame ends."""
    x = inputs(graph, FRAMES)
    design = qfx.rtl.generate(graph, folder / "rtl", **options)  # type: ignore[arg-type]
    result = qfx.sim.run(design, x, tap=True)
    expected = graph.trace(x)
    for stream in result.streams:
        np.testing.assert_array_equal(stream.codes, expected[stream.node], err_msg=stream.name)
    np.testing.assert_array_equal(result.codes, expected[graph.output])
    model = timing.simulate(design, FRAMES)
    start = int(result.input_cycles[0, 0])
    assert (result.output_cycles[:, 1] - start).tolist() == [t - model.first_in[0] for t in model.last_out]
    assert (result.output_cycles[:, 0] - start).tolist() == [t - model.first_in[0] for t in model.first_out]
    assert (result.latency, result.interval) == (design.latency, design.interval)
    return design


@pytest.mark.parametrize("name", ARRAY_NETWORKS)
def test_bits_and_cycles(name: str, tmp_path: Path) -> None:
    check(ARRAY_NETWORKS[name](), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARRAY_NETWORKS)
@pytest.mark.parametrize("slower", [1.5, 8])
def test_other_foldings(name: str, slower: float, tmp_path: Path) -> None:
    graph = ARRAY_NETWORKS[name]()
    interval = int(slower * qfx.rtl.plan(graph).interval)
    assert check(graph, tmp_path, interval=interval).interval <= interval


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "attention"])
@pytest.mark.parametrize("stalls", [Stalls(0.6, 0.1, 32, seed=3), Stalls(0.05, 0.7, 8, True, seed=4)])
def test_stalls(name: str, stalls: Stalls, tmp_path: Path) -> None:
    graph = ARRAY_NETWORKS[name]()
    x = inputs(graph, 8, seed=3)
    result = qfx.sim.run(qfx.rtl.generate(graph, tmp_path / "rtl"), x, stalls=stalls)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
