"""The top module of a design driven by cocotbext-axi: an implementation of AXI4-Stream that is not ours, beat
by beat in Python.

Slower by far than the harness of `qfx.sim.run`, and meant for a few frames. It takes everything from the
directory that it runs in (`qfx.sim.check_axi` writes it): `frames.json` with beats per frame and bytes per
beat, `input.bin` and `expected.bin`, the frames one after the other as they stand on the wires, byte 0 of a
beat on the lowest lane; and for each port of weights a file with one pass of them."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, SimTimeoutError, Timer, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource

PERIOD_NS = 10


class Bench:
    """Sources, sink, clock and reset of one test."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        settings = json.loads(Path("frames.json").read_text())
        self.limit_ns = settings["limit_cycles"] * PERIOD_NS
        self.inputs = self._frames("input.bin", settings["input_beats"] * settings["input_bytes"])
        self.expected = self._frames("expected.bin", settings["output_beats"] * settings["output_bytes"])
        dut.aresetn.value = 0
        Clock(dut.aclk, PERIOD_NS, "ns").start()
        self.source = AxiStreamSource(
            AxiStreamBus.from_prefix(dut, "s_axis"), dut.aclk, dut.aresetn, reset_active_level=False
        )
        self.sink = AxiStreamSink(
            AxiStreamBus.from_prefix(dut, "m_axis"), dut.aclk, dut.aresetn, reset_active_level=False
        )
        self.weights = [
            AxiStreamSource(
                AxiStreamBus.from_prefix(dut, f"s_axis_{port['name']}"),
                dut.aclk,
                dut.aresetn,
                reset_active_level=False,
            )
            for port in settings["weights"]
        ]
        #: By port: what a frame takes.
        self.per_frame = [
            Path(f"{port['name']}.bin").read_bytes() * port["passes"] for port in settings["weights"]
        ]
        for source, port in zip(self.weights, settings["weights"], strict=True):
            assert source.byte_lanes == port["bytes"], f"{port['name']}: {source.byte_lanes} bytes wide"
        for end in (self.source, self.sink, *self.weights):
            end.log.setLevel("ERROR")

    @staticmethod
    def _frames(name: str, size: int) -> list[bytes]:
        data = Path(name).read_bytes()
        return [data[start : start + size] for start in range(0, len(data), size)]

    async def reset(self) -> None:
        """Four cycles of reset, changed away from the clock edge."""
        await FallingEdge(self.dut.aclk)
        self.dut.aresetn.value = 0
        for _ in range(4):
            await FallingEdge(self.dut.aclk)
        self.dut.aresetn.value = 1
        await FallingEdge(self.dut.aclk)

    def send(self, frame: bytes) -> None:
        """A frame, and the weights that it takes."""
        self.source.send_nowait(frame)
        for source, data in zip(self.weights, self.per_frame, strict=True):
            source.send_nowait(data)

    def clear(self) -> None:
        """Forget what is still to come."""
        for end in (self.source, self.sink, *self.weights):
            end.clear()

    def stall(
        self, generator: random.Random, source_chance: float, sink_chance: float, weights_chance: float
    ) -> None:
        """Random pauses at all ports."""
        chances = [(self.source, source_chance), (self.sink, sink_chance)]
        for end, chance in (*chances, *((end, weights_chance) for end in self.weights)):
            end.set_pause_generator(generator.random() < chance for _ in itertools.repeat(None))

    def flow(self) -> None:
        """No pauses any more."""
        for end in (self.source, self.sink, *self.weights):
            end.clear_pause_generator()
            end.pause = False

    async def run(self) -> None:
        """Send every frame back to back; each must come back whole, in order, with tlast at its end, and all
        weights must be taken.
        """
        for frame in self.inputs:
            self.send(frame)
        for index, expected in enumerate(self.expected):
            try:
                received: Any = await with_timeout(self.sink.recv(), self.limit_ns, "ns")
            except SimTimeoutError:
                raise AssertionError(
                    f"frame {index}: not complete after {self.limit_ns // PERIOD_NS} cycles"
                ) from None
            found = bytes(received.tdata)
            assert len(found) == len(expected), (
                f"frame {index}: tlast after {len(found)} bytes, not {len(expected)}"
            )
            if found != expected:
                place = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
                raise AssertionError(
                    f"frame {index}: byte {place} is {found[place]:#04x}, expected {expected[place]:#04x}"
                )
        await Timer(self.limit_ns // 4, "ns")
        assert self.sink.empty() and self.sink.idle(), "the design gave more beats than its frames have"
        for source in self.weights:
            assert source.empty() and source.idle(), "the design did not take all weights of its frames"


@cocotb.test()
async def back_to_back(dut: Any) -> None:
    """No pauses at either end."""
    bench = Bench(dut)
    await bench.reset()
    await bench.run()


@cocotb.test()
async def random_stalls(dut: Any) -> None:
    """Pauses of the source, of the sink, of weights, and of all."""
    generator = random.Random(1)
    bench = Bench(dut)
    every = [(0.5, 0.0, 0.0), (0.0, 0.7, 0.0), (0.4, 0.4, 0.4)]
    for chances in [*every, (0.0, 0.0, 0.6)] if bench.weights else every:
        bench.stall(generator, *chances)
        await bench.reset()
        await bench.run()


@cocotb.test()
async def reset_in_a_frame(dut: Any) -> None:
    """A reset with a frame under way, at several places; what follows must be as if nothing had been."""
    generator = random.Random(2)
    bench = Bench(dut)
    await bench.reset()
    for share in (0.05, 0.3, 0.8):
        bench.send(bench.inputs[0])
        bench.send(bench.inputs[-1])
        bench.stall(generator, 0.2, 0.2, 0.2)
        await Timer(max(1, int(share * len(bench.inputs[0]))) * PERIOD_NS, "ns")
        await bench.reset()
        bench.clear()
        bench.flow()
        await bench.reset()
        await bench.run()
