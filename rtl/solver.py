"""The cheapest folding within an interval and a budget: a mixed-integer program, solved by HiGHS; exactly,
but for very large ones (:data:`GAP`).

One binary variable per stage and fold. What converters and FIFOs between two stages cost depends on the pair
of widths that meet, so each edge carries one unit of flow from the width that its producer makes to the width
that its consumer takes; once the folds are whole, so are the flows. Along a chain this is a shortest path,
whose linear relaxation is whole by itself; only forks that meet again and budgets make branching necessary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import highspy
import numpy as np

from qfx.errors import QfxError
from qfx.rtl import fifos
from qfx.rtl.build import Fold, conversion, conversion_kernels, divisors, fifo_lanes, has_fifo
from qfx.rtl.choices import Choice, undominated
from qfx.rtl.design import Kernel
from qfx.rtl.estimate import Resources, of, remembered, total
from qfx.rtl.stages import Program, Stage, Value

#: Nodes of the search tree after which the best folding found so far is taken; a bound that does not depend
#: on the speed of the machine.
MAX_NODES = 20_000
#: A program of more columns than :data:`LARGE` is done when no folding can be cheaper by more than this part
#: of the cost: a tenth of the error of the estimate that is minimised. The proof takes ten times as long.
GAP, LARGE = 0.003, 20_000
#: Nodes of the search tree of such a program: a node takes a tenth of a second there.
FEW_NODES = 200


@dataclass(frozen=True)
class Budget:
    """How much of each resource may be used; ``None``: without limit."""

    lut: float | None = None
    ff: float | None = None
    dsp: float | None = None
    bram18: float | None = None

    @property
    def vector(self) -> tuple[float, float, float, float]:
        """LUT, FF, DSP, BRAM18; infinite where there is no limit."""
        limits = (self.lut, self.ff, self.dsp, self.bram18)
        return tuple(np.inf if limit is None else float(limit) for limit in limits)  # type: ignore[return-value]

    @property
    def is_open(self) -> bool:
        """Whether nothing is limited."""
        return self == Budget()

    def holds(self, used: Resources) -> bool:
        """Whether so much may be used."""
        return all(a <= b for a, b in zip(used.vector, self.vector, strict=True))

    def less(self, reserve: Resources) -> Budget:
        """What is left when so much is set aside."""
        names = ("lut", "ff", "dsp", "bram18")
        limits = {name: getattr(self, name) for name in names}
        return Budget(**{k: v if v is None else v - getattr(reserve, k) for k, v in limits.items()})


@dataclass(frozen=True)
class Solution:
    """A fold for every stage.

    Attributes:
        folds: by the name of each stage's output value.
        input_lanes: elements of an input beat.
        resources: estimate of the design, its FIFOs at the depths that the problem expects.
        gap: how much cheaper, in parts of the cost, a better one could be; 0 where this is the optimum.
        variables: choices and widths that were left to the solver.
    """

    folds: Mapping[str, Fold]
    input_lanes: int
    resources: Resources
    gap: float
    variables: int


class Problem:
    """Folding of one program.

    Args:
        program: what to fold.
        choices: what each stage can be, by the name of its output value.
        waiting: elements that wait in FIFOs in front of operands (:func:`qfx.rtl.lags.waiting`); without it
            every FIFO has the least depth, so that ``resources`` of a folding bounds its cost from below.

    Attributes:
        undecided: whether a search ended at :data:`MAX_NODES` before it knew if there is a folding at all.
    """

    def __init__(
        self,
        program: Program,
        choices: Mapping[str, Sequence[Choice]],
        waiting: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self.program, self.choices, self.waiting = program, choices, waiting or {}
        self.undecided = False
        self._solved: dict[tuple[int, Budget, bool], Solution | None] = {}
        self._readers = Counter(value.name for stage in program.stages for value in stage.inputs)
        self._readers[program.output.name] += 1

    def behind(self, value: Value, lanes: int) -> Resources:
        """What stands behind the kernel that makes a stream: the FIFO of a port, and a fork."""
        cost = Resources()
        for port in (self.program.input, self.program.output):
            if value.name == port.name:
                cost += fifos.cost(2, lanes * value.width)
        readers = self._readers[value.name]
        if readers != 1:
            cost += of(Kernel("", "qfx_fork", {"WIDTH": lanes * value.width, "N": readers}, (), (), ""))
        return cost

    def edge(self, stage: Stage, operand: int, before: int, after: int, target: int) -> Resources:
        """What stands between the producer of an operand, or its fork, and the stage."""
        value = stage.inputs[operand]
        cost = converters(value, before, after, target)
        if has_fifo(stage, operand):
            lanes = fifo_lanes(before, after, value.size, target)
            held = self.waiting.get((stage.output.name, operand), 0)
            cost += fifos.cost(-(-held // lanes), lanes * value.width)
        return cost

    def is_conceivable(self, target: int, budget: Budget) -> bool:
        """Whether a mixture of folds would fit the budget: the linear relaxation. Where it does not, no
        folding does, and this is known much sooner.
        """
        options, lanes = self._options(target), self._lanes(target)
        if not lanes or not all(options.values()):
            return False
        options = _within_reach(options, budget, None)
        if not all(options.values()):
            return False
        return _Model(self, options, lanes, target, budget).is_conceivable()

    def _options(self, target: int) -> dict[str, list[Choice]]:
        """Choices within the target that no other one dominates, with what stands behind them."""
        return {
            stage.output.name: [
                replace(c, cost=c.cost + self.behind(stage.output, c.fold.pe))
                for c in undominated(c for c in self.choices[stage.output.name] if c.steps <= target)
            ]
            for stage in self.program.stages
        }

    def _lanes(self, target: int) -> list[int]:
        """Elements that an input beat can have."""
        x = self.program.input
        return [n for n in divisors(x.channels) if x.size // n <= target]

    def solve(self, target: int, budget: Budget, *, any_that_fits: bool = False) -> Solution | None:
        """The folding of least weight in which no stage takes more than ``target`` cycles per frame.

        Args:
            target: interval in cycles.
            budget: resources that may not be exceeded.
            any_that_fits: stop at the first folding within the budget.

        Returns:
            ``None`` when there is none, or none was found within :data:`MAX_NODES`.

        Raises:
            QfxError: HiGHS fails (a fault of QFX or of HiGHS, not of the user).
        """
        key = target, budget, any_that_fits
        if key not in self._solved:
            self._solved[key] = self._solve(target, budget, any_that_fits)
        return self._solved[key]

    def _solve(self, target: int, budget: Budget, any_that_fits: bool) -> Solution | None:
        options, lanes = self._options(target), self._lanes(target)
        if not lanes or not all(options.values()):
            return None
        quick = self._along_the_flow(options, lanes, target)
        fits = quick is not None and budget.holds(quick.resources)
        if fits and any_that_fits:
            return quick
        options = _within_reach(options, budget, quick.resources.weight if quick and fits else None)
        if not all(options.values()):
            return None
        found, undecided = _Model(self, options, lanes, target, budget).solve(any_that_fits)
        self.undecided |= undecided
        return found

    def _along_the_flow(
        self, options: Mapping[str, Sequence[Choice]], lanes: Sequence[int], target: int
    ) -> Solution | None:
        """A good folding, quickly: stage by stage the cheapest after what came before, once for each width of
        the input. It bounds the optimum from above.
        """
        program, best = self.program, None
        for first in lanes:
            made = {program.input.name: first}
            folds: dict[str, Fold] = {}
            used = self.behind(program.input, first)
            for stage in program.stages:
                costs = [
                    sum(
                        (
                            self.edge(stage, i, made[v.name], taken, target)
                            for i, (v, taken) in enumerate(zip(stage.inputs, c.lanes, strict=True))
                        ),
                        c.cost,
                    )
                    for c in options[stage.output.name]
                ]
                index = min(range(len(costs)), key=lambda i: costs[i].weight)
                fold = options[stage.output.name][index].fold
                folds[stage.output.name] = fold
                made[stage.output.name] = fold.pe
                used += costs[index]
            if best is None or used.weight < best.resources.weight:
                best = Solution(folds, first, used, 0.0, 0)
        return best


@remembered
def _conversion_cost(width: int, before: int, after: int, path: tuple[int, ...]) -> Resources:
    """Converters from ``before`` to ``after`` lanes through ``path``."""
    hops = (before, *path, after)
    # The size and target that conversion() would choose the path by are not needed: each hop divides.
    return sum(
        (total(conversion_kernels("", width, a, b, 0, 0)) for a, b in zip(hops, hops[1:], strict=False)),
        Resources(),
    )


def converters(value: Value, before: int, after: int, target: int) -> Resources:
    """What stands between a producer that makes beats of ``before`` and a consumer of ``after`` elements."""
    return _conversion_cost(value.width, before, after, conversion(before, after, value.size, target))


# -- bounds --------------------------------------------------------------------------------------------------


def _within_reach(
    options: Mapping[str, Sequence[Choice]], budget: Budget, best: float | None
) -> dict[str, list[Choice]]:
    """Without choices that cannot be part of an optimum.

    What stands on edges costs nothing or more, so a design costs at least the sum of each stage's cheapest
    choice. A choice that lifts this sum beyond the cost of a known folding, or beyond the budget, is out.
    """
    vectors = {
        name: np.array([(*c.cost.vector, c.cost.weight) for c in choices])
        for name, choices in options.items()
    }
    floors = {name: v.min(axis=0) for name, v in vectors.items()}
    floor = np.sum(list(floors.values()), axis=0)
    limit = np.array([*budget.vector, np.inf if best is None else best])
    slack = limit - floor + 1e-6
    return {
        name: [
            choice
            for choice, within in zip(
                choices, (vectors[name] - floors[name] <= slack).all(axis=1), strict=True
            )
            if within
        ]
        for name, choices in options.items()
    }


# -- the integer program -------------------------------------------------------------------------------------


class _Model:
    """Columns, rows and costs for HiGHS."""

    def __init__(
        self,
        problem: Problem,
        options: Mapping[str, Sequence[Choice]],
        lanes: Sequence[int],
        target: int,
        budget: Budget,
    ) -> None:
        program = problem.program
        self.problem, self.program, self.options, self.lanes = problem, program, options, lanes
        self.budget = budget
        self.resources: list[Resources] = []  # by column
        self.rows: list[tuple[float, float, list[int], list[float]]] = []
        # Columns by the width of a value's beats, and of a stage's beats.
        self.first: dict[str, int] = {}
        self.makes: dict[str, dict[int, list[int]]] = {}
        takes: dict[tuple[str, int], dict[int, list[int]]] = {}  # by stage and operand
        columns = [self._column(problem.behind(program.input, n)) for n in lanes]
        self.makes[program.input.name] = {n: [c] for n, c in zip(lanes, columns, strict=True)}
        self._row(1, 1, columns)
        for stage in program.stages:
            name = stage.output.name
            columns = [self._column(choice.cost) for choice in options[name]]
            self.first[name] = columns[0]
            self._row(1, 1, columns)
            self.makes[name] = {}
            for column, choice in zip(columns, options[name], strict=True):
                self.makes[name].setdefault(choice.fold.pe, []).append(column)
                for operand, lanes_taken in enumerate(choice.lanes):
                    takes.setdefault((name, operand), {}).setdefault(lanes_taken, []).append(column)
        self.integers = len(self.resources)
        for stage in program.stages:
            for operand in range(len(stage.inputs)):
                self._edge(stage, operand, takes[stage.output.name, operand], target)

    def _column(self, cost: Resources) -> int:
        self.resources.append(cost)
        return len(self.resources) - 1

    def _row(
        self, low: float, high: float, columns: Sequence[int], values: Sequence[float] | None = None
    ) -> None:
        self.rows.append((low, high, list(columns), list(values) if values else [1.0] * len(columns)))

    def _edge(self, stage: Stage, operand: int, takes: Mapping[int, Sequence[int]], target: int) -> None:
        """One unit of flow from the width that is made to the width that is taken."""
        makes = self.makes[stage.inputs[operand].name]
        flow = {
            (a, b): self._column(self.problem.edge(stage, operand, a, b, target))
            for a in makes
            for b in takes
        }
        for ends, side in ((makes, 0), (takes, 1)):
            for width, columns in ends.items():
                through = [column for pair, column in flow.items() if pair[side] == width]
                values = [1.0] * len(through) + [-1.0] * len(columns)
                self._row(0, 0, [*through, *columns], values)

    def is_conceivable(self) -> bool:
        """Whether the linear relaxation has a solution."""
        highs = self._highs(any_that_fits=True, relaxed=True)
        highs.run()
        return highs.getModelStatus() != highspy.HighsModelStatus.kInfeasible

    def solve(self, any_that_fits: bool) -> tuple[Solution | None, bool]:
        """The best folding, and whether the search ended before it had found any."""
        highs = self._highs(any_that_fits, relaxed=False)
        highs.run()
        status, info = highs.getModelStatus(), highs.getInfo()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None, False
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            if status == highspy.HighsModelStatus.kSolutionLimit:
                return None, True
            raise QfxError(
                f"rtl: HiGHS {highs.version()} gives up on the folding: "
                f"{highs.modelStatusToString(status)}; please report this graph"
            )
        gap = 0.0 if any_that_fits else max(0.0, float(info.mip_gap))
        return self._solution(np.asarray(highs.getSolution().col_value), gap), False

    def _highs(self, any_that_fits: bool, relaxed: bool) -> highspy.Highs:
        """The program as HiGHS takes it."""
        count = len(self.resources)
        vectors = np.array([r.vector for r in self.resources]).T
        limits = np.array(self.budget.vector)
        weights = np.array([r.weight for r in self.resources])
        if any_that_fits:
            # What is scarce shall cost most.
            scarce = np.isfinite(limits)
            weights = (vectors[scarce] / np.maximum(limits[scarce], 1)[:, None]).sum(axis=0)
        for limit, vector in zip(limits, vectors, strict=True):
            if np.isfinite(limit):
                used = np.flatnonzero(vector)
                self._row(-highspy.kHighsInf, float(limit), used.tolist(), vector[used].tolist())
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = count, len(self.rows)
        lp.col_cost_ = weights
        lp.col_lower_ = np.zeros(count)
        lp.col_upper_ = np.ones(count)
        lp.row_lower_ = np.array([row[0] for row in self.rows], dtype=float)
        lp.row_upper_ = np.array([row[1] for row in self.rows], dtype=float)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(row[2]) for row in self.rows)])
        lp.a_matrix_.index_ = np.concatenate([np.array(row[2], dtype=np.int32) for row in self.rows])
        lp.a_matrix_.value_ = np.concatenate([row[3] for row in self.rows])
        kinds = highspy.HighsVarType
        if not relaxed:
            whole, flows = self.integers, count - self.integers
            lp.integrality_ = [kinds.kInteger] * whole + [kinds.kContinuous] * flows
        highs = highspy.Highs()
        highs.silent()
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("mip_rel_gap", GAP if count > LARGE else 0.0)
        highs.setOptionValue("mip_max_nodes", FEW_NODES if count > LARGE else MAX_NODES)
        if any_that_fits:
            highs.setOptionValue("mip_max_improving_sols", 1)
        highs.passModel(lp)
        return highs

    def _solution(self, x: np.ndarray, gap: float) -> Solution:
        folds = {}
        for stage in self.program.stages:
            name = stage.output.name
            columns = slice(self.first[name], self.first[name] + len(self.options[name]))
            folds[name] = self.options[name][int(np.argmax(x[columns]))].fold
        used = sum((self.resources[i] * round(float(x[i])) for i in np.flatnonzero(x > 0.5)), Resources())
        return Solution(folds, self.lanes[int(np.argmax(x[: len(self.lanes)]))], used, gap, len(x))
