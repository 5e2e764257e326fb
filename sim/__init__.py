"""Simulation of generated hardware with cocotb on Verilator: `run`, the testbenches, and the fuzzer.

Names are looked up on first use: this package is also imported inside the simulator, which starts for every
run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qfx.sim.axi_check import check_axi
    from qfx.sim.simulation import SimResult, Stalls, StreamTrace, run
    from qfx.sim.verilator import SimulationError

_PUBLIC = {
    "run": "qfx.sim.simulation",
    "Stalls": "qfx.sim.simulation",
    "SimResult": "qfx.sim.simulation",
    "StreamTrace": "qfx.sim.simulation",
    "SimulationError": "qfx.sim.verilator",
    "check_axi": "qfx.sim.axi_check",
}

__all__ = ["SimResult", "SimulationError", "Stalls", "StreamTrace", "check_axi", "run"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'qfx.sim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
