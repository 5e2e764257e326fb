"""Simulate a generated design on real inputs: outputs, measured latency and interval, and what passed on
every internal stream."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.sim import frames, verilator
from qfx.sim.harness import TOP, Tap, WeightPort, groups, harness, stream_names

_CYCLE_DIGITS = 12
_VERILOG = {".v", ".sv"}


@dataclass(frozen=True)
class Stalls:
    """Random stalls at both ends of a design.

    Attributes:
        input: chance that the source holds `tvalid` low before the next beat, 0 to below 1. output: chance
        that the sink holds `tready` low. burst: a stall lasts 1 to about this many cycles (a power of two, 1
        to 128), drawn anew each time. ready_after_valid: the sink raises `tready` only when it sees `tvalid`;
        a design must not wait for the opposite. seed: of the random numbers. weights: chance that a source of
        weights holds `tvalid` low, where a design has weights from outside; as `input` when not given.
    """

    input: float = 0.3
    output: float = 0.3
    burst: int = 4
    ready_after_valid: bool = False
    seed: int = 1
    weights: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "weights"):
            chance = getattr(self, name)
            if not (name == "weights" and chance is None) and not 0 <= chance < 1:
                raise QfxError(f"Stalls: {name} is the chance of a stall, 0 to below 1, found {chance!r}")
        if self.burst not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise QfxError(f"Stalls: burst must be a power of two from 1 to 128, found {self.burst!r}")


@dataclass(frozen=True)
class Port:
    """The stream at one end of a design: element width in bits, elements and bits per beat, beats per
    frame."""

    width: int
    signed: bool
    lanes: int
    beats: int
    bits: int


@dataclass(frozen=True)
class StreamTrace:
    """What passed on an internal stream: the graph node whose tensor it carries, and its codes ``(samples,
    *shape)``."""

    name: str
    node: str
    codes: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class SimResult:
    """What a simulation of a design gave. Unpacks as ``outputs, cycles = result``.

    Attributes:
        outputs: float64 values on the grid of the output format, ``(samples, *output shape)``, as
        ``Graph.run`` gives them. cycles: clock cycles from the first input beat to the last output beat, both
        counted. codes: the output codes, int64. latency: cycles from the first input beat of the first frame
        to its last output beat. first_latency: likewise to its first output beat. interval: cycles between
        the ends of successive output frames in the second half of the run, on average; ``None`` with fewer
            than three frames. With stalls it measures the stalls.
        input_cycles, output_cycles: cycle of the first and last beat of every frame, int64 ``(samples, 2)``.
        streams: with ``tap=True``, the internal streams that carry tensors of the graph, in the order of the
        design. directory: where the simulation ran: Verilog harness, stimulus, logs (and ``dump.vcd`` with
        ``waves=True``).
    """

    outputs: np.ndarray = field(repr=False)
    cycles: int
    codes: np.ndarray = field(repr=False)
    latency: int
    first_latency: int
    interval: float | None
    input_cycles: np.ndarray = field(repr=False)
    output_cycles: np.ndarray = field(repr=False)
    streams: tuple[StreamTrace, ...] = field(repr=False)
    directory: Path | None
    seconds: float

    def __iter__(self) -> Any:
        return iter((self.outputs, self.cycles))


def run(
    design: Any,
    x: Any,
    *,
    stalls: Stalls | float | None = None,
    tap: bool = False,
    reset_after: int | None = None,
    waves: bool = False,
    directory: Path | str | None = None,
    seed: int = 1,
    timeout_s: float = 3600.0,
) -> SimResult:
    """Simulate `design` with Verilator through cocotb, all samples back to back.

    Args:
        design: from :func:`qfx.rtl.generate`. x: real numbers, ``(samples, *input shape)``; they are cast to
        the codes of the input format as the graph says. stalls: random stalls at the ports; a number is the
        chance at both ends. None: the source always has a beat, the sink always takes
            it, and latency and interval are the design's own.
        tap: log the internal streams, and check on each that `tvalid` and `tdata` hold until `tready`.
        reset_after: reset the design again after so many cycles, in the middle of what it does, and start
        from the first frame. waves: write `dump.vcd` (slow). directory: run here and keep everything; by
        default a temporary directory that is removed. seed: of the initial values of all registers and
        memories (they are random, so that nothing can depend on them). timeout_s: limit in seconds.

    Raises:
        QfxError: the input has the wrong shape or holds NaN. SimulationError: the design hangs (the message
        has the state of every stream), breaks the handshake, gives the wrong number
            of beats, misplaces `tlast`, or a tool fails.
    """
    graph = design.graph
    codes = encode_input(graph, x)
    keep = directory is not None
    path = Path(directory) if directory is not None else Path(tempfile.mkdtemp(prefix="qfx-sim-"))
    try:
        return _run(design, codes, _stalls(stalls), tap, reset_after, waves, path, keep, seed, timeout_s)
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)


def encode_input(graph: Any, x: Any) -> np.ndarray:
    """Codes of the graph's input format: int64 ``(samples, *input shape)``. Raises QfxError for a wrong shape
    or NaN."""
    op = graph.input_node.op
    values = x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
    if values.ndim != len(op.shape) + 1 or values.shape[1:] != tuple(op.shape) or len(values) == 0:
        raise QfxError(
            f"sim: input of shape {values.shape}, "
            f"expected (samples, {', '.join(map(str, op.shape))}) with at least one sample"
        )
    return np.asarray(op.format.integers(values, axis=1), dtype=np.int64)


def _run(
    design: Any,
    codes: np.ndarray,
    stalls: Stalls | None,
    tap: bool,
    reset_after: int | None,
    waves: bool,
    path: Path,
    keep: bool,
    seed: int,
    timeout_s: float,
) -> SimResult:
    graph, samples = design.graph, len(codes)
    source, sink = port(design.input_stream), port(design.output_stream)
    streams = list(design.streams) if tap else []
    taps = [_tap(stream) for stream in streams]
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{TOP}.v").write_text(harness(design.top, source.bits, sink.bits, taps, _weight_ports(design)))
    beats = frames.to_beats(codes, source.lanes)
    (path / "input.hex").write_bytes(
        frames.to_hex(beats.reshape(-1, source.lanes), source.width, source.bits)
    )

    verilog, memories = split_files(design.files)
    built = verilator.build(
        [*verilog, path / f"{TOP}.v"],
        TOP,
        public=False,
        waves=waves,
        optimize=_optimize(samples * max(int(design.interval), 1)),
    )
    for name in ("stalled.log", "violations.log"):
        (path / name).unlink(missing_ok=True)
    try:
        results = verilator.run(
            built,
            "qfx.sim.testbenches.harness",
            test_dir=path,
            data_files=memories,
            env={} if reset_after is None else {"QFX_RESET_AFTER": str(reset_after)},
            plusargs=_plusargs(design, source, sink, samples, stalls),
            seed=seed,
            timeout_s=timeout_s,
        )
    except verilator.SimulationError as error:
        _check_protocol(design, taps, path)
        if (path / "stalled.log").is_file():
            state = _stalled(taps, path, samples * source.beats, samples * sink.beats)
            raise verilator.SimulationError(f"sim of {design.top}: the design hangs; {state}") from error
        raise
    _check_protocol(design, taps, path)
    taken = _cycles(path / "input.log").reshape(-1, 2)
    out_codes, out_cycles = _output(design, sink, samples, path)
    if len(taken) != samples:
        raise verilator.SimulationError(f"sim of {design.top}: {len(taken)} of {samples} input frames taken")
    ends = out_cycles[:, 1]
    return SimResult(
        outputs=graph.output_node.tensor.format.decode(out_codes, axis=1),
        cycles=int(ends[-1] - taken[0, 0] + 1),
        codes=out_codes,
        latency=int(ends[0] - taken[0, 0]),
        first_latency=int(out_cycles[0, 0] - taken[0, 0]),
        interval=_interval(ends),
        input_cycles=taken,
        output_cycles=out_cycles,
        streams=_traces(design, streams, taps, samples, path),
        directory=path if keep else None,
        seconds=results.seconds,
    )


def port(stream: Any) -> Port:
    """The facts of an end stream that packing needs."""
    return Port(
        stream.width, stream.signed, stream.lanes, stream.beats, -(-stream.width * stream.lanes // 8) * 8
    )


def split_files(files: Sequence[Path | str]) -> tuple[list[Path], list[Path]]:
    """Verilog sources, and the other files of a design: those that the simulation reads."""
    paths = [Path(name) for name in files]
    return [p for p in paths if p.suffix in _VERILOG], [p for p in paths if p.suffix not in _VERILOG]


def _optimize(cycles: int) -> str:
    """What the C++ compiler shall spend on a simulation of so many cycles: for short ones, building takes
    longer than running."""
    return "-O0" if cycles < 20_000 else "-O1" if cycles < 2_000_000 else "-O2"


def _stalls(stalls: Stalls | float | None) -> Stalls | None:
    if stalls is None or isinstance(stalls, Stalls):
        return stalls
    return Stalls(input=float(stalls), output=float(stalls))


def _plusargs(design: Any, source: Port, sink: Port, samples: int, stalls: Stalls | None) -> list[str]:
    # Every beat at the ports comes within about burst/(1-p) cycles; between two of them a design may be
    # silent for as long as one frame takes to pass. Four times that is a hang.
    busy = int(design.latency) + int(design.interval)
    settings = {
        "in_beats": samples * source.beats,
        "in_frame": source.beats,
        "out_beats": samples * sink.beats,
        "drain": min(busy, 2000) + 64,
        "quiet": 4 * busy + 20_000,
    }
    if stalls is not None:
        settings |= {
            "in_stall": round(stalls.input * 65536),
            "out_stall": round(stalls.output * 65536),
            "burst": stalls.burst - 1,
            "after_valid": int(stalls.ready_after_valid),
            "weight_stall": round((stalls.input if stalls.weights is None else stalls.weights) * 65536),
            # Zero is the one state that the generator never leaves, and the sink starts from the complement.
            "seed": 1 + (stalls.seed * 2654435761) % (2**32 - 2),
        }
    return [f"+{name}={value}" for name, value in settings.items()]


def _weight_ports(design: Any) -> list[WeightPort]:
    """The ports that bring weights in; a design that was not generated has none."""
    found = []
    for stream, memory in getattr(design, "weight_streams", ()):
        bits = -(-stream.width * stream.lanes // 8) * 8
        found.append(WeightPort(f"s_axis_{stream.name}", bits, memory.file, memory.depth))
    return found


def _tap(stream: Any) -> Tap:
    return Tap(stream.name, stream.tdata, stream.tvalid, stream.tready, stream.width * stream.lanes)


def _cycles(path: Path) -> np.ndarray:
    lines = frames.read_lines(path, _CYCLE_DIGITS)
    return frames.from_hex(lines, 4 * _CYCLE_DIGITS, 1, signed=False)[:, 0]


def _check_protocol(design: Any, taps: Sequence[Tap], path: Path) -> None:
    log = path / "violations.log"
    lines = log.read_text().splitlines() if log.is_file() else []
    if lines:
        cycle, bits = lines[0].split()
        names = [name for name, bit in zip(stream_names(taps), reversed(bits), strict=True) if bit == "1"]
        raise verilator.SimulationError(
            f"sim of {design.top}: tvalid fell or tdata changed while tready was low, "
            f"in {len(lines)} cycles, first in cycle {int(cycle, 16)} on {', '.join(names)}"
        )


def _stalled(taps: Sequence[Tap], path: Path, in_beats: int, out_beats: int) -> str:
    """What the harness saw when nothing moved any more."""
    taken, given, valid, ready = (path / "stalled.log").read_text().split()
    names = stream_names(taps)
    states = [
        f"{name} tvalid={v} tready={r}"
        for name, v, r in zip(names, reversed(valid), reversed(ready), strict=True)
    ]
    beats = f"{taken} of {in_beats} input beats taken, {given} of {out_beats} output beats given"
    return "\n".join([beats, *reversed(states)])


def _output(design: Any, sink: Port, samples: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Output codes ``(samples, *shape)`` and the cycles of each frame's first and last beat, after checks of
    count and tlast."""
    digits = -(-sink.bits // 4)
    lines = frames.read_lines(path / "output.log", _CYCLE_DIGITS + 1 + digits)
    if len(lines) != samples * sink.beats:
        raise verilator.SimulationError(
            f"sim of {design.top}: {len(lines)} output beats for {samples} frames of {sink.beats} beats"
        )
    last = (lines[:, _CYCLE_DIGITS] == ord("1")).reshape(samples, sink.beats)
    if not last[:, -1].all() or last[:, :-1].any():
        frame, beat = np.argwhere(last != (np.arange(sink.beats) == sink.beats - 1))[0]
        raise verilator.SimulationError(
            f"sim of {design.top}: m_axis_tlast is wrong at frame {frame}, beat {beat}"
        )
    data = lines[:, _CYCLE_DIGITS + 1 :]
    beats = frames.from_hex(data, sink.width, sink.lanes, sink.signed).reshape(
        samples, sink.beats, sink.lanes
    )
    cycles = frames.from_hex(lines[:, :_CYCLE_DIGITS], 4 * _CYCLE_DIGITS, 1, signed=False).reshape(
        samples, sink.beats
    )
    return frames.from_beats(beats, design.graph.output_node.tensor.shape), cycles[:, [0, -1]]


def _interval(ends: np.ndarray) -> float | None:
    """Mean distance of frame ends over the second half of a run, when the pipeline is full; whole when it is
    steady."""
    if len(ends) < 3:
        return None
    half = len(ends) // 2
    value = (ends[-1] - ends[half - 1]) / (len(ends) - half)
    return int(value) if value == int(value) else float(value)


def _traces(
    design: Any, streams: Sequence[Any], taps: Sequence[Tap], samples: int, path: Path
) -> tuple[StreamTrace, ...]:
    """The tensors that passed on the internal streams, in the order of the design."""
    found = []
    number = 0
    for group in groups(taps):
        lines = frames.read_lines(path / group.name, group.digits)
        for index in range(len(group.taps)):
            stream = streams[number]
            number += 1
            if stream.node is not None:
                flag, data = group.columns(index)
                moved = lines[lines[:, flag] == ord("1"), data : data + group.taps[index].digits]
                found.append(_trace(design, stream, moved, samples))
    return tuple(found)


def _trace(design: Any, stream: Any, lines: np.ndarray, samples: int) -> StreamTrace:
    tensor = design.graph[stream.node].tensor
    whole = tensor.size // stream.lanes * samples
    if len(lines) != whole:
        raise verilator.SimulationError(
            f"sim of {design.top}: {len(lines)} beats on stream {stream.name}, "
            f"expected {whole} for {samples} frames"
        )
    beats = frames.from_hex(lines, stream.width, stream.lanes, tensor.format.signed)
    return StreamTrace(
        stream.name, stream.node, frames.from_beats(beats.reshape(samples, -1, stream.lanes), tensor.shape)
    )
