"""The cocotb side of the qfx_cast sweeps: every stimulus, every instance."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import Timer
from kernel_cast import differences, expected, stimuli, sweep


@cocotb.test()
async def all_codes(dut: Any) -> None:
    """Each word goes to every instance at once."""
    points = sweep(os.environ["QFX_SWEEP"])
    for word in stimuli(points):
        dut.x.value = word
        await Timer(1, "ns")
        observed = int(dut.y.value)
        if observed != expected(points, word):
            raise AssertionError("; ".join(differences(points, word, observed)[:5]))
