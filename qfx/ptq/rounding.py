"""Learned rounding: whether each weight goes up or down is found by gradient descent on the layer's error.

Sources: M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv:2004.10568
(rectified sigmoid and annealed regularisation, equations 23-25; asymmetric reconstruction). E. Yvinec et
al., "Gradient-Based Post-Training Quantization: Challenging the Status Quo", arXiv:2308.07662, ask for other
problem formulations, more degrees of freedom and non-uniform grids. Here the error is a quadratic form of all
samples at once (:mod:`qfx.ptq.matrices`), so that every step descends on the whole calibration set; single
changes afterwards may leave the two numbers next to a weight; and any grid will do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qfx.errors import QfxError
from qfx.learn.model import QuantizedModel
from qfx.ptq.gptq import round_columns
from qfx.ptq.grid import Grid
from qfx.ptq.layerwise import Reconstruction, reconstruct
from qfx.ptq.matrices import objective
from qfx.ptq.walk import Batches

#: The rectified sigmoid reaches from -0.1 to 1.1 before it is clipped (AdaRound: gamma and zeta).
_STRETCH = 1.2
#: beta at the start and at the end of annealing; before it starts there is no regularisation.
_BETA = (20.0, 2.0)
_WARM = 0.2


@dataclass(frozen=True)
class LearnedRounding(Reconstruction):
    """Options of :func:`learn_rounding`.

    Args:
        steps: of Adam per layer; 0 leaves gradient descent out.
        lr: learning rate.
        regularisation: weight of the term that drives decisions to 0 or 1, relative to the error of rounding
            to the nearest.
        polish: at most so many changes per weight row, in units of its length, of single weights by one step
            of the grid, the best one first, as long as the error shrinks; 0 for none.
        Others as in :class:`Reconstruction`.
    """

    steps: int = 300
    lr: float = 0.02
    regularisation: float = 0.3
    polish: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or not self.lr > 0 or self.polish < 0 or self.regularisation < 0:
            raise QfxError(
                "LearnedRounding: steps, polish and regularisation must not be negative, lr must be "
                f"positive, found {self}"
            )


def learn_rounding(
    q: QuantizedModel,
    batches: Batches,
    options: LearnedRounding | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy with the weights of every linear and convolution layer on their grids, by learned rounding.

    Of each row of weights (an output channel) the best of four is taken: nearest, GPTQ, learned, and learned
    from GPTQ's result by single changes; so no row is worse than rounded to the nearest, as far as the
    layer's error on the calibration data goes.

    Args:
        q: a calibrated prepared model; binary points stay.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`LearnedRounding`.
        reference: see :func:`qfx.ptq.quantize`.
        progress: show a bar.

    Raises:
        QfxError: bad data, a model that is not calibrated.
    """
    options = LearnedRounding() if options is None else options

    def solver(grid: Grid, rows: torch.Tensor, target: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
        return round_rows(grid, rows, target, hessian, options)

    return reconstruct(q, batches, options, solver, reference, "learned rounding", progress)


def round_rows(
    grid: Grid, rows: torch.Tensor, target: torch.Tensor, hessian: torch.Tensor, options: LearnedRounding
) -> torch.Tensor:
    """Weights on the grid with a small ``(W' - T) H (W' - T)^T``, row by row never worse than the nearest to
    ``W`` or to ``T``.

    Args:
        grid: one scale per row, see :meth:`Grid.rows`.
        rows: the float weights ``W``, float64 ``(groups, rows, n)``; target: ``T``, likewise.
        hessian: float64 ``(groups, n, n)``, positive definite.
    """
    best = grid.nearest(rows)
    for candidate in (grid.nearest(target), round_columns(grid, target, hessian)):
        best = _better(best, candidate, target, hessian)
    if options.steps:
        best = _better(best, _descend(grid, target, hessian, options), target, hessian)
    if options.polish:
        best = _better(best, polish(grid, best, target, hessian, options.polish), target, hessian)
    return best


def polish(
    grid: Grid, rows: torch.Tensor, target: torch.Tensor, hessian: torch.Tensor, most: float = 1.0
) -> torch.Tensor:
    """Coordinate descent: in every row, the single step up or down on the grid that lowers the error most,
    until none does or ``most`` times the row's length steps are done."""
    rows = rows.clone()
    n = rows.shape[2]
    diagonal = hessian.diagonal(dim1=1, dim2=2).unsqueeze(1)
    slope = (rows - target) @ hessian
    down, up = grid.beside(rows)
    gain_down, gain_up = (_change(d, rows, slope, diagonal) for d in (down, up))
    scale = grid.scale.expand(rows.shape[0], rows.shape[1], 1)
    for _ in range(math.ceil(most * n)):
        lower, upper = gain_down.min(2), gain_up.min(2)
        rising = upper.values < lower.values
        gain = torch.where(rising, upper.values, lower.values)
        if not bool((gain < 0).any()):
            break
        at = torch.where(rising, upper.indices, lower.indices).unsqueeze(2)
        old = rows.gather(2, at)
        new = torch.where(rising.unsqueeze(2), up.gather(2, at), down.gather(2, at))
        new = torch.where((gain < 0).unsqueeze(2), new, old)
        rows.scatter_(2, at, new)
        slope += (new - old) * hessian.gather(1, at.expand(-1, -1, n))
        before, behind = Grid(scale, grid.low, grid.high, grid.numbers).beside(new)
        down.scatter_(2, at, before)
        up.scatter_(2, at, behind)
        gain_down, gain_up = (_change(d, rows, slope, diagonal) for d in (down, up))
    return rows


def _change(
    new: torch.Tensor, rows: torch.Tensor, slope: torch.Tensor, diagonal: torch.Tensor
) -> torch.Tensor:
    """How the error changes when one weight becomes ``new``."""
    step = new - rows
    return step * (2.0 * slope + step * diagonal)


def _better(a: torch.Tensor, b: torch.Tensor, target: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Of every row the one with the smaller error; ``a`` of equals."""
    wins = objective(b, target, hessian) < objective(a, target, hessian)
    return torch.where(wins.unsqueeze(2), b, a)


@torch.enable_grad()
def _descend(
    grid: Grid, target: torch.Tensor, hessian: torch.Tensor, options: LearnedRounding
) -> torch.Tensor:
    """AdaRound: between the grid's numbers below and above the target, by Adam on a relaxation.

    In float32, and with the error in units of what rounding to the nearest leaves: learning rate and
    regularisation then mean the same for every layer.
    """
    down, up = grid.down(target), grid.up(target)
    gap = up - down
    start = torch.where(gap > 0, (target - down) / torch.where(gap > 0, gap, 1.0), 0.5).clamp(0.01, 0.99)
    relaxed = ((start + (_STRETCH - 1) / 2) / _STRETCH).logit().float().requires_grad_()
    unit = objective(grid.nearest(target), target, hessian).clamp(min=torch.finfo(torch.float64).tiny)
    h, base, spread = hessian.float(), (down - target).float(), gap.float()
    weight = (1.0 / unit).float()
    optimizer = torch.optim.Adam([relaxed], lr=options.lr)
    warm = int(_WARM * options.steps)
    for step in range(options.steps):
        soft = (torch.sigmoid(relaxed) * _STRETCH - (_STRETCH - 1) / 2).clamp(0.0, 1.0)
        error = base + spread * soft
        loss = (((error @ h) * error).sum(2) * weight).sum()
        if step >= warm:
            left = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, options.steps - warm)))
            beta = _BETA[1] + (_BETA[0] - _BETA[1]) * left
            loss = loss + options.regularisation * (1 - (2 * soft - 1).abs().pow(beta)).mean(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.where(relaxed.detach() > 0, up, down)
