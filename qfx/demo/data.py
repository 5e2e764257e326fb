"""Data for the demo: scikit-learn's digits (ship with a dependency), idx files such as Fashion-MNIST's."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qfx.errors import QfxError

#: Where Debian's package dataset-fashion-mnist puts the files.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Dataset:
    """Images, float32 ``(samples, 1, height, width)`` in 0..1, and labels, int64 ``(samples,)``."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(source: str) -> Dataset:
    """``digits``, ``fashion-mnist``, or a folder with four (gzipped) idx files.

    Raises:
        QfxError: the files are missing or damaged.
    """
    if source == "digits":
        return _digits()
    if source == "fashion-mnist":
        if not DEBIAN_FASHION_MNIST.is_dir():
            raise QfxError(
                f"fashion-mnist: {DEBIAN_FASHION_MNIST} is missing; install it with "
                "'apt-get install dataset-fashion-mnist', or give the folder with the idx files: DATA=/path"
            )
        return _idx_folder(DEBIAN_FASHION_MNIST, "fashion-mnist")
    folder = Path(source)
    if not folder.is_dir():
        raise QfxError(
            f"data {source!r}: not a folder; use 'digits', 'fashion-mnist' or a folder of idx files"
        )
    return _idx_folder(folder, folder.name)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], order[360:]
    return Dataset("digits", images[train], labels[train], images[test], labels[test])


def _idx_folder(folder: Path, name: str) -> Dataset:
    train_images, train_labels, test_images, test_labels = (_read_idx(folder, file) for file in _IDX_FILES)
    if len(train_images) != len(train_labels) or len(test_images) != len(test_labels):
        raise QfxError(f"{folder}: the numbers of images and of labels differ")
    return Dataset(
        name,
        (train_images / np.float32(255))[:, None],
        train_labels.astype(np.int64),
        (test_images / np.float32(255))[:, None],
        test_labels.astype(np.int64),
    )


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """One idx file (LeCun's format: magic, sizes, then bytes), gzipped or not."""
    packed, plain = folder / f"{name}.gz", folder / name
    path = packed if packed.exists() else plain
    try:
        data = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
    except FileNotFoundError as error:
        raise QfxError(f"{folder}: {name} (or {name}.gz) is missing") from error
    except (OSError, EOFError) as error:
        raise QfxError(f"{path}: cannot be unpacked ({error})") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise QfxError(f"{path}: not an idx file of bytes")
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3])
    if values.size != int(np.prod(shape)):
        raise QfxError(
            f"{path}: {values.size} bytes of data, expected {int(np.prod(shape))}; the file is truncated"
        )
    return values.reshape(shape)
