"""An independent check of a design's ports: cocotbext-axi instead of our harness
(`testbenches/axi_stream.py`)."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.sim import frames, verilator
from qfx.sim.simulation import Port, encode_input, port, split_files

TESTS = ("back_to_back", "random_stalls", "reset_in_a_frame")


def check_axi(
    design: Any, x: Any, *, directory: Path | str | None = None, seed: int = 1, timeout_s: float = 3600.0
) -> verilator.Results:
    """Run a few samples through the top module with cocotbext-axi and compare with the graph's interpreter.

    Three tests: back to back, random pauses at both ends, and a reset in the middle of a frame followed by a
    clean run.

    Args:
        design: from :func:`qfx.rtl.generate`.
        x: real numbers, ``(samples, *input shape)``; a handful of samples, each test sends all of them.
        directory: run here and keep everything; by default a temporary directory.

    Raises:
        QfxError: the input has the wrong shape or holds NaN.
        SimulationError: a test failed; the message names it, the frame and the byte.
    """
    if getattr(design, "weight_streams", ()):
        raise QfxError(
            f"check_axi of {design.top}: the design takes weights from outside, which this check does not "
            "bring; use qfx.sim.run"
        )
    codes = encode_input(design.graph, x)
    expected = design.graph.run_codes(x)
    source, sink = port(design.input_stream), port(design.output_stream)
    path = Path(directory) if directory is not None else Path(tempfile.mkdtemp(prefix="qfx-axi-"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "input.bin").write_bytes(wire_bytes(codes, source))
        (path / "expected.bin").write_bytes(wire_bytes(expected, sink))
        settings = {
            "input_beats": source.beats,
            "input_bytes": source.bits // 8,
            "output_beats": sink.beats,
            "output_bytes": sink.bits // 8,
            "limit_cycles": 20 * (int(design.latency) + int(design.interval)) + 2000,
        }
        (path / "frames.json").write_text(json.dumps(settings))
        verilog, memories = split_files(design.files)
        control = path / "ports.vlt"
        control.write_text(_ports_visible(design.top))
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


def _ports_visible(top: str) -> str:
    """A Verilator control file that shows cocotb the ports and nothing else: the rest stays optimized."""
    ends = [
        f"{end}_{wire}" for end in ("s_axis", "m_axis") for wire in ("tdata", "tvalid", "tready", "tlast")
    ]
    lines = [f'public_flat_rw -module "{top}" -var "{name}"' for name in ("aclk", "aresetn", *ends)]
    return "`verilator_config\n" + "\n".join(lines) + "\n"


def wire_bytes(codes: np.ndarray, ends: Port) -> bytes:
    """Codes ``(samples, channels, *space)`` as the bytes that pass on a port, frame after frame, lowest byte
    lane first."""
    beats = frames.to_beats(np.asarray(codes), ends.lanes).reshape(-1, ends.lanes)
    text = frames.to_hex(beats, ends.width, ends.bits)
    return b"".join(bytes.fromhex(line.decode())[::-1] for line in text.splitlines())
