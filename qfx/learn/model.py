"""The prepared model: quantized operators in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from qfx.errors import QfxError
from qfx.exact import exact_float32
from qfx.graph.graph import GraphBuilder, Node
from qfx.learn import mixed, training
from qfx.nn.bound import Bound, exact_dtype, float_dtype
from qfx.nn.integer import IntegerStep
from qfx.nn.module import Exact, QuantModule
from qfx.nn.quantizer import InputQuantizer

Plan = list[Exact | IntegerStep]


@dataclass(frozen=True)
class Step:
    """One operator of a prepared model.

    Attributes:
        target: name of the submodule that computes it.
        inputs: indices of the steps whose results it takes.
        path: module path in the original model, for messages.
    """

    target: str
    inputs: tuple[int, ...]
    path: str


class QuantizedModel(torch.nn.Module):
    """What :func:`qfx.prepare` returns: an ordinary module to train, with a submodule for every operator
    under the original module paths.

    In training mode the forward pass computes in float with quantized values. In ``eval()`` its result equals
    the frozen graph's on every bit: every operator runs in float32 or float64, whichever provably holds all
    its partial sums, and in 64-bit integers where neither does (hooks do not see sums of more than 53 bits).
    What that takes is decided from the formats and the actual weights when something changed: a parameter or
    buffer that was written to (by an optimizer, ``load_state_dict``, in-place operators), or a call of
    ``train()`` or ``eval()``. Writing through ``.data`` goes unnoticed by torch; call ``eval()`` again after
    that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._qfx_steps: tuple[Step, ...] = ()
        self._qfx_plan: tuple[Any, Plan] | None = None
        self._qfx_calls: list[training.Call] | None = None

    # -- structure -------------------------------------------------------------------------------------------

    def _qfx_items(self) -> Iterator[tuple[Step, QuantModule]]:
        for step in self._qfx_steps:
            module = self.get_submodule(step.target)
            assert isinstance(module, QuantModule)
            yield step, module

    def _qfx_bounds(self) -> list[Bound]:
        bounds: list[Bound] = []
        for step, module in self._qfx_items():
            with naming(step):
                bounds.append(module.bound(*(bounds[i] for i in step.inputs)))
        return bounds

    def _qfx_nodes(self) -> list[Node]:
        """The node of the graph that every step becomes."""
        builder = GraphBuilder()
        names: list[str] = []
        for step, module in self._qfx_items():
            with naming(step):
                names.append(module.emit(builder, tuple(names[i] for i in step.inputs), step.path))
        graph = builder.build(names[-1])
        return [graph[name] for name in names]

    # -- computing -------------------------------------------------------------------------------------------

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._qfx_check_input(x)
        first = self.get_submodule(self._qfx_steps[0].target)
        if self.training or first.bypass:
            if not torch.is_autocast_enabled(x.device.type):
                return self._qfx_train(x)
            half = mixed.wanted(x.device)
            with torch.autocast(x.device.type, enabled=False):
                return self._qfx_train(x, half)
        plan = self._qfx_make_plan()
        with exact_float32():
            return self._qfx_execute(x, plan)

    def _qfx_train(self, x: torch.Tensor, half: bool = False) -> torch.Tensor:
        if self._qfx_calls is None:
            self._qfx_calls = training.calls(self)
        return training.run(self._qfx_calls, x, mixed.steps(self._qfx_calls) if half else frozenset())

    def _qfx_execute(self, x: torch.Tensor, plan: Plan | None) -> torch.Tensor:
        last_use = {i: n for n, step in enumerate(self._qfx_steps) for i in step.inputs}
        values: dict[int, Any] = {}
        for n, (step, module) in enumerate(self._qfx_items()):
            operands = [values[i] for i in step.inputs] if step.inputs else [x]
            with naming(step):
                if plan is None:
                    values[n] = module(*operands)
                else:
                    how = plan[n]
                    values[n] = (
                        module(*operands, exact=how) if isinstance(how, Exact) else how(module, operands)
                    )
            for i in step.inputs:
                if last_use[i] == n:
                    values.pop(i, None)
        result: torch.Tensor = values[len(self._qfx_steps) - 1]
        return result

    def _qfx_check_input(self, x: torch.Tensor) -> None:
        first = self.get_submodule(self._qfx_steps[0].target)
        assert isinstance(first, InputQuantizer)
        if (
            not isinstance(x, torch.Tensor)
            or x.ndim != len(first.shape) + 1
            or tuple(x.shape[1:]) != first.shape
        ):
            found = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise QfxError(
                f"model input: found {found}, expected a tensor of shape (samples, "
                f"{', '.join(map(str, first.shape))})"
            )

    def _qfx_make_plan(self) -> Plan:
        """The dtype of every step, and its constants when no gradient is wanted of them."""
        grad = torch.is_grad_enabled()
        state = (*self.parameters(), *self.buffers())
        key = (grad, *((t.data_ptr(), t._version, t.dtype) for t in state))
        if self._qfx_plan is not None and self._qfx_plan[0] == key:
            return self._qfx_plan[1]
        bounds = self._qfx_bounds()
        nodes: list[Node] = []
        plan: Plan = []
        for n, (step, module) in enumerate(self._qfx_items()):
            dtype = float_dtype(bounds[n], *(bounds[i] for i in step.inputs))
            if dtype is None and step.inputs:
                nodes = nodes or self._qfx_nodes()
                plan.append(IntegerStep(nodes[n], [nodes[i].tensor for i in step.inputs]))
                continue
            if dtype is None:
                dtype = exact_dtype(step.path, bounds[n])
            with naming(step), torch.no_grad():
                plan.append(Exact(dtype, () if grad else module.constants(dtype)))
        if isinstance(plan[-1], IntegerStep) and plan[-1].wide:
            exact_dtype(self._qfx_steps[-1].path, bounds[-1])
        self._qfx_plan = (key, plan)
        return plan

    # -- what makes the plan stale ---------------------------------------------------------------------------

    def train(self, mode: bool = True) -> QuantizedModel:
        self._qfx_plan = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> QuantizedModel:
        self._qfx_plan = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_qfx_plan": None, "_qfx_calls": None}

    def _replicate_for_data_parallel(self) -> QuantizedModel:
        replica: QuantizedModel = super()._replicate_for_data_parallel()
        replica._qfx_plan = replica._qfx_calls = None
        return replica


class naming:  # noqa: N801  (reads as a word where it is used)
    """A context that puts the module path before the message of a :class:`QfxError`."""

    def __init__(self, step: Step) -> None:
        self._path = step.path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, QfxError) and not str(error).startswith(self._path):
            raise type(error)(f"{self._path}: {error}") from error
