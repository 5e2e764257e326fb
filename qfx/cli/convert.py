"""Commands that show a graph or turn it into another file or sources: summary, convert, hls, rtl."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from qfx.cli.console import print_json, print_table
from qfx.cli.options import AsJson, BoardOption, GraphFile, Interval, Out, default_out, generate, load
from qfx.cli.plain import plain
from qfx.errors import QfxError

IO = ("parallel", "stream")


def register(app: typer.Typer) -> None:
    for command in (summary, convert, hls, rtl):
        app.command()(command)


def summary(file: GraphFile, json: AsJson = False) -> None:
    """Print the nodes of a graph: shapes, formats, ranges, weights."""
    graph = load(file)
    if not json:
        print(graph.summary())
        return
    nodes = []
    for node in graph.nodes:
        tensor = node.tensor
        nodes.append(
            {
                "name": node.name,
                "op": node.op.kind,
                "path": node.path,
                "inputs": list(node.inputs),
                "shape": list(tensor.shape),
                "width": tensor.format.width,
                "signed": tensor.format.signed,
                "frac": list(tensor.fracs) if tensor.format.per_channel else tensor.format.frac,
                "low": int(tensor.low.min()),
                "high": int(tensor.high.max()),
            }
        )
    print_json({"nodes": nodes, "output": graph.output})


def convert(
    file: GraphFile,
    out: Annotated[Path, typer.Option("--out", help="File to write: .onnx for QONNX, else a graph file.")],
    batch: Annotated[int, typer.Option("--batch", help="QONNX: samples per run.", min=1)] = 1,
    allow_inexact: Annotated[
        bool, typer.Option("--allow-inexact", help="QONNX: also where float32 rounds sums of over 24 bits.")
    ] = False,
) -> None:
    """Turn a QONNX file into a graph file, or a graph file into QONNX."""
    import qfx

    graph = load(file)
    if out.suffix.lower() == ".onnx":
        qfx.to_qonnx(graph, out, batch=batch, allow_inexact=allow_inexact)
    else:
        graph.save(out)
    print(f"{out}: {len(graph.nodes)} operators")


def hls(
    file: GraphFile,
    board: BoardOption = None,
    out: Out = None,
    io: Annotated[str, typer.Option("--io", help="parallel or stream.")] = "parallel",
    synthesize: Annotated[bool, typer.Option("--synthesize", help="Run the vendor's HLS tool.")] = False,
) -> None:
    """Write the HLS C++ project of a graph (through hls4ml)."""
    import qfx.hls

    if io not in IO:
        raise QfxError(f"--io {io}: not one of {', '.join(IO)}")
    graph = load(file)
    out = out or default_out(file, f"hls-{io}")
    project = qfx.hls.convert(graph, out, board=board or "generic", io=io)
    print(f"HLS project: {out}")
    if synthesize:
        print_table(("", ""), list(plain(project.synthesize()).items()))


def rtl(
    file: GraphFile,
    board: BoardOption = None,
    interval: Interval = None,
    frames_per_second: Annotated[
        float | None, typer.Option("--frames-per-second", help="To fold for, at the clock of the board.")
    ] = None,
    architecture: Annotated[
        str, typer.Option("--architecture", help="stream, parallel, or mixed.")
    ] = "stream",
    out: Out = None,
    synthesize: Annotated[
        bool, typer.Option("--synthesize", help="Run the tools of the board up to routing.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write the Verilog of a graph."""
    out = out or default_out(file, "rtl")
    design = generate(
        load(file), out, board, interval, frames_per_second=frames_per_second, architecture=architecture
    )
    measured: dict[str, Any] = {}
    if synthesize:
        found = design.synthesize(board)
        measured = {**asdict(found), "fmax_mhz": round(found.fmax_mhz, 1), "meets_timing": found.meets_timing}
    if json:
        facts = {"top": design.top, "latency": design.latency, "interval": design.interval}
        files = [str(path) for path in design.files]
        print_json({**facts, "files": files, **({"synthesis": measured} if synthesize else {})})
    else:
        print(design.summary())
        print(f"Verilog: {out}: top module {design.top}, {len(design.files)} files")
        if synthesize:
            print_table(("", ""), list(measured.items()))
