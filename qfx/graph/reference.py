"""Every operator of docs/graph.md in plain integers, one sample batch at a time.

Written for being read next to the specification, not for speed. The interpreter uses it where floating point
cannot be exact, and the
tests use it as the yardstick of the interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qfx.graph import ops
from qfx.graph.graph import Graph, Node
from qfx.graph.tensor import Tensor


def trace_reference(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """The codes of every tensor, as arrays of Python integers (dtype ``object``), by node name.

    Args:
        x: real numbers, shape ``(samples, *input shape)``.
    """
    values: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if isinstance(node.op, ops.Input):
            values[node.name] = node.op.format.integers(np.asarray(x), axis=1).astype(object)
        elif not node.inputs:
            constant = node.op.evaluate((), ())
            values[node.name] = np.broadcast_to(constant, (len(x), *constant.shape[1:]))
        else:
            values[node.name] = evaluate(node, graph.operands(node), [values[i] for i in node.inputs])
    return values


def evaluate(node: Node, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
    """The result codes of one node.

    Args:
        operands: what is known of the operands.
        codes: their codes, batch first; all ``object``, or all ``int64`` where the caller has shown that
            nothing overflows.
    """
    op, x, c = node.op, operands[0], codes[0]
    if isinstance(op, ops.Cast):
        return op.format.cast_integers(c, x.fracs)
    if isinstance(op, ops.Weighted):
        weight, bias, _ = ops.weighted_integers(op, x)
        result = _conv(op, weight, c, node.tensor.shape) if isinstance(op, ops.Conv) else _linear(weight, c)
        return result if bias is None else result + _channels(bias, result)
    if isinstance(op, ops.Affine):
        scale, offset, _ = ops.affine_integers(op, x)
        return c * _channels(scale, c) + _channels(offset, c)
    if isinstance(op, ops.Add | ops.Sub):
        left, right, _ = ops.alignment(*operands)
        a, b = c << _channels(left, c), codes[1] << _channels(right, c)
        return a + b if isinstance(op, ops.Add) else a - b
    if isinstance(op, ops.Mul):
        return c * codes[1]
    if isinstance(op, ops.Relu):
        return np.maximum(c, 0)
    if isinstance(op, ops.LeakyRelu):
        return op.map(c)
    if isinstance(op, ops.Clip):
        _, shifts_up, low, high = ops.clip_integers(op, x)
        c = c << _channels(shifts_up, c)
        c = c if low is None else np.maximum(c, _channels(low, c))
        return c if high is None else np.minimum(c, _channels(high, c))
    if isinstance(op, ops.MaxPool):
        return np.max(_windows(op, c, node.tensor.shape, fill=int(x.low.min())), axis=0)
    if isinstance(op, ops.AvgPool):
        return np.sum(_windows(op, c, node.tensor.shape, fill=0), axis=0) * op.scale_code
    if isinstance(op, ops.Concat):
        frac = max(t.format.max_frac for t in operands)
        return np.concatenate(
            [v << _channels(ops.to_frac(t, frac), v) for t, v in zip(operands, codes, strict=True)], axis=1
        )
    if isinstance(op, ops.Reshape):
        return c.reshape(len(c), *op.shape)
    if isinstance(op, ops.Transpose):
        return c.transpose(0, *(a + 1 for a in op.axes))
    return op.evaluate(operands, codes)


def _channels(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """One value per channel, shaped to broadcast against a batch, in the dtype of the batch."""
    return values.astype(like.dtype).reshape(1, -1, *(1,) * (like.ndim - 2))


def _linear(weight: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.matmul(codes, weight.astype(codes.dtype).T)


def _conv(op: ops.Conv, weight: np.ndarray, codes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    samples, channels = codes.shape[:2]
    weight = weight.astype(codes.dtype)
    groups, out = op.groups, op.out_channels
    total: np.ndarray | None = None
    for tap, patch in _taps(codes, op.kernel, op.stride, op.padding, op.dilation, shape[1:], 0):
        columns = patch.reshape(samples, groups, channels // groups, math.prod(shape[1:]))
        matrix = weight[(slice(None), slice(None), *tap)].reshape(
            1, groups, out // groups, channels // groups
        )
        term = np.matmul(matrix, columns)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(samples, *shape)


def _windows(op: ops.MaxPool | ops.AvgPool, codes: np.ndarray, shape: Sequence[int], fill: int) -> np.ndarray:
    """The window places stacked along a new first axis. Padding a maximum with the least possible code never
    changes it."""
    taps = _taps(codes, op.kernel, op.stride, op.padding, (1,) * len(op.kernel), shape[1:], fill)
    return np.stack([patch for _, patch in taps])


def _taps(codes, kernel, stride, padding, dilation, out, fill):  # type: ignore[no-untyped-def]
    """Each kernel position with the elements that it meets, shape ``(samples, channels, *out)``."""
    size = (n + before + after for n, (before, after) in zip(codes.shape[2:], padding, strict=True))
    # np.pad would put numpy integers, which overflow, among Python's.
    padded = np.full((*codes.shape[:2], *size), fill, dtype=codes.dtype)
    inside = (slice(b, b + n) for n, (b, _) in zip(codes.shape[2:], padding, strict=True))
    padded[(slice(None), slice(None), *inside)] = codes
    for tap in np.ndindex(*kernel):
        place = tuple(
            slice(t * d, t * d + s * (n - 1) + 1, s)
            for t, d, s, n in zip(tap, dilation, stride, out, strict=True)
        )
        yield tap, padded[(slice(None), slice(None), *place)]
