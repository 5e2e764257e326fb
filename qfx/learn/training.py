"""The forward pass of training: every operator in turn, with less between them.

A ReLU and the cast behind it are computed as one, which saves a pass over the data and what ReLU would keep
for backward. Weights and biases so small that calling takes longer than computing are cast together. Values
and gradients are the same. A module that somebody hooked into runs by itself, so that the hook sees what it
would see otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import _has_any_global_hook

from qfx.errors import QfxError
from qfx.learn import mixed
from qfx.nn import device, fused
from qfx.nn.elementwise import QuantReLU
from qfx.nn.module import Exact
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import QuantConv, QuantLinear

if TYPE_CHECKING:
    from qfx.learn.model import QuantizedModel

#: Constants of up to this many numbers are cast together. The gradients of larger ones should be there as
#: soon as they are known, which DistributedDataParallel makes use of.
SMALL = 1 << 14


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


def run(program: list[Call], x: torch.Tensor, half: frozenset[int] = frozenset()) -> torch.Tensor:
    """The result of all steps in training.

    Args:
        half: steps whose products run in bfloat16 (:mod:`qfx.learn.mixed`).

    Raises:
        QfxError: what a module raised, with its path in front.
    """
    values: dict[int, torch.Tensor] = {}
    plain = device.wanted(x) or _has_any_global_hook()
    relus = set() if plain else _fused_relus(program)
    ready = {} if plain else _small_constants(program)
    path = ""
    try:
        for n, call in enumerate(program):
            path = call.path
            inputs = call.inputs
            if n in relus:
                values[n] = values.pop(inputs[0])
                continue
            if call.before in relus:
                values[n] = _relu_and_cast(program[call.before], call, values.pop(call.before))
                continue
            if n in half:
                how = {"exact": ready.pop(n)} if n in ready else {}
                values[n] = mixed.products(call.module, [values[i] for i in inputs], **how)
            elif n in ready:
                values[n] = call.module(values[inputs[0]], exact=ready.pop(n))
            elif len(inputs) == 1:
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


def _fused_relus(program: list[Call]) -> set[int]:
    """The ReLUs that are computed together with the cast behind them."""
    found = set()
    for call in program:
        if call.before is None:
            continue
        relu, quantizer = program[call.before].module, call.module
        if type(relu) is QuantReLU and _free(quantizer) and _unhooked(relu):
            found.add(call.before)
    return found


def _small_constants(program: list[Call]) -> dict[int, Exact]:
    """Weights and biases that are cast together, by their step."""
    owners: list[int] = []
    casts: list[Any] = []
    constants: list[Any] = []
    for n, call in enumerate(program):
        module = call.module
        if type(module) not in (QuantLinear, QuantConv) or not _unhooked(module):
            continue
        # Not by attribute, which torch looks up in three places. A weight that is computed is not here.
        pairs = [
            (module._modules.get(f"{name}_quantizer"), module._parameters.get(name))
            for name in ("weight", "bias")
        ]
        if pairs[1] == (None, None):
            pairs.pop()
        if all(_small(quantizer, constant) for quantizer, constant in pairs):
            for quantizer, constant in pairs:
                owners.append(n)
                casts.append(quantizer)
                constants.append(constant)
    done = fused.cast_all(casts, constants) if casts else None
    found: dict[int, tuple[torch.Tensor, ...]] = {}
    for n, constant in zip(owners, done or (), strict=False):
        found[n] = (*found.get(n, ()), constant)
    return {n: Exact(torch.float32, ready) for n, ready in found.items()}


def _small(quantizer: Any, constant: torch.Tensor | None) -> bool:
    return (
        constant is not None
        and constant.numel() <= SMALL
        and _free(quantizer)
        and not quantizer.gaps
        and fused.takes(quantizer, constant)
    )


def _free(module: Any) -> bool:
    """Whether a module is a quantizer of the compiled kind that nobody hooked into."""
    return (
        isinstance(module, Quantizer)
        and module.fused_arguments is not None
        and not module.bypass
        and _unhooked(module)
    )


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
