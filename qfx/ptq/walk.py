"""Two networks side by side, one operator at a time: the quantized one and the float one.

A method that looks at layers in order must see what the layers before it compute *after* it changed them. So
the results of all batches are kept, every step is computed once, and between two steps the method may change
the module that comes next.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from qfx.errors import QfxError
from qfx.learn.model import QuantizedModel, Step, naming
from qfx.nn.module import Again, QuantModule
from qfx.nn.quantizer import Quantizer
from qfx.ptq.progress import shown

Batches = Iterable[Any]


@dataclass(eq=False)
class Visit:
    """One operator before it is computed.

    Attributes:
        index: of the step.
        step: target name, operands' steps, path in the original model.
        module: the operator in the quantized network; may be changed in place.
        twin: the same in the float network.
        operands: of the quantized network, per batch a list of tensors ``(samples, ...)``; for the first step
            the input itself.
        float_operands: of the float network, likewise.
    """

    index: int
    step: Step
    module: QuantModule
    twin: QuantModule
    operands: list[list[torch.Tensor]]
    float_operands: list[list[torch.Tensor]]

    @property
    def repeated(self) -> bool:
        """Whether this is another call of a module that was visited before."""
        return isinstance(self.module, Again)

    @torch.no_grad()
    def results(self) -> list[torch.Tensor]:
        """What the module computes now in the quantized network, per batch."""
        return [self.module(*operands) for operands in self.operands]

    @torch.no_grad()
    def float_layer(self) -> list[torch.Tensor]:
        """What the float layer makes of the quantized operands, per batch."""
        return [self.twin(*operands) for operands in self.operands]

    @cached_property
    def float_results(self) -> list[torch.Tensor]:
        """What the float network computes here, per batch."""
        with torch.no_grad():
            return [self.twin(*operands) for operands in self.float_operands]


@torch.no_grad()
def walk(
    q: QuantizedModel,
    batches: list[torch.Tensor],
    reference: QuantizedModel | None = None,
    *,
    label: str = "",
    progress: bool = True,
) -> Iterator[Visit]:
    """Visit every operator of ``q`` in order; casts and weights are computed in float as in training, with
    running statistics.

    Args:
        q: calibrated; its modules may be changed between two visits, each before its own visit ends.
        batches: inputs, from :func:`inputs`.
        reference: a model with the same steps whose float network is the one to come close to; ``q`` as it is
            now when not given.
        label: what a progress bar says.
    """
    float_model = float_network(q if reference is None else reference)
    if len(float_model._qfx_steps) != len(q._qfx_steps):
        raise QfxError(
            "qfx.ptq: the reference has other operators than the model; give the prepared model itself, as "
            "it was before methods changed its weights"
        )
    training = q.training
    q.eval()
    values: dict[int, list[torch.Tensor]] = {}
    floats: dict[int, list[torch.Tensor]] = {}
    last = {i: n for n, step in enumerate(q._qfx_steps) for i in step.inputs}
    pairs = list(zip(q._qfx_items(), float_model._qfx_items(), strict=True))
    try:
        for n, ((step, _), (_, twin)) in enumerate(shown(pairs, label, progress)):
            module = q.get_submodule(step.target)  # it may have been replaced
            assert isinstance(module, QuantModule)
            feeds = [[v[b] for v in (values[i] for i in step.inputs)] for b in range(len(batches))]
            float_feeds = [[v[b] for v in (floats[i] for i in step.inputs)] for b in range(len(batches))]
            if not step.inputs:
                feeds = float_feeds = [[x] for x in batches]  # the input itself, or a constant
            visit = Visit(n, step, module, twin, feeds, float_feeds)
            with naming(step):
                yield visit
                visit.module = q.get_submodule(step.target)  # type: ignore[assignment]
                floats[n] = visit.float_results
                values[n] = visit.results()
            for i in step.inputs:
                if last[i] == n:
                    values.pop(i, None)
                    floats.pop(i, None)
    finally:
        q.train(training)


def float_network(q: QuantizedModel) -> QuantizedModel:
    """A copy in ``eval()`` with all casts switched off."""
    plain = copied(q).eval()
    for module in plain.modules():
        if isinstance(module, Quantizer):
            module.bypass = True
    return plain


def replace_module(q: QuantizedModel, target: str, new: QuantModule) -> None:
    """Put another module in a step's place; what is registered below the old one, as casts behind operators
    are, moves along."""
    for name, child in q.get_submodule(target).named_children():
        if name not in new._modules:
            new.add_module(name, child)
    q.set_submodule(target, new)


def copied(q: QuantizedModel) -> QuantizedModel:
    """A copy that shares nothing with ``q``."""
    if not isinstance(q, QuantizedModel):
        raise QfxError(f"qfx.ptq: expected what qfx.prepare returned, found {type(q).__name__}")
    return copy.deepcopy(q)


def changed(q: QuantizedModel) -> QuantizedModel:
    """Forget what was derived from weights and modules; to be called when a method is done."""
    q._qfx_plan = q._qfx_calls = None
    return q


def inputs(q: QuantizedModel, batches: Batches) -> list[torch.Tensor]:
    """The input tensors of batches, or of ``(inputs, ...)`` tuples as data loaders give them.

    Raises:
        QfxError: one tensor in place of batches, no samples, NaN, a wrong shape.
    """
    if isinstance(batches, torch.Tensor):
        raise QfxError(
            "qfx.ptq: expected batches (a list of tensors or a data loader), found one tensor; pass [tensor]"
        )
    parameter = next(q.parameters())
    found = []
    for batch in batches:
        x = batch[0] if isinstance(batch, list | tuple) and batch else batch
        x = torch.as_tensor(x).to(parameter.device)
        q._qfx_check_input(x)
        if x.is_floating_point() and not torch.isfinite(x).all():
            raise QfxError("qfx.ptq: a batch holds NaN or infinity; remove such samples first")
        if len(x):
            found.append(x)
    if not found:
        raise QfxError(
            "qfx.ptq: the calibration set is empty; give at least one batch with at least one sample"
        )
    return found
