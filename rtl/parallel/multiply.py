"""The product of two values, in adders: partial products by the bits of the narrower one."""

from __future__ import annotations

from qfx.rtl.parallel.netlist import Netlist, Ref


def product_of(net: Netlist, a: Ref, b: Ref) -> Ref:
    """``a * b``, neither of them constant: a tree of adders over ``a`` where a bit of ``b`` is set; the sign
    bit of ``b`` counts negative. No multiplier, so that there is no DSP block in it."""
    shift = a.shift + b.shift
    a, b = a.shifted(-a.shift), b.shifted(-b.shift)
    assert a.node is not None and b.node is not None
    if net.nodes[a.node].width < net.nodes[b.node].width:
        a, b = b, a
    assert b.node is not None
    bits, signed = net.nodes[b.node].width, net.nodes[b.node].signed
    terms = [net.gate(a, net.wrap(net.floor(b, i), 1, False)).shifted(i) for i in range(bits)]
    signs = [-1 if signed and i == bits - 1 else 1 for i in range(bits)]
    (la, ha), (lb, hb) = net.interval(a), net.interval(b)
    ends = [x * y for x in (la, ha) for y in (lb, hb)]
    if a == b:
        ends = [la * la, ha * ha, *([0] if la <= 0 <= ha else [])]
    interval = min(ends), max(ends)
    # Neighbours first: they have most bits in common.
    while len(terms) > 1:
        last = interval if len(terms) == 2 else None
        pairs = list(zip(terms[::2], terms[1::2], signs[::2], signs[1::2], strict=False))
        rest = terms[len(pairs) * 2 :], signs[len(pairs) * 2 :]
        # Only the last sign can be negative, so the first of each pair is positive.
        terms = [net.add(x, y, s, t, last) for x, y, s, t in pairs] + rest[0]
        signs = [1] * len(pairs) + rest[1]
    return net.offset(terms[0], 0, signs[0]).shifted(shift)
