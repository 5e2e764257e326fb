"""Operators that compute real functions: tables, piecewise polynomials, inverse roots (docs/graph.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph.ops import Op, to_frac
from qfx.graph.tensor import Shape, Tensor, exact_tensor, integers

#: Entries of a table, and codes that an operand of a piecewise polynomial may have.
MAX_TABLE = 1 << 20
_LARGEST = 1 << 61


@dataclass(frozen=True, eq=False)
class _Declared(Op):
    """A function of the operand's codes on the grid ``2**-frac``, whose result has the format ``format``.

    ``function`` and ``max_error`` are documentation: what the entries approximate, and the largest difference
    to it in ``1/65536`` of the result's LSB; ``""`` and ``None`` where nobody knows.
    """

    frac: int
    format: Format
    function: str = field(default="", kw_only=True)
    max_error: int | None = field(default=None, kw_only=True)

    def aligned(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the operand's intervals on the grid of the function."""
        if max(x.fracs) > self.frac:
            raise QfxError(
                f"{self.kind}: the operand's binary point {max(x.fracs)} is finer than the function's, "
                f"{self.frac}; cast the operand first"
            )
        shifts = to_frac(x, self.frac)
        return x.low << shifts, x.high << shifts

    def check_format(self) -> int:
        """The binary point of the result."""
        f = self.format
        if not f.has_point or f.per_channel:
            raise QfxError(
                f"{self.kind}: the result cannot have the format {f}; supported: formats with one binary "
                "point; cast the result instead"
            )
        if len(self.function) > 200 or not self.function.isprintable():
            raise QfxError(f"{self.kind}: the name of the function must be at most 200 printable characters")
        if self.max_error is not None and self.max_error < 0:
            raise QfxError(f"{self.kind}: max_error {self.max_error} is negative")
        return f.max_frac

    def declared(self, shape: Shape, low: np.ndarray, high: np.ndarray) -> Tensor:
        """The result tensor of these intervals."""
        f = self.format
        if isinstance(f, FixedPoint):
            return Tensor(shape, f, low, high)
        return replace(exact_tensor(shape, f.max_frac, low, high), encoding=f)

    def largest(self, operands: Sequence[Tensor]) -> int:
        low, high = self.aligned(operands[0])
        return max(abs(int(low.min())), abs(int(high.max())))

    def codes_on_grid(self, x: Tensor, codes: np.ndarray) -> np.ndarray:
        """The operand's codes with the binary point ``frac``."""
        shifts = to_frac(x, self.frac).astype(codes.dtype)
        return codes << shifts.reshape(1, -1, *(1,) * (codes.ndim - 2))

    def intervals(self, x: Tensor, inputs: np.ndarray, results: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per channel the smallest and largest result of the inputs (ascending) in the channel's interval."""
        ends: dict[tuple[int, int], tuple[int, int]] = {}
        lows, highs = [], []
        for low, high in zip(*self.aligned(x), strict=True):
            if (low, high) not in ends:
                part = results[np.searchsorted(inputs, low) : np.searchsorted(inputs, high, side="right")]
                ends[low, high] = int(part.min()), int(part.max())
            lows.append(ends[low, high][0])
            highs.append(ends[low, high][1])
        return integers(lows), integers(highs)


@dataclass(frozen=True, eq=False)
class Table(_Declared):
    """``table[i]`` for the code ``first + i``; with ``inputs``, for the code ``inputs[i]``.

    ``table`` int64 ``(entries,)``, integers of ``format``; ``inputs`` int64 in ascending order, or ``None``.
    """

    kind: ClassVar[str] = "table"
    first: int
    inputs: np.ndarray | None
    table: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """The codes that have an entry, in order."""
        if self.inputs is not None:
            return self.inputs
        return np.arange(self.first, self.first + len(self.table), dtype=np.int64)

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        self.check_format()
        if self.table.ndim != 1 or self.table.dtype != np.int64 or not 1 <= len(self.table) <= MAX_TABLE:
            raise QfxError(
                f"table: entries of shape {self.table.shape}, {self.table.dtype}; expected 1 to {MAX_TABLE} "
                "int64 codes"
            )
        f = self.format
        outside = (self.table < f.integer_min) | (self.table > f.integer_max) | ~f.members(self.table)
        if outside.any():
            raise QfxError(f"table: the entry {self.table[outside][0]} is not a number of {f}")
        self._check_inputs(x)
        return self.declared(x.shape, *self.intervals(x, self.codes, self.table))

    def _check_inputs(self, x: Tensor) -> None:
        low, high = (int(e) for e in (self.aligned(x)[0].min(), self.aligned(x)[1].max()))
        if self.inputs is None:
            if low < self.first or high >= self.first + len(self.table):
                raise QfxError(
                    f"table: the operand's codes {low}..{high} go beyond the table, which has entries for "
                    f"{self.first}..{self.first + len(self.table) - 1}"
                )
            return
        i = self.inputs
        if i.shape != self.table.shape or i.dtype != np.int64 or (np.diff(i) <= 0).any():
            raise QfxError("table: inputs must be ascending int64 codes, one for each entry")
        e = x.encoding
        if e is None or not e.has_point or e.per_channel:
            raise QfxError(
                "table: only an operand of a format with gaps and one binary point can have a list of inputs"
            )
        if not set(members_between(e, self.frac, low, high)) <= set(i.tolist()):
            raise QfxError(f"table: some number of {e} that the operand can be has no entry")

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        c = self.codes_on_grid(operands[0], codes[0]).astype(np.int64)
        index = c - self.first if self.inputs is None else np.searchsorted(self.inputs, c)
        return integers(self.table)[index] if codes[0].dtype == object else self.table[index]


def members_between(fmt: Format, frac: int, low: int, high: int) -> list[int]:
    """The numbers of a format as integers with the binary point ``frac``, ascending, those from ``low`` to
    ``high``; numbers between two such integers are left out."""
    scaled = np.ldexp(fmt.values(), frac)  # type: ignore[attr-defined]
    inside = scaled[(scaled >= low) & (scaled <= high) & (scaled == np.floor(scaled))]
    return sorted({int(v) for v in inside})


@dataclass(frozen=True, eq=False)
class Piecewise(_Declared):
    """Polynomials in segments of ``2**shift`` codes from ``first`` on, then a cast to ``format``.

    ``coefficients`` int64 ``(segments, degree + 1)``, the constant first; ``fracs`` the binary point of each
    column.
    """

    kind: ClassVar[str] = "piecewise"
    first: int
    shift: int
    coefficients: np.ndarray
    fracs: tuple[int, ...]

    @property
    def top(self) -> int:
        """The binary point of the exact sum."""
        return max(self.fracs)

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        self.check_format()
        c = self.coefficients
        if c.dtype != np.int64 or c.ndim != 2 or not 1 <= c.shape[1] <= 3 or len(self.fracs) != c.shape[1]:
            raise QfxError(
                f"piecewise: coefficients of shape {c.shape}, {c.dtype}, with {len(self.fracs)} binary "
                "points; expected int64 (segments, 1 to 3)"
            )
        if not 0 <= self.shift <= 30 or max(self.fracs) - min(self.fracs) > 62:
            raise QfxError(f"piecewise: shift {self.shift}, fracs {self.fracs} are outside what is supported")
        low, high = (int(e) for e in (self.aligned(x)[0].min(), self.aligned(x)[1].max()))
        if low < self.first or high >= self.first + (len(c) << self.shift) or high - low >= MAX_TABLE:
            raise QfxError(
                f"piecewise: the operand's codes {low}..{high} must lie in the segments, "
                f"{self.first}..{self.first + (len(c) << self.shift) - 1}, and be at most {MAX_TABLE}"
            )
        if self._largest() >= _LARGEST:
            raise QfxError("piecewise: sums need more than 61 bits; use fewer segment or fraction bits")
        inputs = np.arange(low, high + 1, dtype=np.int64)
        results = self._cast(self._sum(inputs[None, None]))[0, 0]
        return self.declared(x.shape, *self.intervals(x, inputs, results))

    def _largest(self) -> int:
        t = (1 << self.shift) - 1
        peaks = np.abs(integers(self.coefficients)).max(axis=0)
        return sum(
            int(p) * t**d << (self.top - f) for d, (p, f) in enumerate(zip(peaks, self.fracs, strict=True))
        )

    def largest(self, operands: Sequence[Tensor]) -> int:
        places = len(self.coefficients) << self.shift
        return max(super().largest(operands), self._largest(), abs(self.first) + places)

    def _sum(self, codes: np.ndarray) -> np.ndarray:
        offset = codes - self.first
        segment = (offset >> self.shift).astype(np.int64)
        t = offset & ((1 << self.shift) - 1)
        table = self.coefficients if codes.dtype != object else integers(self.coefficients)
        total = table[segment, 0] << (self.top - self.fracs[0])
        power = t
        for degree, frac in enumerate(self.fracs[1:], start=1):
            total = total + ((table[segment, degree] * power) << (self.top - frac))
            power = power * t
        return total

    def sums(self, codes: np.ndarray) -> np.ndarray:
        """The exact sums, before the cast, of codes on the grid of the function; any shape."""
        return self._sum(codes)

    def _cast(self, total: np.ndarray) -> np.ndarray:
        points = (self.top,) * total.shape[1]
        result = self.format.cast_integers(total, points)
        # A format with gaps may leave the result on a coarser grid than its own.
        return result << (self.format.max_frac - self.format.result_points(points)[0])

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        return self._cast(self._sum(self.codes_on_grid(operands[0], codes[0])))


@dataclass(frozen=True, eq=False)
class InverseRoot(Op):
    """``factor * (x + offset)**(-1/root)`` of positive numbers of any size (docs/graph.md).

    ``coefficients`` int64 ``(segments, degree + 1)``; ``frac`` the binary point of the polynomial's value
    once ``guard`` bits are dropped.
    """

    kind: ClassVar[str] = "inverse_root"
    root: int
    bits: int
    shift: int
    coefficients: np.ndarray
    guard: int
    frac: int
    offset: int
    least: int
    function: str = field(default="", kw_only=True)
    #: Largest relative error in units of ``2**-32``; documentation.
    max_error: int | None = field(default=None, kw_only=True)

    def exponents(self, x: Tensor) -> tuple[int, int]:
        """The exponents of the smallest and the largest code."""
        top = max(x.fracs)
        low = max(min(int(v) for v in x.low << to_frac(x, top)) + self.offset, self.least)
        high = max(max(int(v) for v in x.high << to_frac(x, top)) + self.offset, self.least)
        return self._exponent(low, top), self._exponent(high, top)

    def _exponent(self, code: int, point: int) -> int:
        e = code.bit_length() - 1
        return e - (e - point) % self.root

    def result_frac(self, x: Tensor) -> int:
        """The binary point of the result."""
        return self.frac - (max(x.fracs) - self.exponents(x)[1]) // self.root

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        c = self.coefficients
        if self.root not in (1, 2) or not 1 <= self.bits <= 24 or not 0 <= self.shift < self.bits:
            raise QfxError(
                f"inverse_root: root {self.root}, bits {self.bits}, shift {self.shift}; expected root 1 or "
                "2, 1 to 24 bits, a smaller shift"
            )
        segments = ((1 << self.root) - 1) << (self.bits - self.shift)
        if c.dtype != np.int64 or c.ndim != 2 or len(c) != segments or not 1 <= c.shape[1] <= 2:
            raise QfxError(f"inverse_root: coefficients of shape {c.shape}, expected ({segments}, 1 or 2)")
        if self.offset < 0 or self.least < 1 or not 0 <= self.guard <= 40 or abs(self.frac) > 62:
            raise QfxError(
                f"inverse_root: offset {self.offset}, least {self.least}, guard {self.guard}, frac "
                f"{self.frac} are outside what is supported"
            )
        if self._largest() >= _LARGEST:
            raise QfxError("inverse_root: sums need more than 61 bits; use fewer bits")
        values = self._value(np.arange(segments << self.shift, dtype=np.int64))
        if int(values.min()) < 0:
            raise QfxError("inverse_root: the polynomials have negative values")
        smallest, largest = self.exponents(x)
        low = int(values.min())
        high = int(values.max()) << ((largest - smallest) // self.root)
        return exact_tensor(
            x.shape, self.result_frac(x), integers([low] * x.channels), integers([high] * x.channels)
        )

    def _largest(self) -> int:
        peaks = np.abs(integers(self.coefficients)).max(axis=0)
        return sum(int(p) * ((1 << self.shift) - 1) ** d for d, p in enumerate(peaks))

    def largest(self, operands: Sequence[Tensor]) -> int:
        (x,) = operands
        top = max(x.fracs)
        code = max(abs(int(v)) for v in (*(x.high << to_frac(x, top)), *(x.low << to_frac(x, top))))
        return max(code + self.offset, self.least, self._largest(), 1 << (self.bits + self.root))

    def _value(self, places: np.ndarray) -> np.ndarray:
        segment = (places >> self.shift).astype(np.int64)
        t = places & ((1 << self.shift) - 1)
        table = self.coefficients if places.dtype != object else integers(self.coefficients)
        total = table[segment, 0]
        if table.shape[1] > 1:
            total = total + table[segment, 1] * t
        return total >> self.guard

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        (x,) = operands
        top, (_, largest) = max(x.fracs), self.exponents(x)
        c = integers(codes[0])
        c = c << to_frac(x, top).reshape(1, -1, *(1,) * (c.ndim - 2))
        c = np.maximum(c + self.offset, self.least)
        exponent = integers([self._exponent(v, top) for v in c.reshape(-1)]).reshape(c.shape)
        # The exponent of 1 can be -1.
        mantissa = (c << (self.bits + 1)) >> (exponent + 1)
        value = self._value(mantissa - (1 << self.bits))
        result = value << ((largest - exponent) // self.root)
        return result if codes[0].dtype == object else result.astype(np.int64)
