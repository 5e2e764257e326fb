"""Activations that wait and are pooled as codes."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import Net, inputs

import qfx.rtl
import qfx.sim
from qfx import FixedPoint
from qfx.formats import Format, KHot, Minifloat
from qfx.graph import Graph, ops
from qfx.rtl import estimate
from qfx.rtl.design import Kernel

W4 = FixedPoint(4, 3)
lowering = importlib.import_module("qfx.rtl.lower")  # the name in qfx.rtl may be the function


def network(fmt: Format, size: int = 8, channels: int = 4) -> Graph:
    """A residual block, then maxima that a matrix and a sum take."""
    n = Net((2, size, size), FixedPoint(6, 4), 7)
    x = n.format(n.conv(n.x, channels, (3, 3), W4, padding=1), fmt)
    y = n.format(n.conv(x, channels, (3, 3), W4, padding=1), fmt)
    z = n.format(n.add(ops.Add(), x, y), fmt)
    low = n.pool(z, "max", 3, 2, 1)
    inner = n.format(n.conv(low, channels, (1, 1), W4), fmt)
    both = n.format(n.add(ops.Sub(), low, inner), fmt)
    last = n.pool(both, "max", 2, 2)
    return n.build(last)


FORMATS = {"E4M3": Minifloat(4, 3), "unsigned": Minifloat(3, 2, signed=False), "powers": KHot(9, 4, 1)}


def held(design: qfx.rtl.Design) -> int:
    """Bits of FIFOs and windows."""
    memories = [k for k in design.kernels if k.module in ("qfx_fifo", "qfx_window")]
    return sum(k.number("DEPTH") * k.number("WIDTH") for k in memories)


def of(design: qfx.rtl.Design, module: str) -> list[Kernel]:
    return [k for k in design.kernels if k.module == module]


@pytest.mark.parametrize(
    "name", [n if n == "E4M3" else pytest.param(n, marks=pytest.mark.slow) for n in FORMATS]
)
def test_bits_and_cycles(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "CODES_FROM", 1)
    graph = network(FORMATS[name])
    design = qfx.rtl.generate(graph, tmp_path / "rtl", interval=2000)
    assert of(design, "qfx_decode_float") and of(design, "qfx_encode_minifloat")
    pools = of(design, "qfx_pool")
    signed = name != "unsigned"
    assert [k.number("MODE") for k in pools] == [2 if signed else 0] * 2
    x = inputs(graph, 4)
    trace = graph.trace(x)
    for stalls in (None, 0.4):
        result = qfx.sim.run(design, x, tap=stalls is None, stalls=stalls)
        np.testing.assert_array_equal(result.codes, trace[graph.output])
        for stream in result.streams:
            np.testing.assert_array_equal(stream.codes, trace[stream.node], err_msg=stream.name)
        if stalls is None:
            assert (result.latency, result.interval) == (design.latency, design.interval)


def test_less_memory_for_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(Minifloat(4, 3), 24, 16)
    design = qfx.rtl.plan(graph, interval=30000)
    monkeypatch.setattr(lowering, "CODES_FROM", float("inf"))
    wide = qfx.rtl.plan(graph, interval=30000)
    assert design.interval <= 30000 and wide.interval <= 30000
    assert not of(wide, "qfx_decode_float")
    assert held(design) < 0.75 * held(wide)
    assert estimate.total(design.kernels).bram18 <= estimate.total(wide.kernels).bram18
    # The FIFO of the skip connection holds codes; there is no second one behind the decoder.
    (skip,) = (f for f in design.fifos if f.name.endswith("_number_in_fifo") and f.number("DEPTH") > 100)
    (decoder,) = (k for k in design.kernels if k.inputs == skip.outputs)
    (join,) = (k for k in design.kernels if decoder.outputs[0] in k.inputs)
    assert (decoder.module, join.module) == ("qfx_decode_float", "qfx_binary")
    assert design.stream(skip.inputs[0]).width == 8


def test_what_does_not_pay_stays_integers() -> None:
    assert not of(qfx.rtl.plan(network(Minifloat(4, 3), 4, 2)), "qfx_decode_float")
    assert not of(qfx.rtl.plan(network(FixedPoint(8, 4), 16, 8)), "qfx_decode_float")
    assert not of(qfx.rtl.plan(network(KHot(6, 3, 2), 16, 8)), "qfx_decode_float")


def test_layers_are_named_and_folded_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(Minifloat(4, 3))
    names = [layer.node for layer in qfx.rtl.plan(graph).layers]
    monkeypatch.setattr(lowering, "CODES_FROM", 1)
    assert [layer.node for layer in qfx.rtl.plan(graph).layers] == names
    (pool,) = (node.name for node in graph.nodes if node.op.kind == "max_pool" and node.name != graph.output)
    design = qfx.rtl.plan(graph, fold={pool: {"pe": 2}})
    assert {layer.node: layer.pe for layer in design.layers}[pool] == 2
