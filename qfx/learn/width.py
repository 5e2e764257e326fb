"""Which quantizers of a prepared model learn their width, and what they have learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.nn.module import Again
from qfx.nn.quantizer import InputQuantizer, Quantizer
from qfx.nn.weighted import QuantWeighted
from qfx.nn.width import (
    GRANULARITIES,
    ActivationWidthQuantizer,
    InputWidthQuantizer,
    WeightWidthQuantizer,
    check_learnable,
)

#: What learns widths, and for what one width can be learned.
LEARNABLE = {
    "weight": GRANULARITIES,
    "bias": ("tensor", "weight"),
    "activation": ("tensor",),
    "input": ("tensor",),
}


def check_learn_width(where: str, value: Any, config: Any = None) -> None:
    """Refuse what :class:`qfx.Config` does not take as ``learn_width``.

    Args:
        where: for messages.
        config: whose formats are to be checked too.

    Raises:
        QfxError: not a dictionary of known entries; a format whose width cannot be learned.
    """
    if not isinstance(value, Mapping):
        raise QfxError(f"{where} must be a dictionary like {{'weight': 'weight'}}, found {value!r}")
    for key, granularity in value.items():
        if key not in LEARNABLE:
            raise QfxError(f"{where} has the unknown key {key!r}; known are {', '.join(LEARNABLE)}")
        if granularity not in LEARNABLE[key]:
            raise QfxError(
                f"{where}[{key!r}] must be one of {', '.join(map(repr, LEARNABLE[key]))}, found "
                f"{granularity!r}"
            )
        if config is not None:
            check_learnable(getattr(config, f"{key}_format", None) or getattr(config, key), key)
    if value and config is not None and config.estimator != "clipped":
        raise QfxError(f'{where}: widths are learned with estimator="clipped", found {config.estimator!r}')


# -- quantizers for qfx.prepare ------------------------------------------------------------------------------


def input_quantizer(fmt: Format, shape: tuple[int, ...], learn_width: Mapping[str, str]) -> InputQuantizer:
    """The quantizer of the network's input, of learned width or not."""
    if "input" in learn_width and isinstance(fmt, FixedPoint):
        return InputWidthQuantizer(fmt, shape)
    return InputQuantizer(fmt, shape)


def cast_quantizer(fmt: Format, learn_width: Mapping[str, str]) -> Quantizer:
    """The quantizer of an activation, of learned width or not."""
    if "activation" in learn_width and isinstance(fmt, FixedPoint) and fmt.learned:
        return ActivationWidthQuantizer(fmt)
    return Quantizer(fmt, axis=1)


def learn_constants(module: torch.nn.Module, learn_width: Mapping[str, str]) -> None:
    """Replace the quantizers of a layer's weight and bias by ones that learn their width.

    Formats that are not fixed point, or whose binary point is given, stay as they are.

    Raises:
        QfxError: a format whose width cannot be learned.
    """
    if not isinstance(module, QuantWeighted):
        return
    for part in ("weight", "bias"):
        old, values = getattr(module, f"{part}_quantizer"), getattr(module, part)
        if isinstance(old, WeightWidthQuantizer) or part not in learn_width or old is None or old.frozen:
            continue
        if isinstance(old.fmt, FixedPoint):
            new = WeightWidthQuantizer(old.fmt, values.shape, learn_width[part], old.channels > 1)
            new.estimator = old.estimator
            setattr(module, f"{part}_quantizer", new)


def learns_widths(q: torch.nn.Module) -> bool:
    """Whether any quantizer of a model learns its width, or did before it was frozen."""
    return any(isinstance(m, WeightWidthQuantizer | ActivationWidthQuantizer) for m in q.modules())


# -- what was learned ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Widths:
    """Bits of a tensor, or of all weights of a layer.

    Attributes:
        name: of the quantizer.
        count: how many numbers it casts; of activations 1.
        mean, largest: bits of a number. Of weights without sign and without zeros at either end, of which
            ``mean`` is taken over all of them; of activations the width.
        pruned: the share of weights that are 0, in 0..1; 0 for activations.
    """

    name: str
    count: int
    mean: float
    largest: int
    pruned: float = 0.0


@torch.no_grad()
def widths(q: torch.nn.Module) -> list[Widths]:
    """What every quantizer that learns its width has come to, in the order of the model.

    Raises:
        QfxError: widths that are not calibrated.
    """
    found = []
    for name, module in q.named_modules():
        if isinstance(module, Again):
            continue
        if isinstance(module, QuantWeighted):
            for part, quantizer in (("weight", module.weight_quantizer), ("bias", module.bias_quantizer)):
                values = getattr(module, part)
                if isinstance(quantizer, WeightWidthQuantizer):
                    bits = quantizer.bits(values)
                    found.append(
                        Widths(
                            f"{name}.{part}_quantizer",
                            bits.numel(),
                            float(bits.mean()),
                            int(bits.max()),
                            float((bits == 0).double().mean()),
                        )  # fmt: skip
                    )
        elif isinstance(module, ActivationWidthQuantizer):
            width = module.format.width
            found.append(Widths(name, 1, float(width), width))
    return found
