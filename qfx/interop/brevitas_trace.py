"""Tracing a brevitas model: its operations, what each quantizer returned at each of them, and all shapes.

A scale is a result of the forward pass (statistics of weights, products of other scales), so it is read from
what the quantizers return in ``eval()``, not from their many kinds of parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.quant_tensor import QuantTensor

from qfx.errors import QfxError, UnsupportedError
from qfx.exact import exact_float32
from qfx.learn.trace import Traced, cleaned, default_arguments, module_path, respect_in_place

#: What a quantizer took and what it returned, in order of its calls.
Calls = list[tuple[Any, Any]]


@dataclass
class BrevitasRun:
    """What one forward pass showed.

    Attributes:
        values: result of every fx node, a tensor without brevitas's metadata.
        calls: by fx node and quantizer; layers may share one.
    """

    values: dict[torch.fx.Node, Any] = field(default_factory=dict)
    calls: dict[tuple[torch.fx.Node, torch.nn.Module], Calls] = field(default_factory=dict)


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("brevitas.") or super().is_leaf_module(m, module_qualified_name)


def trace_brevitas(model: torch.nn.Module, example: torch.Tensor) -> tuple[Traced, BrevitasRun]:
    """Trace a model in ``eval()`` and run it on ``example``, and on other numbers in a larger batch.

    Raises:
        UnsupportedError: torch.fx cannot follow the model's Python code.
        QfxError: the example input does not fit the model.
    """
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or example.shape[0] < 1:
        found = tuple(example.shape) if isinstance(example, torch.Tensor) else type(example).__name__
        raise QfxError(
            f"from_brevitas: example_input must be a batch, a tensor of shape (samples, ...), found {found}"
        )
    try:
        graph = _Tracer().trace(model, concrete_args=default_arguments(model) or None)
        traced = cleaned(model, graph)
        respect_in_place(traced)
    except UnsupportedError as error:
        raise UnsupportedError(str(error).replace("prepare:", "from_brevitas:")) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(
            f"from_brevitas: torch.fx cannot trace the model: {reason}. The forward pass must not branch on "
            "values or shapes of tensors; move such code out of the model"
        ) from error
    first = run_traced(traced, graph, example)
    # Other numbers and another batch size: what changes now depends on them.
    other = run_traced(traced, graph, torch.cat([example * 3 + 1, example[:1]]))
    _find_dynamic(traced, first, other, len(example))
    _check_static(model, first, other)
    return traced, first


def run_traced(traced: Traced, graph: torch.fx.Graph, batch: torch.Tensor) -> BrevitasRun:
    """Run the nodes of a traced model one by one and keep everything."""
    run = BrevitasRun()
    current: list[torch.fx.Node] = []

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            current[:] = [n]
            try:
                value = super().run_node(n)
            except Exception as error:
                reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
                raise QfxError(
                    "from_brevitas: the model fails on example_input of shape "
                    f"{tuple(batch.shape)} at {module_path(n) or n.name}: {reason}"
                ) from error
            plain = value.value if isinstance(value, QuantTensor) else value
            run.values[n] = plain.clone() if isinstance(plain, torch.Tensor) else plain
            return value

    def record(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        run.calls.setdefault((current[0], module), []).append((inputs[0], output))

    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    arguments = [batch if n is traced.inputs else (n.args[0] if n.args else None) for n in placeholders]
    with _hooks(traced.model, record), torch.no_grad(), exact_float32():
        Recorder(traced.model, garbage_collect_values=False, graph=graph).run(
            *arguments, enable_io_processing=False
        )
    return run


@contextmanager
def _hooks(model: torch.nn.Module, record: Callable[..., None]) -> Iterator[None]:
    handles = [
        module.register_forward_hook(record)
        for module in model.modules()
        if isinstance(module, QuantProxyFromInjector)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _find_dynamic(traced: Traced, first: BrevitasRun, other: BrevitasRun, batch: int) -> None:
    traced.values = first.values
    for node in traced.nodes:
        depends = node is traced.inputs or any(a in traced.dynamic for a in node.all_input_nodes)
        value, again = first.values.get(node), other.values.get(node)
        if not depends or not isinstance(value, torch.Tensor) or not isinstance(again, torch.Tensor):
            continue
        traced.dynamic.add(node)
        if (value.shape[:1], again.shape[:1]) == ((batch,), (batch + 1,)) and value.shape[1:] == again.shape[
            1:
        ]:
            traced.sizes[node] = tuple(value.shape[1:])


def _check_static(model: torch.nn.Module, first: BrevitasRun, other: BrevitasRun) -> None:
    """Scales that follow the data have no place in a frozen network."""
    paths = {module: path for path, module in model.named_modules()}
    moving = []
    for key, calls in first.calls.items():
        for (_, one), (_, two) in zip(calls, other.calls.get(key, []), strict=False):
            if isinstance(one, QuantTensor) and not _same_scale(one, two):
                moving.append(paths[key[1]])
    if moving:
        listed = "\n".join(f"  {path}: its scale depends on the data" for path in dict.fromkeys(moving))
        raise UnsupportedError(
            "from_brevitas: these quantizers choose their scale in every forward pass; use a static scale "
            f"(a parameter, or statistics of a calibration):\n{listed}"
        )


def _same_scale(one: Any, two: Any) -> bool:
    a, b = getattr(one, "scale", None), getattr(two, "scale", None)
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return a is b
    return a.shape == b.shape and bool((a == b).all())


def double_run(
    traced: Traced, run: BrevitasRun, example: torch.Tensor
) -> tuple[torch.nn.Module, BrevitasRun] | None:
    """The model in float64 and its run, where the products and sums of the graph are exact.

    ``None`` when its quantizers come out with other scales: some are computed with logarithms and statistics
    of the weights, in the precision of the model.
    """
    model = copy.deepcopy(traced.model).double()
    graph = traced.inputs.graph
    again = run_traced(Traced(model, traced.nodes, traced.inputs, traced.output), graph, example.double())
    twins = dict(zip(traced.model.modules(), model.modules(), strict=True))
    for (node, module), calls in run.calls.items():
        for (_, one), (_, two) in zip(calls, again.calls[node, twins[module]], strict=True):
            if isinstance(one, QuantTensor) and not _same_scale(one, two):
                return None
    return model, again
