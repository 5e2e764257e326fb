"""Effective bit operations of a frozen graph: what its multiplications and additions cost, counted exactly.

A multiplication of a constant by a tensor costs the bits of the constant times the bits of the tensor; the
additions that gather the products of a layer are contained in that. All other additions cost the bits of
their wider operand. docs/widths.md has the table.

Source: C. Sun et al., "Gradient-based Automatic Mixed Precision Quantization for Neural Networks On-Chip"
(HGQ), arXiv:2405.00645, section III (EBOPs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qfx.errors import QfxError
from qfx.graph import arrays, functions, ops
from qfx.graph.tensor import Tensor

if TYPE_CHECKING:
    from qfx.graph.graph import Graph, Node

PER = ("kernel", "inference")


def ebops(graph: Graph, per: str = "kernel") -> int:
    """Effective bit operations of a graph.

    Args:
        per: ``"kernel"`` counts one multiplier for every weight, as in hardware that streams the positions of
            an image through one instance of the kernel. ``"inference"`` counts one for every weight and
            position, as in fully unrolled hardware, or as work per sample; weights that meet padding there
            cost nothing. They differ only where tensors have spatial axes.

    Raises:
        QfxError: another value of ``per``.
    """
    return sum(ebops_by_node(graph, per).values())


def ebops_by_node(graph: Graph, per: str = "kernel") -> dict[str, int]:
    """:func:`ebops` of every node that costs anything, by node name."""
    check_per(per)
    costs = {node.name: _cost(node, graph.operands(node), per) for node in graph.nodes}
    return {name: cost for name, cost in costs.items() if cost}


def check_per(per: str) -> None:
    """Refuse what :func:`ebops` does not know.

    Raises:
        QfxError: neither ``"kernel"`` nor ``"inference"``.
    """
    if per not in PER:
        raise QfxError(f"ebops: per={per!r}; supported: {', '.join(map(repr, PER))}")


def constant_bits(codes: np.ndarray) -> np.ndarray:
    """Bits of constants from the highest to the lowest nonzero one, sign apart: 0 for 0, 1 for a power of
    two; ``int64`` of the same shape. A shift is free, and a sign turns an addition into a subtraction."""
    magnitude = np.abs(codes.astype(np.int64))
    span = _bit_length(magnitude) - _bit_length(magnitude & -magnitude) + 1
    return np.where(magnitude == 0, 0, span)


def tensor_bits(x: Tensor) -> np.ndarray:
    """Per channel the bits that its codes need, sign included; 0 where a channel is always the same."""
    return np.asarray([_range_bits(int(low), int(high)) for low, high in zip(x.low, x.high, strict=True)])


def inside(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: ops.Padding,
    dilation: Sequence[int],
) -> np.ndarray:
    """For every place of a kernel, how many output positions put it inside the image rather than on padding:
    ``int64`` of the shape of the kernel.

    Args:
        size: spatial axes of the operand.
    """
    out = ops.window_shape((1, *size), kernel, stride, padding, dilation)
    counts = np.ones((), dtype=np.int64)
    for axis, length in enumerate(size):
        starts = np.arange(out[axis]) * stride[axis] - padding[axis][0]
        places = starts[None, :] + np.arange(kernel[axis])[:, None] * dilation[axis]
        counts = np.multiply.outer(counts, ((places >= 0) & (places < length)).sum(axis=1))
    return counts


def _bit_length(values: np.ndarray) -> np.ndarray:
    """Of non-negative int64 numbers; in halves, because doubles hold 53 bits."""
    high, low = np.frexp((values >> 31).astype(np.float64))[1], np.frexp(values.astype(np.float64))[1]
    return np.where(high > 0, high + 31, low).astype(np.int64)


def _range_bits(low: int, high: int) -> int:
    if low == high:
        return 0
    return max(high, 0).bit_length() if low >= 0 else max(high.bit_length(), (-low - 1).bit_length()) + 1


def _cost(node: Node, operands: Sequence[Tensor], per: str) -> int:
    op, result = node.op, node.tensor
    if not operands:
        return 0
    x = operands[0]
    bits = tensor_bits(x)
    # How often one channel's operator is built.
    copies = result.size // result.channels if per == "inference" else 1
    if isinstance(op, ops.Weighted):
        return _products(op, x, bits, per) + copies * _additions(op.bias, result)
    if isinstance(op, ops.Affine):
        scale = np.broadcast_to(_alone(op.scale), (x.channels,))
        return copies * (int((bits * scale).sum()) + _additions(op.offset, result))
    if isinstance(op, ops.Add | ops.Sub | ops.Mul):
        other = tensor_bits(operands[1])
        if isinstance(op, ops.Mul):
            return copies * int((bits * other).sum())
        return copies * int(np.where((bits > 0) & (other > 0), np.maximum(bits, other), 0).sum())
    if isinstance(op, ops.LeakyRelu):
        # Only codes below zero are multiplied.
        return copies * int(_alone(np.asarray(op.slope_code))) * int(bits[x.low < 0].sum())
    if isinstance(op, ops.AvgPool):
        places = int(np.prod(op.kernel))
        sums = [_range_bits(int(lo) * places, int(hi) * places) for lo, hi in zip(x.low, x.high, strict=True)]
        return copies * ((places - 1) * int(bits.sum()) + int(_alone(np.asarray(op.scale_code))) * sum(sums))
    if isinstance(op, arrays.MatMul):
        # Both operands come from data: there is no kernel to share, so positions always count.
        other = tensor_bits(operands[1])
        if len(x.shape) == 2:
            return result.shape[1] * int(bits.sum()) * int(other.sum())
        return x.shape[1] * x.shape[2] * result.shape[2] * int((bits * other).sum())
    if isinstance(op, arrays.ReduceSum):
        terms = int(np.prod([x.shape[a] for a in op.axes if a]))
        first = int(bits.max(initial=0)) if 0 in op.axes else int(bits.sum())
        return copies * (terms * int(bits.sum()) - first)
    if isinstance(op, functions.Piecewise):
        columns = [int(constant_bits(column).max()) for column in op.coefficients.T]
        products = sum(width * op.shift * degree for degree, width in enumerate(columns))
        return copies * products * int((bits > 0).sum())
    return 0


def _alone(codes: np.ndarray) -> np.ndarray:
    """Bits of multipliers whose product is not added to others: a power of two is a mere shift."""
    bits = constant_bits(codes)
    return np.where(bits == 1, 0, bits)


def _additions(constants: np.ndarray | None, result: Tensor) -> int:
    """Bits of constants that are added to channels which vary."""
    if constants is None:
        return 0
    added = np.broadcast_to(constant_bits(constants), (result.channels,))
    return int(added[tensor_bits(result) > 0].sum())


def _products(op: ops.Weighted, x: Tensor, bits: np.ndarray, per: str) -> int:
    weight = constant_bits(op.weight).reshape(op.out_channels, op.weight.shape[1], -1)
    groups = op.groups if isinstance(op, ops.Conv) else 1
    operand = bits.reshape(groups, -1)[np.arange(op.out_channels) // (op.out_channels // groups)]
    if isinstance(op, ops.Conv) and per == "inference":
        times = inside(x.shape[1:], op.kernel, op.stride, op.padding, op.dilation)
        weight = weight * times.reshape(-1)
    return int((weight.sum(axis=2) * operand).sum())
