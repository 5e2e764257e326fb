"""Operators on whole arrays: reductions, repetition, slices, products of tensors, look-ups, constants."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.graph import arrays
from qfx.graph.graph import GraphBuilder
from qfx.graph.kernels import repeated, with_zeros
from qfx.nn.bound import Bound
from qfx.nn.module import Exact, QuantModule, to
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import calibrate_constant


class QuantReduceSum(QuantModule):
    """``reduce_sum`` of docs/graph.md.

    Args:
        axes: ascending, from 0, the batch apart; they stay with size 1.
    """

    grows: ClassVar[bool] = True

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return to(x, exact).sum(dim=[a + 1 for a in self.axes], keepdim=True)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        shape = tuple(1 if a in self.axes else n for a, n in enumerate(x.shape))
        n = float(np.prod([x.shape[a] for a in self.axes if a]))
        fracs, magnitude = _over_channels(x, 0 in self.axes, np.sum)
        return Bound(shape, fracs, magnitude * n)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(arrays.ReduceSum(self.axes), inputs, path)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


class QuantReduceMax(QuantModule):
    """``reduce_max`` of docs/graph.md; arguments as :class:`QuantReduceSum`."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return to(x, exact).amax(dim=[a + 1 for a in self.axes], keepdim=True)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        shape = tuple(1 if a in self.axes else n for a, n in enumerate(x.shape))
        fracs, magnitude = _over_channels(x, 0 in self.axes, np.max)
        return Bound(shape, fracs, magnitude, _kept(x, 0 in self.axes))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(arrays.ReduceMax(self.axes), inputs, path)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


def _over_channels(x: Bound, all_channels: bool, reduce) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    if not all_channels:
        return x.fracs, x.magnitude
    fracs = np.full_like(x.fracs, x.fracs.max())
    return fracs[:1], np.asarray([reduce(x.scaled(fracs))])


def _kept(x: Bound, channels_move: bool) -> Format | None:
    """The encoding of a tensor whose elements change place."""
    e = x.encoding
    return None if e is None or not e.has_point or (channels_move and e.per_channel) else e


class QuantRepeat(QuantModule):
    """``repeat`` of docs/graph.md: upsampling, broadcasting.

    Args:
        times: per axis, the batch apart.
    """

    def __init__(self, times: tuple[int, ...]) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return repeated(to(x, exact), self.times)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        shape = tuple(n * t for n, t in zip(x.shape, self.times, strict=True))
        fracs, magnitude = (np.repeat(v, self.times[0]) for v in (x.fracs, x.magnitude))
        return Bound(shape, fracs, magnitude, _kept(x, self.times[0] > 1))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(arrays.Repeat(self.times), inputs, path)

    def extra_repr(self) -> str:
        return f"times={self.times}"


class QuantSlice(QuantModule):
    """``slice`` of docs/graph.md; arguments per axis, the batch apart."""

    def __init__(self, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]) -> None:
        super().__init__()
        self.op = arrays.Slice(starts, stops, steps)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return to(x, exact)[(slice(None), *self.op.slices)]

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        places = self.op.slices
        shape = tuple(len(range(n)[s]) for n, s in zip(x.shape, places, strict=True))
        return Bound(shape, x.fracs[places[0]], x.magnitude[places[0]], _kept(x, True))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(self.op, inputs, path)

    def extra_repr(self) -> str:
        return ", ".join(f"{s.start}:{s.stop}:{s.step}" for s in self.op.slices)


class QuantInsertZeros(QuantModule):
    """``insert_zeros`` of docs/graph.md, in front of a convolution: a transposed convolution.

    Args:
        factors: per spatial axis.
    """

    def __init__(self, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return with_zeros(to(x, exact), self.factors)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        space = ((n - 1) * f + 1 for n, f in zip(x.shape[1:], self.factors, strict=True))
        return Bound((x.shape[0], *space), x.fracs, x.magnitude)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(arrays.InsertZeros(self.factors), inputs, path)

    def extra_repr(self) -> str:
        return f"factors={self.factors}"


class QuantMatMul(QuantModule):
    """``matmul`` of docs/graph.md: two tensors of two or three axes, the batch apart."""

    grows: ClassVar[bool] = True

    def forward(self, a: torch.Tensor, b: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return torch.matmul(to(a, exact), to(b, exact))

    def bound(self, *operands: Bound) -> Bound:
        a, b = operands
        if len(a.shape) == 3:
            shape = (*a.shape[:2], b.shape[2])
            return Bound(shape, a.fracs + b.fracs, a.magnitude * b.magnitude * a.shape[2])
        top = np.full_like(b.fracs, b.fracs.max())
        return Bound((a.shape[0], b.shape[1]), a.fracs + top[0], a.magnitude * b.scaled(top).sum())

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(arrays.MatMul(), inputs, path)


class QuantEmbedding(QuantModule):
    """``gather`` of docs/graph.md: rows of a quantized, trained table.

    Args:
        weight: ``(rows, features)``.
        weight_format: of the table; one binary point.
        padding_idx: a row that gets no gradient.
    """

    def __init__(self, weight: torch.nn.Parameter, weight_format: Format, padding_idx: int | None) -> None:
        super().__init__()
        self.weight = weight
        self.padding_idx = padding_idx
        self.weight_quantizer = Quantizer(weight_format)

    def quantized(self, exact: Exact | None) -> torch.Tensor:
        """The table: the one made ready, or a new one that carries gradients."""
        if exact is not None and exact.constants:
            return exact.constants[0]
        if exact is None:
            return self.weight_quantizer(self.weight)
        return self.weight_quantizer.quantized(self.weight).to(exact.dtype)

    def constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        return (self.quantized(Exact(dtype)),)

    def check(self, path: str) -> None:
        check_finite(path, "weight", self.weight)

    @torch.no_grad()
    def calibrate_weight(self) -> None:
        """Put the binary point where the squared error is smallest."""
        calibrate_constant(self.weight_quantizer, self.weight)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        index = x.detach().long().clamp_(0, self.weight.shape[0] - 1)
        return F.embedding(index, self.quantized(exact), self.padding_idx)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        constant = self.weight_quantizer.constant(self.weight)
        n = x.shape[0]
        largest = float(np.abs(constant.codes).max())
        shape = (*x.shape, *self.weight.shape[1:])
        return Bound(shape, np.full(n, constant.format.max_frac), np.full(n, largest), constant.encoding)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        constant = self.weight_quantizer.constant(self.weight)
        op = arrays.Gather(constant.codes, constant.format, encoding=constant.encoding)
        return builder.add(op, inputs, path)


class QuantConstant(QuantModule):
    """``constant`` of docs/graph.md: the same tensor for every sample; a ``Parameter`` is trained.

    Args:
        value: of the tensor's shape, without the batch axis.
        fmt: format.
    """

    value: torch.Tensor

    def __init__(self, value: torch.Tensor, fmt: Format) -> None:
        super().__init__()
        if isinstance(value, torch.nn.Parameter):
            self.value = value
        else:
            self.register_buffer("value", value)
        self.value_quantizer = Quantizer(fmt)

    def quantized(self, exact: Exact | None) -> torch.Tensor:
        """The tensor: the one made ready, or a new one that carries gradients."""
        if exact is not None and exact.constants:
            return exact.constants[0]
        if exact is None:
            return self.value_quantizer(self.value)
        return self.value_quantizer.quantized(self.value).to(exact.dtype)

    def constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        return (self.quantized(Exact(dtype)),)

    def check(self, path: str) -> None:
        check_finite(path, "constant", self.value)

    @torch.no_grad()
    def calibrate_weight(self) -> None:
        """Put the binary point where the squared error is smallest."""
        calibrate_constant(self.value_quantizer, self.value)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        """``x`` is the network's input: only its batch size matters."""
        value = self.quantized(exact)
        return value.unsqueeze(0).expand(x.shape[0], *value.shape)

    def bound(self, *operands: Bound) -> Bound:
        constant = self.value_quantizer.constant(self.value)
        n = self.value.shape[0]
        rows = np.abs(constant.codes.reshape(n, -1)).max(axis=1).astype(np.float64)
        fracs = np.asarray(constant.format.fracs(n), dtype=np.int64)
        return Bound(tuple(self.value.shape), fracs, rows, constant.encoding)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        constant = self.value_quantizer.constant(self.value)
        op = arrays.Constant(constant.codes, constant.format, encoding=constant.encoding)
        return builder.add(op, (), path)


def check_finite(path: str, name: str, values: torch.Tensor) -> None:
    """Refuse parameters that have no codes.

    Raises:
        QfxError: NaN or infinity.
    """
    if not torch.isfinite(values).all():
        raise QfxError(
            f"{path}: the {name} holds NaN or infinity, which has no code; load a good state dict, or retrain"
        )
