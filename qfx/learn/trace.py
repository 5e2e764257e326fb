"""Tracing an ordinary module with torch.fx: nodes, shapes, module paths and source lines."""

from __future__ import annotations

import inspect
import operator
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.fx

from qfx.errors import QfxError, UnsupportedError

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_LINE = "qfx_line"


class _Tracer(torch.fx.Tracer):
    """Leaves are torch's own modules, and subclasses that compute the same as them."""

    def create_node(self, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = super().create_node(*args, **kwargs)
        # The tracer's own record_stack_traces would do, but it imports the whole compiler for it.
        node.meta[_LINE] = _user_line()
        return node

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        if super().is_leaf_module(m, module_qualified_name):
            return True
        for base in type(m).__mro__:
            if base.__module__.startswith("torch.nn.modules") and base not in (
                torch.nn.Module,
                torch.nn.Sequential,
            ):
                # The forward of a subclass of Conv2d that only changes the constructor is torch's own.
                same = all(
                    getattr(type(m), n, None) is getattr(base, n, None) for n in ("forward", "_conv_forward")
                )
                return same and not list(m.children())
        return False


@dataclass
class Traced:
    """What tracing found.

    Attributes:
        model: the module that was traced.
        nodes: the fx nodes in order, without assertions and unused arguments.
        inputs: the node of the network's input.
        output: the node of its result.
        values: result of every node for a batch of two, tensors and others.
        dynamic: tensors that depend on the input.
        sizes: of dynamic nodes, the shape without the batch axis; missing when there is no batch axis in
            front.
        bundles: of nodes whose result is a tuple, the node of each entry.
        derived: parameters that were made of others, by the other's id and what was done to it: a layer that
            is called twice stays one layer.
        paddings: of nodes that only pad with zeros, (before, after) per spatial axis; what pads becomes part
            of the convolutions behind it.
    """

    model: torch.nn.Module
    nodes: list[torch.fx.Node]
    inputs: torch.fx.Node
    output: torch.fx.Node
    values: dict[torch.fx.Node, Any] = field(default_factory=dict)
    dynamic: set[torch.fx.Node] = field(default_factory=set)
    sizes: dict[torch.fx.Node, tuple[int, ...]] = field(default_factory=dict)
    bundles: dict[torch.fx.Node, Any] = field(default_factory=dict)
    derived: dict[tuple[int, str], torch.nn.Parameter] = field(default_factory=dict)
    paddings: dict[torch.fx.Node, tuple[tuple[int, int], ...]] = field(default_factory=dict)


def trace(model: torch.nn.Module, example_input: torch.Tensor) -> Traced:
    """Trace ``model`` in its current mode and run it on batches of two and three samples to learn all shapes.

    Raises:
        UnsupportedError: torch.fx cannot follow the model's Python code.
        QfxError: the example input does not fit the model.
    """
    tracer = _Tracer()
    defaults = default_arguments(model)
    try:
        graph = tracer.trace(model, concrete_args=defaults or None)
    except Exception as error:
        place = _place_of(error) or type(model).__name__
        raise UnsupportedError(
            f"prepare: torch.fx cannot trace the model at {place}: "
            f"{str(error).strip().splitlines()[0] if str(error) else type(error).__name__}. The forward pass "
            "must not "
            f"branch on values or shapes of tensors; move such code out of the model"
        ) from error
    traced = cleaned(model, graph)
    _propagate(traced, graph, example_input)
    respect_in_place(traced)
    return traced


def module_path(node: torch.fx.Node) -> str:
    """The path of the module that a node calls, or in whose code it stands."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def source_line(node: torch.fx.Node) -> str:
    """``file.py:12`` of the user's code that made a node; empty when unknown."""
    return str(node.meta.get(_LINE, ""))


def _user_line() -> str:
    """``file.py:12`` of the innermost frame that is neither torch's nor ours, inside the model."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not trace.__code__:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE, "<")):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def spelled(node: torch.fx.Node) -> str:
    """How the user wrote an operation, for messages."""
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    if node.op == "call_function":
        target = node.target
        name = getattr(target, "__name__", str(target))
        module = getattr(target, "__module__", "") or ""
        if module in ("_operator", "operator"):
            return f"operator.{name}"
        return f"{'torch.nn.functional' if 'functional' in module or '_nn' in module else 'torch'}.{name}"
    return str(node.target)


def fetch(model: torch.nn.Module, target: str) -> Any:
    """An attribute of a model by its dotted path."""
    found: Any = model
    for part in target.split("."):
        found = getattr(found, part)
    return found


def default_arguments(model: torch.nn.Module) -> dict[str, Any]:
    """Arguments of ``forward`` beyond the first that have defaults: they are fixed to these."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    extra = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in extra if p.default is not p.empty}


def cleaned(model: torch.nn.Module, graph: torch.fx.Graph) -> Traced:
    """A traced graph without assertions, unused nodes and unused arguments; one input, one result."""
    inputs: list[torch.fx.Node] = []
    for node in list(graph.nodes):
        if (
            node.op == "call_function"
            and getattr(node.target, "__name__", "") in ("_assert", "_assert_is_none")
            and not node.users
        ):
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        # Reading a size that nothing uses, and the like; in-place operations have an effect without users.
        unused = not node.users and node.op not in ("placeholder", "output") and not _in_place(model, node)
        if unused:
            graph.erase_node(node)
    output = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.users or not inputs:
                inputs.append(node)
        elif node.op == "output":
            output = node.args[0]
    if len(inputs) != 1:
        names = ", ".join(str(n.target) for n in inputs)
        raise UnsupportedError(
            f"prepare: the model takes {len(inputs)} inputs ({names}); one is supported: join them before "
            "the model"
        )
    if not isinstance(output, torch.fx.Node):
        raise UnsupportedError(
            f"prepare: the model returns {type(output).__name__}; it must return one tensor: wrap it in a "
            "module that picks one"
        )
    return Traced(model, [n for n in graph.nodes if n.op != "output"], inputs[0], output)


def _propagate(traced: Traced, graph: torch.fx.Graph, example: torch.Tensor) -> None:
    if not isinstance(example, torch.Tensor) or example.ndim < 2 or example.shape[0] < 1:
        found = tuple(example.shape) if isinstance(example, torch.Tensor) else type(example).__name__
        raise QfxError(
            f"prepare: example_input must be a batch, a tensor of shape (samples, ...), found {found}"
        )
    if not example.is_floating_point() and not takes_codes(traced):
        example = example.float()
    runs = [_results(traced, graph, example[:1].repeat(n, *(1,) * (example.ndim - 1))) for n in (2, 3)]
    traced.values = runs[0]
    for node in traced.nodes:
        depends = node is traced.inputs or any(a in traced.dynamic for a in node.all_input_nodes)
        if depends and not _only_shape(node, runs[0].get(node)):
            traced.dynamic.add(node)
            shapes = [tuple(r[node].shape) if isinstance(r.get(node), torch.Tensor) else () for r in runs]
            if shapes[0][:1] == (2,) and shapes[1][:1] == (3,) and shapes[0][1:] == shapes[1][1:]:
                traced.sizes[node] = shapes[0][1:]


def takes_codes(traced: Traced) -> bool:
    """Whether the input is looked up in an embedding: whole numbers, not measurements."""
    for user in traced.inputs.users:
        if user.op == "call_module" and isinstance(fetch(traced.model, str(user.target)), torch.nn.Embedding):
            return True
        if user.op == "call_function" and user.target is torch.nn.functional.embedding:
            return True
    return False


def _only_shape(node: torch.fx.Node, value: Any) -> bool:
    """Whether a result is made of numbers about shapes rather than of tensors."""
    if isinstance(value, torch.Size | int | float | bool | str | torch.dtype | torch.device):
        return True
    return isinstance(value, tuple | list) and all(isinstance(v, int) for v in value)


def _results(traced: Traced, graph: torch.fx.Graph, batch: torch.Tensor) -> dict[torch.fx.Node, Any]:
    results: dict[torch.fx.Node, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            try:
                value = super().run_node(n)
            except Exception as error:
                path = module_path(n) or str(n.name)
                line = source_line(n)
                raise QfxError(
                    "prepare: the model fails on example_input of shape (samples, "
                    f"{', '.join(map(str, batch.shape[1:]))}) at {path}"
                    f"{f' ({line})' if line else ''}: "
                    f"{str(error).strip().splitlines()[0] if str(error) else type(error).__name__}"
                ) from error
            # In-place operations would change what was seen before.
            results[n] = (
                value.clone()
                if isinstance(value, torch.Tensor) and _in_place_user(n, traced.model)
                else value
            )
            return value

    device = next((p.device for p in traced.model.parameters()), batch.device)
    dtype = next((p.dtype for p in traced.model.parameters() if p.is_floating_point()), batch.dtype)
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    arguments = [
        batch.to(device, dtype if batch.is_floating_point() else batch.dtype)
        if n is traced.inputs
        else (n.args[0] if n.args else None)
        for n in placeholders
    ]
    with torch.no_grad():
        Recorder(traced.model, garbage_collect_values=False, graph=graph).run(
            *arguments, enable_io_processing=False
        )
    return results


def _in_place_user(node: torch.fx.Node, model: torch.nn.Module) -> bool:
    return any(_in_place(model, user) for user in node.users)


_IN_PLACE_OPERATORS = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow, operator.ifloordiv,
    operator.imatmul,
}  # fmt: skip
_VIEWS = {
    "view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "t", "chunk",
    "split", "getitem", "narrow", "select", "unbind", "expand", "detach", "unflatten", "float",
}  # fmt: skip


def _in_place(model: torch.nn.Module, node: torch.fx.Node) -> bool:
    """Whether a node writes its result into its first operand."""
    if node.op == "call_module":
        return bool(getattr(fetch(model, str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        inplace = node.kwargs.get("inplace", False) or node.kwargs.get("out") is not None
        return (
            node.target in _IN_PLACE_OPERATORS
            or bool(inplace)
            or (name.endswith("_") and not name.endswith("__"))
        )
    return False


def respect_in_place(traced: Traced) -> None:
    """After an in-place operation its operand *is* its result: later users see that."""
    order = {node: i for i, node in enumerate(traced.nodes)}
    for node in traced.nodes:
        if not node.all_input_nodes or node not in traced.dynamic or not _in_place(traced.model, node):
            continue
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(first, torch.fx.Node) or first not in traced.dynamic:
            continue
        source = first
        while _is_view(traced.model, source) and isinstance(source.args[0], torch.fx.Node):
            source = source.args[0]
            if any(order.get(u, len(order)) > order[node] for u in source.users):
                raise UnsupportedError(
                    f"prepare: {module_path(node) or 'model'} ({source_line(node)}): {spelled(node)} writes "
                    "into a view of a tensor that is used again later; "
                    f"use the spelling that returns a new tensor"
                )
        for user in list(first.users):
            if user is not node and order.get(user, len(order)) > order[node]:
                user.replace_input_with(first, node)
        if traced.output is first:
            traced.output = node


def _is_view(model: torch.nn.Module, node: torch.fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(
            fetch(model, str(node.target)), torch.nn.Flatten | torch.nn.Identity | torch.nn.Unflatten
        )
    return (
        node.op in ("call_function", "call_method")
        and str(getattr(node.target, "__name__", node.target)) in _VIEWS
    )


def _place_of(error: BaseException) -> str:
    frame, found = error.__traceback__, ""
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE)) and not file.startswith("<"):
            found = f"{Path(file).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found
