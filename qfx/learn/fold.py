"""Folding a BatchNorm into the Linear or Conv before it."""

from __future__ import annotations

from collections import Counter

import torch
import torch.fx
from torch import nn

from qfx.learn.operations import Operation


def fold_batch_norms(
    operations: list[Operation], output: torch.fx.Node
) -> tuple[list[Operation], torch.fx.Node]:
    """Replace every ``linear/conv`` followed by a BatchNorm by one operation with the product of both.

    With the running statistics a BatchNorm is ``y * g + (beta - mean * g)``, ``g = gamma / sqrt(var + eps)``;
    so the weights of output channel ``o`` are multiplied by ``g[o]`` and the bias becomes ``(bias - mean) * g
    + beta``. A BatchNorm stays when the layer's result is also used elsewhere, or when the layer is called
    more than once (its weights would have to be two things).

    Returns:
        the operations and the node of the result.
    """
    users = Counter(n for o in operations for n in o.operands)
    made = {o.node: o for o in operations}
    calls = Counter(id(o.attributes["weight"]) for o in operations if o.kind in ("linear", "conv"))
    replaced: dict[torch.fx.Node, torch.fx.Node] = {}
    kept: list[Operation] = []
    for operation in operations:
        operation.operands = [replaced.get(n, n) for n in operation.operands]
        layer = made.get(operation.operands[0]) if operation.operands else None
        if (
            operation.kind != "norm"
            or layer is None
            or layer.kind not in ("linear", "conv")
            or users[layer.node] != 1
            or layer.node is output
            or calls[id(layer.attributes["weight"])] != 1
        ):
            kept.append(operation)
            continue
        weight, bias = folded(
            layer.attributes["weight"], layer.attributes["bias"], operation.attributes["module"]
        )
        layer.attributes.update(weight=weight, bias=bias)
        layer.statistics = statistics(operation.attributes["module"])
        layer.extra += [operation.path, *operation.extra]
        replaced[operation.node] = layer.node
        # A second BatchNorm behind the first sees the users of the first.
        users[layer.node] = users[operation.node]
    return kept, replaced.get(output, output)


@torch.no_grad()
def statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of what a BatchNorm makes of the data that it was trained with, float64
    ``(channels,)``: its offset, and the size of its scale (arXiv:1906.04721, section 4.2)."""
    ones = torch.ones(norm.num_features, dtype=torch.float64)
    mean = 0.0 * ones if norm.bias is None else norm.bias.detach().double().cpu()
    deviation = ones if norm.weight is None else norm.weight.detach().double().abs().cpu()
    return mean.clone(), deviation.clone()


@torch.no_grad()
def folded(
    weight: torch.Tensor, bias: torch.Tensor | None, norm: nn.BatchNorm1d | nn.BatchNorm2d
) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of a layer with its BatchNorm folded in; computed in float64, in the dtype of
    ``weight``.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    offset = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean.double()
    offset = offset * gain
    if norm.bias is not None:
        offset = offset + norm.bias.double()
    scaled = weight.double() * gain.reshape(-1, *(1,) * (weight.ndim - 1))
    return nn.Parameter(scaled.to(weight.dtype)), nn.Parameter(offset.to(weight.dtype))
