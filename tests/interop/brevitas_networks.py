"""Brevitas networks that together use every layer and quantizer that is read."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import brevitas.quant as bq
import torch
from brevitas.inject.enum import ScalingPerOutputType
from brevitas.quant.fixed_point import Int8ActPerTensorFixedPointMinMaxInit, Int8WeightPerChannelFixedPoint
from brevitas.quant.float_base import (
    Fp4e2m1Mixin,
    Fp6e2m3Mixin,
    Fp6e3m2Mixin,
    ScaledFloatActBase,
    ScaledFloatWeightBase,
)
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPActPerTensorFloat, Fp8e4m3OCPWeightPerTensorFloat
from torch import nn

#: Steps of training mode after which activation quantizers have their scales.
STATISTICS = 3


class Act(bq.Int8ActPerTensorFixedPoint):
    collect_stats_steps = STATISTICS


class UnsignedAct(bq.Uint8ActPerTensorFixedPoint):
    collect_stats_steps = STATISTICS


class Bounded(Int8ActPerTensorFixedPointMinMaxInit):
    pass


class Weight(bq.Int8WeightPerTensorFixedPoint):
    pass


ChannelWeight = Int8WeightPerChannelFixedPoint


def settled(model: nn.Module, shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """The model in ``eval()`` after its quantizers have seen data; weights stay as they were drawn."""
    torch.manual_seed(seed)
    model.train()
    for _ in range(STATISTICS + 1):
        model(torch.randn(16, *shape))
    return model.eval()


class Cnn(nn.Module):
    """Convolution, pooling, dropout and linear layers; input ``(batch, 1, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(Act, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(
            1, 6, 3, padding=1, weight_quant=ChannelWeight, bias_quant=bq.Int8Bias, return_quant_tensor=True
        )
        self.relu1 = qnn.QuantReLU(UnsignedAct, bit_width=4, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = qnn.QuantConv2d(
            6,
            8,
            3,
            weight_quant=Weight,
            weight_bit_width=5,
            bias_quant=bq.Int16Bias,
            return_quant_tensor=True,
        )
        self.relu2 = qnn.QuantReLU(UnsignedAct, bit_width=6, return_quant_tensor=True)
        self.dropout = nn.Dropout(0.2)
        self.fc = qnn.QuantLinear(32, 10, True, weight_quant=Weight, bias_quant=bq.Int16Bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu1(self.conv1(self.input(x))))
        x = self.dropout(self.relu2(self.conv2(x)))
        return self.fc(x.flatten(1))


def mlp() -> nn.Module:
    """64-32-16-10 on flattened images, quantizers inside the layers; input ``(batch, 1, 8, 8)``."""
    return nn.Sequential(
        nn.Flatten(),
        qnn.QuantLinear(
            64, 32, True, weight_quant=Weight, bias_quant=bq.Int8Bias, input_quant=Act,
            return_quant_tensor=True,
        ),
        qnn.QuantReLU(UnsignedAct, bit_width=5, return_quant_tensor=True),
        qnn.QuantLinear(32, 16, True, weight_quant=ChannelWeight, weight_bit_width=3, bias_quant=bq.Int8Bias,
                        return_quant_tensor=True),
        qnn.QuantHardTanh(Bounded, bit_width=6, min_val=-1.0, max_val=1.0, return_quant_tensor=True),
        qnn.QuantLinear(16, 10, False, weight_quant=Weight, output_quant=Act),
    )  # fmt: skip


class Residual(nn.Module):
    """Both kinds of addition, concatenation, rounding modes, grouped and strided windows;
    input ``(batch, 4, 8, 8)``."""

    def __init__(self, bits: int = 12) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(
            Act, return_quant_tensor=True, per_channel_broadcastable_shape=(1, 4, 1, 1),
            scaling_stats_permute_dims=(1, 0, 2, 3), scaling_per_output_channel=True,
        )  # fmt: skip
        self.conv1 = qnn.QuantConv2d(
            4, 8, 3, padding="same", groups=2, weight_quant=Weight, bias=False, float_to_int_impl_type="floor"
        )
        self.relu1 = qnn.QuantReLU(UnsignedAct, bit_width=3, float_to_int_impl_type="floor")
        self.conv2 = qnn.QuantConv2d(
            8, 8, (3, 2), stride=2, padding="same", weight_quant=ChannelWeight, bias=False, output_quant=Act
        )
        self.side = qnn.QuantConv2d(
            8, 8, 3, stride=2, dilation=2, padding=2, weight_quant=bq.SignedTernaryWeightPerTensorConst,
            weight_scaling_init=0.25, bias=False, output_quant=Act,
            output_float_to_int_impl_type="round_to_zero",
        )  # fmt: skip
        nn.init.normal_(self.side.weight, std=0.3)
        self.add = qnn.QuantEltwiseAdd(input_quant=Act, output_quant=Act, output_narrow_range=True)
        self.average = nn.AvgPool2d(2)
        self.narrow = qnn.QuantIdentity(Act, bit_width=bits)
        self.fc = qnn.QuantLinear(
            16, 3, True, weight_quant=Weight, weight_bit_width=4,
            bias_quant=bq.Int8BiasPerTensorFixedPointInternalScaling,
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.conv1(self.input(x)))
        left, right = self.conv2(x), self.side(x)
        total = self.add(left, right) - left * right
        x = torch.cat([total, torch.relu(right)], dim=1)
        x = self.narrow(self.average(x)).mean((2, 3))
        return self.fc(self.fc_input(x))

    def fc_input(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(x * 0.5 - 0.125, -1.5, 1.5)


class Truncated(nn.Module):
    """Average pooling by truncation, twice; input ``(batch, 2, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(Act, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(2, 4, 1, weight_quant=Weight, bias=False, return_quant_tensor=True)
        self.pool = qnn.TruncAvgPool2d(2, float_to_int_impl_type="floor")
        self.last = qnn.TruncAdaptiveAvgPool2d(
            (1, 1), float_to_int_impl_type="round", return_quant_tensor=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.pool(self.conv(self.input(x)))).reshape(-1, 4)


def one_dimensional() -> nn.Module:
    """1-D convolutions, binary weights and activations; input ``(batch, 3, 16)``."""
    return nn.Sequential(
        qnn.QuantIdentity(Act, return_quant_tensor=True),
        qnn.QuantConv1d(
            3, 6, 3, stride=2, padding="same", weight_quant=bq.SignedBinaryWeightPerTensorConst,
            weight_scaling_init=0.125, bias=False,
        ),
        qnn.QuantIdentity(bq.SignedBinaryActPerTensorConst, scaling_init=0.5),
        qnn.QuantConv1d(6, 4, 3, weight_quant=ChannelWeight, bias=False),
        nn.LeakyReLU(0.25),
        nn.MaxPool1d(2),
        nn.Flatten(),
    )  # fmt: skip


def scale_bias() -> nn.Module:
    """A quantized multiply and add, and a BatchNorm of binary fractions; input ``(batch, 3, 4, 4)``."""
    norm = nn.BatchNorm2d(3, eps=2.0**-10)
    layer: Any = qnn.QuantScaleBias(3, True, weight_quant=Weight)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.3, -0.7, 1.1]))
        layer.bias.copy_(torch.tensor([0.25, 0.0, -0.5]))
        norm.running_var.copy_(torch.tensor([0.25, 4.0, 1.0]) - norm.eps)  # type: ignore[union-attr]
        norm.running_mean.copy_(torch.tensor([0.5, -0.25, 0.0]))  # type: ignore[union-attr]
        norm.weight.copy_(torch.tensor([1.0, -0.5, 0.75]))
    norm.momentum = 0.0
    return nn.Sequential(qnn.QuantIdentity(Act, return_quant_tensor=True), layer, norm)


def unquantized_bias() -> nn.Module:
    """A bias in float32, brevitas's default; input ``(batch, 6)``."""
    return nn.Sequential(
        qnn.QuantIdentity(Act, return_quant_tensor=True),
        qnn.QuantLinear(6, 5, True, weight_quant=Weight),
        qnn.QuantReLU(UnsignedAct),
    )


class Fp4Act(Fp4e2m1Mixin, ScaledFloatActBase):
    scaling_per_output_type = ScalingPerOutputType.TENSOR
    collect_stats_steps = STATISTICS
    restrict_scaling_type = "power_of_two"


class Fp6Act(Fp6e3m2Mixin, ScaledFloatActBase):
    scaling_per_output_type = ScalingPerOutputType.TENSOR
    collect_stats_steps = STATISTICS
    restrict_scaling_type = "power_of_two"


class Fp6Weight(Fp6e2m3Mixin, ScaledFloatWeightBase):
    scaling_per_output_type = ScalingPerOutputType.CHANNEL
    restrict_scaling_type = "power_of_two"


class Fp8Act(Fp8e4m3OCPActPerTensorFloat):
    collect_stats_steps = STATISTICS
    restrict_scaling_type = "power_of_two"


class Fp8Weight(Fp8e4m3OCPWeightPerTensorFloat):
    restrict_scaling_type = "power_of_two"


def minifloats() -> nn.Module:
    """E3M2 and E2M1 activations, E2M3 weights with a scale per channel; input ``(batch, 2, 6, 6)``."""
    return nn.Sequential(
        qnn.QuantIdentity(Fp6Act),
        qnn.QuantConv2d(2, 4, 3, weight_quant=Fp6Weight, bias=False),
        qnn.QuantReLU(Fp4Act),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(16, 5, False, weight_quant=Fp6Weight, output_quant=Fp4Act),
    )


def fp8() -> nn.Module:
    """OCP E4M3 everywhere: accumulators of more than 24 bits; input ``(batch, 6)``."""
    return nn.Sequential(
        qnn.QuantIdentity(Fp8Act),
        qnn.QuantLinear(6, 8, False, weight_quant=Fp8Weight),
        qnn.QuantReLU(Fp8Act),
        qnn.QuantLinear(8, 3, False, weight_quant=Fp8Weight),
    )


#: Name: (network, shape of one sample).
NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "cnn": (Cnn, (1, 8, 8)),
    "mlp": (mlp, (1, 8, 8)),
    "residual": (Residual, (4, 8, 8)),
    "truncated": (Truncated, (2, 8, 8)),
    "one_dimensional": (one_dimensional, (3, 16)),
    "scale_bias": (scale_bias, (3, 4, 4)),
    "minifloats": (minifloats, (2, 6, 6)),
}
