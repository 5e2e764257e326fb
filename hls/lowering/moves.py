"""Operators that move elements without changing them; the input and the output of the design.

Memory is channels-last, the graph channels-first. A flattened tensor therefore stands in another order than
the graph's. It is left so as long as only operators follow that can live with it (the weights of a dense
layer are permuted instead), and put in order where that matters.
"""

from __future__ import annotations

import numpy as np

from qfx.graph import ops
from qfx.graph.graph import Node
from qfx.graph.tensor import Tensor
from qfx.hls.carriers import carrier, carries_values
from qfx.hls.kernels import Struct
from qfx.hls.layers import LayerSpec, memory_order, memory_shape
from qfx.hls.lowering.design import Design, Value, interval, present_order


def lower_input(design: Design, node: Node, _: Node | None) -> None:
    """The words of the input format; real numbers become codes on the host."""
    shape = list(memory_shape(node.tensor.shape))
    design.add((node,), "InputLayer", [], carrier(node.tensor), {}, {"input_shape": shape})


def lower_reshape(design: Design, node: Node, _: Node | None) -> None:
    """Another shape of the same flat elements."""
    (x,) = design.operands(node)
    _move(design, node, x, np.arange(x.tensor.size))


def lower_transpose(design: Design, node: Node, _: Node | None) -> None:
    """Elements permuted by axes."""
    op = node.op
    assert isinstance(op, ops.Transpose)
    (x,) = design.operands(node)
    _move(design, node, x, np.arange(x.tensor.size).reshape(x.tensor.shape).transpose(op.axes).reshape(-1))


def _move(design: Design, node: Node, x: Value, source: np.ndarray) -> None:
    """Make the tensor of ``node``, whose flat element ``i`` is the operand's flat element ``source[i]``."""
    shape = memory_shape(node.tensor.shape)
    canonical = memory_order(node.tensor.shape)
    where = np.empty(source.size, dtype=np.int64)
    where[source] = np.arange(source.size)
    order = where[present_order(x)]  # flat index in the result, per place in memory as it is
    in_order = np.array_equal(order, canonical)
    if not in_order and len(shape) > 1:
        design.values[node.name] = design.add_reorder(x, node.name, node.tensor, source[canonical], (node,))
        return
    kept = None if in_order else order
    design.add((node,), "Reshape", [x], x.type, {}, {"target_shape": list(shape)}, kept)


def lower_concat(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml joins two tensors; more are joined from the left, and the last pair does the cast."""
    first, *others = design.operands(node)
    joined, channels = first, first.tensor.channels
    for i, other in enumerate(others, start=2):
        channels += other.tensor.channels
        if i == len(others) + 1:
            _join(design, node, cast, joined, other)
            return
        whole = node.tensor
        shape = (channels, *whole.shape[1:])
        part = Tensor(shape, whole.format, whole.low[:channels], whole.high[:channels])
        made = Node(f"part{i}_{node.name}", node.op, node.inputs, node.path, part)
        _join(design, made, None, joined, other)
        design.layers[-1].nodes = ()
        joined = design.values.pop(made.name)


def _casts(value: Value, cast: Node | None) -> bool:
    """Whether ap_fixed casts each operand by itself as the graph casts the joined tensor: it reads a bit
    beyond an operand that has fewer bits than the cast drops.
    """
    if cast is None:
        return True
    return value.tensor.format.max_frac - cast.tensor.format.max_frac <= value.tensor.format.width


def _join(design: Design, node: Node, cast: Node | None, a: Value, b: Value) -> None:
    order = None
    if a.order is not None or b.order is not None:
        order = np.concatenate([present_order(a), a.tensor.channels + present_order(b)])
    native = all(v.has_point and _casts(v, cast) for v in (a, b)) and carries_values(node.tensor)
    if native and design.native_cast(node, cast):
        attributes = {"op": f"concatenate{len(node.tensor.shape)}d", "axis": -1}
        design.add_native(node, cast, "Concatenate", [a, b], {}, attributes, order)
        return
    frac = node.tensor.format.max_frac
    struct = Struct()
    struct.constants(n_pixels=int(np.prod(node.tensor.shape[1:])))
    struct.constants(n_chan0=a.tensor.channels, n_chan1=b.tensor.channels)
    fracs = [int(f) for value in (a, b) for f in value.per_channel(value.tensor.fracs)]
    struct.table("up", [frac - f for f in fracs], "int")
    design.add_kernel(node, cast, [a, b], "qfx::concat", "qfx_concat.h", struct, interval(node.tensor), order)


def finish_output(design: Design, output: Node) -> None:
    """Make the last layer one that hls4ml can end with, in channels-last order."""
    value = design.values[output.name]
    last: LayerSpec = design.layers[-1]
    if value.order is None and last.class_name not in ("InputLayer", "Reshape"):
        return
    design.add_reorder(value, f"out_{output.name}", output.tensor, memory_order(output.tensor.shape))
