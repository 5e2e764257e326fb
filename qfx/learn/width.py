"""Which quantizers of a prepared model learn their width, and what they have learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from qfx.errors import QfxError
from qfx.formats.fixed import FixedPoint
from qfx.learn.model import QuantizedModel, naming
from qfx.nn.module import Again
from qfx.nn.quantizer import InputQuantizer, Quantizer
from qfx.nn.weighted import QuantWeighted
from qfx.nn.width import (
    GRANULARITIES,
    ActivationWidthQuantizer,
    InputWidthQuantizer,
    WeightWidthQuantizer,
)

#: What learns widths, and for what one width can be learned.
LEARNABLE = {
    "weight": GRANULARITIES,
    "bias": ("tensor", "weight"),
    "activation": ("tensor",),
    "input": ("tensor",),
}


def check_learn_width(where: str, value: Any) -> None:
    """Refuse what :class:`qfx.Config` does not take as ``learn_width``.

    Raises:
        QfxError: not a dictionary of known entries.
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


def learn_widths(q: QuantizedModel, learn_width: Mapping[str, str]) -> None:
    """Replace quantizers of a freshly prepared model by ones that learn their width.

    Formats that are not fixed point or have a given binary point stay as they are, and so does the last cast:
    the width of the output is the user's choice.

    Args:
        learn_width: by what is quantized, for what one width is learned; see :class:`qfx.Config`.

    Raises:
        QfxError: a format whose width cannot be learned; names the module.
    """
    steps = list(q._qfx_items())
    for index, (step, module) in enumerate(steps):
        with naming(step):
            if isinstance(module, QuantWeighted):
                _learn_constants(module, learn_width)
            elif isinstance(module, InputQuantizer):
                if "input" in learn_width and _open(module):
                    q.set_submodule(step.target, InputWidthQuantizer(module.fmt, module.shape))
            elif isinstance(module, Quantizer) and index < len(steps) - 1:
                if "activation" in learn_width and _open(module):
                    q.set_submodule(step.target, ActivationWidthQuantizer(_fixed(module)))


def _learn_constants(module: QuantWeighted, learn_width: Mapping[str, str]) -> None:
    if "weight" in learn_width and _open(module.weight_quantizer):
        module.weight_quantizer = WeightWidthQuantizer(
            _fixed(module.weight_quantizer), module.weight.shape, learn_width["weight"],
            module.weight_quantizer.channels > 1,
        )  # fmt: skip
    if "bias" in learn_width and module.bias is not None and module.bias_quantizer is not None:
        if _open(module.bias_quantizer):
            module.bias_quantizer = WeightWidthQuantizer(
                _fixed(module.bias_quantizer), module.bias.shape, learn_width["bias"],
                module.bias_quantizer.channels > 1,
            )  # fmt: skip


def _open(quantizer: Quantizer) -> bool:
    return isinstance(quantizer.fmt, FixedPoint) and not quantizer.frozen


def _fixed(quantizer: Quantizer) -> FixedPoint:
    assert isinstance(quantizer.fmt, FixedPoint)
    return quantizer.fmt


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
