"""Casts of training without a word from the device: the binary point stays a tensor.

Reading a number from a GPU makes the processor wait for everything that was queued before. Here scale and
gain are computed where the tensors are, so that a training step waits for nothing, and ``torch.compile`` sees
no number that training changes: it makes one kernel of the whole cast, with what stands before and behind it,
for any device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from qfx.nn.estimators import RANDOM, Estimate
from qfx.nn.functional import LN2, FakeQuantize
from qfx.nn.functional import cast as plain_cast

if TYPE_CHECKING:
    from qfx.nn.quantizer import Quantizer


def wanted(x: torch.Tensor) -> bool:
    """Whether ``x`` lives where reading a number is expensive, or is being compiled."""
    return not x.is_cpu or torch.compiler.is_compiling()


def cast(q: Quantizer, x: torch.Tensor) -> torch.Tensor:
    """The cast of a quantizer with its gradients, by torch operators; the binary point is never read.

    Nothing is checked: a quantizer that is not calibrated gives NaN.
    """
    frac = fraction_bits(q)
    scale = power_of_two(frac, x.dtype)
    shape = [1] * x.ndim
    if q.channels > 1:
        shape[q.axis] = q.channels
    scale = scale.reshape(shape)
    learned = q.shift.requires_grad
    if not torch.is_grad_enabled() or not (learned or x.requires_grad):
        return plain_cast(x.detach(), scale, q.fmt)
    elements = x.numel() / q.channels
    if q.axis == 1:
        elements = elements / max(1, x.shape[0])
    gain = gain_of(q, frac, max(1.0, elements)) if learned else 0.0
    if q.estimator == "clipped" or (q.estimator in RANDOM and not q.training):
        return FakeQuantize.apply(x, q.shift, scale, q.fmt, gain)
    return Estimate.apply(x, q.shift, scale, q.fmt, gain, q.estimator)


@torch.no_grad()
def fraction_bits(q: Quantizer) -> torch.Tensor:
    """The binary point of the forward pass: float64 integers of the shape of ``start``; NaN before
    calibration."""
    from qfx.nn.quantizer import BITS_PER_UNIT

    frac = torch.round(q.start.double() + BITS_PER_UNIT * q.shift.double())
    return frac if q.frozen else frac.clamp(*q.learned_range)


def power_of_two(exponents: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``2**exponents``, exactly, which ``torch.exp2`` does not promise; within the normal numbers of
    ``dtype``. NaN stays NaN."""
    if dtype == torch.float64:
        power = ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)
    else:
        power = ((exponents.to(torch.int32) + 127) << 23).view(torch.float32).to(dtype)
    return torch.where(exponents.isnan(), math.nan, power)


@torch.no_grad()
def gain_of(q: Quantizer, frac: torch.Tensor, elements: float) -> torch.Tensor:
    """:meth:`Quantizer.gain` as a tensor of the shape of ``start``."""
    from qfx.nn.quantizer import BITS_PER_UNIT, WIDE_LEVELS

    start, top = q.start.double(), float(q.fmt.integer_max)
    rate = 1.0 / (LN2 * LN2 * BITS_PER_UNIT * math.sqrt(elements))
    if q.gaps:
        levels = max(1.0, min(top, q.fmt.dense_below, WIDE_LEVELS))
        reach = torch.fmin(top * torch.exp2(-start), 3.0 * q.rms.double())
        above = (frac - torch.log2(top / reach)).clamp(min=0.0)
        return (rate * levels * torch.exp2(above) / reach.square()).to(q.start.dtype)
    levels = max(1.0, top)
    above = (frac - start).clamp(min=0.0)
    factor = rate / (levels * max(1.0, levels / WIDE_LEVELS))
    return (factor * torch.exp2(2.0 * start + above)).to(q.start.dtype)
