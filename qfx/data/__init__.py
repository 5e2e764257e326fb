"""Image data sets from a path, as torch tensors; nothing is downloaded and nothing in a file is executed."""

from qfx.data.cifar import Cifar10
from qfx.data.images import ImageFolder, batches

__all__ = ["Cifar10", "ImageFolder", "batches"]
