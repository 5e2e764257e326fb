"""Linear and convolution layers with quantized weight and bias."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound
from qfx.nn.module import Exact, QuantModule, float32, to
from qfx.nn.observer import best_frac, best_fracs, default_frac
from qfx.nn.quantizer import Quantizer
from qfx.nn.width import WeightWidthQuantizer


class QuantWeighted(QuantModule):
    """What linear and convolution share: a weight and a bias, each with its quantizer.

    Args:
        weight: ``(out, in)`` or ``(out, in / groups, *kernel)``.
        bias: ``(out,)`` or ``None``.
        weight_format, bias_format: formats; see :class:`qfx.nn.Quantizer`.
        per_channel: one binary point per output channel, for weight and bias.
    """

    grows: ClassVar[bool] = True
    #: Mean and standard deviation of every channel of the result over the training data, float64
    #: ``(channels,)``, where a folded BatchNorm knew them. They are not part of the state dict.
    statistics: tuple[torch.Tensor, torch.Tensor] | None = None

    def __init__(
        self,
        weight: torch.nn.Parameter,
        bias: torch.nn.Parameter | None,
        weight_format: Format,
        bias_format: FixedPoint,
        per_channel: bool = False,
    ) -> None:
        super().__init__()
        channels = int(weight.shape[0]) if per_channel else 1
        self.weight = weight
        self.bias = bias
        self.weight_quantizer = Quantizer(weight_format, channels)
        self.bias_quantizer = None if bias is None else Quantizer(bias_format, channels)

    def parameters_exact(self, exact: Exact | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Quantized weight and bias: the ones made ready, or new ones that carry gradients."""
        if exact is not None and exact.constants:
            return exact.constants[0], (exact.constants[1] if len(exact.constants) > 1 else None)
        if exact is None:
            # A cast never runs in half precision: under autocast it is the products that do.
            with float32(self.weight):
                bias = (
                    None
                    if self.bias is None or self.bias_quantizer is None
                    else self.bias_quantizer(self.bias)
                )
                return self.weight_quantizer(self.weight), bias
        bias = (
            None
            if self.bias is None or self.bias_quantizer is None
            else self.bias_quantizer.quantized(self.bias).to(exact.dtype)
        )
        return self.weight_quantizer.quantized(self.weight).to(exact.dtype), bias

    def constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        weight, bias = self.parameters_exact(Exact(dtype))
        return (weight,) if bias is None else (weight, bias)

    def check(self, path: str) -> None:
        for name, values in (("weight", self.weight), ("bias", self.bias)):
            if values is not None and not torch.isfinite(values).all():
                raise QfxError(
                    f"{path}: the {name} holds NaN or infinity, which has no code. Training has diverged, or "
                    "the model was loaded from a damaged "
                    f"file: lower the learning rate, or load a good state dict"
                )

    @torch.no_grad()
    def calibrate_weight(self) -> None:
        """Put the weight's binary points where the squared error is smallest."""
        calibrate_constant(self.weight_quantizer, self.weight)

    @torch.no_grad()
    def calibrate_bias(self, x: Bound, reach: int | None) -> None:
        """Put the bias's binary points where the squared error is smallest, within limits.

        Args:
            x: the operand. No finer than the grid of the accumulator.
            reach: integer bits of the result. The bias can be learned up to the range of the result, however
                small it is now.
        """
        if self.bias is not None and self.bias_quantizer is not None:
            grid = self._weight_fracs() + int(x.fracs.max())
            calibrate_constant(self.bias_quantizer, self.bias, [int(f) for f in grid], reach)

    def _weight_fracs(self) -> np.ndarray:
        """The binary point of every output channel's weight codes, int64."""
        return _fracs(self.weight_quantizer, self.weight)

    def _bound(self, x: Bound, groups: int, shape: tuple[int, ...]) -> Bound:
        """Per output channel the sum of all absolute terms; ``F`` as in docs/graph.md."""
        out = int(self.weight.shape[0])
        with torch.no_grad():
            weight = (
                self.weight_quantizer.quantized(self.weight).abs().double().flatten(2).sum(2)
                if self.weight.ndim > 2
                else (self.weight_quantizer.quantized(self.weight).abs().double())
            )
        fracs = self._weight_fracs() + int(x.fracs.max())
        if self.bias is not None and self.bias_quantizer is not None:
            fracs = np.maximum(fracs, _fracs(self.bias_quantizer, self.bias))
        largest = np.ldexp(x.magnitude, -x.fracs).reshape(groups, -1)
        rows = weight.cpu().numpy().reshape(groups, out // groups, -1)
        total = np.einsum("goi,gi->go", rows, largest).reshape(-1)
        if self.bias is not None and self.bias_quantizer is not None:
            with torch.no_grad():
                total = total + self.bias_quantizer.quantized(self.bias).abs().double().cpu().numpy()
        return Bound(shape, fracs, np.ldexp(total, fracs))

    def _codes(self) -> dict[str, object]:
        """The attributes of the graph's operator."""
        bias = (
            None
            if self.bias is None or self.bias_quantizer is None
            else self.bias_quantizer.constant(self.bias)
        )
        weight = self.weight_quantizer.constant(self.weight)
        return {
            "weight": weight.codes,
            "weight_format": weight.format,
            "bias": None if bias is None else bias.codes,
            "bias_format": None if bias is None else bias.format,
            "weight_encoding": weight.encoding,
        }


class QuantLinear(QuantWeighted):
    """``linear`` of docs/graph.md: operands ``(samples, in)``, result ``(samples, out)``."""

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        weight, bias = self.parameters_exact(exact)
        return F.linear(to(x, exact), weight, bias)

    def bound(self, *operands: Bound) -> Bound:
        return self._bound(operands[0], 1, (int(self.weight.shape[0]),))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Linear(**self._codes()), inputs, path)  # type: ignore[arg-type]


class QuantConv(QuantWeighted):
    """``conv`` of docs/graph.md in one or two dimensions: operands ``(samples, channels, *space)``.

    Args:
        stride, dilation: one number per spatial axis.
        padding: (before, after) per spatial axis, zeros.
        groups: as in torch.
        Others as for :class:`QuantWeighted`.
    """

    def __init__(
        self,
        weight: torch.nn.Parameter,
        bias: torch.nn.Parameter | None,
        weight_format: Format,
        bias_format: FixedPoint,
        per_channel: bool = False,
        *,
        stride: tuple[int, ...],
        padding: tuple[tuple[int, int], ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> None:
        super().__init__(weight, bias, weight_format, bias_format, per_channel)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.symmetric = all(before == after for before, after in padding)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        weight, bias = self.parameters_exact(exact)
        x = to(x, exact)
        padding: tuple[int, ...] = tuple(before for before, _ in self.padding)
        if not self.symmetric:
            x = F.pad(x, [p for pair in reversed(self.padding) for p in pair])
            padding = (0,) * len(self.padding)
        conv = F.conv1d if weight.ndim == 3 else F.conv2d
        return conv(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        space = ops.window_shape(
            x.shape, tuple(self.weight.shape[2:]), self.stride, self.padding, self.dilation
        )
        return self._bound(x, self.groups, (int(self.weight.shape[0]), *space))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        op = ops.Conv(
            **self._codes(),  # type: ignore[arg-type]
            stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups,
        )  # fmt: skip
        return builder.add(op, inputs, path)


def _fracs(quantizer: Quantizer, values: torch.Tensor) -> np.ndarray:
    """The binary point of every channel of a constant as the graph holds it, int64."""
    # Only in fixed point of given width it does not depend on the values.
    declared = isinstance(quantizer.fmt, FixedPoint) and not isinstance(quantizer, WeightWidthQuantizer)
    fmt = quantizer.format if declared else quantizer.constant(values).format
    return np.asarray(fmt.fracs(len(values)), dtype=np.int64)


def calibrate_constant(
    quantizer: Quantizer, values: torch.Tensor, limits: list[int] | None = None, reach: int | None = None
) -> None:
    """Binary points of least squared error for a constant; a frozen quantizer stays where it is.

    Args:
        limits: largest binary point of each channel.
        reach: integer bits that the format must have (sign apart), whatever the values are now.
    """
    if quantizer.frozen:
        return
    fmt = quantizer.fmt
    rows = values.detach().double().cpu().reshape(quantizer.channels, -1)
    wide = fmt.integer_max.bit_length() - (0 if reach is None else reach)
    if limits is not None and quantizer.channels == 1:
        limits = [min(limits)]
    if reach is not None:
        limits = [wide] * len(rows) if limits is None else [min(limit, wide) for limit in limits]
    # One row is cheaper alone: fewer temporaries of its size.
    if len(rows) == 1:
        found = [best_frac(fmt, rows[0], None if limits is None else limits[0])]
    else:
        found = best_fracs(fmt, rows, limits)
    fracs = []
    for channel, frac in enumerate(found):
        # All zeros, as a fresh bias: any position is exact now, and training wants the finest that makes
        # sense.
        if frac is None:
            frac = default_frac(fmt) if limits is None else min(default_frac(fmt), limits[channel])
        fracs.append(frac)
    place(quantizer, fracs, rows)


def place(quantizer: Quantizer, fracs: list[int], rows: torch.Tensor) -> None:
    """Set a quantizer to one binary point per row of the numbers that they were found for."""
    quantizer.set(fracs[0] if quantizer.channels == 1 else fracs)
    quantizer.saw(sizes(rows))


def sizes(rows: torch.Tensor) -> list[float]:
    """The root mean square of every row; NaN for one of zeros, which say nothing about what is to come."""
    return [float(row.square().mean().sqrt()) or math.nan for row in rows]
