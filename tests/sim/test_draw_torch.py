"""Drawn torch modules: plain data that builds again, equal to their graph in every bit of every layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import qfx
from qfx.sim import draw_torch
from qfx.sim.draw import draw_input


@pytest.mark.parametrize("index", range(8))
def test_torch_equals_the_graph_layer_by_layer(index: int) -> None:
    rng = np.random.default_rng([11, index])
    model = draw_torch.train(draw_torch.draw_module(rng))
    graph = qfx.freeze(model)
    report = qfx.verify(graph, draw_input(rng, graph, 32), ("torch",), tap=True)
    assert report.ok, str(report)
    assert report["torch"].layers >= len(graph.nodes) // 2


def test_a_description_survives_json_and_rebuilds_the_model() -> None:
    description = draw_torch.draw_module(np.random.default_rng([11, 100]))
    again = json.loads(json.dumps(description))
    assert again == description
    model, rebuilt = draw_torch.train(description), draw_torch.prepare(again)
    rebuilt.load_state_dict(model.state_dict())
    x = torch.randn(4, *description["input"])
    assert torch.equal(model.eval()(x), rebuilt.eval()(x))


def test_every_spelling_is_drawn() -> None:
    steps = [
        step
        for index in range(60)
        for step in draw_torch.draw_module(np.random.default_rng([12, index]))["steps"]
    ]
    found = {step["op"] for step in steps}
    assert found >= {
        "linear", "conv", "batch_norm", "relu", "relu6", "hardtanh", "leaky_relu", "add", "sub", "mul",
        "add_constant", "mul_constant", "concat", "max_pool", "avg_pool", "adaptive_pool", "mean", "flatten",
        "reshape", "permute", "dropout", "identity",
    }  # fmt: skip
    assert {step["how"] for step in steps if step["op"] == "add"} == {"none", "function", "method"}
