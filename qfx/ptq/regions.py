"""Where factors per channel can be moved from one layer into others without changing what the network
computes.

A *region* is a set of tensors that are scaled together: behind ReLU, pooling or an addition a scaled channel
is the scaled channel of before. Layers that write to it (sources) are divided by a factor per channel, layers
that read it (sinks) are multiplied by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from qfx.learn.model import QuantizedModel, Step
from qfx.nn.affine import QuantAffine, QuantBatchNorm
from qfx.nn.elementwise import QuantBinary, QuantClip, QuantLeakyReLU, QuantReLU
from qfx.nn.module import Again, QuantModule
from qfx.nn.pool import QuantAvgPool, QuantMaxPool
from qfx.nn.quantizer import InputQuantizer, Quantizer
from qfx.nn.shape import QuantReshape
from qfx.nn.weighted import QuantWeighted
from qfx.ptq.matrices import groups_of
from qfx.ptq.walk import float_network

_PASSING = (QuantReLU, QuantLeakyReLU, QuantMaxPool, QuantAvgPool)
#: What a clip at 0 and above (ReLU6) is to a region: its end; a ReLU, which does change what is computed
#: where numbers reach the upper bound; or a clip whose upper bound is scaled with the channel.
Clips = Literal["end", "relu", "scaled"]


@dataclass
class Region:
    """Tensors that are scaled together.

    Attributes:
        channels: of the tensors next to the sources.
        sources: layers whose output channels are divided.
        sinks: layers whose input channels are multiplied, with the number of inputs that each channel became
            (more than one behind a flatten).
        tensors: the steps whose results are scaled.
        clips: clips among them, with the same number.
    """

    channels: int
    sources: list[QuantModule] = field(default_factory=list)
    sinks: list[tuple[QuantModule, int]] = field(default_factory=list)
    tensors: list[int] = field(default_factory=list)
    clips: list[tuple[QuantClip, int]] = field(default_factory=list)


def regions(q: QuantizedModel, example: torch.Tensor, clips: Clips = "end") -> list[Region]:
    """All regions with at least one source and one sink, in order.

    Args:
        example: one sample, to learn the shapes.
        clips: see :data:`Clips`.
    """
    shapes = shapes_of(q, example)
    steps = list(q._qfx_items())
    shared = {id(m.module) for _, m in steps if isinstance(m, Again)}
    parent = list(range(len(steps)))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    tainted: set[int] = {len(steps) - 1}
    sources: dict[int, QuantModule] = {}
    sinks: list[tuple[int, QuantModule]] = []
    for n, (step, module) in enumerate(steps):
        own = not isinstance(module, QuantClip) or id(module) not in shared
        if own and _passes(module, clips) and _same_channels(step, n, shapes, module):
            for i in step.inputs:
                parent[find(i)] = find(n)
        elif id(module) not in shared and _takes_factors(module):
            sources[n] = module
            sinks += [(i, module) for i in step.inputs]
        else:
            tainted.update((n, *step.inputs))
    barred = {find(n) for n in tainted}
    members: dict[int, list[int]] = {}
    for n in range(len(steps)):
        members.setdefault(find(n), []).append(n)
    found = []
    for root, tensors in sorted(members.items(), key=lambda item: item[1][0]):
        writers = [sources[n] for n in tensors if n in sources]
        readers = [(n, module) for n, module in sinks if find(n) == root]
        if root in barred or not writers or not readers:
            continue
        channels = min(shapes[n][0] for n in tensors)
        repeats = [shapes[n][0] // channels for n, _ in readers]
        if any(shapes[n][0] % channels for n in tensors):
            continue
        if any(shapes[n][0] != channels for n in tensors if n in sources):
            continue
        pairs = [(m, k) for (_, m), k in zip(readers, repeats, strict=True)]
        bounded = [(m, shapes[n][0] // channels) for n in tensors if isinstance(m := steps[n][1], QuantClip)]
        found.append(Region(channels, writers, pairs, tensors, bounded))
    return found


def shapes_of(q: QuantizedModel, example: torch.Tensor) -> list[tuple[int, ...]]:
    """The shape of every step's result, without the batch axis."""
    model = float_network(q)
    values: list[torch.Tensor] = []
    with torch.no_grad():
        for step, module in model._qfx_items():
            values.append(module(*(values[i] for i in step.inputs)) if step.inputs else module(example))
    return [tuple(v.shape[1:]) for v in values]


@torch.no_grad()
def scale(region: Region, factors: torch.Tensor) -> None:
    """Divide what sources write by ``factors`` (float64 ``(channels,)``) and multiply what sinks read."""
    for source in region.sources:
        _scale_outputs(source, 1.0 / factors)
    for clip, repeat in region.clips:
        clip.scale_channels((1.0 / factors).repeat_interleave(repeat))
    for sink, repeat in region.sinks:
        _scale_inputs(sink, factors.repeat_interleave(repeat))


def output_ranges(region: Region) -> torch.Tensor:
    """The largest absolute weight of every channel's sources, float64 ``(channels,)``."""
    ranges = torch.zeros(region.channels, dtype=torch.float64)
    for source in region.sources:
        if isinstance(source, QuantWeighted):
            largest = source.weight.detach().double().abs().flatten(1).amax(1)
        else:
            assert isinstance(source, QuantAffine)
            largest = source.terms()[0].detach().double().abs().expand(region.channels)
        ranges = torch.maximum(ranges, largest.cpu())
    return ranges


def input_ranges(region: Region) -> torch.Tensor:
    """The largest absolute weight of every channel's sinks, float64 ``(channels,)``."""
    ranges = torch.zeros(region.channels, dtype=torch.float64)
    for sink, repeat in region.sinks:
        if isinstance(sink, QuantWeighted):
            weight = sink.weight.detach().double().abs()
            groups = groups_of(sink)
            largest = (
                weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
                .amax((1, 3))
                .reshape(-1)
            )
        else:
            assert isinstance(sink, QuantAffine)
            largest = sink.terms()[0].detach().double().abs().expand(region.channels * repeat)
        ranges = torch.maximum(ranges, largest.reshape(region.channels, repeat).amax(1).cpu())
    return ranges


def _passes(module: QuantModule, clips: Clips) -> bool:
    """Whether a scaled operand gives a scaled result."""
    if isinstance(module, InputQuantizer):
        return False
    if isinstance(module, Quantizer):
        # A binary point that somebody gave belongs to the numbers as they are.
        return not module.frozen or not module.fmt.has_point
    if isinstance(module, QuantBinary):
        return module.kind in ("add", "sub")
    if isinstance(module, QuantClip):
        return clips != "end" and module.low == 0
    return isinstance(module, (*_PASSING, QuantReshape))


def _same_channels(step: Step, n: int, shapes: list[tuple[int, ...]], module: QuantModule) -> bool:
    """Whether channels stay in place: axis by axis, or flattened in order."""
    if not isinstance(module, QuantReshape):
        return all(shapes[i][0] == shapes[n][0] for i in step.inputs)
    before, after = shapes[step.inputs[0]], shapes[n]
    return before[0] == after[0] or (len(after) == 1 and after[0] % before[0] == 0)


def _takes_factors(module: QuantModule) -> bool:
    if isinstance(module, QuantBatchNorm):
        return module.weight is not None and module.bias is not None and not module.scale_quantizer.frozen
    if isinstance(module, QuantAffine):
        idle = not bool(module.offset.any())
        return not module.scale_quantizer.frozen and (idle or not module.offset_quantizer.frozen)
    if isinstance(module, QuantWeighted):
        frozen = module.bias_quantizer is not None and module.bias_quantizer.frozen
        return not (module.weight_quantizer.frozen and module.weight_quantizer.fmt.has_point) and not frozen
    return False


def _scale_outputs(module: QuantModule, factors: torch.Tensor) -> None:
    if isinstance(module, QuantWeighted):
        multiply(module.weight, factors.reshape(-1, *(1,) * (module.weight.ndim - 1)))
        if module.bias is not None:
            multiply(module.bias, factors)
        if module.statistics is not None:
            mean, deviation = module.statistics
            module.statistics = mean * factors, deviation * factors
    elif isinstance(module, QuantBatchNorm):
        multiply(module.weight, factors)
        multiply(module.bias, factors)
    else:
        assert isinstance(module, QuantAffine)
        for name in ("scale", "offset"):
            _replace(module, name, factors)


def _scale_inputs(module: QuantModule, factors: torch.Tensor) -> None:
    if isinstance(module, QuantWeighted):
        groups = groups_of(module)
        per_row = factors.reshape(groups, 1, -1).expand(-1, len(module.weight) // groups, -1)
        shape = (len(module.weight), module.weight.shape[1], *(1,) * (module.weight.ndim - 2))
        multiply(module.weight, per_row.reshape(shape))
    elif isinstance(module, QuantBatchNorm):
        # weight / std * (x - mean): the mean goes with x, the weight makes up for both.
        multiply(module.running_mean, 1.0 / factors)
        multiply(module.weight, factors)
    else:
        assert isinstance(module, QuantAffine)
        _replace(module, "scale", factors)


def _replace(module: QuantAffine, name: str, factors: torch.Tensor) -> None:
    """Multiply a constant that may be one number for all channels."""
    before = getattr(module, name)
    product = (before.detach().double().cpu() * factors).to(before)
    if isinstance(before, torch.nn.Parameter):
        setattr(module, name, torch.nn.Parameter(product, requires_grad=before.requires_grad))
    else:
        module.register_buffer(name, product)


def multiply(values: torch.Tensor, factors: torch.Tensor) -> None:
    """In place, rounded once."""
    values.copy_((values.detach().double() * factors.to(values.device)).to(values.dtype))
