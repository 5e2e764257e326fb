"""Designs of functions and of operators on whole arrays: bits of the interpreter, cycles of the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from array_networks import ARRAY_NETWORKS, constant, function, inverse_root, repeat, total
from rtl_networks import Net, inputs

import qfx.rtl
import qfx.sim
from qfx.errors import QfxError, UnsupportedError
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder, arrays, ops
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


FEW = ("layer_norm", "per_channel")


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in ARRAY_NETWORKS]
)
def test_bits_and_cycles(name: str, tmp_path: Path) -> None:
    check(ARRAY_NETWORKS[name](), tmp_path)


@pytest.mark.skipif(timing._library() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ARRAY_NETWORKS)
@pytest.mark.parametrize("options", [{}, {"capacity_one": True, "source_frames": 1}])
def test_both_timing_models_agree(name: str, options: dict[str, int]) -> None:
    design = qfx.rtl.plan(ARRAY_NETWORKS[name]())
    frames = 1 if "source_frames" in options else 3
    python = timing.simulate(design, frames, python=True, **options)
    fast = timing.simulate(design, frames, **options)
    assert dataclasses.replace(python, states=()) == dataclasses.replace(fast, states=())
    assert python.status == timing.FINISHED


def test_a_constant_in_front_waits_for_its_frame(tmp_path: Path) -> None:
    """A class token: the output begins with channels that depend on nothing, and not before its frame."""
    n = Net((3, 4), FixedPoint(5, 2))
    first = constant(n, (2, 4), FixedPoint(5, 2))
    graph = n.build(n.add(ops.Concat(), first, constant(n, (1, 4), FixedPoint(5, 2)), n.x))
    design = check(graph, tmp_path)
    assert timing.simulate(design, 3).first_out > timing.simulate(design, 3).first_in


def test_a_frame_per_cycle_while_many_are_inside() -> None:
    """Branches that part and meet again hold a frame for each cycle that the long one takes."""
    n = Net((6,), FixedPoint(5, 2))
    e = function(n, n.x, "exp", FixedPoint(6, 2, False))
    share = n.cast(inverse_root(n, total(n, e, 0), 1, 4), 7, 6, False)
    graph = n.build(n.add(ops.Mul(), e, repeat(n, share, 6)))
    design = qfx.rtl.plan(graph, interval=1)
    assert design.interval == 1 < design.latency // 8
    assert set(timing.simulate(design, 80).intervals) == {1}


def test_what_does_not_depend_on_the_input_is_refused() -> None:
    builder = GraphBuilder()
    builder.add(ops.Input((3,), FixedPoint(4, 2)), path="input")
    x = builder.add(arrays.Constant(np.array([1, 2, 3]), FixedPoint(4, 2)), (), "table")
    graph = builder.build(builder.add(arrays.Repeat((2,)), [x], "table"))
    with pytest.raises(UnsupportedError, match="table.*does not depend on the input"):
        qfx.rtl.plan(graph)


def test_no_reorder_along_the_axis_that_streams_do_not_go_along() -> None:
    """Softmax of rows and the norm of features work in the order of the stream, whatever it is."""
    for name in ("softmax", "layer_norm"):
        assert "qfx_reorder" not in qfx.rtl.plan(ARRAY_NETWORKS[name]()).modules


def test_folds_by_hand() -> None:
    graph = ARRAY_NETWORKS["attention"]()
    products = [node.name for node in graph.nodes if node.op.kind == "matmul"]
    wish = {products[0]: {"pe": 5, "simd": 3}, products[1]: {"simd": 5}}
    layers = {layer.node: layer for layer in qfx.rtl.plan(graph, fold=wish).layers}
    assert (layers[products[0]].pe, layers[products[0]].simd) == (5, 3)
    assert (layers[products[1]].pe, layers[products[1]].simd) == (1, 5)
    with pytest.raises(QfxError, match="simd=2 must divide 3"):
        qfx.rtl.plan(graph, fold={products[0]: {"simd": 2}})


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
