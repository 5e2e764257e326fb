"""An independent check of a design's ports: cocotbext-axi instead of our harness
(`testbenches/axi_stream.py`)."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qfx.rtl.memories import stream_file, stream_image
from qfx.sim import frames, verilator
from qfx.sim.simulation import Port, encode_input, port, split_files

TESTS = ("back_to_back", "random_stalls", "reset_in_a_frame")


def check_axi(
    design: Any, x: Any, *, directory: Path | str | None = None, seed: int = 1, timeout_s: float = 3600.0
) -> verilator.Results:
    """Run a few samples through the top module with cocotbext-axi and compare with the graph's interpreter.

    Three tests: back to back, random pauses at all ports, and a reset in the middle of a frame followed by a
    clean run. Ports for weights from outside have a source each, which has exactly the beats that the frames
    need; the design must take all of them.

    Args:
        design: from :func:`qfx.rtl.generate`.
        x: real numbers, ``(samples, *input shape)``; a handful of samples, each test sends all of them.
        directory: run here and keep everything; by default a temporary directory.

    Raises:
        QfxError: the input has the wrong shape or holds NaN.
        SimulationError: a test failed; the message names it, the frame and the byte.
    """
    codes = encode_input(design.graph, x)
    expected = design.graph.run_codes(x)
    source, sink = port(design.input_stream), port(design.output_stream)
    path = Path(directory) if directory is not None else Path(tempfile.mkdtemp(prefix="qfx-axi-"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "input.bin").write_bytes(wire_bytes(codes, source))
        (path / "expected.bin").write_bytes(wire_bytes(expected, sink))
        settings: dict[str, Any] = {
            "input_beats": source.beats,
            "input_bytes": source.bits // 8,
            "output_beats": sink.beats,
            "output_bytes": sink.bits // 8,
            "weights": _weights(design, path),
            "limit_cycles": 20 * (int(design.latency) + int(design.interval)) + 2000,
        }
        (path / "frames.json").write_text(json.dumps(settings))
        verilog, memories = split_files(design.files)
        control = path / "ports.vlt"
        control.write_text(_ports_visible(design.top, [entry["name"] for entry in settings["weights"]]))
        built = verilator.build([control, *verilog], design.top, public=False)
        return verilator.run(
            built,
            "qfx.sim.testbenches.axi_stream",
            test_dir=path,
            data_files=memories,
            seed=seed,
            timeout_s=timeout_s,
        )
    finally:
        if directory is None:
            shutil.rmtree(path, ignore_errors=True)


def _weights(design: Any, path: Path) -> list[dict[str, Any]]:
    """Writes one pass of each weight stream to a file, and says how it goes to its port."""
    found = []
    for stream, memory in getattr(design, "weight_streams", ()):
        if memory.words is None:  # of a design that was loaded: they stand in its file only
            image = (Path(design.directory) / stream_file(memory)).read_bytes()
        else:
            image = stream_image(stream, memory)
        (path / f"{stream.name}.bin").write_bytes(image)
        passes = stream.beats // memory.depth
        found.append({"name": stream.name, "bytes": -(-stream.bits // 8), "passes": passes})
    return found


def _ports_visible(top: str, weights: Sequence[str] = ()) -> str:
    """A Verilator control file that shows cocotb the ports and nothing else: the rest stays optimized."""
    wires = ("tdata", "tvalid", "tready", "tlast")
    ends = [f"{end}_{wire}" for end in ("s_axis", "m_axis") for wire in wires]
    ends += [f"s_axis_{name}_{wire}" for name in weights for wire in wires[:3]]
    lines = [f'public_flat_rw -module "{top}" -var "{name}"' for name in ("aclk", "aresetn", *ends)]
    return "`verilator_config\n" + "\n".join(lines) + "\n"


def wire_bytes(codes: np.ndarray, ends: Port) -> bytes:
    """Codes ``(samples, channels, *space)`` as the bytes that pass on a port, frame after frame, lowest byte
    lane first."""
    beats = frames.to_beats(np.asarray(codes), ends.lanes).reshape(-1, ends.lanes)
    text = frames.to_hex(beats, ends.width, ends.bits)
    return b"".join(bytes.fromhex(line.decode())[::-1] for line in text.splitlines())
