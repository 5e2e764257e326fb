"""Timing models of the kernels, written from docs/kernels.md: which handshakes are high in which cycle.

A model knows nothing of the Verilog. `signals` gives the ready and valid signals of the present cycle from
the registered state and this cycle's inputs, `clock` moves to the next cycle. Data do not matter here: models
count beats, and the bench looks the beats up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Signals:
    """Handshake signals of one cycle: `tready` per input, `tvalid` per output, and for each valid output the
    number of the beat on it (0 is the first since reset)."""

    tready: tuple[bool, ...]
    tvalid: tuple[bool, ...]
    beat: tuple[int, ...]


class Model:
    """A kernel with `inputs` input and `outputs` output streams."""

    inputs = 1
    outputs = 1

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        """Signals of this cycle, given those that drive the kernel."""
        raise NotImplementedError

    def clock(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> None:
        """A rising edge."""
        raise NotImplementedError


@dataclass
class StepModel(Model):
    """Section 2: `sequence` is one period of (inputs taken, makes a beat)."""

    latency: int
    sequence: Sequence[tuple[tuple[int, ...], bool]]
    inputs: int = 1
    step: int = 0
    made: int = 0
    pipe: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pipe = [None] * self.latency

    def enabled(self, tready: Sequence[bool]) -> bool:
        return self.pipe[-1] is None or tready[0]

    def condition(self) -> bool:
        """What a step waits for besides its inputs."""
        return True

    def fires(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> bool:
        takes, _ = self.sequence[self.step]
        return self.enabled(tready) and self.condition() and all(tvalid[i] for i in takes)

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        takes, _ = self.sequence[self.step]
        en = self.enabled(tready)
        ready = tuple(
            en and i in takes and all(tvalid[j] for j in takes if j != i) for i in range(self.inputs)
        )
        head = self.pipe[-1]
        return Signals(ready, (head is not None,), (-1 if head is None else head,))

    def fired(self) -> None:
        """Called when the present step fires, before it is left."""

    def clock(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> None:
        if not self.enabled(tready):
            return
        beat = None
        if self.fires(tvalid, tready):
            self.fired()
            if self.sequence[self.step][1]:
                beat = self.made
                self.made += 1
            self.step = (self.step + 1) % len(self.sequence)
        self.pipe = [beat, *self.pipe[:-1]]


class BufferModel(StepModel):
    """A kernel whose input side is a process of its own: `accepts` and `accepted`."""

    def accepts(self) -> bool:
        raise NotImplementedError

    def accepted(self) -> None:
        raise NotImplementedError

    def fires(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> bool:
        return self.enabled(tready) and self.condition()

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        below = super().signals(tvalid, tready)
        return Signals((self.accepts(),), below.tvalid, below.beat)

    def clock(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> None:
        write = tvalid[0] and self.accepts()
        super().clock(tvalid, tready)
        if write:
            self.accepted()


class WindowModel(BufferModel):
    """qfx_window, from its pseudo-code; for every step of a frame `wanted` is the distance of its beat from
    the window's first one, or None for padding, and `base` the base of its pixel."""

    def __init__(self, parameters: dict[str, int | str]) -> None:
        p = {name: value for name, value in parameters.items() if isinstance(value, int)}
        beats, in_w = p["BEATS"], p["IN_W"]
        group_beats = beats // p["GROUPS"]
        self.depth = p["DEPTH"]
        self.frame = p["IN_H"] * in_w * beats
        self.fill0 = (p["PAD_TOP"] * in_w + p["PAD_LEFT"]) * beats
        last_x = min(p["OUT_W"] - 1, (in_w - 1 + p["PAD_LEFT"]) // p["STRIDE_W"])
        last_y = min(p["OUT_H"] - 1, (p["IN_H"] - 1 + p["PAD_TOP"]) // p["STRIDE_H"])
        self.wanted: list[int | None] = []
        self.base: list[int] = []
        for oy in range(p["OUT_H"]):
            for ox in range(p["OUT_W"]):
                base = (min(oy, last_y) * p["STRIDE_H"] * in_w + min(ox, last_x) * p["STRIDE_W"]) * beats
                for g in range(p["GROUPS"]):
                    for ky in range(p["KERNEL_H"]):
                        for kx in range(p["KERNEL_W"]):
                            for b in range(group_beats):
                                iy = oy * p["STRIDE_H"] - p["PAD_TOP"] + ky * p["DILATION_H"]
                                ix = ox * p["STRIDE_W"] - p["PAD_LEFT"] + kx * p["DILATION_W"]
                                off = (ky * p["DILATION_H"] * in_w + kx * p["DILATION_W"]) * beats
                                off += g * group_beats + b
                                inside = 0 <= iy < p["IN_H"] and 0 <= ix < in_w
                                self.wanted.append(off if inside else None)
                                self.base.append(base - self.fill0)
        self.written = 0
        self.finished = 0
        super().__init__(1, [((), True)] * len(self.wanted))

    @property
    def fill(self) -> int:
        return self.written - (self.finished * self.frame + self.base[self.step])

    def accepts(self) -> bool:
        return self.fill < self.depth

    def accepted(self) -> None:
        self.written += 1

    def condition(self) -> bool:
        wanted = self.wanted[self.step]
        return (self.step > 0 or self.fill >= min(self.fill0 + 1, self.depth)) and (
            wanted is None or wanted < self.fill
        )

    def fired(self) -> None:
        if self.step == len(self.wanted) - 1:
            self.finished += 1


class ReorderModel(BufferModel):
    """qfx_reorder."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.written = 0
        super().__init__(1, [((), True)] * length)

    @property
    def full(self) -> int:
        return self.written // self.length - self.made // self.length

    def accepts(self) -> bool:
        return self.full < 2

    def accepted(self) -> None:
        self.written += 1

    def condition(self) -> bool:
        return self.full > 0


class FifoModel(Model):
    """qfx_fifo; `delay`: 1 for LUT RAM, 2 for block RAM."""

    def __init__(self, depth: int, delay: int) -> None:
        self.depth, self.delay = depth, delay
        self.pushed: list[int] = []
        self.popped = 0
        self.now = 0

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        held = len(self.pushed) - self.popped
        valid = held > 0 and self.pushed[self.popped] + self.delay <= self.now
        return Signals((held < self.depth,), (valid,), (self.popped,))

    def clock(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> None:
        now = self.signals(tvalid, tready)
        if now.tvalid[0] and tready[0]:
            self.popped += 1
        if now.tready[0] and tvalid[0]:
            self.pushed.append(self.now)
        self.now += 1


class ForkModel(Model):
    """qfx_fork."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.taken = [0] * outputs
        self.released = 0

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        done = [taken > self.released for taken in self.taken]
        valid = tuple(tvalid[0] and not d for d in done)
        return Signals((all(d or r for d, r in zip(done, tready, strict=True)),), valid, tuple(self.taken))

    def clock(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> None:
        now = self.signals(tvalid, tready)
        for i, valid in enumerate(now.tvalid):
            if valid and tready[i]:
                self.taken[i] += 1
        if now.tready[0] and tvalid[0]:
            self.released += 1


def takes_and_makes(pattern: Iterable[tuple[bool, bool]]) -> list[tuple[tuple[int, ...], bool]]:
    """A step sequence of a kernel with one input, from (takes a beat, makes a beat)."""
    return [((0,) if takes else (), makes) for takes, makes in pattern]
