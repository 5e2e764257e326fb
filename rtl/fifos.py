"""Depths of FIFOs and window buffers: the least with which a design keeps its interval, and the proof that
none can deadlock.

docs/rtl.md ("FIFO depths") has the argument; in short: a run of the timing model from empty to empty in which
every pipeline holds a single beat is a schedule that the hardware can follow whatever the stalls, and where
one schedule completes, all do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from math import inf

from qfx.errors import QfxError
from qfx.rtl import timing
from qfx.rtl.build import drop_fifo
from qfx.rtl.design import Design, Kernel
from qfx.rtl.estimate import LUT_RAM_BITS, Resources, of, remembered
from qfx.rtl.library import window_full_depth, window_span

#: Kernels times cycles that may be spent on making buffers smaller; the result does not depend on the speed
#: of the machine.
EFFORT = 1_000_000_000
#: Frames that are looked at beyond the usual few.
_MOST_FRAMES = 256
_BLOCK_RAM_FROM = 4096  # bits; smaller FIFOs stay in LUT RAM


def style(depth: int, width: int) -> int:
    """``STYLE`` of a FIFO: 1, block RAM, for the large ones. LUT RAM comes in steps of so many places: the
    rest of a step is free.
    """
    return int(depth * width >= _BLOCK_RAM_FROM and depth > LUT_RAM_BITS)


@remembered
def cost(depth: int, width: int) -> Resources:
    """A FIFO that has to hold so many beats."""
    depth = max(depth, 2)
    return of(
        Kernel("", "qfx_fifo", {"WIDTH": width, "DEPTH": depth, "STYLE": style(depth, width)}, (), (), "")
    )


def size(design: Design, effort: int = EFFORT, block_rams: float = inf) -> Design:
    """The design with all depths set, and its latency and interval predicted.

    Args:
        design: as built.
        effort: kernels times cycles that may be spent.
        block_rams: of 18 Kbit: most that the design shall take. Where large FIFOs would take more, some of
            them stay in LUT RAM; without FIFOs it may take more nevertheless.

    Raises:
        QfxError: the network cannot be made to run (a fault of the generator, not of the user).
    """
    sizer = _Sizer(design, effort)
    sized = _choose_styles(sizer.run(), block_rams)
    sized = _ensure_alive(sized)
    sized = _even_out(sized, effort // 8)
    run = timing.simulate(sized, 1)
    return replace(sized, latency=run.latency, interval=steady_interval(sized, effort=effort // 2))


def is_alive(design: Design) -> bool:
    """Whether one frame passes from empty to empty with every pipeline holding a single beat: the deadlock
    proof.
    """
    run = timing.simulate(design, 1, source_frames=1, capacity_one=True)
    return run.status == timing.FINISHED


def steady_interval(design: Design, max_frames: int = 64, effort: int = EFFORT // 2) -> int:
    """Cycles per frame in the steady state; a design that stops has an interval beyond all bounds."""
    return _settle(design, max_frames, effort)[0]


def _settle(design: Design, max_frames: int, effort: int) -> tuple[int, bool]:
    """Cycles per frame in the steady state, and whether all frames take the same time.

    Exact once the state after a frame repeats; where that would take longer than ``effort`` kernels times
    cycles (deep buffers that fill slowly), the longest of the later intervals.
    """
    frames = 4
    while True:
        run = timing.simulate(design, frames)
        if run.status != timing.FINISHED:
            return 1 << 60, False
        later = run.intervals[len(run.intervals) // 2 :]
        exact = run.steady_interval()
        effort -= run.cycles * len(design.kernels)
        if exact is not None or frames >= max_frames or effort <= 0:
            return exact or max(later), len(set(later)) == 1
        frames *= 2


class _Sizer:
    """Finds small depths by running the model; every depth that it settles on was seen to keep the target."""

    def __init__(self, design: Design, effort: int) -> None:
        self.design, self.left = design, effort
        # Far beyond what the folds need anyway, a slower pace saves nothing and takes long to simulate.
        self.target = min(design.target, 4 * max([layer.steps for layer in design.layers], default=1))

    @cached_property
    def flight(self) -> int:
        """About how many frames are inside at the pace of the target: before so many have gone in, FIFOs that
        level a long branch against a short one are not as full as they get.
        """
        free = _with_depths(self.design, {f.name: 0 for f in self.design.fifos}, unbounded=True)
        run = timing.simulate(free, 1)
        self.left -= run.cycles * len(free.kernels)
        return min(run.latency // self.target, _MOST_FRAMES) if run.status == timing.FINISHED else 0

    def run(self) -> Design:
        least = self.with_depths({f.name: f.required for f in self.design.fifos})
        if self.keeps_up(least):
            return self.shrink_windows(least)
        depths = self.sufficient()
        order = sorted(self.design.fifos, key=lambda f: -depths[f.name] * f.number("WIDTH"))
        for fifo in order:
            self.shrink(depths, fifo)
        return self.shrink_windows(self.with_depths(depths))

    def with_depths(self, depths: dict[str, int]) -> Design:
        return _with_depths(self.design, depths)

    def keeps_up(self, design: Design) -> bool:
        """Whether the target interval is met, by frames enough to fill the buffers."""
        run = timing.simulate(design, 6 + self.flight, max_cycles=12 * self.target + 400_000)
        self.left -= run.cycles * len(design.kernels)
        if run.status != timing.FINISHED:
            return False
        return (run.steady_interval() or max(run.intervals[2:])) <= self.target

    def sufficient(self) -> dict[str, int]:
        """Depths that are enough: what FIFOs without bound hold when the source sends at the pace of the
        target.
        """
        free = _with_depths(self.design, {f.name: 0 for f in self.design.fifos}, unbounded=True)
        run = timing.simulate(free, 4 + self.flight, source_interval=self.target)
        self.left -= run.cycles * len(free.kernels)
        if run.status != timing.FINISHED:
            raise QfxError(
                "rtl: the network does not finish a frame even with unbounded FIFOs; please report this graph"
            )
        depths = {f.name: max(2, run.occupancy[f.name] + 1) for f in self.design.fifos}
        for attempt in range(4):
            if self.keeps_up(self.with_depths(depths)):
                return depths
            if attempt == 0:
                self.design = _with_full_windows(self.design)
            else:
                depths = {name: 2 * depth for name, depth in depths.items()}
        # Not seen so far: stalls ripple through pipelines such that some frames take longer. Then what is
        # reached becomes the target.
        self.target = steady_interval(self.with_depths(depths))
        return depths

    def shrink(self, depths: dict[str, int], fifo: Kernel) -> None:
        """Lower one depth as far as the target allows."""
        name, low, high = fifo.name, fifo.required, depths[fifo.name]
        if self.left <= 0 or high <= low:
            return
        if self.keeps_up(self.with_depths({**depths, name: low})):
            depths[name] = low
            return
        low = max(low, 1)
        while high - low > max(1, high // 16) and self.left > 0:
            middle = max(2, (low + high) // 2)
            if self.keeps_up(self.with_depths({**depths, name: middle})):
                high = middle
            else:
                low = middle
        depths[name] = high

    def shrink_windows(self, design: Design) -> Design:
        """Lower the window buffers, largest first; a line buffer is often the largest memory of a layer."""
        windows = sorted(
            (k for k in design.kernels if k.module == "qfx_window"),
            key=lambda k: -k.number("DEPTH") * k.number("WIDTH"),
        )
        for window in windows:
            low, high = window_span(window), window.number("DEPTH")
            if self.left <= 0 or not self.keeps_up(design):
                break
            while high - low > max(1, high // 32) and self.left > 0:
                middle = (low + high) // 2
                if self.keeps_up(_with_window(design, window.name, middle)):
                    high = middle
                else:
                    low = middle
            design = _with_window(design, window.name, high)
        return design


def _with_window(design: Design, name: str, depth: int) -> Design:
    kernels = tuple(k.with_parameters(DEPTH=depth) if k.name == name else k for k in design.kernels)
    return replace(design, kernels=kernels)


def _with_full_windows(design: Design) -> Design:
    kernels = tuple(
        k.with_parameters(DEPTH=window_full_depth(k)) if k.module == "qfx_window" else k
        for k in design.kernels
    )
    return replace(design, kernels=kernels)


def _with_depths(design: Design, depths: dict[str, int], *, unbounded: bool = False) -> Design:
    """Set FIFO depths; a depth of 0 takes the FIFO out (or means no bound)."""
    kernels = tuple(
        k.with_parameters(DEPTH=_legal(k, depths[k.name], unbounded)) if k.name in depths else k
        for k in design.kernels
    )
    design = replace(design, kernels=kernels)
    if not unbounded:
        for fifo in design.fifos:
            if fifo.number("DEPTH") == 0:
                design = drop_fifo(design, fifo)
    return design


def _legal(fifo: Kernel, depth: int, unbounded: bool) -> int:
    if depth == 0 and (unbounded or fifo.required == 0):
        return 0
    return max(depth, 3 if fifo.number("STYLE") else 2)


def _choose_styles(design: Design, block_rams: float) -> Design:
    """Block RAM for the large FIFOs, while there is some: first for those where a block saves most."""
    styled = {
        fifo.name: (fifo, fifo.with_parameters(DEPTH=max(fifo.number("DEPTH"), 3), STYLE=1))
        for fifo in design.fifos
        if style(fifo.number("DEPTH"), fifo.number("WIDTH"))
    }
    costs = {name: (of(before), of(after)) for name, (before, after) in styled.items()}
    left = block_rams - sum(of(k).bram18 for k in design.kernels)
    taken: dict[str, Kernel] = {}
    for name in sorted(costs, key=lambda n: -(costs[n][0].lut - costs[n][1].lut) / costs[n][1].bram18):
        if costs[name][1].bram18 <= left:
            left -= costs[name][1].bram18
            taken[name] = styled[name][1]
    return replace(design, kernels=tuple(taken.get(k.name, k) for k in design.kernels))


def _even_out(design: Design, effort: int) -> Design:
    """A few places more where they help.

    Block RAM FIFOs have a cycle more latency than those that the depths were found with. And stalls can make
    frames take different times in turn (64, 64, 68, ...); deeper FIFOs level that.
    """
    best, faults = design, _faults(design, effort)
    for more in (2, 4, 8):
        if not any(faults):
            break
        deeper = _with_depths(design, {f.name: f.number("DEPTH") + more for f in design.fifos})
        found = _faults(deeper, effort)
        if found < faults:
            best, faults = deeper, found
    return best


def _faults(design: Design, effort: int) -> tuple[bool, bool]:
    """Whether a sized design misses its target; whether its frames take different times."""
    interval, even = _settle(design, 32, effort)
    return interval > design.target, not even


def _ensure_alive(design: Design) -> Design:
    """Deepen FIFOs until the deadlock proof goes through; depths found with full pipelines may be a few beats
    short of it.
    """
    for _ in range(24):
        if is_alive(design):
            return design
        grown = {f.name: f.number("DEPTH") + max(1, f.number("DEPTH") // 8) for f in design.fifos}
        design = _with_depths(design, grown)
    raise QfxError(
        "rtl: no FIFO depths were found with which the network cannot deadlock; please report this graph"
    )
