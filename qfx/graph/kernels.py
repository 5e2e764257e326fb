"""The operators of :mod:`qfx.graph.functions` and :mod:`qfx.graph.arrays` in floating point, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from qfx.graph import arrays, functions
from qfx.graph.ops import Op, to_frac
from qfx.graph.tensor import Tensor

Kernel = Callable[..., torch.Tensor]


def array_kernel(op: Op, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel | None:
    """How the interpreter computes a node on codes in ``dtype``, which holds every integer on the way; batch
    first. ``None`` for operators that are not of these two modules."""
    make = _KERNELS.get(type(op))
    return None if make is None else make(op, operands, dtype)


def _per_channel(shifts: np.ndarray, rank: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Powers of two that multiply codes along the channel axis; ``None`` when all are 1."""
    if not shifts.any():
        return None
    factors = torch.tensor([2.0 ** int(s) for s in shifts], dtype=dtype)
    return factors.reshape(1, -1, *(1,) * (rank - 1))


def _up(codes: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    return codes if factors is None else codes * factors


def _table(op: functions.Table, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    (x,) = operands
    rise = _per_channel(to_frac(x, op.frac), len(x.shape), dtype)
    entries = torch.from_numpy(op.table.astype(np.float64)).to(dtype)
    if op.inputs is None:
        first = op.first
        return lambda c: entries[(_up(c, rise) - first).long()]
    inputs = torch.from_numpy(op.inputs.astype(np.float64)).to(dtype)
    return lambda c: entries[torch.searchsorted(inputs, _up(c, rise).contiguous())]


def polynomial_sum(
    offset: torch.Tensor, shift: int, coefficients: torch.Tensor, factors: Sequence[float]
) -> torch.Tensor:
    """``sum_k coefficients[segment, k] * t**k * factors[k]`` for whole numbers ``offset`` in the dtype of the
    coefficients: ``t`` their low ``shift`` bits, ``segment`` the others."""
    segment = torch.floor(offset * 2.0**-shift)
    t = offset - segment * 2.0**shift
    index = segment.long()
    total = coefficients[:, 0][index] * factors[0]
    power = t
    for degree in range(1, coefficients.shape[1]):
        total = total + coefficients[:, degree][index] * power * factors[degree]
        power = power * t
    return total


def _piecewise(op: functions.Piecewise, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    (x,) = operands
    rise = _per_channel(to_frac(x, op.frac), len(x.shape), dtype)
    coefficients = torch.from_numpy(op.coefficients.astype(np.float64)).to(dtype)
    factors = [2.0 ** (op.top - f) for f in op.fracs]
    first, shift, finish = op.first, op.shift, polynomial_cast(op)
    return lambda c: finish(polynomial_sum(_up(c, rise) - first, shift, coefficients, factors))


def polynomial_cast(op: functions.Piecewise) -> Callable[[torch.Tensor], torch.Tensor]:
    """The cast behind the sum: whole numbers in, integers of the format out."""
    fmt, points = op.format, (op.top,)
    unit = 2.0 ** (fmt.units(points)[0] - op.top)
    back = 2.0 ** (fmt.max_frac - fmt.units(points)[0])
    return lambda total: fmt.round_scaled(total * unit) * back


def _inverse_root(op: functions.InverseRoot, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    (x,) = operands
    top = max(x.fracs)
    rise = _per_channel(to_frac(x, top), len(x.shape), dtype)
    evaluate = InverseRootKernel(op.root, op.bits, op.shift, op.coefficients, op.guard, dtype)
    offset, least = float(op.offset), float(op.least)
    _, largest = op.exponents(x)
    return lambda c: evaluate((_up(c, rise) + offset).clamp_(min=least), top, largest)


class InverseRootKernel:
    """``inverse_root`` on whole numbers at least 1 in a floating dtype."""

    def __init__(
        self, root: int, bits: int, shift: int, coefficients: np.ndarray, guard: int, dtype: torch.dtype
    ) -> None:
        self._root, self._bits, self._shift = root, bits, shift
        self._coefficients = torch.from_numpy(coefficients.astype(np.float64)).to(dtype)
        self._guard = 2.0**-guard
        # Powers from -63 to 63: torch.ldexp takes pow, which nobody promises to be exact.
        self._powers = torch.tensor([2.0**e for e in range(-63, 64)], dtype=dtype)

    def __call__(self, codes: torch.Tensor, point: int, largest: int) -> torch.Tensor:
        """The result codes for operand codes with the binary point ``point`` and no exponent (see
        ``InverseRoot.exponents``) beyond ``largest``."""
        coefficients, powers = (t.to(codes.device) for t in (self._coefficients, self._powers))
        exponent = torch.frexp(codes).exponent.long() - 1
        exponent = exponent - torch.remainder(exponent - point, self._root)
        mantissa = torch.floor(codes * powers[63 - exponent] * 2.0**self._bits)
        total = polynomial_sum(mantissa - 2.0**self._bits, self._shift, coefficients, (1.0, 1.0))
        steps = torch.div(largest - exponent, self._root, rounding_mode="floor")
        return torch.floor(total * self._guard) * powers[63 + steps]


def _reduce(
    op: arrays.ReduceSum | arrays.ReduceMax, operands: Sequence[Tensor], dtype: torch.dtype
) -> Kernel:
    (x,) = operands
    rise, axes = _per_channel(op.shifted(x), len(x.shape), dtype), op.batched
    if isinstance(op, arrays.ReduceSum):
        return lambda c: _up(c, rise).sum(dim=axes, keepdim=True)
    return lambda c: _up(c, rise).amax(dim=axes, keepdim=True)


def repeated(x: torch.Tensor, times: Sequence[int]) -> torch.Tensor:
    """``repeat`` of docs/graph.md on a batch; a view where only axes of size 1 grow."""
    for axis, count in enumerate(times, start=1):
        if count == 1:
            continue
        if x.shape[axis] == 1:
            x = x.expand(*x.shape[:axis], count, *x.shape[axis + 1 :])
        else:
            x = x.repeat_interleave(count, dim=axis)
    return x


def with_zeros(x: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """``insert_zeros`` of docs/graph.md on a batch."""
    space = [(n - 1) * f + 1 for n, f in zip(x.shape[2:], factors, strict=True)]
    out = x.new_zeros((*x.shape[:2], *space))
    out[(slice(None), slice(None), *(slice(None, None, f) for f in factors))] = x
    return out


def _slice(op: arrays.Slice, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    place = (slice(None), *op.slices)
    return lambda c: c[place]


def _matmul(op: arrays.MatMul, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    rise = _per_channel(op.rise(operands), len(operands[1].shape), dtype)
    return lambda a, b: torch.matmul(a, _up(b, rise))


def _gather(op: arrays.Gather, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    rows = torch.from_numpy(op.table.astype(np.float64)).to(dtype)
    last = len(rows) - 1
    return lambda c: rows[c.long().clamp_(0, last)]


_KERNELS: dict[type[Op], Callable[[Any, Sequence[Tensor], torch.dtype], Kernel]] = {
    functions.Table: _table,
    functions.Piecewise: _piecewise,
    functions.InverseRoot: _inverse_root,
    arrays.ReduceSum: _reduce,
    arrays.ReduceMax: _reduce,
    arrays.Repeat: lambda op, operands, dtype: lambda c: repeated(c, op.times),
    arrays.Slice: _slice,
    arrays.InsertZeros: lambda op, operands, dtype: lambda c: with_zeros(c, op.factors),
    arrays.MatMul: _matmul,
    arrays.Gather: _gather,
}
