"""An LSTM that reads handwritten digits row by row: trained, frozen, compared bit for bit.

python examples/lstm.py --epochs 8
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from sklearn.datasets import load_digits
from torch import nn

import qfx


class RowLSTM(nn.Module):
    """One row of 8 pixels per time step; the last state decides."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, _ = self.lstm(x)
        return self.head(rows[:, -1])


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, lr: float, what: str) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in track(range(epochs), what):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()


def main(epochs: int, samples: int) -> dict[str, float]:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.reshape(-1, 8, 8) / 16).float()[:samples]
    y = torch.from_numpy(labels)[:samples]
    cut = len(x) * 4 // 5
    model = RowLSTM()
    train(model, x[:cut], y[:cut], epochs, 1e-2, "float")

    # The time steps share their formats; the cell keeps more bits than the other signals.
    config = qfx.Config(
        weight=qfx.FixedPoint(8), activation=qfx.FixedPoint(8), input=qfx.FixedPoint(8, 4),
        overrides={"lstm.l0.cell": {"activation": qfx.FixedPoint(12)}},
    )  # fmt: skip
    q = qfx.calibrate(qfx.prepare(model, x[:2], config), [x[:200]])
    train(q, x[:cut], y[:cut], max(1, epochs // 8), 1e-3, "8 bits")

    g = qfx.freeze(q)
    out = g.run(x[cut:])
    with torch.no_grad():
        mismatches = int((q(x[cut:]).double().numpy() != out).sum())
        accuracy = (model.eval()(x[cut:]).argmax(1) == y[cut:]).double().mean().item()
    frozen = float(np.mean(out.argmax(1) == y[cut:].numpy()))
    print(f"float {accuracy:.3f}, 8 bits {frozen:.3f}, {mismatches} mismatches, {len(g.nodes)} operators")
    return {"float": accuracy, "frozen": frozen, "mismatches": mismatches}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--samples", type=int, default=1797)
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.samples)
