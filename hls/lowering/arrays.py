"""Operators on whole arrays. Operands stand in channels-last order; each place of the result knows where its
elements come from."""

from __future__ import annotations

from math import prod

import numpy as np

from qfx.graph.arrays import Constant, Gather, InsertZeros, MatMul, ReduceMax, ReduceSum, Repeat, Slice
from qfx.graph.graph import Node
from qfx.graph.tensor import integers
from qfx.hls.kernels import Struct
from qfx.hls.layers import memory_order
from qfx.hls.lowering.design import Design, Value, interval
from qfx.hls.lowering.elementwise import in_memory_order

_HEADER = "qfx_arrays.h"


def _places(x: Value) -> np.ndarray:
    """Where each element stands in memory, in the shape of the graph's tensor."""
    where = np.empty(x.tensor.size, dtype=np.int64)
    where[memory_order(x.tensor.shape)] = np.arange(x.tensor.size)
    return where.reshape(x.tensor.shape)


def _in_memory(node: Node, values: np.ndarray) -> np.ndarray:
    """Facts of each element of the result, in memory order; more axes may follow those of the result."""
    flat = values.reshape(node.tensor.size, -1)
    return flat[memory_order(node.tensor.shape)].reshape(-1)


def _struct(node: Node, x: Value) -> Struct:
    struct = Struct()
    struct.constants(n_in=x.tensor.size, n_out=node.tensor.size, n_chan=node.tensor.channels)
    return struct


def lower_move(design: Design, node: Node, cast: Node | None) -> None:
    """``slice``, ``repeat`` and ``insert_zeros``: a table of sources."""
    op = node.op
    x = in_memory_order(design, design.operands(node)[0], node)
    places = _places(x)
    if isinstance(op, Slice):
        source = places[op.slices]
    elif isinstance(op, Repeat):
        source = places
        for axis, times in enumerate(op.times):
            source = np.repeat(source, times, axis=axis)
    else:
        assert isinstance(op, InsertZeros)
        source = np.full(node.tensor.shape, x.tensor.size)
        source[(slice(None), *(slice(None, None, f) for f in op.factors))] = places
    struct = _struct(node, x)
    struct.table("source", _in_memory(node, source), "unsigned", rom=True)
    design.add_kernel(node, cast, [x], "qfx::frame, qfx::op_select", _HEADER, struct, interval(node.tensor))


def lower_reduce(design: Design, node: Node, cast: Node | None) -> None:
    """Sums and maxima over axes."""
    op = node.op
    assert isinstance(op, ReduceSum | ReduceMax)
    x = in_memory_order(design, design.operands(node)[0], node)
    kept = [a for a in range(len(x.tensor.shape)) if a not in op.axes]
    count = prod(x.tensor.shape[a] for a in op.axes)
    source = _places(x).transpose(*kept, *op.axes).reshape(node.tensor.size, count)
    shifts = op.shifted(x.tensor)
    struct = _struct(node, x)
    struct.constants(is_sum=isinstance(op, ReduceSum), count=count, in_chan=x.tensor.channels)
    struct.table("source", _in_memory(node, source), "unsigned", rom=True)
    struct.table("up", shifts, "int")
    ends = (x.tensor.low << shifts).min(), (x.tensor.high << shifts).max()
    low, high = interval(node.tensor)
    met = min(low, int(ends[0])), max(high, int(ends[1]))
    design.add_kernel(node, cast, [x], "qfx::frame, qfx::op_reduce", _HEADER, struct, met)


def lower_matmul(design: Design, node: Node, cast: Node | None) -> None:
    """Products of two tensors."""
    op = node.op
    assert isinstance(op, MatMul)
    a, b = (in_memory_order(design, x, node) for x in design.operands(node))
    struct = _struct(node, a)
    batch, rows, inner = (1, *a.tensor.shape)[-3:]
    columns = b.tensor.shape[-1]
    struct.constants(n_in1=b.tensor.size, in1_chan=b.tensor.channels)
    struct.constants(batch=batch, rows=rows, inner=inner, columns=columns)
    for number, shape in enumerate((a.tensor.shape, b.tensor.shape, node.tensor.shape)):
        # Channels, axis 0, are the fastest in memory.
        strides = {0: 1, len(shape) - 1: shape[0]}
        if len(shape) == 3:
            strides[1] = shape[0] * shape[2]
        first = len(shape) - 2
        struct.constants(**{f"batch{number}": strides[0] if first else 0})
        struct.constants(**{f"row{number}": strides[first], f"column{number}": strides[first + 1]})
    rise = op.rise([a.tensor, b.tensor])
    struct.table("up1", rise, "int")
    ends = [*(b.tensor.low << rise), *(b.tensor.high << rise), *interval(node.tensor)]
    met = int(min(ends)), int(max(ends))
    design.add_kernel(node, cast, [a, b], "qfx::frame2, qfx::op_matmul", _HEADER, struct, met)


def lower_gather(design: Design, node: Node, cast: Node | None) -> None:
    """Rows of a table; only those that codes can ask for."""
    op = node.op
    assert isinstance(op, Gather)
    x = in_memory_order(design, design.operands(node)[0], node)
    last = min(max(int(x.tensor.high.max()), 0), len(op.table) - 1)
    table = integers(op.table[: last + 1]).reshape(last + 1, -1)
    size = table.shape[1]
    source = np.repeat(_places(x).reshape(-1), size)
    offset = np.tile(np.arange(size), x.tensor.size)
    struct = _struct(node, x)
    struct.constants(rows=last + 1, row_size=size)
    struct.table("entries", table.reshape(-1), rom=True)
    struct.table("source", _in_memory(node, source), "unsigned", rom=True)
    struct.table("offset", _in_memory(node, offset), "unsigned", rom=True)
    design.add_kernel(node, cast, [x], "qfx::frame, qfx::op_gather", _HEADER, struct, interval(node.tensor))


def lower_constant(design: Design, node: Node, cast: Node | None) -> None:
    """A memory; the input of the design starts it."""
    op = node.op
    assert isinstance(op, Constant)
    trigger = next(iter(design.values.values()))
    struct = _struct(node, trigger)
    struct.table("entries", _in_memory(node, integers(op.codes)), rom=True)
    kernel = "qfx::frame, qfx::op_constant"
    design.add_kernel(node, cast, [trigger], kernel, _HEADER, struct, interval(node.tensor))
