"""``linear`` and ``conv``: hls4ml's dense and convolution layers, our kernel for what they cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qfx.errors import UnsupportedError
from qfx.graph import ops
from qfx.graph.graph import Node
from qfx.hls.carriers import CType, carrier, carries_values
from qfx.hls.kernels import Struct
from qfx.hls.layers import LayerSpec, memory_shape
from qfx.hls.lowering import constants
from qfx.hls.lowering.design import Design, Value, interval
from qfx.hls.lowering.windows import AXES, HEADER, pads, window_struct


@dataclass(frozen=True)
class _Weights:
    """Weight (layout of the graph) and bias values of hls4ml's layer, and types that make its sums exact."""

    weight: np.ndarray
    bias: np.ndarray
    types: dict[str, CType]


def lower_linear(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml's dense layer; columns of the weights follow the order in which the operand stands in memory."""
    op = node.op
    assert isinstance(op, ops.Linear)
    (x,) = design.operands(node)
    try:
        weights = _weights(op, node, x)
    except UnsupportedError:
        _kernel_linear(design, node, cast, x)
        return
    columns = weights.weight if x.order is None else weights.weight[:, x.order]
    attributes = {
        "n_in": op.weight.shape[1],
        "n_out": op.out_channels,
        "weight_data": columns.T.copy(),
        "bias_data": weights.bias,
    }
    design.add_native(node, cast, "Dense", [x], weights.types, attributes)


def lower_conv(design: Design, node: Node, cast: Node | None) -> None:
    """hls4ml's convolution where it has the operator, our kernel elsewhere."""
    op = node.op
    assert isinstance(op, ops.Conv)
    (x,) = design.operands(node)
    if _native_operator(design, op):
        try:
            weights = _weights(op, node, x)
        except UnsupportedError:
            pass
        else:
            _native_conv(design, node, cast, x, weights)
            return
    weight, bias, _ = ops.weighted_integers(op, x.tensor)
    struct = window_struct(node, x, op.kernel, op.stride, op.padding, op.dilation)
    struct.constants(groups=op.groups)
    # (filter, channel of the group, *kernel) -> (filter, *kernel, channel of the group)
    _kernel(design, node, cast, x, struct, np.moveaxis(weight, 1, -1), bias)


def _native_operator(design: Design, op: ops.Conv) -> bool:
    """Whether hls4ml's convolution does the same.

    It has no groups, no dilation of streams, and forgets the vertical stride of streams when the kernel has
    one row: its one-dimensional code then computes every row.
    """
    if op.groups != 1 or set(op.dilation) != {1}:
        return False
    skips_rows = len(op.kernel) == 2 and op.kernel[0] == 1 and op.kernel[1] > 1 and op.stride[0] > 1
    return not (design.stream and skips_rows)


def _weights(op: ops.Weighted, node: Node, x: Value) -> _Weights:
    result = carrier(node.tensor)
    weight_format, bias_format = op.weight_format, op.bias_format
    per_channel = weight_format.per_channel or (bias_format is not None and bias_format.per_channel)
    if x.has_point and carries_values(node.tensor) and not per_channel:
        weight, weight_type = constants.values(op.weight, weight_format)
        bias, bias_type = np.zeros(op.out_channels), CType(1, 0, False)
        if op.bias is not None and bias_format is not None:
            bias, bias_type = constants.values(op.bias, bias_format)
    else:
        # All terms of an output on the binary point of its accumulator; the result travels as codes.
        aligned, offsets, _ = ops.weighted_integers(op, x.tensor)
        weight, weight_type = constants.values_on_grid(aligned, result.frac - x.type.frac)
        offsets = constants.zeros(op.out_channels) if offsets is None else offsets
        bias, bias_type = constants.values_on_grid(offsets, result.frac)
    exact = node.tensor.format
    # Partial sums may leave the interval of the result, but wrapped arithmetic comes back into it.
    accum = CType(exact.width + (not exact.signed), result.frac, True)
    return _Weights(weight, bias, {"weight": weight_type, "bias": bias_type, "accum": accum})


def _native_conv(design: Design, node: Node, cast: Node | None, x: Value, weights: _Weights) -> None:
    op = node.op
    assert isinstance(op, ops.Conv)
    padding = op.padding
    rank = len(padding)
    if design.stream and any(p for pair in padding for p in pair):
        x = _padded(design, node, x, padding)
        padding = ((0, 0),) * rank
    out = memory_shape(node.tensor.shape)
    attributes: dict[str, Any] = {
        "data_format": "channels_last",
        "n_chan": x.tensor.channels,
        "n_filt": op.out_channels,
    }
    for axis, name in enumerate(AXES[rank]):
        attributes |= {f"in_{name}": x.shape[axis], f"out_{name}": out[axis]}
        attributes |= {f"filt_{name}": op.kernel[axis], f"stride_{name}": op.stride[axis]}
    attributes |= pads(padding)
    # (filter, channel, *kernel) -> (*kernel, channel, filter)
    attributes["weight_data"] = np.moveaxis(weights.weight, (1, 0), (-2, -1)).copy()
    attributes["bias_data"] = weights.bias
    design.add_native(node, cast, f"Conv{rank}D", [x], weights.types, attributes)


def _padded(design: Design, node: Node, x: Value, padding: ops.Padding) -> Value:
    """Zeros around a streamed tensor: a layer of its own, ahead of hls4ml's convolution."""
    rank = len(padding)
    shape = tuple(s + sum(pair) for s, pair in zip(x.shape, padding, strict=False))
    attributes: dict[str, Any] = {
        "data_format": "channels_last",
        "n_chan": x.tensor.channels,
        **pads(padding),
    }
    for axis, name in enumerate(AXES[rank]):
        attributes |= {f"in_{name}": x.shape[axis], f"out_{name}": shape[axis]}
    padded = Value(f"pad_{node.name}", (*shape, x.tensor.channels), x.type, x.tensor)
    design.layers.append(
        LayerSpec(
            padded.layer, f"ZeroPadding{rank}D", [x.layer], padded.shape, {"result": x.type}, attributes
        )
    )
    return padded


def _kernel_linear(design: Design, node: Node, cast: Node | None, x: Value) -> None:
    """A convolution over one place: its constants may have 64 bits, hls4ml's 53."""
    op = node.op
    assert isinstance(op, ops.Linear)
    weight, bias, _ = ops.weighted_integers(op, x.tensor)
    struct = Struct()
    for name in ("in", "out", "kernel", "stride", "dilation"):
        struct.constants(**{f"{name}_height": 1, f"{name}_width": 1})
    struct.constants(pad_top=0, pad_bottom=0, pad_left=0, pad_right=0, groups=1)
    struct.constants(n_chan=x.tensor.channels, n_filt=op.out_channels)
    _kernel(design, node, cast, x, struct, weight if x.order is None else weight[:, x.order], bias)


def _kernel(
    design: Design,
    node: Node,
    cast: Node | None,
    x: Value,
    struct: Struct,
    weight: np.ndarray,
    bias: np.ndarray | None,
) -> None:
    arrays = constants.kernel_constants(struct, "weight", weight.reshape(-1))
    offsets = constants.zeros(node.tensor.channels) if bias is None else bias
    arrays |= constants.kernel_constants(struct, "bias", offsets)
    kernel = "qfx::sliding, qfx::op_conv"
    design.add_kernel(node, cast, [x], kernel, HEADER, struct, interval(node.tensor), weights=arrays)
