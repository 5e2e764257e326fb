"""The networks of two examples, small: a transformer block and an LSTM, from torch to Verilog."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import qfx
import qfx.hls
import qfx.rtl
import qfx.sim
from qfx.graph import Graph

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: Class of the example, width of the network, rows of a picture, what its text prescribes besides 8 bits.
#: Three rows are the first step of a recurrent layer, whose state is zero, one in the middle, and the last.
NETWORKS = {
    "transformer": ("RowTransformer", 8, 8, {}),
    "lstm": ("RowLSTM", 4, 3, {"lstm.l0.cell": {"activation": qfx.FixedPoint(12)}}),
}


def network(name: str) -> tuple[torch.nn.Module, Graph, torch.Tensor]:
    """Untrained weights, calibrated; the graph; inputs that it has not seen."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind, width, rows, overrides = NETWORKS[name]
    torch.manual_seed(3)
    x = torch.rand(40, rows, 8)
    eight = qfx.FixedPoint(8)
    config = qfx.Config(weight=eight, activation=eight, input=qfx.FixedPoint(8, 4), overrides=overrides)
    q = qfx.calibrate(qfx.prepare(getattr(module, kind)(width), x[:2], config), [x[:32]]).eval()
    return q, qfx.freeze(q), x[32:]


@pytest.mark.parametrize("name", ["transformer", pytest.param("lstm", marks=pytest.mark.slow)])
def test_torch_interpreter_and_verilog_agree(name: str, tmp_path: Path) -> None:
    q, graph, x = network(name)
    design = qfx.rtl.generate(graph, tmp_path / "rtl")
    result = qfx.sim.run(design, x.numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(q(x).double().numpy(), graph.run(x))
    np.testing.assert_array_equal(result.outputs, graph.run(x))
    assert (result.latency, result.interval) == (design.latency, design.interval)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("io", ["parallel", "stream"])
@pytest.mark.parametrize("name", NETWORKS)
def test_hls_agrees(name: str, io: str, tmp_path: Path) -> None:
    _, graph, x = network(name)
    project = qfx.hls.convert(graph, tmp_path / "hls", io=io).compile(optimize=0)
    np.testing.assert_array_equal(project.predict(x.numpy()), graph.run(x))
