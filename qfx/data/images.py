"""Folders of images in the layout of ImageNet, read with Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qfx.errors import MissingToolError, QfxError

#: Of the channels R, G, B in 0..1, as the usual networks for ImageNet were trained.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm")


class ImageFolder(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images and labels of a folder, as a data set for ``torch.utils.data.DataLoader``.

    A folder per class: ``path/n01440764/ILSVRC2012_val_00000293.JPEG``. Labels are the places of the folders'
    names in alphabetical order, which for all 1000 folders of ImageNet is the usual numbering; folders that
    are all named by integers are taken by these. Images that lie in ``path`` itself have the label -1: none.

    Each image is resized so that the shorter side is ``resize`` (bilinear), the middle is cut out, and
    channels
    are normalised: float32 ``(3, size, size)``.

    Args:
        path: the folder.
        size: height and width of what is cut out.
        resize: shorter side before that; 8/7 of ``size`` when not given (256 for 224).
        mean, std: of the channels in 0..1.

    Raises:
        QfxError: no such folder, no images, or (when it is read) a file that is no image.
        MissingToolError: Pillow is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 224,
        resize: int | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.resize = round(size * 8 / 7) if resize is None else resize
        if self.size < 1 or self.resize < self.size:
            raise QfxError(f"ImageFolder: cannot cut {self.size} out of images of {self.resize}")
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32).reshape(3, 1, 1) for v in (mean, std))
        if not self.path.is_dir():
            raise QfxError(f"{self.path}: no such folder")
        folders = sorted(p for p in self.path.iterdir() if p.is_dir())
        #: The class folders' names in order.
        self.classes = [p.name for p in folders]
        numbered = bool(folders) and all(name.isdecimal() for name in self.classes)
        self.files: list[tuple[Path, int]] = [(p, -1) for p in _images(self.path)]
        for index, folder in enumerate(folders):
            label = int(folder.name) if numbered else index
            self.files += [(p, label) for p in _images(folder)]
        if not self.files:
            raise QfxError(f"{self.path}: no images ({', '.join(SUFFIXES)}) in it or in its folders")

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return all(label >= 0 for _, label in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        return prepared(open_image(path), self.size, self.resize, self.mean, self.std), label


def open_image(path: Path) -> Any:
    """The image in a file, in RGB.

    Raises:
        QfxError: it is none.
        MissingToolError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingToolError(
            "images are read with Pillow; install it with: pip install qfx[images]"
        ) from error
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise QfxError(f"{path}: not an image that Pillow reads ({error})") from error


def prepared(image: Any, size: int, resize: int, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """A Pillow image resized, its middle, normalised: float32 ``(3, size, size)``."""
    from PIL import Image

    width, height = image.size
    # As torchvision: the longer side is rounded down.
    if width <= height:
        small = (resize, int(resize * height / width))
    else:
        small = (int(resize * width / height), resize)
    left, top = round((small[0] - size) / 2), round((small[1] - size) / 2)
    cut = image.resize(small, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.asarray(cut, dtype=np.float32)).permute(2, 0, 1) / 255.0
    return ((pixels - mean) / std).contiguous()


def batches(
    data: Any, size: int, limit: int | None = None, *, shuffle: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of images and labels, in order.

    Args:
        data: anything with a length and ``(tensor, label)`` entries.
        size: samples of a batch; the last may have fewer.
        limit: at most so many samples.
        shuffle: seed of a random order; the order of the files when not given.
    """
    if size < 1:
        raise QfxError(f"batches: size must be at least 1, found {size}")
    order = np.arange(len(data)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(data))
    order = order[:limit]
    for first in range(0, len(order), size):
        entries = [data[int(i)] for i in order[first : first + size]]
        yield torch.stack([x for x, _ in entries]), torch.tensor([label for _, label in entries])


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
