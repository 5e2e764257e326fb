"""Stages and folds to a design: kernel instances, width converters, forks, FIFOs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import gcd, lcm

import numpy as np

from qfx.graph import Graph
from qfx.graph.tensor import integers
from qfx.rtl.array_stages import FoldedStage
from qfx.rtl.design import Design, Kernel, Layer, Memory, Parameter, Stream, canonical_order
from qfx.rtl.estimate import of as estimate
from qfx.rtl.library import clog2, window_usual_depth
from qfx.rtl.parallel import unrolled
from qfx.rtl.stages import (
    Binary,
    Concat,
    Decode,
    Depthwise,
    Elementwise,
    Geometry,
    MatVec,
    Pool,
    Program,
    Reorder,
    Stage,
    Value,
)


@dataclass(frozen=True)
class Fold:
    """The parallelism of a stage.

    Attributes:
        pe: elements of an output beat; of a matrix-vector unit, its processing elements.
        simd: matrix-vector units only: elements of an input beat.
        lanes: matrix-vector units behind a sliding window only: elements of the window's beats; divides
            ``simd``.
        memory: where weights are kept: ``"lut"`` (LUT RAM), ``"block"`` (block RAM), ``"stream"`` (outside: a
            port of the design brings them, for every frame), or ``"auto"``: where the synthesis tool puts
            them, and for stages without weights. ``"adders"``: nowhere, the matrix is a block of the parallel
            architecture (:mod:`qfx.rtl.parallel.unrolled`).
        levels: ``"adders"`` only: levels of logic between two registers.
    """

    pe: int
    simd: int | None = None
    lanes: int | None = None
    memory: str = "auto"
    levels: int = 0


#: Value of the kernels' ``ROM_STYLE`` for :attr:`Fold.memory`.
_ROM_STYLES = {"auto": "auto", "lut": "distributed", "block": "block"}


def divisors(n: int) -> list[int]:
    """In ascending order."""
    return [d for d in range(1, n + 1) if n % d == 0]


def is_main(stage: Stage) -> bool:
    """Whether a stage computes the tensor of its graph node, rather than prepare operands or write it in
    other codes.
    """
    if isinstance(stage, Pool):
        return True
    return stage.output.node == stage.node and not isinstance(stage, Reorder | Decode)


def lanes_in(stage: Stage, fold: Fold) -> int:
    """Elements of the beats that a stage takes."""
    if isinstance(stage, FoldedStage):
        # Stages without an input are no concern of converters.
        return (*stage.lanes(fold.pe, fold.simd), fold.pe)[0]
    if isinstance(stage, MatVec):
        lanes = fold.simd if stage.window is None else fold.lanes
        assert lanes is not None
        return lanes
    return fold.pe


def needs_window(stage: Stage, fold: Fold) -> bool:
    """Whether a sliding window kernel stands in front."""
    if isinstance(stage, MatVec):
        return stage.window is not None
    if isinstance(stage, Depthwise | Pool):
        # With all channels in one beat, the whole image is its own window.
        whole = stage.window.is_whole and fold.pe == stage.output.channels
        return not (whole or stage.window.is_identity)
    return False


# -- the kernels of one stage --------------------------------------------------------------------------------


def stage_kernels(stage: Stage, fold: Fold, *, words: bool = False, top: str | None = None) -> list[Kernel]:
    """The kernels of a stage in order of flow, without names and streams.

    Args:
        words: fill the memories; a folding that is only being weighed does not need them.
        top: prefix of modules that are written for a stage; without it they are only estimated.
    """
    if isinstance(stage, FoldedStage):
        return [stage.kernel(fold.pe, fold.simd, words)]
    kernels: list[Kernel] = []
    if needs_window(stage, fold):
        assert isinstance(stage, MatVec | Depthwise | Pool) and stage.window is not None
        groups = stage.groups if isinstance(stage, MatVec) else stage.inputs[0].channels // fold.pe
        pad = 0
        if isinstance(stage, Pool) and stage.scale is None and stage.inputs[0].signed:
            # The lowest code never wins.
            width = stage.inputs[0].width
            pad = (1 << width) - 1 if stage.codes else 1 << (width - 1)
        kernels.append(_window(stage.node, stage.inputs[0], lanes_in(stage, fold), groups, stage.window, pad))
    if isinstance(stage, MatVec):
        assert fold.simd is not None
        lanes = lanes_in(stage, fold)
        if lanes != fold.simd:
            kernels.append(_converter(stage.node, stage.inputs[0].width, lanes, fold.simd))
        if fold.memory == unrolled.ADDERS:
            kernels.append(unrolled.kernel(stage, fold.levels, top))
        else:
            kernels.append(_matvec(stage, fold, words))
    elif isinstance(stage, Depthwise):
        kernels.append(_depthwise(stage, fold, words))
    elif isinstance(stage, Pool):
        kernels.append(_pool(stage, fold))
    elif isinstance(stage, Elementwise):
        kernels.append(_elementwise(stage, fold, words))
    elif isinstance(stage, Binary):
        kernels.append(_binary(stage, fold))
    elif isinstance(stage, Concat):
        beats = [value.channels // fold.pe for value in stage.inputs]
        kernels.append(
            _kernel(
                "qfx_concat",
                stage.node,
                WIDTH=fold.pe * stage.output.width,
                BEATS0=beats[0],
                BEATS1=beats[1],
                WAIT=int(stage.waits),
            )
        )
    elif isinstance(stage, Reorder):
        kernels.append(_reorder(stage, fold, words))
    else:
        raise AssertionError(type(stage))
    return kernels


def frame_steps(stage: Stage, fold: Fold) -> int:
    """Steps of the slowest kernel of a stage for one frame: the interval that the stage allows."""
    return max(kernel_steps(stage, fold, kernel) for kernel in stage_kernels(stage, fold))


def kernel_steps(stage: Stage, fold: Fold, kernel: Kernel) -> int:
    """Steps of one of a stage's kernels for one frame."""
    if isinstance(stage, FoldedStage):
        return stage.steps(fold.pe, fold.simd)
    n = kernel.number
    match kernel.module:
        case "qfx_window":
            # Its reader has these steps; its writer takes every input beat, also those that a stride leaves
            # out.
            steps = n("OUT_H") * n("OUT_W") * n("KERNEL_H") * n("KERNEL_W")
            return max(steps, n("IN_H") * n("IN_W")) * n("BEATS")
        case "qfx_upsize":  # between window and matrix
            assert isinstance(stage, MatVec) and fold.lanes is not None
            return stage.rounds * stage.groups * stage.columns // fold.lanes
        case "qfx_matvec" | "qfx_matvec_stream":
            assert isinstance(stage, MatVec)
            return stage.rounds * n("GROUPS") * n("NF") * n("SF")
        case "qfx_depthwise" | "qfx_pool":
            return stage.output.size // n("P") * n("K")
        case "qfx_reorder":
            return n("LENGTH")
    return stage.output.size // fold.pe


def _kernel(module: str, node: str, **parameters: Parameter) -> Kernel:
    return Kernel("", module, parameters, (), (), node)


def _window(node: str, x: Value, lanes: int, groups: int, g: Geometry, pad: int) -> Kernel:
    value = sum(pad << (x.width * lane) for lane in range(lanes))
    kernel = _kernel(
        "qfx_window",
        node,
        WIDTH=lanes * x.width,
        BEATS=x.channels // lanes,
        GROUPS=groups,
        IN_H=g.in_h,
        IN_W=g.in_w,
        OUT_H=g.out_h,
        OUT_W=g.out_w,
        KERNEL_H=g.kernel_h,
        KERNEL_W=g.kernel_w,
        STRIDE_H=g.stride_h,
        STRIDE_W=g.stride_w,
        DILATION_H=g.dilation_h,
        DILATION_W=g.dilation_w,
        PAD_TOP=g.pad_top,
        PAD_LEFT=g.pad_left,
        PAD_VALUE=value,
        DEPTH=1,
        RAM_STYLE="auto",
    )
    return kernel.with_parameters(DEPTH=window_usual_depth(kernel))


def _converter(node: str, width: int, before: int, after: int) -> Kernel:
    return _kernel(
        "qfx_upsize" if after > before else "qfx_downsize", node, WIDTH=width, IN=before, OUT=after
    )


def suited(stage: MatVec, fold: Fold) -> MatVec:
    """The matrix with the arithmetic that costs least in a fold: a shifter for the scales of blocks is worth
    its while with several weights of a block in a step. Weights from outside come as codes, which are
    narrower."""
    if stage.otherwise is None or fold.memory == "stream":
        return stage
    ways = (stage, stage.otherwise)
    costs = [estimate(_matrix_kernel(way, fold, words=False)).weight for way in ways]
    return ways[costs.index(min(costs))]


def _matvec(stage: MatVec, fold: Fold, words: bool) -> Kernel:
    return _matrix_kernel(suited(stage, fold), fold, words)


def _matrix_kernel(stage: MatVec, fold: Fold, words: bool) -> Kernel:
    assert fold.simd is not None
    x, pe, simd = stage.inputs[0], fold.pe, fold.simd
    nf, sf = stage.rows // pe, stage.columns // simd
    kernel = _kernel(
        "qfx_matvec",
        stage.node,
        SIMD=simd,
        PE=pe,
        SF=sf,
        NF=nf,
        GROUPS=stage.groups,
        A_WIDTH=x.width,
        A_SIGNED=int(x.signed),
        W_WIDTH=stage.weight_width,
        W_SIGNED=int(stage.weight_signed),
        ACC_WIDTH=stage.output.width,
        SHIFT=stage.shift,
        HAS_BIAS=int(stage.bias is not None),
        **stage.arithmetic,
        **_blocks(stage, simd),
        WEIGHT_FILE="",
        BIAS_FILE="",
        SCALES_FILE="",
        RAM_STYLE="auto",
        ROM_STYLE=_ROM_STYLES.get(fold.memory, "auto"),
    )
    if fold.memory == "stream":
        kept = {k: v for k, v in kernel.parameters.items() if k not in ("WEIGHT_FILE", "ROM_STYLE")}
        kernel = _kernel("qfx_matvec_stream", stage.node, **kept)
    if not words:
        return kernel
    # (group, neuron fold, pe, synapse fold, simd) -> one word per (group, neuron fold, synapse fold)
    tiles = stage.weight.reshape(stage.groups, nf, pe, sf, simd).transpose(0, 1, 3, 2, 4)
    kernel = _with_memories(
        kernel, tiles.reshape(-1, pe * simd), stage.weight_width, stage.bias, pe, stage.output.width
    )
    if stage.scales is None:
        return kernel
    n = kernel.number
    # (group, neuron fold, pe, word, scale of the word) -> one word per (group, neuron fold, word)
    fine = np.repeat(stage.scales, stage.run // (n("BLOCK") * n("HOLD")), axis=2)
    scales = fine.reshape(stage.groups, nf, pe, sf // n("HOLD"), simd // n("BLOCK")).transpose(0, 1, 3, 2, 4)
    rows = integers(scales.reshape(-1, pe * simd // n("BLOCK")))
    memory = _memory(stage.node, "scales", rows, n("SCALE_WIDTH"))
    return _attach(kernel, {**kernel.memories, "SCALES_FILE": memory})


def _blocks(stage: MatVec, simd: int) -> dict[str, int]:
    """Which weights of a step share a scale, and for how many steps."""
    if stage.scales is None:
        return {"BLOCK": 0, "HOLD": 1, "SCALE_WIDTH": 1}
    hold = stage.run // simd if stage.run % simd == 0 else 1
    width = int(stage.scales.max()).bit_length()
    return {"BLOCK": gcd(simd, stage.run), "HOLD": hold, "SCALE_WIDTH": width}


def _depthwise(stage: Depthwise, fold: Fold, words: bool) -> Kernel:
    x, p = stage.inputs[0], fold.pe
    kernel = _kernel(
        "qfx_depthwise",
        stage.node,
        P=p,
        K=stage.window.taps,
        GROUPS=x.channels // p,
        A_WIDTH=x.width,
        A_SIGNED=int(x.signed),
        W_WIDTH=stage.weight_width,
        W_SIGNED=int(stage.weight_signed),
        ACC_WIDTH=stage.output.width,
        SHIFT=stage.shift,
        HAS_BIAS=int(stage.bias is not None),
        **stage.arithmetic,
        WEIGHT_FILE="",
        BIAS_FILE="",
        ROM_STYLE=_ROM_STYLES[fold.memory],
    )
    if not words:
        return kernel
    tiles = stage.weight.reshape(stage.window.taps, -1, p).transpose(1, 0, 2).reshape(-1, p)
    return _with_memories(kernel, tiles, stage.weight_width, stage.bias, p, stage.output.width)


def _with_memories(
    kernel: Kernel, weights: np.ndarray, weight_bits: int, bias: np.ndarray | None, lanes: int, bias_bits: int
) -> Kernel:
    memories = {"WEIGHT_FILE": _memory(kernel.node, "weights", weights, weight_bits)}
    if bias is not None:
        memories["BIAS_FILE"] = _memory(kernel.node, "bias", bias.reshape(-1, lanes), bias_bits)
    return _attach(kernel, memories)


def _pool(stage: Pool, fold: Fold) -> Kernel:
    x = stage.inputs[0]
    scale = 1 if stage.scale is None else stage.scale
    return _kernel(
        "qfx_pool",
        stage.node,
        P=fold.pe,
        K=stage.window.taps,
        MODE=2 if stage.codes and x.signed else int(stage.scale is not None),
        IN_WIDTH=x.width,
        IN_SIGNED=int(x.signed),
        OUT_WIDTH=stage.output.width,
        SCALE_WIDTH=scale.bit_length() + 1,
        SCALE=scale,
    )


def _elementwise(stage: Elementwise, fold: Fold, words: bool) -> Kernel:
    parameters = {"P": fold.pe, **stage.parameters}
    beats = stage.output.channels // fold.pe
    if "BEATS" in parameters:
        parameters["BEATS"] = beats if stage.tables else 1
    kernel = _kernel(stage.module, stage.node, **parameters)
    if not words:
        return kernel
    memories = {
        name: _memory(
            stage.output.name, name.removesuffix("_FILE").lower(), table.reshape(beats, fold.pe), bits
        )
        for name, (table, bits) in stage.tables.items()
    }
    return _attach(kernel, memories)


def _binary(stage: Binary, fold: Fold) -> Kernel:
    a, b = stage.inputs
    return _kernel(
        "qfx_binary",
        stage.node,
        P=fold.pe,
        WIDTH0=a.width,
        SIGNED0=int(a.signed),
        SHIFT0=stage.shifts[0],
        WIDTH1=b.width,
        SIGNED1=int(b.signed),
        SHIFT1=stage.shifts[1],
        MODE=stage.mode,
        OUT_WIDTH=stage.output.width,
    )


def _reorder(stage: Reorder, fold: Fold, words: bool) -> Kernel:
    x = stage.inputs[0]
    length = x.size // fold.pe
    kernel = _kernel(
        "qfx_reorder", stage.node, WIDTH=fold.pe * x.width, LENGTH=length, ADDRESS_FILE="", RAM_STYLE="auto"
    )
    if not words:
        return kernel
    address = stage.address[:: fold.pe].reshape(-1, 1) // fold.pe
    memory = _memory(stage.output.name, "address", address, max(1, clog2(length)))
    return _attach(kernel, {"ADDRESS_FILE": memory})


def _memory(name: str, what: str, elements: np.ndarray, bits: int) -> Memory:
    return Memory.of_rows(f"{name}_{what}.mem", elements, bits)


def _attach(kernel: Kernel, memories: Mapping[str, Memory]) -> Kernel:
    # Weights that are streamed in have a file, but no parameter for it.
    files = {name: memory.file for name, memory in memories.items() if name in kernel.parameters}
    full = kernel.with_parameters(**files)
    return Kernel(full.name, full.module, full.parameters, full.inputs, full.outputs, full.node, memories)


# -- converters ----------------------------------------------------------------------------------------------


def conversion(before: int, after: int, size: int, target: int) -> tuple[int, ...]:
    """Lanes on the way from ``before`` to ``after`` lanes, both ends left out, for frames of ``size``
    elements.

    Where neither divides the other, through their greatest common divisor when that is fast enough for
    ``target`` cycles per frame (narrow and cheap), otherwise through their least common multiple.
    """
    if before == after or before % after == 0 or after % before == 0:
        return ()
    narrow = gcd(before, after)
    return (narrow,) if size // narrow <= target else (lcm(before, after),)


def fifo_lanes(before: int, after: int, size: int, target: int) -> int:
    """Elements of the beats that a FIFO on the way from ``before`` to ``after`` lanes holds.

    It stands after the last upsizer, which makes a beat in several cycles and so has to work ahead where
    beats are taken in bursts; a downsizer makes one per cycle and needs none behind it.
    """
    widths = [before, *conversion(before, after, size, target), after]
    wider = [b for a, b in zip(widths, widths[1:], strict=False) if b > a]
    return wider[-1] if wider else before


def has_fifo(stage: Stage, operand: int) -> bool:
    """Whether a FIFO stands in front of an operand of a stage: of a join, to level its branches; of a matrix
    without a window, to feed it while it works through its folds. Both cut the combinational path of
    ``tready``.
    """
    if isinstance(stage, MatVec):
        return stage.window is None
    if isinstance(stage, Decode):
        return stage.ahead
    if isinstance(stage, Binary):
        return operand not in stage.direct
    return isinstance(stage, Concat) or isinstance(stage, FoldedStage) and stage.buffered


def conversion_kernels(
    node: str, width: int, before: int, after: int, size: int, target: int
) -> list[Kernel]:
    """The converters themselves."""
    path = (before, *conversion(before, after, size, target), after)
    return [_converter(node, width, a, b) for a, b in zip(path, path[1:], strict=False) if a != b]


# -- the whole design ----------------------------------------------------------------------------------------


def build(
    graph: Graph, program: Program, folds: Mapping[str, Fold], input_lanes: int, target: int, top: str
) -> Design:
    """Connect everything.

    FIFO depths are the least that structure asks for, 0 where a FIFO is there for speed only;
    :mod:`qfx.rtl.fifos` sizes them.

    Args:
        folds: by the name of each stage's output value.
        input_lanes: elements of an input beat.
        target: the interval, in cycles, that converters must allow.
    """
    return _Builder(graph, program, folds, input_lanes, target, top).run()


class _Builder:
    def __init__(
        self,
        graph: Graph,
        program: Program,
        folds: Mapping[str, Fold],
        input_lanes: int,
        target: int,
        top: str,
    ) -> None:
        self.graph, self.program, self.folds, self.input_lanes = graph, program, folds, input_lanes
        self.target, self.top = target, top
        self.kernels: list[Kernel] = []
        self.streams: list[Stream] = []
        self.names: set[str] = set()
        self.ready: dict[str, list[Stream]] = {}  # by value name: one stream per consumer still to come

    def run(self) -> Design:
        program = self.program
        value = program.input
        first = self.stream("s_axis_in", value, self.input_lanes, value.node)
        self.offer(value, self.fifo(first, "input_fifo", value.name, "", required=2))
        for stage in program.stages:
            self.stage(stage)
        last = self.fifo(
            self.take(program.output), "output_fifo", f"{program.output.name}_out", "", required=2
        )
        main = {stage.node for stage in program.stages if is_main(stage)}
        layers = tuple(
            self.layer(stage)
            for stage in program.stages
            if is_main(stage) or (isinstance(stage, Reorder) and stage.node not in main)
        )
        worked_on = {layer.node for layer in layers}
        return Design(
            self.graph,
            self.top,
            tuple(self.kernels),
            tuple(self.streams),
            layers,
            first.name,
            last.name,
            self.target,
            wires={node: why for node, why in self.program.notes.items() if node not in worked_on},
        )

    def layer(self, stage: Stage) -> Layer:
        node, fold = self.graph[stage.node], self.folds[stage.output.name]
        return Layer(node.name, node.path, node.op.kind, fold.pe, fold.simd, frame_steps(stage, fold))

    def unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self.names:
            n += 1
            candidate = f"{name}_{n}"
        self.names.add(candidate)
        return candidate

    def stream(
        self, name: str, value: Value, lanes: int, node: str | None, beats: int | None = None
    ) -> Stream:
        stream = Stream(
            self.unique(name),
            value.width,
            value.signed,
            lanes,
            value.size // lanes if beats is None else beats,
            node,
        )
        self.streams.append(stream)
        return stream

    def copy(self, name: str, like: Stream, lanes: int | None = None) -> Stream:
        """Another stream with the same elements."""
        lanes = like.lanes if lanes is None else lanes
        beats = like.beats * like.lanes // lanes
        stream = Stream(self.unique(name), like.width, like.signed, lanes, beats, like.node)
        self.streams.append(stream)
        return stream

    def place(
        self, kernel: Kernel, name: str, inputs: tuple[Stream, ...], outputs: tuple[Stream, ...]
    ) -> None:
        taken, made = (tuple(s.name for s in streams) for streams in (inputs, outputs))
        self.kernels.append(replace(kernel, name=self.unique(name), inputs=taken, outputs=made))

    def fifo(self, source: Stream, name: str, out: str, node: str, required: int) -> Stream:
        output = self.copy(out, source)
        parameters: dict[str, Parameter] = {"WIDTH": source.bits, "DEPTH": required, "STYLE": 0}
        kernel = Kernel("", "qfx_fifo", parameters, (), (), node, {}, required)
        self.place(kernel, name, (source,), (output,))
        return output

    def convert(self, source: Stream, lanes: int, node: str, fifo: str = "") -> Stream:
        """Converters to ``lanes``; with ``fifo``, the prefix of its names, a FIFO among them."""
        total = source.lanes * source.beats
        path = [*conversion(source.lanes, lanes, total, self.target), lanes]
        place = [source.lanes, *path].index(fifo_lanes(source.lanes, lanes, total, self.target))
        for i in range(len(path) + 1):
            if fifo and i == place:
                source = self.fifo(source, f"{fifo}_fifo", f"{fifo}_q", node, required=2)
            if i < len(path) and path[i] != source.lanes:
                before, output = source, self.copy(f"{source.name}_x{path[i]}", source, path[i])
                converter = _converter(node, before.width, before.lanes, path[i])
                self.place(converter, f"{before.name}_to_x{path[i]}", (before,), (output,))
                source = output
        return source

    def offer(self, value: Value, stream: Stream) -> None:
        """Make a stream available to all its consumers, through a fork when there are several."""
        consumers = self.program.consumers(value)
        count = len(consumers) + (self.program.output.name == value.name)
        if count == 1:
            self.ready[value.name] = [stream]
            return
        branches = [self.copy(f"{stream.name}_to_{stage.output.name}", stream) for stage, _ in consumers]
        if self.program.output.name == value.name:
            branches.append(self.copy(f"{stream.name}_to_output", stream))
        fork = Kernel("", "qfx_fork", {"WIDTH": stream.bits, "N": count}, (), (), value.node or "")
        self.place(fork, f"{stream.name}_fork", (stream,), tuple(branches))
        self.ready[value.name] = branches

    def take(self, value: Value) -> Stream:
        return self.ready[value.name].pop(0)

    def stage(self, stage: Stage) -> None:
        fold = self.folds[stage.output.name]
        kernels = stage_kernels(stage, fold, words=True, top=self.top)
        lanes = lanes_in(stage, fold)
        per_input = stage.lanes(fold.pe, fold.simd) if isinstance(stage, FoldedStage) else ()
        inputs = []
        for index, value in enumerate(stage.inputs):
            source = self.take(value)
            number = "" if isinstance(stage, MatVec | Decode) else index
            fifo = f"{stage.output.name}_in{number}" if has_fifo(stage, index) else ""
            wanted = per_input[index] if per_input else lanes
            inputs.append(self.convert(source, wanted, stage.node, fifo))
        name = stage.output.name
        for kernel in kernels[:-1]:
            source = inputs[0]
            if kernel.module == "qfx_window":
                assert isinstance(stage, MatVec | Depthwise | Pool) and stage.window is not None
                beats = stage.window.pixels * stage.window.taps * stage.inputs[0].channels // lanes
                output = self.stream(f"{name}_win", stage.inputs[0], lanes, None, beats)
                self.place(kernel, f"{name}_window", (source,), (output,))
            else:
                output = self.copy(f"{name}_vec", source, kernel.number("OUT"))
                self.place(kernel, f"{name}_upsize", (source,), (output,))
                # The upsizer is slower than the matrix in the fold that takes beats; a FIFO lets it work
                # ahead.
                output = self.fifo(output, f"{name}_vec_fifo", f"{name}_vec_q", stage.node, required=0)
            inputs = [output]
        # A constant is ahead of its frames: its beats are not one tensor per sample.
        node = stage.output.node if stage.inputs and self.in_order(stage.output) else None
        if kernels[-1].module == "qfx_matvec_stream":
            inputs.append(self.weights(stage, kernels[-1]))
        result = self.stream(name, stage.output, fold.pe, node)
        kind = "unrolled" if kernels[-1].files else kernels[-1].module.removeprefix("qfx_")
        self.place(kernels[-1], f"{name}_{kind}", tuple(inputs), (result,))
        if isinstance(stage, FoldedStage) and stage.bursts:
            result = self.fifo(result, f"{name}_fifo", f"{name}_q", stage.node, required=0)
        self.offer(stage.output, result)

    def weights(self, stage: Stage, kernel: Kernel) -> Stream:
        """The stream that brings the weights of a matrix in from outside."""
        assert isinstance(stage, MatVec)
        n = kernel.number
        beats = stage.rounds * n("GROUPS") * n("NF") * n("SF")
        name = self.unique(f"{stage.output.name}_weights")
        stream = Stream(name, n("W_WIDTH"), bool(n("W_SIGNED")), n("PE") * n("SIMD"), beats, None)
        self.streams.append(stream)
        return stream

    def in_order(self, value: Value) -> bool:
        """Whether the stream carries the tensor of its node as the node has it: pixels in rows, channels
        fastest.
        """
        if value.node is None:
            return False
        return np.array_equal(value.order, canonical_order(self.graph[value.node].tensor.shape))


def drop_fifo(design: Design, fifo: Kernel) -> Design:
    """The design without a FIFO: its input stream goes straight on."""
    (before,), (after,) = fifo.inputs, fifo.outputs
    kernels = []
    for kernel in design.kernels:
        if kernel.name == fifo.name:
            continue
        inputs = tuple(before if name == after else name for name in kernel.inputs)
        kernels.append(replace(kernel, inputs=inputs))
    output = before if design.output_name == after else design.output_name
    streams = tuple(stream for stream in design.streams if stream.name != after)
    return replace(design, kernels=tuple(kernels), streams=streams, output_name=output)
