"""Re-estimation of BatchNorm: running statistics of the network as it is now.

Source: X. Sun et al., "Hybrid 8-bit Floating Point (HFP8) Training and Inference", NeurIPS 2019, section 3.2,
and M. Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", arXiv:2203.11086, section 5.1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

from qfx.errors import QfxError
from qfx.learn.calibrate import calibrate_biases
from qfx.learn.model import QuantizedModel
from qfx.nn.affine import QuantBatchNorm
from qfx.ptq.walk import Batches, changed, copied, inputs, walk

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class BatchNorm:
    """Options of :func:`reestimate_batch_norm`; there are none."""


def reestimate_batch_norm(
    q: Model,
    batches: Batches,
    options: BatchNorm | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> Model:
    """A copy whose BatchNorm layers have the mean and the variance of their operands on these batches.

    In a prepared model these are the layers that were kept (``Config(batch_norm="keep")``), layer by layer
    with quantized operands, and the binary points of their factors are placed anew. Folded ones are gone:
    give the float model before :func:`qfx.prepare`, which is what :func:`qfx.ptq.quantize` does. There,
    statistics are those of all batches together.

    Args:
        q: a calibrated prepared model, or any module with ``BatchNorm`` layers.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: none.
        reference: not used.
        progress: show a bar.

    Raises:
        QfxError: bad data.
    """
    if isinstance(q, QuantizedModel):
        return _prepared(q, batches, progress)  # type: ignore[return-value]
    if not isinstance(q, nn.Module):
        raise QfxError(f"qfx.ptq: expected a torch.nn.Module, found {type(q).__name__}")
    return _float(q, batches)


def _prepared(q: QuantizedModel, batches: Batches, progress: bool) -> QuantizedModel:
    result = copied(q)
    data = inputs(result, batches)
    for visit in walk(result, data, q, label="batch norm", progress=progress):
        layer = visit.module
        if isinstance(layer, QuantBatchNorm):
            flat = torch.cat([x.double().transpose(0, 1).flatten(1) for (x,) in visit.operands], dim=1)
            if flat.shape[1] < 2:
                raise QfxError(
                    f"{visit.step.path}: batch-norm statistics need more than one value per channel"
                )
            layer.running_mean.copy_(flat.mean(1))
            layer.running_var.copy_(flat.var(1))
            if not layer.scale_quantizer.frozen:
                layer.calibrate_weight()
    return changed(calibrate_biases(result))


@dataclass
class _Sums:
    """Of what a layer saw, per channel, float64."""

    count: int = 0
    total: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))


@torch.no_grad()
def _float(model: Model, batches: Batches) -> Model:
    """Layer after layer would need one pass each; here all statistics are taken in one pass, in which every
    layer normalises with those of its batch, and averaged over batches by their sizes."""
    result = copy.deepcopy(model).eval()
    norms = [m for m in result.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    seen_by = {id(m): _Sums() for m in norms}

    def see(module: nn.Module, operands: tuple[torch.Tensor, ...]) -> None:
        flat = operands[0].double().transpose(0, 1).flatten(1)
        entry = seen_by[id(module)]
        entry.count += flat.shape[1]
        entry.total = entry.total + flat.sum(1)
        entry.squares = entry.squares + flat.square().sum(1)

    handles = [m.register_forward_pre_hook(see) for m in norms]
    try:
        for module in norms:
            module.train()
            module.momentum = 0.0  # what torch would average is not wanted
        seen = 0
        for batch in batches:
            x = batch[0] if isinstance(batch, list | tuple) and batch else batch
            result(x)
            seen += len(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, original in zip(norms, _norms(model), strict=True):
            module.momentum = original.momentum
    if not seen:
        raise QfxError(
            "qfx.ptq: the calibration set is empty; give at least one batch with at least one sample"
        )
    for module in norms:
        entry = seen_by[id(module)]
        count = entry.count
        if count < 2 or module.running_mean is None or module.running_var is None:
            continue
        mean = entry.total / count
        variance = (entry.squares / count - mean.square()).clamp(min=0) * (count / (count - 1))
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
    return result.train(model.training)


def _norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
