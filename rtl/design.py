"""The dataflow design: what stands between the integer graph and Verilog text.

Plain data: kernel instances with their parameters, streams with their widths and rates, FIFOs with their
depths, memories with their words. Folding, FIFO sizing, timing and cost are functions of it; the emitter only
prints it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qfx.graph import Graph

if TYPE_CHECKING:
    from qfx.boards import Board
    from qfx.rtl.reports import Synthesis

Parameter = int | str


@dataclass(frozen=True)
class Stream:
    """An AXI4-Stream connection: from one kernel's output to one kernel's input, or to a port of the top
    module.

    Attributes:
        name: unique in the design; the prefix of its wires in the top module.
        width: bits of an element.
        signed: whether elements are two's complement.
        lanes: elements of a beat, element 0 in the lowest bits.
        beats: beats of a frame.
        node: name of the graph node whose tensor passes here in stream order (row, column, channel), or
            ``None``: sliding windows, operands brought to another binary point, and tensors in another order
            carry no tensor of the graph as it is.
    """

    name: str
    width: int
    signed: bool
    lanes: int
    beats: int
    node: str | None = None

    @property
    def bits(self) -> int:
        """Bits of a beat."""
        return self.width * self.lanes

    @property
    def tdata(self) -> str:
        """Name of the data wire in the top module."""
        return f"{self.name}_tdata"

    @property
    def tvalid(self) -> str:
        """Name of the valid wire in the top module."""
        return f"{self.name}_tvalid"

    @property
    def tready(self) -> str:
        """Name of the ready wire in the top module."""
        return f"{self.name}_tready"


@dataclass(frozen=True)
class Memory:
    """The initial contents of a memory, one word per line of ``file`` (docs/kernels.md, section 3).

    ``words`` is ``None`` in a design that was loaded: the file has them.
    """

    file: str
    bits: int
    depth: int
    words: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def digits(self) -> int:
        """Hexadecimal digits of a word."""
        return -(-self.bits // 4)

    @classmethod
    def of_rows(cls, file: str, rows: np.ndarray, bits: int) -> Memory:
        """Rows of integers as words, element 0 in the lowest bits, negative ones in two's complement."""
        mask = (1 << bits) - 1
        words = []
        for row in rows.tolist():
            word = 0
            for element in reversed(row):
                word = word << bits | int(element) & mask
            words.append(word)
        return cls(file, bits * rows.shape[1], len(words), tuple(words))

    def text(self) -> str:
        """What the file holds."""
        assert self.words is not None
        return "".join(f"{word:0{self.digits}x}\n" for word in self.words)


@dataclass(frozen=True, eq=False)
class Nested:
    """A kernel that is a design of its own.

    Attributes:
        design: of the parallel architecture; ``None`` while a folding is only being weighed.
        texts: Verilog by file name, the module around it first.
        lut, ff: estimate.
    """

    design: Design | None
    texts: Mapping[str, str] = field(repr=False)
    lut: float
    ff: float


@dataclass(frozen=True)
class Kernel:
    """One instance of a module of ``rtl/kernels`` (docs/kernels.md).

    Attributes:
        name: instance name, unique in the design.
        module: Verilog module.
        parameters: in the order of the module.
        inputs, outputs: names of streams, in port order.
        node: the graph node that it is part of; ``""`` for the ends of the design.
        memories: by the parameter that names the file.
        required: FIFOs only: the depth that may not be undercut (0: may be left out).
        latency, files, nested: of a module that was written for this instance (a layer unrolled into adders):
            cycles from a beat to its result, the Verilog files, and what they are made from.
    """

    name: str
    module: str
    parameters: Mapping[str, Parameter]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    node: str
    memories: Mapping[str, Memory] = field(default_factory=dict)
    required: int = 0
    latency: int = 0
    files: tuple[str, ...] = ()
    nested: Nested | None = field(default=None, repr=False, compare=False)

    def number(self, parameter: str) -> int:
        """A parameter that is a number."""
        value = self.parameters[parameter]
        assert isinstance(value, int), (self.name, parameter, value)
        return value

    def with_parameters(self, **values: Parameter) -> Kernel:
        """The same instance with other values of some parameters."""
        return replace(self, parameters={**self.parameters, **values})


@dataclass(frozen=True)
class Layer:
    """A graph node as hardware: its fold, and the steps that its slowest kernel needs for a frame."""

    node: str
    path: str
    kind: str
    pe: int
    simd: int | None
    steps: int


@dataclass(frozen=True, eq=False)
class Design:
    """A streaming accelerator for one graph.

    Attributes:
        graph: what it computes.
        top: name of the top module.
        kernels: in topological order; FIFOs and forks are kernels too.
        streams: every connection, ends included, in topological order of their producers.
        layers: one entry per graph node that became hardware.
        input_name, output_name: the streams at the ports.
        target: the initiation interval that the folding aimed at, in cycles.
        latency: cycles from the first input beat of a frame that enters the empty design to its last output
            beat: the difference of the numbers of the two cycles in which these beats move, with a source
            that always has a beat and a sink that always takes it.
        interval: cycles per frame in the steady state, likewise.
        board: name of the board that it was folded for, or ``None``.
        directory: where the files are, ``None`` before they are written.
        verilog: names of the Verilog files in it, the top module first.
        wires: the graph nodes that became no hardware, and why.
        estimate: LUT, FF, DSP and BRAM18 by :mod:`qfx.rtl.estimate`.
        architecture: ``"stream"`` (folded kernels of ``rtl/kernels``) or ``"parallel"`` (unrolled, one vector
            per cycle: docs/parallel.md). In a parallel design each of ``kernels`` is a module of its own,
            without parameters, and streams between them move with the one valid bit of their stage.
    """

    graph: Graph
    top: str
    kernels: tuple[Kernel, ...]
    streams: tuple[Stream, ...]
    layers: tuple[Layer, ...]
    input_name: str
    output_name: str
    target: int
    latency: int = 0
    interval: int = 0
    board: str | None = None
    directory: Path | None = None
    verilog: tuple[str, ...] = ()
    wires: Mapping[str, str] = field(default_factory=dict)
    estimate: Mapping[str, int] = field(default_factory=dict)
    architecture: str = "stream"

    def stream(self, name: str) -> Stream:
        """The stream of that name."""
        return self._streams[name]

    @property
    def input_stream(self) -> Stream:
        """The stream at ``s_axis``: codes of the graph's input."""
        return self._streams[self.input_name]

    @property
    def output_stream(self) -> Stream:
        """The stream at ``m_axis``: codes of the graph's output."""
        return self._streams[self.output_name]

    @property
    def weight_streams(self) -> tuple[tuple[Stream, Memory], ...]:
        """The streams that bring weights in from outside, and the weights of one pass as they come: a word of
        the memory is a beat. A frame takes ``stream.beats`` beats, which can be several passes.
        """
        return tuple(
            (self.stream(kernel.inputs[1]), kernel.memories["WEIGHT_FILE"])
            for kernel in self.kernels
            if kernel.module == "qfx_matvec_stream"
        )

    @property
    def memories(self) -> tuple[Memory, ...]:
        """All memory files."""
        return tuple(memory for kernel in self.kernels for memory in kernel.memories.values())

    @property
    def fifos(self) -> tuple[Kernel, ...]:
        """All FIFOs."""
        return tuple(kernel for kernel in self.kernels if kernel.module == "qfx_fifo")

    @property
    def modules(self) -> tuple[str, ...]:
        """The kernel modules that the top module instantiates, sorted."""
        return tuple(sorted({kernel.module for kernel in self.kernels}))

    @property
    def files(self) -> tuple[Path, ...]:
        """What a simulator or a synthesizer reads: Verilog, the top module first, then memory files."""
        directory = self.directory or Path()
        return tuple(directory / name for name in (*self.verilog, *(memory.file for memory in self.memories)))

    @property
    def _streams(self) -> dict[str, Stream]:
        cached: dict[str, Stream] | None = self.__dict__.get("_by_name")
        if cached is None:
            cached = {stream.name: stream for stream in self.streams}
            object.__setattr__(self, "_by_name", cached)
        return cached

    def producer(self, stream: str) -> Kernel | None:
        """The kernel that feeds a stream; ``None`` for the input port."""
        return next((kernel for kernel in self.kernels if stream in kernel.outputs), None)

    def consumer(self, stream: str) -> Kernel | None:
        """The kernel that a stream feeds; ``None`` for the output port."""
        return next((kernel for kernel in self.kernels if stream in kernel.inputs), None)

    def layer_kernels(self, node: str) -> Iterator[Kernel]:
        """The kernels of a graph node, in order of flow."""
        return (kernel for kernel in self.kernels if kernel.node == node)

    def synthesize(
        self, board: str | Board | os.PathLike[str] | None = None, *, timeout_s: float = 6 * 3600
    ) -> Synthesis:
        """Run the vendor's tools on the accelerator alone, up to routing: :func:`qfx.rtl.flow.synthesize`.

        Args:
            board: name or file of a board; by default the one that the design was generated for.
            timeout_s: limit in seconds.

        Raises:
            QfxError: not written yet, no board, the tool is missing or fails.
        """
        from qfx.rtl.flow import synthesize  # it is a function of a design

        return synthesize(self, board, timeout_s=timeout_s)

    def summary(self) -> str:
        """A table of the layers: fold, steps per frame, where weights are kept (words x bits), kernels."""
        from qfx.rtl.memories import describe  # it is a function of a design

        rows = [("layer", "operator", "module path", "pe", "simd", "steps", "weights", "kernels")]
        for layer in self.layers:
            kernels = " ".join(
                "unrolled" if kernel.files else kernel.module.removeprefix("qfx_")
                for kernel in self.layer_kernels(layer.node)
            )
            simd = "" if layer.simd is None else str(layer.simd)
            weights = describe(self.layer_kernels(layer.node))
            fold = (str(layer.pe), simd, str(layer.steps))
            rows.append((layer.node, layer.kind, layer.path, *fold, weights, kernels))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        ends = f"latency {self.latency} cycles, interval {self.interval} cycles (target {self.target})"
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:], ends])


def canonical_order(shape: tuple[int, ...]) -> np.ndarray:
    """Row-major index of the element at each stream position: rows, columns, channels, channels fastest."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    return np.moveaxis(index, 0, -1).reshape(-1)
