"""Folding: targets are met at least cost, boards are respected, wishes are checked."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator, Mapping

import pytest
from rtl_networks import NETWORKS, Net

import qfx.rtl
from qfx import FixedPoint, QfxError, boards
from qfx.graph import Graph, ops
from qfx.rtl import choices, estimate, fifos, fold, solver
from qfx.rtl.build import build, conversion, conversion_kernels, frame_steps
from qfx.rtl.design import Kernel
from qfx.rtl.fold import Folding, choose
from qfx.rtl.lags import waiting
from qfx.rtl.lower import lower
from qfx.rtl.solver import Budget, Problem
from qfx.rtl.stages import Binary, MatVec, Program, Stage, Value


def mlp() -> Graph:
    n = Net((16,), FixedPoint(6, 3), 1)
    weight = FixedPoint(4, 3)
    x = n.cast(n.relu(n.linear(n.x, 32, weight, path="hidden")), 6, 2, False)
    return n.build(n.linear(x, 10, weight, path="out"))


# -- against brute force -------------------------------------------------------------------------------------


def chain() -> Graph:
    """Widths without a common divisor meet."""
    n = Net((4,), FixedPoint(5, 3), 1)
    x = n.cast(n.linear(n.x, 6, FixedPoint(4, 3), FixedPoint(4, 2)), 9, 2)
    return n.build(n.linear(x, 3, FixedPoint(7, 3)))


def picture() -> Graph:
    """A window, whose beats are narrower than the matrix behind it takes."""
    n = Net((4, 4, 4), FixedPoint(4, 2), 2)
    return n.build(n.cast(n.conv(n.x, 4, (3, 3), FixedPoint(3, 2), padding=1, stride=2), 4, 1))


def skip() -> Graph:
    """A fork whose branches meet again, and a tensor that meets itself."""
    n = Net((2, 3), FixedPoint(4, 2), 3)
    x = n.cast(n.x, 3, 1)
    y = n.conv(x, 2, (1,), FixedPoint(5, 3))
    return n.build(n.add(ops.Add(), n.add(ops.Mul(), y, y), x))


SMALL = {f.__name__: f for f in (chain, picture, skip)}


def all_foldings(
    program: Program, target: int, waiting: Mapping[tuple[str, int], int]
) -> Iterator[estimate.Resources]:
    """The cost of every folding there is; ``waiting``: elements in FIFOs."""
    own = {
        s.output.name: [
            (fold, estimate.total(choices.stage_kernels(s, fold)), choices.lanes_in(s, fold))
            for fold in choices.folds(s)
            if frame_steps(s, fold) <= target
        ]
        for s in program.stages
    }
    between: dict[tuple[str, int, int, int], estimate.Resources] = {}
    x = program.input
    readers = [v.name for s in program.stages for v in s.inputs] + [program.output.name]
    forks = [Kernel("", "qfx_fork", {"N": readers.count(n)}, (), (), "") for n in {*readers}]
    fixed = estimate.total(fork for fork in forks if fork.number("N") > 1)
    for first in (n for n in range(1, x.channels + 1) if x.channels % n == 0 and x.size // n <= target):
        for picks in itertools.product(*own.values()):
            made = {x.name: first} | {name: fold.pe for name, (fold, _, _) in zip(own, picks, strict=True)}
            last = program.output
            cost = fixed + fifo(2, first * x.width) + fifo(2, made[last.name] * last.width)
            for stage, (_, kernels, taken) in zip(program.stages, picks, strict=True):
                cost += kernels
                for i, v in enumerate(stage.inputs):
                    key = (stage.output.name, i, made[v.name], taken)
                    if key not in between:
                        wait = waiting.get((stage.output.name, i), 0)
                        between[key] = edge(stage, v, made[v.name], taken, target, wait)
                    cost += between[key]
            yield cost


def fifo(depth: int, width: int) -> estimate.Resources:
    block = depth * width >= 4096 and depth > 64
    return estimate.of(
        Kernel("", "qfx_fifo", {"WIDTH": width, "DEPTH": depth, "STYLE": int(block)}, (), (), "")
    )


def edge(stage: Stage, v: Value, made: int, taken: int, target: int, wait: int) -> estimate.Resources:
    """Converters, and behind the last one that widens a FIFO."""
    kernels = conversion_kernels("", v.width, made, taken, v.size, target)
    cost = estimate.total(kernels)
    if isinstance(stage, Binary) or isinstance(stage, MatVec) and stage.window is None:
        lanes = [made, *(k.number("OUT") for k in kernels if k.module == "qfx_upsize")][-1]
        cost += fifo(max(2, math.ceil(wait / lanes)), lanes * v.width)
    return cost


@pytest.mark.parametrize("name", SMALL)
def test_no_folding_is_cheaper(name: str) -> None:
    graph = SMALL[name]()
    program = lower(graph)
    slowest = max(min(frame_steps(s, f) for f in choices.folds(s)) for s in program.stages)
    for target in (slowest, 2 * slowest, 5 * slowest):
        target = max(target, program.input.pixels)
        found = choose(graph, program, interval=target)
        assert found.gap == 0
        every = all_foldings(program, target, waiting(program))
        assert found.resources.weight == min(cost.weight for cost in every)


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("chain", {"lut": 700}),
        ("chain", {"lut": 900, "ff": 500}),
        ("chain", {"dsp": 2, "lut": 1200}),
        ("chain", {"dsp": 3, "bram18": 0, "ff": 600}),
        ("picture", {"lut": 350}),
        ("picture", {"lut": 700, "ff": 420}),
        ("skip", {"lut": 240}),
        ("skip", {"ff": 300, "dsp": 1}),
    ],
)
def test_no_folding_within_a_budget_is_faster_or_cheaper(name: str, budget: dict[str, float]) -> None:
    graph = SMALL[name]()
    program = lower(graph)
    limits = Budget(**budget)

    def cheapest(target: int) -> float | None:
        every = all_foldings(program, target, waits)
        return min((cost.weight for cost in every if limits.holds(cost)), default=None)

    found = choose(graph, program, budget=budget)
    assert limits.holds(found.resources)
    waits = waiting(program)
    assert found.resources.weight == cheapest(found.target)
    floor = max(min(frame_steps(s, f) for f in choices.folds(s)) for s in program.stages)
    # Nothing changes between two of these intervals, so the one below tells about all below.
    steps = {frame_steps(s, f) for s in program.stages for f in choices.folds(s)}
    values = (program.input, *(s.output for s in program.stages))
    steps |= {v.size // n for v in values for n in range(1, v.channels + 1) if v.channels % n == 0}
    faster = [t for t in steps if max(floor, program.input.pixels) <= t < found.target]
    if faster:
        assert cheapest(max(faster)) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_estimate_is_that_of_the_design(name: str) -> None:
    """What the solver adds up from stages and edges is what the built design holds, FIFOs as expected."""
    graph = NETWORKS[name]()
    program = lower(graph)
    for budget in (None, {"lut": 5000}, {"bram18": 0}):
        try:
            found = choose(graph, program, budget=budget)
        except QfxError:
            assert budget == {"lut": 5000}
            continue
        design = build(graph, program, found.folds, found.input_lanes, found.target, "top")
        cost = estimate.total(k for k in design.kernels if k.module != "qfx_fifo")
        held = {
            f"{s.output.name}_in{'' if isinstance(s, MatVec) else i}_fifo": (
                v.width,
                waiting(program)[s.output.name, i],
            )
            for s in program.stages
            for i, v in enumerate(s.inputs)
            if (s.output.name, i) in waiting(program)
        }
        for f in design.fifos:
            width, elements = held.get(f.name, (1, 0))
            if f.required:
                cost += fifo(max(2, math.ceil(elements / (f.number("WIDTH") // width))), f.number("WIDTH"))
        assert cost == found.resources


def test_folding_goes_by_the_table_of_measured_kernels() -> None:
    program = lower(NETWORKS["residual_cnn"]())
    weighed = [c for s in program.stages for c in choices.every(s)]
    with estimate.by_structure_alone():
        alone = [c for s in program.stages for c in choices.every(s)]
    assert [c.fold for c in weighed] == [c.fold for c in alone]
    assert [c.cost for c in weighed] != [c.cost for c in alone]
    for stage in program.stages:
        for c in choices.every(stage)[:3]:
            kernels = choices.stage_kernels(stage, c.fold)
            assert c.cost == sum((qfx.cost.resources(k) for k in kernels), estimate.Resources())
            with estimate.by_structure_alone():
                assert estimate.total(kernels) == sum(map(estimate.structure, kernels), estimate.Resources())
    # What is remembered is remembered apart.
    with_table = fifos.cost(100, 9)
    with estimate.by_structure_alone():
        assert fifos.cost(100, 9) != with_table
    assert fifos.cost(100, 9) == with_table


def test_large_programs_may_end_within_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    program = lower(NETWORKS["residual_cnn"]())
    problem = Problem(program, {s.output.name: choices.every(s) for s in program.stages})
    target = 5 * max(program.input.pixels, *(min(c.steps for c in own) for own in problem.choices.values()))
    open_ended = problem.solve(target, Budget())
    assert open_ended is not None
    budget = Budget(lut=0.95 * open_ended.resources.lut)
    best = problem.solve(target, budget)
    assert best is not None and problem.solve(target, budget) is best  # solved once
    monkeypatch.setattr(solver, "LARGE", 0)
    monkeypatch.setattr(solver, "GAP", 0.2)
    again = Problem(program, problem.choices).solve(target, budget)
    assert again is not None and budget.holds(again.resources)
    assert best.resources.weight <= again.resources.weight <= best.resources.weight / 0.8


# -- FIFOs turn out larger -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_what_is_set_aside_is_what_fifos_take_more(name: str) -> None:
    """Where they take the same in every folding, the folding found is the best with so much less to spend."""
    graph = SMALL[name]()
    program = lower(graph)
    more = estimate.Resources(lut=60, ff=30)
    tried: list[Folding] = []

    def measure(folding: Folding) -> estimate.Resources:
        tried.append(folding)
        return folding.resources + more

    usual = choose(graph, program).resources
    for spare in range(-60, 100, 10):
        budget = {"lut": usual.lut + spare, "ff": usual.ff + 200}
        try:
            same = choose(graph, program, budget={"lut": budget["lut"] - 60, "ff": budget["ff"] - 30})
        except QfxError:
            with pytest.raises(QfxError, match="does not fit"):
                choose(graph, program, budget=budget, measure=measure)
            continue
        found = choose(graph, program, budget=budget, measure=measure)
        assert tried[-1] is found
        assert Budget(**budget).holds(found.resources + more)
        assert (found.target, found.resources.weight) == (same.target, same.resources.weight)
    # A folding that turned out too large made room for another at its interval, or for a slower one; there as
    # much is set aside from the start.
    assert {f.reserve.lut for f in tried} == {0, 60}
    assert len(tried) > 16


@pytest.mark.parametrize("name", SMALL)
def test_what_one_interval_sets_aside_refuses_nothing_at_another(name: str) -> None:
    """FIFOs larger than expected at all intervals but the last: what fits there is found."""
    graph = SMALL[name]()
    program = lower(graph)
    problem = Problem(program, {s.output.name: choices.every(s) for s in program.stages})
    last = max(fold._intervals(problem))
    leanest = min(
        (cost for cost in all_foldings(program, last, waiting(program))), key=lambda cost: (cost.lut, cost.ff)
    )
    refused = []

    def measure(folding: Folding) -> estimate.Resources:
        more = estimate.Resources(lut=40 if folding.target < last else 0)
        refused.append(bool(more.lut) and not limits.holds(folding.resources + more))
        return folding.resources + more

    for spare in (0, 10, 20, 30, 60, 90, 120):
        limits = Budget(lut=leanest.lut + spare, ff=2 * leanest.ff, bram18=leanest.bram18, dsp=leanest.dsp)
        found = choose(
            graph,
            program,
            budget={"lut": limits.lut, "ff": limits.ff, "bram18": limits.bram18, "dsp": limits.dsp},
            measure=measure,
        )
        assert limits.holds(measure(found))
    assert any(refused)


@pytest.mark.parametrize("seed", range(8))
def test_search_ends_with_a_folding_within_the_budget_or_an_error(seed: int) -> None:
    """Whatever FIFOs take, as long as a folding always takes the same."""
    graph = chain()
    program = lower(graph)
    limits = Budget(lut=1000, ff=900, dsp=4)
    tried: list[tuple[object, estimate.Resources]] = []

    def measure(folding: Folding) -> estimate.Resources:
        rng = random.Random(f"{seed} {sorted(folding.folds.items())} {folding.input_lanes}")
        extra = estimate.Resources(lut=rng.expovariate(1 / 200), ff=rng.expovariate(1 / 100))
        tried.append((folding.folds, folding.resources + extra))
        return tried[-1][1]

    try:
        found = choose(graph, program, budget={"lut": 1000, "ff": 900, "dsp": 4}, measure=measure)
    except QfxError as error:
        assert "does not fit" in str(error) and tried
        assert not any(limits.holds(cost) for _, cost in tried)
    else:
        assert tried[-1][0] is found.folds and limits.holds(tried[-1][1])


@pytest.mark.parametrize("name", NETWORKS)
def test_designs_are_within_their_budget(name: str) -> None:
    """FIFOs, line buffers and forks included, as the design reports it; or nothing fits."""
    graph = NETWORKS[name]()
    usual = qfx.rtl.plan(graph).estimate
    fitted = 0
    for part in (1.0, 0.7, 0.5):
        for limited in (("lut",), ("lut", "ff", "dsp", "bram18")):
            budget = {key: int(part * usual[key]) for key in limited}
            for interval in (None, 3000):
                try:
                    design = qfx.rtl.plan(graph, budget=budget, interval=interval)
                except QfxError as error:
                    assert "the budget is" in str(error)
                    continue
                fitted += 1
                assert all(design.estimate[key] <= limit for key, limit in budget.items())
                found = estimate.total(design.kernels)
                assert design.estimate == {k: round(v) for k, v in dataclasses.asdict(found).items()}
    assert fitted >= 3


def test_fifos_decide() -> None:
    """A skip connection around large windows: a design whose kernels alone fit is not taken."""
    n = Net((8, 16, 16), FixedPoint(8, 4), 5)
    x = n.cast(n.x, 8, 3)
    y = n.cast(n.conv(x, 8, (5, 5), FixedPoint(3, 2), padding=2), 8, 1)
    y = n.cast(n.conv(y, 8, (5, 5), FixedPoint(3, 2), padding=2), 8, 1)
    graph = n.build(n.add(ops.Add(), x, y))
    free = qfx.rtl.plan(graph, interval=6400)
    held = max(f.number("DEPTH") * f.number("WIDTH") for f in free.fifos)
    assert held >= 8 * 8 * 4 * 16  # two rows for each of the windows
    assert (blocks := estimate.total(free.fifos).bram18) >= 1
    # With nothing else to be had, FIFOs stay in LUT RAM, and are counted there.
    design = qfx.rtl.plan(graph, interval=6400, budget={"bram18": free.estimate["bram18"] - blocks})
    assert design.estimate["bram18"] == free.estimate["bram18"] - blocks
    assert design.estimate["lut"] > free.estimate["lut"] and design.interval == free.interval
    small = estimate.total(k for k in design.kernels if k.module != "qfx_fifo").lut
    with pytest.raises(QfxError, match=r"interval=6400 needs about .* the budget is .* LUT, 0 BRAM18"):
        qfx.rtl.plan(graph, interval=6400, budget={"bram18": 0, "lut": small})


def test_parallel_designs_are_within_their_budget() -> None:
    design = qfx.rtl.plan(mlp(), architecture="parallel")
    luts = design.estimate["lut"]
    assert qfx.rtl.plan(mlp(), architecture="parallel", budget={"lut": luts}).estimate == design.estimate
    with pytest.raises(QfxError, match=rf"budget: architecture='parallel' needs about {luts} LUT"):
        qfx.rtl.plan(mlp(), architecture="parallel", budget={"lut": luts - 1})


def test_expected_waiting_is_about_what_fifos_hold() -> None:
    """In front of a join; the cycles that pipelines add make no large part of a frame."""
    n = Net((8, 16, 16), FixedPoint(8, 4), 5)
    x = n.cast(n.x, 8, 3)
    y = n.cast(n.conv(x, 16, (1, 1), FixedPoint(3, 2)), 8, 1)
    y = n.cast(n.conv(y, 16, (3, 3), FixedPoint(3, 2), padding=1, groups=16), 8, 1)
    y = n.cast(n.conv(y, 8, (1, 1), FixedPoint(3, 2)), 8, 1)
    graph = n.build(n.add(ops.Add(), x, y))
    (expected,) = (held for held in waiting(lower(graph)).values() if held)
    assert expected == 8 * (16 + 2 + 2)  # the 3x3 window needs a row and two pixels, the others one each
    for interval in (2304, 4608):
        design = qfx.rtl.plan(graph, interval=interval)
        (skip,) = (f for f in design.fifos if f.name.endswith("add_in0_fifo"))
        held = skip.number("DEPTH") * skip.number("WIDTH") // 8
        assert 0.8 * expected < held < 1.2 * expected, (interval, held)


# -- the search ----------------------------------------------------------------------------------------------


def test_variables() -> None:
    """Few enough for the solver: dominated folds, and those that no optimum can hold, are left out before."""
    n = Net((32,), FixedPoint(6, 3), 1)
    x = n.x
    for _ in range(10):
        x = n.cast(n.relu(n.linear(x, 32, FixedPoint(4, 3))), 6, 2, False)
    program = lower(n.build(x))
    every = {s.output.name: choices.every(s) for s in program.stages}
    assert sum(map(len, every.values())) == 10 * (71 + 6 + 6)
    found = Problem(program, every).solve(64, Budget())
    assert found is not None and found.gap == 0
    # Some 9000 folds and pairs of widths without the bounds.
    assert found.variables <= 1500


def test_node_limit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time to prove anything, the folding says so, and still fits."""
    graph = NETWORKS["residual_cnn"]()
    program = lower(graph)
    budget = {"lut": 3900, "ff": 3400}
    best = choose(graph, program, budget=budget)
    assert best.gap == 0
    monkeypatch.setattr(solver, "MAX_NODES", 0)
    found = choose(graph, program, budget=budget)
    assert found.gap > 0
    assert Budget(**budget).holds(found.resources)
    assert best.target <= found.target


@pytest.mark.parametrize("name", NETWORKS)
def test_no_stage_exceeds_the_target(name: str) -> None:
    graph = NETWORKS[name]()
    program = lower(graph)
    slowest = max(min(frame_steps(s, f) for f in choices.folds(s)) for s in program.stages)
    cheaper = None
    for interval in (None, max(slowest, program.input.pixels), 4 * slowest):
        folding = choose(graph, program, interval=interval)
        for stage in program.stages:
            assert frame_steps(stage, folding.folds[stage.output.name]) <= folding.target
        if cheaper is not None and interval is not None:
            assert folding.resources.weight <= cheaper
        cheaper = folding.resources.weight


# -- what the user asks for ----------------------------------------------------------------------------------


def test_default_gives_the_largest_layer_about_64_multipliers() -> None:
    design = qfx.rtl.plan(mlp())
    assert {layer.path: layer.pe * layer.simd for layer in design.layers if layer.simd} == {
        "hidden": 64,
        "out": 40,
    }
    assert design.interval == design.target == 8


def test_interval_out_of_reach_is_refused_with_the_layer() -> None:
    graph = NETWORKS["residual_cnn"]()
    with pytest.raises(QfxError, match=r"stem .*needs 576 cycles.*give interval=576 or more"):
        qfx.rtl.plan(graph, interval=575)
    assert qfx.rtl.plan(graph, interval=576).interval == 576
    n = Net((1, 3, 5), FixedPoint(4, 2))
    with pytest.raises(QfxError, match="15 pixels"):
        qfx.rtl.plan(n.build(n.relu(n.x)), interval=14)


@pytest.mark.parametrize("interval", [0, -3, 2.5, True, "7"])
def test_interval_must_be_a_number_of_cycles(interval: object) -> None:
    with pytest.raises(QfxError, match="number of cycles"):
        qfx.rtl.plan(mlp(), interval=interval)  # type: ignore[arg-type]


def test_board_gets_the_fastest_that_fits() -> None:
    graph = mlp()
    board = boards.get("ulx3s")
    design = qfx.rtl.plan(graph, board=board)
    assert design.board == "ulx3s"
    assert design.target == 1  # 832 products of 6 by 4 bits fit

    def with_luts(luts: int) -> boards.Board:
        return dataclasses.replace(board, resources=dataclasses.replace(board.resources, lut=luts))

    tight = with_luts(6000)
    small = qfx.rtl.plan(graph, board=tight)
    assert small.target > 1
    assert estimate.total(small.kernels).lut < 1.2 * 0.7 * 6000  # FIFOs come on top
    # One cycle less would not have fitted.
    program = lower(graph)
    assert choose(graph, program, interval=small.target - 1).resources.lut > 0.7 * 6000
    with pytest.raises(QfxError, match=r"board ulx3s: the network does not fit even when fully folded"):
        qfx.rtl.plan(graph, board=with_luts(100))
    with pytest.raises(QfxError, match=r"board ulx3s: interval=1 needs about"):
        qfx.rtl.plan(graph, board=tight, interval=1)


def test_budget_replaces_limits_of_the_board() -> None:
    graph = mlp()
    program = lower(graph)
    for budget in ({"lut": 4000}, {"lut": 4000, "ff": 2500}, {"bram18": 0, "dsp": 0, "lut": 9000}):
        design = qfx.rtl.plan(graph, budget=budget)
        limits = Budget(**budget)
        assert limits.holds(choose(graph, program, budget=budget).resources)
        assert design.interval <= design.target
    # The board alone would allow the fastest.
    assert qfx.rtl.plan(graph, board="ulx3s", budget={"lut": 4000}).target > 1
    assert qfx.rtl.plan(graph, board="ulx3s", budget={"lut": 1e9}).target == 1
    with pytest.raises(QfxError, match=r"budget: interval=1 needs about .* the budget is 4000 LUT"):
        qfx.rtl.plan(graph, interval=1, budget={"lut": 4000})
    with pytest.raises(QfxError, match=r"budget: the network does not fit .* the budget is 10 FF"):
        qfx.rtl.plan(graph, budget={"ff": 10})


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"luts": 5}, "found 'luts'; supported: lut, ff, dsp, bram18"),
        ({"lut": -1}, "lut=-1 must be a number, 0 or more"),
        ({"lut": "5"}, "lut='5' must be a number"),
        ({"dsp": True}, "dsp=True must be a number"),
        ({"dsp": float("nan")}, "dsp=nan must be a number"),
    ],
)
def test_bad_budgets_are_refused(budget: dict[str, float], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.rtl.plan(mlp(), budget=budget)


def test_frame_rate_at_the_clock_of_the_board() -> None:
    # 25 MHz: 1.5 M frames per second leave 16 cycles, and a bit.
    design = qfx.rtl.plan(mlp(), board="ulx3s", frames_per_second=1.5e6)
    assert design.target == 16
    assert design.interval <= 16
    with pytest.raises(QfxError, match="needs board="):
        qfx.rtl.plan(mlp(), frames_per_second=1000)
    with pytest.raises(QfxError, match="both are given"):
        qfx.rtl.plan(mlp(), board="ulx3s", interval=5, frames_per_second=1000)
    with pytest.raises(QfxError, match="more than one frame per cycle of ulx3s's clock of 25 MHz"):
        qfx.rtl.plan(mlp(), board="ulx3s", frames_per_second=26e6)
    for rate in (0, -1.0, float("inf"), True, "5"):
        with pytest.raises(QfxError, match="must be a number above 0"):
            qfx.rtl.plan(mlp(), board="ulx3s", frames_per_second=rate)  # type: ignore[arg-type]


def test_fold_by_path_or_node_name() -> None:
    for key in ("hidden", "n1_hidden"):
        design = qfx.rtl.plan(mlp(), fold={key: {"pe": 8, "simd": 4}})
        assert {layer.path: (layer.pe, layer.simd) for layer in design.layers}["hidden"] == (8, 4)
        # 32/8 * 16/4 steps; the other layer keeps up.
        assert design.interval == 16
    design = qfx.rtl.plan(mlp(), fold={"hidden": {"pe": 1}})
    assert design.interval == 512


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ({"nowhere": {"pe": 1}}, r"no layer 'nowhere'; layers: n1_hidden \(hidden\)"),
        ({"hidden": {"pe": 5}}, r"pe=5 must divide 32; supported: 1, 2, 4, 8, 16, 32"),
        ({"hidden": {"simd": 0}}, r"simd=0 must divide 16"),
        ({"hidden": {"pe": True}}, r"pe=True must divide 32"),
        ({"hidden": {"lanes": 2}}, r"found keys \['lanes'\]; supported: pe and simd"),
        ({"n2_relu": {"simd": 2}}, r"supported: pe \(elements per beat\)"),
        ({"hidden": {}}, r"found keys \[\]"),
    ],
)
def test_bad_folds_are_refused(fold: dict[str, dict[str, int]], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.rtl.plan(mlp(), fold=fold)


def test_ambiguous_path_is_refused() -> None:
    n = Net((4,), FixedPoint(6, 3))
    weight = FixedPoint(4, 3)
    x = n.linear(n.cast(n.linear(n.x, 4, weight, path="same"), 6, 3), 4, weight, path="same")
    with pytest.raises(QfxError, match="'same' names 2 layers; give one of the node names n1_same, n3_same"):
        qfx.rtl.plan(n.build(x), fold={"same": {"pe": 1, "simd": 1}})


@pytest.mark.parametrize(
    ("before", "after", "target", "path"),
    [
        (2, 6, 1, ()),
        (6, 2, 1, ()),
        (3, 3, 1, ()),
        (4, 6, 100, (2,)),  # through the common divisor: 24/2 beats are fast enough
        (4, 6, 11, (12,)),  # through the common multiple
    ],
)
def test_conversion_between_widths(before: int, after: int, target: int, path: tuple[int, ...]) -> None:
    assert conversion(before, after, 24, target) == path


def test_window_that_needs_no_window_kernel() -> None:
    """1x1 convolutions, global pooling with all channels in a beat, and kernels as large as the image."""
    n = Net((4, 4, 4), FixedPoint(4, 2), 3)
    x = n.cast(n.conv(n.x, 4, (1, 1), FixedPoint(4, 3)), 4, 1)
    pooled = n.cast(n.pool(x, "avg", 4, 4, 0, 1, 4), 4, 1)
    whole = n.cast(n.conv(x, 4, (4, 4), FixedPoint(4, 3)), 4, 1)
    design = qfx.rtl.plan(n.build(n.add(ops.Add(), pooled, whole)), interval=16)
    assert not [k for k in design.kernels if k.module == "qfx_window"]
