"""An HLS project on disk: compile it, run it, trace it, synthesise it."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qfx.boards import Board
from qfx.errors import MissingToolError, QfxError
from qfx.graph import ops
from qfx.graph.graph import Graph
from qfx.hls.layers import LayerSpec, memory_shape
from qfx.hls.report import SynthesisReport, read_report

#: Marks a folder as written by QFX; holds what it was written for.
MARKER = "qfx_project.json"

#: The language version is what the project's script gives the vendor's tool. Statics of templates stay inside
#: each library, because designs share names of types. The headers of ap_fixed are full of warnings.
_FLAGS = ("-std=c++11", "-fPIC", "-fno-gnu-unique", "-w", "-Icsim", "-Ifirmware/ap_types")

#: Command lines of the vendor's tools, the latest first.
_COMMANDS = {
    "Vitis": (("vitis-run", "--mode", "hls", "--tcl", "build_prj.tcl"), ("vitis_hls", "-f", "build_prj.tcl")),
    "Vivado": (("vivado_hls", "-f", "build_prj.tcl"),),
}

_library_number = itertools.count()


@dataclass(eq=False)
class Project:
    """What :func:`qfx.hls.convert` wrote.

    Attributes:
        graph: the network.
        out_dir: the hls4ml project.
        board: what it is for.
        clock_mhz: the clock that the vendor's tool is asked for.
        io: ``parallel`` or ``stream``.
        backend: hls4ml's backend, ``Vitis`` or ``Vivado``.
        top: name of the top-level function.
        layers: the layers of the design, in order.
        remarks: what hls4ml and QFX have to say about the options, such as reuse factors that were adjusted.
    """

    graph: Graph
    out_dir: Path
    board: Board
    clock_mhz: float
    io: str
    backend: str
    top: str
    layers: tuple[LayerSpec, ...]
    remarks: tuple[str, ...] = ()
    _library: Any = field(default=None, repr=False)
    _weights: Any = field(default=None, repr=False)

    # -- C simulation --------------------------------------------------------------------------------------

    def compile(self, optimize: int = 1) -> Project:
        """Build the C simulation with g++ (through ccache, when installed) and load it.

        Args:
            optimize: the number of g++'s ``-O``; 0 builds fastest and runs slowest by far, 2 and 3 gain
                nothing.

        Raises:
            MissingToolError: no g++.
            QfxError: g++ refuses the project; the message has its first error.
        """
        if shutil.which("g++") is None:
            raise MissingToolError(
                "hls: g++ is not on PATH, and C simulation needs it; install it (Debian: apt-get install g++)"
            )
        compiler = ["ccache", "g++"] if shutil.which("ccache") else ["g++"]
        folder = self.out_dir / "build"
        folder.mkdir(exist_ok=True)
        # A library keeps its name for as long as it is loaded: a second build needs another one.
        name = f"build/{self.top}-{os.getpid()}-{next(_library_number)}"
        self._run(
            [*compiler, *_FLAGS, f"-O{int(optimize)}", "-c", f"{self.top}_bridge.cpp", "-o", f"{name}.o"]
        )
        self._run(["g++", "-shared", f"{name}.o", "-o", f"{name}.so"])
        path = (self.out_dir / f"{name}.so").resolve()
        self._library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        for function in (self._library.qfx_run, self._library.qfx_trace):
            function.restype = ctypes.c_longlong
        self._library.qfx_message.restype = ctypes.c_char_p
        self._weights = ctypes.c_char_p(str(self.out_dir.resolve() / "firmware" / "weights").encode())
        self._library.qfx_weights(self._weights)
        path.with_suffix(".o").unlink()
        path.unlink()  # it stays loaded
        return self

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.out_dir, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
            first = next((line for line in lines if "error" in line.lower()), lines[0])
            raise QfxError(f"hls: {' '.join(command)} failed in {self.out_dir}: {first}")

    def predict(self, x: Any) -> np.ndarray:
        """Outputs of the C simulation.

        Args:
            x: real numbers, ``(samples, *input shape)``; numpy or torch. They are cast to the graph's input
                format on the host, as ``Graph.run`` does; the design gets codes.

        Returns:
            float64 values on the grid of the output format, ``(samples, *output shape)``.

        Raises:
            QfxError: wrong shape, NaN in ``x``, or the project is not compiled.
        """
        return np.asarray(self.graph.output_node.tensor.format.decode(self.predict_codes(x), axis=1))

    def predict_codes(self, x: Any) -> np.ndarray:
        """As :meth:`predict`, but the output codes (int64)."""
        frames, result = self._frames(x)
        failed = self._loaded().qfx_run(_pointer(frames), _pointer(result), ctypes.c_longlong(len(frames)))
        if failed:
            message = self._library.qfx_message().decode(errors="replace")
            self._library = None  # what its line buffers hold is unknown now
            raise QfxError(
                f"hls: C simulation failed at sample {failed - 1}: {message}; compile() starts anew"
            )
        return _channels_first(result, self.graph.output_node.tensor.shape)

    def trace(self, x: Any) -> dict[str, np.ndarray]:
        """Codes (int64) of the tensors that exist in the design, by graph node name, batch first.

        A tensor whose cast is done by its own layer does not exist: that node is missing here, its cast is
        not. :meth:`Graph.trace` has all nodes.
        """
        frames, result = self._frames(x)
        traced = [layer for layer in self.layers if layer.traced]
        buffers = [np.zeros((len(frames), layer.size), dtype=np.int64) for layer in traced]
        n = len(traced)
        names = (ctypes.c_char_p * n)(*(layer.name.encode() for layer in traced))
        sizes = (ctypes.c_longlong * n)(*(layer.size for layer in traced))
        targets = (ctypes.POINTER(ctypes.c_longlong) * n)(*(_pointer(b) for b in buffers))
        count, samples = ctypes.c_longlong(n), ctypes.c_longlong(len(frames))
        # A stream that is not empty at the end shows in the tensors too; that is what a trace is for.
        self._loaded().qfx_trace(_pointer(frames), _pointer(result), samples, names, sizes, targets, count)
        inp = self.graph.input_node
        codes = {inp.name: _channels_first(frames, inp.tensor.shape)}
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
        """Input codes in memory order, and room for the output."""
        inp, out = self.graph.input_node.tensor, self.graph.output_node.tensor
        shape = tuple(getattr(x, "shape", ()))
        if shape[1:] != inp.shape or not shape:
            expected = ", ".join(map(str, inp.shape))
            raise QfxError(f"hls: input has shape {shape}, expected (samples, {expected})")
        source = self.graph.input_node.op
        assert isinstance(source, ops.Input)
        codes = source.format.integers(_to_numpy(x), axis=1)
        return _channels_last(codes), np.zeros((len(codes), out.size), dtype=np.int64)

    # -- synthesis -----------------------------------------------------------------------------------------

    def write_test_vectors(self, x: Any) -> Path:
        """Write inputs and expected outputs for the test bench.

        The vendor's C and C/RTL simulations (:meth:`synthesize`) then check every output code; the project's
        own script (:attr:`synthesis_command`) runs the C simulation from now on.

        Args:
            x: real numbers, ``(samples, *input shape)``.

        Returns:
            The folder ``tb_data``.
        """
        frames, _ = self._frames(x)
        expected = _channels_last(np.asarray(self.graph.run_codes(x)))
        folder = self.out_dir / "tb_data"
        folder.mkdir(exist_ok=True)
        for name, rows in (("inputs", frames), ("outputs", expected)):
            partial = folder / f".{name}.txt"
            np.savetxt(partial, rows, fmt="%d")
            partial.rename(folder / f"{name}.txt")
        write_options(self.out_dir, csim=True)
        return folder

    @property
    def synthesis_command(self) -> tuple[str, ...]:
        """The vendor tool's command, to be run in :attr:`out_dir`: the one on PATH, else the latest."""
        commands = _COMMANDS[self.backend]
        return next((c for c in commands if shutil.which(c[0]) is not None), commands[0])

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
                f"hls: {command[0]} ({self.backend} HLS) is not on PATH; to synthesise elsewhere, copy "
                f"{self.out_dir} to a machine that has it and run there: "
                f"cd {self.out_dir.name} && {' '.join(command)}"
            )
        if (csim or cosim) and not (self.out_dir / "tb_data" / "inputs.txt").is_file():
            raise QfxError(
                "hls: the vendor's simulations need test vectors; call .write_test_vectors(x) first"
            )
        write_options(self.out_dir, csim, cosim)
        log = self.out_dir / "synthesis.log"
        with log.open("w") as file:
            try:
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

    # -- description ---------------------------------------------------------------------------------------

    def summary(self) -> str:
        """A table of the layers (what computes each, shape, type, module), and the remarks."""
        rows = [("layer", "operators", "computed by", "shape", "result type", "module")]
        for layer in self.layers:
            by = f"hls4ml {layer.class_name}"
            if layer.class_name == "QfxKernel":
                by = str(layer.attributes["function"]).split(", ")[-1].replace("::", " ")
            path = next((node.path for node in layer.nodes if node.path), "")
            kinds = " + ".join(node.op.kind for node in layer.nodes)
            shape = "x".join(map(str, layer.shape))
            rows.append((layer.name, kinds, by, shape, str(layer.types["result"]), path))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        own = sum(layer.class_name == "QfxKernel" for layer in self.layers)
        return "\n".join(
            [
                f"{self.backend} HLS project {self.out_dir}",
                f"for {self.board.title} ({self.board.part}), {self.clock_mhz:g} MHz, io_{self.io}, "
                f"{len(self.layers)} layers, {own} of them QFX kernels",
                "",
                lines[0],
                "  ".join("-" * w for w in widths),
                *lines[1:],
                *(f"note: {remark}" for remark in self.remarks),
            ]
        )


def write_options(folder: Path, csim: bool = False, cosim: bool = False) -> None:
    """The file that hls4ml's ``build_prj.tcl`` takes its steps from."""
    steps = {"csim": csim, "synth": True, "cosim": cosim, "validation": csim and cosim}
    options = {"reset": True, **steps, "export": False, "vsynth": False, "fifo_opt": False}
    lines = [f"    {name} {int(value)}" for name, value in options.items()]
    (folder / "build_opt.tcl").write_text("\n".join(["array set opt {", *lines, "}", ""]))


def _to_numpy(codes: Any) -> np.ndarray:
    return codes.numpy() if hasattr(codes, "numpy") else np.asarray(codes)


def _pointer(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_longlong))


def _channels_last(codes: np.ndarray) -> np.ndarray:
    """Frames in memory order, one a row."""
    size = int(np.prod(codes.shape[1:]))
    return np.ascontiguousarray(np.moveaxis(codes, 1, -1).reshape(len(codes), size), dtype=np.int64)


def _channels_first(
    frames: np.ndarray, shape: tuple[int, ...], order: np.ndarray | None = None
) -> np.ndarray:
    """Graph tensors from frames in memory order."""
    if order is not None:
        placed = np.empty_like(frames)
        placed[:, order] = frames
        return placed.reshape(len(frames), *shape)
    return np.ascontiguousarray(np.moveaxis(frames.reshape(len(frames), *memory_shape(shape)), -1, 1))
