"""Operators on whole arrays: constants, reductions, repetition, slices, products of tensors, look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph.ops import Op, check_codes, check_members, to_frac
from qfx.graph.tensor import Shape, Tensor, exact_tensor, integers, one_or_many

#: Axes of a tensor, the batch apart.
MAX_RANK = 3


@dataclass(frozen=True, eq=False)
class Constant(Op):
    """The same codes for every sample; int64 of the tensor's shape, one binary point or one per channel."""

    kind: ClassVar[str] = "constant"
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    codes: np.ndarray
    format: FixedPoint
    encoding: Format | None = field(default=None, kw_only=True)

    def infer(self, *operands: Tensor) -> Tensor:
        check_codes("constant", self.codes, self.format)
        check_members("constant", self.codes, self.format, self.encoding)
        if not 1 <= self.codes.ndim <= MAX_RANK:
            raise QfxError(f"constant: codes of shape {self.codes.shape}; 1 to {MAX_RANK} axes are supported")
        rows = integers(self.codes.reshape(len(self.codes), -1))
        self.format.fracs(len(rows))
        return Tensor(self.codes.shape, self.format, rows.min(axis=1), rows.max(axis=1), self.encoding)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        return integers(self.codes[None])


@dataclass(frozen=True, eq=False)
class _Reduce(Op):
    """Over some axes, which keep the size 1; ``axes`` count from 0, the batch apart."""

    axes: tuple[int, ...]

    def check(self, x: Tensor) -> Shape:
        if (
            not self.axes
            or sorted(set(self.axes)) != list(self.axes)
            or not 0 <= self.axes[0] <= self.axes[-1] < len(x.shape)
        ):
            raise QfxError(f"{self.kind}: axes {self.axes} of a tensor of shape {x.shape}")
        return tuple(1 if a in self.axes else n for a, n in enumerate(x.shape))

    def shifted(self, x: Tensor) -> np.ndarray:
        """Per channel the shift to the common grid; channels that are not reduced keep their own."""
        return to_frac(x, x.format.max_frac) if 0 in self.axes else integers([0] * x.channels)

    def fracs(self, x: Tensor) -> tuple[int, ...]:
        """The binary points of the result."""
        return (x.format.max_frac,) if 0 in self.axes else x.fracs

    def up(self, x: Tensor, codes: np.ndarray) -> np.ndarray:
        """Codes on the common grid."""
        shifts = self.shifted(x).astype(codes.dtype)
        return codes << shifts.reshape(1, -1, *(1,) * (codes.ndim - 2))

    @property
    def batched(self) -> tuple[int, ...]:
        """The axes of a batch."""
        return tuple(a + 1 for a in self.axes)

    def largest(self, operands: Sequence[Tensor]) -> int:
        (x,) = operands
        n = int(np.prod([x.shape[a] for a in self.axes])) if isinstance(self, ReduceSum) else 1
        return n * x.magnitude << int(self.shifted(x).max())


@dataclass(frozen=True, eq=False)
class ReduceSum(_Reduce):
    """The exact sum over axes."""

    kind: ClassVar[str] = "reduce_sum"

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        shape = self.check(x)
        n = int(np.prod([x.shape[a] for a in self.axes if a]))
        low, high = x.low * n << self.shifted(x), x.high * n << self.shifted(x)
        if 0 in self.axes:
            low, high = integers([low.sum()]), integers([high.sum()])
        return exact_tensor(shape, one_or_many(self.fracs(x)), low, high)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(self.up(operands[0], codes[0]).sum(axis=self.batched, keepdims=True))


@dataclass(frozen=True, eq=False)
class ReduceMax(_Reduce):
    """The largest number over axes."""

    kind: ClassVar[str] = "reduce_max"

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        shape = self.check(x)
        low, high = x.low << self.shifted(x), x.high << self.shifted(x)
        if 0 in self.axes:
            low, high = integers([low.max()]), integers([high.max()])
            return exact_tensor(shape, x.format.max_frac, low, high)
        encoding = x.encoding if x.encoding is None or x.encoding.has_point else None
        return Tensor(shape, x.format, low, high, encoding)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(self.up(operands[0], codes[0]).max(axis=self.batched, keepdims=True))


@dataclass(frozen=True, eq=False)
class Repeat(Op):
    """Every element ``times[a]`` times in a row along axis ``a``: nearest-neighbour upsampling, and what
    broadcasting does to axes of size 1."""

    kind: ClassVar[str] = "repeat"
    times: tuple[int, ...]

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if len(self.times) != len(x.shape) or min(self.times) < 1:
            raise QfxError(f"repeat: times {self.times} for a tensor of shape {x.shape}")
        shape = tuple(n * t for n, t in zip(x.shape, self.times, strict=True))
        many = x.format.per_channel and self.times[0] > 1
        fracs = tuple(np.repeat(x.fracs, self.times[0]).tolist())
        fmt = x.format.with_frac(one_or_many(fracs)) if many else x.format
        low, high = (integers(np.repeat(e, self.times[0])) for e in (x.low, x.high))
        e = x.encoding
        keeps = e is not None and e.has_point and not (e.per_channel and self.times[0] > 1)
        return Tensor(shape, fmt, low, high, e if keeps else None)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        (c,) = codes
        for axis, times in enumerate(self.times, start=1):
            c = np.repeat(c, times, axis=axis)
        return c


@dataclass(frozen=True, eq=False)
class Slice(Op):
    """``x[start:stop:step]`` along every axis; all written out, none negative."""

    kind: ClassVar[str] = "slice"
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """As numpy and torch take them, the batch apart."""
        return tuple(slice(*s) for s in zip(self.starts, self.stops, self.steps, strict=True))

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if not len(self.starts) == len(self.stops) == len(self.steps) == len(x.shape) or any(
            not 0 <= a < b <= n or s < 1
            for a, b, s, n in zip(self.starts, self.stops, self.steps, x.shape, strict=True)
        ):
            raise QfxError(
                f"slice: {self.starts} to {self.stops} in steps of {self.steps} of a tensor of shape "
                f"{x.shape}"
            )
        shape = tuple(len(range(*s)) for s in zip(self.starts, self.stops, self.steps, strict=True))
        channels = self.slices[0]
        fmt = x.format.with_frac(one_or_many(x.fracs[channels])) if x.format.per_channel else x.format
        e = x.encoding
        keeps = e is not None and e.has_point and not e.per_channel
        return Tensor(shape, fmt, x.low[channels], x.high[channels], e if keeps else None)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        return codes[0][(slice(None), *self.slices)]


@dataclass(frozen=True, eq=False)
class InsertZeros(Op):
    """``factors[a] - 1`` zeros between neighbours along spatial axis ``a``: with a ``conv`` behind it, a
    transposed convolution."""

    kind: ClassVar[str] = "insert_zeros"
    factors: tuple[int, ...]

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if len(self.factors) != len(x.shape) - 1 or not self.factors or min(self.factors) < 1:
            raise QfxError(f"insert_zeros: factors {self.factors} for a tensor of shape {x.shape}")
        space = ((n - 1) * f + 1 for n, f in zip(x.shape[1:], self.factors, strict=True))
        result = exact_tensor(
            (x.channels, *space), x.fracs, integers(np.minimum(x.low, 0)), integers(np.maximum(x.high, 0))
        )
        e = x.encoding
        keeps = e is not None and e.has_point and bool(e.members(integers([0]).reshape(1, 1)).all())
        return replace(result, encoding=e if keeps else None)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        (c,) = codes
        space = [(n - 1) * f + 1 for n, f in zip(c.shape[2:], self.factors, strict=True)]
        out = np.zeros((*c.shape[:2], *space), dtype=c.dtype)
        out[(slice(None), slice(None), *(slice(None, None, f) for f in self.factors))] = c
        return out


@dataclass(frozen=True, eq=False)
class MatMul(Op):
    """``(..., n, k)`` times ``(..., k, m)``; with three axes, one product for every index of axis 0."""

    kind: ClassVar[str] = "matmul"
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, *operands: Tensor) -> Tensor:
        a, b = operands
        if (
            len(a.shape) != len(b.shape)
            or len(a.shape) not in (2, 3)
            or a.shape[-1] != b.shape[-2]
            or a.shape[:-2] != b.shape[:-2]
        ):
            raise QfxError(
                f"matmul: operands of shapes {a.shape} and {b.shape}; expected (n, k) and (k, m), or (batch, "
                "n, k) and (batch, k, m)"
            )
        k = a.shape[-1]
        if len(a.shape) == 3:
            low, high = _corners((a.low, a.high), (b.low, b.high))
            fracs = tuple(p + q for p, q in zip(a.fracs, b.fracs, strict=True))
            return exact_tensor((*a.shape[:2], b.shape[2]), fracs, low * k, high * k)
        # Axis 0 of the second operand is summed over: its channels meet on one grid.
        top = b.format.max_frac
        rise = to_frac(b, top)
        ends = [
            _corners((lo, hi), (b.low << rise, b.high << rise)) for lo, hi in zip(a.low, a.high, strict=True)
        ]
        low, high = (integers([e[i].sum() for e in ends]) for i in (0, 1))
        return exact_tensor((a.shape[0], b.shape[1]), tuple(p + top for p in a.fracs), low, high)

    def rise(self, operands: Sequence[Tensor]) -> np.ndarray:
        """Per channel, the shift of the second operand's codes."""
        b = operands[1]
        return to_frac(b, b.format.max_frac) if len(b.shape) == 2 else integers([0] * b.channels)

    def largest(self, operands: Sequence[Tensor]) -> int:
        a, b = operands
        up = b.magnitude << int(self.rise(operands).max())
        return max(up, a.shape[-1] * a.magnitude * up)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        a, b = codes
        rise = self.rise(operands).astype(b.dtype).reshape(1, -1, *(1,) * (b.ndim - 2))
        return np.asarray(np.matmul(a, b << rise))


def _corners(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    products = np.stack([x * y for x in a for y in b])
    return products.min(axis=0), products.max(axis=0)


@dataclass(frozen=True, eq=False)
class Gather(Op):
    """The row ``table[code]`` for every code: an embedding. ``table`` int64 ``(rows, *row shape)``."""

    kind: ClassVar[str] = "gather"
    table: np.ndarray
    format: FixedPoint
    encoding: Format | None = field(default=None, kw_only=True)

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        check_codes("gather: table", self.table, self.format)
        check_members("gather: table", self.table, self.format, self.encoding)
        if self.format.per_channel or any(x.fracs):
            raise QfxError(
                "gather: the operand must have whole numbers (binary point 0), and the table one binary point"
            )
        shape = (*x.shape, *self.table.shape[1:])
        if len(shape) > MAX_RANK:
            raise QfxError(f"gather: a result of shape {shape}; at most {MAX_RANK} axes are supported")
        rows = integers(self.table.reshape(len(self.table), -1))
        smallest, largest = rows.min(axis=1), rows.max(axis=1)
        ends = [
            (smallest[a : b + 1].min(), largest[a : b + 1].max())
            for a, b in zip(*(np.clip(e, 0, len(rows) - 1) for e in (x.low, x.high)), strict=True)
        ]
        low, high = integers([e[0] for e in ends]), integers([e[1] for e in ends])
        return Tensor(shape, self.format, low, high, self.encoding)

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        index = np.clip(codes[0].astype(np.int64), 0, len(self.table) - 1)
        return (self.table if codes[0].dtype != object else integers(self.table))[index]
