"""``qfx.ptq.quantize``: a float model, data and a list of methods; a prepared model comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qfx.errors import QfxError
from qfx.learn.config import Config
from qfx.learn.model import QuantizedModel
from qfx.learn.prepare import prepare
from qfx.ptq.batch_norm import BatchNorm, reestimate_batch_norm
from qfx.ptq.best import best
from qfx.ptq.bias_correction import BiasCorrection, correct_bias
from qfx.ptq.calibration import Calibration, calibrate
from qfx.ptq.equalization import Equalization, equalize
from qfx.ptq.filling import RangeFilling, fill_ranges
from qfx.ptq.gptq import GPTQ, gptq
from qfx.ptq.ranges import RangeSearch, search_ranges
from qfx.ptq.rounding import LearnedRounding, learn_rounding
from qfx.ptq.search import FormatSearch, search_formats
from qfx.ptq.smooth import ActivationEqualization, equalize_activations
from qfx.ptq.walk import Batches, float_network, inputs


@dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
        options: the class of its options.
        apply: ``apply(q, batches, options, reference=, progress=)`` gives a new prepared model.
        moves_ranges: it changes weights without changing the float network.
        places: it puts all binary points where it wants them. Of a method that moves ranges and does not,
            calibration must follow.
    """

    options: type
    apply: Callable[..., Any]
    moves_ranges: bool = False
    places: bool = False


METHODS: dict[str, Method] = {
    "batch_norm": Method(BatchNorm, reestimate_batch_norm),
    "equalization": Method(Equalization, equalize, moves_ranges=True),
    "activation_equalization": Method(ActivationEqualization, equalize_activations, moves_ranges=True),
    "range_filling": Method(RangeFilling, fill_ranges, moves_ranges=True, places=True),
    "calibration": Method(Calibration, calibrate, places=True),
    "range_search": Method(RangeSearch, search_ranges),
    "format_search": Method(FormatSearch, search_formats),
    "gptq": Method(GPTQ, gptq),
    "learned_rounding": Method(LearnedRounding, learn_rounding),
    "bias_correction": Method(BiasCorrection, correct_bias),
}
#: What :func:`quantize` does when nothing is said: :func:`best`.
DEFAULT = "best"


def quantize(
    model: nn.Module,
    batches: Batches,
    config: Config | None = None,
    methods: Sequence[Any] | str = DEFAULT,
    *,
    progress: bool = True,
) -> QuantizedModel:
    """Post-training quantization: prepare, calibrate, and apply methods in order.

    Binary points are calibrated before the first method that needs them, and after a method that moved
    ranges; name ``"calibration"`` or give a :class:`Calibration` to say how. ``"batch_norm"`` in front of all
    others works on the float model, so that folded layers take part.

    The *reference*, what methods compare with, is the float network: as it was, or after equalization, which
    moves factors inside of it. It stays the same when weights are rounded.

    Args:
        model: a float module that torch.fx can trace, or a prepared model; not changed.
        batches: batches of inputs, or ``(inputs, ...)`` tuples as data loaders give them; they are gone
            through once and kept. Some tens to hundreds of samples.
        config: formats; ``Config()`` when not given. Must not be given for a prepared model.
        methods: names of :data:`METHODS` or instances of their options, in order; ``"best"`` for those of
            :func:`best`, which go by the formats; should the result's error on these batches be larger than
            with calibration alone, it is calibration alone.
        progress: show bars for what takes more than two seconds.

    Returns:
        a prepared model in ``eval()`` mode: :func:`qfx.freeze` makes the integer graph, and training may go
        on.

    Raises:
        QfxError: an unknown method, bad data, a model that cannot be prepared.
    """
    data = [_inputs(batch) for batch in _sequence(batches)]
    if not data:
        raise QfxError(
            "qfx.ptq: the calibration set is empty; give at least one batch with at least one sample"
        )
    if isinstance(methods, str) and methods != "best":
        raise QfxError(f'qfx.ptq: methods must be a list or "best", found {methods!r}; use [{methods!r}]')
    plan = [] if isinstance(methods, str) else [method_of(m) for m in methods]
    if isinstance(model, QuantizedModel):
        if config is not None:
            raise QfxError("qfx.ptq.quantize: this model is prepared already; leave the config out")
        q = model
    else:
        while plan and isinstance(plan[0][1], BatchNorm):
            model = reestimate_batch_norm(model, data)
            plan.pop(0)
        q = prepare(model, data[0][:1], config)
    if isinstance(methods, str):
        plan = [method_of(m) for m in best(q)]
    rule = next((options for _, options in plan if isinstance(options, Calibration)), Calibration())
    start, reference, placed = q, q, False
    for method, options in plan:
        if not (placed or method.moves_ranges or method.places):
            q, placed = calibrate(q, data, rule, progress=progress), True
        q = method.apply(q, data, options, reference=reference, progress=progress)
        if method.moves_ranges:
            reference, placed = q, False
        placed = placed or method.places
    if not placed:
        q = calibrate(q, data, rule, progress=progress)
    if isinstance(methods, str):
        plain = calibrate(start, data, Calibration(), progress=progress)
        q = min((q, plain), key=lambda candidate: error_of(candidate, start, data))
    return q.eval()


@torch.no_grad()
def error_of(q: QuantizedModel, reference: QuantizedModel, data: Sequence[torch.Tensor]) -> float:
    """The squared error of a prepared model's result against the float network of ``reference``, on the first
    batches with 64 samples together."""
    plain, total, count = float_network(reference), 0.0, 0
    q.eval()
    for x in inputs(q, data):
        total += float((q(x).double() - plain(x).double()).square().sum())
        count += len(x)
        if count >= 64:
            break
    return total


def method_of(given: Any) -> tuple[Method, Any]:
    """The method and the options that a name, an options class or an instance of one stands for.

    Raises:
        QfxError: something else.
    """
    if isinstance(given, str) and given in METHODS:
        return METHODS[given], METHODS[given].options()
    for method in METHODS.values():
        if isinstance(given, method.options) and type(given) is method.options:
            return method, given
        if given is method.options:
            return method, method.options()
    raise QfxError(f"qfx.ptq: unknown method {given!r}; known are {', '.join(METHODS)}, or their options")


def _sequence(batches: Batches) -> Batches:
    if isinstance(batches, torch.Tensor):
        raise QfxError(
            "qfx.ptq: expected batches (a list of tensors or a data loader), found one tensor; pass [tensor]"
        )
    return batches


def _inputs(batch: Any) -> torch.Tensor:
    return torch.as_tensor(batch[0] if isinstance(batch, list | tuple) and batch else batch)
