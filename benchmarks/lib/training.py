"""Quantize a trained network in many ways, each trained alike: one row per configuration.

Rows are independent, so they run in several processes of one thread each; a finished row is kept in the work
folder, and an interrupted run goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

import qfx
from qfx.demo import data as datasets
from qfx.demo import train as loop
from qfx.nn import Quantizer

CALIBRATION = 1024


@dataclass(frozen=True)
class Row:
    """A configuration to be trained.

    Attributes:
        name: in the table.
        network: name of the float network that it starts from.
        config: formats.
    """

    name: str
    network: str
    config: qfx.Config


@dataclass(frozen=True)
class Settings:
    """How every row is trained: passes over the data before and after quantization, learning rates, seed."""

    data: str = "fashion-mnist"
    float_epochs: int = 4
    learned_epochs: int = 4
    batch_size: int = 128
    float_rate: float = 4e-3
    learned_rate: float = 2e-3
    seed: int = 1


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def train_rows(
    make: Callable[[str], nn.Module], rows: Sequence[Row], settings: Settings, work: Path, jobs: int
) -> list[dict[str, Any]]:
    """Train every row and the float networks that they start from.

    Args:
        make: gives the float network of a name; must be importable by other processes.
        work: folder for what is finished.
        jobs: processes.

    Returns:
        one dictionary per row, in order: ``name``, ``network``, ``weight``, ``activation``, accuracies in
        percent ``float`` (trained for as many epochs in all), ``ptq`` (calibrated only), ``learned``;
        ``mismatches``: test images whose interpreter result differs from torch, of ``compared``.
    """
    work.mkdir(parents=True, exist_ok=True)
    networks = list(dict.fromkeys(row.network for row in rows))
    console = Console(stderr=True)
    columns = [TextColumn("{task.description:28}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console) as bar, ProcessPoolExecutor(jobs) as pool:
        for title, function, items in (
            ("float networks", _float, [(make, name, settings, work) for name in networks]),
            ("rows", _row, [(make, row, settings, work) for row in rows]),
        ):
            task = bar.add_task(title, total=len(items))
            futures = [pool.submit(function, *item) for item in items]
            for future in futures:
                future.add_done_callback(lambda _, t=task: bar.advance(t))
            results = [future.result() for future in futures]
    return results


def _float(make: Callable[[str], nn.Module], name: str, settings: Settings, work: Path) -> float:
    """Train a float network; one half time for the rows to start from, and to the end for comparison."""
    done = work / f"float-{_key(name, settings)}.pt"
    if not done.exists():
        torch.set_num_threads(1)
        arrays = load(settings.data)
        torch.manual_seed(settings.seed)
        model = make(name)
        loop.train(model, _adam(model.parameters(), settings.float_rate), arrays, settings.float_epochs,
                   settings.batch_size, settings.seed, _nothing)  # fmt: skip
        state = {key: value.clone() for key, value in model.state_dict().items()}
        start = loop.accuracy(model, *arrays[2:])
        loop.train(model, _adam(model.parameters(), settings.learned_rate), arrays, settings.learned_epochs,
                   settings.batch_size, settings.seed, _nothing)  # fmt: skip
        longer = loop.accuracy(model, *arrays[2:])
        part = done.with_suffix(f".{os.getpid()}.part")
        torch.save({"state": state, "start": start, "longer": longer}, part)
        part.replace(done)
    return float(torch.load(done, weights_only=True)["longer"])


def _row(make: Callable[[str], nn.Module], row: Row, settings: Settings, work: Path) -> dict[str, Any]:
    done = work / f"row-{_key(described(row), settings)}.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    torch.set_num_threads(1)
    arrays = load(settings.data)
    images, _, test_images, test_labels = arrays
    trained = torch.load(work / f"float-{_key(row.network, settings)}.pt", weights_only=True)
    model = make(row.network)
    model.load_state_dict(trained["state"])
    torch.manual_seed(settings.seed)
    q = qfx.prepare(model, torch.from_numpy(images[:2]), row.config)
    qfx.calibrate(q, list(torch.from_numpy(images[:CALIBRATION]).split(128)), progress=False)
    ptq = loop.accuracy(q, test_images, test_labels)
    optimizer = _adam(qfx.parameter_groups(q, lr=settings.learned_rate), settings.learned_rate)
    loop.train(q, optimizer, arrays, settings.learned_epochs, settings.batch_size, settings.seed, _nothing)
    q.eval()
    graph = qfx.freeze(q)
    wrong, differing = 0, 0
    for start in range(0, len(test_images), 500):
        x = test_images[start : start + 500]
        scores = graph.run(x)
        wrong += int((scores.argmax(1) != test_labels[start : start + 500]).sum())
        with torch.no_grad():
            differing += int((q(torch.from_numpy(x)).double().numpy() != scores).any(axis=1).sum())
    result = {
        "name": row.name,
        "network": row.network,
        "weight": str(row.config.weight),
        "activation": str(row.config.activation),
        "float": round(trained["longer"], 2),
        "float_start": round(trained["start"], 2),
        "ptq": round(ptq, 2),
        "learned": round(100 - 100 * wrong / len(test_images), 2),
        "compared": len(test_images),
        "mismatches": differing,
        "quantizers": sum(isinstance(m, Quantizer) for m in q.modules()),
    }
    part = done.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(result))
    part.replace(done)
    return result


def described(row: Row) -> str:
    """What tells a row from others, whatever options later versions of Config have."""
    names = (
        "weight",
        "activation",
        "input",
        "bias",
        "scale",
        "output",
        "per_channel",
        "batch_norm",
        "overrides",
    )
    parts = {name: str(getattr(row.config, name)) for name in names}
    return repr((row.name, row.network, parts))


def load(source: str) -> Arrays:
    """Training images and labels, test images and labels."""
    found = datasets.load(source)
    return found.train_images, found.train_labels, found.test_images, found.test_labels


def _adam(parameters: Any, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)


def _key(what: str, settings: Settings) -> str:
    return hashlib.sha256(f"{what} {settings} {torch.__version__}".encode()).hexdigest()[:20]


def _nothing() -> None:
    pass
