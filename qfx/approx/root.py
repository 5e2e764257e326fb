"""``factor * x**(-1/root)`` of positive integers of any size: normalised, then by polynomials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

#: The stated error of :class:`Roots` is relative, in units of ``2**-RELATIVE_STEPS``, rounded up.
RELATIVE_STEPS = 32


@dataclass(frozen=True, eq=False)
class Roots:
    """Values for ``m = 2**-bits * M``, ``M`` an integer from ``2**bits`` to ``2**(bits + root) - 1``.

    With ``u = M - 2**bits`` the segment is ``u >> shift``, and ``t = u & (2**shift - 1)`` the place in it.
    The value, an integer with binary point ``frac``, is ``sum_k coefficients[segment, k] * t**k`` rounded
    down by ``guard`` bits.

    Attributes:
        root: 1 for ``1/x``, 2 for ``1/sqrt(x)``.
        factor: what the values are multiplied by.
        bits: leading bits of ``x`` behind the first that are looked at.
        shift: how many of them are the place in a segment.
        coefficients: int64 ``(segments, degree + 1)``.
        guard: bits of the polynomial that are dropped.
        frac: binary point of the value.
        max_error: the largest relative error over all real ``x > 0``, in units of ``2**-32``, rounded up.
    """

    root: int
    factor: float
    bits: int
    shift: int
    coefficients: np.ndarray
    guard: int
    frac: int
    max_error: int


@lru_cache(maxsize=128)
def roots(root: int, factor: float, bits: int, frac: int) -> Roots:
    """Polynomials of degree 0 up to ``bits = 8``, of degree 1 beyond.

    Args:
        root: 1 or 2.
        factor: a positive number.
        bits: leading bits of ``x`` behind the first that decide; at most 24.
        frac: binary point of the value.
    """
    shift = 0 if bits <= 8 else bits // 2 - 1
    guard = 0 if shift == 0 else shift + 2
    span = (1 << root) - 1
    starts = 1.0 + np.arange(span << (bits - shift)) * 2.0 ** (shift - bits)

    def value(m: np.ndarray) -> np.ndarray:
        return factor * m ** (-1.0 / root)

    step = 2.0**-bits
    if shift == 0:
        # x lies between one step and the next: the middle (of the values, to spread the relative error).
        ends = value(starts), value(starts + step)
        scaled = 2.0 * ends[0] * ends[1] / (ends[0] + ends[1])
        coefficients = np.rint(np.ldexp(scaled, frac))[:, None].astype(np.int64)
    else:
        length = 1 << shift
        # A chord, lowered by half of what the curve hangs below it in the middle.
        left, right = value(starts + step / 2), value(starts + length * step + step / 2)
        slope = (right - left) / length
        middle = value(starts + (length / 2 + 0.5) * step)
        offset = left - ((left + right) / 2 - middle) / 2
        # Rounding down loses half an LSB on average.
        offset = offset + np.ldexp(0.5, -frac)
        pair = np.ldexp(np.stack([offset, slope], axis=1), frac + guard)
        coefficients = np.rint(pair).astype(np.int64)
    coefficients.setflags(write=False)
    places = np.arange(span << bits)
    got = np.ldexp(evaluate(places, shift, coefficients, guard).astype(np.float64), -frac)
    worst = 0.0
    # Between two steps the value stays and the function falls: the ends are the worst places.
    for end in (0.0, 1.0):
        exact = value(1.0 + (places + end) * step)
        worst = max(worst, float(np.abs(got / exact - 1.0).max()))
    error = int(np.ceil(worst * (1 + 2.0**-40) * 2.0**RELATIVE_STEPS + 1))
    return Roots(root, factor, bits, shift, coefficients, guard, frac, error)


def evaluate(places: np.ndarray, shift: int, coefficients: np.ndarray, guard: int) -> np.ndarray:
    """The values for ``M - 2**bits``, integers; dtype like ``places``."""
    segment = (places >> shift).astype(np.int64)
    t = places - (places >> shift << shift)
    table = coefficients.astype(places.dtype)
    total = table[segment, 0]
    if coefficients.shape[1] > 1:
        total = total + table[segment, 1] * t
    return total >> guard
