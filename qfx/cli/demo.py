"""`qfx demo` and `qfx report`: one network from training to verified hardware, and the page about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Option("--data", help="digits, fashion-mnist, or a path to its files.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(data: Source = "digits", out: Folder = Path("build/demo")) -> None:
    """Train a small network, convert it, verify every implementation bit for bit, and measure its cost."""
    import qfx.demo

    qfx.demo.run(data, out)
