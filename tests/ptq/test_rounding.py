"""Learned rounding: on the grid, never worse than the nearest, and where no single change helps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import qfx
from qfx import ptq
from qfx.ptq.grid import Grid, grid_of
from qfx.ptq.matrices import objective
from qfx.ptq.rounding import _descend, polish, round_rows

FORMATS = [
    qfx.FixedPoint(3, 2),
    qfx.FixedPoint(4, 3, overflow="SAT_SYM"),
    qfx.Minifloat(2, 1, 2),
    qfx.KHot(5, 3, k=1),
]


def problem(fmt: Any, seed: int, n: int = 6) -> tuple[Grid, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 3, n, generator=random, dtype=torch.float64) * 0.6
    target = weights + 0.05 * torch.randn(weights.shape, generator=random, dtype=torch.float64)
    x = torch.randn(2, n, 4 * n, generator=random, dtype=torch.float64)
    x = x + 2 * torch.randn(2, 1, 4 * n, generator=random, dtype=torch.float64)  # inputs that move together
    grid = grid_of(qfx.nn.Quantizer(fmt))
    assert grid is not None
    return grid.rows(2, 6), weights, target, x @ x.mT / (4 * n)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_grid_is_the_format(fmt: Any) -> None:
    grid = grid_of(qfx.nn.Quantizer(fmt))
    assert grid is not None
    numbers = torch.from_numpy(fmt.values()).unique()
    x = torch.cat([numbers, (numbers[1:] + numbers[:-1]) / 2 + 1e-3, torch.tensor([-99.0, 99.0])]).double()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    below = torch.stack([numbers[numbers <= v].max() if (numbers <= v).any() else numbers[0] for v in x])
    above = torch.stack([numbers[numbers >= v].min() if (numbers >= v).any() else numbers[-1] for v in x])
    nearest = torch.stack([numbers[(numbers - v).abs().argmin()] for v in x])
    assert torch.equal(grid.down(x), below)
    assert torch.equal(grid.up(x), above)
    assert torch.equal(grid.nearest(x), nearest)
    before, behind = grid.beside(numbers)
    assert torch.equal(before, torch.cat([numbers[:1], numbers[:-1]]))
    assert torch.equal(behind, torch.cat([numbers[1:], numbers[-1:]]))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_never_worse_than_nearest(fmt: Any) -> None:
    better = 0
    for seed in range(6):
        grid, weights, target, hessian = problem(fmt, seed)
        for options in (
            ptq.LearnedRounding(steps=60),
            ptq.LearnedRounding(steps=60, polish=0),
            ptq.LearnedRounding(steps=0),
        ):
            found = round_rows(grid, weights, target, hessian, options)
            assert torch.equal(grid.nearest(found), found)
            for nearest in (grid.nearest(weights), grid.nearest(target)):
                now, before = objective(found, target, hessian), objective(nearest, target, hessian)
                assert bool((now <= before).all())
                better += int((now < before).sum())
    assert better > 50


def test_descent_alone_beats_nearest_and_comes_close_to_the_best() -> None:
    """Against all combinations of up and down."""
    ratios = []
    for seed in range(8):
        grid, _, target, hessian = problem(qfx.FixedPoint(3, 2), seed)
        found = objective(_descend(grid, target, hessian, ptq.LearnedRounding(steps=200)), target, hessian)
        nearest = objective(grid.nearest(target), target, hessian)
        down, up = grid.down(target), grid.up(target)
        best = torch.full_like(found, torch.inf)
        for choice in itertools.product((False, True), repeat=target.shape[2]):
            best = torch.minimum(
                best, objective(torch.where(torch.tensor(choice), up, down), target, hessian)
            )
        assert bool((found >= best - 1e-12).all())
        ratios.append(((found - best).sum() / (nearest - best).sum()).item())
    # Of what nearest loses, gradient descent gets most back.
    assert sum(ratios) / len(ratios) < 0.3


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_polished_rows_cannot_be_improved_by_one_step(fmt: Any) -> None:
    grid, _, target, hessian = problem(fmt, 3, n=12)
    found = polish(grid, grid.nearest(target), target, hessian, most=20.0)
    error = objective(found, target, hessian)
    for step in grid.beside(found):
        for j in range(found.shape[2]):
            other = found.clone()
            other[:, :, j] = step[:, :, j]
            assert bool((objective(other, target, hessian) >= error - 1e-12).all())
