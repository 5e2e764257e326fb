"""Quantizers that learn their width together with their binary point (docs/widths.md).

A width is the sum of integer bits ``i``, fraction bits ``f`` and a sign. Weights learn ``f``, for the whole
tensor, per output channel or per weight; their integer bits are those that their values need, so that they
never overflow. Activations learn ``f`` and ``i``, and saturate. A weight that rounds to 0 has no bits left:
it is pruned.

Source: C. Sun et al., "Gradient-based Automatic Mixed Precision Quantization for Neural Networks On-Chip"
(HGQ), arXiv:2405.00645, section III. It learns ``f``; learning the range of activations through what is
clipped is TQT's: S. Jain et al., "Trained Quantization Thresholds", arXiv:1903.08066.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.exact import round_
from qfx.formats.fixed import FixedPoint
from qfx.nn.constant import Constant, constant
from qfx.nn.device import power_of_two
from qfx.nn.functional import LN2, cast
from qfx.nn.module import Exact
from qfx.nn.quantizer import BITS_PER_UNIT, LEARNED_RANGE, InputQuantizer, Quantizer

#: Learned bits go as far beyond the calibrated ones as this; what wants more wants no quantization.
HEADROOM = 8
#: Widths start with at most this many bits: with the headroom they are exact in float32.
MAX_START = 16
#: What one width is learned for.
GRANULARITIES = ("tensor", "channel", "weight")


class _Clipped(Quantizer):
    """A quantizer with one estimator."""

    @property
    def estimator(self) -> str:
        """``"clipped"``."""
        return "clipped"

    @estimator.setter
    def estimator(self, value: str) -> None:
        if value != "clipped":
            raise QfxError(
                f'learned widths are trained with estimator="clipped", found {value!r}; leave this one\'s '
                "width alone (overrides with learn_width={}), or its estimator"
            )


class WeightWidthQuantizer(_Clipped):
    """Casts weights (or biases) to fixed point with learned fraction bits; nothing ever saturates.

    The fraction bits of a group are ``f = round(start + 8 * shift)``, as the binary point of
    :class:`Quantizer`. The code of a weight is ``round(w * 2**f)``, of as many bits as it takes. Gradients
    are those of the loss itself, without normalisation, so that they stand in the right proportion to those
    of a resource loss: use an optimizer of the Adam family.

    Args:
        fmt: the width to start with, and the rounding mode. Signed, ``frac`` open.
        shape: of the weights, output channel first.
        granularity: ``"tensor"``, ``"channel"`` (output channels) or ``"weight"``.
        per_channel: calibrate the start of each output channel by itself. Always so for ``"channel"``, never
            for ``"tensor"``.

    Raises:
        QfxError: a format that cannot be learned this way, an unknown granularity.
    """

    def __init__(
        self, fmt: FixedPoint, shape: Sequence[int], granularity: str = "weight", per_channel: bool = False
    ) -> None:
        check_learnable(fmt, "weight")
        if not fmt.signed:
            raise QfxError(f"learned widths: weights have signs, found {fmt}; use signed=True")
        if granularity not in GRANULARITIES:
            raise QfxError(
                f"learned widths: unknown granularity {granularity!r}; supported: "
                f"{', '.join(map(repr, GRANULARITIES))}"
            )
        shape = tuple(int(n) for n in shape)
        each = granularity == "channel" or (per_channel and granularity == "weight")
        super().__init__(fmt, shape[0] if each else 1)
        self.granularity = granularity
        per_group = {"tensor": (), "channel": (shape[0], *(1,) * (len(shape) - 1)), "weight": shape}
        self._group = per_group[granularity]
        self._rank = len(shape)
        self.start = torch.full(self._group, math.nan)
        self.shift = torch.nn.Parameter(torch.zeros(self._group))

    # -- fraction bits ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def fraction_bits(self) -> torch.Tensor:
        """``f`` of every group, int32; broadcasts against the weights.

        Raises:
            QfxError: not calibrated, or training has diverged.
        """
        point = self.start + BITS_PER_UNIT * self.shift
        if not bool(torch.isfinite(point).all()):
            self._frac_of(point)
        top = (self.start + HEADROOM).clamp(max=LEARNED_RANGE)
        return torch.minimum(torch.round(point), top).clamp(min=-LEARNED_RANGE).to(torch.int32)

    def _frac_of(self, point: torch.Tensor) -> None:
        if not self.calibrated:
            raise QfxError(
                f"{self.fmt}: the binary points are not set; call qfx.calibrate(q, batches) before training"
            )
        raise QfxError(
            f"{self.fmt}: learned fraction bits are not finite: training has diverged; lower the learning "
            "rate, or give widths one of their own (qfx.parameter_groups)"
        )

    @property
    def point(self) -> torch.Tensor:
        """The learned fraction bits before rounding, float64, one per group."""
        return (self.start.double() + BITS_PER_UNIT * self.shift.double()).detach()

    @property
    def frac(self) -> int | tuple[int, ...] | None:
        """The finest binary point of any weight: of the tensor, or per channel where channels were calibrated
        one by one; ``None`` before calibration."""
        if not self.calibrated:
            return None
        bits = self.fraction_bits()
        if self.channels == 1:
            return int(bits.max())
        return tuple(bits.reshape(self.channels, -1).amax(dim=1).tolist())

    @property
    def format(self) -> FixedPoint:
        """The integer bits of calibration with the fraction bits of now. What the graph gets follows from
        the weights: see :meth:`constant`."""
        frac = self._frac()
        start = self.start.max() if self.channels == 1 else self.start.reshape(self.channels, -1).amax(dim=1)
        grown = np.max(np.asarray(frac) - start.cpu().numpy())
        width = int(np.clip(self.fmt.width + grown, 1, 62))
        return FixedPoint(width, frac, True, self.fmt.rounding)  # type: ignore[attr-defined]

    @torch.no_grad()
    def set(self, frac: int | Sequence[int], rms: float | Sequence[float] | None = None) -> None:
        """Start learning from here.

        Args:
            frac: fraction bits of all weights, or one number per channel.
            rms: not used.
        """
        numbers = torch.as_tensor(frac, dtype=self.start.dtype, device=self.start.device)
        if numbers.ndim:
            numbers = numbers.reshape(-1, *(1,) * (self._rank - 1))
        self.start.copy_(numbers.expand_as(self.start) if self.start.ndim else numbers)
        self.shift.zero_()

    @torch.no_grad()
    def freeze(self, frac: int | Sequence[int] | None = None) -> WeightWidthQuantizer:
        """Stop learning: at ``frac``, or every group where it is now. Returns the quantizer."""
        if frac is None:
            self.start.copy_(self.fraction_bits())
            self.shift.zero_()
        else:
            self.set(frac)
        self.frozen = True
        self.shift.requires_grad_(False)
        self.shift.grad = None
        return self

    # -- the cast --------------------------------------------------------------------------------------------

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if self.bypass:
            return x
        return self._cast(x if exact is None else x.to(exact.dtype))

    def _cast(self, x: torch.Tensor, frac: int | tuple[int, ...] = 0) -> torch.Tensor:
        """The cast; ``frac``, one for a whole channel, is not looked at."""
        bits = self.fraction_bits()
        if not torch.is_grad_enabled() or not (self.shift.requires_grad or x.requires_grad):
            return _rounded(x.detach(), bits, self.fmt.rounding)  # type: ignore[attr-defined]
        return _RoundToFraction.apply(x, self.shift, bits, self.fmt.rounding)  # type: ignore[attr-defined]

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """The values that weights are cast to. They have no more significant bits than ``x``: exact in its
        dtype."""
        return self(x, Exact(x.dtype))

    def bits(self, x: torch.Tensor) -> torch.Tensor:
        """Bits of every weight from the highest to the lowest that is set, sign apart; 0 when it is pruned.

        A fraction bit more counts as a bit more: the derivative with respect to ``f`` is 1, and 0 for a
        pruned weight. None with respect to ``x``.
        """
        return _EnclosedBits.apply(x, self.shift, self.fraction_bits(), self.fmt.rounding)  # type: ignore[attr-defined]

    def constant(self, x: torch.Tensor) -> Constant:
        """Weights as the graph holds them: on the finest grid that one of them is on, in the narrowest format
        that holds them all; with a grid per channel where that makes the format narrower."""
        with torch.no_grad():
            values = self.quantized(x).double().cpu().numpy()
        whole = constant(values, FixedPoint(1, 0))
        channels = constant(values, FixedPoint(1, (0,) * len(values)))
        best = channels if channels.format.width < whole.format.width else whole
        return Constant(best.codes, best.format, None)

    def encode(self, x: torch.Tensor) -> Any:
        """The codes of :meth:`constant`, int64."""
        return self.constant(x).codes

    def extra_repr(self) -> str:
        known = f"{self.format}, " if self.calibrated else f"{self.fmt}, "
        return f"{known}{'frozen' if self.frozen else 'learned'} width per {self.granularity}"


class ActivationWidthQuantizer(_Clipped):
    """Casts a tensor to fixed point with learned integer and fraction bits; what is too large saturates.

    ``f = round(start + 8 * shift)`` and ``i = round(reach + 8 * reach_shift)``; ``start`` and ``reach`` are
    where calibration put them. The width is ``i + f``, plus one when signed, and at least one bit besides the
    sign. Rounding errors move ``f``, clipped numbers ``i``. Gradients as in :class:`WeightWidthQuantizer`.

    Args:
        fmt: the width to start with, signedness and rounding; overflow ``SAT`` or ``SAT_SYM``, ``frac`` open.
        channels: 1; a cast of the graph has one width.
        axis: as in :class:`Quantizer`.

    Raises:
        QfxError: a format that cannot be learned this way.
    """

    reach: torch.Tensor

    def __init__(self, fmt: FixedPoint, channels: int = 1, axis: int = 1) -> None:
        check_learnable(fmt, "activation")
        if fmt.overflow not in ("SAT", "SAT_SYM"):
            raise QfxError(
                f"learned widths: activations saturate, found {fmt}; use overflow='SAT' or 'SAT_SYM', or "
                "leave activations out of learn_width"
            )
        if channels != 1:
            raise QfxError("learned widths: a cast has one width; use per-channel formats of fixed width")
        super().__init__(fmt, 1, axis)
        self.register_buffer("reach", torch.tensor(math.nan))
        self.reach_shift = torch.nn.Parameter(torch.zeros(()))

    # -- where the word begins and ends ----------------------------------------------------------------------

    def _ends(self) -> tuple[int, int]:
        """``i`` and ``f``."""
        start, reach = self.start.item(), self.reach.item()
        if math.isnan(start):
            raise QfxError(
                f"{self.fmt}: the binary point is not set; call qfx.calibrate(q, batches) before training"
            )
        f, i = start + BITS_PER_UNIT * self.shift.item(), reach + BITS_PER_UNIT * self.reach_shift.item()
        if not (math.isfinite(f) and math.isfinite(i)):
            raise QfxError(
                f"{self.fmt}: learned bits are not finite: training has diverged; lower the learning rate, "
                "or give widths one of their own (qfx.parameter_groups)"
            )
        whole = max(-LEARNED_RANGE, min(round(i), int(reach) + HEADROOM, LEARNED_RANGE))
        fraction = max(-LEARNED_RANGE, min(round(f), int(start) + HEADROOM, LEARNED_RANGE))
        most = MAX_START + HEADROOM - int(self.fmt.signed)
        return whole, max(1 - whole, min(fraction, most - whole))

    @property
    def frac(self) -> int | None:
        """The binary point of the forward pass; ``None`` before calibration."""
        return self._ends()[1] if self.calibrated else None

    @property
    def integer_bits(self) -> int:
        """``i``."""
        return self._ends()[0]

    @property
    def format(self) -> FixedPoint:
        """The format of the forward pass, learned width included."""
        whole, fraction = self._ends()
        fmt: Any = self.fmt
        return FixedPoint(whole + fraction + fmt.signed, fraction, fmt.signed, fmt.rounding, fmt.overflow)

    def bits(self) -> torch.Tensor:
        """The width, sign included, as a scalar with derivative 1 with respect to ``i`` and ``f``; without
        one at the least width."""
        whole, fraction = self._ends()
        width = torch.full((), float(whole + fraction + self.fmt.signed), device=self.start.device)
        if whole + fraction <= 1:
            return width
        learned = BITS_PER_UNIT * (self.shift + self.reach_shift)
        return width + (learned - learned.detach())

    @torch.no_grad()
    def set(self, frac: int | Sequence[int], rms: float | Sequence[float] | None = None) -> None:
        """Start learning from the width of ``fmt`` at this binary point."""
        super().set(frac, rms)
        self.reach.copy_(self.fmt.integer_max.bit_length() - self.start)
        self.reach_shift.zero_()

    @torch.no_grad()
    def freeze(self, frac: int | Sequence[int] | None = None) -> ActivationWidthQuantizer:
        """Stop learning: at ``frac`` with the width of ``fmt``, or as it is now. Returns the quantizer."""
        if frac is None:
            whole, fraction = self._ends()
            super().set(fraction)
            self.reach.fill_(whole)
            self.reach_shift.zero_()
        else:
            self.set(frac)
        self.frozen = True
        for parameter in (self.shift, self.reach_shift):
            parameter.requires_grad_(False)
            parameter.grad = None
        return self

    # -- the cast --------------------------------------------------------------------------------------------

    def _cast(self, x: torch.Tensor, frac: int | tuple[int, ...]) -> torch.Tensor:
        fmt = self.format
        assert isinstance(frac, int)
        if not torch.is_grad_enabled() or not (self.shift.requires_grad or x.requires_grad):
            return cast(x.detach(), 2.0**frac, fmt)
        return _CastToWidth.apply(x, self.shift, self.reach_shift, fmt)

    def extra_repr(self) -> str:
        known = self.format if self.calibrated else self.fmt
        return f"{known}, {'frozen' if self.frozen else 'learned'} width"


class InputWidthQuantizer(InputQuantizer, ActivationWidthQuantizer):
    """:class:`ActivationWidthQuantizer` for the network's input."""


def check_learnable(fmt: Any, what: str) -> None:
    """Refuse formats whose width cannot be learned.

    Raises:
        QfxError: not fixed point, a given binary point, or more bits than widths start with.
    """
    if not isinstance(fmt, FixedPoint):
        raise QfxError(f"learned widths: the {what} format must be a qfx.FixedPoint, found {fmt}")
    if not fmt.learned:
        raise QfxError(
            f"learned widths: {fmt} has a given binary point, which freezes it; leave frac open, or leave "
            f"this {what} out of learn_width"
        )
    if fmt.width > MAX_START:
        raise QfxError(
            f"learned widths: they start with at most {MAX_START} bits, found {fmt}; give the {what} fewer"
        )


# -- gradients -----------------------------------------------------------------------------------------------


def _rounded(x: torch.Tensor, bits: torch.Tensor, rounding: str) -> torch.Tensor:
    """``round(x * 2**bits) * 2**-bits``; never more significant bits than ``x`` has."""
    return round_(x * power_of_two(bits, x.dtype), rounding).mul_(power_of_two(-bits, x.dtype))


class _RoundToFraction(torch.autograd.Function):
    """``y = round(x * 2**f) * 2**-f``: ``dy/dx = 1``, ``dy/df = ln2 * (x - y)`` (docs/widths.md)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, shift: torch.Tensor, bits: torch.Tensor, rounding: str
    ) -> torch.Tensor:
        y = _rounded(x, bits, rounding)
        ctx.save_for_backward(x, y)
        ctx.group = shift.shape
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1]
        shift = ((x - y) * grad).sum_to_size(ctx.group) * (LN2 * BITS_PER_UNIT) if wanted else None
        return (grad if ctx.needs_input_grad[0] else None), shift, None, None


class _EnclosedBits(torch.autograd.Function):
    """Bits of codes without zeros at either end; derivative 1 with respect to ``f`` where they are not 0."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, shift: torch.Tensor, bits: torch.Tensor, rounding: str
    ) -> torch.Tensor:
        y = _rounded(x, bits, rounding).float()
        alive = y != 0
        # The bits between the highest and the lowest that is set are the significant bits of a float.
        significand = (y.view(torch.int32) & 0x7FFFFF) | 0x800000
        lowest = (significand & -significand).float().view(torch.int32) >> 23
        ctx.save_for_backward(alive)
        ctx.group = shift.shape
        return ((24 + 127 - lowest) * alive).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        (alive,) = ctx.saved_tensors
        return None, (grad * alive).sum_to_size(ctx.group) * BITS_PER_UNIT, None, None


class _CastToWidth(torch.autograd.Function):
    """A saturating cast: ``dy/dx = 1`` and ``dy/df = ln2 * (x - y)`` inside the range, ``dy/di = ln2 * y``
    outside."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, shift: torch.Tensor, reach_shift: torch.Tensor, fmt: FixedPoint
    ) -> torch.Tensor:
        assert isinstance(fmt.frac, int)
        y = cast(x, 2.0**fmt.frac, fmt)
        ctx.fmt = fmt
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, y = ctx.saved_tensors
        step = 2.0**-ctx.fmt.frac
        low, high = (end * step for end in ctx.fmt.pass_range)
        grad_x = torch.ops.aten.hardtanh_backward(grad, x, low, high)
        inside = torch.sum(grad_x * y)
        shift = reach = None
        if ctx.needs_input_grad[1]:
            shift = (torch.sum(grad_x * x) - inside) * (LN2 * BITS_PER_UNIT)
        if ctx.needs_input_grad[2]:
            reach = (torch.sum(grad * y) - inside) * (LN2 * BITS_PER_UNIT)
        return (grad_x if ctx.needs_input_grad[0] else None), shift, reach, None
