"""Operators on whole arrays as stages: reductions, repetition, slices, products, look-ups (docs/rtl.md).

They work in the order in which their operand comes, as long as that is one loop per axis, in whichever
nesting; otherwise a reorder stands in front.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from qfx.graph import Node
from qfx.graph import ops as op
from qfx.graph.arrays import Gather, InsertZeros, MatMul, ReduceMax, ReduceSum, Repeat, Slice
from qfx.graph.tensor import integers
from qfx.rtl import array_stages as stages
from qfx.rtl.stages import Value
from qfx.rtl.values import bits_of, loop_order, stream_value

if TYPE_CHECKING:
    from qfx.rtl.lower import Lowering

Axes = tuple[int, ...]


def _loops(lowering: Lowering, node: Node, index: int = 0) -> tuple[Value, Axes]:
    """An operand, and the axes of its tensor from the outermost loop of its stream to the innermost."""
    x = lowering.operand(node, index)
    shape = lowering.graph[node.inputs[index]].tensor.shape
    rank = len(shape)
    # Channels last is the usual order; it is tried first.
    for axes in sorted(permutations(range(rank)), key=lambda a: a != (*range(1, rank), 0)):
        if np.array_equal(x.order, loop_order(shape, axes)):
            return x, axes
    return lowering.in_order(x), (*range(1, rank), 0)


def _result(node: Node, axes: Axes) -> Value:
    return stream_value(node.tensor, node.name, node.name, loop_order(node.tensor.shape, axes))


def _fitted(lowering: Lowering, node: Node, x: Value, like: Value) -> Value:
    """``x`` in the element format of the result: where elements only move, it may be narrower."""
    return lowering.aligned(node, x, 0, x.fracs, like.width, like.signed)


def _nothing(lowering: Lowering, node: Node, x: Value, out: Value, why: str) -> Value:
    """The result is the operand as it comes; or only its words change."""
    if (x.width, x.signed) == (out.width, out.signed):
        lowering.notes[node.name] = why
        return replace(out, name=x.name)
    return lowering.shifted(node, replace(x, fracs=out.fracs, channels=out.channels, pixels=out.pixels), out)


def lower_slice(lowering: Lowering, node: Node) -> Value:
    """Takes every beat, hands on the wanted ones."""
    o = node.op
    assert isinstance(o, Slice)
    x, axes = _loops(lowering, node)
    shape = lowering.graph[node.inputs[0]].tensor.shape
    out = _result(node, axes)
    if node.tensor.shape == shape:
        return _nothing(lowering, node, x, out, "keeps everything")
    loops = [(shape[a], o.starts[a], o.steps[a], node.tensor.shape[a]) for a in axes]
    for i in range(len(loops) - 2, -1, -1):
        # A loop inside that is taken whole makes the places of the outer one follow one another.
        (size, start, step, count), (inner, _, _, kept) = loops[i], loops[i + 1]
        if kept == inner and step == 1:
            loops[i : i + 2] = [(size * inner, start * inner, 1, count * inner)]
    first = [(1, 0, 1, 1)] * (3 - len(loops))
    sizes, starts, steps, counts = zip(*first, *loops, strict=True)
    x = _fitted(lowering, node, x, out)
    return lowering.put(stages.Slice(node.name, (x,), out, sizes, starts, steps, counts))


def lower_repeat(lowering: Lowering, node: Node) -> Value:
    """One stage for each axis, the outermost loop first: its memory holds what is inside it, unrepeated."""
    o = node.op
    assert isinstance(o, Repeat)
    x, axes = _loops(lowering, node)
    shape = lowering.graph[node.inputs[0]].tensor.shape
    out = _result(node, axes)
    todo = [i for i, a in enumerate(axes) if o.times[a] > 1]
    if not todo:
        return _nothing(lowering, node, x, out, "repeats nothing")
    x = _fitted(lowering, node, x, out)
    # Neighbours whose inner one has size 1 are one repetition: four and three times is twelve times.
    steps: list[tuple[int, int]] = []
    for i in todo:
        block = prod(shape[a] for a in axes[i + 1 :])
        if steps and steps[-1][0] == block and shape[axes[i]] == 1:
            steps[-1] = block, steps[-1][1] * o.times[axes[i]]
        else:
            steps.append((block, o.times[axes[i]]))
    size = x.size
    for number, (block, times) in enumerate(steps, 1):
        size *= times
        made = out
        if number < len(steps):
            made = _passing(out, f"{node.name}_repeat{number}", size)
        x = lowering.put(stages.Repeat(node.name, (x,), made, block, times))
    return x


def _passing(out: Value, name: str, size: int) -> Value:
    """A stream on the way to a result: flat, its order is nobody's business."""
    return replace(
        out,
        name=name,
        node=None,
        pixels=1,
        channels=size,
        order=np.arange(size),
        fracs=(out.fracs[0],) * size,
    )


def lower_reduce(lowering: Lowering, node: Node) -> Value:
    """One stage for each run of neighbouring loops that are reduced, the innermost first."""
    o = node.op
    assert isinstance(o, ReduceSum | ReduceMax)
    source = lowering.graph[node.inputs[0]].tensor
    x, axes = _loops(lowering, node)
    if 0 in o.axes and len(set(source.fracs)) > 1:
        top = source.format.max_frac
        shifts = op.to_frac(source, top)
        ends = bits_of(int((source.low << shifts).min()), int((source.high << shifts).max()))
        x = lowering.aligned(node, x, 0, (top,) * x.channels, *ends)
    out = _result(node, axes)
    runs: list[list[int]] = []  # positions of loops
    for i, a in enumerate(axes):
        if source.shape[a] == 1:
            continue
        if a in o.axes and runs and runs[-1]:
            runs[-1].append(i)
        elif a in o.axes:
            runs.append([i])
        else:
            runs.append([])
    runs = [run for run in runs if run]
    if not runs:
        return _nothing(lowering, node, x, out, "reduces nothing")
    left = [source.shape[a] for a in axes]
    mode = int(isinstance(o, ReduceSum))
    for number, run in enumerate(reversed(runs), 1):
        length = prod(left[i] for i in run)
        inner = prod(left[run[-1] + 1 :])
        for i in run:
            left[i] = 1
        made = out
        if number < len(runs):
            made = _passing(out, f"{node.name}_reduce{number}", x.size // length)
            if not mode:
                # Numbers on the way may be smaller than any result.
                made = replace(made, width=x.width, signed=x.signed)
        x = lowering.put(stages.Reduce(node.name, (x,), made, length, inner, mode))
    return x


def lower_insert_zeros(lowering: Lowering, node: Node) -> Value:
    """Pixels of zeros between the others, in rows and columns."""
    o = node.op
    assert isinstance(o, InsertZeros)
    x = lowering.in_order(lowering.operand(node))
    out = lowering.tensor_value(node, node.name)
    shape = lowering.graph[node.inputs[0]].tensor.shape
    if node.tensor.shape == shape:
        return _nothing(lowering, node, x, out, "inserts nothing")
    x = _fitted(lowering, node, x, out)
    (_, height, width), (_, *factors) = (1, 1, *shape[1:])[-3:], (1, 1, *o.factors)[-3:]
    size = height, width
    return lowering.put(stages.InsertZeros(node.name, (x,), out, size, (factors[0], factors[1])))


def lower_matmul(lowering: Lowering, node: Node) -> Value:
    """The first operand by rows; the second by rows if it comes so, else by columns."""
    assert isinstance(node.op, MatMul)
    left, right = (lowering.graph[name].tensor for name in node.inputs)
    a = lowering.ordered(lowering.operand(node), np.arange(left.size))
    b = lowering.operand(node, 1)
    by_row = bool(np.array_equal(b.order, np.arange(right.size)))
    if not by_row:
        columns = np.arange(right.size).reshape(right.shape)
        b = lowering.ordered(b, columns.swapaxes(-1, -2).reshape(-1))
    if len(right.shape) == 2 and len(set(right.fracs)) > 1:
        top = right.format.max_frac
        shifts = op.to_frac(right, top)
        ends = bits_of(int((right.low << shifts).min()), int((right.high << shifts).max()))
        b = lowering.aligned(node, b, 1, (top,) * b.channels, *ends)
    out = stream_value(node.tensor, node.name, node.name, np.arange(node.tensor.size))
    batch, rows, inner = (1, *left.shape)[-3:]
    return lowering.put(stages.MatMul(node.name, (a, b), out, batch, rows, inner, right.shape[-1], by_row))


def lower_gather(lowering: Lowering, node: Node) -> Value:
    """The rows that codes can ask for, in the order of the codes; elements of a row follow one another."""
    o = node.op
    assert isinstance(o, Gather)
    x = lowering.operand(node)
    last = min(max(int(lowering.graph[node.inputs[0]].tensor.high.max()), 0), len(o.table) - 1)
    table = integers(o.table[: last + 1].reshape(last + 1, -1))
    row = table.shape[1]
    order = (x.order[:, None] * row + np.arange(row)).reshape(-1)
    out = stream_value(node.tensor, node.name, node.name, order)
    return lowering.put(stages.Gather(node.name, (x,), out, table))


HANDLERS = {
    Slice: lower_slice,
    Repeat: lower_repeat,
    ReduceSum: lower_reduce,
    ReduceMax: lower_reduce,
    InsertZeros: lower_insert_zeros,
    MatMul: lower_matmul,
    Gather: lower_gather,
}
