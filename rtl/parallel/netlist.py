"""Scalars as a dataflow of integers: every value with its exact interval, and nothing computed twice.

A :class:`Netlist` is one block of the design. Its nodes are integers without a binary point; where the bits
at the bottom of a code are always zero, the code is a :class:`Ref` to a narrower node, shifted. Each
constructor simplifies: what cannot change a value makes no node, and what exists already is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


def width_of(low: int, high: int) -> int:
    """Bits of the narrowest integers that hold ``low .. high``: two's complement if ``low < 0``, else
    unsigned."""
    return max(1, max(high, 0).bit_length() + (low < 0), (-low - 1).bit_length() + 1 if low < 0 else 0)


@dataclass(frozen=True)
class Ref:
    """``node << shift``, or the constant ``value`` when ``node`` is ``None``."""

    node: int | None
    shift: int = 0
    value: int = 0

    def shifted(self, by: int) -> Ref:
        """This value times ``2**by``, exactly."""
        if self.node is None:
            assert by >= 0 or self.value % (1 << -by) == 0
            return Ref(None, 0, self.value << by if by >= 0 else self.value >> -by)
        assert self.shift + by >= 0
        return Ref(self.node, self.shift + by)


@dataclass(frozen=True)
class Node:
    """An integer in hardware.

    Attributes:
        kind: what makes it, one of the constructors of :class:`Netlist`.
        args: the nodes that it is made from.
        data: constants of the operation.
        low, high: the values that can occur.
        level: levels of logic behind the inputs of the block, as early as possible.
    """

    kind: str
    args: tuple[int, ...]
    data: tuple[int, ...]
    low: int
    high: int
    level: int

    @property
    def signed(self) -> bool:
        return self.low < 0

    @property
    def width(self) -> int:
        return width_of(self.low, self.high)


#: Kinds that are wires: no logic, no level.
WIRES = frozenset({"input", "floor", "wrap", "append", "narrow"})
#: Kinds that count as no level: wires, and gates that synthesis packs into the LUT behind them.
FREE = WIRES | {"fold", "and", "andnot", "xor", "gate"}


@dataclass
class Netlist:
    """The nodes of a block, each after those that it is made from."""

    nodes: list[Node] = field(default_factory=list)
    _known: dict[tuple[str, tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict, repr=False)

    # -- facts -----------------------------------------------------------------------------------------------

    def interval(self, x: Ref) -> tuple[int, int]:
        """The values that can occur."""
        if x.node is None:
            return x.value, x.value
        node = self.nodes[x.node]
        return node.low << x.shift, node.high << x.shift

    def live(self, outputs: Iterator[Ref]) -> set[int]:
        """The nodes that outputs depend on."""
        found: set[int] = set()
        stack = [x.node for x in outputs if x.node is not None]
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                stack += self.nodes[number].args
        return found

    # -- construction ----------------------------------------------------------------------------------------

    def make(self, kind: str, args: tuple[int, ...], data: tuple[int, ...], low: int, high: int) -> Ref:
        """The node of that kind, arguments and constants; a constant where there is a single value."""
        if low == high:
            return Ref(None, 0, low)
        key = (kind, args, data)
        known = self._known.get(key)
        if known is None:
            level = max((self.nodes[a].level for a in args), default=0) + (kind not in FREE)
            known = self._known[key] = len(self.nodes)
            self.nodes.append(Node(kind, args, data, low, high, level))
        return Ref(known)

    def input(self, port: int, offset: int, width: int, low: int, high: int) -> Ref:
        """``width`` bits of an input port of the block, from bit ``offset``."""
        return self.make("input", (), (port, offset, width), low, high)

    def add(
        self, a: Ref, b: Ref, sign_a: int = 1, sign_b: int = 1, interval: tuple[int, int] | None = None
    ) -> Ref:
        """``sign_a * a + sign_b * b``.

        ``interval``: a narrower one than that of the operands, where the caller knows it.
        """
        if a.node is None or b.node is None:
            if a.node is None:
                a, b, sign_a, sign_b = b, a, sign_b, sign_a
            return self.offset(a, sign_b * b.value, sign_a)
        if sign_a < 0 and sign_b < 0:
            return self.offset(self.add(a, b), 0, -1)
        common = min(a.shift, b.shift)
        shift_a, shift_b = a.shift - common, b.shift - common
        if a.node == b.node and shift_a == shift_b:
            # x + x and x - x
            return a.shifted(1) if sign_a == sign_b else Ref(None, 0, 0)
        if (sign_a, a.node, shift_a) < (sign_b, b.node, shift_b) or sign_a < 0:
            a, b, sign_a, sign_b, shift_a, shift_b = b, a, sign_b, sign_a, shift_b, shift_a
        assert a.node is not None and b.node is not None
        la, ha = self.interval(Ref(a.node, shift_a))
        lb, hb = self.interval(Ref(b.node, shift_b))
        low, high = (la + lb, ha + hb) if sign_b > 0 else (la - hb, ha - lb)
        if interval is not None:
            low, high = max(low, interval[0] >> common), min(high, interval[1] >> common)
        return self.make("add", (a.node, b.node), (shift_a, shift_b, sign_b), low, high).shifted(common)

    def offset(self, a: Ref, constant: int, sign: int = 1) -> Ref:
        """``constant + sign * a``."""
        if a.node is None:
            return Ref(None, 0, constant + sign * a.value)
        if sign > 0 and constant == 0:
            return a
        node = self.nodes[a.node]
        if node.kind == "offset":
            # One constant for both.
            before, sign_before, shift = node.data
            inner = Ref(node.args[0], shift + a.shift)
            return self.offset(inner, constant + sign * (before << a.shift), sign * sign_before)
        # Zeros that both share at the bottom stay out of the adder.
        common = a.shift if constant == 0 else min(a.shift, (constant & -constant).bit_length() - 1)
        shift, constant = a.shift - common, constant >> common
        low, high = self.interval(Ref(a.node, shift))
        ends = sorted((constant + sign * low, constant + sign * high))
        return self.make("offset", (a.node,), (constant, sign, shift), *ends).shifted(common)

    def floor(self, a: Ref, bits: int) -> Ref:
        """``floor(a / 2**bits)``: the bits above; wires."""
        if bits <= a.shift or a.node is None:
            return a.shifted(-bits) if a.node is not None else Ref(None, 0, a.value >> bits)
        bits -= a.shift
        node = self.nodes[a.node]
        if node.kind == "floor":
            return self.floor(Ref(node.args[0]), bits + node.data[0])
        return self.make("floor", (a.node,), (bits,), node.low >> bits, node.high >> bits)

    def plain(self, a: Ref) -> Ref:
        """The same value as a node without a shift: the zeros at its bottom become wires."""
        if a.node is None or a.shift == 0:
            return a
        low, high = self.interval(a)
        return self.make("wrap", (a.node,), (width_of(low, high), int(low < 0), a.shift), low, high)

    def wrap(self, a: Ref, width: int, signed: bool) -> Ref:
        """The low ``width`` bits, two's complement or not; wires."""
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
        inside = self.interval(a)
        if low <= inside[0] and inside[1] <= high:
            return a
        if a.node is None:
            code = a.value & ((1 << width) - 1)
            return Ref(None, 0, code - (1 << width) if code > high else code)
        if a.shift >= width:
            return Ref(None, 0, 0)
        common = a.shift
        low, high = low >> common, high >> common
        return self.make("wrap", (a.node,), (width - common, int(signed), 0), low, high).shifted(common)

    def clamp(self, a: Ref, low: int | None, high: int | None) -> Ref:
        """``min(max(a, low), high)``; a bound may be absent."""
        inside = self.interval(a)
        low = None if low is None or low <= inside[0] else low
        high = None if high is None or high >= inside[1] else high
        if low is None and high is None:
            return a
        if (
            a.node is None
            or (low is not None and low >= inside[1])
            or (high is not None and high <= inside[0])
        ):
            value = inside[0]
            value = value if low is None else max(value, low)
            return Ref(None, 0, value if high is None else min(value, high))
        if low is not None and high is not None and low >= high:
            return Ref(None, 0, high)
        common = a.shift
        while common and any(b is not None and b % (1 << common) for b in (low, high)):
            common -= 1
        a = self.plain(a.shifted(-common))
        assert a.node is not None
        ends = [None if b is None else b >> common for b in (low, high)]
        node = self.nodes[a.node]
        least = node.low if ends[0] is None else ends[0]
        most = node.high if ends[1] is None else ends[1]
        # An absent bound is recorded as the end of the interval, which is never passed.
        return self.make("clamp", (a.node,), (least, most), least, most).shifted(common)

    def minimum(self, a: Ref, b: Ref) -> Ref:
        """``min(a, b)``."""
        (la, ha), (lb, hb) = self.interval(a), self.interval(b)
        if ha <= lb:
            return a
        if hb <= la:
            return b
        if a.node is None:
            a, b = b, a
        if b.node is None:
            return self.clamp(a, None, b.value)
        a, b = self.plain(a), self.plain(b)
        assert a.node is not None and b.node is not None
        return self.make("min", (a.node, b.node), (), min(la, lb), min(ha, hb))

    def maximum(self, a: Ref, b: Ref) -> Ref:
        """``max(a, b)``."""
        (la, ha), (lb, hb) = self.interval(a), self.interval(b)
        if la >= hb:
            return a
        if lb >= ha:
            return b
        if a.node is None:
            a, b = b, a
        if b.node is None:
            return self.clamp(a, b.value, None)
        if a.node == b.node and a.shift == b.shift:
            return a
        common = min(a.shift, b.shift)
        a, b = self.plain(a.shifted(-common)), self.plain(b.shifted(-common))
        assert a.node is not None and b.node is not None
        args = (a.node, b.node) if a.node < b.node else (b.node, a.node)
        low, high = max(la, lb) >> common, max(ha, hb) >> common
        return self.make("max", args, (), low, high).shifted(common)

    def select(self, sign_of: Ref, positive: Ref, negative: Ref) -> Ref:
        """``positive`` where ``sign_of >= 0``, else ``negative``; not both constant."""
        low, high = self.interval(sign_of)
        if low >= 0 or positive == negative:
            return positive
        if high < 0:
            return negative
        assert sign_of.node is not None
        choices = [self.plain(x) for x in (positive, negative)]
        intervals = [self.interval(x) for x in choices]
        low, high = min(i[0] for i in intervals), max(i[1] for i in intervals)
        args = (sign_of.node, *(x.node for x in choices if x.node is not None))
        # A constant stands in the data instead of the arguments: which are nodes, and the constants.
        data = tuple(v for x in choices for v in (int(x.node is not None), x.value))
        return self.make("select", args, data, low, high)

    def pick(self, bit: Ref, yes: Ref, no: Ref) -> Ref:
        """``yes`` where ``bit`` is 1, else ``no``."""
        if bit.node is None:
            return yes if bit.value else no
        # A signed bit that is set is negative.
        return self.select(self.wrap(bit, 1, True), no, yes)

    def narrowed(self, a: Ref, low: int, high: int) -> Ref:
        """``a``, of which the caller knows that it lies in ``low .. high``; wires."""
        if a.node is None:
            return a
        node = self.nodes[a.node]
        low, high = max(-(-low >> a.shift), node.low), min(high >> a.shift, node.high)
        if (low, high) == (node.low, node.high):
            return a
        if low == high:
            return Ref(None, 0, low << a.shift)
        return self.make("narrow", (a.node,), (low, high), low, high).shifted(a.shift)

    def add_sign(self, a: Ref, constant: int, negative: int) -> Ref:
        """``a + constant + (negative if a < 0 else 0)``."""
        low, high = self.interval(a)
        if low >= 0 or negative == 0:
            return self.offset(a, constant)
        if high < 0:
            return self.offset(a, constant + negative)
        a = self.plain(a)
        assert a.node is not None
        # Not monotonic where it crosses zero.
        values = [low + negative, high, -1 + negative, 0]
        return self.make(
            "add_sign", (a.node,), (constant, negative), min(values) + constant, max(values) + constant
        )

    def even(self, rounded: Ref, source: Ref, bits: int) -> Ref:
        """``rounded`` with its lowest bit cleared where the low ``bits`` bits of ``source`` are all zero."""
        low, high = self.interval(rounded)
        rounded, source = self.plain(rounded), self.plain(source)
        if source.node is None:
            assert rounded.node is None
            tie = source.value % (1 << bits) == 0
            return Ref(None, 0, rounded.value & ~1 if tie else rounded.value)
        if rounded.node is None:
            if rounded.value % 2 == 0:
                return rounded
            return self.make("even", (source.node,), (bits, rounded.value), low & ~1, high)
        return self.make("even", (source.node, rounded.node), (bits,), low & ~1, high)

    def inside(self, a: Ref, low: int, high: int) -> Ref:
        """``a`` where ``low <= a <= high``, else 0; the interval holds 0."""
        least, most = self.interval(a)
        if low <= least and most <= high:
            return a
        if a.node is None or least > high or most < low:
            return Ref(None, 0, a.value if a.node is None and low <= a.value <= high else 0)
        a = self.plain(a)
        assert a.node is not None
        ends = (min(0, max(least, low)), max(0, min(most, high)))
        return self.make("inside", (a.node,), (max(least, low), min(most, high)), *ends)

    def wrap_sign_magnitude(self, rounded: Ref, floor: Ref, width: int) -> Ref:
        """``WRAP_SM`` of docs/graph.md: ``rounded`` to ``width`` bits, ``floor`` having the deleted bit."""
        high = (1 << (width - 1)) - 1
        inside = self.interval(rounded)
        if -high - 1 <= inside[0] and inside[1] <= high:
            below = self.interval(floor)
            if -high - 1 <= below[0] and below[1] <= high:
                return rounded
        rounded, floor = self.plain(rounded), self.plain(floor)
        if rounded.node is None and floor.node is None:
            return Ref(None, 0, _sign_magnitude(rounded.value, floor.value, width))
        args = tuple(x.node for x in (rounded, floor) if x.node is not None)
        data = (width, *(v for x in (rounded, floor) for v in (int(x.node is not None), x.value)))
        return self.make("wrap_sm", args, data, -high - 1, high)

    # -- bits ------------------------------------------------------------------------------------------------

    def mixed(self, kind: str, refs: tuple[Ref, ...], data: tuple[int, ...], low: int, high: int) -> Ref:
        """A node some of whose operands are constants: behind ``data`` stand, for each operand, whether it is
        a node, and the constant."""
        plain = [self.plain(x) for x in refs]
        args = tuple(x.node for x in plain if x.node is not None)
        which = tuple(v for x in plain for v in (int(x.node is not None), x.value))
        return self.make(kind, args, (*data, *which), low, high)

    def append(self, a: Ref, bits: int, value: int) -> Ref:
        """``(a << bits) | value`` with ``value`` of ``bits`` bits; wires."""
        if bits == 0 or value == 0:
            return a.shifted(bits)
        if a.node is None:
            return Ref(None, 0, a.value << bits | value)
        a = self.plain(a)
        assert a.node is not None
        low, high = self.interval(a)
        return self.make("append", (a.node,), (bits, value), low << bits | value, high << bits | value)

    def fold(self, a: Ref) -> Ref:
        """The bits of ``a``, inverted where it is negative: ``a`` or ``-a - 1``."""
        low, high = self.interval(a)
        if low >= 0:
            return a
        if a.node is None:
            return Ref(None, 0, -a.value - 1)
        a = self.plain(a)
        assert a.node is not None
        least = 0 if high >= 0 else -high - 1
        return self.make("fold", (a.node,), (), least, max(high, -low - 1))

    def logic(self, kind: str, a: Ref, b: Ref) -> Ref:
        """``and``, ``or``, ``xor`` or ``andnot`` (``a & ~b``) of two values that are not negative."""
        (la, ha), (lb, hb) = self.interval(a), self.interval(b)
        assert la >= 0 and lb >= 0
        if a.node is None and b.node is None:
            x, y = a.value, b.value
            results = {"and": x & y, "or": x | y, "xor": x ^ y, "andnot": x & ~y}
            return Ref(None, 0, results[kind])
        if kind == "and" and 0 in (ha, hb):
            return Ref(None, 0, 0)
        if hb == 0:
            return a
        if ha == 0:
            return a if kind == "andnot" else b
        either = (1 << max(ha.bit_length(), hb.bit_length())) - 1
        low, high = {
            "and": (0, min(ha, hb)),
            "or": (max(la, lb), either),
            "xor": (0, either),
            "andnot": (0, ha),
        }[kind]
        return self.mixed(kind, (a, b), (), low, high)

    def above(self, a: Ref) -> Ref:
        """Ones from the leading one of a value that is not negative downwards."""
        low, high = ((1 << end.bit_length()) - 1 for end in self.interval(a))
        a = self.plain(a)
        if low == high:
            return Ref(None, 0, low)
        assert a.node is not None
        if self.nodes[a.node].width == 1:
            return a
        return self.make("above", (a.node,), (), low, high)

    def any(self, a: Ref, mask: int = -1) -> Ref:
        """1 when a value that is not negative has a one where ``mask`` has one, else 0."""
        low, high = self.interval(a)
        whole = (1 << high.bit_length()) - 1
        mask &= whole
        if a.node is None or mask == 0:
            return Ref(None, 0, int(low & mask != 0))
        a = self.plain(a)
        assert a.node is not None
        if self.nodes[a.node].width == 1:
            return a
        return self.make("any", (a.node,), (mask,), int(low > 0 and mask == whole), 1)

    def gate(self, a: Ref, bit: Ref) -> Ref:
        """``a`` where ``bit`` is 1, else 0."""
        if bit.node is None:
            return a if bit.value else Ref(None, 0, 0)
        low, high = self.interval(a)
        common, a = a.shift, a.shifted(-a.shift) if a.node is not None else a
        low, high = min(low >> common, 0), max(high >> common, 0)
        return self.mixed("gate", (a, self.plain(bit)), (), low, high).shifted(common)

    def step_up(self, a: Ref, drop: Ref, rounding: str, tie: Ref | None = None) -> Ref:
        """1 where rounding goes up from the floor, when ``a`` loses the bits where ``drop`` has ones.

        ``drop`` is ones from bit 0 up to some place, and can have one. With ``tie``, 0 or 1, a rounding to
        the nearest goes up at a tie where that is 1.
        """
        modes = ("TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV")
        if tie is None and rounding == "TRN":
            return Ref(None, 0, 0)
        if tie is None and rounding == "TRN_ZERO" and self.interval(a)[0] >= 0:
            return Ref(None, 0, 0)
        if tie is None:
            return self.mixed("step_up", (a, drop), (modes.index(rounding),), 0, 1)
        return self.mixed("step_up", (a, drop, tie), (len(modes),), 0, 1)

    def round_at(self, a: Ref, drop: Ref, up: Ref, right: int, low: int, high: int) -> Ref:
        """``a`` rounded to a multiple of ``drop + 1``, one step up from the floor where ``up`` is 1, without
        its low ``right`` bits; ``low .. high`` are the results that can occur."""
        return self.mixed("round_at", (a, drop, up), (right,), low, high)


def _sign_magnitude(rounded: int, floor: int, width: int) -> int:
    code = rounded & ((1 << width) - 1)
    deleted, top = floor >> width & 1, rounded >> (width - 1) & 1
    outside = not -(1 << (width - 1)) <= rounded < 1 << (width - 1)
    if outside and deleted != top:
        code = (~code & ((1 << (width - 1)) - 1)) | deleted << (width - 1)
    return code - (1 << width) if code >> (width - 1) else code
