"""A small CNN for handwritten digits: trained with 4 bits, frozen, compared bit for bit, written as Verilog.

python examples/cnn.py --epochs 12 --out build/cnn
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


def network() -> nn.Sequential:
    """Two convolutions with BatchNorm and one linear layer: input (batch, 1, 8, 8), output (batch, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, lr: float, what: str) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr)
    model.train()
    for _ in track(range(epochs), what):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()


def main(epochs: int, samples: int, out: str | None = None) -> dict[str, float]:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.reshape(-1, 1, 8, 8) / 16).float()[:samples]
    y = torch.from_numpy(labels)[:samples]
    cut = len(x) * 4 // 5
    model = network()
    train(model, x[:cut], y[:cut], epochs, 3e-3, "float")

    # Pixels have 17 levels: 5 bits without a sign hold them all. The output keeps 8 bits.
    config = qfx.Config(
        weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), input=qfx.FixedPoint(5, 4, signed=False),
        overrides={"8": {"activation": qfx.FixedPoint(8)}},
    )  # fmt: skip
    q = qfx.calibrate(qfx.prepare(model, x[:2], config), [x[:200]])
    train(q, x[:cut], y[:cut], max(1, epochs // 2), 1e-3, "4 bits")

    g = qfx.freeze(q)
    codes = g.run(x[cut:])
    with torch.no_grad():
        mismatches = int((q(x[cut:]).double().numpy() != codes).sum())
        accuracy = (model(x[cut:]).argmax(1) == y[cut:]).double().mean().item()
    frozen = float(np.mean(codes.argmax(1) == y[cut:].numpy()))
    print(f"float {accuracy:.3f}, 4 bits {frozen:.3f}, {mismatches} mismatches, {len(g.nodes)} operators")
    if out is not None:
        print(qfx.rtl.generate(g, out, board="ultra96v2").summary())
    return {"float": accuracy, "frozen": frozen, "mismatches": mismatches}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--samples", type=int, default=1797)
    parser.add_argument("--out", help="folder for the Verilog")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.samples, arguments.out)
