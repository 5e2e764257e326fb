"""Nodes of QONNX's own domain: quantizers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qfx.formats.binary import Binary
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.interop import qonnx_quant as quant
from qfx.interop.assemble import Value
from qfx.interop.problems import Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_node import OnnxNode
from qfx.interop.qonnx_spelling import makes_a_difference


def _quant(n: OnnxNode) -> None:
    x, scale = n.operand(0), n.constant(1, "the scale")
    zero, bits = n.constant(2, "the zero point"), n.constant(3, "the bit width").number("the bit width")
    if (zero.values != 0).any():
        raise Refused(
            f"zero point {float(zero.values.reshape(-1)[0]):g}; only symmetric quantizers, zero point 0"
        )
    constant = isinstance(x, Constant)
    shape = x.values.shape if isinstance(x, Constant) else (n.scope.batch, *n.shape(x))
    frac, axis = quant.points(scale, shape)
    fmt = quant.integer_format(n.attributes, bits, frac, constant)
    n.attributes.finish()
    narrow = n.attributes.flag("narrow", False)
    if bits == 1 and fmt.signed:  # qonnx: plus or minus the scale, as BipolarQuant
        return _bipolar_result(n, x, frac, axis)
    bit = _cut_to_one_bit(n, fmt)
    if isinstance(x, Constant):
        found = quant.quantized(x, fmt, axis, narrow)
        if bit is not None:
            found = Constant(np.minimum(found.values, 0), bit, axis)
        n.scope.values[n.last.output[0]] = quant.hinted_constant(n.last, found)
        return None
    if isinstance(frac, tuple) and axis != 1:
        raise Refused(f"its scale runs along axis {axis}; supported is the channel axis, 1")
    said = bit or fmt
    assembler = n.scope.assembler
    difference = (
        makes_a_difference(assembler.tensor(x), said, exact=False) if isinstance(x, str) else (True, True)
    )
    n.add(ops.Cast(quant.hinted_cast(n.last, said, difference)), x)


def _cut_to_one_bit(n: OnnxNode, fmt: FixedPoint) -> FixedPoint | None:
    """``Quant`` to -1, 0, 1 followed by ``Min`` with a plain 0: how a signed bit, -1 and 0, is written."""
    if not (fmt.width == 2 and fmt.overflow == "SAT_SYM"):
        return None
    following = n.follower(("Min",))
    if following is None:
        return None
    user, zero = following
    if (
        not isinstance(zero, Constant)
        or zero.format is not None
        or zero.values.any()
        or zero.values.size != 1
    ):
        return None
    n.extend(user)
    return FixedPoint(1, fmt.frac, True, fmt.rounding, "SAT")


def _bipolar(n: OnnxNode) -> None:
    x = n.operand(0)
    shape = x.values.shape if isinstance(x, Constant) else (n.scope.batch, *n.shape(x))
    frac, axis = quant.points(n.constant(1, "the scale"), shape)
    n.attributes.finish()
    _bipolar_result(n, x, frac, axis)


def _bipolar_result(n: OnnxNode, x: Value | Constant, frac: int | tuple[int, ...], axis: int) -> None:
    if isinstance(x, Constant):
        return n.keep(quant.hinted_constant(n.last, quant.sign_constant(x, frac, axis)))
    if isinstance(frac, tuple) and axis != 1:
        raise Refused(f"its scale runs along axis {axis}; supported is the channel axis, 1")
    n.add(ops.Cast(Binary(frac)), x)


def _trunc(n: OnnxNode) -> None:
    if len(n.node.input) != 6:
        raise Refused(
            "Trunc with 5 operands, of version 1, is not supported; export again with brevitas 0.12 on"
        )
    x, scale = n.dynamic(0), n.constant(1, "the scale")
    if (n.constant(2, "the zero point").values != 0).any():
        raise Refused("zero points other than 0 are not supported")
    out_scale, bits = (
        n.constant(4, "the output scale"),
        n.constant(5, "the bit width").number("the bit width"),
    )
    shape = (n.scope.batch, *n.shape(x))
    before, _ = quant.points(scale, shape)
    frac, axis = quant.points(out_scale, shape)
    if isinstance(frac, tuple) and axis != 1:
        raise Refused(f"its scale runs along axis {axis}; supported is the channel axis, 1")
    fmt = quant.integer_format(n.attributes, bits, frac, constant=False)
    n.attributes.finish()
    if not isinstance(x, str) or max(n.scope.assembler.tensor(x).fracs) > np.min(before):
        raise Refused("truncates a tensor that is not on the grid of its scale; quantize it before")
    n.add(ops.Cast(fmt), x)


def _float_quant(n: OnnxNode) -> None:
    x = n.operand(0)
    names = ("exponent_bits", "mantissa_bits", "exponent_bias", "max")
    numbers = {name: n.constant(2 + i, name).number(name) for i, name in enumerate(names)}
    shape = x.values.shape if isinstance(x, Constant) else (n.scope.batch, *n.shape(x))
    fmt, axis = quant.minifloat(n.attributes, n.constant(1, "the scale"), numbers, shape)
    n.attributes.finish()
    if isinstance(x, Constant):
        return n.keep(quant.hinted_constant(n.last, quant.float_quantized(x, fmt, axis)))
    if fmt.per_channel and axis != 1:
        raise Refused(f"its scale runs along axis {axis}; supported is the channel axis, 1")
    n.add(ops.Cast(fmt), x)


QUANTIZERS: dict[str, Callable[[OnnxNode], None]] = {
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar,
    "Trunc": _trunc,
    "FloatQuant": _float_quant,
}
