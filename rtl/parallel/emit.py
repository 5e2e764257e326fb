"""Blocks as Verilog-2005 text.

Everything is an unsigned vector of exactly the bits that its interval needs; signs are extended by hand. That
is a little longer than ``signed`` wires and free of Verilog's rules for mixed expressions, so every tool
reads the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from qfx.graph import Graph
from qfx.rtl.design import canonical_order
from qfx.rtl.emit import comment
from qfx.rtl.parallel.lower import Block
from qfx.rtl.parallel.netlist import Node, Ref
from qfx.rtl.parallel.schedule import Schedule

#: Bits of a port that are named at once where nobody reads them.
PIECE = 64


def literal(width: int, value: int) -> str:
    """A constant of so many bits; two's complement when negative."""
    return f"{width}'h{value & ((1 << width) - 1):x}"


def _constant_part(value: int, low: int, high: int) -> str:
    return literal(high - low + 1, value >> low)


def runs(mask: int) -> list[tuple[int, int]]:
    """The lowest and the highest bit of each run of ones, from the bottom."""
    found = []
    while mask:
        low = (mask & -mask).bit_length() - 1
        high = low
        while mask >> (high + 1) & 1:
            high += 1
        found.append((low, high))
        mask &= ~(((1 << (high - low + 1)) - 1) << low)
    return found


def block_module(name: str, block: Block, plan: Schedule, graph: Graph) -> str:
    """The text of the module of a block."""
    return Writer(name, block, plan, graph).text()


@dataclass
class Writer:
    """Writes one module; a method ``_<kind>`` per kind of node gives its expression."""

    name: str
    block: Block
    plan: Schedule
    graph: Graph
    lines: list[str] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)  # bit masks

    # -- the module ------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The whole module."""
        bits = {n: self.graph[n].tensor.size * self.graph[n].tensor.format.width for n in self._ports()}
        stages = self.plan.stages
        clocked = ["    input  wire clk,", "    input  wire en,"] if stages else []
        ports = clocked + [f"    input  wire [{bits[n] - 1}:0] {n}," for n in self.block.inputs]
        ports += [f"    output wire [{bits[n] - 1}:0] {n}," for n in self.block.outputs]
        ports[-1] = ports[-1].rstrip(",")
        self.widths |= {n: bits[n] for n in self.block.inputs}
        for stage in range(stages + 1):
            self._stage(stage)
        self._outputs()
        body = "\n".join(self.lines)
        return "\n".join(
            [
                *(f"// {line}" for line in self._head()),
                "`default_nettype none",
                f"module {self.name} (",
                *ports,
                ");",
                body,
                *self._unused(),
                "endmodule",
                "`default_nettype wire",
                "",
            ]
        )

    def _ports(self) -> list[str]:
        return [*self.block.inputs, *self.block.outputs]

    def _head(self) -> list[str]:
        head = []
        for name in self.block.nodes:
            node = self.graph[name]
            shape = "x".join(map(str, node.tensor.shape))
            head.append(f"{name}: {node.op.kind} to {shape}, {comment(node.path)}")
        latency = f"{self.plan.stages} cycles" if self.plan.stages != 1 else "1 cycle"
        return [
            *head,
            f"Latency {latency}, one vector per cycle. Behind each value: the numbers that it can be.",
        ]

    def _stage(self, stage: int) -> None:
        nodes = self.block.netlist.nodes
        here = sorted(n for n, s in self.plan.stage.items() if s == stage)
        held = sorted(n for n, s in self.plan.stage.items() if s < stage <= self.plan.last[n])
        if held:
            self.lines += ["", f"    // ---- registers, stage {stage}"]
            for n in held:
                self._declare("reg ", self.at(n, stage), nodes[n].width)
            self.lines.append("    always @(posedge clk) begin")
            self.lines.append("        if (en) begin")
            for n in held:
                source = self.at(n, stage - 1)
                self.used[source] = (1 << nodes[n].width) - 1
                self.lines.append(f"            {self.at(n, stage)} <= {source};")
            self.lines += ["        end", "    end"]
        if here:
            self.lines.append("")
        for n in here:
            self._value(n, nodes[n])

    def at(self, node: int, stage: int) -> str:
        """The name of a value in a stage: its registers carry the number of the stage."""
        return f"v{node}" if stage == self.plan.stage[node] else f"v{node}_r{stage}"

    def _declare(self, kind: str, name: str, width: int, end: str = ";") -> None:
        self.widths[name] = width
        self.lines.append(f"    {kind}[{width - 1}:0] {name}{end}")

    def _outputs(self) -> None:
        for name, tensor in self.block.outputs.items():
            width = self.graph[name].tensor.format.width
            in_order = tensor.reshape(-1)[canonical_order(tensor.shape)]
            parts = [self._code(ref, width) for ref in reversed(in_order)]
            self.lines += ["", f"    assign {name} = {{"]
            self.lines += [f"        {part}," for part in parts[:-1]]
            self.lines += [f"        {parts[-1]}", "    };"]

    def _code(self, ref: Ref, width: int) -> str:
        if ref.node is None:
            return literal(width, ref.value)
        return self.bits(ref.node, -ref.shift, width - 1 - ref.shift, self.plan.stages)

    def _unused(self) -> list[str]:
        """Bits that nobody reads, so that lint finds only those that were forgotten."""
        rest = []
        for name, width in self.widths.items():
            mask = ((1 << width) - 1) & ~self.used.get(name, 0)
            # In pieces, for what reads the text back computes no value of more bits than a lane has.
            rest += [
                f"{name}[{min(high, place + PIECE - 1)}:{place}]"
                for low, high in runs(mask)
                for place in range(low, high + 1, PIECE)
            ]
        if not rest:
            return []
        return [
            "",
            "    // Bits that casts drop.",
            "    wire unused = &{1'b0,",
            *(f"        {r}," for r in rest[:-1]),
            f"        {rest[-1]}}};",
        ]

    # -- values ----------------------------------------------------------------------------------------------

    def bits(self, node: int, low: int, high: int, stage: int) -> str:
        """Bits ``low .. high`` of a value, sign or zero extended above, 0 below bit 0."""
        name, n = self.at(node, stage), self.block.netlist.nodes[node]
        return self._slice(name, n.width, n.signed, low, high)

    def _slice(self, name: str, width: int, signed: bool, low: int, high: int) -> str:
        parts = []
        if high >= width:
            count = high - max(width, low) + 1
            if signed:
                self._use(name, width - 1, width - 1)
                parts.append(f"{{{count}{{{name}[{width - 1}]}}}}")
            else:
                parts.append(f"{count}'h0")
        top, bottom = min(high, width - 1), max(low, 0)
        if top >= bottom:
            self._use(name, bottom, top)
            whole = bottom == 0 and top == width - 1
            one = f"{name}[{top}]" if top == bottom else f"{name}[{top}:{bottom}]"
            parts.append(name if whole else one)
        if low < 0:
            parts.append(f"{min(-low, high - low + 1)}'h0")
        return parts[0] if len(parts) == 1 else "{" + ", ".join(parts) + "}"

    def _use(self, name: str, low: int, high: int) -> None:
        self.used[name] = self.used.get(name, 0) | ((1 << (high - low + 1)) - 1) << low

    def _value(self, n: int, node: Node) -> None:
        range_ = f"    // {node.low} .. {node.high}"
        name, width, stage = f"v{n}", node.width, self.plan.stage[n]
        if node.kind == "add":
            self._add(n, node, range_)
            return
        expression = getattr(self, f"_{node.kind}")(n, node, width, stage)
        self._declare("wire ", name, width, f" = {expression};{range_}")

    def _wire(self, n: int, suffix: str, expression: str) -> str:
        """A single bit that belongs to a value."""
        name = f"v{n}_{suffix}"
        self.lines.append(f"    wire {name} = {expression};")
        return name

    def _add(self, n: int, node: Node, range_: str) -> None:
        (a, b), (shift_a, shift_b, sign) = node.args, node.data
        width, stage, name = node.width, self.plan.stage[n], f"v{n}"
        # Bits of the lower operand below the other one pass by, unless it is subtracted.
        passed, lower = (shift_b, a) if shift_a < shift_b else (shift_a, b)
        if passed >= width or (lower == b and sign < 0):
            passed = 0
        terms = (
            self.bits(a, passed - shift_a, width - 1 - shift_a, stage),
            self.bits(b, passed - shift_b, width - 1 - shift_b, stage),
        )
        # Each sum keeps its own carry chain: merged into sums of many operands they come out larger.
        sum_ = f"{terms[0]} {'+' if sign > 0 else '-'} {terms[1]}"
        if not passed:
            self._declare("(* keep *) wire ", name, width, f" = {sum_};{range_}")
            return
        self._declare("(* keep *) wire ", f"{name}_s", width - passed, f" = {sum_};")
        self._use(f"{name}_s", 0, width - passed - 1)
        low = self.bits(lower, 0, passed - 1, stage)
        self._declare("wire ", name, width, f" = {{{name}_s, {low}}};{range_}")

    def _input(self, n: int, node: Node, width: int, stage: int) -> str:
        port, offset, count = node.data
        name = self.block.inputs[port]
        return self._slice(name, self.widths[name], False, offset, offset + count - 1)

    def _offset(self, n: int, node: Node, width: int, stage: int) -> str:
        constant, sign, shift = node.data
        operand = self.bits(node.args[0], -shift, width - 1 - shift, stage)
        if constant == 0:
            return f"-{operand}"
        if sign > 0:
            return f"{operand} + {literal(width, constant)}"
        return f"{literal(width, constant)} - {operand}"

    def _floor(self, n: int, node: Node, width: int, stage: int) -> str:
        (drop,) = node.data
        return self.bits(node.args[0], drop, drop + width - 1, stage)

    def _wrap(self, n: int, node: Node, width: int, stage: int) -> str:
        _, _, shift = node.data
        return self.bits(node.args[0], -shift, width - 1 - shift, stage)

    def _beyond(self, n: int, arg: int, low: int, high: int, stage: int) -> tuple[str | None, str | None]:
        """Wires that say whether a value is below and above bounds; ``None`` where it cannot be."""
        x = self.block.netlist.nodes[arg]
        name, top = self.at(arg, stage), x.width - 1
        below = above = None
        if x.low < low:
            k = (-low).bit_length() - 1 if low < 0 else 0
            if low == 0:
                below = self.bits(arg, top, top, stage)
            elif low == -(1 << k):
                below = f"{self.bits(arg, top, top, stage)} && !(&{self.bits(arg, k, top - 1, stage)})"
            else:
                below = f"{self._ordered(arg, stage)} < {self._ordered_constant(arg, low)}"
            below = self._wire(n, "below", below)
        if x.high > high:
            k = (high + 1).bit_length() - 1
            if high >= 0 and high + 1 == 1 << k:
                above = f"|{self.bits(arg, k, top - x.signed, stage)}"
                if x.signed:
                    above = f"!{name}[{top}] && ({above})"
                    self._use(name, top, top)
            else:
                above = f"{self._ordered(arg, stage)} > {self._ordered_constant(arg, high)}"
            above = self._wire(n, "above", above)
        return below, above

    def _ordered(self, arg: int, stage: int, width: int | None = None) -> str:
        """A value as unsigned bits in the same order: two's complement with the sign inverted."""
        x = self.block.netlist.nodes[arg]
        if width is None:
            if not x.signed:
                return self.bits(arg, 0, x.width - 1, stage)
            width = x.width
        sign = self.bits(arg, width - 1, width - 1, stage)
        return f"{{!{sign}, {self.bits(arg, 0, width - 2, stage)}}}" if width > 1 else f"!{sign}"

    def _ordered_constant(self, arg: int, value: int) -> str:
        x = self.block.netlist.nodes[arg]
        return literal(x.width, value + (1 << (x.width - 1)) if x.signed else value)

    def _clamp(self, n: int, node: Node, width: int, stage: int) -> str:
        low, high = node.data
        (arg,) = node.args
        below, above = self._beyond(n, arg, low, high, stage)
        inside = self.bits(arg, 0, width - 1, stage)
        if low == 0 and high + 1 == 1 << width:
            # The usual ReLU with saturation: set all bits, or clear them.
            text = inside
            if above:
                text = f"{text} | {{{width}{{{above}}}}}"
            if below:
                text = f"({text}) & {{{width}{{!{below}}}}}" if above else f"{text} & {{{width}{{!{below}}}}}"
            return text
        if above:
            inside = f"{above} ? {literal(width, high)} : {inside}"
        if below:
            inside = f"{below} ? {literal(width, low)} : {inside}"
        return inside

    def _inside(self, n: int, node: Node, width: int, stage: int) -> str:
        low, high = node.data
        (arg,) = node.args
        outside = " || ".join(wire for wire in self._beyond(n, arg, low, high, stage) if wire)
        return f"({outside}) ? {literal(width, 0)} : {self.bits(arg, 0, width - 1, stage)}"

    def _max(self, n: int, node: Node, width: int, stage: int) -> str:
        return self._chosen(n, node, width, stage, ">")

    def _chosen(self, n: int, node: Node, width: int, stage: int, better: str) -> str:
        """The first of two operands where it is better than the second, which otherwise."""
        nodes = self.block.netlist.nodes
        a, b = node.args
        signed = nodes[a].signed or nodes[b].signed
        common = max(nodes[x].width + (signed and not nodes[x].signed) for x in (a, b))
        if signed:
            texts = [self._ordered(x, stage, common) for x in (a, b)]
        else:
            texts = [self.bits(x, 0, common - 1, stage) for x in (a, b)]
        first = self._wire(n, "first", f"{texts[0]} {better} {texts[1]}")
        return f"{first} ? {self.bits(a, 0, width - 1, stage)} : {self.bits(b, 0, width - 1, stage)}"

    def _select(self, n: int, node: Node, width: int, stage: int) -> str:
        sign_of, *choices = node.args
        sign = self.block.netlist.nodes[sign_of].width - 1
        texts = []
        for is_node, value in (node.data[:2], node.data[2:]):
            texts.append(self.bits(choices.pop(0), 0, width - 1, stage) if is_node else literal(width, value))
        return f"{self.bits(sign_of, sign, sign, stage)} ? {texts[1]} : {texts[0]}"

    def _add_sign(self, n: int, node: Node, width: int, stage: int) -> str:
        (arg,), (constant, negative) = node.args, node.data
        sign = self.block.netlist.nodes[arg].width - 1
        added = f"({{{width}{{{self.bits(arg, sign, sign, stage)}}}}} & {literal(width, negative)})"
        return f"{self.bits(arg, 0, width - 1, stage)} + {added} + {literal(width, constant)}"

    def _even(self, n: int, node: Node, width: int, stage: int) -> str:
        source, bits = node.args[0], node.data[0]
        no_tie = self._wire(n, "no_tie", f"|{self.bits(source, 0, bits - 1, stage)}")
        if len(node.args) == 1:
            return f"{literal(width, node.data[1] & ~1)} | {self._widened(no_tie, width)}"
        rounded = node.args[1]
        lowest = f"{self.bits(rounded, 0, 0, stage)} && {no_tie}"
        if width == 1:
            return lowest
        return f"{{{self.bits(rounded, 1, width - 1, stage)}, {lowest}}}"

    def _min(self, n: int, node: Node, width: int, stage: int) -> str:
        return self._chosen(n, node, width, stage, "<")

    def _operands(self, node: Node, stage: int, skip: int = 0) -> list[Callable[[int, int], str]]:
        """The operands of a node as functions of the lowest and the highest bit that is wanted; constants
        stand behind the first ``skip`` data."""
        args = list(node.args)
        found: list[Callable[[int, int], str]] = []
        for is_node, value in zip(node.data[skip::2], node.data[skip + 1 :: 2], strict=True):
            if is_node:
                found.append(partial(self._part, args.pop(0), stage))
            else:
                found.append(partial(_constant_part, value))
        return found

    def _part(self, arg: int, stage: int, low: int, high: int) -> str:
        return self.bits(arg, low, high, stage)

    def _vector(self, n: int, suffix: str, width: int, expression: str) -> str:
        """Several bits that belong to a value."""
        name = f"v{n}_{suffix}"
        self.lines.append(f"    wire [{width - 1}:0] {name} = {expression};")
        return name

    def _narrow(self, n: int, node: Node, width: int, stage: int) -> str:
        return self.bits(node.args[0], 0, width - 1, stage)

    def _append(self, n: int, node: Node, width: int, stage: int) -> str:
        bits, value = node.data
        return f"{{{self.bits(node.args[0], 0, width - bits - 1, stage)}, {literal(bits, value)}}}"

    def _fold(self, n: int, node: Node, width: int, stage: int) -> str:
        (arg,) = node.args
        sign = self.block.netlist.nodes[arg].width - 1
        return f"{self.bits(arg, 0, width - 1, stage)} ^ {{{width}{{{self.bits(arg, sign, sign, stage)}}}}}"

    def _logic(self, node: Node, width: int, stage: int, symbol: str) -> str:
        a, b = (operand(0, width - 1) for operand in self._operands(node, stage))
        return f"{a} {symbol} {b}"

    def _and(self, n: int, node: Node, width: int, stage: int) -> str:
        return self._logic(node, width, stage, "&")

    def _or(self, n: int, node: Node, width: int, stage: int) -> str:
        return self._logic(node, width, stage, "|")

    def _xor(self, n: int, node: Node, width: int, stage: int) -> str:
        return self._logic(node, width, stage, "^")

    def _andnot(self, n: int, node: Node, width: int, stage: int) -> str:
        return self._logic(node, width, stage, "& ~")

    def _above(self, n: int, node: Node, width: int, stage: int) -> str:
        (arg,) = node.args
        top = self.block.netlist.nodes[arg].width - 1
        bits = [f"|{self.bits(arg, i, top, stage)}" for i in reversed(range(top))]
        return f"{{{', '.join([self.bits(arg, top, top, stage), *bits])}}}"

    def _any(self, n: int, node: Node, width: int, stage: int) -> str:
        (arg,), (mask,) = node.args, node.data
        parts = [self.bits(arg, low, high, stage) for low, high in runs(mask)]
        return f"|{parts[0]}" if len(parts) == 1 else f"|{{{', '.join(reversed(parts))}}}"

    def _gate(self, n: int, node: Node, width: int, stage: int) -> str:
        a, bit = self._operands(node, stage)
        return f"{a(0, width - 1)} & {{{width}{{{bit(0, 0)}}}}}"

    def _step_up(self, n: int, node: Node, width: int, stage: int) -> str:
        mode = node.data[0]
        a, drop, *tie = self._operands(node, stage, 1)
        nodes, args = self.block.netlist.nodes, list(node.args)
        negative = "1'b1" if node.data[2] < 0 else None
        if node.data[1]:
            arg = args.pop(0)
            sign = nodes[arg].width - 1
            negative = self.bits(arg, sign, sign, stage) if nodes[arg].signed else None
        top = (nodes[args[0]].width if node.data[3] else node.data[4].bit_length()) - 1
        if mode == 0:
            return f"{negative} && (|({a(0, top)} & {drop(0, top)}))"
        first = self._vector(n, "first", top + 1, f"{drop(0, top)} & ~{drop(1, top + 1)}")
        self._use(first, 0, top)
        half = self._wire(n, "half", f"|({a(0, top)} & {first})")
        if mode == 1:
            return half
        rest = self._wire(n, "rest", f"|({a(0, top)} & {drop(1, top + 1)})")
        if mode == 4 or (mode == 2 and negative is None):
            return f"{half} && {rest}"
        if mode == 3 and negative is None:
            return half
        if mode == 2:
            return f"{half} && ({rest} || {negative})"
        if mode == 3:
            return f"{half} && ({rest} || !{negative})"
        if mode == 5:
            last = self._wire(n, "last", f"|({a(1, top + 1)} & {first})")
            return f"{half} && ({rest} || {last})"
        return f"{half} && ({rest} || {tie[0](0, 0)})"

    def _round_at(self, n: int, node: Node, width: int, stage: int) -> str:
        right = node.data[0]
        a, drop, up = self._operands(node, stage, 1)
        kept, dropped = (x(right, right + width - 1) for x in (a, drop))
        if node.data[-2:] == (0, 0):
            return f"{kept} & ~{dropped}"
        # With ones in the dropped places, a carry from the bottom adds one step.
        return f"(({kept} | {dropped}) + {self._widened(up(0, 0), width)}) & ~{dropped}"

    @staticmethod
    def _widened(bit: str, width: int) -> str:
        return bit if width == 1 else f"{{{width - 1}'h0, {bit}}}"

    def _wrap_sm(self, n: int, node: Node, width: int, stage: int) -> str:
        result, r_is_node, r_value, f_is_node, f_value = node.data
        args = list(node.args)
        nodes = self.block.netlist.nodes
        rounded = args.pop(0) if r_is_node else None
        floor = args.pop(0) if f_is_node else None
        top = result - 1 if rounded is None else max(nodes[rounded].width, result + 1) - 1
        if rounded is None:
            outside = f"1'b{int(not -(1 << (result - 1)) <= r_value < 1 << (result - 1))}"
            low, sign = literal(result, r_value), f"1'b{r_value >> (result - 1) & 1}"
        else:
            high = self.bits(rounded, result - 1, top, stage)
            outside = f"(|{high}) && !(&{high})"
            low, sign = (
                self.bits(rounded, 0, result - 1, stage),
                self.bits(rounded, result - 1, result - 1, stage),
            )
        deleted = f"1'b{f_value >> result & 1}" if floor is None else self.bits(floor, result, result, stage)
        turned = self._wire(n, "turned", f"{outside} && ({deleted} != {sign})")
        return f"{low} ^ {{{result}{{{turned}}}}}"
