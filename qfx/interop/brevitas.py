"""``qfx.from_brevitas``: a trained brevitas model as an integer graph that computes the same numbers."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import nn

from qfx.errors import QfxError, UnsupportedError
from qfx.graph import ops
from qfx.graph.graph import Graph
from qfx.interop.assemble import UNQUANTIZED, Assembler, Pending, Step, Value
from qfx.interop.exact_ops import inexact_in_float32
from qfx.interop.problems import Problems, Refused
from qfx.learn.trace import Traced


def from_brevitas(model: nn.Module, example_input: torch.Tensor) -> Graph:
    """The integer graph of a brevitas model, equal to its ``eval()`` output on every sample.

    Read are fixed-point quantizers (integers with power-of-two scales and zero point 0), binary ones, and
    saturating minifloats with power-of-two scales; one scale per tensor or per channel. brevitas's ``ROUND``
    is ``RND_CONV``, ``FLOOR`` ``TRN``, ``ROUND_TO_ZERO`` ``TRN_ZERO``; ``narrow_range`` of signed integers is
    ``SAT_SYM``; the scale of a minifloat becomes part of its exponent bias. Every activation quantizer is run
    on ties and on both ends of its range, and the finished graph on ``example_input``, before the graph is
    returned.

    brevitas computes in float32. Where the partial sums of a layer can exceed 24 bits, or a bias is not
    quantized, float32 may round what the graph keeps: a warning lists those layers, and the graph then equals
    ``model.double()``.

    Args:
        model: a brevitas model, traceable by torch.fx. It is not changed. The first thing that happens to its
            input must be a quantizer (operators that only move elements may stand before it).
        example_input: a batch, shape ``(samples, ...)``, float.

    Returns:
        the graph; ``torch_model`` is a copy of the model in float64, for :func:`qfx.verify`.

    Raises:
        UnsupportedError: lists everything that the graph cannot represent, with module path, what was found
            and what to do.
        QfxError: the example input does not fit the model, or an accumulator needs more than 62 bits.
        MissingToolError: brevitas is not installed.

    Source: docs/interop.md; brevitas 0.13 (``IntQuant``, ``TruncIntQuant``).
    """
    if not isinstance(model, nn.Module):
        raise QfxError(f"from_brevitas: model must be a torch.nn.Module, found {type(model).__name__}")
    require_brevitas()
    from qfx.interop.brevitas_layers import LayerReader, Recipe
    from qfx.interop.brevitas_trace import trace_brevitas

    copied = copy.deepcopy(model).cpu().eval()
    if type(copied).__module__.startswith(("brevitas.", "torch.nn.modules")) and not isinstance(
        copied, nn.Sequential
    ):
        # torch.fx would look into a single layer; a container keeps it a layer.
        copied = nn.Sequential()
        copied.add_module(type(model).__name__.lower(), copy.deepcopy(model).cpu().eval())
    parameter = next((p for p in copied.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.dtype not in (torch.float32, torch.float64):
        raise QfxError(
            f"from_brevitas: the model computes in {parameter.dtype}, which rounds sums; use model.float()"
        )
    example = example_input
    if isinstance(example, torch.Tensor):
        example = example.detach().cpu().to(parameter.dtype if parameter is not None else torch.float32)
    traced, run = trace_brevitas(copied, example)

    problems = Problems("from_brevitas: the graph cannot represent these:")
    reader = LayerReader(traced, run, problems)
    recipes: dict[torch.fx.Node, Recipe | torch.fx.Node | None] = {
        node: reader.read(node)
        for node in traced.nodes
        if node in traced.dynamic and node is not traced.inputs
    }
    if traced.output not in traced.dynamic:
        problems.add("model", "its result does not depend on the input")
    shape = traced.sizes.get(traced.inputs, ())
    if not 1 <= len(shape) <= 3:
        problems.add("model", f"its input has shape {shape} without the batch; 1 to 3 axes are supported")
    problems.check()
    values = _assemble(traced, recipes, Assembler(shape, drop_idle_casts=True), problems)
    assembler, output = values.pop("assembler"), values[traced.output.name]
    if isinstance(output, Pending):
        raise UnsupportedError(
            "from_brevitas: nothing in the model is quantized; use the layers of brevitas.nn"
        )
    graph = assembler.builder.build(output)
    inexact = inexact_in_float32(graph)
    if inexact:
        warnings.warn(
            "from_brevitas: float32 may round in these layers, where the graph is exact; it equals "
            "model.double():\n" + "\n".join(f"  {node.where}: {bits} bits" for node, bits in inexact),
            stacklevel=2,
        )
    _compare(graph, traced, run, values, example, max((bits for _, bits in inexact), default=0))
    return graph


def require_brevitas() -> None:
    """Refuse early and clearly when brevitas is missing."""
    from qfx.errors import MissingToolError

    try:
        import brevitas  # noqa: F401
    except ImportError as error:
        raise MissingToolError(
            "from_brevitas needs brevitas; install it with: pip install qfx[brevitas]"
        ) from error


def _assemble(
    traced: Traced, recipes: dict[torch.fx.Node, Any], assembler: Assembler, problems: Problems
) -> dict[str, Any]:
    """Add all operators; the values by fx node name, and the assembler under ``assembler``."""
    values: dict[str, Any] = {traced.inputs.name: Pending(), "assembler": assembler}
    for node, recipe in recipes.items():
        if isinstance(recipe, torch.fx.Node):
            if recipe.name in values:
                values[node.name] = values[recipe.name]
            continue
        if any(n.name not in values for n in recipe.operands):
            continue  # what it takes was refused
        try:
            values[node.name] = _add(assembler, recipe, [values[n.name] for n in recipe.operands])
        except (Refused, QfxError) as refusal:
            problems.add(recipe.path or "model", refusal)
    problems.check()
    return values


def _add(assembler: Assembler, recipe: Any, operands: list[Value]) -> Value:
    taken = []
    for value, steps in zip(operands, recipe.before, strict=True):
        for step in steps:
            value = assembler.add(step, [value])
        taken.append(value)
    value = taken[0]
    if recipe.main is not None:
        op = recipe.main
        if not isinstance(op, ops.Op):
            if isinstance(value, Pending):
                raise Refused(UNQUANTIZED)
            op = op(assembler.tensor(value))
        value = assembler.add(Step(op, recipe.path), taken)
    if recipe.grid is not None and max(assembler.tensor(value).fracs) > recipe.grid:
        raise Refused(
            "truncates a tensor that is not on the grid of its scale (an unquantized bias?); "
            "quantize it before"
        )
    for step in recipe.after:
        value = assembler.add(step, [value])
    return value


class _Reference(nn.Module):
    """The brevitas model with a plain tensor as its result."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parameter = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        result: Any = self.model(x.to(parameter.dtype) if parameter is not None else x)
        return result if isinstance(result, torch.Tensor) else result.value


def _compare(
    graph: Graph, traced: Traced, run: Any, values: dict[str, Any], example: torch.Tensor, bits: int
) -> None:
    """The graph against the model on the example, node by node.

    Raises:
        QfxError: they differ; names the first place.
    """
    from qfx.interop.brevitas_trace import double_run

    double = double_run(traced, run, example)
    graph.torch_model = _Reference(double[0] if double is not None else traced.model).eval()
    if bits > (53 if double is not None else 24):
        return  # the model rounds (and may be another one in float64): there is nothing to compare with
    by_name = {n.name: v for n, v in (double[1] if double is not None else run).values.items()}
    codes = graph.trace(example.double().numpy())
    for name, value in values.items():
        if (
            not isinstance(value, str)
            or value not in codes
            or not isinstance(by_name.get(name), torch.Tensor)
        ):
            continue
        node = graph[value]
        expected = by_name[name].double().numpy()
        found = np.ldexp(
            codes[value].astype(np.float64),
            -np.asarray(node.tensor.fracs).reshape(1, -1, *(1,) * (len(node.tensor.shape) - 1)),
        )
        if (found != expected).any():
            place = tuple(int(i) for i in np.argwhere(found != expected)[0])
            raise QfxError(
                f"from_brevitas: {node.where}: the graph gives {found[place]!r} where the model gives "
                f"{expected[place]!r} (sample {place[0]}, index {place[1:]}). This is an error in QFX or a "
                "quantizer that it does not know: please report it with the definition of the layer"
            )
