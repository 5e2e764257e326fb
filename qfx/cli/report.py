"""`qfx report`: the page of a build, of a sweep, or of a graph file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qfx.cli.options import BoardOption, Data, Interval, Out, Seed, default_out, generate, load
from qfx.errors import QfxError

if TYPE_CHECKING:
    from qfx.report import Build

Source = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="Folder of `qfx demo` or `qfx sweep`, or a graph file."),
]
Figure = Annotated[Path | None, typer.Option("--figure", help="Also draw a sweep's front: PNG, SVG or PDF.")]
Across = Annotated[str, typer.Option("--x", help="Metric across the figure.")]
Up = Annotated[str, typer.Option("--y", help="Metric up the figure.")]
Log = Annotated[bool, typer.Option("--log", help="Logarithmic axis across.")]
Frames = Annotated[int, typer.Option("--frames", help="Samples to simulate for the report of a graph file.")]

DEFAULT = Path("build/demo")


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    source: Source = DEFAULT,
    figure: Figure = None,
    x: Across = "lut",
    y: Up = "accuracy",
    log: Log = False,
    out: Out = None,
    board: BoardOption = None,
    interval: Interval = None,
    frames: Frames = 8,
    data: Data = None,
    seed: Seed = 1,
) -> None:
    """Write report.html: of a build (build.json), of a sweep (sweep.json), or of a graph file.

    For a graph file the Verilog is generated, simulated against the integer graph and synthesised first.
    """
    import qfx.report
    from qfx.sweep import Results

    file = _file(source)
    if file.name == "sweep.json":
        results = Results.load(file)
        page = (out or file.parent) / "report.html"
        qfx.report.write_sweep(results, page)
        if figure is not None:
            qfx.report.figure(results, figure, x=x, y=y, log=log)
            print(f"figure: {figure}")
    elif file.suffix == ".json":
        page = (out or file.parent) / "report.html"
        qfx.report.write(qfx.report.from_json(file), page)
    else:
        folder = out or default_out(file, "report")
        page = folder / "report.html"
        build = of_graph(file, folder, board, interval, frames, data, seed)
        build.save(folder / "build.json")
        qfx.report.write(build, page)
    print(f"report: {page}")


def of_graph(
    file: Path, out: Path, board: str | None, interval: int | None, frames: int, data: Path | None, seed: int
) -> Build:
    """What can be said of a graph alone: layers, cycles predicted and simulated, bits compared, resources."""
    import datetime
    import shlex

    import qfx
    from qfx import boards
    from qfx import report as pages
    from qfx.cli.samples import samples
    from qfx.environment import machine, versions

    graph = load(file)
    x = samples(graph, frames, seed, data)
    design = generate(graph, out / "rtl", board, interval)
    ran = qfx.sim.run(design, x)
    wrong = (ran.codes != graph.run_codes(x)).reshape(len(x), -1).any(axis=1)
    cost = qfx.cost.measure(design, per_layer=True)
    target = boards.get(board) if board else None
    words: list[Any] = ["qfx", "report", file]
    words += ["--board", board] if board else []
    words += ["--interval", interval] if interval else []
    return pages.Build(
        title=f"{file.name}: integer graph of {len(graph.nodes)} nodes",
        command=" ".join(shlex.quote(str(word)) for word in words),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        board=None if target is None else _board(target),
        verify=(pages.Verification("rtl", len(x), int(wrong.sum()), "cocotb on Verilator, every output"),),
        cycles=pages.Cycles(design.interval, ran.interval, design.latency, ran.latency),
        resources=pages.collect_resources(cost),
        layers=pages.collect_layers(graph, design, cost),
        versions=versions(),
        machine=machine(),
        files={"integer graph": str(file), "Verilog": "rtl/"},
    )


def _board(target: Any) -> Any:
    from qfx.report import Board

    have = target.resources
    return Board(
        name=target.name, clock_mhz=target.clock_mhz, title=target.title, part=target.part, lut=have.lut,
        ff=have.ff, dsp=have.dsp, bram=have.bram * have.bram_kbit / 36,
    )  # fmt: skip


def _file(source: Path) -> Path:
    """The file that a folder is about."""
    if source.is_file():
        return source
    for name in ("sweep.json", "build.json"):
        if (source / name).is_file():
            return source / name
    raise QfxError(
        f"{source}: no build.json or sweep.json in it; give a folder of `qfx demo` or `qfx sweep`, or a "
        f"graph file"
    )
