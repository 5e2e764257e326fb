"""Reads a parallel design back: what it computes, and whether its registers are in step.

Each expression is checked for declared names, equal widths and single drivers, and computed for a few vectors
of the interpreter. Registers pass values on in this; instead, each signal has a *time*, the registers on the
way to it, and the operands of an expression must agree in theirs.

pyverilog parses the top module and the ports of every block; what stands in a block is read line by line
(:mod:`qfx.rtl.parallel.lines`). A design of up to `WHOLE` characters is then read a second time with
pyverilog alone, its expressions turned into arithmetic on Python integers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pyverilog.vparser import ast

from qfx.rtl.design import Design, Kernel, Stream, canonical_order
from qfx.rtl.emit import port_bits
from qfx.rtl.parallel.lines import read_block
from qfx.rtl.readback import TOP_PORTS, ModuleText, ReadbackError, read_module

_SAMPLES = 16
#: Characters of Verilog up to which pyverilog reads everything: a fraction of a second.
WHOLE = 50_000
_CONTROL = frozenset({"aclk", "aresetn", "s_axis_tvalid", "m_axis_tready", "en", "valid", "clk"})

_COMPARE = {ast.LessThan: "<", ast.GreaterThan: ">", ast.NotEq: "!=", ast.Eq: "=="}
_BITWISE = {ast.And: "&", ast.Or: "|", ast.Xor: "^"}
_SUM = {ast.Plus: "+", ast.Minus: "-"}
_LOGIC = {ast.Land: "and", ast.Lor: "or"}


@dataclass(frozen=True)
class _Expression:
    """Python text of an expression, its bits, its time (``None`` for constants)."""

    text: str
    width: int
    time: int | None


@dataclass
class _Signal:
    width: int
    time: int | None = None
    driven: bool = False


@dataclass(frozen=True)
class Function:
    """A module as a function from input port values to output port values."""

    run: Callable[..., tuple[int, ...]]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    latency: int


def check(design: Design) -> None:
    """Check every file of a written parallel design.

    Raises:
        ReadbackError: with the file, what stands there and what the design says.
    """
    assert design.directory is not None
    texts = {name: (design.directory / name).read_text(encoding="ascii") for name in design.verilog}
    vectors = _vectors(design)
    check_lines(design, texts, vectors)
    if sum(map(len, texts.values())) <= WHOLE:
        check_whole(design, texts, vectors)


def check_lines(design: Design, texts: Mapping[str, str], vectors: Mapping[str, list[int]]) -> None:
    """The blocks line by line, each with the vectors of the interpreter; the top module and all ports with
    pyverilog."""
    assert design.directory is not None
    functions = {}
    for kernel in design.kernels:
        path = design.directory / f"{kernel.module}.v"
        text = texts[path.name]
        head, _, _ = text.partition("\n);\n")
        ports = _Reader(path, _module(path, f"{head}\n);\nendmodule\n")).ports()
        inputs = {name: vectors[name] for name in kernel.inputs}
        block = read_block(text, path, inputs)
        if ports != block.ports or block.name != kernel.module:
            raise ReadbackError(f"{path}: module {block.name}, ports {block.ports}; pyverilog reads {ports}")
        function = Function(
            _Known(path, inputs, {name: vectors[name] for name in kernel.outputs}),
            {n: w for n, (d, w) in ports.items() if d == "input" and n not in _CONTROL},
            {n: w for n, (d, w) in ports.items() if d == "output"},
            block.latency,
        )
        _check_ports(design, kernel, path, function)
        for name in kernel.outputs:
            if list(block.outputs[name]) != vectors[name]:
                raise ReadbackError(f"{path}: does not compute what the graph does: {name} differs")
        functions[kernel.module] = function
    _check_top(design, texts, functions, vectors)


def check_whole(design: Design, texts: Mapping[str, str], vectors: Mapping[str, list[int]]) -> None:
    """Every line with pyverilog, and the design as a whole on the vectors."""
    assert design.directory is not None
    functions = {}
    for kernel in design.kernels:
        path = design.directory / f"{kernel.module}.v"
        function = read_whole(path, texts[path.name])
        _check_ports(design, kernel, path, function)
        functions[kernel.module] = function
    _check_top(design, texts, functions, vectors)


def read_whole(path: Path, text: str) -> Function:
    """A block as a function, every line read with pyverilog."""
    return _Reader(path, _module(path, text)).block()


def _module(path: Path, text: str) -> ModuleText:
    module = read_module(text, path)
    if f"{module.name}.v" != path.name:
        raise ReadbackError(f"{path}: holds module {module.name}")
    return module


@dataclass(frozen=True)
class _Known:
    """A block as a function, on the vectors for which its outputs have been checked."""

    path: Path
    inputs: Mapping[str, list[int]]
    outputs: Mapping[str, list[int]]

    def __call__(self, *words: int) -> tuple[int, ...]:
        for number, known in enumerate(zip(*self.inputs.values(), strict=True)):
            if known == words:
                return tuple(values[number] for values in self.outputs.values())
        raise ReadbackError(f"{self.path}: is given other values than the graph has there")


def _check_ports(design: Design, kernel: Kernel, path: Path, function: Function) -> None:
    wanted = (
        {n: design.stream(n).bits for n in kernel.inputs},
        {n: design.stream(n).bits for n in kernel.outputs},
    )
    if (function.inputs, function.outputs) != wanted:
        raise ReadbackError(
            f"{path}: ports {function.inputs} to {function.outputs}; "
            f"the design says {wanted[0]} to {wanted[1]}"
        )


def _vectors(design: Design) -> dict[str, list[int]]:
    """Ends of the input's range and random codes, through the interpreter: each tensor between blocks as the
    words of its stream."""
    graph = design.graph
    tensor, rng = graph.input_node.tensor, np.random.default_rng(0)
    each = tensor.size // tensor.channels
    low, high = (np.repeat(v.astype(np.int64), each) for v in (tensor.low, tensor.high))
    codes = rng.integers(low, high, (_SAMPLES, tensor.size), endpoint=True)
    codes[0], codes[1] = low, high
    x = tensor.format.decode(codes.reshape(_SAMPLES, *tensor.shape), axis=1)
    trace = graph.trace(x)
    return {s.name: _pack(np.asarray(trace[s.name]), s) for s in design.streams}


def _pack(codes: np.ndarray, stream: Stream) -> list[int]:
    """Tensors as words, the first element lowest."""
    flat = codes.reshape(len(codes), -1)[:, canonical_order(codes.shape[1:])].astype(np.int64)
    bits = (flat[:, :, None] >> np.arange(stream.width)) & 1
    packed = np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _check_top(
    design: Design,
    texts: Mapping[str, str],
    functions: Mapping[str, Function],
    vectors: Mapping[str, list[int]],
) -> None:
    assert design.directory is not None
    path = design.directory / f"{design.top}.v"
    function = _Reader(path, _module(path, texts[path.name])).top(design, functions)
    for number, word in enumerate(vectors[design.input_name]):
        (found,) = function.run(word)
        if found != vectors[design.output_name][number]:
            raise ReadbackError(f"{path}: does not compute what the graph does, for the input {word:#x}")


@dataclass
class _Reader:
    path: Path
    module: ModuleText
    signals: dict[str, _Signal] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    calls: dict[str, Any] = field(default_factory=dict)

    def fail(self, message: str) -> ReadbackError:
        return ReadbackError(f"{self.path}: {message}")

    # -- modules ---------------------------------------------------------------------------------------------

    def block(self) -> Function:
        """A block: data ports, ``clk`` and ``en``."""
        widths = self.ports()
        for name in ("clk", "en"):
            if widths.pop(name, ("input", 1)) != ("input", 1):
                raise self.fail(f"{name} is not an input of one bit")
        inputs = {n: w for n, (d, w) in widths.items() if d == "input"}
        outputs = {n: w for n, (d, w) in widths.items() if d == "output"}
        self.signals |= {n: _Signal(w, 0, True) for n, w in inputs.items()}
        self.signals |= {n: _Signal(w) for n, w in outputs.items()}
        for item in self._items():
            if isinstance(item, ast.Always):
                self._registers(item, "clk")
            else:
                self._assign(item)
        return self._function(inputs, outputs)

    def top(self, design: Design, functions: Mapping[str, Function]) -> Function:
        """The top module: blocks, delays between them, and the valid bits."""
        widths = self.ports()
        bits = {
            "s_axis_tdata": port_bits(design.input_stream),
            "m_axis_tdata": port_bits(design.output_stream),
        }
        wanted = {n: (d, bits.get(n, 1)) for n, d in TOP_PORTS.items()}
        if widths != wanted:
            raise self.fail(f"ports {widths}; expected {wanted}")
        self.signals |= {n: _Signal(w, 0, d == "input") for n, (d, w) in widths.items()}
        self.signals["m_axis_tdata"].time = None
        blocks = {kernel.name: kernel for kernel in design.kernels}
        valid: dict[str, int | None] = {"s_axis_tvalid": 0}
        for item in self._items():
            if isinstance(item, ast.Always):
                if not self._is_valid_chain(item, design.latency):
                    self._registers(item, "aclk")
            elif isinstance(item, ast.InstanceList):
                (instance,) = item.instances
                kernel = blocks.pop(instance.name, None)
                if kernel is None or kernel.module != instance.module:
                    raise self.fail(f"instance {instance.name} of {instance.module} is not in the design")
                self._instance(instance, functions[kernel.module])
            else:
                name, value = item.left.var.name, item.right.var
                if name.endswith(("_tvalid", "_tready")) or name in ("en", "m_axis_tlast"):
                    self._drive(name)
                    if name.endswith("_tvalid"):
                        valid[name] = self._valid_time(value)
                else:
                    self._assign(item)
        if blocks:
            raise self.fail(f"no instance of {', '.join(blocks)}")
        function = self._function(
            {"s_axis_tdata": bits["s_axis_tdata"]}, {"m_axis_tdata": bits["m_axis_tdata"]}
        )
        times = {f"{s.name}_tvalid": self.signals[s.tdata].time for s in design.streams}
        times["m_axis_tvalid"] = function.latency
        for name, time in times.items():
            if time is not None and valid.get(name) != time:
                raise self.fail(f"{name} is {valid.get(name)} cycles behind the input, its data {time}")
        if function.latency != design.latency:
            raise self.fail(f"{function.latency} registers on the way; the design says {design.latency}")
        return function

    def ports(self) -> dict[str, tuple[str, int]]:
        """Direction and bits by name."""
        return {n: (p.direction, self._range(p.width)) for n, p in self.module.ports.items()}

    def _items(self) -> Iterator[Any]:
        """Assignments, always blocks and instances in the order of the text; declarations on the way."""
        for item in self.module.definition.items:
            if isinstance(item, ast.Pragma):
                continue
            if not isinstance(item, ast.Decl):
                yield item
                continue
            for part in item.list:
                if isinstance(part, ast.Wire | ast.Reg):
                    if part.name in self.signals:
                        raise self.fail(f"{part.name} is declared twice")
                    self.signals[part.name] = _Signal(self._range(part.width, int(part.name == "valid")))
                else:
                    yield part

    def _range(self, width: ast.Width | None, last: int = 0) -> int:
        if width is None:
            return 1
        if int(width.lsb.value) != last:
            raise self.fail(f"a vector that does not end at bit {last}")
        return int(width.msb.value) - last + 1

    def _function(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Function:
        missing = [n for n, s in self.signals.items() if not s.driven]
        if missing:
            raise self.fail(f"nothing drives {', '.join(missing[:5])}")
        times = {self.signals[n].time for n in outputs} - {None}
        if len(times) > 1:
            raise self.fail(f"outputs come at different times: {sorted(t for t in times if t is not None)}")
        head = f"def run({', '.join(_python(n) for n in inputs)}):"
        tail = f"    return ({', '.join(_python(n) for n in outputs)},)"
        # Names and operators come from the branches below alone, never from the text that was read.
        space: dict[str, Any] = dict(self.calls)
        exec("\n".join([head, *self.lines, tail]), space)
        return Function(space["run"], dict(inputs), dict(outputs), times.pop() if times else 0)  # type: ignore[arg-type]

    # -- items -----------------------------------------------------------------------------------------------

    def _drive(self, name: str) -> _Signal:
        signal = self.signals.get(name)
        if signal is None:
            raise self.fail(f"{name} is not declared")
        if signal.driven:
            raise self.fail(f"{name} has two drivers")
        signal.driven = True
        return signal

    def _assign(self, item: ast.Assign, delay: int = 0) -> None:
        if not isinstance(item.left.var, ast.Identifier):
            raise self.fail("an assignment to a part of a signal")
        name = item.left.var.name
        if name == "unused":
            self._drive(name)
            return
        # Read before it counts as driven: a signal cannot depend on itself.
        value = self._read(item.right.var)
        signal = self._drive(name)
        if value.width != signal.width:
            raise self.fail(f"{name} has {signal.width} bits, its expression {value.width}")
        signal.time = None if value.time is None else value.time + delay
        self.lines.append(f"    {_python(name)} = {value.text}")

    def _registers(self, item: ast.Always, clock: str) -> None:
        senses = [(s.type, getattr(s.sig, "name", None)) for s in item.sens_list.list]
        body = item.statement
        if isinstance(body, ast.Block) and len(body.statements) == 1:
            (body,) = body.statements
        enabled = isinstance(body, ast.IfStatement) and getattr(body.cond, "name", None) == "en"
        if senses != [("posedge", clock)] or not enabled or body.false_statement is not None:
            raise self.fail(
                f"line {item.lineno}: registers that are not clocked by {clock} and enabled by en"
            )
        inner = body.true_statement
        for statement in inner.statements if isinstance(inner, ast.Block) else [inner]:
            if not isinstance(statement, ast.NonblockingSubstitution):
                raise self.fail(f"line {item.lineno}: {type(statement).__name__} in registers")
            self._assign(ast.Assign(statement.left, statement.right), 1)

    def _is_valid_chain(self, item: ast.Always, latency: int) -> bool:
        body = item.statement.statements[0] if isinstance(item.statement, ast.Block) else item.statement
        if not isinstance(body, ast.IfStatement) or not isinstance(body.cond, ast.Ulnot | ast.Unot):
            return False
        signal = self._drive("valid")
        follow = body.false_statement.true_statement.right.var
        whole = (
            getattr(follow, "name", None) == "s_axis_tvalid"
            if latency == 1
            else isinstance(follow, ast.Concat)
            and [type(p) for p in follow.list] == [ast.Partselect, ast.Identifier]
            and follow.list[1].name == "s_axis_tvalid"
            and (int(follow.list[0].msb.value), int(follow.list[0].lsb.value)) == (latency - 1, 1)
        )
        if signal.width != latency or not whole:
            raise self.fail(f"valid is no chain of {latency} registers")
        return True

    def _valid_time(self, value: Any) -> int | None:
        if isinstance(value, ast.Identifier) and value.name == "s_axis_tvalid":
            return 0
        if isinstance(value, ast.Pointer) and value.var.name == "valid":
            return int(value.ptr.value)
        return None

    def _instance(self, instance: ast.Instance, function: Function) -> None:
        ports = {arg.portname: getattr(arg.argname, "name", None) for arg in instance.portlist}
        clocked = {"clk": "aclk", "en": "en"} if function.latency else {}
        for port, wire in clocked.items():
            if ports.pop(port, None) != wire:
                raise self.fail(f"{instance.name}: {port} is not connected to {wire}")
        if set(ports) != {*function.inputs, *function.outputs}:
            raise self.fail(f"{instance.name}: connects {', '.join(ports)}")
        arguments = []
        for port, width in function.inputs.items():
            value = self._read(ast.Identifier(ports[port]))
            if value.width != width:
                raise self.fail(f"{instance.name}.{port} has {width} bits, {ports[port]} has {value.width}")
            arguments.append(value)
        start = self._common(arguments, instance.name)
        for port, width in function.outputs.items():
            signal = self._drive(str(ports[port]))
            if signal.width != width:
                raise self.fail(f"{instance.name}.{port} has {width} bits, {ports[port]} has {signal.width}")
            signal.time = None if start is None else start + function.latency
        self.calls[_python(instance.name)] = function.run
        targets = ", ".join(_python(str(ports[port])) for port in function.outputs)
        values = ", ".join(a.text for a in arguments)
        self.lines.append(f"    {targets}, = {_python(instance.name)}({values})")

    # -- expressions -----------------------------------------------------------------------------------------

    def _common(self, parts: Sequence[_Expression], where: object) -> int | None:
        times = {p.time for p in parts if p.time is not None}
        if len(times) > 1:
            raise self.fail(f"{where}: operands {sorted(times)} registers behind the input")
        return times.pop() if times else None

    def _read(self, node: Any) -> _Expression:
        """An expression as Python, with widths as Verilog has them; anything that is not emitted is
        refused."""
        kind = type(node)
        if isinstance(node, ast.Identifier):
            signal = self.signals.get(node.name)
            if signal is None or not signal.driven or node.name in _CONTROL:
                raise self.fail(f"{node.name} is read, but is no value here")
            return _Expression(_python(node.name), signal.width, signal.time)
        if isinstance(node, ast.IntConst):
            match = re.fullmatch(r"(\d+)'([hd])([0-9a-fA-F]+)|1'b([01])", node.value)
            if match is None:
                raise self.fail(f"constant {node.value}")
            if match[4]:
                return _Expression(match[4], 1, None)
            value, width = int(match[3], 16 if match[2] == "h" else 10), int(match[1])
            if value >> width:
                raise self.fail(f"constant {node.value} does not fit")
            return _Expression(str(value), width, None)
        if isinstance(node, ast.Partselect | ast.Pointer):
            whole = self._read(node.var)
            if isinstance(node, ast.Pointer):
                high = low = int(node.ptr.value)
            else:
                high, low = int(node.msb.value), int(node.lsb.value)
            if not 0 <= low <= high < whole.width:
                raise self.fail(f"bits {high}:{low} of {node.var.name}, which has {whole.width}")
            mask = (1 << (high - low + 1)) - 1
            return _Expression(f"({whole.text} >> {low} & {mask})", high - low + 1, whole.time)
        if isinstance(node, ast.Concat):
            parts = [self._read(part) for part in node.list]
            terms, offset = [], 0
            for part in reversed(parts):
                terms.append(f"{part.text} << {offset}" if offset else part.text)
                offset += part.width
            return _Expression(f"({' | '.join(terms)})", offset, self._common(parts, "concatenation"))
        if isinstance(node, ast.Repeat):
            part, count = self._read(node.value), int(node.times.value)
            factor = sum(1 << (part.width * i) for i in range(count))
            return _Expression(f"({part.text} * {factor})", part.width * count, part.time)
        if isinstance(node, ast.Cond):
            condition, yes, no = (self._read(n) for n in (node.cond, node.true_value, node.false_value))
            if condition.width != 1 or yes.width != no.width:
                raise self.fail(f"line {node.lineno}: choice between {yes.width} and {no.width} bits")
            time = self._common([condition, yes, no], f"line {node.lineno}")
            return _Expression(f"({yes.text} if {condition.text} else {no.text})", yes.width, time)
        if isinstance(node, ast.Uor | ast.Uand | ast.Ulnot | ast.Unot | ast.Uminus):
            inner = self._read(node.right)
            mask = (1 << inner.width) - 1
            if isinstance(node, ast.Uminus):
                return _Expression(f"(-{inner.text} & {mask})", inner.width, inner.time)
            if isinstance(node, ast.Unot):
                return _Expression(f"({inner.text} ^ {mask})", inner.width, inner.time)
            if isinstance(node, ast.Ulnot) and inner.width != 1:
                raise self.fail(f"line {node.lineno}: ! of {inner.width} bits")
            test = {ast.Uor: "!= 0", ast.Uand: f"== {mask}", ast.Ulnot: "== 0"}[kind]
            return _Expression(f"int({inner.text} {test})", 1, inner.time)
        if kind not in {*_COMPARE, *_BITWISE, *_SUM, *_LOGIC}:
            raise self.fail(f"{kind.__name__} is not expected here")
        a, b = self._read(node.left), self._read(node.right)
        if a.width != b.width or (kind in _LOGIC and a.width != 1):
            raise self.fail(f"line {node.lineno}: {kind.__name__} of {a.width} and {b.width} bits")
        time = self._common([a, b], f"line {node.lineno}")
        if kind in _COMPARE:
            return _Expression(f"int({a.text} {_COMPARE[kind]} {b.text})", 1, time)
        if kind in _LOGIC:
            return _Expression(f"({a.text} {_LOGIC[kind]} {b.text})", 1, time)
        if kind in _BITWISE:
            return _Expression(f"({a.text} {_BITWISE[kind]} {b.text})", a.width, time)
        return _Expression(f"({a.text} {_SUM[kind]} {b.text} & {(1 << a.width) - 1})", a.width, time)


def _python(name: str) -> str:
    """A Verilog name as a Python one; the suffix keeps it away from keywords and builtins."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ReadbackError(f"{name!r} is not a plain name")
    return f"{name}_"
