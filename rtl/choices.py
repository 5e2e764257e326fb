"""What each stage can be: its folds, with their steps per frame and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd

from qfx.rtl.array_stages import FoldedStage
from qfx.rtl.build import Fold, divisors, kernel_steps, lanes_in, stage_kernels
from qfx.rtl.estimate import Resources, total
from qfx.rtl.stages import Concat, Depthwise, Elementwise, MatVec, Reorder, Stage


@dataclass(frozen=True)
class Choice:
    """One fold of a stage.

    Attributes:
        fold: the fold.
        lanes: elements of the beats that it takes, for each operand.
        steps: cycles that its slowest kernel needs for a frame.
        cost: estimate of its kernels, converters around it not counted.
    """

    fold: Fold
    lanes: tuple[int, ...]
    steps: int
    cost: Resources


def of(stage: Stage, fold: Fold) -> Choice:
    """A fold with its steps and its cost."""
    kernels = stage_kernels(stage, fold)
    steps = max(kernel_steps(stage, fold, kernel) for kernel in kernels)
    return Choice(fold, operand_lanes(stage, fold), steps, total(kernels))


def operand_lanes(stage: Stage, fold: Fold) -> tuple[int, ...]:
    """Elements of the beats that a stage takes, for each operand."""
    if isinstance(stage, FoldedStage):
        return stage.lanes(fold.pe, fold.simd)
    return (lanes_in(stage, fold),) * len(stage.inputs)


def every(stage: Stage, memories: Sequence[str] = ("lut", "block")) -> list[Choice]:
    """All folds of a stage.

    Args:
        memories: where weights may be, for the stages that keep some: ``"lut"``, ``"block"``, ``"stream"``
            (matrices only).
    """
    return [of(stage, fold) for fold in folds(stage, memories)]


def folds(stage: Stage, memories: Sequence[str] = ("lut", "block")) -> Iterator[Fold]:
    """The folds of :func:`every`."""
    if isinstance(stage, FoldedStage):
        yield from (Fold(pe, simd) for pe, simd in stage.folds())
        return
    if isinstance(stage, MatVec):
        for simd in divisors(stage.columns):
            for pe in divisors(stage.rows):
                # A single word is no memory, but wires.
                one = stage.groups * stage.rows * stage.columns == pe * simd
                places = ("auto",) if one and memories != ("stream",) else memories
                for lanes in _window_lanes(stage, simd):
                    for place in places:
                        yield Fold(pe, simd, lanes, place)
        return
    kept = tuple(m for m in memories if m != "stream")
    kept = kept if isinstance(stage, Depthwise) and stage.weight.shape[0] > 1 else ("auto",)
    for lanes in lane_choices(stage):
        for place in kept:
            yield Fold(lanes, memory=place)


def _window_lanes(stage: MatVec, simd: int) -> Sequence[int | None]:
    if stage.window is None:
        return (None,)
    return divisors(gcd(simd, stage.inputs[0].channels // stage.groups))


def lane_limit(stage: Stage) -> int:
    """The most elements that a beat of a stage that is no matrix may have."""
    if isinstance(stage, Reorder):
        return stage.block
    if isinstance(stage, Concat):
        return gcd(*(value.channels for value in stage.inputs))
    return stage.output.channels


def lane_choices(stage: Stage) -> list[int]:
    """How many elements a beat of a stage that is no matrix may have."""
    limit = lane_limit(stage)
    group = stage.group if isinstance(stage, Elementwise) else 1
    return [lanes for lanes in divisors(limit) if lanes % group == 0 or lanes == limit]


def undominated(choices: Iterable[Choice]) -> list[Choice]:
    """Choices of one stage without those that another one makes needless.

    Between two choices with the same beats in and out, what the rest of the design costs is the same; one
    that takes no less of any resource is left out. No optimum is lost.
    """
    groups: dict[tuple[tuple[int, ...], int], list[Choice]] = {}
    for choice in choices:
        groups.setdefault((choice.lanes, choice.fold.pe), []).append(choice)
    return [choice for group in groups.values() for choice in _pareto(group)]


def _pareto(group: list[Choice]) -> list[Choice]:
    kept: list[Choice] = []
    for choice in sorted(group, key=lambda c: (c.cost.weight, c.steps)):
        mine = choice.cost.vector
        if not any(all(a <= b for a, b in zip(k.cost.vector, mine, strict=True)) for k in kept):
            kept.append(choice)
    return kept
