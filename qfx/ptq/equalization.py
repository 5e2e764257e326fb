"""Cross-layer equalization: move factors between layers until the channels of both use the same range.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.1: with ranges ``r1`` of a channel's weights in the layer that writes it and
``r2`` in the one that reads it, the first is divided and the second multiplied by ``sqrt(r1 / r2)``; both
ranges are then ``sqrt(r1 * r2)``. Here for any number of layers that write and read the same tensors,
additions included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qfx.errors import QfxError
from qfx.learn.model import QuantizedModel
from qfx.nn.elementwise import QuantClip, QuantReLU
from qfx.ptq.regions import Region, input_ranges, output_ranges, regions, scale
from qfx.ptq.walk import Batches, changed, copied, inputs, replace_module

#: Factors beyond ``2**+-`` this are cut: a channel whose weights are almost 0 is no reason for more.
_MOST_BITS = 16.0


@dataclass(frozen=True)
class Equalization:
    """Options of :func:`equalize`.

    Args:
        iterations: rounds over all regions, as one changes the ranges of the next.
        powers_of_two: round factors to powers of two: the float network then computes the same numbers on
            every bit, as long as nothing underflows.
        replace_relu6: make a ReLU of every clip at 0 and some bound that stands between two layers, as the
            source does; the float network changes where numbers reach the bound.
    """

    iterations: int = 10
    powers_of_two: bool = False
    replace_relu6: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise QfxError(f"Equalization: iterations must be at least 1, found {self.iterations}")


@torch.no_grad()
def equalize(
    q: QuantizedModel,
    batches: Batches,
    options: Equalization | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy with equalized weights. Binary points do not follow: calibrate afterwards
    (:func:`qfx.ptq.quantize` does).

    Args:
        q: a prepared model.
        batches: only the shape of the first sample is used.
        options: see :class:`Equalization`.
        reference, progress: not used.

    Raises:
        QfxError: bad data.
    """
    options = Equalization() if options is None else options
    result = copied(q)
    example = inputs(result, batches)[0][:1]
    found = regions(result, example, "relu" if options.replace_relu6 else "end")
    if options.replace_relu6:
        found = replace_clips(result, found, example)
    for _ in range(options.iterations):
        largest = max(
            (float(_apply(r, factors_of(r), options.powers_of_two).abs().max()) for r in found), default=0.0
        )
        if largest < 1e-4:
            break
    return changed(result)


def factors_of(region: Region) -> torch.Tensor:
    """``sqrt(r1 / r2)`` of every channel, float64; 1 where a range is 0."""
    before, behind = output_ranges(region), input_ranges(region)
    usable = (before > 0) & (behind > 0)
    return torch.where(usable, (before / behind.clamp(min=torch.finfo(torch.float64).tiny)).sqrt(), 1.0)


def _apply(region: Region, factors: torch.Tensor, powers_of_two: bool) -> torch.Tensor:
    """Apply factors; returns their logarithms (base 2)."""
    exponents = bounded_exponents(factors, powers_of_two)
    scale(region, torch.exp2(exponents))
    return exponents


def bounded_exponents(factors: torch.Tensor, powers_of_two: bool) -> torch.Tensor:
    """Logarithms (base 2) of factors, cut, and rounded if wanted."""
    exponents = factors.log2().clamp(-_MOST_BITS, _MOST_BITS)
    return exponents.round() if powers_of_two else exponents


def replace_clips(q: QuantizedModel, found: list[Region], example: torch.Tensor) -> list[Region]:
    """Make ReLU of the clips inside of regions, and find the regions again."""
    inside = {n for region in found for n in region.tensors}
    for n, step in enumerate(q._qfx_steps):
        if n in inside and isinstance(q.get_submodule(step.target), QuantClip):
            replace_module(q, step.target, QuantReLU())
    return regions(q, example)
