"""Commands about this machine and this installation: doctor, boards, version."""

from __future__ import annotations

import dataclasses

import typer

from qfx.cli.console import print_json, print_table
from qfx.cli.options import AsJson


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    app.command()(boards)
    app.command()(version)


def doctor(json: AsJson = False) -> None:
    """Check that everything QFX needs is there; exit status 1 when something required is missing."""
    from rich.text import Text

    from qfx import doctor as checks

    found = checks.check()
    missing = checks.failures(found)
    if json:
        print_json({"ok": not missing, "checks": [dataclasses.asdict(check) for check in found]})
    else:
        here, gone, extra = Text("ok", "green"), Text("missing", "bold red"), Text("optional", "yellow")
        rows = []
        for check in found:
            mark = here if check.ok else gone if check.required else extra
            rows.append((mark, check.name, check.found, check.purpose))
        print_table(("", "what", "found", "for"), rows)
        for check in found:
            if not check.ok:
                print(f"{check.name} ({'required' if check.required else 'optional'}): {check.fix}")
        print(f"{len(missing)} required thing(s) missing" if missing else "Everything required is here.")
    raise typer.Exit(1 if missing else 0)


def boards(json: AsJson = False) -> None:
    """List the boards: part, clock, resources, and the tool chain that builds a bitstream."""
    from qfx import boards as known

    all_boards = [known.get(name) for name in known.names()]
    if json:
        print_json([dataclasses.asdict(board) for board in all_boards])
        return
    rows = [
        (
            *(board.name, board.part, board.clock_mhz),
            *(board.resources.lut, board.resources.ff, board.resources.dsp),
            *(board.resources.bram18, board.resources.uram, board.flow, board.hls_backend),
        )
        for board in all_boards
    ]
    print_table(("board", "part", "MHz", "LUT", "FF", "DSP", "BRAM 18k", "URAM", "flow", "HLS"), rows)


def version(json: AsJson = False) -> None:
    """Print the versions of QFX and of what it calculates, simulates and measures with."""
    from qfx.environment import versions

    found = versions()
    if json:
        print_json(found)
    else:
        for name, number in found.items():
            print(name, number)
