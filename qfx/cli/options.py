"""What commands on a graph file have in common: their options, reading the graph, writing the Verilog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from qfx.graph import Graph

GraphFile = Annotated[Path, typer.Argument(metavar="FILE", help="Graph file, or QONNX (.onnx).")]
BoardOption = Annotated[str | None, typer.Option("--board", help="Name out of `qfx boards`, or a TOML file.")]
Interval = Annotated[int | None, typer.Option("--interval", help="Cycles between frames to fold for.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to (default: build/NAME/…).")]
Data = Annotated[Path | None, typer.Option("--data", help="Samples, .npy (default: random ones).")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of random samples.")]
Against = Annotated[str, typer.Option("--against", help="Any of torch, hls, rtl; commas between.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def load(file: Path) -> Graph:
    """The graph in a file: its own format, or QONNX by the ending ``.onnx``."""
    import qfx

    return qfx.from_qonnx(file) if file.suffix.lower() == ".onnx" else qfx.load(file)


def default_out(file: Path, what: str) -> Path:
    """Where results of a graph file go when the user names no folder."""
    return Path("build") / file.stem / what


def generate(graph: Graph, out: Path, board: str | None, interval: int | None, **more: Any) -> Any:
    """The Verilog design of a graph: cheapest for an interval, fastest for a board, or a moderate one.

    ``more``: further arguments of :func:`qfx.rtl.generate`; those that are None are left out.
    """
    import qfx.rtl

    given = {name: value for name, value in more.items() if value is not None}
    return qfx.rtl.generate(graph, out, board=board, interval=interval, **given)


def names(text: str) -> tuple[str, ...]:
    """The words of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
