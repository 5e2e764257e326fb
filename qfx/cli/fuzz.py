"""`qfx fuzz`: random networks, every implementation against the integer graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qfx.cli.console import print_json
from qfx.cli.options import Against, AsJson, names


def register(app: typer.Typer) -> None:
    app.command()(fuzz)


def fuzz(
    networks: Annotated[int, typer.Option("--networks", min=1, help="How many networks to draw.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed; equal seeds draw equal networks.")] = 1,
    against: Against = "torch,hls,rtl",
    replay: Annotated[Path | None, typer.Option("--replay", help="Run a saved failing case again.")] = None,
    json: AsJson = False,
) -> None:
    """Verify random networks; failing cases are shrunk and saved. Exit status 1 after any failure."""
    import qfx.sim.fuzz

    chosen = names(against)
    if replay is not None:
        report = qfx.sim.fuzz.replay(replay, against=chosen)
    else:
        report = qfx.sim.fuzz.run(networks, seed, against=chosen)
    if json:
        print_json({key: report[key] for key in ("networks", "refused", "mismatches", "failures")})
    else:
        print(", ".join(f"{report[key]} {key}" for key in ("networks", "refused", "mismatches")))
        for failure in report["failures"]:
            print(f"  {failure}")
    raise typer.Exit(1 if report["mismatches"] or report["failures"] else 0)
