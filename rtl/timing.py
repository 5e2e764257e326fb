"""Cycle-exact timing of a design: what happens on every stream in every cycle, without data.

No kernel looks at data to decide when to do something (docs/kernels.md, section 2), so counters are all that
a model needs. There are two: the classes of this file, the readable definition; and the same in C++
(``timing.cpp``), compiled on first use where ``g++`` is there, a few hundred times faster. The tests hold
them against each other and against Verilator.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qfx.rtl import native
from qfx.rtl.design import Design, Kernel
from qfx.rtl.library import MAKE, PEEK1, TAKE0, TAKE1, latency, matmul_load, steps, window_sequence

FINISHED, DEADLOCK, OUT_OF_TIME = 0, 1, 2
_QUIET = 512  # cycles without any event after which nothing can happen any more; longer than any pipeline


@dataclass(frozen=True)
class Run:
    """What a run of the model gave. Cycles count from 0, the first after reset; the source begins in cycle 1.

    Attributes:
        status: ``FINISHED`` (all frames came out), ``DEADLOCK`` or ``OUT_OF_TIME``.
        cycles: how long the run was.
        first_in, first_out, last_out: per finished frame, the cycle in which its first input, first output
            and last output beat moved.
        states: per finished frame, a digest of the state of all kernels after its last output beat.
        occupancy: per FIFO name, the most beats that it held.
    """

    status: int
    cycles: int
    first_in: tuple[int, ...]
    first_out: tuple[int, ...]
    last_out: tuple[int, ...]
    states: tuple[int, ...]
    occupancy: dict[str, int]

    @property
    def latency(self) -> int:
        """First input beat of the first frame to its last output beat."""
        return self.last_out[0] - self.first_in[0]

    @property
    def intervals(self) -> tuple[int, ...]:
        """Cycles between the ends of successive frames."""
        return tuple(b - a for a, b in zip(self.last_out, self.last_out[1:], strict=False))

    def steady_interval(self) -> int | None:
        """Cycles per frame once the design has settled; ``None`` when this run was too short to tell.

        When the state after some frame is the state after an earlier one, everything repeats from there:
        exact. Rounded up where a period spans several frames and is not a multiple of their number.
        """
        seen: dict[int, int] = {}
        for frame, state in enumerate(self.states):
            if state in seen:
                start = seen[state]
                return -(-(self.last_out[frame] - self.last_out[start]) // (frame - start))
            seen[state] = frame
        return None


def simulate(
    design: Design,
    frames: int,
    *,
    source_interval: int = 0,
    max_cycles: int = 1 << 40,
    source_frames: int | None = None,
    capacity_one: bool = False,
    python: bool = False,
) -> Run:
    """Run the model.

    Args:
        design: what to run; FIFOs with ``DEPTH`` 0 are without bound.
        frames: output frames to wait for.
        source_interval: 0: the source always has a beat. Otherwise it spreads the beats of each frame evenly
            over so many cycles.
        max_cycles: give up after so many.
        source_frames: how many frames the source has; without end by default.
        capacity_one: every pipeline holds a single beat (latency 1): the smallest buffering that the hardware
            can be sure of.
        python: use the classes of this file even where the compiled model is available.
    """
    network = _Network(design, capacity_one)
    available = -1 if source_frames is None else source_frames
    library = None if python else _library()
    if library is None:
        return _simulate_python(network, frames, source_interval, max_cycles, available)
    return _simulate_compiled(library, network, frames, source_interval, max_cycles, available)


def frame_ends(design: Design, frames: int) -> tuple[int, ...]:
    """For each of ``frames`` frames, when its last output beat moves: cycles after the first input beat of
    the first frame, when the source always has a beat and the sink always takes it.
    """
    if design.architecture == "parallel":  # one pipeline that never waits
        return tuple(design.latency + design.interval * frame for frame in range(frames))
    run = simulate(design, frames)
    return tuple(end - run.first_in[0] for end in run.last_out)


class _Network:
    """A design as numbers: kernels in reverse topological order, streams by index."""

    def __init__(self, design: Design, capacity_one: bool) -> None:
        self.design = design
        self.capacity_one = capacity_one
        self.index = {stream.name: i for i, stream in enumerate(design.streams)}
        self.kernels = tuple(reversed(design.kernels))
        self.source = self.index[design.input_name]
        self.sink = self.index[design.output_name]
        self.in_beats = design.input_stream.beats
        self.out_beats = design.output_stream.beats

    def inputs(self, kernel: Kernel) -> list[int]:
        """The input streams of a kernel. Streams of weights from outside count as always there."""
        inputs = kernel.inputs[:1] if kernel.module == "qfx_matvec_stream" else kernel.inputs
        return [self.index[name] for name in inputs]

    def latency(self, kernel: Kernel) -> int:
        return 1 if self.capacity_one else latency(kernel)


# -- the readable model --------------------------------------------------------------------------------------


class _Streams:
    """``tvalid`` and ``tready`` of every stream in the present cycle."""

    def __init__(self, count: int) -> None:
        self.valid = [False] * count
        self.ready = [False] * count


class _Pipeline:
    """The output side that all kernels with steps share."""

    def __init__(self, s: _Streams, output: int, stages: int) -> None:
        self.s, self.output = s, output
        self.stages = [False] * stages

    def enabled(self) -> bool:
        return not self.s.valid[self.output] or self.s.ready[self.output]

    def shift(self, beat: bool) -> bool:
        """Advance by a cycle; whether anything moved."""
        moved = any(self.stages) or beat
        self.stages = [beat, *self.stages[:-1]]
        self.s.valid[self.output] = self.stages[-1]
        return moved


class _Steps:
    """A kernel that is nothing but its step sequence."""

    def __init__(self, s: _Streams, kernel: Kernel, inputs: Sequence[int], output: int, stages: int) -> None:
        self.s, self.inputs = s, list(inputs)
        self.sequence = steps(kernel).tolist()
        self.position = 0
        self.pipeline = _Pipeline(s, output, stages)

    def cycle(self) -> bool:
        s, step = self.s, self.sequence[self.position]
        enabled = self.pipeline.enabled()
        taken = [i for i, bit in zip(self.inputs, (TAKE0, TAKE1), strict=False) if step & bit]
        needed = taken + ([self.inputs[1]] if step & PEEK1 else [])
        for i in self.inputs:
            s.ready[i] = enabled and i in taken and all(s.valid[j] for j in needed if j != i)
        if not enabled:
            return False
        fires = all(s.valid[i] for i in needed)
        if fires:
            self.position = (self.position + 1) % len(self.sequence)
        return self.pipeline.shift(fires and bool(step & MAKE)) or fires

    def state(self) -> tuple[object, ...]:
        return (self.position, *self.pipeline.stages)


class _Window:
    """``qfx_window``: a writer that only looks at the buffer, and a reader with steps."""

    def __init__(self, s: _Streams, kernel: Kernel, source: int, output: int, stages: int) -> None:
        self.s, self.source, self.depth = s, source, kernel.number("DEPTH")
        need, drop, self.fill = window_sequence(kernel)
        self.need, self.drop, self.position = need.tolist(), drop.tolist(), 0
        self.pipeline = _Pipeline(s, output, stages)

    def cycle(self) -> bool:
        s, fill = self.s, self.fill
        s.ready[self.source] = fill < self.depth
        accepts = s.valid[self.source] and fill < self.depth
        self.fill += accepts
        if not self.pipeline.enabled():
            return accepts
        fires = fill > self.need[self.position]
        if fires:
            self.fill -= self.drop[self.position]
            self.position = (self.position + 1) % len(self.need)
        return self.pipeline.shift(fires) or accepts

    def state(self) -> tuple[object, ...]:
        return (self.position, self.fill, *self.pipeline.stages)


class _Reorder:
    """``qfx_reorder``: a double buffer."""

    def __init__(self, s: _Streams, kernel: Kernel, source: int, output: int, stages: int) -> None:
        self.s, self.source, self.length = s, source, kernel.number("LENGTH")
        self.full = self.written = self.read = 0
        self.pipeline = _Pipeline(s, output, stages)

    def cycle(self) -> bool:
        s, full = self.s, self.full
        s.ready[self.source] = full < 2
        accepts = s.valid[self.source] and full < 2
        if accepts:
            self.written = (self.written + 1) % self.length
            self.full += self.written == 0
        if not self.pipeline.enabled():
            return accepts
        fires = full > 0
        if fires:
            self.read = (self.read + 1) % self.length
            self.full -= self.read == 0
        return self.pipeline.shift(fires) or accepts

    def state(self) -> tuple[object, ...]:
        return (self.full, self.written, self.read, *self.pipeline.stages)


class _MatMul:
    """``qfx_matmul``: a double buffer for the second operand, steps that take the first."""

    def __init__(self, s: _Streams, kernel: Kernel, inputs: Sequence[int], output: int, stages: int) -> None:
        self.s, (self.first, self.second) = s, inputs
        self.length, self.sequence = matmul_load(kernel), steps(kernel).tolist()
        self.full = self.written = self.position = 0
        self.pipeline = _Pipeline(s, output, stages)

    def cycle(self) -> bool:
        s, full, step = self.s, self.full, self.sequence[self.position]
        s.ready[self.second] = full < 2
        accepts = s.valid[self.second] and full < 2
        if accepts:
            self.written = (self.written + 1) % self.length
            self.full += self.written == 0
        enabled = self.pipeline.enabled() and full > 0
        takes = bool(step & TAKE0)
        s.ready[self.first] = enabled and takes
        if not self.pipeline.enabled():
            return accepts
        fires = enabled and (not takes or s.valid[self.first])
        if fires:
            self.position = (self.position + 1) % len(self.sequence)
            self.full -= self.position == 0
        return self.pipeline.shift(fires and bool(step & MAKE)) or accepts or fires

    def state(self) -> tuple[object, ...]:
        return (self.full, self.written, self.position, *self.pipeline.stages)


class _Fifo:
    """``qfx_fifo``; a depth of 0 stands for no bound."""

    def __init__(self, s: _Streams, kernel: Kernel, source: int, output: int) -> None:
        self.s, self.source, self.output = s, source, output
        self.depth, self.block = kernel.number("DEPTH") or 1 << 60, kernel.number("STYLE") == 1
        self.held = self.fresh = self.most = 0

    def cycle(self) -> bool:
        s = self.s
        ready = self.held < self.depth
        pops = s.valid[self.output] and s.ready[self.output]
        pushes = s.valid[self.source] and ready
        s.ready[self.source] = ready
        moved = pops or pushes or self.fresh > 0
        self.held += pushes - pops
        self.fresh = int(pushes and self.block)
        self.most = max(self.most, self.held)
        s.valid[self.output] = self.held > self.fresh
        return moved

    def state(self) -> tuple[object, ...]:
        return (self.held, self.fresh)


class _Fork:
    """``qfx_fork``: every output takes the beat once."""

    def __init__(self, s: _Streams, source: int, outputs: Sequence[int]) -> None:
        self.s, self.source, self.outputs = s, source, list(outputs)
        self.done = [False] * len(self.outputs)

    def offer(self) -> None:
        """The combinational ``tvalid`` of the outputs; first thing in a cycle, in topological order."""
        for output, done in zip(self.outputs, self.done, strict=True):
            self.s.valid[output] = self.s.valid[self.source] and not done

    def cycle(self) -> bool:
        s = self.s
        got = [done or s.ready[o] for o, done in zip(self.outputs, self.done, strict=True)]
        s.ready[self.source] = all(got)
        if not s.valid[self.source]:
            return False
        moved = got != self.done
        self.done = [False] * len(got) if all(got) else got
        return moved

    def state(self) -> tuple[object, ...]:
        return tuple(self.done)


_Model = _Steps | _Window | _Reorder | _MatMul | _Fifo | _Fork


def _simulate_python(network: _Network, frames: int, interval: int, max_cycles: int, available: int) -> Run:
    s = _Streams(len(network.index))
    models: list[_Model] = []
    fifos: dict[str, _Fifo] = {}
    for kernel in network.kernels:
        inputs = network.inputs(kernel)
        outputs = [network.index[name] for name in kernel.outputs]
        if kernel.module == "qfx_fork":
            models.append(_Fork(s, inputs[0], outputs))
        elif kernel.module == "qfx_fifo":
            fifos[kernel.name] = _Fifo(s, kernel, inputs[0], outputs[0])
            models.append(fifos[kernel.name])
        elif kernel.module == "qfx_window":
            models.append(_Window(s, kernel, inputs[0], outputs[0], network.latency(kernel)))
        elif kernel.module == "qfx_reorder":
            models.append(_Reorder(s, kernel, inputs[0], outputs[0], network.latency(kernel)))
        elif kernel.module == "qfx_matmul":
            models.append(_MatMul(s, kernel, inputs, outputs[0], network.latency(kernel)))
        else:
            models.append(_Steps(s, kernel, inputs, outputs[0], network.latency(kernel)))
    forks = [model for model in reversed(models) if isinstance(model, _Fork)]

    first_in: list[int] = []
    first_out: list[int] = []
    last_out: list[int] = []
    states: list[int] = []
    sent = got = now = quiet = 0
    status = FINISHED
    s.ready[network.sink] = True
    while len(last_out) < frames:
        if now >= max_cycles:
            status = OUT_OF_TIME
            break
        frame, beat = divmod(sent, network.in_beats)
        # The first beat comes in the cycle after reset at the earliest; constants are on their way by then.
        due = 1 + frame * interval + beat * interval // network.in_beats
        s.valid[network.source] = (available < 0 or frame < available) and now >= due
        for fork in forks:
            fork.offer()
        moved = s.valid[network.sink]
        if s.valid[network.sink]:
            if got % network.out_beats == 0:
                first_out.append(now)
            got += 1
            if got % network.out_beats == 0:
                last_out.append(now)
        # The source needs the ready of this cycle and its own valid of this cycle.
        offered = s.valid[network.source]
        for model in models:
            moved |= model.cycle()
        if offered and s.ready[network.source]:
            moved = True
            if beat == 0:
                first_in.append(now)
            sent += 1
        if len(last_out) > len(states):
            everything = (sent % network.in_beats, *(model.state() for model in models))
            states.append(int.from_bytes(hashlib.sha256(repr(everything).encode()).digest()[:8], "little"))
        quiet = 0 if moved else quiet + 1
        now += 1
        if quiet > _QUIET + interval:
            status = DEADLOCK
            break
    done = len(last_out)
    occupancy = {name: fifo.most for name, fifo in fifos.items()}
    return Run(
        status,
        now,
        tuple(first_in[:done]),
        tuple(first_out[:done]),
        tuple(last_out),
        tuple(states),
        occupancy,
    )


# -- the compiled model --------------------------------------------------------------------------------------

_STEPS, _WINDOW, _REORDER, _FIFO, _FORK, _MATMUL = range(6)
_COLUMNS = 10  # of the kernel table, see timing.cpp


def _simulate_compiled(
    library: ctypes.CDLL, network: _Network, frames: int, interval: int, max_cycles: int, available: int
) -> Run:
    table = np.zeros((len(network.kernels), _COLUMNS), dtype=np.int64)
    forks: list[int] = []
    sequences: list[np.ndarray] = []
    needs: list[np.ndarray] = []
    drops: list[np.ndarray] = []
    start = window_start = 0
    for row, kernel in zip(table, network.kernels, strict=True):
        inputs = network.inputs(kernel)
        outputs = [network.index[name] for name in kernel.outputs]
        # A kernel without an input looks at a stream that nobody drives.
        inputs = inputs or [len(network.index)]
        row[2], row[3], row[4] = inputs[0], inputs[-1], outputs[0]
        if kernel.module == "qfx_fork":
            row[0], row[5], row[6] = _FORK, len(forks), len(outputs)
            forks += outputs
        elif kernel.module == "qfx_fifo":
            row[0], row[5], row[6] = _FIFO, kernel.number("DEPTH") or 1 << 60, kernel.number("STYLE")
        elif kernel.module == "qfx_reorder":
            row[0], row[1], row[5] = _REORDER, network.latency(kernel), kernel.number("LENGTH")
        elif kernel.module == "qfx_window":
            need, drop, fill0 = window_sequence(kernel)
            row[0], row[1] = _WINDOW, network.latency(kernel)
            row[5:9] = window_start, need.size, kernel.number("DEPTH"), fill0
            needs.append(need)
            drops.append(drop)
            window_start += need.size
        else:
            sequence = steps(kernel)
            row[0], row[1], row[5], row[6] = _STEPS, network.latency(kernel), start, sequence.size
            if kernel.module == "qfx_matmul":
                row[0], row[7] = _MATMUL, matmul_load(kernel)
            sequences.append(sequence)
            start += sequence.size
    all_steps = np.concatenate(sequences) if sequences else np.zeros(1, np.uint8)
    need_of = np.concatenate(needs) if needs else np.zeros(1, np.int64)
    drop_of = np.concatenate(drops) if drops else np.zeros(1, np.int64)
    fork_outputs = np.array(forks or [0], dtype=np.int64)
    settings = np.array(
        [
            len(table),
            len(network.index) + 1,
            network.source,
            network.sink,
            network.in_beats,
            network.out_beats,
            frames,
            interval,
            max_cycles,
            available,
            _QUIET,
        ],
        dtype=np.int64,
    )
    times = np.zeros((4, frames), dtype=np.int64)
    occupancy = np.zeros(len(table), dtype=np.int64)
    ends = np.zeros(2, dtype=np.int64)
    arrays = (settings, table, fork_outputs, all_steps, need_of, drop_of, times, occupancy, ends)
    status = library.qfx_simulate(*(array.ctypes.data_as(ctypes.c_void_p) for array in arrays))
    done = int(ends[1])
    first_in, first_out, last_out, states = (tuple(int(t) for t in row[:done]) for row in times)
    held = {
        kernel.name: int(most)
        for kernel, most in zip(network.kernels, occupancy, strict=True)
        if kernel.module == "qfx_fifo"
    }
    return Run(int(status), int(ends[0]), first_in, first_out, last_out, states, held)


def _library() -> ctypes.CDLL | None:
    """The compiled model; ``None`` where there is no C++ compiler."""
    return native.library(Path(__file__).with_name("timing.cpp"))
