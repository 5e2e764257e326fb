"""Softmax, normalisation of samples and attention, through the base test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import Config, FixedPoint
from tests.learn.base import CONFIGS, LayerTest


class Layer(LayerTest):
    """With fewer formats: these layers are long."""

    tolerance = 6e-3

    @pytest.fixture(params=["narrow", "channels", "truncated"])
    def config(self, request: pytest.FixtureRequest) -> Config:
        return CONFIGS[request.param]


class TestSoftmax(Layer):
    shape = (4, 5)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(5, 6), nn.Softmax(dim=-1), nn.Linear(6, 3), nn.Softmax(dim=1), nn.Flatten()
        )


class TestLayerNorm(Layer):
    shape = (4, 6)

    def model(self) -> nn.Module:
        norm, rms = nn.LayerNorm(6), nn.RMSNorm(6)
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5), norm.bias.normal_(std=0.2), rms.weight.uniform_(0.5, 1.5)
        return nn.Sequential(
            norm, nn.Linear(6, 6), nn.LayerNorm((4, 6), elementwise_affine=False), nn.Linear(6, 6), rms,
            nn.Flatten(), nn.LayerNorm(24, bias=False),
        )  # fmt: skip


class TestGroupNorm(Layer):
    shape = (4, 3, 3)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 6, 2), nn.GroupNorm(3, 6), nn.ReLU(), nn.InstanceNorm2d(6))


class TestSelfAttention(Layer):
    shape = (4, 6)

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.attention(x, x, x, need_weights=False)[0]

        return Model()


class TestCrossAttention(Layer):
    """Another width and length of keys and values, a mask, no biases."""

    shape = (6, 4)

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 1, batch_first=True, bias=False, kdim=3, vdim=3)
                self.register_buffer("mask", torch.rand(6, 5) < 0.3)
                self.mask[:, 0] = False

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = x[:, 1:, :3]
                out, _ = self.attention(x, y, y, attn_mask=self.mask)
                return out

        return Model()


class TestScaledDotProduct(Layer):
    shape = (2, 4, 3)

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 9)
                self.register_buffer("bias", torch.randn(4, 4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                q, k, v = self.fc(x).chunk(3, -1)
                a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                return a + F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias, scale=0.25)

        return Model()


class TestTransformer(Layer):
    shape = (4, 8)
    tolerance = 2e-2

    def model(self) -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu", norm_first=True)
        last = nn.TransformerEncoderLayer(8, 4, 8, batch_first=True)
        return nn.Sequential(nn.TransformerEncoder(layer, 1, nn.LayerNorm(8)), last)


@pytest.mark.parametrize("width", [6, 8, 12])
def test_softmax_is_as_exact_as_its_formats(width: int) -> None:
    """Against float: rounding of the result, and little more; every row has a sum near 1."""
    config = Config(activation=FixedPoint(width), input=FixedPoint(width, width - 4))
    x = torch.randn(500, 3, 16, generator=torch.Generator().manual_seed(0)) * 2
    q = qfx.calibrate(qfx.prepare(nn.Sequential(nn.Softmax(-1)), x[:2], config), [x])
    got = torch.from_numpy(qfx.freeze(q).run(x))
    on_grid = torch.from_numpy(np.asarray(FixedPoint(width, width - 4).quantize(x.double().numpy())))
    step = 2.0 ** -q.get_submodule("0.result.output").frac
    error = (got - on_grid.softmax(-1)).abs()
    # Half a step of the result; of exp (width + 4 bits, 1.0 its largest) for the element and for the sum of
    # 16; the relative error of the inverse.
    assert float(error.max()) <= step / 2 + 17 * 2.0 ** -(width + 4) + 1.3 * 2.0 ** -(width + 3)


def test_masked_places_get_nothing() -> None:
    x = torch.randn(50, 5, 4, generator=torch.Generator().manual_seed(0)) * 3

    class Causal(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(x, x, x, is_causal=True)

    q = qfx.calibrate(qfx.prepare(Causal(), x[:2]), [x])
    g = qfx.freeze(q)
    changed = x.clone()
    changed[:, 3:] += 1.5
    np.testing.assert_array_equal(g.run(x)[:, :3], g.run(changed)[:, :3])
    assert (g.run(x)[:, 3:] != g.run(changed)[:, 3:]).any()


def test_intermediate_formats_can_be_chosen() -> None:
    config = Config(overrides={"*.softmax.exp": {"activation": FixedPoint(5, 4, signed=False)}})
    x = torch.randn(8, 4, 6)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x)[0]

    q = qfx.calibrate(qfx.prepare(Model(), x, config), [x])
    (table,) = (n for n in qfx.freeze(q).nodes if n.op.kind == "table")
    assert table.tensor.format.width == 5 and table.path == "attention.softmax.exp"
