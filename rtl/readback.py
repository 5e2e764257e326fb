"""Reads generated files back with pyverilog and holds them against the design.

The emitter turns a design into text; this is an independent way from the text back: another parser, widths
evaluated from the kernels' own port declarations. A name misspelt in a template, a parameter that a kernel
does not have, a port of another width than its wire, a stream with two drivers or none, a memory file of the
wrong size: each is found here, before anybody sees the folder.
"""

from __future__ import annotations

import operator
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pyverilog.vparser import ast
from pyverilog.vparser.parser import VerilogParser

from qfx.errors import QfxError
from qfx.rtl.design import Design, Kernel, Stream
from qfx.rtl.emit import port_bits
from qfx.rtl.library import GENERATED, MODULES

TOP_PORTS = {
    "aclk": "input",
    "aresetn": "input",
    "s_axis_tdata": "input",
    "s_axis_tvalid": "input",
    "s_axis_tready": "output",
    "s_axis_tlast": "input",
    "m_axis_tdata": "output",
    "m_axis_tvalid": "output",
    "m_axis_tready": "input",
    "m_axis_tlast": "output",
}


class ReadbackError(QfxError):
    """A generated file does not say what the design says: a fault of the generator."""


@dataclass(frozen=True)
class Port:
    """Direction and, as an expression over the parameters, the width of a port."""

    direction: str
    width: ast.Width | None


@dataclass(frozen=True)
class ModuleText:
    """What a parsed module declares."""

    name: str
    parameters: Mapping[str, Any]
    ports: Mapping[str, Port]
    definition: ast.ModuleDef


def check(design: Design) -> None:
    """Check every file of a written design.

    Raises:
        ReadbackError: with the file, what stands there and what the design says.
    """
    assert design.directory is not None
    if design.architecture == "parallel":
        # It has rules of its own, written on top of this module's.
        from qfx.rtl.parallel import readback as parallel

        parallel.check(design)
        return
    texts: dict[str, ModuleText] = {}
    # What stands behind the module around an unrolled layer is a parallel design.
    behind = {name for kernel in design.kernels for name in kernel.files[1:]}
    for name in design.verilog:
        if name in behind:
            continue
        path = design.directory / name
        module = read_module(path.read_text(encoding="ascii"), path)
        if f"{module.name}.v" != name:
            raise ReadbackError(f"{path}: holds module {module.name}")
        texts[module.name] = module
    for kernel in design.kernels:
        if kernel.nested is not None and kernel.nested.design is not None:
            check(replace(kernel.nested.design, directory=design.directory))
    for module_name in design.modules:
        _check_kernel_file(texts, module_name, design.directory)
    _check_top(design, texts)
    for memory in design.memories:
        _check_memory(design.directory / memory.file, memory.bits, memory.depth)


def read_module(text: str, path: Path) -> ModuleText:
    """Parse a file that holds one module."""
    try:
        source = _parser().parse(text)
    except Exception as error:  # pyverilog raises its own and PLY's
        raise ReadbackError(f"{path}: pyverilog cannot read it: {error}") from error
    modules = [d for d in source.description.definitions if isinstance(d, ast.ModuleDef)]
    if len(modules) != 1:
        raise ReadbackError(f"{path}: holds {len(modules)} modules, expected one")
    (definition,) = modules
    parameters = {}
    for declaration in definition.paramlist.params if definition.paramlist else ():
        for item in declaration.list:
            parameters[item.name] = item.value.var
    ports = {}
    for item in definition.portlist.ports:
        first = item.first
        ports[first.name] = Port(type(first).__name__.lower(), first.width)
    return ModuleText(definition.name, parameters, ports, definition)


@cache
def _parser() -> VerilogParser:
    # PLY writes its tables into a folder; it needs that only while the parser is made.
    with tempfile.TemporaryDirectory(prefix="qfx-pyverilog-") as folder:
        return VerilogParser(outputdir=folder, debug=False)


# -- kernels -------------------------------------------------------------------------------------------------


def _check_kernel_file(texts: Mapping[str, ModuleText], name: str, folder: Path) -> None:
    module = texts.get(name)
    if module is None:
        raise ReadbackError(f"{folder}: no file for module {name}")
    kind = MODULES.get(name, GENERATED)
    expected = kind.parameters
    if tuple(module.parameters) != expected:
        raise ReadbackError(
            f"{folder / name}.v: parameters {', '.join(module.parameters)}; "
            f"the generator knows {', '.join(expected)}"
        )
    streams = [(prefix, "input") for prefix in kind.inputs] + [("m_axis", "output")]
    ports = {"clk": "input", "rst": "input"}
    for prefix, direction in streams:
        ports |= {f"{prefix}_tdata": direction, f"{prefix}_tvalid": direction}
        ports[f"{prefix}_tready"] = "output" if direction == "input" else "input"
    found = {port: p.direction for port, p in module.ports.items()}
    if found != ports:
        raise ReadbackError(f"{folder / name}.v: ports {found}; the generator knows {ports}")


# -- the top module ------------------------------------------------------------------------------------------


def _check_top(design: Design, texts: Mapping[str, ModuleText]) -> None:
    top = texts[design.top]
    where = f"{design.top}.v"
    found = {name: port.direction for name, port in top.ports.items()}
    weights = {f"s_axis_{stream.name}": stream for stream, _ in design.weight_streams}
    expected_ports = dict(TOP_PORTS)
    for prefix in weights:
        expected_ports |= {f"{prefix}_tdata": "input", f"{prefix}_tvalid": "input"}
        expected_ports[f"{prefix}_tready"] = "output"
    if found != expected_ports:
        raise ReadbackError(f"{where}: ports {found}, expected {expected_ports}")
    at_ports = {"s_axis_tdata": design.input_stream, "m_axis_tdata": design.output_stream}
    at_ports |= {f"{prefix}_tdata": stream for prefix, stream in weights.items()}
    for name, stream in at_ports.items():
        _same(where, f"width of {name}", _width(top.ports[name].width, {}), port_bits(stream))

    wires: dict[str, int] = {name: _width(port.width, {}) for name, port in top.ports.items()}
    assigned: list[str] = []
    instances: dict[str, ast.Instance] = {}
    for item in top.definition.items:
        if isinstance(item, ast.Decl):
            for declared in item.list:
                if isinstance(declared, ast.Wire | ast.Reg):
                    wires[declared.name] = _width(declared.width, {})
                elif isinstance(declared, ast.Assign):
                    assigned.append(_target(declared))
        elif isinstance(item, ast.Assign):
            assigned.append(_target(item))
        elif isinstance(item, ast.InstanceList):
            for instance in item.instances:
                if instance.name in instances:
                    raise ReadbackError(f"{where}: two instances {instance.name}")
                instances[instance.name] = instance

    for stream in design.streams:
        for wire, bits in ((stream.tdata, stream.bits), (stream.tvalid, 1), (stream.tready, 1)):
            if wire not in wires:
                raise ReadbackError(f"{where}: no wire {wire} for stream {stream.name}")
            _same(where, f"width of {wire}", wires[wire], bits)
    expected = {kernel.name for kernel in design.kernels}
    if set(instances) != expected:
        raise ReadbackError(f"{where}: instances differ from the design: {sorted(set(instances) ^ expected)}")
    drivers: dict[str, int] = {}
    for kernel in design.kernels:
        _check_instance(design, kernel, instances[kernel.name], texts[kernel.module], wires, drivers, where)
    for wire in assigned:
        drivers[wire] = drivers.get(wire, 0) + 1
    for stream in design.streams:
        for wire in (stream.tdata, stream.tvalid, stream.tready):
            _same(where, f"number of drivers of {wire}", drivers.get(wire, 0), 1)


def _check_instance(
    design: Design,
    kernel: Kernel,
    instance: ast.Instance,
    module: ModuleText,
    wires: Mapping[str, int],
    drivers: dict[str, int],
    where: str,
) -> None:
    place = f"{where}: instance {kernel.name}"
    _same(place, "module", instance.module, kernel.module)
    given = {p.paramname: _constant(p.argname, {}) for p in instance.parameterlist}
    for name, value in kernel.parameters.items():
        if name not in given:
            raise ReadbackError(f"{place}: parameter {name} is not set")
        found = given[name]
        if isinstance(value, int) and isinstance(found, int) and value < 0:
            _same(place, f"parameter {name}", found, value)
        else:
            _same(place, f"parameter {name}", found, value)
    _same(place, "parameters", sorted(given), sorted(kernel.parameters))
    ports = {p.portname: p.argname for p in instance.portlist}
    _same(place, "connected ports", sorted(ports), sorted(module.ports))
    _same(place, "clk", _names(ports["clk"]), ["aclk"])
    _same(place, "rst", _names(ports["rst"]), ["rst"])
    for port, declared in module.ports.items():
        bits = sum(wires.get(name, -1) for name in _names(ports[port]))
        _same(place, f"width of what is connected to {port}", bits, _width(declared.width, given))
        if declared.direction == "output":
            for name in _names(ports[port]):
                drivers[name] = drivers.get(name, 0) + 1
    for prefix, name in zip(MODULES.get(kernel.module, GENERATED).inputs, kernel.inputs, strict=True):
        _check_connection(place, ports, prefix, [design.stream(name)], None)
    shared = f"{kernel.name}_tdata" if kernel.module == "qfx_fork" else None
    _check_connection(place, ports, "m_axis", [design.stream(name) for name in kernel.outputs], shared)


def _check_connection(
    place: str, ports: Mapping[str, Any], prefix: str, streams: list[Stream], shared: str | None
) -> None:
    # In a concatenation the highest bit stands first.
    for suffix, expected in (
        ("tdata", [shared] if shared else [s.tdata for s in streams]),
        ("tvalid", [s.tvalid for s in reversed(streams)]),
        ("tready", [s.tready for s in reversed(streams)]),
    ):
        _same(place, f"{prefix}_{suffix}", _names(ports[f"{prefix}_{suffix}"]), expected)


def _same(place: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ReadbackError(f"{place}: {what} is {found!r}, the design says {expected!r}")


def _names(node: Any) -> list[str]:
    """The wires that a port is connected to, in the order of the text."""
    if isinstance(node, ast.Identifier):
        return [node.name]
    if isinstance(node, ast.Concat):
        return [name for part in node.list for name in _names(part)]
    raise ReadbackError(f"a port is connected to {type(node).__name__}, expected wires")


def _target(assign: ast.Assign) -> str:
    node = assign.left.var
    return node.name if isinstance(node, ast.Identifier) else ""


# -- constant expressions ------------------------------------------------------------------------------------

_BINARY: dict[type, Callable[[int, int], int]] = {
    ast.Plus: operator.add,
    ast.Minus: operator.sub,
    ast.Times: operator.mul,
    ast.Divide: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Sll: operator.lshift,
    ast.Srl: operator.rshift,
    ast.GreaterThan: operator.gt,
    ast.LessThan: operator.lt,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.GreaterEq: operator.ge,
    ast.LessEq: operator.le,
}


def _width(width: ast.Width | None, parameters: Mapping[str, int | str]) -> int:
    if width is None:
        return 1
    high, low = _constant(width.msb, parameters), _constant(width.lsb, parameters)
    assert isinstance(high, int) and isinstance(low, int)
    return high - low + 1


def _constant(node: Any, parameters: Mapping[str, int | str]) -> int | str:
    """The value of a constant expression over parameters."""
    if isinstance(node, ast.IntConst):
        return _integer(node.value)
    if isinstance(node, ast.StringConst):
        return str(node.value)
    if isinstance(node, ast.Rvalue):
        return _constant(node.var, parameters)
    if isinstance(node, ast.Identifier):
        if node.name not in parameters:
            raise ReadbackError(f"a width depends on {node.name}, which is no parameter")
        return parameters[node.name]
    if isinstance(node, ast.Uminus):
        value = _constant(node.right, parameters)
        assert isinstance(value, int)
        return -value
    function = _BINARY.get(type(node))
    if function is None:
        raise ReadbackError(f"a width or parameter holds {type(node).__name__}, which is not expected there")
    left, right = _constant(node.left, parameters), _constant(node.right, parameters)
    assert isinstance(left, int) and isinstance(right, int)
    return int(function(left, right))


def _integer(text: str) -> int:
    match = re.fullmatch(r"(?:\d*'s?([hdob]))?([0-9a-fA-F_]+)", text.strip())
    if match is None:
        raise ReadbackError(f"{text!r} is not a number")
    base = {"h": 16, "d": 10, "o": 8, "b": 2, None: 10}[match[1]]
    return int(match[2].replace("_", ""), base)


# -- memories ------------------------------------------------------------------------------------------------


def _check_memory(path: Path, bits: int, depth: int) -> None:
    lines = path.read_text(encoding="ascii").splitlines()
    _same(str(path), "number of words", len(lines), depth)
    digits = -(-bits // 4)
    limit = 1 << bits
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", line) or int(line, 16) >= limit:
            raise ReadbackError(f"{path}, line {number}: {line[:80]!r} is not a word of {bits} bits")
