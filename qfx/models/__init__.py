"""Networks that people deploy, as plain torch modules; parameters are named as in the usual files.

``build("resnet18")`` gives a float network, to train or to :func:`load_weights` into.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from qfx.errors import QfxError
from qfx.models.byte_input import byte_input
from qfx.models.efficientnet import efficientnet_lite0
from qfx.models.lenet import lenet
from qfx.models.mobilenet import mobilenet_v2
from qfx.models.resnet import resnet18, resnet20, resnet34, resnet50
from qfx.models.vit import vit_b_32
from qfx.models.weights import load_weights

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_lite0": efficientnet_lite0,
    "vit_b_32": vit_b_32,
}

#: Input of each model without the batch axis.
INPUT_SHAPES: dict[str, tuple[int, int, int]] = {
    "lenet": (1, 28, 28),
    "resnet20": (3, 32, 32),
    **dict.fromkeys(
        ("resnet18", "resnet34", "resnet50", "mobilenet_v2", "efficientnet_lite0", "vit_b_32"), (3, 224, 224)
    ),
}


def build(name: str, classes: int | None = None) -> nn.Module:
    """A model with fresh weights.

    Args:
        name: one of :data:`MODELS`.
        classes: outputs; the model's usual number when not given.

    Raises:
        QfxError: unknown name.
    """
    if name not in MODELS:
        raise QfxError(f"model {name!r}: unknown; known are {', '.join(MODELS)}")
    return MODELS[name]() if classes is None else MODELS[name](classes)


__all__ = ["INPUT_SHAPES", "MODELS", "build", "byte_input", "load_weights", *MODELS]
