"""CIFAR-10 from its binary files (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
2009)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from qfx.errors import QfxError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Of the channels R, G, B of the training images in 0..1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32


class Cifar10(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images, float32 ``(3, 32, 32)`` with normalised channels, and labels 0 to 9.

    The files are those of the *binary version* (``cifar-10-binary.tar.gz``): a record is a label and the
    three planes of 1024 pixels. The Python version consists of pickles, which are programs, and is not read.

    Args:
        path: the folder ``cifar-10-batches-bin``, or the one that holds it.
        train: the five files of 10,000 training images, or the one of test images.

    Raises:
        QfxError: files are missing or damaged.
    """

    classes = CLASSES

    def __init__(self, path: str | Path, train: bool = False) -> None:
        folder = Path(path)
        if (folder / "cifar-10-batches-bin").is_dir():
            folder = folder / "cifar-10-batches-bin"
        records = [_records(folder / name) for name in (_TRAIN if train else _TEST)]
        data = np.concatenate(records)
        self.labels = data[:, 0].astype(np.int64)
        self.pixels = data[:, 1:].reshape(-1, 3, 32, 32)
        self._mean, self._std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))

    @property
    def labelled(self) -> bool:
        """Every image has a label."""
        return True

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(self.pixels[index].astype(np.float32)) / 255.0
        return (pixels - self._mean) / self._std, int(self.labels[index])


def _records(path: Path) -> np.ndarray:
    if not path.is_file():
        hint = (
            "; this is the Python version, which is not read" if (path.parent / path.stem).is_file() else ""
        )
        raise QfxError(
            f"{path}: no such file{hint}; unpack the binary version of CIFAR-10, cifar-10-binary.tar.gz"
        )
    data = np.fromfile(path, dtype=np.uint8)
    if data.size == 0 or data.size % _RECORD:
        raise QfxError(f"{path}: {data.size} bytes, not a multiple of {_RECORD}; the file is damaged")
    data = data.reshape(-1, _RECORD)
    if data[:, 0].max() >= len(CLASSES):
        raise QfxError(f"{path}: label {data[:, 0].max()}; CIFAR-10 has 0 to 9")
    return data
