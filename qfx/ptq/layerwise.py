"""What GPTQ and learned rounding share: layer by layer, from moments to weights on the grid, and the bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from qfx.errors import QfxError
from qfx.formats.fixed import FixedPoint
from qfx.learn.calibrate import calibrate_biases, result_bits
from qfx.learn.model import QuantizedModel
from qfx.nn.bound import Bound
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import QuantWeighted
from qfx.ptq.grid import Grid, grid_of
from qfx.ptq.matrices import (
    Moments,
    damped,
    groups_of,
    moments,
    pooled,
    regressed,
    set_weight_rows,
    weight_rows,
)
from qfx.ptq.walk import Batches, Visit, changed, copied, inputs, walk

#: Bits of a bias that a method adds to a layer without one.
BIAS_WIDTH = 16

#: From grid, float weights ``W``, target ``T`` and ``H`` (see :mod:`qfx.ptq.matrices`) to weights on
#: the grid.
Solver = Callable[[Grid, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """How the results of a layer are compared.

    Args:
        places: results per sample and channel that are looked at; ``None`` for all.
        damp: added to the diagonal of ``H``, times its mean.
        correct_inputs: aim at the float network's results, although the operands are the quantized ones
            (``|W x - W' x'|``, as in AdaRound's asymmetric reconstruction); otherwise the weights alone are
            compared (``|W x' - W' x'|``, as in GPTQ). It wants hundreds of samples: with tens of them, what
            is corrected is their noise, and other samples come out worse (docs/ptq.md).
        correct_bias: let the bias take up the mean of the error, and minimise what remains.
    """

    places: int | None = 256
    damp: float = 0.01
    correct_inputs: bool = False
    correct_bias: bool = True

    def __post_init__(self) -> None:
        if self.places is not None and self.places < 1:
            raise QfxError(f"{type(self).__name__}: places must be at least 1 or None, found {self.places}")
        if not self.damp > 0:
            raise QfxError(f"{type(self).__name__}: damp must be positive, found {self.damp}")


def reconstruct(
    q: QuantizedModel,
    batches: Batches,
    options: Reconstruction,
    solver: Solver,
    reference: QuantizedModel | None,
    label: str,
    progress: bool,
) -> QuantizedModel:
    """A copy of ``q`` whose weights were chosen by ``solver``, layer by layer; layers that follow see the
    results of the ones before. Layers whose weights have a block format, or so many numbers that they cannot
    be listed, stay as they are, as do further calls of a layer that is called twice."""
    result = copied(q)
    data = inputs(result, batches)
    biases = Biases(result)
    for visit in walk(result, data, reference, label=label, progress=progress):
        layer = visit.module
        if not isinstance(layer, QuantWeighted):
            continue
        grid = grid_of(layer.weight_quantizer)
        if grid is None:
            continue
        problem = Problem.of(visit, options)
        rows = solver(
            grid.rows(groups_of(layer), int(layer.weight.shape[0])),
            problem.weights,
            problem.target,
            problem.hessian,
        )
        set_weight_rows(layer, rows)
        if options.correct_bias:
            assert isinstance(visit.twin, QuantWeighted)
            biases.set(visit, bias_of(visit.twin, quantized=False) + problem.bias_change(rows))
    return changed(calibrate_biases(result))


@dataclass(frozen=True, eq=False)
class Problem:
    """The quadratic problem of one layer: ``W`` in float, the target ``T``, ``H``, and moments before
    damping."""

    weights: torch.Tensor
    target: torch.Tensor
    hessian: torch.Tensor
    seen: Moments
    options: Reconstruction

    @staticmethod
    def of(visit: Visit, options: Reconstruction) -> Problem:
        """The problem of a linear or convolution layer that is about to be computed."""
        assert isinstance(visit.twin, QuantWeighted)
        halves = moments(visit, options.places)
        seen = pooled(halves)
        central = seen.centred() if options.correct_bias else seen
        hessian = damped(central.hessian, options.damp, seen.count)
        weights = weight_rows(visit.twin)
        target = weights
        if options.correct_inputs:
            if options.correct_bias:
                halves = (halves[0].centred(), halves[1].centred()) if halves[0] is not halves[1] else halves
            target = regressed(weights, halves, options.damp)
        return Problem(weights, target, hessian, seen, options)

    def bias_change(self, rows: torch.Tensor) -> torch.Tensor:
        """What the bias must take up so that means agree: ``(out,)``."""
        before = self.seen.float_mean if self.options.correct_inputs else self.seen.mean
        change = (self.weights @ before.unsqueeze(2)) - (rows @ self.seen.mean.unsqueeze(2))
        return change.reshape(-1)


class Biases:
    """Changes biases during a walk, and places their binary points as calibration would.

    Args:
        q: the model that is walked through.
    """

    def __init__(self, q: QuantizedModel) -> None:
        self._q = q
        self._bounds: list[Bound] = []

    @torch.no_grad()
    def set(self, visit: Visit, values: torch.Tensor) -> None:
        """Give the layer that is visited another bias, ``(out,)``; a layer without one gets one of
        :data:`BIAS_WIDTH` bits."""
        layer = visit.module
        assert isinstance(layer, QuantWeighted)
        if layer.bias is None or layer.bias_quantizer is None:
            layer.bias = torch.nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
            quantizer = Quantizer(FixedPoint(BIAS_WIDTH), layer.weight_quantizer.channels)
            layer.bias_quantizer = quantizer.to(layer.weight.device)
        layer.bias.copy_(values)
        # What comes before is final by now.
        for step, module in list(self._q._qfx_items())[len(self._bounds) : visit.index]:
            self._bounds.append(module.bound(*(self._bounds[i] for i in step.inputs)))
        layer.calibrate_bias(self._bounds[visit.step.inputs[0]], result_bits(self._q, visit.index))


@torch.no_grad()
def bias_of(layer: QuantWeighted, quantized: bool) -> torch.Tensor:
    """The bias, float64 ``(out,)``, as it is or as it is cast; zeros when there is none."""
    if layer.bias is None or layer.bias_quantizer is None:
        return layer.weight.new_zeros(len(layer.weight)).double()
    return (layer.bias_quantizer.quantized(layer.bias) if quantized else layer.bias.detach()).double()
