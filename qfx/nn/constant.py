"""Constants of the graph: weights and scales of any format as integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import MAX_FRAC, MAX_WIDTH, FixedPoint, smallest_format
from qfx.formats.minifloat import Minifloat


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of the graph.

    Attributes:
        codes: int64.
        format: what the codes are codes of.
        encoding: the number format that they obey besides; ``None`` for plain fixed point.
    """

    codes: np.ndarray
    format: FixedPoint
    encoding: Format | None


def constant(values: np.ndarray, encoding: Format) -> Constant:
    """Numbers of a format as integers of the narrowest fixed-point format that holds them all.

    Zeros that all integers end with are dropped, per channel where the encoding is per channel: it is the
    numbers that occur which decide how wide sums of products become, not those that the format could hold.

    Args:
        values: float64 numbers of ``encoding``, output channel first.

    Raises:
        QfxError: the integers have more than 62 bits, or the binary point lies beyond what the graph allows.
    """
    exponents = lowest_exponents(values)
    finest = exponents.reshape(len(values), -1).min(axis=1)
    if not (encoding.has_point and encoding.per_channel):
        finest = np.full_like(finest, finest.min())
    # A channel of zeros has no grid of its own; another's costs nothing.
    known = finest < _NOTHING
    finest = np.where(known, finest, finest[known].min() if known.any() else 0)
    shape = (-1, *(1,) * (values.ndim - 1))
    scaled = np.ldexp(values, -finest.reshape(shape))
    largest = float(np.abs(scaled).max())
    if largest >= 2.0**MAX_WIDTH:
        raise QfxError(
            f"the numbers of {encoding} that occur here, from 2**{int(finest.min())} to "
            f"{float(np.abs(values).max()):.3g}, span {int(np.log2(largest)) + 1} bits; constants hold "
            f"{MAX_WIDTH}. Use fewer exponent bits here"
        )
    if np.abs(finest).max() > MAX_FRAC:
        raise QfxError(
            f"the numbers of {encoding} that occur here are multiples of 2**{int(finest.min())}; the graph "
            f"goes to 2**-{MAX_FRAC}"
        )
    codes = scaled.astype(np.int64)
    fracs = tuple(int(-e) for e in finest)
    frac = fracs[0] if len(set(fracs)) == 1 else fracs
    return Constant(codes, smallest_format(int(codes.min()), int(codes.max()), frac), encoding)


_NOTHING = 1 << 20


def lowest_exponents(values: np.ndarray) -> np.ndarray:
    """Per element the exponent of the lowest bit that is set, int64; a large number where the value is 0."""
    significand, exponent = np.frexp(values)
    whole = np.abs(np.ldexp(significand, 53)).astype(np.int64)
    # The lowest set bit of an integer is a power of two, which a logarithm of a double finds exactly.
    lowest = np.frexp((whole & -whole).astype(np.float64))[1].astype(np.int64) - 1
    return np.where(whole == 0, _NOTHING, exponent.astype(np.int64) - 53 + lowest)


def significant_bits(fmt: Format) -> int:
    """Bits that a float type must have to hold every number of a format."""
    if isinstance(fmt, FixedPoint):
        return fmt.width
    if isinstance(fmt, Minifloat):
        return fmt.mantissa_bits + 1
    if not fmt.has_point:
        return significant_bits(fmt.element)  # type: ignore[attr-defined]
    return max(1, fmt.integer_max.bit_length())
