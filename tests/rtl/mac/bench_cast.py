"""cocotb: numbers through the combinational qfx_minifloat_cast; JSON with `x`, `special` "
"and `code` in `QFX_CAST_CASE`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer


@cocotb.test()
async def equals_the_format(dut: Any) -> None:
    case = json.loads(Path(os.environ["QFX_CAST_CASE"]).read_text())
    wrong = []
    for x, special, code in zip(case["x"], case["special"], case["code"], strict=True):
        dut.x.value = x
        dut.special.value = special
        await Timer(1, "ns")
        got = int(dut.code.value)
        if got != code:
            wrong.append((x, special, got, code))
    assert not wrong, (
        f"{len(wrong)} of {len(case['x'])} codes differ; the first (x, special, got, expected): {wrong[0]}"
    )
