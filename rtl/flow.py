"""Scripts that take a design through the tool chain of its board, out of context: the accelerator alone."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from qfx.boards import Board
from qfx.errors import QfxError
from qfx.rtl.design import Design
from qfx.rtl.emit import TEMPLATES

_ECP5 = re.compile(
    r"LFE5UM?5?G?-(?P<size>12|25|45|85)F-(?P<speed>[678])(?P<package>BG|MG)(?P<balls>\d+)[CI]?"
)
_PACKAGES = {"BG": "CABGA", "MG": "CSFBGA"}


def scripts(design: Design, board: Board) -> dict[str, str]:
    """The scripts for a board, by file name.

    Raises:
        QfxError: the board's part is not one that its tool chain knows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    facts: dict[str, object] = {
        "board": board,
        "top": design.top,
        "verilog": design.verilog,
        "memories": [memory.file for memory in design.memories],
    }
    if board.flow == "vivado":
        names = ["vivado.tcl", "clock.xdc"]
    else:
        part = _ECP5.fullmatch(board.part)
        if part is None:
            raise QfxError(
                f"board {board.name}: part {board.part!r} is not an ECP5 that nextpnr knows, "
                "such as LFE5U-85F-6BG381C"
            )
        facts |= {
            "size": part["size"],
            "speed": part["speed"],
            "package": f"{_PACKAGES[part['package']]}{part['balls']}",
        }
        names = ["ecp5.sh"]
    return {name: environment.get_template(f"{name}.j2").render(**facts) for name in names}


def write(design: Design, board: Board, folder: Path) -> None:
    """Write the scripts for a board."""
    for name, text in scripts(design, board).items():
        path = folder / name
        path.write_text(text, encoding="ascii")
        if name.endswith(".sh"):
            path.chmod(0o755)
