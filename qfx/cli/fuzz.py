"""`qfx fuzz`: random networks, every implementation against the integer graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qfx.cli.console import print_json
from qfx.cli.options import Against, AsJson, names
from qfx.errors import QfxError

Out = Annotated[Path, typer.Option("--out", help="Folder for failing cases.")]


def register(app: typer.Typer) -> None:
    app.command()(fuzz)


def fuzz(
    networks: Annotated[int, typer.Option("--networks", min=1, help="How many networks to draw.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed; equal seeds draw equal networks.")] = 1,
    against: Against = "torch,hls,rtl",
    rtl: Annotated[bool, typer.Option("--rtl", help="The Verilog alone: --against rtl.")] = False,
    architecture: Annotated[
        str, typer.Option("--architecture", help="Of the Verilog: stream, parallel, both; mixed; all.")
    ] = "both",
    replay: Annotated[Path | None, typer.Option("--replay", help="Run a saved failing case again.")] = None,
    formats: Annotated[str, typer.Option("--formats", help="all, or fixed: fixed point only.")] = "all",
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            help="hardware (or all): every operator; basic: those of both architectures; auto: both kinds.",
        ),
    ] = "auto",
    out: Out = Path("build/fuzz"),
    json: AsJson = False,
) -> None:
    """Verify random networks; failing cases are shrunk and saved. Exit status 1 after any failure."""
    import qfx.sim.fuzz

    chosen = ("rtl",) if rtl else names(against)
    known = qfx.sim.fuzz.ARCHITECTURES
    sets = {**{name: (name,) for name in known}, "both": ("stream", "parallel"), "all": known}
    if architecture not in sets:
        raise QfxError(f"--architecture {architecture!r}: supported are {', '.join(sets)}")
    architectures = sets[architecture]
    every = {"all": True, "fixed": False}
    if formats not in every:
        raise QfxError(f"--formats {formats!r}: supported are {', '.join(every)}")
    every_layer = {"auto": None, "all": True, "hardware": True, "basic": False}
    if layers not in every_layer:
        raise QfxError(f"--layers {layers!r}: supported are {', '.join(every_layer)}")
    if replay is not None:
        # A saved case has the designs that failed, whichever they are.
        built = known if architecture == "both" else architectures
        report = qfx.sim.fuzz.replay(replay, against=chosen, architectures=built)
    else:
        report = qfx.sim.fuzz.run(
            networks,
            seed,
            against=chosen,
            every_format=every[formats],
            every_layer=every_layer[layers],
            architectures=architectures,
            out_dir=out,
        )
    if json:
        print_json(report)
        raise typer.Exit(1 if report["mismatches"] else 0)
    print(", ".join(f"{report[key]} {key}" for key in ("networks", "refused", "mismatches")))
    for name, count in report["equal"].items():
        print(f"  {name}: {count} networks equal")
    for reason, times in report["refusals"].items():
        print(f"  refused {times}x: {reason}")
    for failure in report["failures"]:
        print(f"  network {failure['network']}: {failure.get('file', 'not saved')}")
        for name, what in failure["found"].items():
            print(f"    {name}: {what}")
    raise typer.Exit(1 if report["mismatches"] else 0)
