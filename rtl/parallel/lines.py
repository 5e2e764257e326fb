"""Reads the text of a block line by line and computes what it says.

A block has hundreds of thousands of characters, and a full Verilog parser (pyverilog) would take as long as
everything before. The emitter writes few kinds of lines, so this reader knows exactly those, and refuses
everything else: a line that it accepts means here what it means in Verilog (the tests hold it against
pyverilog, on designs and on damaged ones). Every value is declared, driven once, and
read after that; operands have equal widths and equally many registers in front of them; a value lies in the
interval that its comment names.

Several input vectors are computed at once: a value is one Python integer with a *lane* of `LANE` bits for
each vector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from qfx.rtl.readback import ReadbackError

#: Bits of a lane. Values have at most 64 bits, and sums one more.
LANE = 128
_WIDEST = LANE - 2

_TOKENS = re.compile(r"\s*(?:(\d+'h[0-9a-f]+|1'b[01]|\w+)|(&&|\|\||==|!=|[-+&|^!~<>?:{}()\[\],]))")
_VALUE = re.compile(
    r"    (?:\(\* keep \*\) )?wire (?:\[(\d+):0\] )?(\w+) = ([^;/]+);(?:    // (-?\d+) \.\. (-?\d+))?"
)
_REGISTER = re.compile(r"    reg \[(\d+):0\] (\w+);")
_LOADS = re.compile(r"            (\w+) <= (\w+);")
_ASSIGN = re.compile(r"    assign (\w+) = \{")
_PART = re.compile(r"        ([^;/]+?)(,?)")
_PORT = re.compile(r"    (input |output) wire (?:\[(\d+):0\] )?(\w+)(,?)")
#: Values, and tensors of the graph; no keyword looks like these.
_NAME = re.compile(r"v\d+(?:_[a-z0-9_]+)?|n\d+_[a-z0-9_]*")
_LITERAL = re.compile(r"(\d+)'h([0-9a-f]+)")
_BINARY = {"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "+": 8, "-": 8}
_UNARY = 9

Value = tuple[int, int, int | None]  # lanes, bits, registers in front (None: constant)


@cache
def ones(width: int, vectors: int) -> int:
    """``width`` ones in every lane."""
    return sum(((1 << width) - 1) << (LANE * i) for i in range(vectors))


@dataclass
class _Signal:
    width: int
    lanes: int = 0
    time: int | None = None
    driven: bool = False


@dataclass(frozen=True)
class BlockText:
    """What the text of a block says.

    Attributes:
        name: of the module.
        ports: direction and bits by name, in order.
        outputs: values of the output ports, a number per input vector.
        latency: registers on the way to them, 0 when they are constant.
    """

    name: str
    ports: Mapping[str, tuple[str, int]]
    outputs: Mapping[str, Sequence[int]]
    latency: int


def read_block(text: str, path: Path, inputs: Mapping[str, Sequence[int]]) -> BlockText:
    """Read a block and compute its outputs.

    Args:
        text: the whole file. path: named in errors. inputs: values of the input ports, a number for each
            vector.

    Raises:
        ReadbackError: a line that no block has, or one that does not fit the others.
    """
    return _Reader(path, {name: list(values) for name, values in inputs.items()}).read(text)


@dataclass
class _Reader:
    path: Path
    inputs: dict[str, list[int]]
    signals: dict[str, _Signal] = field(default_factory=dict)
    outputs: dict[str, list[int]] = field(default_factory=dict)
    times: set[int] = field(default_factory=set)
    number: int = 0
    tokens: list[str] = field(default_factory=list)
    at: int = 0
    rest: Iterator[str] = iter(())
    vectors: int = 0
    clocked: bool = False
    widths: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)

    def fail(self, message: str) -> ReadbackError:
        return ReadbackError(f"{self.path}, line {self.number}: {message}")

    # -- lines -----------------------------------------------------------------------------------------------

    def read(self, text: str) -> BlockText:
        if not text.endswith("\n"):
            raise self.fail("does not end with a line")
        self.rest = iter(text[:-1].split("\n"))
        self.vectors = len(next(iter(self.inputs.values())))
        line = self.next()
        while line.startswith("// "):
            line = self.next()
        self.expect(line, "`default_nettype none")
        line = self.next()
        head = re.fullmatch(r"module ([A-Za-z_]\w*) \(", line)
        if head is None:
            raise self.fail(f"expected a module: {line[:80]!r}")
        ports = self.ports()
        self.body()
        self.expect(self.next(), "`default_nettype wire")
        for line in self.rest:
            raise self.fail(f"behind the module: {line[:80]!r}")
        missing = [n for n, s in self.signals.items() if not s.driven]
        missing += [n for n in self.wanted if n not in self.outputs]
        if missing:
            raise self.fail(f"nothing drives {', '.join(missing[:5])}")
        if len(self.times) > 1:
            raise self.fail(f"outputs come at different times: {sorted(self.times)}")
        return BlockText(head[1], ports, self.outputs, self.times.pop() if self.times else 0)

    def next(self) -> str:
        self.number += 1
        line = next(self.rest, None)
        if line is None:
            raise self.fail("the file ends too early")
        return line

    def expect(self, line: str, wanted: str) -> None:
        if line != wanted:
            raise self.fail(f"expected {wanted!r}: {line[:80]!r}")

    def ports(self) -> dict[str, tuple[str, int]]:
        ports: dict[str, tuple[str, int]] = {}
        while True:
            match = _PORT.fullmatch(line := self.next())
            if match is None:
                raise self.fail(f"not a port: {line[:80]!r}")
            name, width = match[3], int(match[2]) + 1 if match[2] else 1
            if name not in ("clk", "en"):
                self.name(name)
            if name in ports:
                raise self.fail(f"{name} is declared twice")
            ports[name] = match[1].strip(), width
            if not match[4]:
                break
        self.expect(self.next(), ");")
        clocked = [n for n in ("clk", "en") if n in ports]
        if any(ports[n] != ("input", 1) for n in clocked) or len(clocked) == 1:
            raise self.fail("clk and en are not inputs of one bit")
        self.clocked = bool(clocked)
        given = {n: w for n, (d, w) in ports.items() if d == "input" and n not in clocked}
        if set(given) != set(self.inputs):
            raise self.fail(f"inputs {', '.join(given)}; the design says {', '.join(self.inputs)}")
        for name, width in given.items():
            if any(value >> width for value in self.inputs[name]):
                raise self.fail(f"{name} has {width} bits, too few for its values")
        self.widths = given
        self.wanted = {n: w for n, (d, w) in ports.items() if d == "output"}
        return ports

    def body(self) -> None:
        while True:
            line = self.next()
            match = _VALUE.fullmatch(line)
            if match is not None:
                width, name, text, low, high = match.groups()
                value = self.expression(text)
                self.drive(self.declare(name, int(width) + 1 if width else 1), name, value, 0)
                if low is not None:
                    self.inside(name, value, int(low), int(high))
            elif line == "" or line.startswith("    // "):
                continue
            elif (match := _REGISTER.fullmatch(line)) is not None:
                self.declare(match[2], int(match[1]) + 1)
            elif line == "    always @(posedge clk) begin":
                self.registers()
            elif (match := _ASSIGN.fullmatch(line)) is not None:
                self.output(match[1])
            elif line == "    wire unused = &{1'b0,":
                self.unused()
            elif line == "endmodule":
                return
            else:
                raise self.fail(f"not a line of a block: {line[:80]!r}")

    def registers(self) -> None:
        self.expect(self.next(), "        if (en) begin")
        if not self.clocked:
            raise self.fail("registers without clk and en")
        loads = []
        while (match := _LOADS.fullmatch(line := self.next())) is not None:
            # All take their values at once: none of them is driven yet.
            loads.append((match[1], self.value(self.name(match[2]))))
        self.expect(line, "        end")
        self.expect(self.next(), "    end")
        for name, value in loads:
            signal = self.signals.get(name)
            if signal is None:
                raise self.fail(f"{name} is not declared")
            self.drive(signal, name, value, 1)

    def output(self, name: str) -> None:
        width = self.wanted.get(name)
        if width is None:
            raise self.fail(f"{name} is no output")
        if name in self.outputs:
            raise self.fail(f"{name} has two drivers")
        words, place = [0] * self.vectors, width
        for part in self.parts("    };"):
            lanes, bits, time = self.expression(part)
            place -= bits
            if place < 0:
                break
            if time is not None:
                self.times.add(time)
            for i in range(self.vectors):
                words[i] |= (lanes >> (LANE * i) & ((1 << bits) - 1)) << place
        if place != 0:
            raise self.fail(f"{name} has {width} bits, its expression {width - place}")
        self.outputs[name] = words

    def unused(self) -> None:
        for part in self.parts(None):
            self.expression(part)

    def parts(self, end: str | None) -> list[str]:
        """The lines of a concatenation; ``end`` closes it, or ``}};`` behind the last part."""
        found = []
        while True:
            line = self.next()
            if end is None and line.endswith("};"):
                line, last = line[:-2], True
            else:
                last = False
            match = _PART.fullmatch(line)
            if match is None or (last and match[2]):
                raise self.fail(f"not a part of a concatenation: {line[:80]!r}")
            found.append(match[1])
            if last:
                return found
            if not match[2]:
                if end is None:
                    raise self.fail("a concatenation without an end")
                self.expect(self.next(), end)
                return found

    # -- values ----------------------------------------------------------------------------------------------

    def name(self, text: str) -> str:
        if _NAME.fullmatch(text) is None:
            raise self.fail(f"{text!r} is not a name")
        return text

    def declare(self, name: str, width: int) -> _Signal:
        taken = name in self.signals or name in self.inputs or name in self.wanted
        if taken or name in ("clk", "en", "unused"):
            raise self.fail(f"{name} is declared twice")
        if width > _WIDEST:
            raise self.fail(f"{name} has {width} bits; values have at most {_WIDEST}")
        self.signals[self.name(name)] = signal = _Signal(width)
        return signal

    def drive(self, signal: _Signal, name: str, value: Value, registers: int) -> None:
        lanes, width, time = value
        if signal.driven:
            raise self.fail(f"{name} has two drivers")
        if width != signal.width:
            raise self.fail(f"{name} has {signal.width} bits, its expression {width}")
        signal.lanes, signal.driven = lanes, True
        signal.time = None if time is None else time + registers

    def inside(self, name: str, value: Value, low: int, high: int) -> None:
        """Each vector's value lies in an interval; two's complement when that reaches below zero."""
        lanes, width, _ = value
        mask, top = (1 << width) - 1, 1 << (width - 1) if low < 0 else 0
        for i in range(self.vectors):
            number = ((lanes >> (LANE * i) & mask) ^ top) - top
            if not low <= number <= high:
                raise self.fail(f"{name} is {number}, but lies in {low} .. {high}")

    def value(self, name: str) -> Value:
        signal = self.signals.get(name)
        if signal is not None and signal.driven:
            return signal.lanes, signal.width, signal.time
        if name in self.inputs:
            return self.port(name, self.widths[name] - 1, 0)
        raise self.fail(f"{name} is read, but is no value here")

    def port(self, name: str, high: int, low: int) -> Value:
        """Some bits of an input port, which may be wider than a lane."""
        width = high - low + 1
        if width > _WIDEST:
            raise self.fail(f"{width} bits of {name} at once")
        lanes = 0
        for i, word in enumerate(self.inputs[name]):
            lanes |= (word >> low & ((1 << width) - 1)) << (LANE * i)
        return lanes, width, 0

    # -- expressions -----------------------------------------------------------------------------------------

    def expression(self, text: str) -> Value:
        self.tokens, end = [], 0
        for match in _TOKENS.finditer(text):
            if match.start() != end:
                break
            end = match.end()
            self.tokens.append(match[1] or match[2])
        if end != len(text):
            raise self.fail(f"cannot read {text[end : end + 40]!r}")
        self.tokens.append("")
        self.at = 0
        value = self.choice()
        if self.tokens[self.at]:
            raise self.fail(f"{self.tokens[self.at]!r} is not expected in {text[:80]!r}")
        return value

    def take(self, wanted: str) -> None:
        if self.tokens[self.at] != wanted:
            raise self.fail(f"{self.tokens[self.at]!r} where {wanted!r} is expected")
        self.at += 1

    def integer(self) -> int:
        token = self.tokens[self.at]
        if not token.isdecimal():
            raise self.fail(f"{token!r} is not a number")
        self.at += 1
        return int(token)

    def together(self, *times: int | None) -> int | None:
        """The registers in front of operands, which must be equally many."""
        found = {time for time in times if time is not None}
        if len(found) > 1:
            raise self.fail(f"operands {sorted(found)} registers behind the input")
        return found.pop() if found else None

    def choice(self) -> Value:
        value = self.binary(1)
        if self.tokens[self.at] != "?":
            return value
        self.at += 1
        condition, width, time = value
        yes = self.choice()
        self.take(":")
        no = self.choice()
        if width != 1 or yes[1] != no[1]:
            raise self.fail(f"choice of {width} bits between {yes[1]} and {no[1]} bits")
        mask = condition * ((1 << yes[1]) - 1)
        return no[0] ^ (mask & (yes[0] ^ no[0])), yes[1], self.together(time, yes[2], no[2])

    def binary(self, least: int) -> Value:
        value = self.unary()
        while (power := _BINARY.get(self.tokens[self.at], 0)) >= least:
            symbol = self.tokens[self.at]
            self.at += 1
            value = self.combine(symbol, value, self.binary(power + 1))
        return value

    def combine(self, symbol: str, left: Value, right: Value) -> Value:
        (a, width, time), (b, other, also) = left, right
        if width != other or (symbol in ("&&", "||") and width != 1):
            raise self.fail(f"{symbol} of {width} and {other} bits")
        if time != also:
            time = self.together(time, also)
        if symbol == "+":
            return (a + b) & ones(width, self.vectors), width, time
        if symbol == "-":
            return self.minus(a, b, width) & ones(width, self.vectors), width, time
        if symbol in ("&", "&&"):
            return a & b, width, time
        if symbol in ("|", "||"):
            return a | b, width, time
        if symbol == "^":
            return a ^ b, width, time
        one = ones(1, self.vectors)
        if symbol in ("==", "!="):
            differ = self.any(a ^ b, width)
            return differ if symbol == "!=" else differ ^ one, 1, time
        if symbol == ">":
            a, b = b, a
        # Whether a borrow leaves the difference.
        return (self.minus(a, b, width) >> width & one) ^ one, 1, time

    def minus(self, a: int, b: int, width: int) -> int:
        """``a - b + 2**width`` in every lane."""
        return a + (ones(1, self.vectors) << width) - b

    def any(self, a: int, width: int) -> int:
        return (a + ones(width, self.vectors)) >> width & ones(1, self.vectors)

    def unary(self) -> Value:
        token = self.tokens[self.at]
        if token not in ("|", "&", "!", "~", "-"):
            return self.primary()
        self.at += 1
        a, width, time = self.unary()
        one = ones(1, self.vectors)
        if token == "|":
            return self.any(a, width), 1, time
        if token == "&":
            return self.any(a ^ ones(width, self.vectors), width) ^ one, 1, time
        if token == "~":
            return a ^ ones(width, self.vectors), width, time
        if token == "-":
            return self.minus(0, a, width) & ones(width, self.vectors), width, time
        if width != 1:
            raise self.fail(f"! of {width} bits")
        return a ^ one, 1, time

    def primary(self) -> Value:
        token = self.tokens[self.at]
        self.at += 1
        if token == "(":
            value = self.choice()
            self.take(")")
            return value
        if token == "{":
            return self.braces()
        if (match := _LITERAL.fullmatch(token)) is not None:
            width, number = int(match[1]), int(match[2], 16)
            if number >> width or not 0 < width <= _WIDEST:
                raise self.fail(f"constant {token} does not fit")
            return number * ones(1, self.vectors), width, None
        if token in ("1'b0", "1'b1"):
            return int(token[-1]) * ones(1, self.vectors), 1, None
        name = self.name(token)
        if self.tokens[self.at] != "[":
            return self.value(name)
        self.at += 1
        high = low = self.integer()
        if self.tokens[self.at] == ":":
            self.at += 1
            low = self.integer()
        self.take("]")
        return self.bits(name, high, low)

    def bits(self, name: str, high: int, low: int) -> Value:
        signal = self.signals.get(name)
        width = self.widths.get(name, 0) if signal is None else signal.width
        if not 0 <= low <= high < width:
            raise self.fail(f"bits {high}:{low} of {name}, which has {width}")
        if signal is None:
            return self.port(name, high, low)
        lanes, _, time = self.value(name)
        return lanes >> low & ones(high - low + 1, self.vectors), high - low + 1, time

    def braces(self) -> Value:
        """A concatenation, or a repetition."""
        if self.tokens[self.at].isdecimal() and self.tokens[self.at + 1] == "{":
            count = self.integer()
            self.at += 1
            lanes, width, time = self.choice()
            self.take("}")
            self.take("}")
            if not 0 < count * width <= _WIDEST:
                raise self.fail(f"{count} times {width} bits")
            return lanes * sum(1 << (width * i) for i in range(count)), width * count, time
        lanes, width, time = self.choice()
        while self.tokens[self.at] == ",":
            self.at += 1
            below, bits, also = self.choice()
            lanes, width = lanes << bits | below, width + bits
            if width > _WIDEST:
                raise self.fail(f"a concatenation of {width} bits")
            if time != also:
                time = self.together(time, also)
        self.take("}")
        return lanes, width, time
