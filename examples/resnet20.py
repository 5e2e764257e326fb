"""ResNet-20 for CIFAR-10 in 4 bits, shortcuts included; a run that is stopped goes on where it was.

python examples/resnet20.py --data cifar-10-batches-bin   (the "binary version" of the data set)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track

import qfx
from qfx.data import Cifar10
from qfx.models import resnet20


def read(folder: Path, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (samples, 3, 32, 32) in 0..1, exact in 8 bits, and labels."""
    data = Cifar10(folder, train)
    return torch.from_numpy(data.pixels).float() / 256, torch.from_numpy(data.labels)


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Random shifts by up to 4 pixels, and mirrored or not."""
    dy, dx = torch.randint(9, (2,)).tolist()
    x = F.pad(x, (4, 4, 4, 4))[:, :, dy : dy + 32, dx : dx + 32]
    return x.flip(3) if torch.rand(()) < 0.5 else x


def train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, lr: float, kept: Path):
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * -(-len(x) // 128))
    parts = {"optimizer": optimizer, "schedule": schedule}
    done = qfx.load_checkpoint(kept, model, parts)["epochs"] if kept.exists() else 0
    model.train()
    for epoch in range(done, epochs):
        for rows in track(torch.randperm(len(x)).split(128), f"{kept.stem}, epoch {epoch + 1} of {epochs}"):
            optimizer.zero_grad()
            F.cross_entropy(model(augmented(x[rows])), y[rows]).backward()
            optimizer.step()
            schedule.step()
        qfx.save_checkpoint(kept, model, parts, {"epochs": epoch + 1})
    model.eval()


def main(data: Path, out: Path, epochs: int) -> dict[str, float]:
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    (x, y), (test, labels) = read(data, True), read(data, False)
    model = resnet20()
    train(model, x, y, epochs, 0.1, out / "float.pt")
    four, pixel = qfx.FixedPoint(4), qfx.FixedPoint(8, 8, signed=False)
    config = qfx.Config(weight=four, activation=four, input=pixel, per_channel=True)
    q = qfx.calibrate(qfx.prepare(model, x[:2], config), [x[:256]])
    train(q, x, y, max(1, epochs // 4), 0.02, out / "4 bits.pt")
    g = qfx.freeze(q)
    g.save(out / "resnet20.qfx")
    codes = np.concatenate([g.run(part) for part in test.split(500)])
    with torch.no_grad():
        values = torch.cat([q(part) for part in test.split(500)]).double().numpy()
    frozen, mismatches = float(np.mean(codes.argmax(1) == labels.numpy())), int((values != codes).sum())
    print(f"4 bits {frozen:.4f}, {mismatches} mismatches")
    return {"frozen": frozen, "mismatches": mismatches}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/resnet20"))
    parser.add_argument("--epochs", type=int, default=100)
    main(**vars(parser.parse_args()))
