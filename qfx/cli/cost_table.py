"""`qfx cost-table`: measure the kernels that the estimator is fitted to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from qfx.cli.options import names
from qfx.errors import QfxError

Networks = Annotated[int, typer.Option("--networks", help="Random networks whose kernels are measured.")]
Wholes = Annotated[int, typer.Option("--wholes", help="Other random networks, measured as a whole.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the networks.")]
Families = Annotated[
    str, typer.Option("--families", help="Any of integer, minifloat, khot, mx, int8, functions.")
]
Jobs = Annotated[int, typer.Option("--jobs", help="Syntheses at a time (default: all cores).")]
Out = Annotated[Path, typer.Option("--out", help="The table to write.")]
Check = Annotated[
    bool, typer.Option("--check", help="Only say which kernels of the shipped table have changed.")
]


def register(app: typer.Typer) -> None:
    app.command("cost-table")(cost_table)


def cost_table(
    networks: Networks = 24,
    wholes: Wholes = 60,
    seed: Seed = 1,
    families: Families = "integer,minifloat,khot,mx,int8,functions",
    jobs: Jobs = 0,
    out: Out = Path("table.json"),
    check: Check = False,
) -> None:
    """Measure the cost table anew with Yosys. Interrupted, it goes on where it was.

    With --check, exit status 1 when the Verilog of a measured kernel is another one now.
    """
    from qfx.cost import table
    from qfx.cost.designs import FAMILIES

    if check:
        stale = table.shipped().stale()
        print(f"changed since they were measured: {', '.join(stale)}" if stale else "the table is up to date")
        raise typer.Exit(1 if stale else 0)
    chosen = names(families)
    for family in chosen:
        if family not in FAMILIES:
            raise QfxError(f"family {family!r} is unknown; use {', '.join(FAMILIES)}")
    made = table.build(
        networks, wholes, seed=seed, families=chosen, jobs=jobs or os.cpu_count() or 1, note=print
    )
    made.save(out)
    print(f"{len(made.rows)} kernels, {len(made.wholes)} designs: {out}")
