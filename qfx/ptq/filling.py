"""Filling of ranges: real factors, moved into the weights, let every channel use the whole range of its cast.

A cast whose scale is a power of two leaves up to half of its numbers unused: the best largest number lies
anywhere between two powers of two, and all channels share it. But what a layer writes can be multiplied by
any factor per channel when the layers that read it are divided by the same, at no cost in hardware. So each
tensor is scaled until the range that suits it best is one with a power of two. Where depthwise convolutions
read it, channels that stay below that range are scaled up until they fill it.

How far a channel reaches is taken from the BatchNorm that made it, which has seen the training data: with
some tens of samples channels are clipped that these samples did not excite. The upper bound of a ReLU6 is
scaled with its channel. As no channel's range goes beyond its bound, the cast then saturates no later than
the clip, and the clip needs no hardware (:func:`qfx.freeze`).

Sources: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.2 (mean and standard deviation of activations from BatchNorm); E. Meller et al.,
"Same, Same But Different", arXiv:1902.01917 (channels scaled up to the largest); Y. Nahshan et al., "Loss
Aware Post-Training Quantization", arXiv:1911.07190 (ranges by the error of the result).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.learn.calibrate import calibrate_biases
from qfx.learn.clips import saturates
from qfx.learn.model import QuantizedModel
from qfx.nn.affine import QuantBatchNorm
from qfx.nn.module import Again, QuantModule
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import QuantWeighted
from qfx.ptq.calibration import Calibration, calibrate, is_learned
from qfx.ptq.matrices import groups_of
from qfx.ptq.ranges import RangeSearch, casts_alone, enough, move, search_ranges
from qfx.ptq.regions import Region, regions, scale
from qfx.ptq.walk import Batches, changed, copied, float_network, inputs

#: Steps of the search per bit.
_STEPS = 4
#: Positions to try around the calibrated one, in steps: down to half of the range and up to three times.
_BELOW, _ABOVE = 6, 8
#: A channel is not scaled up by more than this: one that is almost always 0 needs no range.
_MOST = 256.0
#: The bound of a clip ends up this far above the largest number of the cast, so that it is never in between.
_MARGIN = 1.0 + 2.0**-10


@dataclass(frozen=True)
class RangeFilling:
    """Options of :func:`fill_ranges`.

    Args:
        samples: the first so many samples are used to find the range of each tensor, more where it has few
            numbers (:class:`RangeSearch`).
        deviations: how many standard deviations beyond its mean a channel reaches; ``None`` scales all
            channels of a tensor alike.
    """

    samples: int = 8
    deviations: float | None = 10.0

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.deviations is not None and self.deviations <= 0):
            raise QfxError(f"RangeFilling: samples and deviations must be positive, found {self}")


@torch.no_grad()
def fill_ranges(
    q: QuantizedModel,
    batches: Batches,
    options: RangeFilling | None = None,
    *,
    reference: QuantizedModel | None = None,
    progress: bool = True,
) -> QuantizedModel:
    """A copy in which channels are scaled to the range of their casts; the float network computes the same,
    up to rounding. All binary points are placed: of weights for the smallest squared error, of activations
    where the network's result suffers least.

    Tensors that additions tie share their factor. Channels are scaled apart where one layer with a BatchNorm
    writes them, and only depthwise convolutions or arithmetic per channel read them.

    Args:
        q: a prepared model.
        batches: batches of inputs, or ``(inputs, ...)`` tuples.
        options: see :class:`RangeFilling`.
        reference: not used.
        progress: show bars.

    Raises:
        QfxError: bad data.
    """
    options = RangeFilling() if options is None else options
    result = calibrate(copied(q), batches, Calibration("mse", "max"), progress=progress)
    data = inputs(result, batches)
    found = regions(result, data[0][:1], "scaled")
    found = [r for r in found if movable(result, r)]
    within = {n for region in found for n in region.tensors}
    curves: dict[int, list[float]] = {}
    casts: dict[int, Quantizer] = {}
    x = enough(result, torch.cat(data), options.samples)
    for n, cast, error in casts_alone(result, float_network(result), x, "filling of ranges", progress):
        if n in within:
            start = cast._frac()
            assert isinstance(start, int)
            curves[n] = [error(start + k / _STEPS) for k in range(-_BELOW, _ABOVE + 1)]
            casts[n] = cast
    for region in found:
        factor = place({n: curves[n] for n in region.tensors if n in curves}, casts)
        scale(region, torch.full((region.channels,), 1.0 / factor, dtype=torch.float64))
        deviations = options.deviations if read_apart(region) else None
        scale(region, 1.0 / room(region, casts_in(result, region), deviations))
    changed(result)
    # With channels scaled and each range a power of two, some positions are better than those found apart.
    search = RangeSearch(options.samples)
    result = search_ranges(result, data, search, reference=result, progress=progress)
    for region in regions(result, data[0][:1], "scaled"):
        if region.clips and movable(result, region):
            scale(region, 1.0 / room(region, casts_in(result, region), None))
    for _, module in result._qfx_items():
        module.calibrate_weight()
    return changed(calibrate_biases(result))


def casts_in(q: QuantizedModel, region: Region) -> list[Quantizer]:
    """The casts between the sources and the sinks of a region."""
    modules = [module for _, module in q._qfx_items()]
    return [m for m in (modules[n] for n in region.tensors) if isinstance(m, Quantizer)]


def movable(q: QuantizedModel, region: Region) -> bool:
    """Whether a region has casts, all of them saturate (others make something else of a number beyond the
    range), and each is placed for this region alone."""
    shared = {id(m.module) for m in q.modules() if isinstance(m, Again)}
    casts = casts_in(q, region)
    if not casts or any(c.channels > 1 or not is_learned(c) or id(c) in shared for c in casts):
        return False
    beyond = [2.0 * np.ldexp(float(c.fmt.integer_max), -np.atleast_1d(c._frac())) for c in casts]
    return all(saturates(c, b) for c, b in zip(casts, beyond, strict=True))


def place(curves: dict[int, list[float]], casts: dict[int, Quantizer]) -> float:
    """Place the casts of a region; returns the factor of its tensors with which that is right."""
    part, places = common_part(curves)
    for n, k in places.items():
        start = casts[n]._frac()
        assert isinstance(start, int)
        # Multiplied by 2**part, the range that was found is one with a power of two.
        move(casts[n], start + round(k / _STEPS - part))
    return 2.0**part


def room(region: Region, casts: list[Quantizer], deviations: float | None) -> torch.Tensor:
    """The factor, float64 ``(channels,)``, 1 or more, by which each channel can be multiplied until it
    reaches the end of a cast. Where several layers write, tensors of different size are tied: always 1."""
    if len(region.sources) > 1:
        return torch.ones(region.channels, dtype=torch.float64)
    upwards = not any(cast.fmt.signed for cast in casts)
    ends = [float(np.ldexp(float(c.fmt.integer_max), -np.asarray(c._frac()))) for c in casts]
    return (min(ends) / reach(region, deviations, upwards).clamp(min=1e-30)).clamp(1.0, _MOST)


def common_part(curves: dict[int, list[float]]) -> tuple[float, dict[int, int]]:
    """The fraction of a bit by which tensors are scaled together, and the position of each.

    Args:
        curves: of each tensor the error at ``-_BELOW .. _ABOVE`` steps from its binary point.

    Returns:
        the fraction, 0 or more and below 1: the binary points that are powers of two lie so far above whole
        numbers; and steps from the binary point, each so much above a whole number of bits.
    """
    best: tuple[float, float, dict[int, int]] | None = None
    for offset in range(_STEPS):
        total, places = 0.0, {}
        for n, curve in curves.items():
            # Errors of different tensors are added: each is that of the same result.
            least, place = min((curve[k + _BELOW], k) for k in _positions(offset))
            total, places[n] = total + least, place
        if best is None or total < best[0]:
            best = (total, offset / _STEPS, places)
    assert best is not None
    return best[1], best[2]


def _positions(offset: int) -> list[int]:
    return [k for k in range(-_BELOW, _ABOVE + 1) if k % _STEPS == offset]


def read_apart(region: Region) -> bool:
    """Whether no layer adds numbers of different channels: depthwise convolutions, and arithmetic per
    channel. Scaling channels up makes the weights smaller that read them, which in other layers share a grid
    with the weights of other channels."""
    layers = [sink for sink, _ in region.sinks if isinstance(sink, QuantWeighted)]
    return all(groups_of(layer) == region.channels for layer in layers)


def reach(region: Region, deviations: float | None, upwards: bool) -> torch.Tensor:
    """How far each channel of a region with one source reaches before it is scaled, float64 ``(channels,)``;
    infinite where that is not known.

    Args:
        deviations: see :class:`RangeFilling`.
        upwards: only what is not negative counts.
    """
    found = torch.full((region.channels,), math.inf, dtype=torch.float64)
    known = statistics(region.sources[0])
    if known is not None and deviations is not None:
        mean, deviation = known
        found = ((mean if upwards else mean.abs()) + deviations * deviation).clamp(min=0.0)
    for clip, _ in region.clips:
        bounds = clip.channel_bounds
        assert bounds is not None
        least = (
            torch.from_numpy(bounds).expand(max(len(bounds), region.channels)).reshape(region.channels, -1)
        )
        found = torch.minimum(found, least.amin(1) / _MARGIN)
    return found


def statistics(source: QuantModule) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and standard deviation of what a layer makes of the training data, float64 ``(channels,)``."""
    if isinstance(source, QuantBatchNorm) and source.weight is not None and source.bias is not None:
        return source.bias.detach().double().cpu(), source.weight.detach().double().abs().cpu()
    return source.statistics if isinstance(source, QuantWeighted) else None
