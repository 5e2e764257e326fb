"""`qfx demo` and `qfx report`: one network from training to verified hardware, and the page about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Option("--data", help="digits, fashion-mnist, or a folder of idx files.")]
Board = Annotated[str, typer.Option("--board", help="Name out of `qfx boards`, or a TOML file.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Results = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where `qfx demo` left build.json.")]

DEFAULT = Path("build/demo")


def register(app: typer.Typer) -> None:
    for command in (demo, report):
        app.command()(command)


def demo(data: Source = "digits", board: Board = "ultra96v2", out: Folder = DEFAULT) -> None:
    """Train a small network, convert it, verify every implementation bit for bit, and measure its cost."""
    import qfx.demo

    qfx.demo.run(data, out, board=board)


def report(folder: Results = DEFAULT) -> None:
    """Write report.html again from the results that a demo left."""
    import qfx.report

    page = folder / "report.html"
    qfx.report.write(qfx.report.from_json(folder / "build.json"), page)
    print(f"report: {page}")
