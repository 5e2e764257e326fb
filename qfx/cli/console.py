"""Printing: tables and messages for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""


def print_error(message: str) -> None:
    """One message in red on standard error (plain when that is not a terminal)."""
    from rich.console import Console
    from rich.text import Text

    # Text, not markup: a message may quote a model's names, and [brackets] in them are not styles.
    text = Text.assemble(("error: ", "bold red"), (message, "red"))
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def print_json(data: Any) -> None:
    """JSON on standard output; NaN does not exist in JSON and is refused."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table; numbers stand right-aligned, thousands apart."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else _text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)


def _text(cell: object) -> str:
    from rich.markup import escape

    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return escape(f"{cell:.6g}" if isinstance(cell, float) else str(cell))
