"""Linear and convolution layers as matrix products: weights, operands, and the moments of operands.

The error of a layer's result is a quadratic function of the weights' error,

    sum over samples |W x - W' x'|^2  =  (W' - T) H (W' - T)^T + constant,

with ``H`` the sum of ``x' x'^T`` over the operands ``x'`` that the quantized network has here, and ``T`` the
weights that would be best without rounding. Everything that methods of rounding need is in ``H`` and ``T``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from qfx.errors import QfxError
from qfx.nn.weighted import QuantConv, QuantWeighted
from qfx.ptq.walk import Visit

#: Samples whose patches are made at a time.
_CHUNK = 8


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the operands of a layer with ``groups`` groups of ``n`` inputs each, float64.

    Attributes:
        hessian: ``(groups, n, n)``, the mean of ``x' x'^T`` in the quantized network.
        cross: the mean of ``x x'^T``, ``x`` in the float network.
        mean, float_mean: ``(groups, n)``, of ``x'`` and ``x``.
        count: number of columns that were averaged.
    """

    hessian: torch.Tensor
    cross: torch.Tensor
    mean: torch.Tensor
    float_mean: torch.Tensor
    count: int

    def centred(self) -> Moments:
        """Central moments: what remains of the error when the bias takes up its mean."""
        mean, float_mean = self.mean.unsqueeze(2), self.float_mean.unsqueeze(2)
        return Moments(
            self.hessian - mean @ mean.mT,
            self.cross - float_mean @ mean.mT,
            self.mean,
            self.float_mean,
            self.count,
        )


def groups_of(layer: QuantWeighted) -> int:
    """Groups of a convolution; 1 for a linear layer."""
    return layer.groups if isinstance(layer, QuantConv) else 1


def weight_rows(layer: QuantWeighted) -> torch.Tensor:
    """The weight as float64 ``(groups, out / groups, n)``."""
    weight = layer.weight.detach().double()
    return weight.reshape(groups_of(layer), weight.shape[0] // groups_of(layer), -1)


@torch.no_grad()
def set_weight_rows(layer: QuantWeighted, rows: torch.Tensor) -> None:
    """Write what :func:`weight_rows` gave."""
    layer.weight.copy_(rows.reshape(layer.weight.shape).to(layer.weight.dtype))


def columns(layer: QuantWeighted, x: torch.Tensor) -> torch.Tensor:
    """The operands of every result: ``(samples, groups, n, places)`` for ``x`` with samples first."""
    if not isinstance(layer, QuantConv):
        return x.reshape(len(x), 1, -1, 1)
    groups = layer.groups
    pads = [p for pair in reversed(layer.padding) for p in pair]
    x = F.pad(x, pads) if any(pads) else x
    kernel, stride, dilation = tuple(layer.weight.shape[2:]), layer.stride, layer.dilation
    if len(kernel) == 1:
        x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    if all(k == 1 for k in kernel):
        unfolded = x[:, :, :: stride[0], :: stride[1]].flatten(2)
    else:
        unfolded = F.unfold(x, kernel, dilation=dilation, stride=stride)
    return unfolded.reshape(len(x), groups, -1, unfolded.shape[-1])


def moments(visit: Visit, places: int | None, seed: int = 0) -> tuple[Moments, Moments]:
    """The moments of a layer's operands, of the first half of the samples and of the second: so that what one
    half suggests can be tried on the other. Neighbours are often alike (parts of one picture, frames of one
    film), and stay together. With a single sample both halves are the same.

    Args:
        visit: of a linear or convolution layer.
        places: results per sample that are looked at, drawn at random; ``None`` for all.
    """
    layer = visit.module
    assert isinstance(layer, QuantWeighted)
    random = torch.Generator().manual_seed(seed)
    sums: list[list[torch.Tensor]] = [[], []]
    counts = [0, 0]
    seen, middle = 0, (sum(len(x) for (x,) in visit.operands) + 1) // 2
    for (x,), (y,) in zip(visit.operands, visit.float_operands, strict=True):
        for at in range(0, len(x), _CHUNK):
            a, b = columns(layer, x[at : at + _CHUNK]), columns(layer, y[at : at + _CHUNK])
            if places is not None and a.shape[-1] > places:
                picked = torch.randperm(a.shape[-1], generator=random)[:places].to(a.device)
                a, b = a[..., picked], b[..., picked]
            cut = min(max(middle - seen, 0), len(a))
            for half, part in enumerate((slice(0, cut), slice(cut, len(a)))):
                if len(a[part]):
                    new = _sums(a[part], b[part])
                    sums[half] = [s + t for s, t in zip(sums[half], new, strict=True)] if sums[half] else new
                    counts[half] += len(a[part]) * a.shape[-1]
            seen += len(a)
    if not counts[1]:
        sums[1], counts[1] = sums[0], counts[0]
    if not counts[0]:
        raise QfxError("qfx.ptq: no samples")
    halves = [_means(s, c) for s, c in zip(sums, counts, strict=True)]
    return halves[0], halves[1]


def _sums(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """Sums over samples and places of ``a a^T``, ``b a^T``, ``a`` and ``b``."""
    a, b = (t.permute(1, 2, 0, 3).flatten(2) for t in (a, b))
    return [t.double() for t in (a @ a.mT, b @ a.mT, a.sum(2), b.sum(2))]


def pooled(halves: tuple[Moments, Moments]) -> Moments:
    """The moments of all samples."""
    a, b = halves
    if a is b or a.hessian is b.hessian:
        return a
    share = a.count / (a.count + b.count)

    def mixed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return share * x + (1 - share) * y

    return Moments(
        mixed(a.hessian, b.hessian),
        mixed(a.cross, b.cross),
        mixed(a.mean, b.mean),
        mixed(a.float_mean, b.float_mean),
        a.count + b.count,
    )


def _means(sums: list[torch.Tensor], count: int) -> Moments:
    hessian, cross, mean, float_mean = (s / count for s in sums)
    return Moments(hessian, cross, mean, float_mean, count)


def damped(hessian: torch.Tensor, damp: float, count: int) -> torch.Tensor:
    """``H`` with ``damp`` times its mean diagonal added to the diagonal, and what lies beside the diagonal
    made smaller by ``count / (n + count)``: with few samples, it is mostly chance. Inputs that are always 0
    get a 1.
    """
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1, keepdim=True)
    extra = damp * mean + (diagonal + damp * mean <= 0).to(diagonal.dtype)
    trust = count / (count + hessian.shape[2])
    return hessian * trust + torch.diag_embed(diagonal * (1 - trust) + extra)


def best_weights(rows: torch.Tensor, seen: Moments, damp: float) -> torch.Tensor:
    """The weights that make most of the quantized operands: ridge regression of the float results.

    Minimises ``|W x - T x'|^2 + ridge * |T - W|^2``; the ridge is ``damp`` plus inputs per sample, times the
    mean diagonal of ``H``.

    Args:
        rows: the float network's weights ``W``; seen: moments.
    """
    diagonal = seen.hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    ridge = (damp + seen.hessian.shape[2] / seen.count) * mean.expand_as(diagonal)
    step = rows @ (seen.cross - seen.hessian)
    return rows + torch.linalg.solve(seen.hessian + torch.diag_embed(ridge), step.mT).mT


def regressed(rows: torch.Tensor, halves: tuple[Moments, Moments], damp: float) -> torch.Tensor:
    """:func:`best_weights` of all samples in the rows where those of either half do better on the other half
    than ``rows`` do; ``rows`` elsewhere."""
    a, b = halves
    if a is b or a.hessian is b.hessian:
        return rows
    gain = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
    for fit, test in ((a, b), (b, a)):
        step = best_weights(rows, fit, damp) - rows
        # |W x - T x'|^2 - |W x - W x'|^2 for T = W + step.
        gain += ((step @ test.hessian - 2.0 * rows @ (test.cross - test.hessian)) * step).sum(2)
    return torch.where((gain < 0).unsqueeze(2), best_weights(rows, pooled(halves), damp), rows)


def objective(rows: torch.Tensor, target: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """``(W' - T) H (W' - T)^T`` of every row: ``(groups, out / groups)``."""
    error = rows - target
    return ((error @ hessian) * error).sum(2)
