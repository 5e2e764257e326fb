"""Moves, joins, look-ups, sums and products of tensors, through the base test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.learn.test_attention import Layer


class TestTokens(Layer):
    """Linear on (tokens, features), twice the same, and on three axes."""

    shape = (4, 6)

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3, bias=False)
                self.gain, self.shift = nn.Parameter(torch.rand(6)), nn.Parameter(torch.randn(4, 6) * 0.3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.a(F.relu(self.a(x))) * self.gain + self.shift
                y = self.b(x.reshape(-1, 2, 2, 6))
                return x + y.reshape(x.shape[0], 4, 3).mean(2, keepdim=True) - x.mean(1, keepdim=True)

        return Model()


class TestParts(Layer):
    shape = (4, 6)

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(6, 8)
                self.first = nn.Parameter(torch.randn(1, 1, 4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.fc(x)
                a, b = x.chunk(2, dim=-1)
                c, d, e = torch.split(x, [3, 4, 1], dim=2)
                y = torch.cat([self.first.expand(x.shape[0], -1, -1), a * b, d], dim=1)
                z = torch.stack([y[:, 0], y[:, -1], y.select(1, 2)], dim=2)
                u, v, w, _ = z.unbind(1)
                f = torch.cat([c, e.expand(-1, -1, 2), x[..., ::3]], 2)[:, 1:3].flatten(1)
                g = torch.max(x, 2)[0] + x.amax((1,)).narrow(1, 2, 4) - x.max(dim=1).values[:, :4]
                return torch.cat(
                    [u + v * w, f, g[:, None, :].squeeze(1), x.sum(1) + x.mean((1, 2), True)[:, 0]], 1
                )

        return Model()


class TestProducts(Layer):
    shape = (4, 6)
    tolerance = 6e-3

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.matrix = nn.Parameter(torch.randn(6, 4) * 0.4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = x @ self.matrix
                z = torch.matmul(y, y.transpose(1, 2)) / (1 + y.square().sum(2, keepdim=True))
                h = x.reshape(-1, 2, 4, 3)
                s = torch.matmul(h, h.transpose(2, 3)) * torch.ones(1, 4, 1)
                return (s + z[:, None]).amax(1) + 1 / (y.abs() + 0.5)

        return Model()


class TestUpsampling(Layer):
    shape = (4, 3, 2)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 8, 3, padding=1),
            nn.PixelShuffle(2), nn.Upsample(size=(24, 8), mode="nearest-exact"), nn.Conv2d(2, 2, 3, stride=3),
        )  # fmt: skip


class TestTransposedConvolution(Layer):
    shape = (4, 3, 4)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.ConvTranspose2d(6, 4, (2, 3), stride=(1, 3), groups=2, dilation=(2, 1), bias=False),
            nn.Flatten(2), nn.ConvTranspose1d(4, 2, 4, stride=2, padding=3),
        )  # fmt: skip


class TestEmbedding(Layer):
    shape = (5,)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Embedding(11, 6, padding_idx=0), nn.Linear(6, 3), nn.Flatten(), nn.Linear(15, 4)
        )

    def data(self, samples: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 11, (samples, *self.shape), generator=generator)

    def other_data(self) -> torch.Tensor:
        return self.data(4)


def test_pixel_shuffle_and_transposed_kernels_are_those_of_torch() -> None:
    """Wide formats hide small differences; integers do not."""
    import qfx

    x = torch.randint(-8, 8, (3, 8, 2, 3)).float()
    whole = qfx.FixedPoint(8, 0)
    config = qfx.Config(input=whole, activation=whole, weight=whole, output="exact")
    model = nn.PixelShuffle(2)
    torch.testing.assert_close(
        torch.from_numpy(qfx.freeze(qfx.prepare(nn.Sequential(model), x, config)).run(x)), model(x).double()
    )
    for groups in (1, 2, 4):
        layer = nn.ConvTranspose2d(8, 4, (3, 2), stride=2, padding=(2, 0), groups=groups, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.randint(-5, 5, layer.weight.shape).float())
        q = qfx.prepare(nn.Sequential(layer), x, config)
        torch.testing.assert_close(torch.from_numpy(qfx.freeze(q).run(x)), layer(x).double().detach())
