"""A plain training loop: what a user's own script would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Progress = Callable[[], None]


@dataclass(frozen=True)
class Epoch:
    """One line of a training curve; accuracies in percent."""

    epoch: int
    loss: float
    test_accuracy: float


def batches(
    images: np.ndarray, labels: np.ndarray, size: int, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One shuffled pass over the data."""
    order = torch.randperm(len(images), generator=generator)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for part in order.split(size):
        if len(part) > 1:
            yield x[part], y[part]


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray, size: int = 500) -> float:
    """Percent of images classified right in ``eval()``."""
    model.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(images), size):
            scores = model(torch.from_numpy(images[start : start + size]))
            right += int((scores.argmax(1).numpy() == labels[start : start + size]).sum())
    return 100 * right / len(images)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    epochs: int,
    batch_size: int,
    seed: int,
    tick: Progress,
) -> list[Epoch]:
    """Cross-entropy with a one-cycle cosine schedule; ``tick`` is called after every batch."""
    train_images, train_labels, test_images, test_labels = data
    steps = epochs * batches_per_epoch(len(train_images), batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    curve = []
    for epoch in range(1, epochs + 1):
        model.train()
        total, count = 0.0, 0
        for x, y in batches(train_images, train_labels, batch_size, generator):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(x)
            count += len(x)
            tick()
        curve.append(Epoch(epoch, total / count, accuracy(model, test_images, test_labels)))
    return curve


def batches_per_epoch(samples: int, size: int) -> int:
    """How many batches :func:`batches` yields: a last one of one sample is left out (not for BatchNorm)."""
    return samples // size + (1 if samples % size > 1 else 0)
