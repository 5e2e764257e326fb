"""Commands that take a graph file: summary, hls, rtl, sim, verify, cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qfx.cli.console import Against, AsJson, print_json, print_table
from qfx.errors import QfxError

if TYPE_CHECKING:
    from qfx.graph import Graph

GraphFile = Annotated[Path, typer.Argument(metavar="FILE", help="Graph file, written by Graph.save().")]
BoardOption = Annotated[str | None, typer.Option("--board", help="Name out of `qfx boards`, or a TOML file.")]
Interval = Annotated[int | None, typer.Option("--interval", help="Cycles between frames to fold for.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to (default: build/NAME/…).")]
Data = Annotated[Path | None, typer.Option("--data", help="Samples, .npy (default: random ones).")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of random samples.")]
Io = Annotated[str, typer.Option("--io", help="parallel or stream.")]

IO = ("parallel", "stream")


def register(app: typer.Typer) -> None:
    for command in (summary, hls, rtl, sim, verify, cost):
        app.command()(command)


def summary(file: GraphFile, json: AsJson = False) -> None:
    """Print the nodes of a graph: shapes, formats, ranges, weights."""
    graph = _load(file)
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


def hls(
    file: GraphFile,
    board: BoardOption = None,
    out: Out = None,
    io: Io = "parallel",
    synthesize: Annotated[bool, typer.Option("--synthesize", help="Run the vendor's HLS tool.")] = False,
) -> None:
    """Write the HLS C++ project of a graph (through hls4ml)."""
    import qfx.hls

    if io not in IO:
        raise QfxError(f"--io {io}: not one of {', '.join(IO)}")
    graph = _load(file)
    out = out or _default_out(file, f"hls-{io}")
    project = qfx.hls.convert(graph, out, board=board or "generic", io=io)
    print(f"HLS project: {out}")
    if synthesize:
        _print_report(project.synthesize())


def rtl(
    file: GraphFile,
    board: BoardOption = None,
    interval: Interval = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Write the Verilog of a graph."""
    out = out or _default_out(file, "rtl")
    design = _generate(_load(file), out, board, interval)
    facts = _design_facts(design)
    if json:
        print_json(facts)
    else:
        print(f"Verilog: {out}: top {design.top}, {len(design.files)} files")
        print(f"latency {design.latency} cycles, one frame every {design.interval} cycles")


def sim(
    file: GraphFile,
    frames: Annotated[int, typer.Option("--frames", help="How many frames to send.")] = 16,
    data: Data = None,
    seed: Seed = 1,
    board: BoardOption = None,
    interval: Interval = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Simulate the Verilog of a graph and compare every output bit with the integer graph."""
    import numpy as np

    import qfx.sim
    from qfx.cli.samples import samples

    graph = _load(file)
    x = samples(graph, frames, seed, data)
    design = _generate(graph, out or _default_out(file, "sim"), board, interval)
    outputs, cycles = qfx.sim.run(design, x)
    expected = graph.run(x)
    wrong = int(np.count_nonzero((np.asarray(outputs) != expected).reshape(len(x), -1).any(axis=1)))
    result = {"frames": len(x), "mismatches": wrong, "cycles": _plain(cycles), **_design_facts(design)}
    if json:
        print_json(result)
    else:
        print_table(("", ""), [(key, str(value)) for key, value in result.items() if key != "files"])
    raise typer.Exit(1 if wrong else 0)


def verify(
    file: GraphFile,
    against: Against = "hls,rtl",
    frames: Annotated[int, typer.Option("--samples", help="How many samples.")] = 64,
    data: Data = None,
    seed: Seed = 1,
    json: AsJson = False,
) -> None:
    """Compare the implementations of a graph with its interpreter, bit for bit."""
    import qfx
    from qfx.cli.samples import samples

    graph = _load(file)
    report = qfx.verify(graph, samples(graph, frames, seed, data), against=tuple(against.split(",")))
    results = {name: _plain(result) for name, result in report.items()}
    if json:
        print_json(results)
    else:
        columns = ("samples", "mismatches", "first_difference")
        rows = [(name, *(result.get(column) for column in columns)) for name, result in results.items()]
        print_table(("implementation", "samples", "mismatches", "first difference"), rows)
    raise typer.Exit(1 if any(result["mismatches"] for result in results.values()) else 0)


def cost(
    file: GraphFile,
    board: BoardOption = None,
    interval: Interval = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Count what the Verilog of a graph costs: LUT, FF, CARRY, DSP, BRAM, for the whole and per layer."""
    import qfx.cost

    design = _generate(_load(file), out or _default_out(file, "cost"), board, interval)
    report = qfx.cost.measure(design)
    if json:
        print_json(_plain(report))
    else:
        _print_report(report)


def _load(file: Path) -> Graph:
    import qfx

    return qfx.load(file)


def _default_out(file: Path, what: str) -> Path:
    return Path("build") / file.stem / what


def _generate(graph: Graph, out: Path, board: str | None, interval: int | None) -> Any:
    import qfx.rtl

    if board is not None and interval is not None:
        raise QfxError("--board and --interval: give one: either decides the folding")
    if interval is not None:
        return qfx.rtl.generate(graph, out, interval=interval)
    return qfx.rtl.generate(graph, out, board=board or "generic")


def _design_facts(design: Any) -> dict[str, Any]:
    return {
        "top": design.top,
        "latency": design.latency,
        "interval": design.interval,
        "files": [str(path) for path in design.files],
    }


def _plain(value: Any) -> Any:
    """Dataclasses, paths and numpy numbers as plain data for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def _print_report(report: Any) -> None:
    print_table(("", ""), [(key, str(value)) for key, value in _plain(report).items()])
