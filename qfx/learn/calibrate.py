"""Initial binary points from data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.learn.model import QuantizedModel, naming
from qfx.nn.affine import QuantAffine
from qfx.nn.bound import Bound
from qfx.nn.observer import Observer, best_frac, default_frac
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import QuantWeighted, place, sizes

# A progress bar appears when the work takes longer than this.
_PATIENCE_SECONDS = 2.0

#: From a format and samples (float64, one axis) to a binary point; ``None`` when all samples are 0.
Chooser = Callable[[Format, torch.Tensor], int | None]


def calibrate(q: QuantizedModel, batches: Iterable[Any], *, progress: bool = True) -> QuantizedModel:
    """Put every binary point that is not frozen where the squared error is smallest.

    Activations are observed with all casts switched off; weights and biases need no data. Call it before
    training; calling it again starts learning anew from the new positions.

    Args:
        q: a prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples as data loaders give them. A few hundred
            samples do.
        progress: show a bar when it takes more than two seconds.

    Returns:
        ``q``, calibrated in place; its training mode is as before.

    Raises:
        QfxError: no samples, a wrong shape, NaN in the data or in weights.
    """
    if not isinstance(q, QuantizedModel):
        raise QfxError(f"calibrate: expected what qfx.prepare returned, found {type(q).__name__}")
    if isinstance(batches, torch.Tensor):
        raise QfxError(
            "calibrate: expected batches (a data loader or a list of tensors), found one tensor; pass "
            "[tensor]"
        )
    for step, module in q._qfx_items():
        module.check(step.path)
        module.calibrate_weight()
    observe(q, batches, progress)
    return calibrate_biases(q)


def calibrate_biases(q: QuantizedModel) -> QuantizedModel:
    """Put the binary points of biases and offsets where the squared error is smallest, given all other
    points.

    Returns:
        ``q``, changed in place.
    """
    bounds: list[Bound] = []
    for index, (step, module) in enumerate(q._qfx_items()):
        operands = [bounds[i] for i in step.inputs]
        with naming(step):
            if isinstance(module, QuantWeighted | QuantAffine):
                module.calibrate_bias(operands[0], result_bits(q, index))
            bounds.append(module.bound(*operands))
    q._qfx_plan = None
    return q


def result_bits(q: QuantizedModel, index: int) -> int | None:
    """Integer bits of the cast behind a step when only activations and moves stand between, or ``None``."""
    for step, module in list(q._qfx_items())[index + 1 :]:
        if index not in step.inputs:
            continue
        if isinstance(module, Quantizer):
            return module.integer_bits
        if len(step.inputs) > 1 or isinstance(module, QuantWeighted | QuantAffine):
            return None
        index = q._qfx_steps.index(step)
    return None


@torch.no_grad()
def observe(q: QuantizedModel, batches: Iterable[Any], progress: bool, choose: Chooser = best_frac) -> None:
    """Put the binary points of activations where a rule wants them, given samples of the float network."""
    watched = {step.target: m for step, m in q._qfx_items() if isinstance(m, Quantizer)}
    # Constants are not observed, but their casts are switched off too: the data is that of the float model.
    everything = [m for m in q.modules() if isinstance(m, Quantizer)]
    training = q.training
    device = next(q.parameters()).device
    samples = 0
    try:
        q.eval()
        for quantizer in everything:
            quantizer.bypass = True
        for quantizer in watched.values():
            idle = quantizer.frozen and not quantizer.gaps
            quantizer.observer = None if idle else Observer(quantizer.channels)
        for batch in _shown(batches, progress):
            x = batch[0] if isinstance(batch, list | tuple) and batch else batch
            if not isinstance(x, torch.Tensor):
                x = torch.as_tensor(x)
            if x.is_floating_point() and not torch.isfinite(x).all():
                raise QfxError(
                    f"calibrate: batch holds NaN or infinity at sample {samples} or later; remove them from "
                    "the data first"
                )
            q(x.to(device))
            samples += len(x)
        if samples == 0:
            raise QfxError(
                "calibrate: the calibration set is empty; give at least one batch with at least one sample"
            )
        for target, quantizer in watched.items():
            if quantizer.observer is not None:
                _place(quantizer, quantizer.observer.samples, target, choose)
    finally:
        for quantizer in everything:
            quantizer.bypass, quantizer.observer = False, None
        q.train(training)


def _place(quantizer: Quantizer, samples: torch.Tensor, where: str, choose: Chooser) -> None:
    if not torch.isfinite(samples).all():
        raise QfxError(
            f"calibrate: {where} holds NaN or infinity; the model does not compute finite numbers from this "
            "data"
        )
    if quantizer.frozen:
        quantizer.saw(sizes(samples))
        return
    fracs = [choose(quantizer.fmt, row) for row in samples]
    # A channel that is always 0 follows the others.
    known = [f for f in fracs if f is not None]
    default = min(known) if known else default_frac(quantizer.fmt)
    place(quantizer, [default if f is None else f for f in fracs], samples)


def _shown(batches: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        yield from batches
        return
    import time

    from rich.progress import Progress

    total = len(batches) if hasattr(batches, "__len__") else None  # type: ignore[arg-type]
    started = time.monotonic()
    bar: Progress | None = None
    try:
        for index, batch in enumerate(batches):
            yield batch
            if bar is None and time.monotonic() - started > _PATIENCE_SECONDS:
                bar = Progress(transient=True)
                bar.start()
                task = bar.add_task("calibrating", total=total, completed=index + 1)
            elif bar is not None:
                bar.update(task, advance=1)
    finally:
        if bar is not None:
            bar.stop()
