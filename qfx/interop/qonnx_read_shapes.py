"""ONNX nodes that move numbers, and the small sums about shapes that exporters leave behind."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from qfx.graph import arrays, ops
from qfx.graph.graph import NAME
from qfx.interop.assemble import Value
from qfx.interop.problems import Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_file import tensor_values
from qfx.interop.qonnx_node import OnnxNode


def _concat(n: OnnxNode) -> None:
    axis = n.attributes.integer("axis", 0)
    n.attributes.finish()
    operands = [n.operand(i) for i in range(len(n.node.input))]
    if all(isinstance(v, Constant) for v in operands):
        return n.keep(Constant(np.concatenate([v.values for v in operands if isinstance(v, Constant)], axis)))
    values = [n.dynamic(i) for i in range(len(operands))]
    if axis % (len(n.shape(values[0])) + 1) != 1:
        raise Refused(f"axis {axis}; join along the channel axis, 1")
    n.add(ops.Concat(), *values) if len(values) > 1 else n.keep(values[0])


def _to_shape(n: OnnxNode, x: Value, full: list[int]) -> None:
    """A reshape to ``full``, batch included."""
    if full[:1] != [n.scope.batch] or prod(full[1:]) != prod(n.shape(x)):
        raise Refused(f"from {(n.scope.batch, *n.shape(x))} to {full}; the batch axis must stay in front")
    if tuple(full[1:]) == n.shape(x) and not NAME.fullmatch(n.node.name):
        return n.keep(x)
    n.add(ops.Reshape(tuple(full[1:])), x)


def _reshape(n: OnnxNode) -> None:
    x, target = n.operand(0), n.constant(1, "the shape").integers("the shape")
    literal = n.attributes.flag("allowzero", False)
    n.attributes.finish()
    size = list(x.values.shape) if isinstance(x, Constant) else [n.scope.batch, *n.shape(x)]
    full = [size[i] if t == 0 and not literal and i < len(size) else t for i, t in enumerate(target)]
    if full.count(-1) > 1 or any(t < -1 or t == 0 for t in full):
        raise Refused(f"to shape {target}")
    if -1 in full:
        rest = -prod(full)
        full[full.index(-1)] = prod(size) // rest
    if isinstance(x, Constant):
        return n.keep(x.reshaped(full))
    _to_shape(n, x, full)


def _flatten(n: OnnxNode) -> None:
    axis = n.attributes.integer("axis", 1)
    n.attributes.finish()
    x = n.dynamic(0)
    if axis not in (1, -len(n.shape(x))):
        raise Refused(f"axis {axis}; the batch axis must stay in front")
    _to_shape(n, x, [n.scope.batch, prod(n.shape(x))])


def _squeeze(n: OnnxNode) -> None:
    x = n.operand(0)
    axes = n.constant(1, "axes").integers("axes") if n.given(1) else n.attributes.integers("axes", [])
    n.attributes.finish()
    add = n.node.op_type == "Unsqueeze"
    size = list(x.values.shape) if isinstance(x, Constant) else [n.scope.batch, *n.shape(x)]
    rank = len(size) + (len(axes) if add else 0)
    places = sorted({a % rank for a in axes}) if rank else []
    if not axes or len(places) != len(axes) or (not add and any(size[a] != 1 for a in places)):
        raise Refused(f"axes {axes} of shape {size}")
    if add:
        for a in places:
            size.insert(a, 1)
    else:
        size = [s for a, s in enumerate(size) if a not in places]
    if isinstance(x, Constant):
        return n.keep(x.reshaped(size))
    _to_shape(n, x, size)


def _transpose(n: OnnxNode) -> None:
    x = n.operand(0)
    rank = x.values.ndim if isinstance(x, Constant) else len(n.shape(x)) + 1
    perm = n.attributes.integers("perm", list(range(rank))[::-1])
    n.attributes.finish()
    if isinstance(x, Constant):
        return n.keep(x.transposed(perm))
    if perm[:1] != [0] or sorted(perm) != list(range(rank)):
        raise Refused(f"perm {perm}; the batch axis must stay in front")
    n.add(ops.Transpose(tuple(p - 1 for p in perm[1:])), x)


def _slice(n: OnnxNode) -> None:
    x = n.dynamic(0)
    shape = n.shape(x)
    starts, ends = (n.constant(i, "a bound").integers("a bound") for i in (1, 2))
    axes = n.constant(3, "axes").integers("axes") if n.given(3) else list(range(len(starts)))
    steps = n.constant(4, "steps").integers("steps") if n.given(4) else [1] * len(starts)
    n.attributes.finish()
    if not len(starts) == len(ends) == len(axes) == len(steps) or min(steps, default=1) < 1:
        raise Refused(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}; steps must be positive")
    parts = [(0, size, 1) for size in (n.scope.batch, *shape)]
    for axis, *bounds in zip((a % len(parts) for a in axes), starts, ends, steps, strict=True):
        parts[axis] = slice(*bounds).indices(parts[axis][1])
    if parts[0] != (0, n.scope.batch, 1):
        raise Refused("takes some samples of the batch")
    n.add(arrays.Slice(*(tuple(p[i] for p in parts[1:]) for i in range(3))), x)


def _resize(n: OnnxNode) -> None:
    """Nearest neighbours, by whole numbers."""
    x = n.dynamic(0)
    for name, only in (
        ("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor"),
    ):  # fmt: skip
        n.attributes.expect(name, "text", only)
    n.attributes.finish("cubic_coeff_a", "exclude_outside", "extrapolation_value")
    size = (n.scope.batch, *n.shape(x))
    if n.given(2) and n.constant(2, "scales").values.size:
        times = [float(v) for v in n.constant(2, "scales").values.reshape(-1)]
    else:
        sizes = n.constant(3, "sizes").integers("sizes")
        times = [t / s for t, s in zip(sizes, size, strict=True)]
    if len(times) != len(size) or times[0] != 1 or any(t < 1 or t != int(t) for t in times):
        raise Refused(f"by {times}; whole numbers are supported, and 1 for the batch")
    n.add(arrays.Repeat(tuple(int(t) for t in times[1:])), x)


def _same(n: OnnxNode) -> None:
    n.keep(n.operand(0))


def _cast(n: OnnxNode) -> None:
    to = n.attributes.integer("to", 0)
    x = n.operand(0)
    if isinstance(x, Constant) and to in (6, 7):
        return n.keep(Constant(np.asarray(x.values, dtype=np.int64)))
    if to not in (1, 11):
        raise Refused(f"to element type {to}; only float types are supported")
    n.keep(Constant(np.asarray(x.values, np.float64), x.format, x.axis) if isinstance(x, Constant) else x)


def _constant_node(n: OnnxNode) -> None:
    tensors = [a.t for a in n.node.attribute if a.name == "value" and a.type == 4]
    if len(tensors) != 1:
        raise Refused("only constants given as tensors are supported")
    n.keep(Constant(tensor_values(tensors[0])))


def _shape(n: OnnxNode) -> None:
    n.attributes.finish()
    n.keep(Constant(np.array([n.scope.batch, *n.shape(n.dynamic(0))], dtype=np.int64)))


def _gather(n: OnnxNode) -> None:
    x, index = n.constant(0, "the operand"), n.constant(1, "the index").integers("the index")
    n.attributes.expect("axis", "integer", 0)
    n.attributes.finish()
    if x.values.ndim != 1 or any(not -x.values.size <= i < x.values.size for i in index):
        raise Refused("only numbers of a list are picked")
    picked = x.values[index]
    n.keep(Constant(picked if n.constant(1, "the index").values.ndim else picked.reshape(())))


SHAPES: dict[str, Callable[[OnnxNode], None]] = {
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Resize": _resize,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
    "Constant": _constant_node,
    "Shape": _shape,
    "Gather": _gather,
}
