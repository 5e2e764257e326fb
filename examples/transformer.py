"""A transformer block that reads handwritten digits row by row: trained, frozen, compared bit for bit.

python examples/transformer.py --epochs 8
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


class RowTransformer(nn.Module):
    """8 rows of 8 pixels are 8 tokens; one block of torch's own encoder, then the mean over the tokens."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        self.block = nn.TransformerEncoderLayer(
            width, nhead=2, dim_feedforward=32, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(self.embed(x) + self.position)
        return self.head(x.mean(1))


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
    model = RowTransformer()
    train(model, x[:cut], y[:cut], epochs, 3e-3, "float")

    config = qfx.Config(weight=qfx.FixedPoint(8), activation=qfx.FixedPoint(8), input=qfx.FixedPoint(8, 4))
    q = qfx.calibrate(qfx.prepare(model, x[:2], config), [x[:200]])
    train(q, x[:cut], y[:cut], max(1, epochs // 4), 5e-4, "8 bits")

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
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1797)
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.samples)
