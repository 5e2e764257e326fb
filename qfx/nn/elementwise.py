"""Activations, element-wise arithmetic and concatenation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound
from qfx.nn.module import Exact, QuantModule, to


class QuantReLU(QuantModule):
    """``relu`` of docs/graph.md."""

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return torch.relu(to(x, exact))

    def bound(self, *operands: Bound) -> Bound:
        return operands[0]

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Relu(), inputs, path)


class QuantLeakyReLU(QuantModule):
    """``leaky_relu`` of docs/graph.md. The slope is rounded to 8 significant bits, in training too.

    Args:
        slope: the slope below zero.
    """

    grows: ClassVar[bool] = True

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope_code, self.slope_frac = dyadic(slope, 8)

    @property
    def slope(self) -> float:
        """The slope that is computed with."""
        return self.slope_code * 2.0**-self.slope_frac

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return torch.nn.functional.leaky_relu(to(x, exact), self.slope)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        return Bound(
            x.shape, x.fracs + self.slope_frac, x.magnitude * max(2.0**self.slope_frac, abs(self.slope_code))
        )

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.LeakyRelu(self.slope_code, self.slope_frac), inputs, path)


class QuantClip(QuantModule):
    """``clip`` of docs/graph.md: ReLU6, Hardtanh, clamp. Bounds are rounded to 16 significant bits, in
    training too.

    Where the channels of a network were scaled (:func:`qfx.ptq.fill_ranges`), a clip at 0 and above has one
    upper bound per channel.

    Args:
        low, high: bounds; ``None`` for no bound.
    """

    grows: ClassVar[bool] = True
    #: Upper bounds per channel, float32 ``(channels,)``; ``None`` for one bound.
    highs: torch.Tensor | None

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.register_buffer("highs", None)
        codes = [None if b is None else dyadic(b, 16) for b in (low, high)]
        self.bound_frac = max(c[1] for c in codes if c is not None)
        self.low, self.high = (None if c is None else c[0] << (self.bound_frac - c[1]) for c in codes)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        low, high = (None if b is None else b * 2.0**-self.bound_frac for b in (self.low, self.high))
        if self.highs is not None:
            highs = to(self.highs, exact).reshape(-1, *(1,) * (x.ndim - 2))
            return torch.minimum(torch.relu(to(x, exact)), highs)
        return torch.clamp(to(x, exact), low, high)

    @property
    def channel_bounds(self) -> np.ndarray | None:
        """Upper bounds as they are computed with, float64: ``(channels,)``, or ``(1,)`` where all have the
        same; ``None`` without an upper bound."""
        if self.highs is not None:
            return self.highs.detach().double().cpu().numpy()
        return None if self.high is None else np.array([self.high * 2.0**-self.bound_frac])

    def scale_channels(self, factors: torch.Tensor) -> None:
        """Multiply the upper bound of every channel.

        Args:
            factors: float64 ``(channels,)``, positive.

        Raises:
            QfxError: the clip is not one at 0 and above.
        """
        before = self.channel_bounds
        if self.low != 0 or before is None:
            raise QfxError("a clip can only be scaled by channels when it is one at 0 and above, as ReLU6 is")
        codes = [dyadic(float(b), 16) for b in before * factors.double().cpu().numpy()]
        values = [code * 2.0**-frac for code, frac in codes]
        self.highs = torch.tensor(values, dtype=torch.float32, device=factors.device)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        if self.highs is not None:
            codes, frac = self._high_codes()
            fracs = np.maximum(x.fracs, frac)
            return Bound(
                x.shape, fracs, np.minimum(x.scaled(fracs), np.ldexp(codes.astype(float), fracs - frac))
            )
        fracs = np.maximum(x.fracs, self.bound_frac)
        largest = max(abs(b) for b in (self.low, self.high) if b is not None)
        limit = np.ldexp(float(largest), fracs - self.bound_frac)
        inside = self.low is not None and self.high is not None and self.low <= 0 <= self.high
        combine = np.minimum if inside else np.maximum
        return Bound(x.shape, fracs, combine(x.scaled(fracs), limit))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        if self.highs is None:
            return builder.add(ops.Clip(self.low, self.high, self.bound_frac), inputs, path)
        if bool((self.highs == self.highs[0]).all()):
            return builder.add(ops.Clip(0, *dyadic(float(self.highs[0]), 24)), inputs, path)
        # min(relu(x), high) is high - relu(high - relu(x)).
        codes, frac = self._high_codes()
        minus, offset = np.array([-1]), FixedPoint(int(codes.max()).bit_length() + 1, frac)
        node = builder.add(ops.Relu(), inputs, path)
        for last in (False, True):
            node = builder.add(ops.Affine(minus, FixedPoint(2, 0), codes, offset), (node,), path)
            if not last:
                node = builder.add(ops.Relu(), (node,), path)
        return node

    def _high_codes(self) -> tuple[np.ndarray, int]:
        """Upper bounds per channel as integers, and their common binary point."""
        assert self.highs is not None
        pairs = [dyadic(float(b), 24) for b in self.highs.tolist()]
        frac = max(f for _, f in pairs)
        return np.array([code << (frac - f) for code, f in pairs], dtype=np.int64), frac

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # A model that was only prepared has one bound; the one that was saved may have one per channel.
        saved = state_dict.get(f"{prefix}highs")
        self.highs = None if saved is None else torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class QuantBinary(QuantModule):
    """``add``, ``sub`` and ``mul`` of docs/graph.md.

    Args:
        kind: ``"add"``, ``"sub"`` or ``"mul"``.
    """

    grows: ClassVar[bool] = True

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, a: torch.Tensor, b: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        a, b = to(a, exact), to(b, exact)
        if self.kind == "mul":
            return a * b
        return a + b if self.kind == "add" else a - b

    def bound(self, *operands: Bound) -> Bound:
        a, b = operands
        if self.kind == "mul":
            return Bound(a.shape, a.fracs + b.fracs, a.magnitude * b.magnitude)
        fracs = np.maximum(a.fracs, b.fracs)
        return Bound(a.shape, fracs, a.scaled(fracs) + b.scaled(fracs))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add({"add": ops.Add, "sub": ops.Sub, "mul": ops.Mul}[self.kind](), inputs, path)

    def extra_repr(self) -> str:
        return self.kind


class QuantConcat(QuantModule):
    """``concat`` of docs/graph.md: joins along the channel axis."""

    grows: ClassVar[bool] = True

    def forward(self, *operands: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:
        return torch.cat([to(x, exact) for x in operands], dim=1)

    def bound(self, *operands: Bound) -> Bound:
        frac = max(int(x.fracs.max()) for x in operands)
        fracs = [np.full(x.shape[0], frac) for x in operands]
        magnitude = np.concatenate([x.scaled(f) for x, f in zip(operands, fracs, strict=True)])
        return Bound((len(magnitude), *operands[0].shape[1:]), np.concatenate(fracs), magnitude)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Concat(), inputs, path)


def dyadic(value: float, bits: int) -> tuple[int, int]:
    """``(code, frac)`` with ``code * 2**-frac`` nearest to ``value``, ``code`` of at most ``bits``
    significant bits, ``frac >= 0`` the smallest.

    Raises:
        QfxError: ``value`` is not finite, or too small or too large.
    """
    if not np.isfinite(value):
        raise QfxError(f"the constant {value} cannot be written in fixed point; give a finite number")
    if value == 0.0:
        return 0, 0
    _, exponent = np.frexp(value)
    frac = max(0, bits - int(exponent))
    code = round(value * 2.0**frac)
    if abs(code) >= 1 << 30 or frac > 60:
        raise QfxError(f"the constant {value} is out of range for a fixed-point constant (2**-44 to 2**30)")
    while frac > 0 and code % 2 == 0:
        code, frac = code // 2, frac - 1
    return code, frac
