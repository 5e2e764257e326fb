"""The cocotb side: every case of one kernel, in lock step with its timing model.

In each cycle the kernel's `tready` and `tvalid` must equal the model's,
and every valid beat must be the golden
one. So a bubble, a lost or doubled beat, data that change under a stalled `tvalid` and a wrong value are all
caught in the cycle in which they happen."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import kernel_cases
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

CASES = kernel_cases.cases(os.environ["QFX_KERNEL"])


class Runner:
    """Drives one instance of the wrapper through its `in` and `out` vectors (see kernel_wrapper)."""

    def __init__(self, dut: Any, index: int) -> None:
        self.case = CASES[index]
        self.clk = dut.clk
        self.rst = getattr(dut, f"i{index}_rst")
        self.drive = getattr(dut, f"i{index}_in")
        self.observe = getattr(dut, f"i{index}_out")

    async def reset(self, cycles: int = 2) -> None:
        self.drive.value = 0
        self.rst.value = 1
        for _ in range(cycles):
            await RisingEdge(self.clk)
        self.rst.value = 0
        self.model = self.case.model()

    async def run(
        self, frames: int, seed: int, valid: float = 1.0, ready: float = 1.0, stop: int | None = None
    ) -> int:
        """Push `frames` frames through, stalling at random: inputs are offered with probability `valid`,
        outputs taken with `ready`. Returns the number of cycles; ends early after `stop` cycles."""
        case, model, rng = self.case, self.model, random.Random(seed)
        inputs, expected = case.frames(seed, frames)
        # Padding at the beginning of the next frames may come out before any of their beats has gone in.
        beyond = case.frames(seed, frames + case.ahead)[1]
        sent = [0] * model.inputs
        got = [0] * model.outputs
        offered = [False] * model.inputs
        cycle = 0
        limit = 1000 + 20 * int(
            (sum(map(len, inputs)) + len(expected) + case.interval * frames) / (valid * ready)
        )
        while any(n < len(expected) for n in got) or any(
            n < len(d) for n, d in zip(sent, inputs, strict=True)
        ):
            if stop is not None and cycle >= stop:
                return cycle
            assert cycle < limit, f"{case.name}: no end after {cycle} cycles, sent {sent}, got {got}"
            for i, data in enumerate(inputs):
                offered[i] = offered[i] or (sent[i] < len(data) and rng.random() < valid)
            take = [rng.random() < ready for _ in range(model.outputs)]
            seen = list(offered)
            word = 0
            for i, data in enumerate(inputs):
                # While there is no beat the data lines carry noise.
                beat = data[sent[i]] if offered[i] else rng.getrandbits(case.input_bits[i])
                word = word << case.input_bits[i] | beat
                word = word << 1 | offered[i]
            for flag in reversed(take):
                word = word << 1 | flag
            self.drive.value = word
            await RisingEdge(self.clk)
            observed = int(self.observe.value)
            now = model.signals(offered, take)
            where = f"{case.name}: cycle {cycle}, seed {seed}"
            for i in range(model.outputs):
                assert bool(observed >> i & 1) == now.tvalid[i], (
                    f"{where}: tvalid[{i}] is not {now.tvalid[i]}"
                )
            data_out = observed >> (model.outputs + model.inputs)
            for i in range(model.inputs):
                flag = bool(observed >> (model.outputs + i) & 1)
                assert flag == now.tready[i], f"{where}: tready[{i}] is not {now.tready[i]}"
                if flag and offered[i]:
                    sent[i] += 1
                    offered[i] = False
            for i in range(model.outputs):
                if now.tvalid[i]:
                    want = beyond[now.beat[i]]
                    assert data_out == want, f"{where}: beat {now.beat[i]} is {data_out:#x}, not {want:#x}"
                    if take[i]:
                        got[i] += 1
            model.clock(seen, take)
            cycle += 1
        return cycle


@cocotb.test()
@cocotb.parametrize(index=range(len(CASES)))
async def case(dut: Any, index: int) -> None:
    """Full rate, stalls of every kind, and a reset in the middle of a frame."""
    Clock(dut.clk, 2, "ns").start()
    runner = Runner(dut, index)
    case = CASES[index]
    cocotb.log.info("%s", case.name)
    await runner.reset()
    some = await runner.run(case.count, seed=1)
    await runner.reset()
    more = await runner.run(2 * case.count, seed=1)
    if case.full_rate:
        assert more - some == case.count * case.interval, (
            f"{case.name}: {more - some} cycles for {case.count} frames"
        )
    for seed, (valid, ready) in enumerate(((0.5, 0.5), (1.0, 0.3), (0.3, 1.0), (0.9, 0.9)), start=2):
        await runner.reset()
        await runner.run(case.count, seed, valid, ready)
    for seed in (11, 12, 13):
        await runner.reset(cycles=1)
        await runner.run(case.count, seed, 0.8, 0.8, stop=random.Random(seed).randrange(1, 12 * seed))
    await runner.reset(cycles=1)
    await runner.run(case.count, seed=20, valid=0.8, ready=0.7)
