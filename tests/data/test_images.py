"""Image folders and CIFAR-10 files, made by the tests themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import qfx
from qfx.data import Cifar10, ImageFolder, batches
from qfx.data.cifar import MEAN as CIFAR_MEAN
from qfx.data.cifar import STD as CIFAR_STD
from qfx.data.images import MEAN, STD


def write(path: Path, width: int, height: int, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(width * 1000 + height)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def test_layout_and_labels(tmp_path: Path) -> None:
    for folder, count in (("n02", 2), ("n01", 1), ("n03", 0)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            write(tmp_path / folder / f"{i}.png", 40, 30)
    (tmp_path / "n01" / "notes.txt").write_text("no image")
    data = ImageFolder(tmp_path, size=16)
    assert data.classes == ["n01", "n02", "n03"]
    assert [(p.parent.name, label) for p, label in data.files] == [("n01", 0), ("n02", 1), ("n02", 1)]
    assert data.labelled and len(data) == 3
    x, label = data[0]
    assert x.shape == (3, 16, 16) and x.dtype == torch.float32 and label == 0
    write(tmp_path / "loose.png", 20, 20)
    assert not ImageFolder(tmp_path, size=16).labelled


def test_folders_named_by_numbers(tmp_path: Path) -> None:
    for folder in ("7", "100", "20"):
        write(tmp_path / folder / "a.jpg", 20, 20)
    assert sorted(label for _, label in ImageFolder(tmp_path, 8).files) == [7, 20, 100]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pixels(tmp_path: Path, mode: str) -> None:
    """Without a change of size, the middle of the picture, normalised."""
    write(tmp_path / "a.png", 30, 20, mode)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), dtype=np.float64)
    expected = (pixels[2:18, 7:23].transpose(2, 0, 1) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(
        STD, (3, 1, 1)
    )
    x, _ = ImageFolder(tmp_path, size=16, resize=20)[0]
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(61, 40), (40, 61)])
def test_resizing_keeps_the_middle_and_the_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 255, 0), (size[0] // 2 - 4, size[1] // 2 - 4, size[0] // 2 + 4, size[1] // 2 + 4))
    image.save(tmp_path / "a.png")
    x, _ = ImageFolder(tmp_path, size=24, resize=28, mean=(0, 0, 0), std=(1, 1, 1))[0]
    assert x.shape == (3, 24, 24)
    assert float(x[1, 12, 12]) == 1.0 and float(x[0, 0, 0]) == 1.0
    green = (x[1] > 0.5).nonzero().float()
    np.testing.assert_allclose(green.mean(0).numpy(), [11.5, 11.5], atol=0.8)


def test_batches(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"{i}.png", 10 + i, 10)
    data = ImageFolder(tmp_path, size=8, resize=8)
    found = list(batches(data, 2))
    assert [len(x) for x, _ in found] == [2, 2, 1]
    assert torch.equal(found[1][0][0], data[2][0])
    assert [len(x) for x, _ in batches(data, 2, limit=3)] == [2, 1]
    a, b = (torch.cat([x for x, _ in batches(data, 2, shuffle=3)]) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, torch.cat([x for x, _ in found]))
    loader = torch.utils.data.DataLoader(data, batch_size=5)
    assert next(iter(loader))[0].shape == (5, 3, 8, 8)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(qfx.QfxError, match="no such folder"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(qfx.QfxError, match="no images"):
        ImageFolder(tmp_path)
    with pytest.raises(qfx.QfxError, match="cannot cut 16 out of images of 8"):
        ImageFolder(tmp_path, size=16, resize=8)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(qfx.QfxError, match="a.jpg: not an image"):
        ImageFolder(tmp_path)[0]


def test_cifar(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    records = {}
    for name in ["test_batch.bin", *(f"data_batch_{i}.bin" for i in range(1, 6))]:
        labels = random.integers(0, 10, 3, dtype=np.uint8)
        pixels = random.integers(0, 256, (3, 3072), dtype=np.uint8)
        np.concatenate([labels[:, None], pixels], axis=1).tofile(folder / name)
        records[name] = labels, pixels
    test, train = Cifar10(tmp_path), Cifar10(folder, train=True)
    assert (len(test), len(train)) == (3, 15)
    for data, index, name in ((test, 1, "test_batch.bin"), (train, 7, "data_batch_3.bin")):
        x, label = data[index]
        labels, pixels = records[name]
        assert label == labels[1] and x.dtype == torch.float32
        mean, std = (np.reshape(v, (3, 1, 1)) for v in (CIFAR_MEAN, CIFAR_STD))
        expected = (pixels[1].reshape(3, 32, 32) / 255 - mean) / std
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)
    (folder / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(qfx.QfxError, match="3 bytes, not a multiple of 3073"):
        Cifar10(tmp_path)
    np.full(3073, 11, dtype=np.uint8).tofile(folder / "test_batch.bin")
    with pytest.raises(qfx.QfxError, match="label 11; CIFAR-10 has 0 to 9"):
        Cifar10(tmp_path)
    (folder / "test_batch.bin").unlink()
    (folder / "test_batch").write_bytes(b"a pickle")
    with pytest.raises(qfx.QfxError, match="this is the Python version"):
        Cifar10(tmp_path)
