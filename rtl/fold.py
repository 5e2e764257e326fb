"""Folding: how parallel each stage is, from a target interval, a board, or by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import gcd

from qfx.boards import Board
from qfx.errors import QfxError
from qfx.graph import Graph
from qfx.rtl.build import (
    Fold,
    conversion,
    conversion_kernels,
    divisors,
    frame_steps,
    is_main,
    lanes_in,
    stage_kernels,
)
from qfx.rtl.estimate import Resources, total
from qfx.rtl.stages import Concat, Elementwise, MatVec, Program, Reorder, Stage, Value

#: Without any wish of the user: multiply-accumulate units of the layer that has most to do.
DEFAULT_MACS = 64
#: How full a board may get by the estimate; place and route needs room, and the estimate has an error.
LUT_SHARE, MEMORY_SHARE = 0.7, 0.9


@dataclass(frozen=True)
class Folding:
    """A fold for every stage, by the name of its output value.

    Attributes:
        folds: by the name of each stage's output value.
        input_lanes: elements of an input beat.
        target: the interval that no stage exceeds, in cycles.
        resources: estimate of kernels and converters.
    """

    folds: Mapping[str, Fold]
    input_lanes: int
    target: int
    resources: Resources


def choose(
    graph: Graph,
    program: Program,
    *,
    interval: int | None = None,
    board: Board | None = None,
    fold: Mapping[str, Mapping[str, int]] | None = None,
) -> Folding:
    """The folding for what the user asked for.

    With ``interval``: the cheapest folding that takes at most so many cycles per frame. With ``board`` and no
    ``interval``: the fastest that fits the board. With ``fold``: these layers as given, all others as cheap
    as keeps up with them (or with ``interval``). With nothing: the layer with most multiplications gets about
    :data:`DEFAULT_MACS` multipliers, the others keep up with it.

    Raises:
        QfxError: the interval cannot be reached, the board is too small, or a fold does not divide its layer.
    """
    fixed = _fixed(graph, program, fold or {})
    least = {stage.output.name: _least_steps(stage, fixed.get(stage.output.name)) for stage in program.stages}
    # One pixel of the input comes in per cycle at most.
    floor = max([*least.values(), program.input.pixels])
    if interval is not None:
        if interval < floor == program.input.pixels:
            raise QfxError(
                f"graph: an input frame has {floor} pixels and at most one comes in per cycle, so "
                f"interval={interval} cannot be reached; give interval={floor} or more"
            )
        if interval < floor:
            slow = max(program.stages, key=lambda s: least[s.output.name])
            given = " with the fold given" if slow.output.name in fixed else " fully unfolded"
            raise QfxError(
                f"{graph[slow.node].where}: needs {floor} cycles per frame{given}, so interval={interval} "
                f"cannot be reached; give interval={floor} or more"
            )
        result = _solve(program, interval, fixed)
        if board is not None and not _fits(result.resources, board):
            raise QfxError(
                f"board {board.name}: interval={interval} needs about {_figures(result.resources)}, the "
                f"board has {_board_figures(board)}; give a larger interval"
            )
        return result
    if fixed:
        own = [frame_steps(s, fixed[s.output.name]) for s in program.stages if s.output.name in fixed]
        return _solve(program, max(floor, *own), fixed)
    if board is not None:
        return _fastest(program, board, floor)
    return _solve(program, max(floor, _default_interval(program)), fixed)


# -- one stage -----------------------------------------------------------------------------------------------


def candidates(stage: Stage, target: int) -> Iterator[Fold]:
    """Foldings of a stage worth weighing: those within ``target`` steps, less what is more parallel than
    needed without making a beat narrower.
    """
    if not isinstance(stage, MatVec):
        for lanes in _lane_choices(stage):
            fold = Fold(lanes)
            if frame_steps(stage, fold) <= target:
                yield fold
        return
    rounds = stage.rounds * stage.groups
    for simd in divisors(stage.columns):
        pe = next(
            (
                p
                for p in divisors(stage.rows)
                if rounds * (stage.rows // p) * (stage.columns // simd) <= target
            ),
            None,
        )
        if pe is None:
            continue
        if stage.window is None:
            yield Fold(pe, simd)
            continue
        per_group = stage.inputs[0].channels // stage.groups
        for lanes in divisors(gcd(simd, per_group)):
            if frame_steps(stage, Fold(pe, simd, lanes)) <= target:
                yield Fold(pe, simd, lanes)
                break


def _lane_limit(stage: Stage) -> int:
    if isinstance(stage, Reorder):
        return stage.block
    if isinstance(stage, Concat):
        return gcd(*(value.channels for value in stage.inputs))
    return stage.output.channels


def _lane_choices(stage: Stage) -> list[int]:
    """How many elements a beat may have."""
    limit = _lane_limit(stage)
    group = stage.group if isinstance(stage, Elementwise) else 1
    return [lanes for lanes in divisors(limit) if lanes % group == 0 or lanes == limit]


def _least_steps(stage: Stage, fixed: Fold | None) -> int:
    """Steps per frame with all the parallelism that the kernels offer."""
    if fixed is not None:
        return frame_steps(stage, fixed)
    if not isinstance(stage, MatVec):
        return frame_steps(stage, Fold(_lane_limit(stage)))
    lanes = None if stage.window is None else stage.inputs[0].channels // stage.groups
    return frame_steps(stage, Fold(stage.rows, stage.columns, lanes))


# -- all stages ----------------------------------------------------------------------------------------------


def _solve(program: Program, target: int, fixed: Mapping[str, Fold]) -> Folding:
    """The cheapest folding within ``target``: stage by stage along the flow, once for each width of the
    input.
    """
    options = {
        stage.output.name: [fixed[stage.output.name]]
        if stage.output.name in fixed
        else list(candidates(stage, target))
        for stage in program.stages
    }
    costs = {
        (stage.output.name, fold): total(stage_kernels(stage, fold))
        for stage in program.stages
        for fold in options[stage.output.name]
    }
    best: Folding | None = None
    for lanes in divisors(program.input.channels):
        if program.input.size // lanes > target:
            continue
        result = _along(program, target, lanes, options, costs)
        if best is None or result.resources.weight < best.resources.weight:
            best = result
    assert best is not None
    return best


def _along(
    program: Program,
    target: int,
    input_lanes: int,
    options: Mapping[str, list[Fold]],
    costs: Mapping[tuple[str, Fold], Resources],
) -> Folding:
    lanes = {program.input.name: input_lanes}
    folds: dict[str, Fold] = {}
    resources = Resources()
    for stage in program.stages:
        name = stage.output.name

        def cost(fold: Fold, stage: Stage = stage, name: str = name) -> Resources:
            taken = lanes_in(stage, fold)
            converters = [
                total(conversion_kernels(stage.node, v.width, lanes[v.name], taken, v.size, target))
                for v in stage.inputs
            ]
            return sum(converters, costs[name, fold])

        possible = [
            fold
            for fold in options[name]
            if all(_keeps_up(v, lanes[v.name], lanes_in(stage, fold), target) for v in stage.inputs)
        ]
        fold = min(possible or options[name], key=lambda f: cost(f).weight)
        folds[name] = fold
        lanes[name] = fold.pe
        resources += cost(fold)
    return Folding(folds, input_lanes, target, resources)


def _keeps_up(value: Value, before: int, after: int, target: int) -> bool:
    """Whether converters between two widths are fast enough; always so but for narrow ends."""
    path = (before, *conversion(before, after, value.size, target), after)
    return all(value.size // min(a, b) <= target for a, b in zip(path, path[1:], strict=False))


def _default_interval(program: Program) -> int:
    macs = [s.rounds * s.weight.size for s in program.stages if isinstance(s, MatVec)]
    return -(-max(macs, default=0) // DEFAULT_MACS)


def _fastest(program: Program, board: Board, floor: int) -> Folding:
    """The smallest interval whose folding fits the board, by bisection."""
    slowest = max([floor, *(max(frame_steps(s, fold) for fold in _ends(s)) for s in program.stages)])
    low, high = floor, slowest
    if not _fits(_solve(program, high, {}).resources, board):
        raise QfxError(
            f"board {board.name}: the network does not fit even when fully folded: it needs about "
            f"{_figures(_solve(program, high, {}).resources)}, the board has "
            f"{_board_figures(board)}; take a larger board, fewer weights, or narrower formats"
        )
    while low < high:
        middle = (low + high) // 2
        if _fits(_solve(program, middle, {}).resources, board):
            high = middle
        else:
            low = middle + 1
    return _solve(program, high, {})


def _ends(stage: Stage) -> tuple[Fold, ...]:
    """The least parallel fold."""
    if isinstance(stage, MatVec):
        return (Fold(1, 1, None if stage.window is None else 1),)
    return (Fold(_lane_choices(stage)[0]),)


def _fits(used: Resources, board: Board) -> bool:
    have = board.resources
    return (
        used.lut <= LUT_SHARE * have.lut
        and used.ff <= LUT_SHARE * have.ff
        and used.dsp <= MEMORY_SHARE * have.dsp
        and used.bram18 <= MEMORY_SHARE * have.bram18
    )


def _figures(r: Resources) -> str:
    return f"{r.lut:.0f} LUT, {r.ff:.0f} FF, {r.dsp:.0f} DSP, {r.bram18:.0f} BRAM18"


def _board_figures(board: Board) -> str:
    r = board.resources
    return (
        f"{r.lut} LUT, {r.ff} FF, {r.dsp} DSP, {r.bram18} BRAM18 ({LUT_SHARE:.0%} of the LUT and FF and "
        f"{MEMORY_SHARE:.0%} of the rest may be used)"
    )


# -- by hand -------------------------------------------------------------------------------------------------


def _fixed(graph: Graph, program: Program, given: Mapping[str, Mapping[str, int]]) -> dict[str, Fold]:
    """The user's folds by stage."""
    main = {stage.node: stage for stage in program.stages if is_main(stage)}
    fixed: dict[str, Fold] = {}
    for name, wish in given.items():
        stage = _named(graph, main, name)
        fixed[stage.output.name] = _checked(graph, stage, name, dict(wish))
    return fixed


def _named(graph: Graph, main: Mapping[str, Stage], name: str) -> Stage:
    if name in main:
        return main[name]
    of_path = [stage for node, stage in main.items() if graph[node].path == name]
    # A module's path stands on its matrix and on the casts around it; the matrix is what there is to fold.
    matrices = [stage for stage in of_path if isinstance(stage, MatVec)]
    found = matrices or of_path
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{node} ({graph[node].path})" if graph[node].path else node for node in main)
    if not found:
        raise QfxError(f"fold: no layer {name!r}; layers: {known}")
    raise QfxError(
        f"fold: {name!r} names {len(found)} layers; give one of the node names "
        f"{', '.join(s.node for s in found)}"
    )


def _checked(graph: Graph, stage: Stage, name: str, wish: dict[str, int]) -> Fold:
    where = f"fold of {name!r} ({graph[stage.node].where})"
    matrix = isinstance(stage, MatVec)
    unknown = sorted(set(wish) - ({"pe", "simd"} if matrix else {"pe"}))
    if unknown or not wish:
        raise QfxError(
            f"{where}: found keys {sorted(wish)}; supported: "
            f"{'pe and simd' if matrix else 'pe (elements per beat)'}"
        )
    if not isinstance(stage, MatVec):
        return Fold(_one_of(where, "pe", wish["pe"], _lane_choices(stage)))
    pe = _divides(where, "pe", wish.get("pe", 1), stage.rows)
    simd = _divides(where, "simd", wish.get("simd", 1), stage.columns)
    if stage.window is None:
        return Fold(pe, simd)
    return Fold(pe, simd, gcd(simd, stage.inputs[0].channels // stage.groups))


def _divides(where: str, what: str, value: int, whole: int) -> int:
    return _one_of(where, what, value, divisors(whole))


def _one_of(where: str, what: str, value: int, choices: list[int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in choices:
        raise QfxError(
            f"{where}: {what}={value!r} must divide {choices[-1]}; supported: {', '.join(map(str, choices))}"
        )
    return value
