"""From a graph to a parallel design: blocks in time, modules, text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jinja2

from qfx.graph import Graph
from qfx.graph import ops as op
from qfx.rtl.design import Design, Kernel, Layer, Stream
from qfx.rtl.emit import TEMPLATES, comment, port_bits, version_text
from qfx.rtl.parallel.emit import block_module
from qfx.rtl.parallel.estimate import lut
from qfx.rtl.parallel.lower import Block, lower
from qfx.rtl.parallel.schedule import Schedule, schedule

#: Levels of logic between registers, unless the caller says otherwise.
LEVELS = 3


@dataclass(frozen=True, eq=False)
class Parallel:
    """A parallel design and its text.

    Attributes:
        design: plain data, without a folder.
        texts: Verilog by file name.
    """

    design: Design
    texts: Mapping[str, str]


def build(graph: Graph, top: str, levels: int) -> Parallel:
    """The parallel design of a graph.

    Raises:
        QfxError: an operator that this architecture does not have, or a layer too large to unroll.
    """
    return assemble(graph, lower(graph), top, levels, block_module)


def assemble(
    graph: Graph,
    blocks: Sequence[Block],
    top: str,
    levels: int,
    module: Callable[[str, Block, Schedule, Graph], str],
) -> Parallel:
    """The design of blocks; ``module`` writes the text of one."""
    plans = [schedule(block, levels) for block in blocks]
    times = _times(graph, blocks, plans)
    latency = max(1, times[graph.output])
    streams = [_stream(graph, graph.input_node.name)]
    kernels = []
    for block in blocks:
        streams += [_stream(graph, name) for name in block.outputs]
        kernels.append(
            Kernel(
                f"{block.node}_block",
                f"{top}_{block.node}",
                {},
                tuple(block.inputs),
                tuple(block.outputs),
                block.node,
            )
        )
    registers = sum(plan.register_bits(block) for block, plan in zip(blocks, plans, strict=True))
    delays = _delays(graph, blocks, plans, times, latency)
    registers += sum(count * _stream(graph, name).bits for name, count in delays.items()) + latency
    design = Design(
        graph=graph,
        top=top,
        kernels=tuple(kernels),
        streams=tuple(streams),
        layers=tuple(_layer(graph, name) for block in blocks for name in block.nodes),
        input_name=graph.input_node.name,
        output_name=graph.output,
        target=1,
        latency=latency,
        interval=1,
        verilog=(f"{top}.v", *(f"{kernel.module}.v" for kernel in kernels)),
        estimate={"lut": round(sum(map(lut, blocks))), "ff": registers, "dsp": 0, "bram18": 0},
        architecture="parallel",
    )
    texts = {f"{top}.v": _top(design, blocks, plans, times, levels)}
    for block, plan, kernel in zip(blocks, plans, kernels, strict=True):
        texts[f"{kernel.module}.v"] = module(kernel.module, block, plan, graph)
    return Parallel(design, texts)


def _times(graph: Graph, blocks: Sequence[Block], plans: Sequence[Schedule]) -> dict[str, int]:
    """Per tensor between blocks, the cycles after the input in which it is there."""
    times = {graph.input_node.name: 0}
    for block, plan in zip(blocks, plans, strict=True):
        start = max(times[name] for name in block.inputs)
        times |= dict.fromkeys(block.outputs, start + plan.stages)
    return times


def _delays(
    graph: Graph,
    blocks: Sequence[Block],
    plans: Sequence[Schedule],
    times: Mapping[str, int],
    latency: int,
) -> dict[str, int]:
    """Registers behind each tensor until its last reader."""
    delays = {graph.output: latency - times[graph.output]}
    for block in blocks:
        start = max(times[name] for name in block.inputs)
        for name in block.inputs:
            delays[name] = max(delays.get(name, 0), start - times[name])
    return delays


def _stream(graph: Graph, name: str) -> Stream:
    tensor = graph[name].tensor
    return Stream(name, tensor.format.width, tensor.format.signed, tensor.size, 1, name)


def _layer(graph: Graph, name: str) -> Layer:
    node = graph[name]
    weighted = isinstance(node.op, op.Linear | op.Conv)
    inputs = int(node.op.weight[0].size) if isinstance(node.op, op.Linear | op.Conv) else 1
    return Layer(name, node.path, node.op.kind, node.tensor.size, inputs if weighted else None, 1)


def _top(
    design: Design,
    blocks: Sequence[Block],
    plans: Sequence[Schedule],
    times: Mapping[str, int],
    levels: int,
) -> str:
    graph, source, sink = design.graph, design.input_stream, design.output_stream
    delayed = dict.fromkeys(times, 0)

    def at(name: str, time: int) -> tuple[str, list[str]]:
        """The wire of a tensor at a time, and the registers that are still missing on its way."""
        lines, stream = [], design.stream(name)
        wire = stream.tdata
        for count in range(1, time - times[name] + 1):
            before, wire = wire, f"{stream.tdata}_d{count}"
            if count > delayed[name]:
                delayed[name] = count
                lines.append(f"reg [{stream.bits - 1}:0] {wire};")
                lines.append(f"always @(posedge aclk) if (en) {wire} <= {before};")
        return wire, lines

    sections = []
    for block, plan, kernel in zip(blocks, plans, design.kernels, strict=True):
        start = max(times[name] for name in block.inputs)
        end = start + plan.stages
        ports, delays = [".clk(aclk)", ".en(en)"] if plan.stages else [], []
        for name in block.inputs:
            wire, lines = at(name, start)
            delays += lines
            ports.append(f".{name}({wire})")
        ports += [f".{name}({design.stream(name).tdata})" for name in block.outputs]
        sections.append(
            {
                "title": ", ".join(comment(graph[name].path or name) for name in block.nodes[:1])
                + (f" and {len(block.nodes) - 1} more" if len(block.nodes) > 1 else ""),
                "start": start,
                "end": end,
                "delays": delays,
                "streams": [design.stream(name) for name in block.outputs],
                "valid": f"valid[{end}]" if end else "s_axis_tvalid",
                "module": kernel.module,
                "name": kernel.name,
                "ports": ports,
            }
        )
    sink_wire, sink_delays = at(graph.output, design.latency)
    source_bits, sink_bits = port_bits(source), port_bits(sink)
    ranges = [f"[{source_bits - 1}:0]", f"[{sink_bits - 1}:0]"]
    wide = max(len(r) for r in ranges)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    tensor_in, tensor_out = graph.input_node.tensor, graph.output_node.tensor
    return environment.get_template("parallel.v.j2").render(
        top=design.top,
        version=version_text(),
        levels=levels,
        latency=design.latency,
        ends={
            "shape_in": "x".join(map(str, tensor_in.shape)),
            "shape_out": "x".join(map(str, tensor_out.shape)),
            "format_in": tensor_in.format,
            "format_out": tensor_out.format,
        },
        source=source,
        sink=sink,
        source_bits=source_bits,
        sink_bits=sink_bits,
        source_range=ranges[0].ljust(wide),
        sink_range=ranges[1].ljust(wide),
        pad=" " * wide,
        sections=sections,
        sink_wire=sink_wire,
        sink_delays=sink_delays,
        watched=design.streams,
    )
