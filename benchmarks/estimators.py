"""Estimators of the gradient of rounding, compared on one task: 4-bit and 2-bit weights.

    python benchmarks/estimators.py [--json | --markdown] [--data fashion-mnist] [--seeds 3]

A small CNN is trained in float on a part of the training images; every estimator then starts from the same
network, calibrated alike, and trains it with the same batches in the same order. What is measured is the
frozen integer graph on all test images. All estimators cast alike in eval(), so "calibrated" is the same for
all.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import qfx
from qfx.demo import data as datasets
from qfx.demo import train as loop
from qfx.environment import machine, versions
from qfx.nn import ESTIMATORS

WEIGHT_BITS = (4, 2)
ACTIVATION_BITS = 4
FLOAT_EPOCHS = 4
EPOCHS = 4
BATCH = 64
FLOAT_RATE = 4e-3
RATE = 2e-3
CALIBRATION = 512


class Network(nn.Module):
    """Two strided convolutions and a linear layer: input ``(batch, 1, size, size)``, output
    ``(batch, 10)``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * (-(-size // 4)) ** 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.flatten(x, 1))


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def measure(source: str, images: int, seeds: int) -> list[dict[str, Any]]:
    """One row per number of weight bits and estimator; accuracies in percent, one per seed."""
    found = datasets.load(source)
    data: Arrays = (
        found.train_images[:images], found.train_labels[:images], found.test_images, found.test_labels,
    )  # fmt: skip
    rows = [
        {"weight_bits": bits, "estimator": name, "float": [], "calibrated": [], "learned": []}
        for bits in WEIGHT_BITS
        for name in ESTIMATORS
    ]
    work = [(seed, row) for seed in range(seeds) for row in rows]
    start: dict[int, tuple[nn.Module, float]] = {}
    for seed, row in track(work, console=Console(stderr=True), description="training"):
        if seed not in start:
            start[seed] = _float(data, seed)
        model, accuracy = start[seed]
        calibrated, learned = _learned(model, data, seed, row["weight_bits"], row["estimator"])
        row["float"].append(accuracy)
        row["calibrated"].append(calibrated)
        row["learned"].append(learned)
    return rows


def _float(data: Arrays, seed: int) -> tuple[nn.Module, float]:
    torch.manual_seed(seed)
    model = Network(data[0].shape[-1])
    optimizer = torch.optim.AdamW(model.parameters(), FLOAT_RATE, weight_decay=1e-4)
    curve = loop.train(model, optimizer, data, FLOAT_EPOCHS, BATCH, seed, _nothing)
    return model, round(curve[-1].test_accuracy, 2)


def _learned(model: nn.Module, data: Arrays, seed: int, bits: int, estimator: str) -> tuple[float, float]:
    images, _, test_images, test_labels = data
    config = qfx.Config(
        weight=qfx.FixedPoint(bits),
        activation=qfx.FixedPoint(ACTIVATION_BITS),
        input=qfx.FixedPoint(8, 8, signed=False),
        estimator=estimator,
    )
    q = qfx.prepare(model, torch.from_numpy(images[:2]), config)
    qfx.calibrate(q, list(torch.from_numpy(images[:CALIBRATION]).split(128)), progress=False)
    calibrated = loop.accuracy(q, test_images, test_labels)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(qfx.parameter_groups(q, lr=RATE), RATE, weight_decay=1e-4)
    loop.train(q, optimizer, data, EPOCHS, BATCH, seed + 1000, _nothing)
    graph = qfx.freeze(q)
    right = 0
    for start in range(0, len(test_images), 500):
        part = slice(start, start + 500)
        right += int((graph.run(test_images[part]).argmax(1) == test_labels[part]).sum())
    return round(calibrated, 2), round(100 * right / len(test_images), 2)


def _nothing() -> None:
    pass


def _cells(row: dict[str, Any]) -> list[str]:
    def mean(name: str) -> str:
        return f"{statistics.fmean(row[name]):.2f}"

    low, high = min(row["learned"]), max(row["learned"])
    return [
        str(row["weight_bits"]), f"`{row['estimator']}`", mean("float"), mean("calibrated"), mean("learned"),
        f"{low:.2f} to {high:.2f}",
    ]  # fmt: skip


HEAD = ["weight bits", "estimator", "float", "calibrated", "learned", "learned, over seeds"]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as the table of docs/estimators.md."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/estimators.md")
    parser.add_argument("--data", default="fashion-mnist", help="or 'digits', or a folder of idx files")
    parser.add_argument("--images", type=int, default=8000, help="training images")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = measure(arguments.data, arguments.images, arguments.seeds)
    if arguments.markdown:
        print(markdown(rows))
    elif arguments.json:
        document = {
            "benchmark": "estimators",
            "settings": {
                "data": arguments.data, "images": arguments.images, "seeds": arguments.seeds,
                "activation_bits": ACTIVATION_BITS, "float_epochs": FLOAT_EPOCHS, "epochs": EPOCHS,
                "batch": BATCH, "float_rate": FLOAT_RATE, "rate": RATE,
            },
            "rows": rows,
            "versions": versions(),
            "machine": machine(),
        }  # fmt: skip
        print(json.dumps(document, indent=1))
    else:
        table = Table(*HEAD)
        for row in rows:
            table.add_row(*(cell.strip("`") for cell in _cells(row)))
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
