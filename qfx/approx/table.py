"""A function of one code as a table of all its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qfx.approx.real import Real
from qfx.formats.base import Format

#: A table has at most this many entries; wider operands take :mod:`qfx.approx.piecewise`.
MAX_ENTRIES = 1 << 14
#: Stated errors are multiples of this part of an LSB, rounded up.
ERROR_STEPS = 1 << 16
# What the float64 value of a function may be wrong, relative and absolute, with a wide margin. Where the cast
# could depend on it the exact value decides, so that tables are the same on every machine.
_RELATIVE, _ABSOLUTE = 2.0**-44, 2.0**-48


@dataclass(frozen=True, eq=False)
class Table:
    """The values of a function at a list of codes.

    Attributes:
        function: what it approximates.
        frac: binary point of the operand's codes.
        inputs: int64, the operand's codes in ascending order.
        format: of the entries.
        entries: int64 ``(len(inputs),)``, integers of ``format``.
        max_error: the largest difference to the real function, limited to the range of ``format``, in
            ``1/65536`` of the LSB ``2**-format.frac``, rounded up.
    """

    function: Real
    frac: int
    inputs: np.ndarray
    format: Format
    entries: np.ndarray
    max_error: int

    @property
    def values(self) -> np.ndarray:
        """The entries as numbers, float64."""
        return np.ldexp(self.entries.astype(np.float64), -self.format.max_frac)


@lru_cache(maxsize=512)
def table(function: Real, frac: int, inputs: range | tuple[int, ...], fmt: Format) -> Table:
    """Every entry is the cast of the exact value of the function to ``fmt``, as real inputs of a graph are
    cast.

    Args:
        function: a real function.
        frac: binary point of the operand's codes.
        inputs: the codes in ascending order, :data:`MAX_ENTRIES` at most.
        fmt: of the entries; one binary point.
    """
    codes = np.asarray(inputs, dtype=np.int64)
    values = rounded_values(function, np.ldexp(codes.astype(np.float64), -frac), fmt)
    entries = fmt.integers(values)
    error = max_error(entries, function.float64(np.ldexp(codes.astype(np.float64), -frac)), fmt)
    for array in (codes, entries):
        array.setflags(write=False)
    return Table(function, frac, codes, fmt, entries, error)


def rounded_values(function: Real, x: np.ndarray, fmt: Format) -> np.ndarray:
    """float64 values of a function whose casts to ``fmt`` are those of the exact values."""
    values = function.float64(x)
    finite = np.where(np.isfinite(values), values, 0.0)
    margin = np.abs(finite) * _RELATIVE + _ABSOLUTE
    doubtful = np.isfinite(values) & (fmt.quantize(finite - margin) != fmt.quantize(finite + margin))
    for index in np.nonzero(doubtful)[0]:
        values[index] = function.odd(float(x[index]))
    return values


def max_error(entries: np.ndarray, values: np.ndarray, fmt: Format) -> int:
    """The stated error of entries (integers of ``fmt``) against values of the real function."""
    lsb = np.ldexp(1.0, -fmt.max_frac)
    limited = np.clip(values, fmt.integer_min * lsb, fmt.integer_max * lsb)
    # The margin covers what float64 itself is wrong.
    worst = float(np.abs(entries - limited / lsb).max()) * (1 + 2.0**-40)
    return math.ceil(worst * ERROR_STEPS + 2.0**-10)
