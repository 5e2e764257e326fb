"""The networks of the built-in study: plain torch modules for square images of one channel."""

from __future__ import annotations

from torch import nn

from qfx.errors import QfxError

NETWORKS = ("mlp", "cnn")


def mlp(size: int) -> nn.Module:
    """Two hidden layers of 64: input ``(batch, 1, size, size)``, output ``(batch, 10)``."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size * size, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def cnn(size: int) -> nn.Module:
    """Two convolutions with BatchNorm, 16 and 32 channels, and a linear layer; 8x8 images are halved once,
    larger ones twice: input ``(batch, 1, size, size)``, output ``(batch, 10)``."""
    first = 1 if size <= 8 else 2
    place = (size + 2 * first - 1) // (2 * first)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=first, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * place * place, 10),
    )  # fmt: skip


def make(name: str, size: int) -> nn.Module:
    """A network by name for images of ``size`` by ``size``.

    Raises:
        QfxError: no such network.
    """
    if name not in NETWORKS:
        raise QfxError(f"network {name!r} is unknown; use {', '.join(NETWORKS)}")
    return mlp(size) if name == "mlp" else cnn(size)
