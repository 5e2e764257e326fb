"""The forward pass of training: every operator in turn, a ReLU and the cast behind it as one.

Fusing saves a pass over the data and what ReLU would keep for backward. Values and gradients are the same. A
module that somebody hooked into runs by itself, so that the hook sees what it would see otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import _has_any_global_hook

from qfx.errors import QfxError
from qfx.nn import device, fused
from qfx.nn.elementwise import QuantReLU
from qfx.nn.quantizer import Quantizer

if TYPE_CHECKING:
    from qfx.learn.model import QuantizedModel


@dataclass(frozen=True)
class Call:
    """One step of a prepared model.

    Attributes:
        owner, name: where the module is registered, so that one that is replaced is found.
        inputs: indices of the steps whose results it takes.
        path: module path in the original model, for messages.
        free: results that nothing needs after it.
        before: the only operand's step where nothing else reads that one; ``None`` otherwise.
    """

    owner: dict[str, Any]
    name: str
    inputs: tuple[int, ...]
    path: str
    free: tuple[int, ...]
    before: int | None

    @property
    def module(self) -> Any:
        return self.owner[self.name]


def calls(q: QuantizedModel) -> list[Call]:
    """The steps of a model with everything looked up that stays the same from pass to pass."""
    steps = q._qfx_steps
    last = {i: n for n, step in enumerate(steps) for i in step.inputs}
    users = [0] * len(steps)
    for step in steps:
        for i in step.inputs:
            users[i] += 1
    result = []
    for n, step in enumerate(steps):
        owner, _, name = step.target.rpartition(".")
        alone = len(step.inputs) == 1 and users[step.inputs[0]] == 1
        result.append(
            Call(
                q.get_submodule(owner)._modules,
                name,
                step.inputs,
                step.path,
                tuple(i for i in dict.fromkeys(step.inputs) if last[i] == n),
                step.inputs[0] if alone else None,
            )
        )
    return result


def run(program: list[Call], x: torch.Tensor) -> torch.Tensor:
    """The result of all steps in training.

    Raises:
        QfxError: what a module raised, with its path in front.
    """
    values: dict[int, torch.Tensor] = {}
    skipped = _skipped(program, x)
    path = ""
    try:
        for n, call in enumerate(program):
            if n in skipped:
                values[n] = values.pop(call.inputs[0])
                continue
            path = call.path
            inputs = call.inputs
            if call.before in skipped:
                values[n] = _relu_and_cast(program[call.before], call, values.pop(call.before))
                continue
            if len(inputs) == 1:
                values[n] = call.module(values[inputs[0]])
            else:
                values[n] = call.module(*[values[i] for i in inputs]) if inputs else call.module(x)
            for i in call.free:
                del values[i]
    except QfxError as error:
        if str(error).startswith(path):
            raise
        raise type(error)(f"{path}: {error}") from error
    return values[len(program) - 1]


def _skipped(program: list[Call], x: torch.Tensor) -> set[int]:
    """The ReLUs that are computed together with the cast behind them."""
    if device.wanted(x) or _has_any_global_hook():
        return set()
    found = set()
    for call in program:
        if call.before is None:
            continue
        relu, quantizer = program[call.before].module, call.module
        if (
            type(relu) is QuantReLU
            and isinstance(quantizer, Quantizer)
            and quantizer.fused_arguments is not None
            and not quantizer.bypass
            and _unhooked(relu)
            and _unhooked(quantizer)
        ):
            found.add(call.before)
    return found


def _unhooked(module: torch.nn.Module) -> bool:
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _relu_and_cast(relu: Call, call: Call, x: torch.Tensor) -> torch.Tensor:
    quantizer = call.module
    if fused.takes(quantizer, x):
        y = fused.cast(quantizer, x, relu=True)
        if y is not None:
            return y
    result: torch.Tensor = quantizer(relu.module(x))
    return result
