"""A design as Verilog text. Nothing is decided here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

import jinja2

from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.rtl.design import Design, Kernel, Parameter, Stream
from qfx.rtl.library import GENERATED, MODULES, clog2

KERNELS = Path(__file__).with_name("kernels")
TEMPLATES = Path(__file__).with_name("templates")

#: Parameters that are bit vectors, and the parameter (or a function of the kernel) that is their width.
_VECTORS = {
    "PAD_VALUE": "WIDTH",
    "SCALE": "SCALE_WIDTH",
    "SLOPE": "SLOPE_WIDTH",
    "LOW": "BOUND_WIDTH",
    "HIGH": "BOUND_WIDTH",
    "LIMIT": "OUT_WIDTH",
    "LARGEST": "TOP",
    "OFFSET": "WIDE",
    "LEAST": "WIDE",
}


@dataclass(frozen=True)
class _Instance:
    remark: str
    module: str
    name: str
    parameters: list[str]
    declarations: list[str]
    ports: list[str]


@dataclass(frozen=True)
class _Section:
    title: str
    notes: list[str]
    kernels: list[_Instance]


def comment(text: str, limit: int = 60) -> str:
    """Free text (a module path) for a one-line comment: printable ASCII, nothing that ends a comment or
    starts a directive.
    """
    kept = re.sub(r"[^A-Za-z0-9 _.,:;+=<>()\[\]{}#%&|!?~^@$'\"-]", "?", text)
    return kept if len(kept) <= limit else kept[: limit - 3] + "..."


def sources(modules: tuple[str, ...]) -> tuple[Path, ...]:
    """The files of kernel modules and of all modules that they instantiate, sorted by name."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = KERNELS / f"{name}.v"
        if name in found or not path.exists():
            continue
        found[name] = path
        code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="ascii"), flags=re.DOTALL)
        waiting += re.findall(r"^\s*(qfx_\w+)\s+(?:#\s*\(|\w+\s*\()", code, flags=re.MULTILINE)
    return tuple(found[name] for name in sorted(found))


def top_module(design: Design) -> str:
    """The text of the top module."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    source, sink = design.input_stream, design.output_stream
    source_bits, sink_bits = port_bits(source), port_bits(sink)
    ranges = [f"[{source_bits - 1}:0]", f"[{sink_bits - 1}:0]"]
    wide = max(len(r) for r in ranges)
    graph = design.graph
    tensor_in, tensor_out = graph.input_node.tensor, graph.output_node.tensor
    return environment.get_template("top.v.j2").render(
        top=design.top,
        version=version_text(),
        ends={
            "shape_in": "x".join(map(str, tensor_in.shape)),
            "shape_out": "x".join(map(str, tensor_out.shape)),
            "format_in": tensor_in.format,
            "format_out": tensor_out.format,
        },
        latency=design.latency,
        interval=design.interval,
        source=source,
        sink=sink,
        source_bits=source_bits,
        sink_bits=sink_bits,
        source_range=ranges[0].ljust(wide),
        sink_range=ranges[1].ljust(wide),
        pad=" " * wide,
        count_bits=max(1, clog2(sink.beats)),
        weight_ports=[
            {"stream": stream, "bits": port_bits(stream), "words": memory.depth, "file": memory.file}
            for stream, memory in design.weight_streams
        ],
        table=_table(design),
        sections=list(_sections(design)),
    )


def port_bits(stream: Stream) -> int:
    """Width of ``tdata`` at a port: whole bytes."""
    return -(-stream.bits // 8) * 8


def version_text() -> str:
    """The version of QFX, for the head of a generated file."""
    try:
        return version("qfx")
    except PackageNotFoundError:
        return "from a source tree"


def _table(design: Design) -> list[str]:
    rows = [("node", "operator", "pe", "simd", "steps", "module")]
    for layer in design.layers:
        simd = "-" if layer.simd is None else str(layer.simd)
        rows.append((layer.node, layer.kind, str(layer.pe), simd, str(layer.steps), comment(layer.path)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines + [f"{node}: no hardware, {why}" for node, why in design.wires.items()]


def _sections(design: Design) -> Iterator[_Section]:
    for node, kernels in groupby(design.kernels, key=lambda kernel: kernel.node):
        instances = [_instance(design, kernel) for kernel in kernels]
        if not node:
            yield _Section("port buffer", [], instances)
            continue
        where = design.graph[node]
        tensor = where.tensor
        title = f"{node}: {where.op.kind}"
        shape = "x".join(map(str, tensor.shape))
        notes = [f'module "{comment(where.path)}"'] if where.path else []
        notes.append(f"{shape} codes of {tensor.format}, {tensor.low.min()} .. {tensor.high.max()}")
        layer = next((layer for layer in design.layers if layer.node == node), None)
        if layer is not None:
            simd = "" if layer.simd is None else f", simd {layer.simd}"
            notes.append(f"pe {layer.pe}{simd}, {layer.steps} steps per frame")
        yield _Section(title, notes, instances)


def remark(kernel: Kernel) -> str:
    """What an instance does, in a line."""
    n = kernel.number
    match kernel.module:
        case "qfx_fifo":
            return f"{n('DEPTH')} beats in {'block RAM' if n('STYLE') else 'LUT RAM'}"
        case "qfx_fork":
            return f"to {n('N')} consumers"
        case "qfx_upsize" | "qfx_downsize":
            return f"beats of {n('IN')} to beats of {n('OUT')} elements"
        case "qfx_window":
            size = f"{n('KERNEL_H')}x{n('KERNEL_W')} windows, {n('OUT_H')}x{n('OUT_W')} of them"
            return f"{size}, out of a buffer of {n('DEPTH')} beats"
        case "qfx_matvec" | "qfx_matvec_stream":
            of = f"{n('GROUPS')} matrices of " if n("GROUPS") > 1 else ""
            matrix = f"{of}{n('NF') * n('PE')}x{n('SF') * n('SIMD')}"
            steps = n("GROUPS") * n("NF") * n("SF")
            kinds = (
                "multipliers",
                "multipliers of look-up tables",
                "shifters",
                "minifloat multipliers",
                "XNOR",
                "multipliers of minifloats",
                "multipliers (look-up tables) of minifloats",
            )
            scaled = f", a scale for {_count(n('BLOCK') * n('HOLD'), 'weight')}" if n("BLOCK") else ""
            by = f"{n('PE')}x{n('SIMD')} {kinds[n('KIND')]}{scaled}"
            return f"{matrix} by {by} in {_count(steps, 'step')}"
        case "qfx_depthwise" | "qfx_pool":
            return f"{_count(n('K'), 'step')} per beat of {_count(n('P'), 'element')}"
        case "qfx_cast_stream":
            shift, by = n("SHIFT"), " after aligning each channel" if n("PER_CHANNEL") else ""
            what = f"drops {_count(shift, 'bit')}" if shift > 0 else f"appends {_count(-shift, 'bit')}"
            return f"{what}{by}, {ROUNDING[n('ROUNDING')]}, {OVERFLOW[n('OVERFLOW')]}"
        case "qfx_cast_minifloat":
            bits = _count(n("PRECISION"), "significant bit")
            return f"{bits}, {ROUNDING[n('ROUNDING')]}, on {_grid(n('SHIFT'))}"
        case "qfx_cast_khot":
            kind = "signed digit" if n("CSD") else "one"
            return f"the nearest number of at most {_count(n('K'), kind)}, on {_grid(n('SHIFT'))}"
        case "qfx_cast_block":
            return f"{_count(n('P'), 'element')} per beat, blocks of {n('SIZE')}, {ROUNDING[n('ROUNDING')]}"
        case "qfx_cast_binary":
            return f"the signs of {_count(n('P'), 'element')}"
        case "qfx_concat":
            return f"{n('BEATS0')} and {_count(n('BEATS1'), 'beat')} per pixel"
        case "qfx_table":
            return f"{_count(n('DEPTH'), 'entry')} for each of {_count(n('P'), 'element')}"
        case "qfx_piecewise":
            return f"{_count(n('SEGMENTS'), 'polynomial')} of degree {n('DEGREE')}"
        case "qfx_inverse_root":
            return f"x**(-1/{n('ROOT')}), {_count(n('SEGMENTS'), 'segment')}"
        case "qfx_slice":
            kept = n("A_COUNT") * n("B_COUNT") * n("C_COUNT")
            return f"{kept} of {_count(n('A') * n('B') * n('C'), 'beat')}"
        case "qfx_repeat":
            return f"blocks of {_count(n('BLOCK'), 'beat')}, {n('TIMES')} times; elements {n('SPREAD')} times"
        case "qfx_insert_zeros":
            return f"{n('IN_H')}x{n('IN_W')} pixels, {n('FACTOR_H')}x{n('FACTOR_W')} apart"
        case "qfx_reduce":
            what = "sum" if n("MODE") else "maximum"
            return f"{what} of {n('N') * n('SIMD')}, {n('P') * n('SIMD')} per step"
        case "qfx_constant":
            return f"frames of {_count(n('BEATS'), 'beat')}"
        case "qfx_gather":
            return f"{n('ROWS')} rows of {_count(n('BEATS'), 'beat')}"
        case "qfx_matmul":
            matrix = f"{n('SF') * n('SIMD')}x{n('NF') * n('PE')}"
            return f"{_count(n('ROWS'), 'row')} by a matrix of {matrix}, {n('PE')}x{n('SIMD')} multipliers"
        case "qfx_reorder":
            return f"frames of {n('LENGTH')} beats, through a double buffer"
    if kernel.files:
        return f"a matrix as adders, a beat in every cycle, latency {kernel.latency}"
    return f"{_count(n('P'), 'element')} per beat"


def _grid(shift: int) -> str:
    if shift == 0:
        return "the operand's grid"
    return f"a grid {_count(abs(shift), 'bit')} {'coarser' if shift > 0 else 'finer'}"


def _count(number: int, what: str) -> str:
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else many}"


def _instance(design: Design, kernel: Kernel) -> _Instance:
    outputs = [design.stream(name) for name in kernel.outputs]
    module = MODULES.get(kernel.module, GENERATED)
    given = [f".{name}({literal(kernel, name, kernel.parameters[name])})" for name in module.parameters]
    parameters = textwrap.wrap(", ".join(given), 100, break_long_words=False, break_on_hyphens=False)
    ports = [
        _group(prefix, design.stream(name)) for prefix, name in zip(module.inputs, kernel.inputs, strict=True)
    ]
    if kernel.module != "qfx_fork":
        (out,) = outputs
        declarations = _declare(out)
        return _Instance(
            remark(kernel),
            kernel.module,
            kernel.name,
            parameters,
            declarations,
            [*ports, _group("m_axis", out)],
        )
    shared = f"{kernel.name}_tdata"
    declarations = [f"wire [{outputs[0].bits - 1}:0] {shared};"]
    for out in outputs:
        declarations += [
            f"wire [{out.bits - 1}:0] {out.tdata} = {shared};",
            f"wire {out.tvalid};",
            f"wire {out.tready};",
        ]
    # Output i is bit i, so the last one stands first.
    valid = ", ".join(out.tvalid for out in reversed(outputs))
    ready = ", ".join(out.tready for out in reversed(outputs))
    ports += [f".m_axis_tdata({shared})", f".m_axis_tvalid({{{valid}}})", f".m_axis_tready({{{ready}}})"]
    return _Instance(remark(kernel), kernel.module, kernel.name, parameters, declarations, ports)


def _declare(stream: Stream) -> list[str]:
    return [f"wire [{stream.bits - 1}:0] {stream.tdata};", f"wire {stream.tvalid};", f"wire {stream.tready};"]


def _group(prefix: str, stream: Stream) -> str:
    wires = (("tdata", stream.tdata), ("tvalid", stream.tvalid), ("tready", stream.tready))
    return ", ".join(f".{prefix}_{suffix}({wire})" for suffix, wire in wires)


def literal(kernel: Kernel, name: str, value: Parameter) -> str:
    """A parameter as Verilog writes it."""
    if isinstance(value, str):
        assert re.fullmatch(r"[A-Za-z0-9_.]*", value), value
        return f'"{value}"'
    if name in _VECTORS:
        width = kernel.number(_VECTORS[name])
        return f"{width}'h{value & ((1 << width) - 1):x}"
    assert -(1 << 31) <= value < 1 << 31, (kernel.name, name, value)
    return str(value)
