"""Bias correction: quantization must not shift the mean of any channel.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.2.1 and appendix D (empirical).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qfx.learn.calibrate import calibrate_biases
from qfx.learn.model import QuantizedModel
from qfx.nn.weighted import QuantWeighted
from qfx.ptq.layerwise import add_to_bias
from qfx.ptq.walk import Batches, changed, copied, inputs, walk


@dataclass(frozen=True)
class BiasCorrection:
    """Options of :func:`correct_bias`; there are none."""


def correct_bias(
    q: QuantizedModel,
    batches: Batches,
    options: BiasCorrection | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy in which the bias of every linear and convolution layer takes up the mean of the layer's error.

    ``bias += E[float result] - E[quantized result]`` per channel, over samples and places, layer by layer, so
    that later layers see corrected ones. A layer without bias gets one of 16 bits. What remains is the
    rounding of the bias itself.

    Args:
        q: a calibrated prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: none.
        reference: see :func:`qfx.ptq.quantize`.
        progress: show a bar.

    Raises:
        QfxError: bad data, a model that is not calibrated.
    """
    result = copied(q)
    data = inputs(result, batches)
    for visit in walk(result, data, reference, label="bias correction", progress=progress):
        if isinstance(visit.module, QuantWeighted):
            add_to_bias(visit.module, channel_means(visit.float_results) - channel_means(visit.results()))
    return changed(calibrate_biases(result))


def channel_means(results: list[torch.Tensor]) -> torch.Tensor:
    """The mean of every channel over batches, samples and places: float64 ``(channels,)``."""
    sums = sum(r.double().transpose(0, 1).flatten(1).sum(1) for r in results)
    return torch.as_tensor(sums) / sum(r.numel() // r.shape[1] for r in results)
