"""Drawn torch modules: plain data that builds again, equal to their graph in every bit of every layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import qfx
from qfx import QfxError
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


def test_formats_that_cannot_be_had_are_replaced() -> None:
    description = {
        "input": [4],
        "seed": 1,
        "steps": [
            {"op": "linear", "inputs": [0], "in": 4, "out": 3, "bias": True, "how": "none"},
            {"op": "relu", "inputs": [1], "how": "none"},
            {"op": "linear", "inputs": [2], "in": 3, "out": 2, "bias": True, "how": "none"},
        ],
        "config": draw_torch._draw_config(np.random.default_rng(0), False),
    }
    formats = description["config"]["formats"]
    formats["activation"] = {"kind": "binary", "frac": None}
    formats["input"] = {
        "kind": "minifloat", "exponent_bits": 7, "mantissa_bits": 9, "bias": None, "signed": True,
        "specials": "none", "rounding": "RND_CONV", "overflow": "SAT",
    }  # fmt: skip
    with pytest.raises(QfxError, match="never negative"):
        draw_torch.prepare(description)
    draw_torch._amend(description, hardware=False)
    draw_torch.prepare(description)
    assert formats["activation"]["width"] == 4 and formats["input"]["width"] == 8
    # What can be had stays.
    formats["activation"], formats["input"]["width"] = {"kind": "khot", "width": 4, "frac": None, "k": 1}, 5
    before = json.dumps(formats)
    draw_torch._amend(description, hardware=True)
    assert json.dumps(formats) == before
    # A block of a whole sample: refused by hardware, where the sample has more than one place.
    block = {"kind": "block", "element": {"kind": "fixed", "width": 4, "frac": 2}, "size": None}
    for hardware, shape, size in ((False, [4, 5], None), (True, [4], None), (True, [4, 5], draw_torch.BLOCK)):
        formats["activation"] = block
        draw_torch._amend(description | {"input": shape}, hardware)
        assert formats["activation"] == {**block, "size": size}
    # An embedding makes places of the numbers it reads.
    formats["activation"] = block
    draw_torch._amend(description | {"input": [5], "ids": 7}, hardware=True)
    assert formats["activation"] == {**block, "size": draw_torch.BLOCK}
