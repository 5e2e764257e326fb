"""Casts to formats with gaps: minifloats, K-hot numbers, one bit, blocks (docs/graph.md, "cast").

A number of such a format is an integer rounded at a place that depends on it. The place is a *mask*: ones in
the bits that are dropped. `Netlist.round_at` rounds there, with one adder. The rules for the place, and why
they give the nearest number, are those of the stream kernels (rtl/kernels/qfx_cast_*.v); here every element
has its own interval, so that much of the logic falls away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qfx.formats import Block, FixedPoint, KHot, Minifloat
from qfx.graph import ops as op
from qfx.graph.casts import GappedCast, block_cast, gapped_cast
from qfx.graph.tensor import Tensor, integers
from qfx.rtl.parallel.casts import rounded
from qfx.rtl.parallel.netlist import Netlist, Ref, width_of


def sign(net: Netlist, x: Ref) -> Ref:
    """1 where ``x >= 0``, -1 elsewhere."""
    return net.select(x, Ref(None, 0, 1), Ref(None, 0, -1))


@dataclass
class GappedCaster:
    """Casts the elements of ``source`` to a minifloat or a K-hot format.

    Attributes:
        net: where the logic goes.
        source: the operand.
        fmt: the format; with one binary point, or one per channel.
    """

    net: Netlist
    source: Tensor
    fmt: Minifloat | KHot
    known: dict[tuple[int, int, int], GappedCast] = field(default_factory=dict)

    def cast(self, x: Ref, channel: int) -> Ref:
        """The code of one element."""
        net, (low, high) = self.net, self.net.interval(x)
        fmt = self.fmt.with_frac(self.fmt.fracs(self.source.channels)[channel])
        point = self.source.fracs[channel]
        if x.node is None:
            return Ref(None, 0, int(fmt.cast_integers(integers([[x.value]]), (point,))[0, 0]))
        key = (low, high, channel)
        if key not in self.known:
            # An element by itself: a tensor of one channel with its own interval.
            plain = FixedPoint(width_of(low, high), point, low < 0)
            one = Tensor((1,), plain, integers([low]), integers([high]))
            self.known[key] = gapped_cast(one, fmt, op.Cast(fmt).infer(one))
        steps = self.known[key]
        ends = (steps.result_low, steps.result_high)
        # Zeros at the bottom of the operand are not looked at.
        shift, x = steps.shift - x.shift, x.shifted(-x.shift)
        place = max(shift, 0)
        bottom = -steps.limit if fmt.integer_min < 0 else 0
        before = _before_saturation(net.interval(x), shift, ends, (bottom, steps.limit))
        if isinstance(fmt, KHot):
            csd = fmt.digits == "csd" and steps.digits > 1
            drop, tie = _place_of_digits(net, x, place, steps.digits, csd)
            value = _round(net, x, drop, "RND_CONV", tie, place, before)
        else:
            drop = _place_of_size(net, net.fold(x), steps.precision, place)
            tie = None
            if steps.precision == 1 and fmt.rounding == "RND_CONV":
                tie = _tie_to_odd_exponent(net, x, shift)
            value = _round(net, x, drop, fmt.rounding, tie, place, before)
        value = value.shifted(max(-shift, 0))
        return net.floor(net.clamp(value, *ends), steps.settle[0])


def blocks(net: Netlist, x: np.ndarray, source: Tensor, fmt: Block, result: Tensor) -> np.ndarray:
    """The codes of a tensor whose channels are cast in blocks; ``x`` and the result are arrays of scalars.

    Raises:
        UnsupportedError: what :func:`qfx.graph.casts.block_cast` refuses.
    """
    steps = block_cast(source, fmt, result)
    flat = x.reshape(source.channels, -1)
    found = np.empty(flat.shape, dtype=object)
    for place in range(flat.shape[1]):
        for first in range(0, source.channels, steps.size):
            channels = range(first, min(first + steps.size, source.channels))
            numbers = [flat[c, place].shifted(steps.align[c]) for c in channels]
            if not fmt.element.signed:
                numbers = [net.clamp(number, 0, None) for number in numbers]
            sizes = [_magnitude(net, number) for number in numbers]
            largest, limit, odd = _scale(net, sizes, steps.top, steps.largest)
            for c, number, magnitude in zip(channels, numbers, sizes, strict=True):
                reached = net.above(magnitude)
                drop = net.floor(largest, steps.top)
                if steps.precision:
                    drop = net.logic("or", drop, net.floor(reached, steps.precision))
                tie = None
                if steps.precision == 1 and steps.rounding == "RND_CONV":
                    # As for minifloats; exponents count from the step of the block.
                    up = net.logic("xor", _lead_is_odd(net, reached, 0), odd)
                    up = net.logic("xor", up, Ref(None, 0, steps.top % 2))
                    tie = net.logic("xor", up, _negative(net, number))
                ends = tuple(int(v[c]) << steps.align[c] for v in (result.low, result.high))
                low, high = net.interval(number)
                least = -(1 << (-low).bit_length()) if low < 0 else 0
                most = 1 << high.bit_length() if high > 0 else 0
                value = _round(net, number, drop, steps.rounding, tie, 0, (least, most))
                value = net.minimum(value, limit)
                if steps.symmetric and low < 0:
                    value = net.maximum(value, net.offset(limit, 0, -1))
                found[c, place] = net.floor(net.narrowed(value, *ends), steps.align[c])
    return found.reshape(x.shape)


def _scale(net: Netlist, magnitudes: list[Ref], top: int, largest: int) -> tuple[Ref, Ref, Ref]:
    """Of a block: ones from the leading one of its largest magnitude downwards; the largest element, moved to
    where its leading one is that one; and whether that place is odd."""
    while len(magnitudes) > 1:
        pairs = [net.logic("or", a, b) for a, b in zip(magnitudes[::2], magnitudes[1::2], strict=False)]
        magnitudes = pairs + magnitudes[len(pairs) * 2 :]
    reached = net.above(magnitudes[0])
    lead = net.logic("andnot", reached, net.floor(reached, 1))
    limit = Ref(None, 0, 0)
    for j in range(top):
        if largest >> (top - 1 - j) & 1:
            limit = net.logic("or", limit, net.floor(lead, j))
    return reached, limit, _lead_is_odd(net, reached, 0)


def _magnitude(net: Netlist, x: Ref) -> Ref:
    low, high = net.interval(x)
    return net.narrowed(net.select(x, x, net.offset(x, 0, -1)), 0, max(high, -low))


def _before_saturation(
    ends: tuple[int, int], shift: int, result: tuple[int, int], limits: tuple[int, int]
) -> tuple[int, int]:
    """The interval of a monotonic cast before it saturates, and before zeros are appended (``shift < 0``):
    the ends of its result where they do not reach a limit, else the next power of two."""
    place, up = max(shift, 0), max(-shift, 0)
    (low, high), reach = ends, [1 << max(abs(end).bit_length() - place, 0) for end in ends]
    least = result[0] >> up if result[0] > limits[0] else -reach[0] if low < 0 else 0
    most = result[1] >> up if result[1] < limits[1] else reach[1] if high > 0 else 0
    return least, most


def _round(
    net: Netlist, x: Ref, drop: Ref, rounding: str, tie: Ref | None, place: int, ends: tuple[int, int]
) -> Ref:
    """``x`` without its low ``place`` bits, rounded where ``drop`` says."""
    if drop.node is None and (tie is None or drop.value == 0):
        bits = drop.value.bit_length()
        return rounded(net, x, bits, rounding)[0].shifted(bits - place)
    up = net.step_up(x, drop, rounding, tie)
    return net.round_at(x, drop, up, place, *ends)


def _place_of_size(net: Netlist, bits: Ref, precision: int, place: int) -> Ref:
    """What a number with at most ``precision`` significant bits drops, at least ``place`` bits."""
    # The leading one of the complement of a negative number is that of its magnitude, except for powers of
    # two: they are rounded one place lower than need be, to themselves.
    reached = net.above(bits)
    return net.append(net.floor(reached, precision + place), place, (1 << place) - 1)


def _negative(net: Netlist, x: Ref) -> Ref:
    """1 where ``x < 0``."""
    low, high = net.interval(x)
    if low >= 0 or high < 0:
        return Ref(None, 0, int(high < 0))
    return net.wrap(net.floor(x, width_of(low, high) - 1), 1, False)


def _lead_is_odd(net: Netlist, reached: Ref, place: int) -> Ref:
    """Whether the leading one stands an odd number of places above ``place``, which may be negative."""
    width = net.interval(reached)[1].bit_length()
    mask = sum(1 << i for i in range(max(place, 0), width) if (i - place) % 2)
    return net.any(net.logic("andnot", reached, net.floor(reached, 1)), mask)


def _tie_to_odd_exponent(net: Netlist, x: Ref, shift: int) -> Ref:
    """Whether a tie between powers of two goes up. They have no even significand: of ``2**i`` and
    ``2**(i+1)`` the one with the odd exponent has the even code; of 0 and 1, it is 0."""
    reached = net.above(net.fold(x))
    down = _lead_is_odd(net, reached, shift)
    if shift >= 0:
        below = net.logic("xor", net.wrap(net.floor(reached, shift), 1, False), Ref(None, 0, 1))
        down = net.logic("or", down, below)
    up = net.logic("xor", down, Ref(None, 0, 1))
    return net.logic("xor", up, _negative(net, x))


def _place_of_digits(net: Netlist, x: Ref, place: int, digits: int, csd: bool) -> tuple[Ref, Ref]:
    """What the nearest number with at most ``digits`` nonzero digits drops, at least ``place`` bits, and
    whether a tie goes up (rtl/kernels/qfx_cast_khot.v has the argument)."""
    ones = (1 << place) - 1
    if not csd:
        left = bits = net.fold(x)
        reached = net.above(left)
        for _ in range(digits - 1):
            left = net.logic("and", left, net.floor(reached, 1))
            reached = net.above(left)
        drop = net.append(net.floor(reached, place + 1), place, ones)
        lowest_kept = net.logic("andnot", net.append(drop, 1, 1), drop)
        pairs = net.logic("and", bits, net.floor(bits, 1))
        both = net.any(net.logic("and", lowest_kept, pairs))
        return drop, net.logic("xor", both, _negative(net, x))
    # 3x - x = 2x, digit by digit: x and 3x differ above the nonzero digits (Reitwiesner).
    width = width_of(*net.interval(x)) + 2
    once, thrice = net.wrap(x, width, False), net.wrap(net.add(x, x.shifted(1)), width, False)
    nonzero = net.floor(net.logic("xor", once, thrice), 1)
    minus = net.floor(net.logic("andnot", once, thrice), 1)
    left = nonzero
    reached = net.above(left)
    for _ in range(digits):
        left = net.logic("and", left, net.floor(reached, 1))
        reached = net.above(left)
    at_least = net.append(net.floor(reached, place), place, ones)
    at = net.logic("andnot", at_least, net.floor(at_least, 1))
    # Whether the digits two, four, .. places up go on without a gap until one has the other sign: a carry.
    goes_on = net.floor(nonzero, 2)
    joins = net.logic("and", goes_on, net.logic("xor", minus, net.floor(minus, 2)))
    step = 2
    while step < width:
        joins = net.logic("or", joins, net.logic("and", goes_on, net.floor(joins, step)))
        goes_on = net.logic("and", goes_on, net.floor(goes_on, step))
        step *= 2
    join = net.any(net.logic("and", net.logic("and", at, nonzero), joins))
    minus_here = net.any(net.logic("and", at, minus))
    further = net.logic("or", at_least, net.append(reached, 1, 0))
    drop = net.pick(join, at_least, further)
    return drop, net.pick(join, _negative(net, x), minus_here)
