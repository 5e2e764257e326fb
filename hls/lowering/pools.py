"""Maximum and average of windows."""

from __future__ import annotations

from typing import Any

from qfx.graph import ops
from qfx.graph.graph import Node
from qfx.hls.layers import memory_shape
from qfx.hls.lowering.design import Design, Value, interval
from qfx.hls.lowering.windows import AXES, HEADER, pads, window_struct


def lower_max_pool(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml's pool for windows that tile the tensor.

    It has no overlapping windows in streams, and what it pads with is not the lowest value of unsigned types.
    """
    op = node.op
    assert isinstance(op, ops.MaxPool)
    (x,) = design.operands(node)
    padded = any(p for pair in op.padding for p in pair)
    if not padded and op.kernel == op.stride and design.native_cast(node, cast):
        _native(design, node, cast, x)
        return
    struct = window_struct(node, x, op.kernel, op.stride, op.padding, (1,) * len(op.kernel))
    design.add_kernel(node, cast, [x], "qfx::sliding, qfx::op_max", HEADER, struct, x.interval)


def _native(design: Design, node: Node, cast: Node | None, x: Value) -> None:
    op = node.op
    assert isinstance(op, ops.MaxPool)
    out = memory_shape(node.tensor.shape)
    rank = len(op.kernel)
    attributes: dict[str, Any] = {
        "data_format": "channels_last",
        "n_filt": x.tensor.channels,
        "count_pad": False,
    }
    for axis, name in enumerate(AXES[rank]):
        attributes |= {f"pool_{name}": op.kernel[axis], f"stride_{name}": op.stride[axis]}
        attributes |= {f"in_{name}": x.shape[axis], f"out_{name}": out[axis]}
    if rank == 1:
        attributes |= {"n_in": x.shape[0], "n_out": out[0]}
    attributes |= pads(op.padding)
    design.add_native(node, cast, f"MaxPooling{rank}D", [x], {"accum": x.type}, attributes)


def lower_avg_pool(design: Design, node: Node, cast: Node | None) -> None:
    """A kernel of ours: hls4ml divides by the number of places and drops bits."""
    op = node.op
    assert isinstance(op, ops.AvgPool)
    (x,) = design.operands(node)
    struct = window_struct(node, x, op.kernel, op.stride, op.padding, (1,) * len(op.kernel))
    struct.table("scale", [op.scale_code])
    kernel = "qfx::sliding, qfx::op_scaled_sum"
    design.add_kernel(node, cast, [x], kernel, HEADER, struct, interval(node.tensor))
