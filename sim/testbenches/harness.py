"""The cocotb side of the harness (qfx/sim/harness.py): clock, reset, and waiting for the end.

Environment: `QFX_RESET_AFTER`, cycles after which a second reset of a few cycles comes; absent or empty, no
such reset."""

import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

PERIOD_NS = 10


@cocotb.test()
async def run_frames(dut: Any) -> None:
    """Run until every frame came out, or nothing moves any more."""
    dut.aresetn.value = 0
    Clock(dut.aclk, PERIOD_NS, "ns").start()
    await _reset(dut)
    again = os.environ.get("QFX_RESET_AFTER")
    if again:
        await Timer(int(again) * PERIOD_NS, "ns")
        await _reset(dut)
    if not dut.done.value:
        await RisingEdge(dut.done)
    if dut.hung.value:
        raise AssertionError("the design hangs:\n" + Path("stalled.log").read_text())


async def _reset(dut: Any) -> None:
    await FallingEdge(dut.aclk)
    dut.aresetn.value = 0
    for _ in range(4):
        await FallingEdge(dut.aclk)
    dut.aresetn.value = 1
