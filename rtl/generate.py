"""From a graph to a folder of Verilog."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from qfx import boards
from qfx.boards import Board
from qfx.errors import QfxError
from qfx.graph import Graph
from qfx.graph.prune import prune
from qfx.rtl import emit, fifos, flow, manifest, parallel, readback
from qfx.rtl.arithmetic import MULTIPLIERS
from qfx.rtl.build import build
from qfx.rtl.design import Design
from qfx.rtl.estimate import Resources, total
from qfx.rtl.fold import Folding, budget_of, cheaper, check_budget, choose
from qfx.rtl.lower import lower
from qfx.rtl.memories import stream_file, stream_image
from qfx.rtl.parallel.candidates import Unrolling
from qfx.rtl.stages import Program

_KEYWORDS = frozenset(
    """
    always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default
    defparam design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive
    endspecify endtable endtask event for force forever fork function generate genvar highz0 highz1 if
    ifnone incdir include initial inout input instance integer join large liblist library localparam
    macromodule medium module nand negedge nmos nor noshowcancelled not notif0 notif1 or output parameter
    pmos posedge primitive pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent rcmos real
    realtime reg release repeat rnmos rpmos rtran rtranif0 rtranif1 scalared showcancelled signed small
    specify specparam strong0 strong1 supply0 supply1 table task time tran tranif0 tranif1 tri tri0 tri1
    triand trior trireg unsigned use uwire vectored wait wand weak0 weak1 while wire wor xnor xor
    """.split()  # noqa: SIM905 (a paragraph is easier to check than a list)
)


def plan(
    graph: Graph,
    *,
    board: str | Board | os.PathLike[str] | None = None,
    fold: Mapping[str, Mapping[str, int]] | None = None,
    weights: Mapping[str, str] | None = None,
    interval: int | None = None,
    budget: Mapping[str, float] | None = None,
    frames_per_second: float | None = None,
    architecture: str | Mapping[str, str] = "stream",
    levels: int | None = None,
    multipliers: str = "auto",
    top: str = "qfx_top",
) -> Design:
    """The design that :func:`generate` would write, without writing it: folds, FIFO depths, latency,
    interval, estimate.

    Arguments and errors are those of :func:`generate`.
    """
    _check_top(top)
    target_board = None if board is None else boards.get(board)
    interval = _interval(interval, frames_per_second, target_board)
    if multipliers not in MULTIPLIERS:
        raise QfxError(f"multipliers={multipliers!r}: must be one of {', '.join(MULTIPLIERS)}")
    if architecture == "parallel":
        return _plan_parallel(graph, board, fold, levels, top, budget).design
    if isinstance(architecture, str) and architecture not in ("stream", "mixed"):
        raise QfxError(
            f"architecture={architecture!r}: must be 'stream', 'parallel', 'mixed', or 'parallel' by layer"
        )
    _check_levels(levels)
    if levels is not None and architecture == "stream":
        raise QfxError(
            "levels: only unrolled layers have them (architecture='parallel', 'mixed', or by layer); "
            "the stream kernels are pipelined as they are"
        )
    graph = _without_dead_channels(graph, interval, fold)
    unrolling = Unrolling(graph, architecture, levels)
    unrolling.check_folds(fold or {})
    program = lower(graph, multipliers, unrolling.nodes)
    unrolling.check(program.stages)
    maker = _Maker(graph, program, top, budget_of(target_board, budget).vector[3])
    choose(
        graph,
        program,
        interval=interval,
        board=target_board,
        budget=budget,
        fold=fold,
        weights=weights,
        others=unrolling.of_stage,
        measure=maker.measure,
    )
    design = maker.design
    assert design is not None
    return replace(
        design,
        board=None if target_board is None else target_board.name,
        verilog=(
            f"{top}.v",
            *(path.name for path in emit.sources(design.modules)),
            *(name for kernel in design.kernels for name in kernel.files),
        ),
    )


class _Maker:
    """Foldings as designs with their FIFOs sized; ``design`` is the last one."""

    def __init__(self, graph: Graph, program: Program, top: str, block_rams: float) -> None:
        self.graph, self.program, self.top, self.block_rams = graph, program, top, block_rams
        self.design: Design | None = None

    def measure(self, folding: Folding) -> Resources:
        """What the design of a folding costs, in whole numbers as they are reported."""
        built = build(self.graph, self.program, folding.folds, folding.input_lanes, folding.target, self.top)
        sized = fifos.size(built, block_rams=self.block_rams)
        cost = Resources(*(round(used) for used in total(sized.kernels).vector))
        self.design = replace(sized, estimate=asdict(cost))
        return cost


def generate(
    graph: Graph,
    out_dir: str | os.PathLike[str],
    *,
    board: str | Board | os.PathLike[str] | None = None,
    fold: Mapping[str, Mapping[str, int]] | None = None,
    weights: Mapping[str, str] | None = None,
    interval: int | None = None,
    budget: Mapping[str, float] | None = None,
    frames_per_second: float | None = None,
    architecture: str | Mapping[str, str] = "stream",
    levels: int | None = None,
    multipliers: str = "auto",
    top: str = "qfx_top",
) -> Design:
    """Write the Verilog of a graph.

    Args:
        graph: from :func:`qfx.freeze` or :func:`qfx.load`.
        out_dir: the folder to write; a folder that an earlier call wrote is replaced, any other that holds
            files is refused.
        board: name or file of a board; scripts for its tool chain are written too. Without ``interval`` and
            ``fold`` the design becomes the fastest that fits it by the estimate.
        fold: by node name or module path: ``{"pe": …, "simd": …}`` for ``linear`` and ``conv``, ``{"pe": …}``
            (elements per beat) for everything else. Layers that are not named keep up with those that are.
        weights: where the weights of layers are kept, by node name or module path: ``"lut"`` (look-up
            tables), ``"block"`` (block RAM), or ``"stream"``: outside, with a port of its own that brings
            them for every frame (docs/rtl.md, "Weights from outside"). The solver chooses for the others.
        interval: target: cycles per frame. The cheapest folding that reaches it is taken.
        budget: most LUTs, flip-flops, multiplier blocks and block RAMs of 18 Kbit by the estimate, any of
            ``"lut"``, ``"ff"``, ``"dsp"``, ``"bram18"``; they replace those of the board. Without
            ``interval`` and ``fold`` the design becomes the fastest within them.
        frames_per_second: instead of ``interval``: frames per second at the clock of ``board``.
        architecture: ``"stream"``: folded kernels, any size of network. ``"parallel"``: fully unrolled, a
            frame in every cycle, constant matrices as shared adder graphs without multipliers
            (docs/parallel.md); ``fold`` and ``interval`` do not apply. ``"mixed"``: folded kernels, and
            matrices unrolled into adders wherever the solver finds that cheaper. A dictionary, ``{"fc1":
            "parallel"}``: folded kernels, and these layers unrolled (node names or module paths).
        levels: of logic (adders, saturations) between two registers of what is unrolled, 3 by default.
        multipliers: of ``linear`` and ``conv`` in the stream architecture. ``"auto"``: whatever the estimate
            finds cheapest, DSP blocks for large products. ``"lut"``: without DSP blocks. ``"shift"``: as
            ``"lut"``, and weights in K-hot formats shift and add even where a multiplier is smaller.
        top: name of the top module.

    Without ``board``, ``fold`` and ``interval`` the layer with most multiplications gets about 64 multipliers
    and the other layers keep up with it.

    Channels that contribute nothing (all their weights are 0, say) are taken out of a stream design first,
    where that makes it cheaper; the ``graph`` of the design is the one without them. Single weights that are
    0 cost nothing in the parallel architecture, and a place in memory in the other.

    Returns:
        The design: ``.files .top .latency .interval .graph .streams .kernels .layers .summary()``.

    Raises:
        QfxError: the graph, a fold, the interval, the board or ``out_dir`` cannot be used as they are;
            nothing was written.
    """
    out = Path(out_dir)
    _check_target(out)
    target_board = None if board is None else boards.get(board)
    texts: Mapping[str, str] = {}
    if architecture == "parallel":
        _check_top(top)
        parallel_design = _plan_parallel(graph, target_board, fold, levels, top, budget)
        design, texts = parallel_design.design, parallel_design.texts
    else:
        design = plan(
            graph,
            board=target_board,
            fold=fold,
            weights=weights,
            interval=interval,
            budget=budget,
            frames_per_second=frames_per_second,
            architecture=architecture,
            levels=levels,
            multipliers=multipliers,
            top=top,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        written = replace(design, directory=temporary)
        _write(written, temporary, texts)
        if target_board is not None:
            flow.write(written, target_board, temporary)
        readback.check(written)
        os.chmod(temporary, 0o755)
        _replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(design, directory=out)


def _without_dead_channels(
    graph: Graph, interval: int | None, fold: Mapping[str, Mapping[str, int]] | None
) -> Graph:
    """The graph without channels that contribute nothing (:func:`qfx.graph.prune.prune`).

    It stays as it is where that costs less (of 479 channels a beat can hold 1 or all, of 480 many other
    numbers), where folds are given, which count channels as they are, and where the output would come to
    another binary point.
    """
    smaller = prune(graph)
    same_output = graph.output_node.tensor.fracs == smaller.output_node.tensor.fracs
    if smaller is graph or fold or not same_output:
        return graph
    return (smaller, graph)[cheaper([lower(smaller), lower(graph)], interval)]


def _interval(interval: int | None, frames_per_second: float | None, board: Board | None) -> int | None:
    """The interval that is asked for, in cycles."""
    if interval is not None and (isinstance(interval, bool) or not isinstance(interval, int) or interval < 1):
        raise QfxError(f"interval={interval!r}: must be a number of cycles, 1 or more")
    if frames_per_second is None:
        return interval
    if interval is not None:
        raise QfxError("interval and frames_per_second: both are given; give one of them")
    rate = frames_per_second
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
        raise QfxError(f"frames_per_second={rate!r}: must be a number above 0")
    if board is None:
        raise QfxError("frames_per_second: needs board=, for its clock; or give interval= in cycles")
    cycles = int(board.clock_mhz * 1e6 / rate)
    if cycles < 1:
        raise QfxError(
            f"frames_per_second={rate!r}: more than one frame per cycle of {board.name}'s clock of "
            f"{board.clock_mhz:g} MHz"
        )
    return cycles


def _check_top(top: str) -> None:
    if (
        not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", top)
        or top in _KEYWORDS
        or (emit.KERNELS / f"{top}.v").exists()
    ):
        raise QfxError(
            f"top={top!r}: must be a Verilog identifier of at most 64 letters, digits and _, no keyword, "
            "and not the name of a kernel"
        )


def _check_levels(levels: int | None) -> None:
    if levels is not None and (isinstance(levels, bool) or not isinstance(levels, int) or levels < 1):
        raise QfxError(f"levels={levels!r}: must be a number of levels of logic, 1 or more")


def _plan_parallel(
    graph: Graph,
    board: str | Board | os.PathLike[str] | None,
    fold: Mapping[str, Mapping[str, int]] | None,
    levels: int | None,
    top: str,
    budget: Mapping[str, float] | None,
) -> parallel.Parallel:
    if fold:
        raise QfxError("fold: the parallel architecture has nothing to fold; leave it out")
    _check_levels(levels)
    built = parallel.build(graph, top, levels or parallel.LEVELS)
    check_budget(
        budget, Resources(**built.design.estimate), "architecture='parallel'", "take 'stream' or 'mixed'"
    )
    name = None if board is None else boards.get(board).name
    return replace(built, design=replace(built.design, board=name))


def _write(design: Design, folder: Path, texts: Mapping[str, str]) -> None:
    """``texts``: the Verilog of a parallel design by file name; a stream design has its kernels."""
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="ascii")
    if not texts:
        (folder / f"{design.top}.v").write_text(emit.top_module(design), encoding="ascii")
        for path in emit.sources(design.modules):
            shutil.copyfile(path, folder / path.name)
        for kernel in design.kernels:
            if kernel.nested is not None:
                for name, text in kernel.nested.texts.items():
                    (folder / name).write_text(text, encoding="ascii")
    for memory in design.memories:
        (folder / memory.file).write_text(memory.text(), encoding="ascii")
    for stream, memory in design.weight_streams:
        (folder / stream_file(memory)).write_bytes(stream_image(stream, memory))
    manifest.write(design, folder)


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise QfxError(f"{out}: is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / manifest.MANIFEST).is_file():
        raise QfxError(
            f"{out}: holds files that qfx.rtl.generate did not write; give a new or an empty folder"
        )


def _replace(temporary: Path, out: Path) -> None:
    if not out.exists():
        os.rename(temporary, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    os.rename(out, old / "design")
    try:
        os.rename(temporary, out)
    except OSError:
        os.rename(old / "design", out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
