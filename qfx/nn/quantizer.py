"""The trainable quantizer: a cast whose binary point is a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound
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


class Quantizer(QuantModule):
    """Casts a tensor to a fixed-point format whose binary point is learned, or frozen.

    The binary point is ``round(start + 8 * shift)``: ``start`` (a buffer) is where calibration put it,
    ``shift`` (a parameter, 0 at first) is what training adds. Weight decay thus pulls towards the calibrated
    position. The gradient is derived in docs/learning.md; it is normalised by the size of the tensor and the
    range of the format, so that binary points and weights move at comparable relative speed under SGD.

    Args:
        fmt: width, signedness and modes. An explicit ``frac`` freezes the quantizer there; ``None`` means
            calibrated, then learned.
        channels: number of binary points; 1 for the whole tensor.
        axis: the channel axis of the tensors that are cast: 0 for weights, 1 for tensors with a batch axis.

    Raises:
        QfxError: per-channel ``frac`` of another length, or a forward pass before calibration.

    Sources: S. Jain et al., "Trained Quantization Thresholds", arXiv:1903.08066; S. Esser et al., "Learned
    Step Size Quantization", arXiv:1902.08153; D. Zhang et al., "QFX: Trainable Fixed-Point Quantization",
    arXiv:2401.17544.
    """

    start: torch.Tensor

    def __init__(self, fmt: FixedPoint, channels: int = 1, axis: int = 0) -> None:
        super().__init__()
        frac = fmt.frac
        if isinstance(frac, tuple):
            if channels not in (1, len(frac)):
                raise QfxError(f"{fmt}: {len(frac)} binary points for {channels} channels")
            channels = len(frac)
        self.fmt = fmt.with_frac(None)
        self.axis = axis
        self.channels = channels
        self.frozen = frac is not None
        #: Set by calibration: values pass uncast, and the observer sees them.
        self.bypass = False
        self.observer: Observer | None = None
        shape = () if channels == 1 else (channels,)
        # NaN stands for "not calibrated yet": it travels with the state dict and cannot be mistaken for a
        # position.
        self.register_buffer("start", torch.full(shape, math.nan))
        self.shift = torch.nn.Parameter(torch.zeros(shape), requires_grad=not self.frozen)
        if frac is not None:
            numbers = torch.as_tensor(frac, dtype=torch.float32).reshape(-1)
            self.start.copy_(numbers.expand(channels).reshape(shape))

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

    def _rounded(self, point: float) -> int:
        if not math.isfinite(point):
            raise QfxError(
                f"{self.fmt}: the learned binary point is {point}: training has diverged; lower the learning "
                "rate, or "
                f"give binary points one of their own (qfx.parameter_groups)"
            )
        return round(point) if self.frozen else max(-LEARNED_RANGE, min(LEARNED_RANGE, round(point)))

    @property
    def format(self) -> FixedPoint:
        """The format of the forward pass, binary point included."""
        return self.fmt.with_frac(self._frac())

    @torch.no_grad()
    def set(self, frac: int | Sequence[int]) -> None:
        """Put the binary point somewhere and start learning from there."""
        self.start.copy_(torch.as_tensor(frac, dtype=self.start.dtype).expand_as(self.start))
        self.shift.zero_()

    def freeze(self, frac: int | Sequence[int] | None = None) -> Quantizer:
        """Stop learning: at ``frac``, or where the binary point is now. Returns the quantizer."""
        if frac is None:
            frac = self._frac()
        self.set(frac)
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
        levels = float(max(1, self.fmt.code_max))
        rate = 1.0 / (
            LN2 * LN2 * BITS_PER_UNIT * math.sqrt(elements) * levels * max(1.0, levels / WIDE_LEVELS)
        )
        frac = self._frac()
        if isinstance(frac, int):
            start = self.start.item()
            return rate * 4.0**start * 2.0 ** max(0.0, frac - start)
        above = (torch.tensor(frac, device=self.start.device) - self.start).clamp(min=0.0)
        return rate * torch.exp2(2.0 * self.start + above)

    # -- the cast --------------------------------------------------------------------------------------------

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if self.bypass:
            if self.observer is not None:
                self.observer.see(x.detach(), self.axis)
            return x
        if exact is not None:
            x = x.to(exact.dtype)
        frac = self._frac()
        if self.frozen and _far(frac):
            return self._cast(x.double(), frac).to(x.dtype if exact is None else torch.float64)
        return self._cast(x, frac)

    def _cast(self, x: torch.Tensor, frac: int | tuple[int, ...]) -> torch.Tensor:
        scale = self.scale(frac, x.dtype, x.ndim)
        learned = self.shift.requires_grad
        if not torch.is_grad_enabled() or not (learned or x.requires_grad):
            return cast(x.detach(), scale, self.fmt)
        elements = x.numel() / self.channels
        if self.axis == 1:
            elements /= max(1, x.shape[0])
        return FakeQuantize.apply(x, self.shift, scale, self.fmt, self.gain(elements) if learned else 0.0)

    def encode(self, x: torch.Tensor) -> np.ndarray:
        """The codes of a constant, int64."""
        return self.format.encode(x.detach().double().cpu().numpy(), axis=self.axis)

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """The values that a constant is cast to, exact: float64 where float32 could not hold them."""
        return self(x, Exact(torch.float64 if self.fmt.width > 24 or _far(self._frac()) else x.dtype))

    # -- as an operator --------------------------------------------------------------------------------------

    def bound(self, *operands: Bound) -> Bound:
        return Bound.of_format(operands[0].shape, self.format)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Cast(self.format), inputs, path)

    def extra_repr(self) -> str:
        where = "frozen" if self.frozen else "learned"
        return f"{self.fmt.with_frac(self.frac)}, {where}" + (
            f", {self.channels} channels" if self.channels > 1 else ""
        )


class InputQuantizer(Quantizer):
    """The quantizer of the network's input: it takes real numbers that are on no grid yet."""

    def __init__(self, fmt: FixedPoint, shape: tuple[int, ...], channels: int = 1) -> None:
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
        careless = self.fmt.overflow in ("SAT", "SAT_SYM", "SAT_ZERO") and self.fmt.width <= 24
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


def _far(frac: int | tuple[int, ...]) -> bool:
    """Whether values leave the exponent range of float32; frozen formats may."""
    return abs(frac) > LEARNED_RANGE if isinstance(frac, int) else max(map(abs, frac)) > LEARNED_RANGE
