"""An HLS project on disk: compile it, run it, trace it, synthesise it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qfx.boards import Board
from qfx.errors import MissingToolError, QfxError
from qfx.graph.graph import Graph
from qfx.hls.layers import LayerSpec, memory_shape
from qfx.hls.report import SynthesisReport, read_report

#: Marks a folder as written by QFX; holds what it was written for.
MARKER = "qfx_project.json"


@dataclass(eq=False)
class Project:
    """What :func:`qfx.hls.convert` wrote.

    Attributes:
        graph: the network.
        out_dir: the hls4ml project.
        board: what it is for.
        io: ``parallel`` or ``stream``.
        backend: hls4ml's backend, ``Vitis`` or ``Vivado``.
        top: name of the top-level function.
        layers: the layers of the design, in order.
    """

    graph: Graph
    out_dir: Path
    board: Board
    io: str
    backend: str
    top: str
    layers: tuple[LayerSpec, ...]
    _library: Any = field(default=None, repr=False)

    # -- C simulation --------------------------------------------------------------------------------------------------

    def compile(self, optimize: int = 2) -> Project:
        """Build the C simulation with g++ (with ccache, when installed).

        Args:
            optimize: the number of g++'s ``-O``; 1 builds fastest, 3 runs fastest.

        Raises:
            MissingToolError: no g++.
            QfxError: g++ refuses the project; the message has its first error.
        """
        if shutil.which("g++") is None:
            raise MissingToolError(
                "hls: g++ is not on PATH, and C simulation needs it: install it (Debian: apt-get install g++)"
            )
        compiler = ["ccache", "g++"] if shutil.which("ccache") else ["g++"]
        # Statics of templates must stay inside each library: designs share names of types.
        flags = [
            "-std=c++14",
            f"-O{int(optimize)}",
            "-fPIC",
            "-fno-gnu-unique",
            "-fvisibility=hidden",
            "-w",
            "-Ifirmware/ap_types",
        ]
        weights = f'-DWEIGHTS_DIR="{self.out_dir.resolve()}/firmware/weights"'
        objects = []
        for source in (f"firmware/{self.top}.cpp", f"{self.top}_bridge.cpp"):
            target = Path("build") / (Path(source).stem + ".o")
            (self.out_dir / "build").mkdir(exist_ok=True)
            extra = [weights] if source.startswith("firmware/") else ["-fvisibility=default"]
            self._run([*compiler, *flags, *extra, "-c", source, "-o", str(target)])
            objects.append(str(target))
        library = self.out_dir / "build" / f"{self.top}-{os.getpid()}-{len(_LOADED)}.so"
        self._run(["g++", "-shared", *objects, "-o", str(library.relative_to(self.out_dir))])
        self._library = ctypes.CDLL(str(library.resolve()), mode=ctypes.RTLD_LOCAL)
        _LOADED.append(self._library)
        library.unlink()  # stays mapped; the next compile gets a name of its own
        return self

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.out_dir, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [
                line for line in done.stderr.splitlines() if "error" in line.lower()
            ] or done.stderr.splitlines()
            raise QfxError(
                f"hls: g++ failed in {self.out_dir} ({' '.join(command)}): {errors[0] if errors else done.returncode}"
            )

    def predict(self, x: Any) -> np.ndarray:
        """Outputs of the C simulation: float64 on the grid of the output format, ``(samples, *output shape)``.

        Args:
            x: real numbers, ``(samples, *input shape)``. They are cast to the graph's input format on the host, as everywhere in QFX.
        """
        codes = self.predict_codes(x)
        return np.asarray(self.graph.output_node.tensor.format.decode(codes, axis=1))

    def predict_codes(self, x: Any) -> np.ndarray:
        """As :meth:`predict`, but output codes (int64)."""
        frames, result = self._frames(x)
        failed = self._loaded().qfx_run(_pointer(frames), _pointer(result), ctypes.c_longlong(len(frames)))
        self._check(failed)
        return _channels_first(result, self.graph.output_node.tensor.shape)

    def trace(self, x: Any) -> dict[str, np.ndarray]:
        """Codes (int64) of the intermediate tensors that exist in the design, by graph node name, batch first.

        A tensor that a cast was fused into does not exist: its node is missing. :meth:`Graph.trace` has them all.
        """
        frames, result = self._frames(x)
        traced = [layer for layer in self.layers if layer.traced]
        buffers = [np.zeros((len(frames), int(np.prod(s.shape))), dtype=np.int64) for s in traced]
        n = len(traced)
        failed = self._loaded().qfx_trace(
            _pointer(frames), _pointer(result), ctypes.c_longlong(len(frames)),
            (ctypes.c_char_p * n)(*(s.name.encode() for s in traced)),
            (ctypes.c_longlong * n)(*(b.shape[1] for b in buffers)),
            (ctypes.POINTER(ctypes.c_longlong) * n)(*(_pointer(b) for b in buffers)),
            ctypes.c_longlong(n),
        )  # fmt: skip
        self._check(failed)
        codes = {self.graph.input_node.name: _channels_first(frames, self.graph.input_node.tensor.shape)}
        for layer, buffer in zip(traced, buffers, strict=True):
            node = layer.nodes[-1]
            codes[node.name] = _channels_first(buffer, node.tensor.shape, layer.order)
        codes[self.graph.output] = _channels_first(result, self.graph.output_node.tensor.shape)
        return codes

    def _loaded(self) -> Any:
        if self._library is None:
            raise QfxError("hls: the project is not compiled yet; call .compile() first")
        return self._library

    def _frames(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        node = self.graph.input_node
        shape = tuple(x.shape[1:]) if hasattr(x, "shape") else None
        if shape != node.tensor.shape:
            raise QfxError(
                f"hls: input of shape {getattr(x, 'shape', None)}, expected (samples, {', '.join(map(str, node.tensor.shape))})"
            )
        codes = np.asarray(node.tensor.format.encode(x, axis=1))
        frames = np.ascontiguousarray(np.moveaxis(codes, 1, -1).reshape(len(codes), -1), dtype=np.int64)
        return frames, np.zeros((len(codes), self.graph.output_node.tensor.size), dtype=np.int64)

    def _check(self, failed: int) -> None:
        if failed:
            raise QfxError(
                f"hls: sample {failed - 1}: a stream held too few or too many elements after the frame"
            )

    # -- synthesis -----------------------------------------------------------------------------------------------------

    def write_test_vectors(self, x: Any) -> Path:
        """Write inputs and the expected outputs for the test bench; the vendor's C and RTL simulations then check every code.

        Args:
            x: real numbers, ``(samples, *input shape)``.

        Returns:
            The folder ``tb_data``.
        """
        frames, _ = self._frames(x)
        expected = np.asarray(self.graph.run_codes(x))
        outputs = np.moveaxis(expected, 1, -1).reshape(len(expected), -1)
        folder = self.out_dir / "tb_data"
        folder.mkdir(exist_ok=True)
        for name, rows in (("inputs", frames), ("outputs", outputs)):
            np.savetxt(folder / f"{name}.txt", rows, fmt="%d")
        return folder

    @property
    def synthesis_command(self) -> tuple[str, ...]:
        """The vendor tool's command, to be run in :attr:`out_dir`."""
        if self.backend == "Vitis":
            return ("vitis-run", "--tcl", "build_prj.tcl", "--mode", "hls")
        return ("vivado_hls", "-f", "build_prj.tcl")

    def synthesize(
        self, csim: bool = False, cosim: bool = False, timeout_s: float | None = None
    ) -> SynthesisReport:
        """Run the vendor's C synthesis and read its report.

        Args:
            csim: also run the vendor's C simulation on the test vectors (:meth:`write_test_vectors`).
            cosim: also run C/RTL co-simulation on them.
            timeout_s: give up after this many seconds.

        Raises:
            MissingToolError: the tool is not on PATH.
            QfxError: it failed, or left no report.
        """
        command = self.synthesis_command
        if shutil.which(command[0]) is None:
            raise MissingToolError(
                f"hls: {command[0]} is not on PATH; to synthesise elsewhere, copy {self.out_dir} to a machine with "
                f"{self.backend} HLS and run there: cd {self.out_dir.name} && {' '.join(command)}"
            )
        self._write_options(csim, cosim)
        log = self.out_dir / "synthesis.log"
        try:
            with log.open("w") as file:
                done = subprocess.run(
                    command,
                    cwd=self.out_dir,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=timeout_s,
                )
        except subprocess.TimeoutExpired as error:
            raise QfxError(f"hls: {command[0]} did not end within {timeout_s} s; see {log}") from error
        if done.returncode != 0:
            raise QfxError(f"hls: {command[0]} ended with exit status {done.returncode}; see {log}")
        return read_report(self.out_dir, self.top)

    def _write_options(self, csim: bool, cosim: bool) -> None:
        options = {
            "reset": 1,
            "csim": csim,
            "synth": 1,
            "cosim": cosim,
            "validation": 0,
            "export": 0,
            "vsynth": 0,
            "fifo_opt": 0,
        }
        lines = [f"    {name} {int(value)}" for name, value in options.items()]
        (self.out_dir / "build_opt.tcl").write_text("\n".join(["array set opt {", *lines, "}", ""]))

    # -- description ---------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """A table of the layers: what makes each, result type, and the graph nodes behind it."""
        rows = [("layer", "by", "shape", "result type", "module")]
        for layer in self.layers:
            by = f"hls4ml {layer.class_name}"
            if layer.class_name == "QfxKernel":
                by = str(layer.attributes["function"]).replace("qfx::", "qfx ")
            path = next((node.path for node in layer.nodes if node.path), "")
            rows.append((layer.name, by, "x".join(map(str, layer.shape)), str(layer.types["result"]), path))
        head = f"{self.backend} HLS project for {self.board.title} ({self.board.part}, {self.board.clock_mhz:g} MHz), io_{self.io}: {self.out_dir}"
        return "\n".join([head, *_table(rows)])


_LOADED: list[Any] = []


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]


def _pointer(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_longlong))


def _channels_first(frames: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None = None) -> np.ndarray:
    """Graph tensors from frames in memory order."""
    if order is not None:
        placed = np.empty_like(frames)
        placed[:, order] = frames
        return placed.reshape(len(frames), *shape)
    return np.ascontiguousarray(np.moveaxis(frames.reshape(len(frames), *memory_shape(shape)), -1, 1))
