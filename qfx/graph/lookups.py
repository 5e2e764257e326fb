"""The memories that hardware needs for ``table``, and the tensors that depend on no input (docs/graph.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats.minifloat import Minifloat
from qfx.graph.functions import MAX_TABLE, Table
from qfx.graph.graph import Graph
from qfx.graph.ops import to_frac
from qfx.graph.reference import evaluate
from qfx.graph.tensor import Tensor, integers


@dataclass(frozen=True)
class Lookup:
    """A table as a memory.

    With ``precision`` 0, entry ``c - first`` belongs to the aligned code ``c``. Otherwise the codes are
    numbers of so many significant bits, and the entry of ``c`` is that of :func:`float_place` of its
    magnitude, in the upper half of the memory when ``c`` is negative (``signed``: there is such a half).

    Attributes:
        align: per channel of the operand, bits to append to its codes.
        low, high: the aligned codes that occur.
        precision: see above.
        first: see above.
        signed: whether there is a half for negative codes.
        entries: ``object`` integers; 0 where no code can point.
    """

    align: tuple[int, ...]
    low: int
    high: int
    precision: int
    first: int
    signed: bool
    entries: np.ndarray


def float_place(magnitude: int, precision: int) -> int:
    """Where a number of ``precision`` significant bits stands among all of them, in ascending order."""
    exponent = max(magnitude.bit_length() - precision, 0)
    return (exponent << (precision - 1)) + (magnitude >> exponent)


def lookup(op: Table, x: Tensor) -> Lookup:
    """The memory of a table for an operand.

    Raises:
        UnsupportedError: it would have more than :data:`MAX_TABLE` entries.
    """
    shifts = [int(s) for s in to_frac(x, op.frac)]
    # What all channels miss to the function's binary point is in the table; only differences are shifts.
    common = min(shifts)
    align = tuple(s - common for s in shifts)
    low = int((x.low << integers(align)).min())
    high = int((x.high << integers(align)).max())
    signed = low < 0
    encoding, precision = x.encoding, 0
    first, depth = low, high - low + 1
    if isinstance(encoding, Minifloat) and encoding.exponent_bits and not encoding.per_channel:
        # The numbers of a minifloat in a row are far fewer than the integers between them.
        significant = encoding.mantissa_bits + 1
        reach = max(float_place(abs(end), significant) for end in (low, high))
        floating = 1 << (max(1, reach.bit_length()) + signed)
        if 2 * floating <= depth:
            precision, first, depth = significant, 0, floating
    if depth > MAX_TABLE:
        raise UnsupportedError(
            f"a table for the codes {low}..{high} has {depth} entries, and {MAX_TABLE} are supported; use "
            "fewer bits in front of it, or a minifloat"
        )
    entries = integers([0] * depth)
    known = dict(zip(op.codes.tolist(), op.table.tolist(), strict=True))
    if not precision:
        for i in range(depth):
            entries[i] = known.get((low + i) << common, 0)
        return Lookup(align, low, high, 0, first, signed, entries)
    for code, entry in known.items():
        c = code >> common
        dropped = max(abs(c).bit_length() - precision, 0)
        # Entries between the numbers of the format are never asked for, and have no place.
        if c << common == code and low <= c <= high and c % (1 << dropped) == 0:
            entries[float_place(abs(c), precision) + (depth // 2 if c < 0 else 0)] = entry
    return Lookup(align, low, high, precision, first, signed, entries)


def constant_tensors(graph: Graph) -> dict[str, np.ndarray]:
    """The codes of every tensor that depends on no input, by node: ``object`` integers, ``(1, *shape)``."""
    found: dict[str, np.ndarray] = {}
    for node in graph.nodes[1:]:
        if all(name in found for name in node.inputs):
            codes = [found[name] for name in node.inputs]
            made = evaluate(node, graph.operands(node), codes) if codes else node.op.evaluate((), ())
            found[node.name] = integers(made)
    return found
