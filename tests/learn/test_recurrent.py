"""Recurrent layers unrolled in time, through the base test."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import UnsupportedError
from qfx.nn import Quantizer
from tests.learn.test_attention import Layer


class TestLSTM(Layer):
    """Two layers, both directions, the whole sequence and the last states."""

    shape = (3, 4)
    tolerance = 1e-2

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True)
                self.fc = nn.Linear(6, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y, (h, c) = self.lstm(x)
                return torch.cat([self.fc(y).flatten(1), h[-1], c[0]], 1)

        return Model()


class TestGRU(Layer):
    shape = (4, 3)
    tolerance = 1e-2

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gru = nn.GRU(3, 5, batch_first=True)
                self.fc = nn.Linear(5, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y, h = self.gru(x)
                return self.fc(y[:, -1]) + self.fc(h.squeeze(0))

        return Model()


class TestRNN(Layer):
    shape = (3, 2)

    def model(self) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.RNN(2, 4, batch_first=True, bias=False)
                self.b = nn.RNN(4, 2, batch_first=True, nonlinearity="relu")

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.b(self.a(x)[0], torch.zeros(1, x.shape[0], 2))[0]

        return Model()


def test_time_steps_share_weights_and_quantizers() -> None:
    """As many parameters for 3 steps as for 10."""
    counts, quantizers = [], []
    for steps in (3, 10):
        model = nn.LSTM(2, 3, batch_first=True)

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = model  # noqa: B023

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.lstm(x)[0]

        q = qfx.prepare(Model(), torch.zeros(2, steps, 2))
        counts.append(sum(p.numel() for p in q.parameters()))
        quantizers.append(sum(isinstance(m, Quantizer) for m in q.modules()))
    assert counts[0] == counts[1] and quantizers[0] == quantizers[1]


def test_what_is_refused() -> None:
    class Model(nn.Module):
        def __init__(self, layer: nn.Module, state: bool = False) -> None:
            super().__init__()
            self.layer, self.state = layer, state

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x, torch.ones(1, x.shape[0], 2))[0] if self.state else self.layer(x)[0]

    x = torch.zeros(2, 3, 4)
    with pytest.raises(UnsupportedError, match="batch_first=True"):
        qfx.prepare(Model(nn.GRU(4, 2)), x)
    with pytest.raises(UnsupportedError, match="proj_size"):
        qfx.prepare(Model(nn.LSTM(4, 3, proj_size=2, batch_first=True)), x)
    with pytest.raises(UnsupportedError, match="other than 0"):
        qfx.prepare(Model(nn.GRU(4, 2, batch_first=True), state=True), x)
