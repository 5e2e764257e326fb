"""The ``cast`` of docs/graph.md on one scalar, in as little logic as its interval allows."""

from __future__ import annotations

from qfx.formats import FixedPoint
from qfx.formats.rounding import cast_codes, code_range
from qfx.graph.tensor import integers
from qfx.rtl.parallel.netlist import Netlist, Ref


def cast(net: Netlist, x: Ref, drop: int, fmt: FixedPoint) -> Ref:
    """``x`` with ``drop`` bits fewer (negative: more) in a format.

    Rounding is monotonic and keeps 0, so bounds that stand in front of it (a ReLU, a clip) are applied behind
    it, rounded themselves, where they are narrower and become one with the saturation.
    """
    low, high = code_range(fmt.width, fmt.signed, fmt.overflow)
    bounds = net.interval(x)
    source = x
    if x.node is not None and net.nodes[x.node].kind == "clamp":
        source = Ref(net.nodes[x.node].args[0], x.shift)
    value, floor = rounded(net, source, drop, fmt.rounding, bounds[0] >= 0, bounds[1] <= 0)
    least, most = (_round(v, drop, fmt.rounding) for v in bounds)
    if fmt.overflow in ("SAT", "SAT_SYM"):
        return net.clamp(value, min(max(least, low), high), max(min(most, high), low))
    value = net.clamp(value, least, most)
    if fmt.overflow == "SAT_ZERO":
        return net.inside(value, low, high)
    if fmt.overflow == "WRAP":
        return net.wrap(value, fmt.width, fmt.signed)
    least, most = (v >> drop if drop > 0 else v << -drop for v in bounds)
    return net.wrap_sign_magnitude(value, net.clamp(floor, least, most), fmt.width)


def rounded(
    net: Netlist, x: Ref, drop: int, rounding: str, never_negative: bool = False, never_positive: bool = False
) -> tuple[Ref, Ref]:
    """``x * 2**-drop`` as an integer by a rounding mode, and its floor.

    ``never_negative``: results for ``x < 0`` may be anything from the right one to 0, likewise
    ``never_positive`` for ``x > 0``: the caller bounds them.
    """
    if drop <= x.shift or x.node is None:
        exact = x.shifted(-drop) if drop <= x.shift and x.node is not None else None
        if exact is None:
            return Ref(None, 0, _round(x.value, drop, rounding)), Ref(None, 0, _round(x.value, drop, "TRN"))
        return exact, exact
    # Zeros at the bottom are dropped first.
    x, drop = x.shifted(-x.shift), drop - x.shift
    low, high = net.interval(x)
    never_negative, never_positive = never_negative or low >= 0, never_positive or high <= 0
    floor = net.floor(x, drop)
    half = 1 << (drop - 1)
    if rounding == "TRN" or (rounding == "TRN_ZERO" and never_negative):
        return floor, floor
    if rounding == "TRN_ZERO":
        full = (1 << drop) - 1
        raised = net.offset(x, full) if never_positive else net.add_sign(x, 0, full)
        return net.floor(raised, drop), floor
    up = net.offset(x, half)
    if rounding == "RND_CONV":
        # Ties go up with the half; where that leaves zeros below, the lowest bit tells whether it was right.
        return net.even(net.floor(up, drop), up, drop), floor
    # A tie goes up with the half, down with one less.
    ties_up = {
        "RND": (True, True),
        "RND_MIN_INF": (False, False),
        "RND_ZERO": (False, True),
        "RND_INF": (True, False),
    }[rounding]
    positive, negative = (half if tie else half - 1 for tie in ties_up)
    if never_negative or positive == negative:
        raised = net.offset(x, positive)
    elif never_positive:
        raised = net.offset(x, negative)
    else:
        raised = net.add_sign(x, positive, negative - positive)
    return net.floor(raised, drop), floor


def _round(value: int, drop: int, rounding: str) -> int:
    """One integer, rounded; no overflow."""
    width = abs(value).bit_length() + 3 + abs(drop)
    return int(cast_codes(integers([value]), drop, width, True, rounding, "SAT")[0])
