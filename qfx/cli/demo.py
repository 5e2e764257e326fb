"""`qfx demo`: one network from training to verified hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Option("--data", help="digits, fashion-mnist, or a folder of idx files.")]
Board = Annotated[str, typer.Option("--board", help="Name out of `qfx boards`, or a TOML file.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]

DEFAULT = Path("build/demo")


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(data: Source = "digits", board: Board = "ultra96v2", out: Folder = DEFAULT) -> None:
    """Train a small network, convert it, verify every implementation bit for bit, and measure its cost."""
    import qfx.demo

    qfx.demo.run(data, out, board=board)
