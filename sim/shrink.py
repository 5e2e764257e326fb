"""Make a failing case small: every candidate is one simplification of a graph; one that still fails is
kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats import FixedPoint, Format, Minifloat
from qfx.graph import Graph, GraphBuilder, Node, ops
from qfx.sim.case import Case

#: Bits of fixed-point formats that take the place of others.
_WIDEST = 40

Rebuild = Callable[[Node, ops.Op], ops.Op | None]


def shrink(case: Case, fails: Callable[[Case], str], attempts: int) -> Case:
    """The smallest case found that still fails.

    Args:
        case: a failing case.
        fails: what is wrong with a case, "" when nothing is; called for every attempt.
        attempts: how many times `fails` may be called.
    """
    progress = True
    while progress:
        progress = False
        for candidate in candidates(case):
            if attempts <= 0:
                return case
            attempts -= 1
            if fails(candidate):
                case, progress = candidate, True
                break
    return case


def candidates(case: Case) -> Iterator[Case]:
    """Simpler cases, the boldest first. Those that do not build are left out."""
    for make in (_options, _graphs, _samples):
        for change in make(case):
            try:
                yield change()
            except QfxError:
                continue


def size(case: Case) -> tuple[int, int]:
    """Nodes and samples: what shrinking brings down."""
    return len(case.graph.nodes), len(case.x)


# -- changes
# -----------------------------------------------------------------------------------------------------------

Change = Callable[[], Case]


def _options(case: Case) -> Iterator[Change]:
    if len(case.simulations) > 1:
        for index in range(len(case.simulations)):
            yield lambda i=index: case.replace(simulations=(case.simulations[i],))  # type: ignore[misc]
    if case.simulations != ({},) and len(case.simulations) == 1:
        yield lambda: case.replace(simulations=({},))
    if len(case.rtl) > 1:
        for index in range(len(case.rtl)):
            yield lambda i=index: case.replace(rtl=(case.rtl[i],))  # type: ignore[misc]
    for index, options in enumerate(case.rtl):
        for key in options:
            if key != "architecture":
                yield lambda i=index, k=key: case.replace(rtl=_without(case.rtl, i, k))  # type: ignore[misc]
        places = options.get("weights", {})
        for name in places if len(places) > 1 else ():
            fewer = {n: where for n, where in places.items() if n != name}
            yield lambda i=index, w=fewer: case.replace(rtl=_with_weights(case.rtl, i, w))  # type: ignore[misc]
    for key in case.hls:
        yield lambda k=key: case.replace(hls={n: v for n, v in case.hls.items() if n != k})  # type: ignore[misc]


def _without(designs: tuple[dict[str, Any], ...], index: int, key: str) -> tuple[dict[str, Any], ...]:
    """The designs with one option less."""
    changed = {name: value for name, value in designs[index].items() if name != key}
    return (*designs[:index], changed, *designs[index + 1 :])


def _with_weights(
    designs: tuple[dict[str, Any], ...], index: int, weights: dict[str, str]
) -> tuple[dict[str, Any], ...]:
    """The designs, one of them with the weights of these layers only in a place of their own."""
    return (*designs[:index], {**designs[index], "weights": weights}, *designs[index + 1 :])


def _samples(case: Case) -> Iterator[Change]:
    count = len(case.x)
    if count > 1:
        # Two halves, then single samples.
        yield lambda: case.replace(x=case.x[: count // 2])
        yield lambda: case.replace(x=case.x[count // 2 :])
        if count <= 4:
            for index in range(count):
                yield lambda i=index: case.replace(x=case.x[i : i + 1])  # type: ignore[misc]
    if (case.x != 0).any():
        half = np.array(case.x)
        half.reshape(-1)[: half.size // 2] = 0
        if (half != case.x).any():
            yield lambda: case.replace(x=half)


def _graphs(case: Case) -> Iterator[Change]:
    """Graphs with fewer nodes first, then simpler nodes."""
    graph = case.graph
    nodes = graph.nodes
    for index in _middle_first(len(nodes) - 1):
        yield lambda i=index: _with(case, _cut_behind(graph, i))  # type: ignore[misc]
    for index in _middle_first(len(nodes) - 1):
        if index:
            yield lambda i=index: _start_at(case, i)  # type: ignore[misc]
    for node in reversed(nodes[1:]):
        for operand in node.inputs:
            if graph[operand].tensor.shape == node.tensor.shape:
                yield lambda n=node, o=operand: _with(case, _bypass(graph, n, o))  # type: ignore[misc]
    for node in nodes:
        for op in _simpler(node.op):
            yield lambda n=node, o=op: _with(case, _with_op(graph, n, o))  # type: ignore[misc]


def _middle_first(count: int) -> list[int]:
    """0 .. count-1, the middle first: halving is faster than taking one by one."""
    return sorted(range(count), key=lambda i: abs(2 * i - count + 1))


def _with(case: Case, graph: Graph) -> Case:
    # Nodes keep their names, so what options say of a layer stays with it. Folds need not divide what is left
    # of it, though, and the torch model is another network.
    return case.replace(
        graph=graph,
        rtl=tuple(_for_graph(options, graph) for options in case.rtl),
        module=None,
        state={},
    )


def _for_graph(options: dict[str, Any], graph: Graph) -> dict[str, Any]:
    """Options of a design as far as they fit another graph: no folds, and the layers that are still there."""
    kept = {k: v for k, v in options.items() if k != "fold"}
    weighted = [node for node in graph.nodes if isinstance(node.op, ops.Weighted)]
    layers = options.get("architecture")
    if isinstance(layers, dict):
        paths = [node.path for node in weighted]
        kept["architecture"] = {n: kind for n, kind in layers.items() if paths.count(n) == 1}
    if "weights" in options:
        names = {node.name for node in weighted}
        kept["weights"] = {n: where for n, where in options["weights"].items() if n in names}
    return kept


def _cut_behind(graph: Graph, index: int) -> Graph:
    """The graph up to a node."""
    return _copy(graph, output=graph.nodes[index].name)


def _start_at(case: Case, index: int) -> Case:
    """The graph from a node on: its tensor becomes the input, with the values that it had."""
    graph, node = case.graph, case.graph.nodes[index]
    tensor = node.tensor
    fmt = tensor.format
    builder = GraphBuilder()
    names = {node.name: builder.add(ops.Input(tensor.shape, fmt), path=node.path, name=node.name)}
    for later in graph.nodes[index + 1 :]:
        if all(operand in names for operand in later.inputs):
            operands = [names[i] for i in later.inputs]
            names[later.name] = builder.add(later.op, operands, later.path, later.name)
    if graph.output not in names:
        raise QfxError("another path leads around this node")
    values = fmt.decode(graph.trace(case.x)[node.name], axis=1)
    return _with(case, builder.build(names[graph.output])).replace(x=values)


def _bypass(graph: Graph, node: Node, operand: str) -> Graph:
    """The graph without a node whose result has the shape of its operand."""
    return _copy(graph, bypass={node.name: operand})


def _with_op(graph: Graph, node: Node, op: ops.Op) -> Graph:
    return _copy(graph, changed={node.name: op})


def _copy(
    graph: Graph,
    output: str | None = None,
    bypass: dict[str, str] | None = None,
    changed: dict[str, ops.Op] | None = None,
) -> Graph:
    builder = GraphBuilder()
    names: dict[str, str] = {}
    for node in graph.nodes:
        if bypass and node.name in bypass:
            names[node.name] = names[bypass[node.name]]
            continue
        op = (changed or {}).get(node.name, node.op)
        names[node.name] = builder.add(op, [names[i] for i in node.inputs], node.path, node.name)
    return builder.build(names[output or graph.output])


# -- simpler operators
# -------------------------------------------------------------------------------------------------


def _simpler(op: ops.Op) -> Iterator[ops.Op]:
    """The operator with one thing less; the shape of the result may change where the graph allows it."""
    if isinstance(op, ops.Weighted):
        if op.bias is not None:
            yield dataclasses.replace(op, bias=None, bias_format=None)
        if op.weight_encoding is not None:
            yield dataclasses.replace(op, weight_encoding=None)
        if op.weight_format.per_channel:
            yield dataclasses.replace(op, weight_format=op.weight_format.with_frac(op.weight_format.max_frac))
        places = np.flatnonzero(op.weight)
        if len(places) > 1:
            for dropped in np.array_split(places, 2):
                weight = op.weight.copy()
                weight.reshape(-1)[dropped] = 0
                yield dataclasses.replace(op, weight=weight)
    if isinstance(op, ops.Conv | ops.MaxPool | ops.AvgPool):
        rank = len(op.stride)
        if any(p for pair in op.padding for p in pair):
            yield dataclasses.replace(op, padding=((0, 0),) * rank)
        if max(op.stride) > 1:
            yield dataclasses.replace(op, stride=(1,) * rank)
    if isinstance(op, ops.Conv):
        if max(op.dilation) > 1:
            yield dataclasses.replace(op, dilation=(1,) * len(op.dilation))
        for axis in range(2, op.weight.ndim):
            if op.weight.shape[axis] > 1:
                yield dataclasses.replace(op, weight=op.weight.take([0], axis=axis))
    if isinstance(op, ops.Cast | ops.Input):
        for fmt in _simpler_formats(op.format):
            yield dataclasses.replace(op, format=fmt)


def _simpler_formats(fmt: Format) -> Iterator[Format]:
    if fmt.has_point and fmt.per_channel:
        yield fmt.with_frac(fmt.max_frac)
    if isinstance(fmt, Minifloat) and fmt.rounding != "TRN":
        yield dataclasses.replace(fmt, rounding="TRN")
    if not isinstance(fmt, FixedPoint):
        # Without gaps: whether they matter.
        if fmt.has_point and fmt.integer_max.bit_length() < _WIDEST:
            frac = fmt.frac  # type: ignore[attr-defined]
            yield FixedPoint(fmt.integer_max.bit_length() + fmt.signed, frac, fmt.signed)
        return
    if fmt.overflow != "WRAP":
        yield dataclasses.replace(fmt, overflow="WRAP")
    if fmt.rounding != "TRN":
        yield dataclasses.replace(fmt, rounding="TRN")


def describe(case: Case) -> dict[str, Any]:
    """What the case is, in a line for people."""
    return {
        "operators": [node.op.kind for node in case.graph.nodes],
        "samples": len(case.x),
        "designs": [dict(options) for options in case.rtl],
        "input": str(case.graph.input_node.tensor.format),
        "shape": list(case.graph.input_node.tensor.shape),
    }
