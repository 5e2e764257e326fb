"""Per-channel multiply and add: a kept BatchNorm, and arithmetic with constants."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound
from qfx.nn.module import Exact, QuantModule, to
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import calibrate_constant


class QuantAffine(QuantModule):
    """``affine`` of docs/graph.md: ``scale * x + offset`` with constants or parameters of one number, or one
    per channel.

    Args:
        scale, offset: shape ``(1,)`` or ``(channels,)``; a ``Parameter`` is trained, a plain tensor is not.
        scale_format, offset_format: formats; see :class:`qfx.nn.Quantizer`.
    """

    grows: ClassVar[bool] = True
    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self, scale: torch.Tensor, offset: torch.Tensor, scale_format: Format, offset_format: FixedPoint
    ) -> None:
        super().__init__()
        for name, values in (("scale", scale), ("offset", offset)):
            if isinstance(values, torch.nn.Parameter):
                setattr(self, name, values)
            else:
                self.register_buffer(name, values)
        self.scale_quantizer = Quantizer(scale_format)
        self.offset_quantizer = Quantizer(offset_format)

    def terms(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and offset before quantization."""
        return self.scale, self.offset

    def quantized(self, exact: Exact | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and offset: the ones made ready, or new ones that carry gradients."""
        if exact is not None and exact.constants:
            return exact.constants[0], exact.constants[1]
        scale, offset = self.terms()
        if exact is None:
            return self.scale_quantizer(scale), self.offset_quantizer(offset)
        return self.scale_quantizer.quantized(scale).to(exact.dtype), self.offset_quantizer.quantized(
            offset
        ).to(exact.dtype)

    def constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        return self.quantized(Exact(dtype))

    def check(self, path: str) -> None:
        for name, values in zip(("scale", "offset"), self.terms(), strict=True):
            if not torch.isfinite(values).all():
                raise QfxError(
                    f"{path}: the {name} holds NaN or infinity, which has no code; load a good state dict, "
                    "or retrain"
                )

    @torch.no_grad()
    def calibrate_weight(self) -> None:
        """Put the scale's binary point where the squared error is smallest."""
        calibrate_constant(self.scale_quantizer, self.terms()[0])

    @torch.no_grad()
    def calibrate_bias(self, x: Bound, reach: int | None) -> None:
        """Put the offset's binary point where the squared error is smallest, within the limits of a bias."""
        limit = int(self._scale_fracs().min() + x.fracs.min())
        calibrate_constant(self.offset_quantizer, self.terms()[1], [limit], reach)

    def _scale_fracs(self) -> np.ndarray:
        """The binary points of the scale codes, int64, one or one per channel."""
        quantizer, scale = self.scale_quantizer, self.terms()[0]
        plain = isinstance(quantizer.fmt, FixedPoint)
        fmt = quantizer.format if plain else quantizer.constant(scale).format
        return np.asarray(fmt.fracs(scale.shape[0] if fmt.per_channel else 1), dtype=np.int64)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        scale, offset = self.quantized(exact)
        shape = (-1, *(1,) * (x.ndim - 2))
        return torch.addcmul(offset.reshape(shape), to(x, exact), scale.reshape(shape))

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        n = x.shape[0]
        with torch.no_grad():
            scale, offset = (t.double().abs().cpu().numpy() for t in self.quantized(Exact(torch.float64)))
        product = x.fracs + self._scale_fracs()
        fracs = np.maximum(product, self.offset_quantizer.format.fracs(1)[0])
        total = np.ldexp(x.magnitude, -x.fracs) * np.broadcast_to(scale, (n,)) + np.broadcast_to(offset, (n,))
        return Bound(x.shape, fracs, np.ldexp(total, fracs))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        scale, offset = self.terms()
        factor = self.scale_quantizer.constant(scale)
        op = ops.Affine(
            factor.codes, factor.format,
            self.offset_quantizer.encode(offset), self.offset_quantizer.format,
            scale_encoding=factor.encoding,
        )  # fmt: skip
        return builder.add(op, inputs, path)


class QuantBatchNorm(QuantAffine):
    """A BatchNorm that stays a layer: a fixed-point multiply and add per channel.

    In training mode scale and offset come from the batch's statistics, which gradients pass through as in
    torch, and the running statistics are updated; in ``eval()`` they come from the running statistics, as in
    the frozen graph.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(
        self,
        norm: torch.nn.BatchNorm1d | torch.nn.BatchNorm2d,
        scale_format: Format,
        offset_format: FixedPoint,
    ) -> None:
        QuantModule.__init__(self)
        assert (
            norm.running_mean is not None
            and norm.running_var is not None
            and norm.num_batches_tracked is not None
        )
        self.weight = norm.weight
        self.bias = norm.bias
        self.eps, self.momentum = norm.eps, norm.momentum
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.register_buffer("num_batches_tracked", norm.num_batches_tracked)
        self.scale_quantizer = Quantizer(scale_format)
        self.offset_quantizer = Quantizer(offset_format)

    def terms(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._terms(self.running_mean, self.running_var)

    def _terms(self, mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        offset = -mean * scale
        return scale, offset if self.bias is None else offset + self.bias

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if exact is not None or not self.training or self.scale_quantizer.bypass:
            return super().forward(x, exact)
        axes = [0, *range(2, x.ndim)]
        count = x.numel() // x.shape[1]
        if count < 2:
            raise QfxError(
                "BatchNorm in training mode needs more than one value per channel, found a batch of shape "
                f"{tuple(x.shape)}"
            )
        var, mean = torch.var_mean(x, dim=axes, correction=0)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean), rate)
            self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var), rate)
        scale, offset = self._terms(mean, var)
        shape = (-1, *(1,) * (x.ndim - 2))
        return torch.addcmul(
            self.offset_quantizer(offset).reshape(shape), x, self.scale_quantizer(scale).reshape(shape)
        )
