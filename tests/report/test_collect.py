"""What is collected from graphs, designs, measurements and models, against counts made another way."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qfx
import qfx.learn
from qfx import report
from qfx.cost.result import Cost, InstanceCost
from qfx.errors import QfxError
from qfx.graph import GraphBuilder, ops
from qfx.report import charts
from qfx.verification import Comparison, Difference, Report
from tests.report.example import residual_network


class Small(nn.Module):
    """A convolution, a ReLU that is used twice, a residual addition, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(x + self.second(x))
        return self.fc(torch.flatten(x, 1))


@pytest.fixture(scope="module")
def prepared() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(50, 1, 6, 6)
    config = qfx.Config(
        weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), input=qfx.FixedPoint(5, 3),
        bias=qfx.FixedPoint(8), per_channel=True,
    )  # fmt: skip
    q = qfx.prepare(Small(), x[:1], config)
    qfx.calibrate(q, [x])
    return q, x


def test_layers_of_a_graph() -> None:
    graph = residual_network(1)
    rows = {row.path: row for row in report.collect_layers(graph)}
    stem = rows["features.stem.conv"]
    assert (stem.op, stem.shape, stem.detail) == ("conv", (8, 8, 8), "3×3, 1→8, pad 1")
    assert (stem.weights, stem.macs) == (1 * 9 * 8, 1 * 9 * 8 * 64)
    assert stem.accumulator == graph[stem.name].tensor.format.width
    assert stem.weight_format.startswith("s4 f4…") and stem.inputs == ("n0_input",)
    fc = rows["classifier"]
    assert (fc.detail, fc.weights, fc.macs) == ("128→10", 1280, 1280)
    cast = rows["features.block0.conv2.output"]
    assert (cast.format.short, cast.format.text) == ("s5 f3", "ap_fixed<5,2,RND_CONV,SAT>")
    assert (cast.format.low, cast.format.high, cast.format.step) == (-2.0, 1.875, 0.125)
    assert (cast.weights, cast.accumulator, cast.lut, cast.cycles) == (None, None, None, None)
    assert len(rows) == len(graph.nodes)


def test_details_of_all_operators() -> None:
    b = GraphBuilder()
    fmt = qfx.FixedPoint(4, 2)
    x = b.add(ops.Input((4, 6, 6), fmt), path="x")
    details = {}

    def add(op: ops.Op, *inputs: str) -> str:
        name = b.add(op, inputs, f"p{len(details)}")
        details[name] = type(op).__name__
        return name

    w = np.ones((4, 1, 3, 1), dtype=np.int64)
    y = add(ops.Conv(w, fmt, None, None, (1, 2), ((1, 0), (0, 0)), (2, 1), 4), x)
    y = add(ops.Clip(-1, 3, 1), y)
    y = add(ops.LeakyRelu(1, 3), y)
    one = np.ones(4, dtype=np.int64)
    y = add(ops.Affine(one, fmt, one, fmt), y)
    y = add(ops.AvgPool((2, 1), (1, 1), ((0, 0), (0, 0)), 1, 1), y)
    y = add(ops.Transpose((0, 2, 1)), y)
    y = add(ops.Add(), y, y)
    rows = {row.name: row for row in report.collect_layers(b.build(y))}
    found = {kind: (rows[name].detail, rows[name].macs) for name, kind in details.items()}
    assert found == {
        "Conv": ("3×1, 4→4, stride 1,2, pad 1,0,0,0, dilation 2,1, depthwise", 12 * 3 * 3),
        "Clip": ("−0.5…1.5", None),
        "LeakyRelu": ("slope 0.125", None),
        "Affine": ("", 4 * 3 * 3),
        "AvgPool": ("2×1, stride 1", None),
        "Transpose": ("axes 0, 2, 1", None),
        "Add": ("", None),
    }


def test_folds_and_costs_of_a_design(tmp_path: Path) -> None:
    graph = residual_network(1, size=4, channels=2)
    design = _design(graph, tmp_path)
    cells = [
        InstanceCost(k.name, k.module, lut=i + 1, lutram=0, ff=2, carry=3, dsp=1, bram=0.5)
        for i, k in enumerate(design.kernels)
    ]
    total = Cost("top", 10_000, 5, 3, 2, 1, 0.5, 0, 1, 0, 0, {}, "Yosys", "0.70", instances=tuple(cells))
    rows = {row.name: row for row in report.collect_layers(graph, design, total)}
    for layer in design.layers:
        row = rows[layer.node]
        assert (row.pe, row.simd, row.cycles) == (layer.pe, layer.simd, layer.steps)
        mine = [i + 1 for i, k in enumerate(design.kernels) if k.node == layer.node]
        assert row.lut == sum(mine) and row.ff == 2 * len(mine) and row.bram == 0.5 * len(mine)
    at_the_ends = sum(i + 1 for i, k in enumerate(design.kernels) if not k.node)
    everything = len(cells) * (len(cells) + 1) // 2
    assert sum(row.lut or 0 for row in rows.values()) + at_the_ends == everything
    assert report.collect_resources(total) == report.Resources(10_000, 3, 2, 1, 0.5, 5, None, "Yosys 0.70")


def _design(graph: Any, folder: Path) -> Any:
    return qfx.rtl.generate(graph, folder / "rtl", board="ultra96v2")


def test_a_design_without_measured_instances_has_no_costs(tmp_path: Path) -> None:
    graph = residual_network(1, size=4, channels=2)
    total = Cost("top", 1, 0, 0, 0, 0, 0.0, 0, 0, 0, 0, {}, "Yosys", "0.70")
    rows = report.collect_layers(graph, _design(graph, tmp_path), total)
    assert {row.lut for row in rows} == {None} and {row.cycles for row in rows} != {None}


def test_verifications() -> None:
    first = Difference(3, (1, 0, 0), 5, 6, "n4_x", "conv", "x")
    output = Difference(3, (0,), 1, 2, "n9_y", "linear", "y")
    found = report.collect_verification(
        Report(
            torch=Comparison(360, 0, layers=7, seconds={"build": 0.5, "run": 1.5}),
            rtl=Comparison(64, 2, output, first),
            hls=Comparison(9, 1, output),
        ),
        {"rtl": "Verilator"},
    )
    assert found[0] == report.Verification("torch", 360, 0, layers=7, seconds=2.0)
    assert (found[1].how, found[1].mismatches, found[1].seconds) == ("Verilator", 2, None)
    assert (
        found[1].first_difference
        == "x (n4_x, conv): sample 3, channel 1, index (1, 0, 0): code 6, expected 5"
    )
    assert found[2].first_difference.startswith("y (n9_y, linear)")


# -- models --------------------------------------------------------------------------------------


def test_binary_points_before_and_after(prepared: tuple[Any, torch.Tensor]) -> None:
    q, _ = prepared
    points = {p.name: p for p in report.binary_points(q)}
    assert len(points) == len(qfx.learn.quantizers(q))
    roles = {(p.path, p.role) for p in points.values()}
    assert roles >= {("first", "weight"), ("second", "bias"), ("fc", "weight"), ("fc", "activation")}
    assert sum(p.role == "input" for p in points.values()) == 1
    activations = [p.path for p in points.values() if p.role == "activation"]
    assert len(activations) == len(set(activations)), "a ReLU that is called twice has two labels"
    quantizers = qfx.learn.quantizers(q)
    for name, p in points.items():
        frac = quantizers[name].format.frac
        assert p.learned == p.calibrated == (frac if isinstance(frac, tuple) else (frac,))
        assert p.frozen == quantizers[name].frozen and p.bits == quantizers[name].fmt.width
    weight = next(p for p in points.values() if (p.path, p.role) == ("first", "weight"))
    assert len(weight.learned) == 4


def test_training_moves_the_learned_end_only(prepared: tuple[Any, torch.Tensor]) -> None:
    q = copy.deepcopy(prepared[0])
    before = report.binary_points(q)
    (name,) = (p.name for p in before if (p.path, p.role) == ("fc", "activation"))
    quantizer = qfx.learn.quantizers(q)[name]
    (start,) = next(p.calibrated for p in before if p.name == name)
    with torch.no_grad():
        quantizer.shift += 2 / 8
    moved = next(p for p in report.binary_points(q) if p.name == name)
    assert (moved.calibrated, moved.learned) == ((start,), (start + 2,))
    qfx.learn.freeze_points(q)  # forgets where it started
    after = next(p for p in report.binary_points(q, before) if p.name == name)
    assert (after.calibrated, after.learned, after.frozen) == ((start,), (start + 2,), False)


def test_histograms_count_the_codes_that_the_graph_has(prepared: tuple[Any, torch.Tensor]) -> None:
    q, x = prepared
    training = q.training
    found = {h.name: h for h in report.collect_histograms(q, x)}
    assert q.training == training
    assert not any(m._forward_pre_hooks for m in q.modules())
    assert set(found) == set(qfx.learn.quantizers(q))
    graph = qfx.freeze(q)
    trace = graph.trace(x)
    compared = 0
    for node in graph.nodes:
        target = graph.torch_taps[node.name]
        if isinstance(node.op, ops.Cast | ops.Input):
            expected = trace[node.name]
            fmt = node.op.format
        elif isinstance(node.op, ops.Weighted):
            target, expected, fmt = f"{target}.weight_quantizer", node.op.weight, node.op.weight_format
        else:
            continue
        h = found[target]
        counts = np.bincount((expected - fmt.code_min).reshape(-1), minlength=len(h.codes))
        assert h.codes == tuple(counts) or fmt.width > 6
        assert (h.samples, h.used) == (expected.size, len(np.unique(expected)))
        compared += 1
    assert compared == 1 + 3 + 4


def test_only_prepared_models_are_taken() -> None:
    with pytest.raises(QfxError, match="expected what qfx.prepare returned, found Linear"):
        report.binary_points(nn.Linear(1, 1))


# -- histograms ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 10),
    frac=st.integers(-6, 12),
    signed=st.booleans(),
    scale=st.integers(-12, 12),
    seed=st.integers(0, 1000),
    grid=st.integers(0, 9),
)
def test_a_histogram_loses_no_value(
    width: int, frac: int, signed: bool, scale: int, seed: int, grid: int
) -> None:
    fmt = qfx.FixedPoint(width, frac, signed)
    x = np.random.default_rng(seed).normal(0, 2.0**scale, 300)
    if grid:
        x = np.round(x * 2.0**grid) / 2.0**grid
    h = report.histogram(x, fmt, name="x")
    assert sum(h.counts) + h.below + h.above + h.zeros == h.samples == 300
    assert h.low <= fmt.min - h.format.step / 2 and h.high >= fmt.max + h.format.step / 2
    step = 2.0**-frac
    quantized = fmt.quantize(x)
    clipped = [v for v in x if v > fmt.max + step / 2 or v < fmt.min - step / 2]
    assert h.clipped == len(clipped)
    assert h.vanished == sum(1 for v, w in zip(x, quantized, strict=True) if v != 0 and w == 0)
    assert h.used == len(set(quantized)) and h.available == 2**width
    if h.codes:
        assert len(h.codes) == 2**width and sum(h.codes) == 300
        assert h.codes[0 - h.code_low] == sum(quantized == 0)
    assert len(h.counts) <= 48 + 2
    edges = h.low + (h.high - h.low) * np.arange(len(h.counts) + 1) / len(h.counts)
    for n, a, b in zip(h.counts[:-1], edges[:-2], edges[1:-1], strict=True):
        assert n == sum(1 for v in x if a <= v < b and v != 0)
    svg = charts.histogram(h)
    assert "nan" not in str(svg)


def test_bins_are_not_finer_than_the_grid_of_the_values() -> None:
    x = np.arange(-400, 400) / 64
    h = report.histogram(x, qfx.FixedPoint(4, 1), 200, name="x")
    inside = [c for c in h.counts if c]
    assert max(inside) <= 2 * min(inside), "every bin holds about as many grid points: no comb"


def test_sqnr_in_decibel() -> None:
    x = np.array([1.0, 0.75, -0.5])
    h = report.histogram(x, qfx.FixedPoint(4, 1), name="x")  # 0.75 becomes 1.0 (ties to even)
    assert h.sqnr_db == pytest.approx(10 * np.log10((1 + 0.5625 + 0.25) / 0.0625))
    assert report.histogram(np.array([1.0, 0.5]), qfx.FixedPoint(4, 1), name="x").sqnr_db is None


def test_per_channel_values_are_counted_in_steps_of_their_channel() -> None:
    fmt = qfx.FixedPoint(4, (0, 10))
    x = np.array([[1.0, -3.0, 9.0], [2.0**-10, -3 * 2.0**-10, 9 * 2.0**-10]])
    h = report.histogram(x, fmt, name="w")
    assert (h.unit, h.range_low, h.range_high, h.clipped) == ("code", -8.0, 7.0, 2)
    assert {h.code_low + i: n for i, n in enumerate(h.codes) if n} == {1: 2, -3: 2, 7: 2}
    assert h.format.short == "s4 f0…10" and h.format.per_channel


def test_the_format_of_minifloats() -> None:
    fmt = report.format_of(qfx.Minifloat(2, 1))
    assert (fmt.short, fmt.bits, fmt.low, fmt.high, fmt.step) == ("E2M1", 4, -6.0, 6.0, 0.5)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_that_cannot_be_drawn_are_refused(values: list[float]) -> None:
    with pytest.raises(QfxError, match="histogram of layer: expected finite numbers"):
        report.histogram(np.array(values), qfx.FixedPoint(4, 1), name="layer")


def test_formats_say_minus() -> None:
    assert report.format_of(qfx.FixedPoint(8, -2, signed=False)).short == "u8 f−2"
    assert replace(report.format_of(qfx.FixedPoint(8, 2)), text="") == report.Format(
        "", "s8 f2", 8, -32.0, 31.75, 0.25
    )
