"""Networks that take bytes: what a camera or a file gives, without a host that normalizes it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from qfx.data.images import MEAN, STD
from qfx.errors import QfxError


class ByteInput(nn.Module):
    """A network in front of which a whole number per channel is subtracted from bytes.

    Args:
        network: the network behind it, which takes differences of bytes.
        mean: whole numbers from 0 to 255, one per channel.

    Raises:
        QfxError: a mean that is no byte.
    """

    mean: torch.Tensor

    def __init__(self, network: nn.Module, mean: Sequence[int]) -> None:
        super().__init__()
        if not mean or any(m != int(m) or not 0 <= m <= 255 for m in mean):
            raise QfxError(f"ByteInput: the means must be whole numbers from 0 to 255, found {list(mean)}")
        self.network = network
        self.register_buffer("mean", torch.tensor([float(m) for m in mean]).reshape(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: bytes as real numbers, 0 to 255, ``(samples, channels, height, width)``."""
        result: torch.Tensor = self.network(x - self.mean)
        return result


@torch.no_grad()
def byte_input(
    model: nn.Module, example: torch.Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> ByteInput:
    """The same network for bytes: its input's normalization ``(byte / 255 - mean) / std`` goes into the
    convolutions that read it, but for the whole number nearest to ``255 * mean``, which is subtracted from
    the bytes. In fixed point that difference is exact: ``FixedPoint(8, 0, signed=False)`` for the input and
    ``FixedPoint(9, 0)`` behind the subtraction, whose module path is ``sub``, lose nothing of an image.

    Where a convolution pads with zeros, its zeros then mean the rounded byte instead of the exact mean, which
    differ by half a byte at most; everywhere else the result is the same up to rounding in floating point.

    Args:
        model: takes normalized images; left as it is.
        example: one such image or a batch, ``(samples, channels, height, width)``, for the trace.
        mean, std: of the normalization, per channel; those of ImageNet when not given.

    Raises:
        QfxError: something else than ``Conv2d`` reads the input, a convolution that is called again
            elsewhere, one that pads with something else than zeros, or other than one mean and deviation
            per channel.
        UnsupportedError: torch.fx cannot trace the model.
    """
    from qfx.learn.trace import trace

    channels = example.shape[1] if example.ndim == 4 else None
    if channels is None or len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise QfxError(
            "byte_input: expected images (samples, channels, height, width), a mean and a positive standard "
            f"deviation per channel; found {tuple(example.shape)}, mean {tuple(mean)}, std {tuple(std)}"
        )
    if not all(0 <= m <= 1 for m in mean):
        raise QfxError(f"byte_input: means are those of images between 0 and 1, found {tuple(mean)}")
    network = copy.deepcopy(model)
    traced = trace(network, example)
    whole = [round(255 * m) for m in mean]
    for node in traced.inputs.users:
        layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        calls = sum(n.op == "call_module" and n.target == node.target for n in traced.nodes)
        if not isinstance(layer, nn.Conv2d) or calls > 1 or layer.padding_mode != "zeros":
            found = type(layer).__name__ if layer is not None else f"{node.op} {node.target}"
            raise QfxError(
                f"byte_input: the input must be read by Conv2d layers with zero padding, each called once, "
                f"found {node.target}: {found}; normalize inside of the model instead: (x - mean) / std"
            )
        _absorb(layer, [w / 255 - m for w, m in zip(whole, mean, strict=True)], std)
    return ByteInput(network, whole).train(model.training)


def _absorb(layer: nn.Conv2d, rest: Sequence[float], std: Sequence[float]) -> None:
    """Make a layer for ``x`` one for ``255 * (std * x - rest)``."""
    groups, (outputs, inputs) = layer.groups, layer.weight.shape[:2]
    weight = layer.weight.detach().double().reshape(groups, outputs // groups, inputs, -1)
    deviation = torch.tensor(std, dtype=torch.float64, device=weight.device).reshape(groups, 1, inputs, 1)
    offset = torch.tensor(rest, dtype=torch.float64, device=weight.device).reshape(groups, 1, inputs, 1)
    weight = weight / deviation
    bias = (weight * offset).sum((2, 3)).reshape(-1)
    if layer.bias is not None:
        bias += layer.bias.detach().double()
    layer.bias = nn.Parameter(bias.to(layer.weight))
    layer.weight.copy_((weight / 255).reshape(layer.weight.shape))
