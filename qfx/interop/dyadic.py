"""Numbers of other tools as integers times powers of two.

Other tools keep quantized numbers as floats with a scale. A float *is* an integer times a power of two, so
the way to codes is exact or it is refused; nothing is rounded here.
"""

from __future__ import annotations

import math

import numpy as np

from qfx.formats.fixed import MAX_FRAC, FixedPoint, smallest_format
from qfx.interop.problems import Refused

#: Constants that a user writes down (bounds, slopes, factors) and that are meant to be exact are short. A
#: longer one is a rounded decimal such as 0.1, and float32 would round its products too.
SHORT = 16


def power_of_two(value: float) -> int | None:
    """``e`` when ``value`` is ``2**e``, else ``None``."""
    mantissa, exponent = math.frexp(value)
    return exponent - 1 if mantissa == 0.5 else None


def fraction_bits(values: np.ndarray) -> int:
    """The smallest binary point that makes all float64 ``values`` integers; 0 when all of them are 0.

    Raises:
        Refused: a value is infinite or NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise Refused("holds values that are infinite or not numbers")
    values = values[values != 0]
    if not values.size:
        return 0
    mantissas, exponents = np.frexp(values)
    whole = np.abs(np.ldexp(mantissas, 53)).astype(np.int64)
    trailing = np.array([(int(w) & -int(w)).bit_length() - 1 for w in whole.reshape(-1)])
    return int((53 - exponents.reshape(-1) - trailing).max())


def codes_at(values: np.ndarray, frac: int | tuple[int, ...]) -> np.ndarray:
    """The codes (int64) of ``values`` with the given binary point, per channel along axis 0 when several.

    Raises:
        Refused: a value is not a multiple of ``2**-frac``, or its code takes more than 53 bits.
    """
    values = np.asarray(values, dtype=np.float64)
    points = np.asarray(frac)
    if points.ndim:
        points = points.reshape(-1, *(1,) * (values.ndim - 1))
    codes = np.ldexp(values, points)
    if not np.isfinite(codes).all() or (codes != np.rint(codes)).any() or np.abs(codes).max() >= 2.0**53:
        raise Refused("holds values that are not multiples of its scale")
    return codes.astype(np.int64)


def constant(values: np.ndarray, bits: int) -> tuple[np.ndarray, FixedPoint]:
    """Codes (int64) of ``values`` and the narrowest format with one binary point that holds them exactly.

    Raises:
        Refused: it takes more than ``bits`` bits.
    """
    values = np.asarray(values, dtype=np.float64)
    frac = fraction_bits(values)
    if abs(frac) > MAX_FRAC:
        raise Refused(f"holds values as small as 2**-{frac}, which no format has")
    top = np.ldexp(np.abs(values).max(), frac)
    if top >= 2.0 ** min(bits, 53):
        shown = ", ".join(f"{v:.9g}" for v in values.reshape(-1)[:3])
        raise Refused(f"constant {shown}{', ...' if values.size > 3 else ''} takes more than {bits} bits")
    codes = codes_at(values, frac)
    return codes, smallest_format(int(codes.min()), int(codes.max()), frac)


def per_channel_constant(values: np.ndarray, least: tuple[int, ...]) -> tuple[np.ndarray, FixedPoint]:
    """As :func:`constant` for one value per channel, each with its own binary point, which is at least
    ``least``."""
    values = np.asarray(values, dtype=np.float64)
    fracs = tuple(max(fraction_bits(v), f) for v, f in zip(values, least, strict=True))
    codes = codes_at(values, fracs)
    width = smallest_format(int(codes.min()), int(codes.max())).width
    frac = fracs[0] if len(set(fracs)) == 1 else fracs
    return codes, FixedPoint(width, frac, bool(codes.min() < 0))


def encoded_format(values: np.ndarray, per_channel: bool) -> FixedPoint:
    """The narrowest fixed-point format of constants that are numbers of a format with gaps; with a binary
    point per channel along axis 0 when ``per_channel``.

    Raises:
        QfxError: it takes more than 62 bits.
    """
    values = np.asarray(values, dtype=np.float64)
    if per_channel:
        frac: int | tuple[int, ...] = tuple(fraction_bits(v) for v in values)
    else:
        frac = fraction_bits(values)
    points = np.reshape(frac, (-1, *(1,) * (values.ndim - 1))) if per_channel else frac
    integers = np.ldexp(values, points)
    return smallest_format(int(integers.min()), int(integers.max()), frac)
