"""Folding: how parallel each stage is, from a target interval, a budget of resources, a board, or by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

from qfx.boards import Board
from qfx.errors import QfxError
from qfx.graph import Graph
from qfx.rtl import choices, lags
from qfx.rtl.array_stages import FoldedStage
from qfx.rtl.build import Fold, divisors, is_main
from qfx.rtl.choices import Choice, lane_choices
from qfx.rtl.estimate import Resources
from qfx.rtl.solver import Budget, Problem
from qfx.rtl.stages import Depthwise, MatVec, Program, Stage

#: Without any wish of the user: multiply-accumulate units of the layer that has most to do.
DEFAULT_MACS = 64
#: How full a board may get by the estimate; place and route needs room, and the estimate has an error.
LUT_SHARE, MEMORY_SHARE = 0.7, 0.9
#: Where weights can be kept: look-up tables, block RAM, or outside, streamed in for every frame.
PLACES = ("lut", "block", "stream")
#: Most bits of weights per cycle that a layer takes from outside, unless it is folded by hand: the width of
#: an AXI port of a Zynq UltraScale+ processor.
STREAM_BITS = 128
#: Optima that are tried at an interval within a budget before any folding that fits is good enough: each
#: takes the solver long where budgets are tight.
MOST_OPTIMA = 3


@dataclass(frozen=True)
class Folding:
    """A fold for every stage, by the name of its output value.

    Attributes:
        folds: by the name of each stage's output value.
        input_lanes: elements of an input beat.
        target: the interval that no stage exceeds, in cycles.
        resources: estimate of the design, its FIFOs at the depths that are expected before they are sized.
        reserve: what was set aside of the budget for FIFOs that turned out larger than expected.
        gap: how much cheaper, in parts of its cost, a better folding could be. 0: this is the optimum; 1: not
            known, the search was cut short.
    """

    folds: Mapping[str, Fold]
    input_lanes: int
    target: int
    resources: Resources
    gap: float = 0.0
    reserve: Resources = Resources()


def choose(
    graph: Graph,
    program: Program,
    *,
    interval: int | None = None,
    board: Board | None = None,
    budget: Mapping[str, float] | None = None,
    fold: Mapping[str, Mapping[str, int]] | None = None,
    weights: Mapping[str, str] | None = None,
    others: Callable[[Stage, list[Choice]], list[Choice]] = lambda _, own: own,
    measure: Callable[[Folding], Resources] = lambda folding: folding.resources,
) -> Folding:
    """The folding for what the user asked for.

    With ``interval``: the cheapest folding that takes at most so many cycles per frame. With ``board`` or
    ``budget`` and no ``interval``: the fastest that fits, and of these the cheapest. With ``fold``: these
    layers as given, all others as cheap as keeps up with them (or with ``interval``). With nothing: the layer
    with most multiplications gets about :data:`DEFAULT_MACS` multipliers, the others keep up with it.

    Args:
        graph: for names in messages.
        program: its stages.
        interval: most cycles per frame.
        board: its resources, less what place and route needs free, are the budget.
        budget: limits of ``"lut"``, ``"ff"``, ``"dsp"``, ``"bram18"``; they replace those of the board.
        fold: by node name or module path.
        weights: where the weights of these layers are kept, by node name or module path: one of
            :data:`PLACES`. For other layers the solver chooses between look-up tables and block RAM. Where a
            board or budget is too small, it streams the weights of fully connected layers in, largest first,
            until the rest fits; those of layers that use weights several times per frame only when told to.
        others: what a stage can be besides, or instead, from the stage and its own choices.
        measure: what the design of a folding costs once its FIFOs are sized; called for every folding that is
            tried, the last time for the one that is returned. That one is within the budget.

    Raises:
        QfxError: the interval cannot be reached, the budget is too small, or a fold does not divide its
            layer.
    """
    fixed = _fixed(graph, program, fold or {})
    limits = budget_of(board, budget)
    kept = _kept(graph, program, weights or {})
    options = {
        stage.output.name: others(
            stage, _of_stage(stage, fixed.get(stage.output.name), kept.get(stage.output.name))
        )
        for stage in program.stages
    }
    search = _Search(Problem(program, options), limits, board, kept, measure)
    least = {name: min(c.steps for c in own) for name, own in options.items()}
    # One pixel of the input comes in per cycle at most.
    floor = max([*least.values(), program.input.pixels])
    if interval is not None:
        _check_interval(graph, program, interval, floor, least, fixed, kept)
        return search.cheapest(interval)
    if fixed:
        own = [least[name] for name in fixed]
        if not budget:
            # A board that is given with folds is only the target of scripts: the user has decided already.
            search = _Search(search.problem, Budget(), board, kept, measure)
        return search.cheapest(max(floor, *own), streams=False)
    if not limits.is_open:
        return search.fastest(floor)
    return search.cheapest(max(floor, _default_interval(program)))


def _of_stage(stage: Stage, fixed: Fold | None, kept: str | None) -> list[Choice]:
    every = choices.every(stage) if kept is None else choices.every(stage, (kept,))
    if fixed is None:
        return [c for c in every if c.fold.memory != "stream" or _beat_bits(stage, c.fold) <= STREAM_BITS]
    same = {"simd": fixed.simd, "pe": fixed.pe, "lanes": fixed.lanes}
    return [c for c in every if {k: getattr(c.fold, k) for k in same} == same]


def _beat_bits(stage: Stage, fold: Fold) -> int:
    """Bits of weights that a matrix takes per step."""
    assert isinstance(stage, MatVec) and fold.simd is not None
    return fold.pe * fold.simd * stage.weight_width


def _with_streams(problem: Problem, kept: Mapping[str, str]) -> Iterator[Problem]:
    """The problem, then with the weights of more and more layers streamed in, the largest first: of those
    that use each weight once per frame, so that a stream moves no more than the matrix itself.
    """
    once = [
        stage
        for stage in problem.program.stages
        if isinstance(stage, MatVec) and stage.rounds == 1 and stage.output.name not in kept
    ]
    yield problem
    for stage in sorted(once, key=lambda s: -s.weight.size * s.weight_width):
        given = {c.fold for c in problem.choices[stage.output.name]}
        own = [
            c
            for c in _of_stage(stage, None, "stream")
            if any(replace(c.fold, memory=place) in given for place in ("lut", "block", "auto"))
        ]
        problem = Problem(problem.program, {**problem.choices, stage.output.name: own})
        yield problem


def _check_interval(
    graph: Graph,
    program: Program,
    interval: int,
    floor: int,
    least: Mapping[str, int],
    fixed: Mapping[str, Fold],
    kept: Mapping[str, str],
) -> None:
    if interval >= floor:
        return
    if floor == program.input.pixels:
        raise QfxError(
            f"graph: an input frame has {floor} pixels and at most one comes in per cycle, so "
            f"interval={interval} cannot be reached; give interval={floor} or more"
        )
    slow = max(program.stages, key=lambda s: least[s.output.name])
    given = " fully unfolded"
    if slow.output.name in fixed:
        given = " with the fold given"
    elif kept.get(slow.output.name) == "stream":
        given = f" with {STREAM_BITS} bits of weights per cycle from outside"
    raise QfxError(
        f"{graph[slow.node].where}: needs {floor} cycles per frame{given}, so interval={interval} "
        f"cannot be reached; give interval={floor} or more"
    )


def _default_interval(program: Program) -> int:
    macs = [s.rounds * s.weight.size for s in program.stages if isinstance(s, MatVec)]
    macs += [s.products for s in program.stages if isinstance(s, FoldedStage)]
    return -(-max(macs, default=0) // DEFAULT_MACS)


def cheaper(programs: Sequence[Program], interval: int | None) -> int:
    """Which of several programs costs least at an interval, or at twice the least that all of them reach.

    Returns:
        its index; of equal ones the first.
    """
    problems = [Problem(p, {s.output.name: choices.every(s) for s in p.stages}) for p in programs]
    floors = [
        max(p.program.input.pixels, *(min(c.steps for c in own) for own in p.choices.values()))
        for p in problems
    ]
    found = [problem.solve(interval or 2 * max(floors), Budget()) for problem in problems]
    costs = [float("inf") if f is None else f.resources.weight for f in found]
    return costs.index(min(costs))


# -- budgets -------------------------------------------------------------------------------------------------


def budget_of(board: Board | None, given: Mapping[str, float] | None) -> Budget:
    """The limits of a board, of which parts stay free, or others in their place.

    Raises:
        QfxError: ``given`` names an unknown resource, or a limit is not a number.
    """
    limits: dict[str, float] = {}
    if board is not None:
        have = board.resources
        limits = {
            "lut": LUT_SHARE * have.lut,
            "ff": LUT_SHARE * have.ff,
            "dsp": MEMORY_SHARE * have.dsp,
            "bram18": MEMORY_SHARE * have.bram18,
        }
    known = ("lut", "ff", "dsp", "bram18")
    for name, limit in (given or {}).items():
        if name not in known:
            raise QfxError(f"budget: found {name!r}; supported: {', '.join(known)}")
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
            raise QfxError(f"budget: {name}={limit!r} must be a number, 0 or more")
        limits[name] = limit
    return Budget(**limits)


def check_budget(given: Mapping[str, float] | None, used: Resources, what: str, remedy: str) -> None:
    """Refuse a design that has no folds to choose and takes more than a budget.

    Raises:
        QfxError: it does, or the budget is not one.
    """
    limits = budget_of(None, given)
    if not limits.holds(used):
        raise QfxError(f"budget: {what} needs about {_figures(used)}, {_may_use(limits, None)}; {remedy}")


class _Search:
    """Foldings within a budget, FIFOs included.

    What FIFOs need is known only when they are sized, so a folding that the solver finds is *tried*: built,
    sized, measured. If it exceeds the budget, as much is set aside of the budget as it takes more than the
    solver thought, and the solver looks again at the same interval. The folding that failed is then out of
    the question for good, and there are finitely many of them, so that this ends.

    Args:
        problem: all foldings.
        limits: the budget.
        board, kept: as for :func:`choose`.
        measure: what the design of a folding costs.
    """

    def __init__(
        self,
        problem: Problem,
        limits: Budget,
        board: Board | None,
        kept: Mapping[str, str],
        measure: Callable[[Folding], Resources],
    ) -> None:
        self.problem, self.limits, self.board, self.kept = problem, limits, board, kept
        self.measure = measure
        self.waiting = lags.waiting(problem.program)
        self.reserve = Resources()  # what the first folding that was too large took more than expected
        self.inherits = True  # whether other intervals set that aside as well
        self.tried: Resources | None = None  # what the last folding took that was too large
        self.too_large: dict[object, Resources] = {}  # what each of them took

    def cheapest(self, target: int, streams: bool = True) -> Folding:
        """The cheapest folding within an interval that can be reached."""
        self.inherits = False  # there is one interval
        for problem in self._problems(streams):
            found = self._cheapest(problem, target) or self._any(problem, target)
            if found is not None:
                return found
        needs = self._needs(target)
        raise QfxError(
            f"{_owner(self.board)}: interval={target} needs about {_figures(needs)}, "
            f"{_may_use(self.limits, self.board)}; give a larger interval"
        )

    def fastest(self, floor: int) -> Folding:
        """The smallest interval at which a folding fits, and the cheapest of these foldings."""
        targets = sorted(t for t in _intervals(self.problem) | {floor} if t >= floor)
        for problem in self._problems(True):
            # At the last one, everything may be fully folded.
            if problem.solve(targets[-1], self.limits, any_that_fits=True) is None:
                continue
            found = self._fastest(problem, targets)
            if found is None and self.reserve != Resources():
                # Set aside needlessly, perhaps: once more, each interval for itself.
                self.inherits, self.reserve = False, Resources()
                found = self._fastest(problem, targets)
            if found is not None:
                return found
        needs = self._needs(targets[-1])
        raise QfxError(
            f"{_owner(self.board)}: the network does not fit even when fully folded: it needs about "
            f"{_figures(needs)}, {_may_use(self.limits, self.board)}; take a larger board, fewer weights, "
            "or narrower formats"
        )

    def _problems(self, streams: bool) -> Iterator[Problem]:
        """The problem with FIFOs as :mod:`qfx.rtl.lags` expects them; some turn out smaller, so if nothing
        fits, with the least depths; then with weights streamed in, likewise.
        """
        if self.limits.is_open or not streams:
            problems: Iterator[Problem] = iter((self.problem,))
        else:
            problems = _with_streams(self.problem, self.kept)
        for problem in problems:
            if any(self.waiting.values()):
                yield Problem(problem.program, problem.choices, self.waiting)
            yield problem

    def _needs(self, target: int) -> Resources:
        """What a message says that is needed."""
        if self.tried is not None:
            return self.tried
        # The interval itself can be reached: that was looked at before.
        least = self.problem.solve(target, Budget())
        assert least is not None
        return least.resources

    def _cheapest(self, problem: Problem, target: int) -> Folding | None:
        """The cheapest folding at an interval that fits the budget as measured, unless the first
        :data:`MOST_OPTIMA` do not.
        """
        return self._try(problem, target, MOST_OPTIMA, any_that_fits=False)

    def _any(self, problem: Problem, target: int) -> Folding | None:
        """A folding at an interval that fits the budget as measured."""
        return self._try(problem, target, None, any_that_fits=True)

    def _try(self, problem: Problem, target: int, tries: int | None, any_that_fits: bool) -> Folding | None:
        """Foldings of a problem one after the other until one fits as measured; what had to be set aside at
        another interval is set aside from the start, since FIFOs differ little from one to the next."""
        reserve = self.reserve
        while tries is None or tries > 0:
            found = problem.solve(target, self.limits.less(reserve), any_that_fits=any_that_fits)
            if found is None:
                return None
            gap = 1.0 if any_that_fits or problem.undecided else found.gap
            folding = Folding(found.folds, found.input_lanes, target, found.resources, gap, reserve)
            key = (target, found.input_lanes, *sorted(found.folds.items()))
            used = self.too_large.get(key) or self.measure(folding)
            if self.limits.holds(used):
                return folding
            self.tried = self.too_large[key] = used
            reserve = _larger_reserve(reserve, found.resources, used, self.limits)
            if self.inherits and self.reserve == Resources():
                self.reserve = reserve
            tries = None if tries is None else tries - 1
        return None

    def _fastest(self, problem: Problem, targets: Sequence[int]) -> Folding | None:
        """The smallest of some intervals at which a folding fits, and the cheapest there; below the first
        that is tried the problem has no solution.

        From there in growing steps until something fits, then by bisection.
        """
        low = high = _first_that_fits(problem, targets, self.limits)
        found = self._any(problem, targets[low])
        while found is None and high < len(targets) - 1:
            low, high = high, min(2 * high - low + 1, len(targets) - 1)
            found = self._any(problem, targets[high])
        if found is None:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            better = self._any(problem, targets[middle])
            if better is None:
                low = middle
            else:
                high, found = middle, better
        best = self._cheapest(problem, targets[high])
        if best is None:
            self.measure(found)  # what is measured last is what is returned
        return best or found


def _larger_reserve(reserve: Resources, expected: Resources, used: Resources, limits: Budget) -> Resources:
    """What to set aside after a folding took ``used`` instead of ``expected`` and did not fit.

    Of a resource of which there was too little, from the second time on a quarter more at least, so that a
    few tries are enough.
    """
    vectors = zip(reserve.vector, expected.vector, used.vector, limits.vector, strict=True)
    return Resources(*(max(1.25 * r, u - e) if u > most else r for r, e, u, most in vectors))


def _first_that_fits(problem: Problem, targets: Sequence[int], limits: Budget) -> int:
    """The first of ascending intervals at which the problem has a solution, by bisection; at the last one it
    has.
    """
    low, high = 0, len(targets) - 1
    # First the least interval that is not out of the question, which is most often the least of all.
    ceiling = high
    while low < ceiling:
        middle = (low + ceiling) // 2
        if problem.is_conceivable(targets[middle], limits):
            ceiling = middle
        else:
            low = middle + 1
    step = 0
    while low < high:
        middle = min(low + step, (low + high) // 2)
        step = 2 * step + 1
        if problem.solve(targets[middle], limits, any_that_fits=True) is not None:
            high = middle
        else:
            low = middle + 1
    return high


def _intervals(problem: Problem) -> set[int]:
    """The intervals at which a fold, a width of the input or a way of converting becomes possible."""
    program = problem.program
    found = {choice.steps for own in problem.choices.values() for choice in own}
    for value in (program.input, *(stage.output for stage in program.stages)):
        found |= {value.size // lanes for lanes in divisors(value.channels)}
    return found


def _owner(board: Board | None) -> str:
    return "budget" if board is None else f"board {board.name}"


def _figures(r: Resources) -> str:
    return f"{r.lut:.0f} LUT, {r.ff:.0f} FF, {r.dsp:.0f} DSP, {r.bram18:.0f} BRAM18"


def _may_use(limits: Budget, board: Board | None) -> str:
    names = ("LUT", "FF", "DSP", "BRAM18")
    allowed = ", ".join(
        f"{limit:.0f} {name}"
        for limit, name in zip(limits.vector, names, strict=True)
        if limit != float("inf")
    )
    if board is None:
        return f"the budget is {allowed}"
    r = board.resources
    has = f"{r.lut} LUT, {r.ff} FF, {r.dsp} DSP, {r.bram18} BRAM18"
    return f"the board has {has}, of which {allowed} may be used"


# -- by hand -------------------------------------------------------------------------------------------------


def _fixed(graph: Graph, program: Program, given: Mapping[str, Mapping[str, int]]) -> dict[str, Fold]:
    """The user's folds by stage."""
    main = {stage.node: stage for stage in program.stages if is_main(stage)}
    fixed: dict[str, Fold] = {}
    for name, wish in given.items():
        stage = _named(graph, main, name)
        fixed[stage.output.name] = _checked(graph, stage, name, dict(wish))
    return fixed


def _kept(graph: Graph, program: Program, given: Mapping[str, str]) -> dict[str, str]:
    """Where the user wants weights to be, by stage."""
    main = {stage.node: stage for stage in program.stages if is_main(stage)}
    kept: dict[str, str] = {}
    for name, place in given.items():
        stage = _named(graph, main, name)
        where = f"weights of {name!r} ({graph[stage.node].where})"
        if place not in PLACES:
            raise QfxError(f"{where}: found {place!r}; supported: {', '.join(PLACES)}")
        if not isinstance(stage, MatVec | Depthwise):
            raise QfxError(f"{where}: the layer keeps no weights in a memory; leave it out")
        if isinstance(stage, Depthwise) and place == "stream":
            raise QfxError(f"{where}: a depthwise layer's weights cannot be streamed; supported: lut, block")
        kept[stage.output.name] = place
    return kept


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
    own = list(stage.folds()) if isinstance(stage, FoldedStage) else []
    matrix = isinstance(stage, MatVec) or any(simd is not None for _, simd in own)
    unknown = sorted(set(wish) - ({"pe", "simd"} if matrix else {"pe"}))
    if unknown or not wish:
        raise QfxError(
            f"{where}: found keys {sorted(wish)}; supported: "
            f"{'pe and simd' if matrix else 'pe (elements per beat)'}"
        )
    if own:
        pe = _one_of(where, "pe", wish.get("pe", own[0][0]), sorted({pe for pe, _ in own}))
        widths = [simd for p, simd in own if p == pe]
        if "simd" not in wish:
            return Fold(pe, widths[0])
        return Fold(pe, _one_of(where, "simd", wish["simd"], [simd or 1 for simd in widths]))
    if not isinstance(stage, MatVec):
        return Fold(_one_of(where, "pe", wish["pe"], lane_choices(stage)))
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
