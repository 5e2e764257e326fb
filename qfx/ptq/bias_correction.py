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
from qfx.ptq.layerwise import Biases, bias_of
from qfx.ptq.walk import Batches, changed, copied, inputs, walk


@dataclass(frozen=True)
class BiasCorrection:
    """Options of :func:`correct_bias`.

    Args:
        correct_inputs: also take up what the quantized operands change; otherwise only what the layer's own
            weights do. It wants hundreds of samples: with tens of them, means of deep layers are those of the
            samples at hand (docs/ptq.md).
    """

    correct_inputs: bool = False


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
    that later layers see corrected ones. Both results are computed from the quantized operands, or the first
    one from the float network's. A layer without bias gets one of 16 bits. What remains is the rounding of
    the bias itself.

    Args:
        q: a calibrated prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`BiasCorrection`.
        reference: see :func:`qfx.ptq.quantize`.
        progress: show a bar.

    Raises:
        QfxError: bad data, a model that is not calibrated.
    """
    options = BiasCorrection() if options is None else options
    result = copied(q)
    data = inputs(result, batches)
    biases = Biases(result)
    for visit in walk(result, data, reference, label="bias correction", progress=progress):
        if isinstance(visit.module, QuantWeighted):
            wanted = visit.float_results if options.correct_inputs else visit.float_layer()
            error = channel_means(wanted) - channel_means(visit.results())
            biases.set(visit, bias_of(visit.module, quantized=True) + error)
    return changed(calibrate_biases(result))


def channel_means(results: list[torch.Tensor]) -> torch.Tensor:
    """The mean of every channel over batches, samples and places: float64 ``(channels,)``."""
    sums = sum(r.double().transpose(0, 1).flatten(1).sum(1) for r in results)
    return torch.as_tensor(sums) / sum(r.numel() // r.shape[1] for r in results)
