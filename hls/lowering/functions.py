"""Functions of one number: tables, polynomials in segments, inverse roots."""

from __future__ import annotations

import numpy as np

from qfx.graph import ops
from qfx.graph.functions import InverseRoot, Piecewise, Table
from qfx.graph.graph import Node
from qfx.graph.lookups import lookup
from qfx.graph.tensor import exact_tensor, integers
from qfx.hls.carriers import integer_width
from qfx.hls.kernels import Struct
from qfx.hls.lowering import constants
from qfx.hls.lowering.design import Design, Value, interval

_HEADER = "qfx_functions.h"


def lower_table(design: Design, node: Node, cast: Node | None) -> None:
    """A memory with an entry for every code that the operand can have."""
    op = node.op
    assert isinstance(op, Table)
    (x,) = design.operands(node)
    found = lookup(op, x.tensor)
    struct = _struct(x, found.align, (0, found.low, found.high, found.first, found.low - found.first))
    struct.constants(significant=found.precision, half=len(found.entries) // 2)
    struct.table("first", [found.first])
    struct.table("entries", found.entries, rom=True)
    kernel = "qfx::pointwise, qfx::op_table"
    design.add_kernel(node, cast, [x], kernel, _HEADER, struct, interval(node.tensor), x.order)


def lower_piecewise(design: Design, node: Node, _: Node | None) -> None:
    """The exact polynomials, and the cast that is part of the operator."""
    op = node.op
    assert isinstance(op, Piecewise)
    (x,) = design.operands(node)
    shifts = [int(s) for s in ops.to_frac(x.tensor, op.frac)]
    ends = (x.tensor.low << integers(shifts)).min(), (x.tensor.high << integers(shifts)).max()
    low, high = (int(e) for e in ends)
    struct = _struct(x, shifts, (0, low, high, op.first, low - op.first, high - op.first))
    degree = op.coefficients.shape[1] - 1
    struct.constants(places=op.shift, degree=degree)
    struct.table("first", [op.first])
    for k, name in enumerate(("constant", "linear", "square")):
        column = op.coefficients[:, k] if k <= degree else np.zeros(1, dtype=np.int64)
        struct.constants(**{f"left{k}": op.top - op.fracs[k] if k <= degree else 0})
        struct.table(name, column, rom=True)
    sums = op.sums(np.arange(low, high + 1, dtype=np.int64))
    exact = exact_tensor(
        x.tensor.shape, op.top, *(integers([int(e)] * x.tensor.channels) for e in (sums.min(), sums.max()))
    )
    bound = max(op.largest([x.tensor]), 1 << op.shift)
    rounded = ops.Cast(op.format).infer(exact)
    fmt = op.format
    summed = Node(node.name, node.op, node.inputs, node.path, exact)
    kernel = "qfx::pointwise, qfx::op_piecewise"
    if rounded.fracs == node.tensor.fracs:
        cast = Node(node.name, ops.Cast(fmt), node.inputs, node.path, node.tensor)
        design.add_kernel(summed, cast, [x], kernel, _HEADER, struct, (-bound, bound), x.order)
        design.layers[-1].nodes = (node,)
        return
    # The cast leaves numbers on a coarser grid than the format's: zeros behind them.
    middle = Node(f"rounded_{node.name}", ops.Cast(fmt), node.inputs, node.path, rounded)
    summed = Node(middle.name, node.op, node.inputs, node.path, exact)
    design.add_kernel(summed, middle, [x], kernel, _HEADER, struct, (-bound, bound), x.order)
    design.layers[-1].nodes = ()
    coarse = design.values.pop(middle.name)
    up = node.tensor.fracs[0] - rounded.fracs[0]
    final = Struct()
    final.constants(n_in=x.tensor.size, n_chan=x.tensor.channels)
    for name, value in (("scale", 1 << up), ("offset", 0)):
        constants.check_bits(name, integers([value]))
        final.table(name, [value])
    kernel = "qfx::pointwise, qfx::op_affine"
    design.add_kernel(node, None, [coarse], kernel, "qfx_pointwise.h", final, interval(node.tensor), x.order)


def lower_inverse_root(design: Design, node: Node, cast: Node | None) -> None:
    """Normalisation, a polynomial, a shift back."""
    op = node.op
    assert isinstance(op, InverseRoot)
    (x,) = design.operands(node)
    point = max(x.tensor.fracs)
    shifts = [int(s) for s in ops.to_frac(x.tensor, point)]
    low = int((x.tensor.low << integers(shifts)).min())
    high = int((x.tensor.high << integers(shifts)).max())
    largest = max(high + op.offset, op.least, 1)
    met = (0, low, high, op.offset, low + op.offset, op.least, largest << (op.bits + 1))
    struct = _struct(x, shifts, met)
    degree = op.coefficients.shape[1] - 1
    struct.constants(root=op.root, odd=bool(point & 1), bits=op.bits, places=op.shift, degree=degree)
    struct.constants(guard=op.guard)
    struct.number("top", op.exponents(x.tensor)[1])
    struct.table("offset", [op.offset])
    struct.table("least", [op.least])
    for k, name in enumerate(("constant", "linear")):
        column = op.coefficients[:, k] if k <= degree else np.zeros(1, dtype=np.int64)
        struct.table(name, column, rom=True)
    peak = sum(int(abs(integers(op.coefficients)[:, k]).max()) << (op.shift * k) for k in range(degree + 1))
    struct.typedef("poly_t", f"ap_int<{integer_width(-peak, peak)}>")
    kernel = "qfx::pointwise, qfx::op_inverse_root"
    top = max(interval(node.tensor)[1], peak)
    design.add_kernel(node, cast, [x], kernel, _HEADER, struct, (0, top), x.order)


def _struct(x: Value, shifts: object, met: tuple[int, ...]) -> Struct:
    """What all of them have; ``wide_t`` holds the integers ``met`` on the way."""
    struct = Struct()
    struct.constants(n_in=x.tensor.size, n_chan=x.tensor.channels)
    struct.table("up", x.per_channel(shifts), "int")
    struct.typedef("wide_t", f"ap_int<{integer_width(min(met), max(met)) + 1}>")
    return struct
