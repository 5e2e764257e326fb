"""Functions of one number as stages: ``table``, ``piecewise``, ``inverse_root`` (docs/rtl.md, "Lowering")."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qfx.errors import UnsupportedError
from qfx.graph import Node
from qfx.graph import ops as op
from qfx.graph.functions import InverseRoot, Piecewise, Table
from qfx.graph.lookups import lookup
from qfx.graph.tensor import exact_tensor, integers
from qfx.rtl.array_stages import Lanewise
from qfx.rtl.design import Parameter
from qfx.rtl.library import clog2
from qfx.rtl.stages import Value
from qfx.rtl.values import bits_of

if TYPE_CHECKING:
    from qfx.rtl.lower import Lowering


def lower_table(lowering: Lowering, node: Node) -> Value:
    """A memory with an entry for every code that the operand can have, in the operand's own codes."""
    assert isinstance(node.op, Table)
    x, source = lowering.operand(node), lowering.graph[node.inputs[0]].tensor
    try:
        found = lookup(node.op, source)
    except UnsupportedError as error:
        raise UnsupportedError(f"{node.where}: {error}") from error
    if any(found.align):
        fracs = tuple(p + a for p, a in zip(x.fracs, lowering.in_stream(x, source, found.align), strict=True))
        x = lowering.aligned(node, x, 0, fracs, *bits_of(found.low, found.high))
    entries, precision, depth = found.entries, found.precision, len(found.entries)
    out = lowering.like(x, node)
    address = max(1, clog2(depth))
    parameters: dict[str, Parameter] = {
        "IN_WIDTH": x.width,
        "IN_SIGNED": int(found.signed),
        "PRECISION": precision,
        "FIRST": found.first & ((1 << address) - 1),
        "DEPTH": depth,
        "OUT_WIDTH": out.width,
        "TABLE_FILE": "",
        "ROM_STYLE": "auto",
    }
    contents = {"TABLE_FILE": (entries.reshape(-1, 1), out.width)}
    return lowering.put(Lanewise(node.name, (x,), out, "qfx_table", parameters, contents))


def lower_piecewise(lowering: Lowering, node: Node) -> Value:
    """The exact polynomials, then the cast that any operator has."""
    o = node.op
    assert isinstance(o, Piecewise)
    x, source = lowering.operand(node), lowering.graph[node.inputs[0]].tensor
    shifts = op.to_frac(source, o.frac)
    low, high = int((source.low << shifts).min()), int((source.high << shifts).max())
    x = lowering.aligned(node, x, 0, (o.frac,) * x.channels, *bits_of(low, high))
    # Only the segments that codes can lie in.
    start, end = (low - o.first) >> o.shift, (high - o.first) >> o.shift
    first, coefficients = o.first + (start << o.shift), integers(o.coefficients[start : end + 1])
    sums = o.sums(np.arange(low, high + 1, dtype=np.int64))
    exact = exact_tensor(
        source.shape, o.top, *(integers([int(e)] * source.channels) for e in (sums.min(), sums.max()))
    )
    width = bits_of(min(-1, int(coefficients.min())), max(0, int(coefficients.max())))[0]
    degree = coefficients.shape[1] - 1
    segments = len(coefficients)
    place = max(1, clog2(segments)) + o.shift
    left = [o.top - f for f in o.fracs] + [0] * (2 - degree)
    total = replace(
        x,
        name=f"{node.name}_sum",
        node=None,
        width=exact.format.width,
        signed=exact.format.signed,
        fracs=(o.top,) * x.channels,
    )
    parameters: dict[str, Parameter] = {
        "IN_WIDTH": x.width,
        "IN_SIGNED": int(x.signed),
        "FIRST": first & ((1 << min(place, 31)) - 1),
        "SHIFT": o.shift,
        "SEGMENTS": segments,
        "DEGREE": degree,
        "C_WIDTH": width,
        "LEFT0": left[0],
        "LEFT1": left[1],
        "LEFT2": left[2],
        "OUT_WIDTH": total.width,
        "COEFFICIENT_FILE": "",
        "ROM_STYLE": "auto",
    }
    contents = {"COEFFICIENT_FILE": (coefficients, width)}
    total = lowering.put(Lanewise(node.name, (x,), total, "qfx_piecewise", parameters, contents))
    rounded = op.Cast(o.format).infer(exact)
    if rounded.fracs == node.tensor.fracs:
        return lowering.cast_to(node, total, exact, o.format, node.tensor, lowering.like(x, node))
    # The cast leaves numbers on a coarser grid than the format's: zeros behind them.
    fmt = rounded.format
    middle = replace(
        lowering.like(x, node), name=f"{node.name}_rounded", node=None, width=fmt.width, signed=fmt.signed,
        fracs=(rounded.fracs[0],) * x.channels,
    )  # fmt: skip
    middle = lowering.cast_to(node, total, exact, o.format, rounded, middle)
    return lowering.shifted(node, middle, lowering.like(x, node))


def lower_inverse_root(lowering: Lowering, node: Node) -> Value:
    """Normalisation, a polynomial and a shift back: one kernel."""
    o = node.op
    assert isinstance(o, InverseRoot)
    x, source = lowering.operand(node), lowering.graph[node.inputs[0]].tensor
    point = max(source.fracs)
    shifts = op.to_frac(source, point)
    low, high = int((source.low << shifts).min()), int((source.high << shifts).max())
    x = lowering.aligned(node, x, 0, (point,) * x.channels, *bits_of(low, high))
    met = [0, low, high, o.offset, low + o.offset, high + o.offset, o.least]
    if x.signed:
        met.append(-1 << (x.width - 1))
    else:
        met.append((1 << x.width) - 1)
    wide = bits_of(min(-1, *met), max(met))[0]
    coefficients = integers(o.coefficients)
    width = bits_of(min(-1, int(coefficients.min())), int(coefficients.max()))[0]
    out = lowering.like(x, node)
    parameters: dict[str, Parameter] = {
        "IN_WIDTH": x.width,
        "IN_SIGNED": int(x.signed),
        "WIDE": wide,
        "OFFSET": o.offset & ((1 << wide) - 1),
        "LEAST": o.least,
        "ROOT": o.root,
        "PARITY": point & 1,
        "TOP": o.exponents(source)[1],
        "BITS": o.bits,
        "SHIFT": o.shift,
        "SEGMENTS": len(coefficients),
        "DEGREE": coefficients.shape[1] - 1,
        "C_WIDTH": width,
        "GUARD": o.guard,
        "OUT_WIDTH": out.width,
        "COEFFICIENT_FILE": "",
        "ROM_STYLE": "auto",
    }
    contents = {"COEFFICIENT_FILE": (coefficients, width)}
    return lowering.put(Lanewise(node.name, (x,), out, "qfx_inverse_root", parameters, contents))


HANDLERS = {Table: lower_table, Piecewise: lower_piecewise, InverseRoot: lower_inverse_root}
