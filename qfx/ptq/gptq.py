"""GPTQ: round one column of weights after the other, and let the columns to come make up for the error.

Source: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv:2210.17323, algorithm 1; for convolutions as in E. Frantar, D. Alistarh, "Optimal Brain
Compression", arXiv:2208.11580. Aiming at the float network's results with quantized operands: as in S. Zhang
et al., "Qronos", arXiv:2505.11695, the target is a regression; here it is found once, before the first
column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qfx.learn.model import QuantizedModel
from qfx.ptq.grid import Grid
from qfx.ptq.layerwise import Reconstruction, reconstruct
from qfx.ptq.walk import Batches


@dataclass(frozen=True)
class GPTQ(Reconstruction):
    """Options of :func:`gptq`.

    Args:
        order: begin with the inputs of the largest second moment ("act_order"), instead of the first one.
        block: columns whose effect on later ones is collected before it is applied; for speed only.
        Others as in :class:`Reconstruction`.
    """

    order: bool = True
    block: int = 128


def gptq(
    q: QuantizedModel,
    batches: Batches,
    options: GPTQ | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy with the weights of every linear and convolution layer on their grids, rounded by GPTQ.

    Args:
        q: a calibrated prepared model; binary points stay.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`GPTQ`.
        reference: see :func:`qfx.ptq.quantize`.
        progress: show a bar.

    Raises:
        QfxError: bad data, a model that is not calibrated.
    """
    options = GPTQ() if options is None else options

    def solver(grid: Grid, rows: torch.Tensor, target: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
        return round_columns(grid, target, hessian, order=options.order, block=options.block)

    return reconstruct(q, batches, options, solver, reference, "GPTQ", progress)


def round_columns(
    grid: Grid, weights: torch.Tensor, hessian: torch.Tensor, *, order: bool = True, block: int = 128
) -> torch.Tensor:
    """Weights on the grid that nearly minimise ``(W' - W) H (W' - W)^T``.

    Args:
        grid: one scale per row, see :meth:`Grid.rows`.
        weights: float64 ``(groups, rows, n)``.
        hessian: float64 ``(groups, n, n)``, positive definite.
        order, block: see :class:`GPTQ`.
    """
    groups, _, n = weights.shape
    permutation = (
        hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
        if order
        else torch.arange(n, device=weights.device).expand(groups, n)
    )
    columns = permutation.unsqueeze(1)
    work = weights.gather(2, columns.expand_as(weights))
    h = hessian.gather(1, permutation.unsqueeze(2).expand_as(hessian)).gather(2, columns.expand_as(hessian))
    # The upper Cholesky factor of the inverse: its rows are those of the inverses of what remains of H after
    # each column, divided by the root of their first element.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.empty_like(work)
    for first in range(0, n, block):
        last = min(first + block, n)
        errors = torch.zeros_like(work[:, :, first:last])
        for j in range(first, last):
            column = work[:, :, j]
            rounded[:, :, j] = grid.nearest(column.unsqueeze(2)).squeeze(2)
            error = (column - rounded[:, :, j]) / upper[:, None, j, j]
            work[:, :, j:last] -= error.unsqueeze(2) * upper[:, None, j, j:last]
            errors[:, :, j - first] = error
        work[:, :, last:] -= errors @ upper[:, first:last, last:]
    return torch.empty_like(rounded).scatter_(2, columns.expand_as(rounded), rounded)
