"""Operators that work element by element."""

from __future__ import annotations

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats import Block
from qfx.graph import ops
from qfx.graph.casts import block_cast
from qfx.graph.graph import Node
from qfx.hls.carriers import CType, carrier, carries_values, integer_width
from qfx.hls.kernels import Struct
from qfx.hls.lowering import constants
from qfx.hls.lowering.design import Design, Value, interval, present_order

_HEADER = "qfx_pointwise.h"
_MERGES = {"add": "add", "sub": "subtract", "mul": "multiply"}


def lower_cast(design: Design, node: Node, _: Node | None) -> None:
    """A cast that its producer could not do."""
    assert isinstance(node.op, ops.Cast)
    if isinstance(node.op.format, Block):
        _lower_blocks(design, node, node.op.format)
        return
    (x,) = design.operands(node)
    # The identity, cast: the node stands for both.
    exact = Node(node.name, node.op, node.inputs, node.path, x.tensor)
    kernel = "qfx::pointwise, qfx::op_cast"
    design.add_kernel(exact, node, [x], kernel, _HEADER, _struct(x), x.interval, x.order)
    design.layers[-1].nodes = (node,)


def _lower_blocks(design: Design, node: Node, fmt: Block) -> None:
    (operand,) = design.operands(node)
    cast = block_cast(operand.tensor, fmt, node.tensor)
    if cast.top > 63:
        raise UnsupportedError(f"a cast to {fmt}: elements of {cast.top} bits; constants in HLS C++ have 63")
    x = in_memory_order(design, operand, node)
    struct = _struct(x)
    struct.constants(block=cast.size, top=cast.top, precision=cast.precision)
    struct.constants(symmetric=cast.symmetric, is_signed=fmt.signed)
    struct.typedef("code_t", f"ap_int<{integer_width(cast.low, cast.high)}>")
    struct.rounding(cast.rounding)
    struct.table("align", cast.align, "int")
    struct.table("largest", [cast.largest])
    attributes = {"function": "qfx::blocks", "header": "qfx_blocks.h", "struct": struct.text()}
    design.add((node,), "QfxKernel", [x], carrier(node.tensor), {}, attributes)


def lower_affine(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml's batch normalization where one type fits all channels."""
    op = node.op
    assert isinstance(op, ops.Affine)
    (x,) = design.operands(node)
    exact = _values(op, node, x)
    if exact is not None and design.native_cast(node, cast):
        (scales, offsets), types = exact
        channels = -1 if len(x.shape) == 1 else x.tensor.channels  # -1: as many as elements
        attributes = {"n_in": x.tensor.size, "n_filt": channels, "scale_data": scales, "bias_data": offsets}
        design.add_native(node, cast, "BatchNormalization", [x], types, attributes, x.order)
        return
    scale, offset, _ = ops.affine_integers(op, x.tensor)
    struct = _struct(x)
    for name, codes in (("scale", scale), ("offset", offset)):
        constants.check_bits(name, codes)
        struct.table(name, x.per_channel(codes))
    kernel = "qfx::pointwise, qfx::op_affine"
    design.add_kernel(node, cast, [x], kernel, _HEADER, struct, interval(node.tensor), x.order)


def _values(op: ops.Affine, node: Node, x: Value) -> tuple[list[np.ndarray], dict[str, CType]] | None:
    """Scale and offset of hls4ml's layer, one per channel, and their types; ``None``: it cannot be exact."""
    if not x.has_point or not carries_values(node.tensor):
        return None
    result = carrier(node.tensor)
    scale, offset, _ = ops.affine_integers(op, x.tensor)
    try:
        if op.scale_format.per_channel or op.offset_format.per_channel:
            scales = constants.values_on_grid(scale, result.frac - x.type.frac)
            offsets = constants.values_on_grid(offset, result.frac)
        else:
            scales = constants.values(op.scale, op.scale_format)
            offsets = constants.values(op.offset, op.offset_format)
    except UnsupportedError:
        return None
    arrays = [x.per_channel(np.broadcast_to(v, (x.tensor.channels,))).copy() for v, _ in (scales, offsets)]
    return arrays, {"scale": scales[1], "bias": offsets[1]}


def lower_binary(design: Design, node: Node, cast: Node | None) -> None:
    """``add``, ``sub`` and ``mul``."""
    a, b = design.operands(node)
    if not np.array_equal(present_order(a), present_order(b)):
        a, b = in_memory_order(design, a, node), in_memory_order(design, b, node)
    kind = node.op.kind
    if a.has_point and b.has_point and carries_values(node.tensor) and design.native_cast(node, cast):
        design.add_native(node, cast, "Merge", [a, b], {}, {"op": _MERGES[kind]}, a.order)
        return
    struct = _struct(a)
    if kind != "mul":
        up0, up1, _ = ops.alignment(a.tensor, b.tensor)
        struct.table("up0", a.per_channel(up0), "int")
        struct.table("up1", a.per_channel(up1), "int")
    kernel = f"qfx::pointwise2, qfx::op_{kind}"
    design.add_kernel(node, cast, [a, b], kernel, _HEADER, struct, interval(node.tensor), a.order)


def in_memory_order(design: Design, value: Value, node: Node) -> Value:
    """The operand in channels-last order, for ``node``."""
    if value.order is None:
        return value
    name = f"order_{node.name}_{value.layer}"
    wanted = np.arange(value.tensor.size)
    for layer in design.layers:
        if layer.name == name:
            return Value(name, layer.shape, value.type, value.tensor)
    return design.add_reorder(value, name, value.tensor, wanted)


def lower_relu(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml's ReLU, unless the cast after it needs a kernel."""
    (x,) = design.operands(node)
    if design.native_cast(node, cast):
        attributes = {"activation": "relu", "n_in": x.tensor.size}
        design.add_native(node, cast, "Activation", [x], {}, attributes, x.order)
        return
    kernel = "qfx::pointwise, qfx::op_relu"
    design.add_kernel(node, cast, [x], kernel, _HEADER, _struct(x), x.interval, x.order)


def lower_leaky_relu(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml's leaky ReLU rounds its slope to a type of its own choice; ours does not round."""
    op = node.op
    assert isinstance(op, ops.LeakyRelu)
    (x,) = design.operands(node)
    struct = _struct(x)
    struct.constants(slope_frac=op.slope_frac)
    struct.table("slope", [op.slope_code])
    kernel = "qfx::pointwise, qfx::op_leaky_relu"
    design.add_kernel(node, cast, [x], kernel, _HEADER, struct, interval(node.tensor), x.order)


def lower_clip(design: Design, node: Node, cast: Node | None) -> None:
    """Between two constants."""
    op = node.op
    assert isinstance(op, ops.Clip)
    (x,) = design.operands(node)
    _, shifts, lows, highs = ops.clip_integers(op, x.tensor)
    struct = _struct(x)
    struct.table("up", x.per_channel(shifts), "int")
    # The accumulator holds the operand before it is clipped.
    met = [*(x.tensor.low << shifts), *(x.tensor.high << shifts)]
    for name, bounds in (("low", lows), ("high", highs)):
        struct.constants(**{f"has_{name}": bounds is not None})
        codes = constants.zeros(x.tensor.channels) if bounds is None else bounds
        constants.check_bits(name, codes)
        struct.table(name, x.per_channel(codes))
        met += list(codes)
    acc = int(min(met)), int(max(met))
    kernel = "qfx::pointwise, qfx::op_clip"
    design.add_kernel(node, cast, [x], kernel, _HEADER, struct, acc, x.order)


def _struct(x: Value) -> Struct:
    struct = Struct()
    struct.constants(n_in=x.tensor.size, n_chan=x.tensor.channels)
    return struct
