"""Activation equalization: move the differences between the channels of activations into the weights that
read them.

Sources: G. Xiao et al., "SmoothQuant", arXiv:2211.10438, equation 4: channel ``j`` of the activations is
divided by ``max|X_j|^alpha / max|W_j|^(1 - alpha)``, and the weights that read it are multiplied by that.
With factors that are powers of two, as here by default, the float network computes the same numbers on every
bit; at ``alpha=1`` this is the exponent bias per channel that S. Liu et al., "LLM-FP4", arXiv:2310.16836,
section 4.2, shift into the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qfx.errors import QfxError
from qfx.learn.model import QuantizedModel
from qfx.ptq.equalization import bounded_exponents, replace_clips
from qfx.ptq.regions import Region, input_ranges, regions, scale
from qfx.ptq.walk import Batches, changed, copied, float_network, inputs


@dataclass(frozen=True)
class ActivationEqualization:
    """Options of :func:`equalize_activations`.

    Args:
        alpha: 0 to 1; how much of the differences between activations moves into weights.
        powers_of_two: round factors to powers of two.
        replace_relu6: see :class:`qfx.ptq.Equalization`.
    """

    alpha: float = 0.5
    powers_of_two: bool = True
    replace_relu6: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise QfxError(f"ActivationEqualization: alpha must lie in [0, 1], found {self.alpha}")


@torch.no_grad()
def equalize_activations(
    q: QuantizedModel,
    batches: Batches,
    options: ActivationEqualization | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy with equalized activations. Binary points do not follow: calibrate afterwards
    (:func:`qfx.ptq.quantize` does).

    What divides the activations must be a layer: a linear or convolution layer, a kept BatchNorm, the scale
    of a LayerNorm or other arithmetic with constants, with nothing but ReLU, pooling, additions and the like
    between. Others stay as they are.

    Args:
        q: a prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`ActivationEqualization`.
        reference, progress: not used.

    Raises:
        QfxError: bad data.
    """
    options = ActivationEqualization() if options is None else options
    result = copied(q)
    data = inputs(result, batches)
    example = data[0][:1]
    found = regions(result, example, "relu" if options.replace_relu6 else "end")
    if options.replace_relu6:
        found = replace_clips(result, found, example)
    ranges = channel_ranges(result, data)
    for region in found:
        largest = _largest(region, ranges)
        weights = input_ranges(region)
        usable = (largest > 0) & (weights > 0)
        factors = torch.where(usable, largest, 1.0).pow(options.alpha)
        factors = factors / torch.where(usable, weights, 1.0).pow(1 - options.alpha)
        # A common factor of all channels is a matter of binary points.
        middle = factors[usable].log2().mean() if bool(usable.any()) else torch.zeros(())
        factors = torch.where(usable, factors * torch.exp2(-middle), 1.0)
        scale(region, torch.exp2(bounded_exponents(factors, options.powers_of_two)))
    return changed(result)


def channel_ranges(q: QuantizedModel, data: list[torch.Tensor]) -> list[torch.Tensor]:
    """The largest absolute value of every channel of every step's result in the float network, float64."""
    model = float_network(q)
    last = {i: n for n, step in enumerate(model._qfx_steps) for i in step.inputs}
    ranges: list[torch.Tensor] = []
    for x in data:
        values: dict[int, torch.Tensor] = {}
        for n, (step, module) in enumerate(model._qfx_items()):
            values[n] = module(*(values[i] for i in step.inputs)) if step.inputs else module(x)
            here = values[n].detach().double().abs().transpose(0, 1).flatten(1).amax(1).cpu()
            if n < len(ranges):
                ranges[n] = torch.maximum(ranges[n], here)
            else:
                ranges.append(here)
            for i in step.inputs:
                if last[i] == n:
                    values.pop(i, None)
    return ranges


def _largest(region: Region, ranges: list[torch.Tensor]) -> torch.Tensor:
    """Per channel over all tensors of a region that are cast or read."""
    largest = torch.zeros(region.channels, dtype=torch.float64)
    for n in region.tensors:
        largest = torch.maximum(largest, ranges[n].reshape(region.channels, -1).amax(1))
    return largest
