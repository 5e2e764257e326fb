"""Look-up tables of a block, from its structure; to compare, not to promise (use :mod:`qfx.cost` for
that)."""

from __future__ import annotations

from qfx.rtl.parallel.lower import Block
from qfx.rtl.parallel.netlist import WIRES, Netlist, Node


def lut(block: Block) -> float:
    """One LUT per bit in which two operands meet; a constant costs what synthesis leaves of it."""
    net = block.netlist
    return sum(_node(net, net.nodes[n]) for n in net.live(block.refs()))


def _node(net: Netlist, node: Node) -> float:
    if node.kind in WIRES:
        return 0.0
    if node.kind == "add":
        (a, b), (shift_a, shift_b, sign) = (net.nodes[x] for x in node.args), node.data
        start = max(shift_a, shift_b) if sign > 0 or shift_a <= shift_b else shift_a
        tops = [(x.width + s, x.signed) for x, s in ((a, shift_a), (b, shift_b))]
        # An unsigned operand ends where its bits end; two signed ones go on together.
        ends = [top for top, signed in tops if not signed]
        return max(1, min([node.width, *ends]) - start)
    if node.kind == "offset":
        return 0.25 * node.width
    if node.kind == "even":
        return 1.0
    if node.kind in ("fold", "gate", "and", "or", "xor", "andnot"):
        return 0.5 * node.width
    widest = max(net.nodes[a].width for a in node.args)
    return node.width + widest / 5
