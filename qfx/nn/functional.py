"""Fake quantization: a cast of real numbers, with a gradient for its binary point (docs/learning.md)."""

from __future__ import annotations

import math
from typing import Any

import torch

from qfx.formats.base import Format

LN2 = math.log(2.0)


def cast(x: torch.Tensor, scale: float | torch.Tensor, fmt: Format) -> torch.Tensor:
    """The values of ``fmt`` that ``x`` is cast to, in the dtype of ``x``; no gradient.

    Args:
        x: real numbers.
        scale: ``2**frac``, a number or a tensor that broadcasts against ``x``; overrides the binary point of
            ``fmt``.
    """
    codes = fmt.round_scaled(x * scale)
    return codes.div_(scale) if isinstance(scale, torch.Tensor) else codes.mul_(1.0 / scale)


class FakeQuantize(torch.autograd.Function):
    """Cast in the forward pass, straight through in the backward pass.

    ``point`` enters the forward pass only as ``scale`` (a power of two computed from it); its gradient is
    that of docs/learning.md times ``gain``, a number or a tensor of the shape of ``point``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        point: torch.Tensor,
        scale: float | torch.Tensor,
        fmt: Format,
        gain: float | torch.Tensor,
    ) -> torch.Tensor:
        y = cast(x, scale, fmt)
        ctx.scale, ctx.fmt, ctx.gain, ctx.shape = scale, fmt, gain, point.shape
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, y = ctx.saved_tensors
        step = 1.0 / ctx.scale
        low, high = ctx.fmt.pass_range
        low, high = low * step, high * step
        if isinstance(ctx.scale, torch.Tensor):
            grad_x = torch.where((x > low) & (x < high), grad, 0.0)
        else:
            grad_x = torch.ops.aten.hardtanh_backward(grad, x, low, high)
        grad_point = None
        if ctx.needs_input_grad[1]:
            if math.isfinite(ctx.fmt.dense_below):
                grad_point = point_gradient(ctx, grad, grad_x, x, y, (x > low) & (x < high))
            else:
                # dy/dfrac is ln2 * (x - y) inside the range and -ln2 * y outside, where grad_x is 0.
                if ctx.shape.numel() == 1:
                    total = _dot(grad_x, x) - _dot(grad, y)
                else:
                    total = torch.sum(grad_x * x - grad * y, dim=_axes(ctx.scale))
                grad_point = (total * (LN2 * ctx.gain)).reshape(ctx.shape)
        return (grad_x if ctx.needs_input_grad[0] else None), grad_point, None, None, None


def point_gradient(
    ctx: Any,
    grad: torch.Tensor,
    grad_x: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    inside: torch.Tensor,
) -> torch.Tensor:
    """The gradient of the binary point in any format.

    Args:
        ctx: has ``fmt``, ``scale``, ``gain`` and ``shape`` (of the binary point).
        grad: of ``y``; grad_x: of ``x``, 0 outside of the range; x, y: before and after the cast.
        inside: where ``x`` is not clipped.
    """
    if ctx.fmt.dense_below == 0:
        # No numbers around 0: whatever the point, the result is one of the two ends.
        slope = grad * -y
    else:
        slope = grad_x * x - grad * y
        if math.isfinite(ctx.fmt.dense_below):
            # Between numbers that lie further apart a move of the point by one changes nothing.
            far = x.abs() >= ctx.fmt.dense_below / ctx.scale
            slope = torch.where(inside & far, 0.0, slope)
    total = slope.sum() if ctx.shape.numel() == 1 else slope.sum(dim=_axes(ctx.scale))
    return (total * (LN2 * ctx.gain)).reshape(ctx.shape)


def _axes(scale: torch.Tensor) -> list[int]:
    """The axes that all share a binary point."""
    return [axis for axis, size in enumerate(scale.shape) if size == 1]


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1))
    return torch.sum(a * b)
