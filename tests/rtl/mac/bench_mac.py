"""cocotb: beats through a multiply-accumulate kernel, at full speed or with random stalls on both sides.

The work is in the file that `QFX_MAC_CASE` names: JSON with `data`, `last` (one entry per beat), `tdata` and
`tuser` (one per expected result), `latency`, `stalls` (0..1, how often either side pauses), `seed`, and
`reset_after` (beats taken before a reset in the middle of everything, after which the whole sequence is sent
again).
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge


async def reset(dut: Any) -> None:
    dut.rst.value = 1
    dut.s_axis_tvalid.value = 0
    dut.m_axis_tready.value = 0
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


async def send(
    dut: Any, case: dict[str, Any], beats: int, rng: random.Random
) -> tuple[list[Any], list[int], list[int]]:
    """Send the first `beats` beats; returns results, the cycles of taken `last` beats, and "
    "the cycles of results."""
    data, last = case["data"], case["last"]
    expected = sum(last[:beats])
    has_user = hasattr(dut, "m_axis_tuser")
    results: list[Any] = []
    taken_at: list[int] = []
    result_at: list[int] = []
    index, cycle, offered, ready = 0, 0, False, False
    held: tuple[int, int] | None = None
    limit = 20 * len(data) + 1000
    while index < beats or len(results) < expected:
        await RisingEdge(dut.clk)
        # Before this edge's updates: the values that the edge saw.
        if offered and dut.s_axis_tready.value == 1:
            if last[index]:
                taken_at.append(cycle)
            index += 1
            offered = False
        if dut.m_axis_tvalid.value == 1:
            beat = (int(dut.m_axis_tdata.value), int(dut.m_axis_tuser.value) if has_user else 0)
            assert held is None or beat == held, "m_axis changed while it waited"
            held = None if ready else beat
            if ready:
                results.append(beat)
                result_at.append(cycle)
        else:
            assert held is None, "m_axis_tvalid fell before m_axis_tready"
        if not offered and index < beats and rng.random() >= case["stalls"]:
            dut.s_axis_tvalid.value = 1
            dut.s_axis_tdata.value = data[index]
            dut.s_axis_tlast.value = last[index]
            offered = True
        elif not offered:
            dut.s_axis_tvalid.value = 0
            dut.s_axis_tdata.value = rng.getrandbits(len(dut.s_axis_tdata))
            dut.s_axis_tlast.value = rng.getrandbits(1)
        ready = rng.random() >= case["stalls"]
        dut.m_axis_tready.value = int(ready)
        cycle += 1
        assert cycle < limit, f"{len(results)} of {expected} results after {cycle} cycles"
    return results, taken_at, result_at


@cocotb.test()
async def equals_the_formats(dut: Any) -> None:
    case = json.loads(Path(os.environ["QFX_MAC_CASE"]).read_text())
    rng = random.Random(case["seed"])
    Clock(dut.clk, 2, "ns").start()
    await reset(dut)
    if case["reset_after"]:
        await send(dut, case, case["reset_after"], rng)
        await reset(dut)
    results, taken_at, result_at = await send(dut, case, len(case["data"]), rng)
    expected = list(zip(case["tdata"], case["tuser"], strict=True))
    wrong = [i for i, (got, want) in enumerate(zip(results, expected, strict=True)) if not same(got, want)]
    assert not wrong, (
        f"{len(wrong)} of {len(expected)} results differ; the first, {wrong[0]}: "
        f"{results[wrong[0]]} instead of {expected[wrong[0]]}"
    )
    if not case["stalls"]:
        assert {out - into for out, into in zip(result_at, taken_at, strict=True)} == {case["latency"]}
        # One beat per cycle: nothing but the latency on top of the beats.
        assert result_at[-1] - taken_at[0] == sum(case["last"]) - 1 + case["latency"] or len(
            case["data"]
        ) > len(expected)
        assert taken_at[-1] == len(case["data"])


def same(got: tuple[int, int], want: tuple[int, int]) -> bool:
    """The sum does not matter when a flag says that there is none."""
    return got[1] == want[1] and (want[1] != 0 or got[0] == want[0])
