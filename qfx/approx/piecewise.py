"""A function of one code by polynomials of degree 2 at most, one per segment of the codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from qfx.approx.real import Real
from qfx.approx.table import max_error
from qfx.formats.base import Format

#: Operands have at most this many bits: the error is known at every code because every code was tried.
MAX_BITS = 20
#: Bits that coefficients have beyond the result, so that their rounding matters little.
GUARD_BITS = 3
_MAX_SEGMENT_BITS = 12
# Half an LSB is the rounding of the result; a quarter is left to the polynomial.
_GOOD = 3 << 14


@dataclass(frozen=True, eq=False)
class Pieces:
    """Polynomials for the codes ``first .. first + segments * 2**shift - 1``.

    With ``u = code - first`` the segment is ``u >> shift``, and ``t = u & (2**shift - 1)`` the place in it;
    the value is ``sum_k coefficients[segment, k] * t**k * 2**-fracs[k]``, which is exact, cast to ``format``.

    Attributes:
        function: what they approximate.
        frac: binary point of the operand's codes.
        coefficients: int64 ``(segments, degree + 1)``.
        fracs: binary point of each degree's coefficients.
        format: of the result.
        max_error: as of :class:`qfx.approx.table.Table`.
    """

    function: Real
    frac: int
    first: int
    shift: int
    coefficients: np.ndarray
    fracs: tuple[int, ...]
    format: Format
    max_error: int


@lru_cache(maxsize=128)
def pieces(function: Real, frac: int, low: int, high: int, fmt: Format, degree: int = 2) -> Pieces:
    """The fewest segments (a power of two of them, before those that no code reaches are cut off) with an
    error of at most 3/4 LSB, or 4096 where that is not enough: at poles and kinks.

    Args:
        function: a real function.
        frac: binary point of the operand's codes.
        low, high: the codes that can occur, ``2**20`` of them at most.
        fmt: of the result; one binary point.
        degree: 0, 1 or 2.
    """
    bits = max(1, (high - low).bit_length())
    codes = np.arange(low, high + 1)
    values = function.float64(np.ldexp(codes.astype(np.float64), -frac))
    found = None
    for segment_bits in range(min(3, bits), min(bits, _MAX_SEGMENT_BITS) + 1):
        found = _fitted(function, frac, low, high, bits - segment_bits, fmt, degree)
        entries = fmt.cast_integers(
            evaluate(codes, found.first, found.shift, found.coefficients, found.fracs)[None, None],
            (max(found.fracs),),
        )[0, 0]
        entries = entries << (fmt.max_frac - fmt.result_points((max(found.fracs),))[0])
        found = replace(found, max_error=max_error(entries, values, fmt))
        if found.max_error <= _GOOD:
            break
    assert found is not None
    found.coefficients.setflags(write=False)
    return found


def _fitted(function: Real, frac: int, low: int, high: int, shift: int, fmt: Format, degree: int) -> Pieces:
    # Segments begin at multiples of their length, so that 0 and powers of two are ends of segments: that is
    # where functions have their kinks and poles.
    first = (low >> shift) << shift
    segments = ((high - first) >> shift) + 1
    length = 1 << shift
    degree = min(degree, length - 1)
    # Interpolation at the Chebyshev points of the segment's codes is within a small factor of the best.
    k = np.arange(degree + 1)
    nodes = (
        (length - 1)
        / 2
        * (1 - np.cos(np.pi * (2 * k + 1) / (2 * (degree + 1))) / np.cos(np.pi / (2 * (degree + 1))))
    )
    starts = first + length * np.arange(segments, dtype=np.float64)
    x = np.ldexp(starts[:, None] + nodes, -frac)
    lsb = np.ldexp(1.0, -fmt.max_frac)
    reach = (fmt.integer_max - fmt.integer_min + 1) * lsb
    values = np.clip(function.float64(x), fmt.integer_min * lsb - reach, fmt.integer_max * lsb + reach)
    powers = nodes[:, None] ** k
    exact = np.linalg.solve(powers, values.T).T if degree else values
    fracs = tuple(fmt.max_frac + GUARD_BITS + shift * int(d) for d in k)
    coefficients = np.rint(np.ldexp(exact, np.asarray(fracs))).astype(np.int64)
    return Pieces(function, frac, first, shift, coefficients, fracs, fmt, 0)


def evaluate(
    codes: np.ndarray, first: int, shift: int, coefficients: np.ndarray, fracs: tuple[int, ...]
) -> np.ndarray:
    """The exact values of the polynomials, integers with binary point ``max(fracs)``; ``int64`` or
    ``object`` like ``codes``."""
    offset = codes - first
    segment = (offset >> shift).astype(np.int64)
    t = offset - (offset >> shift << shift)
    top = max(fracs)
    table = coefficients.astype(codes.dtype)
    total = table[segment, 0] << (top - fracs[0])
    power = t
    for degree in range(1, len(fracs)):
        total = total + ((table[segment, degree] * power) << (top - fracs[degree]))
        power = power * t
    return total


def largest_sum(shift: int, coefficients: np.ndarray, fracs: tuple[int, ...]) -> int:
    """An upper bound of every integer that :func:`evaluate` meets."""
    top, t = max(fracs), (1 << shift) - 1
    return sum(
        int(np.abs(coefficients[:, d].astype(object)).max()) * t**d << (top - f) for d, f in enumerate(fracs)
    )
