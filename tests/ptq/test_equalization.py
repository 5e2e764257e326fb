"""Equalization: the float network stays, ranges become equal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx import ptq
from qfx.ptq.regions import input_ranges, output_ranges, regions
from qfx.ptq.smooth import channel_ranges
from tests.ptq.ptq_networks import float_result, network


class Shortcut(nn.Module):
    """Three layers write to one sum, two read it, one of them behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(2, 5, 1), nn.Conv2d(5, 5, 1)
        self.d, self.e = nn.Linear(5 * 16, 3), nn.Conv2d(5, 3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x) + self.b(x))
        y = y + self.c(y)
        return self.d(y.flatten(1)) + self.e(y).flatten(1)


def prepared(name: str, **config: Any) -> tuple[Any, list[torch.Tensor], torch.Tensor]:
    if name == "shortcut":
        torch.manual_seed(1)
        model, x = Shortcut().eval(), torch.randn(12, 2, 4, 4)
        with torch.no_grad():
            for layer in (model.a, model.b, model.c):
                layer.weight.mul_(torch.exp2(torch.randint(-3, 4, (5, 1, 1, 1)).float()))
        return qfx.prepare(model, x[:1], qfx.Config(**config)), [x[:8]], x[8:]
    model, batches, x = network(name)
    return qfx.prepare(model, x[:1], qfx.Config(**config)), batches, x


@pytest.mark.parametrize("name", ["shortcut", "residual", "mlp"])
@pytest.mark.parametrize("batch_norm", ["fold", "keep"])
def test_cross_layer(name: str, batch_norm: str) -> None:
    q, batches, x = prepared(name, batch_norm=batch_norm)
    result = ptq.equalize(q, batches, ptq.Equalization(iterations=60))
    before, after = float_result(q, x), float_result(result, x)
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    found = regions(result, x[:1])
    assert found
    for region in found:
        torch.testing.assert_close(output_ranges(region), input_ranges(region), rtol=1e-3, atol=0.0)
    spread = [(r.max() / r.min()).item() for r in map(output_ranges, regions(q, x[:1]))]
    assert max(spread) > 2


@pytest.mark.parametrize("name", ["shortcut", "residual", "mlp"])
def test_powers_of_two_keep_every_bit(name: str) -> None:
    q, batches, x = prepared(name)
    for result in (
        ptq.equalize(q, batches, ptq.Equalization(powers_of_two=True)),
        ptq.equalize_activations(q, batches, ptq.ActivationEqualization(alpha=1.0)),
    ):
        assert any(not torch.equal(a, b) for a, b in zip(q.parameters(), result.parameters(), strict=True)), (
            "nothing was moved"
        )
        assert torch.equal(float_result(q, x), float_result(result, x))
        for region in regions(result, x[:1]):
            assert region.sources and region.sinks


def test_regions_of_a_shortcut() -> None:
    q, _, x = prepared("shortcut")
    (region,) = regions(q, x[:1])
    assert region.channels == 5
    assert [type(s).__name__ for s in region.sources] == ["QuantConv"] * 3
    assert [repeat for _, repeat in region.sinks] == [1, 16, 1]


def test_what_stands_in_the_way() -> None:
    """A clip, a binary point that was given, the network's input and output, a layer that is called twice."""
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    x = torch.randn(8, 4)

    def count(model: nn.Module, **config: Any) -> int:
        return len(regions(qfx.prepare(model.eval(), x[:1], qfx.Config(**config)), x[:1]))

    assert count(nn.Sequential(first, nn.ReLU(), second)) == 1
    assert count(nn.Sequential(first, nn.ReLU6(), second)) == 0
    assert count(nn.Sequential(first, nn.Sigmoid(), second)) == 0
    assert count(nn.Sequential(first, nn.ReLU(), first)) == 0
    assert count(nn.Sequential(first, nn.ReLU())) == 0
    assert count(nn.Sequential(first, nn.ReLU(), second), activation=qfx.FixedPoint(8, 4)) == 0
    assert count(nn.Sequential(first, nn.ReLU(), second), weight=qfx.FixedPoint(8, 4)) == 0
    q = qfx.prepare(nn.Sequential(first, nn.ReLU6(), second), x[:1])
    result = ptq.equalize(q, [x], ptq.Equalization(replace_relu6=True))
    assert len(regions(result, x[:1])) == 1
    small = x * 1e-2  # nothing reaches 6
    torch.testing.assert_close(float_result(q, small), float_result(result, small))


@pytest.mark.parametrize("name", ["shortcut", "residual"])
def test_activations_use_one_range(name: str) -> None:
    """At ``alpha=1`` the channels of a region differ by less than a factor of two: what powers of two can
    do."""
    q, batches, _ = prepared(name)
    before, after = (
        channel_ranges(m, batches)
        for m in (q, ptq.equalize_activations(q, batches, ptq.ActivationEqualization(alpha=1.0)))
    )
    widest = 0.0
    for region in regions(q, batches[0][:1]):
        for ranges, limit in ((before, None), (after, 2.0)):
            largest = torch.stack(
                [ranges[n].reshape(region.channels, -1).amax(1) for n in region.tensors]
            ).amax(0)
            largest = largest[largest > 0]
            spread = float(largest.max() / largest.min())
            if limit is None:
                widest = max(widest, spread)
            else:
                assert spread <= limit
    assert widest > 3.0


def test_smoothquant_by_its_formula() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    x = torch.randn(50, 3)
    q = qfx.prepare(model, x[:1])
    result = ptq.equalize_activations(q, [x], ptq.ActivationEqualization(alpha=0.5, powers_of_two=False))
    hidden = model[:2](x).detach()
    raw = model[0](x).detach().abs().amax(0)  # what is cast behind the layer includes what ReLU will cut
    largest = torch.maximum(hidden.abs().amax(0), raw)
    s = largest.sqrt() / model[2].weight.detach().abs().amax(0).sqrt()
    s = s / s.log2().mean().exp2()
    torch.testing.assert_close(result.get_submodule("2").weight.detach(), model[2].weight.detach() * s)
    torch.testing.assert_close(
        result.get_submodule("0").weight.detach(), model[0].weight.detach() / s[:, None]
    )
