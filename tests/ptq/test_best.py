"""What is done when nothing is said."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

import qfx
from qfx import ptq
from qfx.sim import draw_torch
from tests.ptq.ptq_networks import network, same_bits

FORMATS = {
    "integer": (qfx.FixedPoint(6), qfx.FixedPoint(6)),
    "minifloat": (qfx.Minifloat(3, 2), qfx.Minifloat(3, 2)),
    "narrow weights": (qfx.Minifloat(2, 1), qfx.Minifloat(4, 3)),
    "K-hot": (qfx.KHot(6, k=2), qfx.FixedPoint(6)),
    "MXFP4": (qfx.MXFP4(), qfx.FixedPoint(8)),
    "K-hot activations": (qfx.FixedPoint(6), qfx.KHot(6, k=2)),
}


@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_the_graph_equals_torch(name: str, formats: str) -> None:
    model, batches, x = network(name)
    weight, activation = FORMATS[formats]
    config = qfx.Config(weight=weight, activation=activation, per_channel=formats != "MXFP4")
    assert same_bits(ptq.quantize(model, batches, config, progress=False), x)


def test_it_goes_by_the_formats() -> None:
    model, _, x = network("residual")
    found = {}
    for name, (weight, activation) in FORMATS.items():
        config = qfx.Config(weight=weight, activation=activation)
        found[name] = [type(m).__name__ for m in ptq.best(qfx.prepare(model, x[:1], config))]
    filled = ["Equalization", "RangeFilling", "FormatSearch", "LearnedRounding"]
    assert found["integer"] == found["K-hot"] == found["MXFP4"] == found["K-hot activations"] == filled
    assert found["minifloat"] == ["Equalization", "FormatSearch", *filled[1:]]
    assert found["narrow weights"] == ["Equalization", "FormatSearch", "RangeSearch", "LearnedRounding"]


@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_better_than_calibration(name: str) -> None:
    """On samples that were not seen, with 16 that were."""
    for weight, activation in list(FORMATS.values())[:3]:
        config = qfx.Config(weight=weight, activation=activation, output="exact", per_channel=True)
        decibels = []
        for methods in ("best", ["calibration"]):
            for seed in range(3):
                model, batches, x = network(name, seed)
                x = torch.randn(300, *x.shape[1:], generator=torch.Generator().manual_seed(seed))
                q = ptq.quantize(model, batches, config, methods, progress=False)
                with torch.no_grad():
                    wanted = model(x)
                    noise = float((q(x) - wanted).square().sum() / wanted.square().sum())
                decibels.append(-10 * math.log10(noise))
        assert sum(decibels[:3]) > sum(decibels[3:]), (weight, activation, decibels)


def test_never_worse_than_calibration_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the recipe fails, as it may with few bits, what remains is calibration."""
    model, batches, x = network("residual")
    config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), output="exact")
    plain = ptq.quantize(model, batches, config, ["calibration"], progress=False)
    good = ptq.quantize(model, batches, config, progress=False)
    # A recipe that fails: everything is clipped.
    worse = [ptq.Calibration("percentile", "percentile", percentile=20.0)]
    monkeypatch.setattr(sys.modules["qfx.ptq.quantize"], "best", lambda q: worse)
    fallen = ptq.quantize(model, batches, config, progress=False)
    with torch.no_grad():
        wanted = torch.cat([model(b) for b in batches])
        errors = [
            float((torch.cat([q(b) for b in batches]) - wanted).square().sum()) for q in (good, plain, fallen)
        ]
    assert errors[0] < errors[1] == errors[2]


def test_a_name_is_no_list() -> None:
    model, batches, _ = network("residual")
    with pytest.raises(qfx.QfxError, match=r"a list or \"best\", found 'gptq'"):
        ptq.quantize(model, batches, qfx.Config(), "gptq", progress=False)


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_drawn_networks(seed: int) -> None:
    """Random networks of every layer, in every number format."""
    rng = np.random.default_rng(seed)
    description = draw_torch.draw_module(rng, every_format=seed % 4 == 0, every_layer=True)
    torch.manual_seed(seed)
    shape, rows = description["input"], description.get("ids")
    data = torch.randint(0, rows, (24, *shape)) if rows else torch.randn(24, *shape) * 2
    config = draw_torch.config(description["config"])
    model = draw_torch.Drawn(description).eval()
    q = ptq.quantize(model, list(data[:16].split(8)), config, progress=False)
    assert same_bits(q, data[16:])
