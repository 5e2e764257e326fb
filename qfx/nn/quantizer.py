"""The trainable quantizer: a cast whose binary point is a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn import device, fused
from qfx.nn.bound import Bound
from qfx.nn.constant import Constant, constant, significant_bits
from qfx.nn.estimators import RANDOM, Estimate, check_estimator
from qfx.nn.functional import LN2, FakeQuantize, cast
from qfx.nn.module import Exact, QuantModule
from qfx.nn.observer import Observer

#: Fraction bits per unit of the parameter. Adam moves a parameter by about its learning rate per step,
#: whatever the size of the gradient; with this factor a learning rate of 0.001 moves a binary point by one
#: bit in about a hundred steps.
BITS_PER_UNIT = 8.0
#: Up to this many levels the gradient is that of narrow formats, where rounding matters; beyond, it is scaled
#: so that a clipped number does not outweigh everything else.
WIDE_LEVELS = 16.0
#: Learned binary points stay in this range: 2**-frac and its neighbours are then normal float32 numbers.
LEARNED_RANGE = 96
#: Numbers with more bits than this, counted from the finest grid of their format, leave the exponent range of
#: float32 somewhere: float64 computes them.
FLOAT32_SPAN = 100


class Quantizer(QuantModule):
    """Casts a tensor to a number format whose binary point is learned, or frozen.

    The binary point is ``round(start + 8 * shift)``: ``start`` (a buffer) is where calibration put it,
    ``shift`` (a parameter, 0 at first) is what training adds. Weight decay thus pulls towards the calibrated
    position. The gradient is derived in docs/learning.md; it is normalised by the size of the tensor and the
    range of the format, so that binary points and weights move at comparable relative speed under SGD.

    Block formats take their scale from the data: there is nothing to calibrate or to learn, ``shift`` is
    never trained, and the position is 0.

    Args:
        fmt: family, width, signedness and modes. An explicit ``frac`` (a minifloat's ``bias``) freezes the
            quantizer there; one left open is calibrated, then learned.
        channels: number of binary points; 1 for the whole tensor.
        axis: the channel axis of the tensors that are cast: 0 for weights, 1 for tensors with a batch axis.
        estimator: what training computes, and its gradient: one of :data:`qfx.nn.ESTIMATORS`
            (docs/estimators.md).

    Raises:
        QfxError: per-channel ``frac`` of another length, or a forward pass before calibration.

    Sources: S. Jain et al., "Trained Quantization Thresholds", arXiv:1903.08066; S. Esser et al., "Learned
    Step Size Quantization", arXiv:1902.08153; D. Zhang et al., "QFX: Trainable Fixed-Point Quantization",
    arXiv:2401.17544.
    """

    start: torch.Tensor
    #: Root mean square of what calibration saw; formats with gaps only. NaN: not known.
    rms: torch.Tensor

    def __init__(self, fmt: Format, channels: int = 1, axis: int = 0, estimator: str = "clipped") -> None:
        super().__init__()
        self.estimator = check_estimator("Quantizer: estimator", estimator)
        frac: int | tuple[int, ...] | None = 0
        if fmt.has_point:
            frac = None if fmt.learned else fmt._frac()
        else:
            channels = 1
        if isinstance(frac, tuple):
            if channels not in (1, len(frac)):
                raise QfxError(f"{fmt}: {len(frac)} binary points for {channels} channels")
            channels = len(frac)
        self.fmt: Format = fmt.with_frac(None) if fmt.has_point else fmt
        self.axis = axis
        self.channels = channels
        self.frozen = frac is not None
        #: Whether some integers in the range are no numbers of the format.
        self.gaps = fmt.has_point and math.isfinite(fmt.dense_below)
        bits = fmt.integer_max.bit_length() if fmt.has_point else 0
        self._wide = bits > FLOAT32_SPAN
        # Subclasses that compute something else do all of it themselves.
        self._plain = type(self)._cast is Quantizer._cast
        # Whether a frozen binary point was put where float32 cannot scale numbers.
        self._put_far = False
        #: A learned binary point goes as far as this.
        self.learned_range = (-LEARNED_RANGE, max(LEARNED_RANGE, bits + 34))
        #: What the compiled operators need to know; ``None`` for formats that torch operators cast to.
        self.fused_arguments = fused.arguments(self.fmt, axis, self.learned_range) if self._plain else None
        #: Set by calibration: values pass uncast, and the observer sees them.
        self.bypass = False
        self.observer: Observer | None = None
        shape = () if channels == 1 else (channels,)
        # NaN stands for "not calibrated yet": it travels with the state dict and cannot be mistaken for a
        # position.
        self.register_buffer("start", torch.full(shape, math.nan))
        if self.gaps:
            self.register_buffer("rms", torch.full(shape, math.nan))
        self.shift = torch.nn.Parameter(torch.zeros(shape), requires_grad=not self.frozen)
        if frac is not None:
            numbers = torch.as_tensor(frac, dtype=torch.float32).reshape(-1)
            self.start.copy_(numbers.expand(channels).reshape(shape))
            self._put_far = self._far(frac)

    # -- the binary point ------------------------------------------------------------------------------------

    @property
    def calibrated(self) -> bool:
        """Whether there is a binary point to cast to."""
        return not bool(torch.isnan(self.start).any())

    @property
    def point(self) -> torch.Tensor:
        """The learned binary point before rounding, float64, shape ``()`` or ``(channels,)``."""
        return (self.start.double() + BITS_PER_UNIT * self.shift.double()).detach()

    @property
    def frac(self) -> int | tuple[int, ...] | None:
        """The binary point of the forward pass: an integer, one per channel; ``None`` before calibration."""
        if self.channels == 1:
            # Twice item() is several times faster than one tensor operation, and this runs in every cast.
            start = self.start.item()
            return None if math.isnan(start) else self._rounded(start + BITS_PER_UNIT * self.shift.item())
        starts, shifts = self.start.tolist(), self.shift.tolist()
        if any(math.isnan(start) for start in starts):
            return None
        return tuple(self._rounded(a + BITS_PER_UNIT * b) for a, b in zip(starts, shifts, strict=True))

    @property
    def integer_bits(self) -> int | None:
        """Bits in front of the binary point that the largest number takes, sign apart; in a format with gaps,
        whose range may go far beyond the data, that the numbers take which calibration saw. ``None`` when the
        range depends on the data."""
        if not self.fmt.has_point:
            return None
        fracs = np.atleast_1d(np.asarray(self._frac()))
        bits = self.fmt.integer_max.bit_length() - int(fracs.min())
        if self.gaps and bool(torch.isfinite(self.rms).any()):
            seen = float(self.rms[torch.isfinite(self.rms)].max())
            bits = min(bits, math.ceil(math.log2(3.0 * seen)) + 1)
        return bits

    def _rounded(self, point: float) -> int:
        if not math.isfinite(point):
            raise QfxError(
                f"{self.fmt}: the learned binary point is {point}: training has diverged; lower the learning "
                "rate, or "
                f"give binary points one of their own (qfx.parameter_groups)"
            )
        low, high = self.learned_range
        return round(point) if self.frozen else max(low, min(high, round(point)))

    @property
    def format(self) -> Any:
        """The :class:`qfx.formats.Format` of the forward pass, binary point included."""
        return self.fmt.with_frac(self._frac()) if self.fmt.has_point else self.fmt

    @torch.no_grad()
    def set(self, frac: int | Sequence[int], rms: float | Sequence[float] | None = None) -> None:
        """Put the binary point somewhere and start learning from there.

        Args:
            frac: one position, or one per channel.
            rms: root mean square of the numbers that will be cast, likewise, where it is known; it sets the
                size of the gradient in formats with gaps.
        """
        self.start.copy_(torch.as_tensor(frac, dtype=self.start.dtype).expand_as(self.start))
        self.shift.zero_()
        self._put_far = bool(np.abs(np.asarray(frac)).max() > LEARNED_RANGE)
        self.saw(math.nan if rms is None else rms)

    @torch.no_grad()
    def saw(self, rms: float | Sequence[float]) -> None:
        """Tell a format with gaps how large its numbers are, one root mean square or one per channel."""
        if self.gaps:
            known = torch.as_tensor(rms, dtype=self.rms.dtype).reshape(-1)
            self.rms.copy_(known.expand(self.channels).reshape(self.rms.shape))

    def freeze(self, frac: int | Sequence[int] | None = None) -> Quantizer:
        """Stop learning: at ``frac``, or where the binary point is now. Returns the quantizer."""
        if frac is None:
            frac = self._frac()
        self.set(frac, self.rms.tolist() if self.gaps else None)
        self.frozen = True
        self.shift.requires_grad_(False)
        self.shift.grad = None
        return self

    def _frac(self) -> int | tuple[int, ...]:
        frac = self.frac
        if frac is None:
            raise QfxError(
                f"{self.fmt}: the binary point is not set; call qfx.calibrate(q, batches) before training, "
                "or give frac="
            )
        return frac

    def scale(self, frac: int | tuple[int, ...], dtype: torch.dtype, ndim: int) -> float | torch.Tensor:
        """``2**frac``: a number, or a tensor that broadcasts along the channel axis."""
        if isinstance(frac, int):
            return 2.0**frac
        shape = [1] * ndim
        shape[self.axis] = self.channels
        numbers = torch.from_numpy(np.ldexp(1.0, np.asarray(frac)))
        return numbers.to(device=self.start.device, dtype=dtype).reshape(shape)

    def gain(self, elements: float) -> float | torch.Tensor:
        """Normalisation of the gradient for a tensor of ``elements`` numbers per binary point
        (docs/learning.md).

        It takes the step size of the calibrated position, so that it does not grow with every move. Above
        that position the gradient of clipped numbers shrinks with the step; there the factor makes up for it,
        or a point that went too far would never return.
        """
        if self.gaps:
            return self._gain_with_gaps(elements)
        levels = float(max(1, self.fmt.integer_max))
        rate = 1.0 / (
            LN2 * LN2 * BITS_PER_UNIT * math.sqrt(elements) * levels * max(1.0, levels / WIDE_LEVELS)
        )
        frac = self._frac()
        if isinstance(frac, int):
            start = self.start.item()
            return rate * 4.0**start * 2.0 ** max(0.0, frac - start)
        above = (torch.tensor(frac, device=self.start.device) - self.start).clamp(min=0.0)
        return rate * torch.exp2(2.0 * self.start + above)

    def _gain_with_gaps(self, elements: float) -> torch.Tensor:
        """The same with the largest number that occurs in place of the largest of the format."""
        top = float(self.fmt.integer_max)
        levels = max(1.0, min(top, self.fmt.dense_below, WIDE_LEVELS))
        rate = levels / (LN2 * LN2 * BITS_PER_UNIT * math.sqrt(elements))
        start = self.start.double()
        reach = torch.fmin(top * torch.exp2(-start), 3.0 * self.rms.double())
        frac = torch.as_tensor(self._frac(), dtype=torch.float64, device=start.device)
        above = (frac - torch.log2(top / reach)).clamp(min=0.0)
        return (rate * torch.exp2(above) / reach.square()).to(self.start.dtype)

    # -- the cast --------------------------------------------------------------------------------------------

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if exact is not None and exact.constants:
            return exact.constants[0]  # computed in integers already, see qfx.nn.integer
        if self.bypass:
            if self.observer is not None:
                self.observer.see(x.detach(), self.axis)
            return x
        if exact is not None:
            x = x.to(exact.dtype)
        elif (y := self._cast_in_training(x)) is not None:
            return y
        frac = self._frac()
        if (self.frozen or self._wide) and self._far(frac):
            return self._cast(x.double(), frac).to(x.dtype if exact is None else torch.float64)
        return self._cast(x, frac)

    def _cast_in_training(self, x: torch.Tensor) -> torch.Tensor | None:
        """The cast without a look at the binary point, where that is possible (docs/training.md)."""
        if device.wanted(x):
            inside = self.fmt.has_point and not self._wide and not (self.frozen and self._put_far)
            return device.cast(self, x) if inside and self._plain else None
        return fused.cast(self, x) if fused.takes(self, x) else None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.calibrated and self.fmt.has_point:
            self._put_far = bool(self.point.abs().max() > LEARNED_RANGE)

    def _far(self, frac: int | tuple[int, ...]) -> bool:
        """Whether values leave the exponent range of float32; frozen formats and wide ones may."""
        largest = abs(frac) if isinstance(frac, int) else max(map(abs, frac))
        return self._wide or largest > LEARNED_RANGE

    def _cast(self, x: torch.Tensor, frac: int | tuple[int, ...]) -> torch.Tensor:
        scale = self.scale(frac, x.dtype, x.ndim)
        learned = self.shift.requires_grad
        if not torch.is_grad_enabled() or not (learned or x.requires_grad):
            return cast(x.detach(), scale, self.fmt)
        elements = x.numel() / self.channels
        if self.axis == 1:
            elements /= max(1, x.shape[0])
        gain = self.gain(max(1.0, elements)) if learned else 0.0
        if self.estimator == "clipped" or (self.estimator in RANDOM and not self.training):
            return FakeQuantize.apply(x, self.shift, scale, self.fmt, gain)
        return Estimate.apply(x, self.shift, scale, self.fmt, gain, self.estimator)

    def encode(self, x: torch.Tensor) -> Any:
        """The codes of a constant, int64; of fixed-point formats, others see :meth:`constant`."""
        return self.format.encode(x.detach().double().cpu().numpy(), axis=self.axis)

    def constant(self, x: torch.Tensor) -> Constant:
        """A constant as the graph holds it: integers, their binary point, and the format that they obey.

        Raises:
            QfxError: its numbers span more than 62 bits.
        """
        if isinstance(self.fmt, FixedPoint):
            return Constant(self.encode(x), self.format, None)
        with torch.no_grad():
            values = self.quantized(x).double().cpu().numpy()
        return constant(values, self.format)

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """The values that a constant is cast to, exact: float64 where float32 could not hold them."""
        wide = significant_bits(self.fmt) > 24 or self._far(self._frac())
        return self(x, Exact(torch.float64 if wide else x.dtype))

    # -- as an operator --------------------------------------------------------------------------------------

    def bound(self, *operands: Bound) -> Bound:
        return operands[0].cast(self.format)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Cast(self.format), inputs, path)

    def extra_repr(self) -> str:
        where = "frozen" if self.frozen else "learned"
        if not self.fmt.has_point:
            return str(self.fmt)
        frac = self.frac
        return f"{self.fmt if frac is None else self.fmt.with_frac(frac)}, {where}" + (
            f", {self.channels} channels" if self.channels > 1 else ""
        )


class InputQuantizer(Quantizer):
    """The quantizer of the network's input: it takes real numbers that are on no grid yet."""

    def __init__(self, fmt: Format, shape: tuple[int, ...], channels: int = 1) -> None:
        if not fmt.has_point:
            raise QfxError(
                f"input: {fmt} takes its scale from the data, which real numbers cannot be cast to exactly; "
                "use another format for the input, and this one for activations"
            )
        super().__init__(fmt, channels, axis=1)
        self.shape = shape

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if exact is None or self.bypass:
            return super().forward(x.to(self.start.dtype))
        if torch.isnan(x).any():
            raise QfxError("model input: NaN has no code; remove NaNs from the data first")
        if x.dtype != torch.float32:
            x = x.double()
        fracs = np.atleast_1d(np.asarray(self._frac()))
        wraps = isinstance(self.fmt, FixedPoint) and self.fmt.overflow in ("WRAP", "WRAP_SM")
        careless = not wraps and significant_bits(self.fmt) <= 24
        if not (careless and fracs.min() >= 0 and fracs.max() <= LEARNED_RANGE):
            # Wrapping needs the bits of numbers that overflow float32 when scaled, truncation those that
            # underflow.
            x = x.double()
            tiny = 2.0 ** (-900.0 - int(fracs.min()))
            if fracs.min() < 0:
                x = torch.where((x != 0) & (x.abs() < tiny), torch.copysign(torch.full_like(x, tiny), x), x)
        return super().forward(x).to(exact.dtype)

    def bound(self, *operands: Bound) -> Bound:
        return Bound.of_format(self.shape, self.format)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Input(self.shape, self.format), (), path)
