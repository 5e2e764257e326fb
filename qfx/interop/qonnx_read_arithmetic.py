"""ONNX nodes that compute element by element: arithmetic and activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.interop.dyadic import SHORT, constant, power_of_two
from qfx.interop.exact_ops import clip, exact_norm, leaky_relu
from qfx.interop.problems import Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_node import OnnxNode


def _arithmetic(n: OnnxNode) -> None:
    kind = n.node.op_type
    n.attributes.finish()
    left, right = n.operand(0), n.operand(1)
    if not isinstance(left, Constant) and not isinstance(right, Constant):
        if kind == "Div":
            raise Refused("dividing tensors is not supported; multiply by a constant")
        if n.shape(left) != n.shape(right):
            raise Refused(f"operands of shapes {n.shape(left)} and {n.shape(right)} would be broadcast")
        return n.add({"Add": ops.Add, "Sub": ops.Sub, "Mul": ops.Mul}[kind](), left, right)
    if isinstance(left, Constant) and isinstance(right, Constant):
        raise Refused("both operands are constants; fold them")
    x, other = (right, left) if isinstance(left, Constant) else (left, right)
    assert isinstance(other, Constant) and not isinstance(x, Constant)
    if kind in ("Sub", "Div") and other is left:
        raise Refused("a constant on the left is not supported")
    shape = n.shape(x)
    value = other.per_channel(len(shape) + 1, shape[0])
    if kind in ("Mul", "Div"):
        factor = _reciprocal(value) if kind == "Div" else value
        offset = Constant(np.zeros(1))
        following = n.follower(("Add",))
        if following is not None and isinstance(following[1], Constant):
            offset = following[1].per_channel(len(shape) + 1, shape[0])
            n.extend(following[0])
    else:
        factor = Constant(np.ones(1))
        offset = Constant(-value.values) if kind == "Sub" else value
    parts = [_affine_part(c) for c in (factor, offset)]
    n.add(ops.Affine(*parts[0], *parts[1], scale_encoding=factor.encoding), x)


def _affine_part(value: Constant) -> tuple[np.ndarray, FixedPoint]:
    return value.codes() if value.format is not None else constant(value.values, SHORT)


def _reciprocal(value: Constant) -> Constant:
    exponents = [power_of_two(float(v)) for v in value.values]
    if None in exponents:
        raise Refused("dividing by numbers that are not powers of two is not exact; multiply by a constant")
    return Constant(1.0 / value.values)


def _relu(n: OnnxNode) -> None:
    n.attributes.finish()
    n.add(ops.Relu(), n.dynamic(0))


def _leaky(n: OnnxNode) -> None:
    slope = n.attributes.number("alpha", 0.01)
    n.attributes.finish()
    n.add(leaky_relu(slope), n.dynamic(0))


def _prelu(n: OnnxNode) -> None:
    n.attributes.finish()
    slope = n.constant(1, "the slope")
    if slope.format is None:
        return n.add(leaky_relu(slope.number("the slope")), n.dynamic(0))
    codes, fmt = slope.reshaped((-1,)).codes()
    if codes.size != 1:
        raise Refused("one slope per channel is not supported; use one for all")
    n.add(ops.LeakyRelu(int(codes[0]), fmt.max_frac), n.dynamic(0))


def _clip(n: OnnxNode) -> None:
    kind = n.node.op_type
    if kind == "Clip":
        places = {name: n.constant(i, name) if n.given(i) else None for i, name in ((1, "low"), (2, "high"))}
    else:
        if len(n.node.input) != 2:
            raise Refused(f"{len(n.node.input)} operands; a tensor and a constant are supported")
        bound = n.constant(1, "the second operand")
        places = {"low": bound if kind == "Max" else None, "high": bound if kind == "Min" else None}
    n.attributes.finish()
    bounds = [c for c in places.values() if c is not None]
    if not bounds:
        return n.keep(n.dynamic(0))
    if all(c.format is not None for c in bounds):
        found = {k: None if c is None else c.reshaped((-1,)).codes() for k, c in places.items()}
        fracs = {f.max_frac for f in (v[1] for v in found.values() if v is not None)}
        if len(fracs) == 1 and all(v is None or v[0].size == 1 for v in found.values()):
            low, high = (None if v is None else int(v[0][0]) for v in found.values())
            return n.add(ops.Clip(low, high, fracs.pop()), n.dynamic(0))
    low_high = [None if c is None else c.number("a bound") for c in places.values()]
    if low_high == [0.0, None]:
        return n.add(ops.Relu(), n.dynamic(0))
    n.add(clip(*low_high), n.dynamic(0))


def _batch_norm(n: OnnxNode) -> None:
    columns = [n.constant(i, "a statistic").values for i in range(1, 5)]
    eps = n.attributes.number("epsilon", 1e-5)
    n.attributes.expect("training_mode", "integer", 0)
    n.attributes.finish("momentum", "spatial")
    x = n.dynamic(0)
    if any(c.shape != (n.shape(x)[0],) for c in columns):
        raise Refused(f"statistics of shapes {[c.shape for c in columns]} for {n.shape(x)[0]} channels")
    n.add(exact_norm(*columns, eps=eps), x)


ARITHMETIC: dict[str, Callable[[OnnxNode], None]] = {
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
    "Relu": _relu,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Clip": _clip,
    "Max": _clip,
    "Min": _clip,
    "BatchNormalization": _batch_norm,
}
