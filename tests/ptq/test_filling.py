"""Filling of ranges: the float network stays, clips leave the hardware, and the graph stays exact."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import ptq
from qfx.learn.clips import idle_clips
from qfx.nn.elementwise import QuantClip
from qfx.ptq import filling
from qfx.ptq.regions import regions, scale
from qfx.ptq.walk import changed
from tests.ptq.ptq_networks import float_result, network, same_bits


class Inverted(nn.Module):
    """A block of MobileNetV2 between two layers; input ``(batch, 3, 8, 8)``."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        act = activation
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), act())
        self.expand = nn.Sequential(nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12), act())
        depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(12), act())
        self.project = nn.Sequential(nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.project(self.depthwise(self.expand(x))))


def inverted(seed: int, activation: type[nn.Module] = nn.ReLU6) -> tuple[nn.Module, Any, torch.Tensor]:
    """The block, its BatchNorms with the statistics of the data and scales of very different size; batches,
    and other samples."""
    torch.manual_seed(seed)
    model = Inverted(activation)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.1, 3.0)
        nn.init.uniform_(norm.bias, -0.5, 1.0)
        norm.momentum = None
    x = torch.randn(40, 3, 8, 8)
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(x[:32])
    return model.eval(), list(x[:32].split(8)), x[32:]


def clips(q: Any) -> list[QuantClip]:
    return [m for _, m in q._qfx_items() if isinstance(m, QuantClip)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fmt", [qfx.FixedPoint(8), qfx.FixedPoint(4), qfx.Minifloat(3, 4)])
@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
def test_same_float_network_and_exact_graph(seed: int, fmt: Any, batch_norm: str) -> None:
    model, batches, x = inverted(seed)
    config = qfx.Config(weight=qfx.FixedPoint(6), activation=fmt, per_channel=True, batch_norm=batch_norm)
    q = qfx.prepare(model, x[:1], config)
    before = {name: value.clone() for name, value in q.state_dict().items()}
    filled = ptq.fill_ranges(q, batches, ptq.RangeFilling(deviations=3.0), progress=False)
    for name, value in q.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    wanted, found = float_result(q, x), float_result(filled, x)
    # Bounds of clips have 16 bits.
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    assert same_bits(filled, 3 * x)
    if isinstance(fmt, qfx.FixedPoint):
        # That of the stem is tied to the shortcut.
        stem, *inside = [n for n, (_, m) in enumerate(filled._qfx_items()) if isinstance(m, QuantClip)]
        assert len(inside) == 2 and {stem, *inside} >= idle_clips(filled) >= set(inside)
        graph = qfx.freeze(filled)
        assert len([n for n in graph.nodes if n.op.kind == "clip"]) == 3 - len(idle_clips(filled))
        if batch_norm == "fold":
            assert not [n for n in graph.nodes if n.op.kind == "affine"]


def test_less_error_than_powers_of_two_alone() -> None:
    """Over several networks, with all else the same."""
    gains = []
    methods = (ptq.RangeSearch(samples=32), ptq.RangeFilling(samples=32))
    for seed in range(12):
        model, batches, x = inverted(10 + seed)
        config = qfx.Config(
            weight=qfx.FixedPoint(12), activation=qfx.FixedPoint(8), per_channel=True, output="exact"
        )
        with torch.no_grad():
            wanted = model(x)
            errors = [
                float((ptq.quantize(model, batches, config, [m], progress=False)(x) - wanted).square().sum())
                for m in methods
            ]
        gains.append(np.log10(errors[0] / errors[1]) * 10)
    assert np.mean(gains) > 0.5, gains


def test_relu_without_a_bound() -> None:
    model, batches, x = inverted(1, nn.ReLU)
    q = qfx.prepare(model, x[:1], qfx.Config(per_channel=True))
    filled = ptq.fill_ranges(q, batches, progress=False)
    wanted = float_result(q, x)
    torch.testing.assert_close(
        float_result(filled, x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())
    )
    assert same_bits(filled, x)
    changed_weights = [n for n, v in q.state_dict().items() if not v.equal(filled.state_dict()[n])]
    assert "expand.0.weight" in changed_weights and "depthwise.0.weight" in changed_weights


@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_networks_with_little_to_scale(name: str) -> None:
    model, batches, x = network(name)
    q = qfx.prepare(model, x[:1], qfx.Config())
    filled = ptq.fill_ranges(q, batches, progress=False)
    wanted = float_result(q, x)
    torch.testing.assert_close(
        float_result(filled, x), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())
    )
    assert same_bits(filled, x)


def test_common_part_against_trying_everything() -> None:
    """Every fraction of a bit, every position of every tensor."""
    random = np.random.default_rng(0)
    positions = range(-filling._BELOW, filling._ABOVE + 1)
    for _ in range(50):
        curves = {n: random.random(len(positions)).tolist() for n in random.permutation(9)[:3].tolist()}
        part, places = filling.common_part(curves)
        best = min(
            sum(curve[k + filling._BELOW] for curve, k in zip(curves.values(), found, strict=True))
            for found in itertools.product(positions, repeat=3)
            if len({k % filling._STEPS for k in found}) == 1
        )
        assert sum(curve[places[n] + filling._BELOW] for n, curve in curves.items()) == pytest.approx(best)
        assert {k % filling._STEPS for k in places.values()} == {part * filling._STEPS}


def test_reach_is_that_of_the_batch_norm() -> None:
    model, _, x = inverted(0)
    q = qfx.prepare(model, x[:1], qfx.Config())
    (region,) = [r for r in regions(q, x[:1], "scaled") if r.sources == [q.get_submodule("expand.0")]]
    norm = model.expand[1]
    mean, deviation = norm.bias.detach().double(), norm.weight.detach().double().abs()
    wanted = torch.minimum((mean + 2.0 * deviation).clamp(min=0), torch.tensor(6.0 / filling._MARGIN))
    torch.testing.assert_close(filling.reach(region, 2.0, True), wanted.double())
    # Scaled layers know their statistics still.
    factors = torch.linspace(0.5, 4.0, 12, dtype=torch.float64)
    scale(region, 1.0 / factors)
    torch.testing.assert_close(filling.reach(region, 2.0, True), wanted.double() * factors, rtol=1e-4, atol=0)


@pytest.mark.parametrize("overflow", ["WRAP", "SAT_ZERO"])
def test_casts_that_do_not_saturate_are_left_alone(overflow: str) -> None:
    model, batches, x = inverted(0)
    config = qfx.Config(activation=qfx.FixedPoint(8, overflow=overflow))
    q = qfx.prepare(model, x[:1], config)
    filled = ptq.fill_ranges(q, batches, progress=False)
    assert all(clip.highs is None for clip in clips(filled))
    assert not idle_clips(filled)
    assert same_bits(filled, x)


@pytest.mark.parametrize("kind", ["conv", "conv1d", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_per_channel_are_exact(kind: str, seed: int) -> None:
    """Whatever the factors: also where the cast behind reaches beyond some bounds."""
    torch.manual_seed(seed)
    layers, shape = {
        "conv": ([nn.Conv2d(3, 7, 3), nn.ReLU6(), nn.Conv2d(7, 4, 2)], (3, 6, 6)),
        "conv1d": ([nn.Conv1d(3, 7, 3), nn.ReLU6(), nn.Conv1d(7, 4, 2)], (3, 9)),
        "linear": ([nn.Linear(5, 7), nn.ReLU6(), nn.Linear(7, 4)], (5,)),
    }[kind]
    model = nn.Sequential(*layers).eval()
    model[0].weight.data.mul_(5.0)
    x = 4 * torch.randn(50, *shape)
    q = qfx.calibrate(qfx.prepare(model, x[:1], qfx.Config()), [x])
    wanted = float_result(q, x)
    (region,) = regions(q, x[:1], "scaled")
    scale(region, torch.exp2(4 * torch.rand(7, dtype=torch.float64) - 2))
    changed(q)
    torch.testing.assert_close(float_result(q, x), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    qfx.calibrate(q, [x])
    assert not idle_clips(q)
    assert same_bits(q, x)
    # Bounds are in the state dict, and in a model that loads it.
    other = qfx.prepare(model, x[:1], qfx.Config())
    other.load_state_dict(q.state_dict())
    with torch.no_grad():
        assert other.eval()(x).equal(q.eval()(x))
    again = qfx.prepare(model, x[:1], qfx.Config())
    other.load_state_dict(qfx.calibrate(again, [x]).state_dict())
    assert clips(other)[0].highs is None


@pytest.mark.parametrize(
    ("fmt", "idle"),
    [
        (qfx.Minifloat(7, 9, bias=40), False),
        (qfx.Minifloat(7, 2, bias=130), True),
        (qfx.FixedPoint(52, 50), True),
    ],
)
def test_clips_in_front_of_very_wide_formats(fmt: Any, idle: bool) -> None:
    """Whose largest numbers are beyond int64, or are not in float64."""
    x = torch.linspace(-1, 20, 301).reshape(-1, 1)
    config = qfx.Config(
        weight=qfx.FixedPoint(2, 0), input=qfx.FixedPoint(8, 2), unsigned=False,
        overrides={"1": {"activation": fmt}},
    )  # fmt: skip
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6())
    nn.init.ones_(model[0].weight)
    q = qfx.prepare(model, x[:1], config)
    graph = qfx.freeze(q.eval())
    assert idle == (not [n for n in graph.nodes if n.op.kind == "clip"])
    with torch.no_grad():
        assert (graph.run(x.numpy()) == q(x).double().numpy()).all()


@pytest.mark.parametrize("rounding", ["RND_CONV", "TRN", "RND", "TRN_ZERO", "RND_INF"])
@pytest.mark.parametrize("overflow", ["SAT", "SAT_SYM", "SAT_ZERO", "WRAP"])
def test_a_clip_is_left_out_only_where_nothing_changes(rounding: str, overflow: str) -> None:
    """ReLU6 in front of casts whose largest numbers lie on both sides of 6; operands around all of these."""
    idle = {}
    x = torch.linspace(-1, 20, 4001).reshape(-1, 1)
    for frac in (2, 3, 4):
        for signed in (False, True):
            fmt = qfx.FixedPoint(5, frac, signed=signed, rounding=rounding, overflow=overflow)
            config = qfx.Config(
                weight=qfx.FixedPoint(2, 0),
                input=qfx.FixedPoint(14, 8),
                unsigned=False,
                overrides={"1": {"activation": fmt}},
            )
            model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6())
            nn.init.ones_(model[0].weight)
            q = qfx.prepare(model, x[:1], config)
            graph = qfx.freeze(q.eval())
            with torch.no_grad():
                assert (graph.run(x.numpy()) == q(x).double().numpy()).all()
            idle[frac, signed] = not [n for n in graph.nodes if n.op.kind == "clip"]
    saturates = overflow in ("SAT", "SAT_SYM")
    # ap_ufixed<5,3> ends at 7.75, ap_fixed<5,3> at 3.75.
    assert idle == {
        (2, False): False, (2, True): saturates, (3, False): saturates, (3, True): saturates,
        (4, False): saturates, (4, True): saturates,
    }  # fmt: skip
