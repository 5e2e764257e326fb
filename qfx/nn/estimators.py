"""What training computes in place of rounding, and its gradient: the choices of docs/estimators.md.

``clipped`` is :class:`qfx.nn.functional.FakeQuantize`; the others are here. All of them cast in the same way
in ``eval()``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.formats.scaled import ScaledFormat
from qfx.nn.functional import cast, point_gradient

ESTIMATORS = ("clipped", "straight_through", "soft", "noise", "gaussian", "stochastic")
#: Those that draw random numbers in training.
RANDOM = ("noise", "gaussian", "stochastic")
#: Formats wider than this have no table of neighbours.
TABLE_BITS = 24
# Characteristic variable of the soft staircase: 0 is the hard one, 1 a straight line (arXiv:1908.05033).
SOFTNESS = 0.2
_STEEP = math.log(2.0 / SOFTNESS - 1.0)


def check_estimator(where: str, name: object) -> str:
    """An estimator's name.

    Raises:
        QfxError: an unknown one; says which there are.
    """
    if name not in ESTIMATORS:
        raise QfxError(f"{where} must be one of {', '.join(map(repr, ESTIMATORS))}, found {name!r}")
    return str(name)


class Estimate(torch.autograd.Function):
    """A cast as an estimator computes it in training: arguments as for
    :class:`qfx.nn.functional.FakeQuantize`, and the estimator's name."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        point: torch.Tensor,
        scale: float | torch.Tensor,
        fmt: Format,
        gain: float | torch.Tensor,
        estimator: str,
    ) -> torch.Tensor:
        low, high = fmt.pass_range
        scaled = x * scale
        inside = (scaled > low) & (scaled < high)
        slope = inside.to(x.dtype)
        y = cast(x, scale, fmt)
        if estimator == "soft":
            slope = slope * _soft_slope(fmt, scaled)
        elif estimator in RANDOM:
            drawn = _drawn(fmt, scaled, estimator) / scale
            y = torch.where(inside, drawn, y)
        ctx.scale, ctx.fmt, ctx.gain, ctx.shape = scale, fmt, gain, point.shape
        ctx.straight = estimator == "straight_through"
        ctx.save_for_backward(x, y, slope, inside)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, y, slope, inside = ctx.saved_tensors
        grad_x = grad * slope
        grad_point = None
        if ctx.needs_input_grad[1]:
            grad_point = point_gradient(ctx, grad, grad_x, x, y, inside)
        if ctx.straight:
            grad_x = grad
        return (grad_x if ctx.needs_input_grad[0] else None), grad_point, None, None, None, None


def _soft_slope(fmt: Format, scaled: torch.Tensor) -> torch.Tensor:
    """The derivative of a tanh staircase; 1 on average over a step."""
    moved = _centred(fmt, scaled)
    low, step = neighbours(fmt, moved)
    t = torch.tanh(_STEEP * ((moved - low) / step - 0.5))
    return (0.5 * _STEEP / (1.0 - SOFTNESS)) * (1.0 - t * t)


def _drawn(fmt: Format, scaled: torch.Tensor, estimator: str) -> torch.Tensor:
    """A random result instead of the rounded one, in units of ``2**-frac``."""
    moved = _centred(fmt, scaled)
    low, step = neighbours(fmt, moved)
    if estimator == "stochastic":
        y = torch.where(torch.rand_like(moved) * step < moved - low, low + step, low)
    elif estimator == "noise":
        y = moved + step * (torch.rand_like(moved) - 0.5)
    else:
        y = moved + step * (torch.randn_like(moved) / math.sqrt(12.0))
    return y.clamp_(float(fmt.integer_min), float(fmt.integer_max))


def _centred(fmt: Format, scaled: torch.Tensor) -> torch.Tensor:
    """The number whose nearest neighbour is the result: truncation is off by half a step on average."""
    rounding = getattr(fmt, "rounding", "RND_CONV")
    if rounding not in ("TRN", "TRN_ZERO"):
        return scaled
    half = 0.5 * neighbours(fmt, scaled)[1]
    return scaled - (half if rounding == "TRN" else half * torch.sign(scaled))


def neighbours(fmt: Format, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest number of a format at or below each of some numbers, and the distance to the next one.

    Args:
        scaled: numbers in the range of the format, in units of ``2**-frac``.

    Raises:
        QfxError: a format without a table of its numbers.
    """
    if isinstance(fmt, FixedPoint):
        return scaled.floor(), torch.ones_like(scaled)
    if isinstance(fmt, Minifloat):
        bits, mask = (
            (torch.int32, 0x7F800000) if scaled.dtype == torch.float32 else (torch.int64, 0x7FF << 52)
        )
        power = (scaled.contiguous().view(bits) & mask).view(scaled.dtype)
        step = (power * 2.0**-fmt.mantissa_bits).clamp_(min=1.0) if fmt.exponent_bits else 1.0 + 0.0 * power
        return (scaled / step).floor_().mul_(step), step
    if isinstance(fmt, ScaledFormat) and fmt.integer_max < 1 << TABLE_BITS:
        table = _table(fmt.with_frac(0), scaled.dtype, str(scaled.device))
        index = (torch.bucketize(scaled, table, right=True) - 1).clamp_(0, len(table) - 2)
        low = table[index]
        return low, table[index + 1] - low
    raise QfxError(
        f"{fmt}: block formats, and K-hot formats of more than {TABLE_BITS} bits, can be trained with the "
        "estimators 'clipped' and 'straight_through'"
    )


@lru_cache(maxsize=32)
def _table(fmt: Any, dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.from_numpy(fmt.values()).to(device, dtype)
