"""`qfx.verify`: what it reports of equal and of different implementations, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import qfx
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.verification import Difference, Report


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3, padding=1)
        self.head = torch.nn.Linear(3 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(torch.relu(self.conv(x)), 1))


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    config = qfx.Config(weight=FixedPoint(5), activation=FixedPoint(6), input=FixedPoint(6, 3))
    q = qfx.prepare(Small().eval(), torch.zeros(1, 2, 4, 4), config)
    return qfx.freeze(qfx.calibrate(q, [torch.randn(32, 2, 4, 4)], progress=False))


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (20, 2, 4, 4))


def test_equal_implementations(graph: Graph, x: np.ndarray) -> None:
    report = qfx.verify(graph, x, ("torch", "rtl"), tap=True, limits={"rtl": 5})
    assert report.ok and list(report) == ["torch", "rtl"]
    assert [report[name].samples for name in report] == [20, 5]
    assert all(
        comparison.first_difference is None and comparison.first_layer is None
        for comparison in report.values()
    )
    assert report["torch"].layers >= 4 and report["rtl"].layers >= 4
    facts = report["rtl"].details
    assert facts["latency"] == facts["latency_predicted"] and facts["interval"] == facts["interval_predicted"]
    data = json.loads(json.dumps(report.to_dict()))
    assert data["rtl"]["mismatches"] == 0 and data["torch"]["samples"] == 20
    assert "torch  20 samples: equal" in str(report)


def test_a_changed_weight_is_placed_in_its_layer(graph: Graph, x: np.ndarray) -> None:
    model = graph.torch_model
    with torch.no_grad():
        model.conv.weight[1, 0, 1, 1] += 1.0
    model.eval()
    comparison = qfx.verify(graph, x, ("torch",))["torch"]
    assert comparison.mismatches > 10
    first = comparison.first_layer
    assert first is not None and first.path == "conv" and first.op == "conv" and first.channel == 1
    expected, found = graph.trace(x)[first.node], first.found
    assert first.expected == expected[(first.sample, *first.index)] != found
    # The output difference is the very first one, in the first sample that differs.
    output = comparison.first_difference
    assert output is not None and output.node == graph.output
    assert "conv (n" in str(first) and f"sample {first.sample}" in str(first)


def test_one_code_in_one_sample_is_found(graph: Graph, x: np.ndarray) -> None:
    class Off(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = graph.torch_model(x).double()
            y[7, 3] += 2.0 ** -graph.output_node.tensor.fracs[3]
            return y

    comparison = qfx.verify(graph, x, ("torch",), torch_model=Off())["torch"]
    assert comparison.mismatches == 1
    difference = comparison.first_difference
    assert difference is not None and (difference.sample, difference.index) == (7, (3,))
    assert difference.found == difference.expected + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.3])
def test_values_off_the_grid_are_differences(graph: Graph, x: np.ndarray, value: float) -> None:
    class Off(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = graph.torch_model(x).double()
            y[2, 0] = value
            return y

    comparison = qfx.verify(graph, x, ("torch",), torch_model=Off())["torch"]
    assert comparison.mismatches == 1
    assert comparison.first_difference is not None and comparison.first_difference.sample == 2


def test_float64_input_is_not_rounded_on_the_way(graph: Graph) -> None:
    # Just above a tie in float64, the tie itself in float32: RND_CONV then gives another code.
    x = np.full((1, 2, 4, 4), 0.0625 + 2.0**-40)
    name = graph.input_node.name
    assert (graph.trace(x)[name] == 1).all() and (graph.trace(x.astype(np.float32))[name] == 0).all()
    assert qfx.verify(graph, x, ("torch",), tap=True).ok


def test_refusals(graph: Graph, x: np.ndarray, tmp_path: Any) -> None:
    with pytest.raises(qfx.QfxError, match="supported: torch, hls, rtl"):
        qfx.verify(graph, x, ("verilog",))
    with pytest.raises(qfx.QfxError, match="supported: torch, hls, rtl"):
        qfx.verify(graph, x, ())
    with pytest.raises(qfx.QfxError, match=r"expected \(samples, 2, 4, 4\)"):
        qfx.verify(graph, x[0], ("torch",))
    with pytest.raises(qfx.QfxError, match="leaves nothing to compare"):
        qfx.verify(graph, x, ("rtl",), simulations=())
    graph.save(tmp_path / "g.qfx")
    loaded = qfx.load(tmp_path / "g.qfx")
    with pytest.raises(qfx.QfxError, match="does not know its torch model"):
        qfx.verify(loaded, x, ("torch",))
    assert qfx.verify(loaded, x, ("torch",), torch_model=graph.torch_model).ok


def test_outputs_wider_than_float64_are_refused_for_torch() -> None:
    builder = GraphBuilder()
    a = builder.add(ops.Input((1,), FixedPoint(28, 0)), path="x")
    graph = builder.build(builder.add(ops.Mul(), [a, a]))
    with pytest.raises(qfx.QfxError, match="end the network with a cast"):
        qfx.verify(graph, np.ones((1, 1)), ("torch",))


def test_the_report_prints_where_a_difference_begins() -> None:
    def comparisons() -> Iterator[tuple[str, Any]]:
        from qfx.verification import Comparison

        difference = Difference(3, (1, 0), 5, 4, "n2_act", "cast", "block.act")
        yield "hls", Comparison(8, 2, difference, difference, 4)

    report = Report(comparisons())
    assert not report.ok
    assert "2 differ" in str(report) and "block.act (n2_act, cast): sample 3, channel 1" in str(report)
