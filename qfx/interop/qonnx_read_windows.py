"""ONNX nodes with weights or windows: linear layers, convolutions, pooling."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from qfx.graph import arrays, ops
from qfx.interop.assemble import UNQUANTIZED, Step, Value
from qfx.interop.dyadic import power_of_two
from qfx.interop.problems import Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_node import OnnxNode


def _weighted(
    n: OnnxNode, x: Value, weight: Constant, bias: Constant | None, make: Callable[..., ops.Op]
) -> None:
    if not isinstance(x, str):
        raise Refused(UNQUANTIZED)
    codes, fmt = weight.codes()
    out = len(codes)
    values, its = None, None
    if bias is not None:
        if bias.values.size not in (1, out) or bias.values.shape[-1:] not in ((), (1,), (out,)):
            raise Refused(f"a bias of shape {bias.values.shape} for {out} output channels")
        flat = Constant(np.broadcast_to(bias.values.reshape(-1), (out,)), bias.format)
        top = n.scope.assembler.tensor(x).format.max_frac
        values, its = flat.bias_codes(tuple(f + top for f in fmt.fracs(out)))
    n.add(make(codes, fmt, values, its, weight.encoding), x)


def _conv(n: OnnxNode) -> None:
    x, weight = n.dynamic(0), n.constant(1, "the weight")
    bias = n.constant(2, "the bias") if n.given(2) else None
    rank = len(n.shape(x)) - 1
    if weight.values.ndim != rank + 2 or rank not in (1, 2):
        raise Refused(f"weight of shape {weight.values.shape} and operand of shape {n.shape(x)} do not match")
    kernel, stride, padding, dilation = _window(n, rank, list(weight.values.shape[2:]))
    groups = n.attributes.integer("group", 1)
    n.attributes.finish()
    if _sum_pool(n, x, weight, bias, groups, (kernel, stride, padding, dilation)):
        return

    def make(codes: Any, fmt: Any, values: Any, its: Any, encoding: Any) -> ops.Op:
        return ops.Conv(codes, fmt, values, its, stride, padding, dilation, groups, weight_encoding=encoding)

    _weighted(n, x, weight, bias, make)


def _sum_pool(
    n: OnnxNode, x: Value, weight: Constant, bias: Constant | None, groups: int, window: tuple[Any, ...]
) -> bool:
    """Plain ones, depthwise, times one number: an average whose factor is not a power of two."""
    kernel, stride, padding, dilation = window
    if weight.format is not None or bias is not None or set(dilation) != {1} or (weight.values != 1).any():
        return False
    if weight.values.shape[:2] != (groups, 1) or groups != n.shape(x)[0]:
        return False
    following = n.follower(("Mul",))
    if following is None or not isinstance(following[1], Constant) or following[1].values.size != 1:
        return False
    codes, fmt = following[1].reshaped((1,)).codes()
    n.extend(following[0])
    n.add(ops.AvgPool(kernel, stride, padding, int(codes[0]), fmt.max_frac), x)
    return True


def _gemm(n: OnnxNode) -> None:
    x, weight = n.dynamic(0), n.constant(1, "the weight")
    bias = n.constant(2, "the bias") if n.given(2) else None
    for name in ("alpha", "beta"):
        n.attributes.expect(name, "number", 1.0)
    n.attributes.expect("transA", "integer", 0)
    if not n.attributes.flag("transB", False):
        weight = weight.transposed((1, 0)) if weight.values.ndim == 2 else weight
    n.attributes.finish()
    _weighted(n, x, weight, bias, _linear)


def _matmul(n: OnnxNode) -> None:
    n.attributes.finish()
    if not isinstance(n.operand(1), Constant):
        return n.add(arrays.MatMul(), n.dynamic(0), n.dynamic(1))
    x, weight = n.dynamic(0), n.constant(1, "the second operand")
    if weight.values.ndim != 2:
        raise Refused(f"weight of shape {weight.values.shape}; supported is (features, outputs)")
    weight = weight.transposed((1, 0))
    bias = None
    following = n.follower(("Add",))
    if following is not None and isinstance(following[1], Constant):
        shape = following[1].values.shape
        if shape[-1:] == weight.values.shape[:1] and prod(shape) == shape[-1]:
            bias = following[1] if len(shape) == 1 else following[1].reshaped(shape[-1:])
            n.extend(following[0])
    _weighted(n, x, weight, bias, _linear)


def _linear(codes: Any, fmt: Any, values: Any, its: Any, encoding: Any) -> ops.Op:
    return ops.Linear(codes, fmt, values, its, weight_encoding=encoding)


def _window(
    n: OnnxNode, rank: int, kernel: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...], Any, tuple[int, ...]]:
    a = n.attributes
    if a.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Refused("auto_pad is not supported; give pads")
    found = a.integers("kernel_shape", kernel)
    stride, dilation = a.integers("strides", [1] * rank), a.integers("dilations", [1] * rank)
    pads = a.integers("pads", [0] * (2 * rank))
    if (
        (kernel and found != kernel)
        or not (len(found) == len(stride) == len(dilation) == rank)
        or len(pads) != 2 * rank
    ):
        raise Refused(
            f"kernel {found}, strides {stride}, dilations {dilation}, pads {pads} do not fit together"
        )
    padding = tuple((pads[i], pads[rank + i]) for i in range(rank))
    return tuple(found), tuple(stride), padding, tuple(dilation)


def _max_pool(n: OnnxNode) -> None:
    x = n.dynamic(0)
    rank = len(n.shape(x)) - 1
    kernel, stride, padding, dilation = _window(n, rank, [])
    n.attributes.expect("ceil_mode", "integer", 0)
    n.attributes.finish("storage_order")
    if set(dilation) != {1}:
        raise Refused("dilation is not supported")
    n.add(ops.MaxPool(kernel, stride, padding), x)


def _avg_pool(n: OnnxNode) -> None:
    x = n.dynamic(0)
    shape = n.shape(x)
    if n.node.op_type == "GlobalAveragePool":
        kernel = stride = tuple(shape[1:])
        padding: Any = ((0, 0),) * len(kernel)
    else:
        kernel, stride, padding, dilation = _window(n, len(shape) - 1, [])
        n.attributes.expect("ceil_mode", "integer", 0)
        if any(p for pair in padding for p in pair) and not n.attributes.flag("count_include_pad", False):
            raise Refused("count_include_pad=0 divides by different numbers at the border; set it to 1")
        n.attributes.flag("count_include_pad", False)
        if set(dilation) != {1}:
            raise Refused("dilation is not supported")
    n.attributes.finish()
    _average(n, x, kernel, stride, padding)


def _average(n: OnnxNode, x: Value, kernel: Any, stride: Any, padding: Any) -> None:
    shift = power_of_two(prod(kernel))
    if shift is None:
        raise Refused(f"the mean of {prod(kernel)} places is not a binary fraction; use 2, 4, 8, ... places")
    n.add(ops.AvgPool(tuple(kernel), tuple(stride), padding, 1, shift), x)


def _reduce_mean(n: OnnxNode) -> None:
    x = n.dynamic(0)
    shape = n.shape(x)
    rank = len(shape) + 1
    axes = n.constant(1, "axes").integers("axes") if n.given(1) else n.attributes.integers("axes", [])
    keep = n.attributes.flag("keepdims", True)
    n.attributes.finish("noop_with_empty_axes")
    axes = sorted(a % rank for a in axes)
    if not axes or axes[0] < 2 or len(shape) < 2:
        raise Refused(f"over axes {axes}; only spatial axes (2 and up) are supported")
    kernel = tuple(s if a + 2 in axes else 1 for a, s in enumerate(shape[1:]))
    left = (shape[0], *(s for a, s in enumerate(shape[1:]) if a + 2 not in axes))
    if keep:
        return _average(n, x, kernel, kernel, ((0, 0),) * len(kernel))
    shift = power_of_two(prod(kernel))
    if shift is None:
        raise Refused(f"the mean of {prod(kernel)} places is not a binary fraction; use 2, 4, 8, ... places")
    step = n.step(ops.Reshape(left))
    pool = Step(ops.AvgPool(kernel, kernel, ((0, 0),) * len(kernel), 1, shift), step.path)
    n.keep(n.scope.assembler.add(step, [n.scope.assembler.add(pool, [x])]))


def _reduce(n: OnnxNode) -> None:
    x = n.dynamic(0)
    rank = len(n.shape(x)) + 1
    axes = n.constant(1, "axes").integers("axes") if n.given(1) else n.attributes.integers("axes", [])
    n.attributes.expect("keepdims", "integer", 1)
    n.attributes.finish("noop_with_empty_axes")
    places = tuple(sorted(a % rank - 1 for a in axes))
    if not places or places[0] < 0:
        raise Refused(f"over axes {axes}; the samples of a batch stay apart")
    n.add((arrays.ReduceSum if n.node.op_type == "ReduceSum" else arrays.ReduceMax)(places), x)


WINDOWS: dict[str, Callable[[OnnxNode], None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _avg_pool,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
}
