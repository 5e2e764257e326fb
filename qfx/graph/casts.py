"""The integers that hardware needs for a cast to a format with gaps (docs/graph.md, "cast").

Formats may have a binary point per channel, and so may operands. Both disappear in a few shifts around one
cast that is the same for all channels:

    code << align[c]  ->  rounded to numbers of the format, in units of 2**shift  ->  >> settle[c]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats.block import Block
from qfx.formats.khot import KHot
from qfx.formats.minifloat import Minifloat
from qfx.graph.tensor import Tensor, integers


@dataclass(frozen=True)
class GappedCast:
    """A cast to :class:`qfx.Minifloat` or :class:`qfx.KHot` as shifts and one uniform step.

    Attributes:
        align: per channel, bits to append to the operand; exact.
        shift: after that, bits that lie below the lowest place of a number (positive), or zeros to append
            (negative).
        settle: per channel, zero bits of the uniform step's result that the tensor does not have; exact.
        precision: significant bits of a minifloat, as many as the operand can have when it has no exponent;
            0 for others. With 1 and ``RND_CONV`` a tie goes to the power of two with the odd exponent.
        digits: nonzero digits of a K-hot number, not more than a number of this size can have; 0 for others.
        limit: the largest magnitude, in units of the uniform step's result.
        saturates: whether the operand can go beyond it, and the result would otherwise.
        low, high: per channel, the interval of the uniform step's operand; ``object`` integers.
        result_low, result_high: the interval of its result, over all channels.
    """

    align: tuple[int, ...]
    shift: int
    settle: tuple[int, ...]
    precision: int
    digits: int
    limit: int
    saturates: bool
    low: np.ndarray
    high: np.ndarray
    result_low: int
    result_high: int


@dataclass(frozen=True)
class BlockCast:
    """A cast to :class:`qfx.Block` as shifts and one uniform step.

    Attributes:
        align: per channel, bits to append to the operand, and zero bits of the step's result that the
            tensor does not have.
        size: channels of a block; the last block of a place may have fewer.
        top: bits of the largest element.
        largest: the largest element, in units of its finest step.
        precision: significant bits of an element, 0 when there is no such bound. With 1 and ``RND_CONV`` a
            tie goes to the power of two with the odd exponent.
        symmetric: whether the most negative element is minus the largest; else it is one step further down.
        rounding: of the element.
        low, high: the interval of the uniform step's operand, over all channels.
        result_low, result_high: the interval of its result.
    """

    align: tuple[int, ...]
    size: int
    top: int
    largest: int
    precision: int
    symmetric: bool
    rounding: str
    low: int
    high: int
    result_low: int
    result_high: int


def block_cast(x: Tensor, fmt: Block, result: Tensor) -> BlockCast:
    """The steps of a cast of ``x`` to ``fmt`` whose tensor is ``result``.

    Raises:
        UnsupportedError: ``exponent_bits`` can limit a scale here; blocks of several places.
    """
    element = fmt.element
    point = max(x.fracs)
    size = x.channels if fmt.size is None else min(fmt.size, x.channels)
    if fmt.size is None and x.size > x.channels:
        raise UnsupportedError(
            f"a cast of activations to {fmt} looks at a whole sample of {x.size // x.channels} places before "
            "the first number can leave; blocks of the channels at one place are supported: give a size"
        )
    top = element.integer_max.bit_length()
    # The largest and the smallest exponent that a block can have.
    exponents = (x.magnitude.bit_length() - 1 - min(x.fracs) - fmt.emax, -point - fmt.emax)
    if exponents[0] > fmt.exponent_max or exponents[1] < -fmt.exponent_max:
        raise UnsupportedError(
            f"a cast of activations to {fmt}: scales of 2**{exponents[1]} to 2**{exponents[0]} can occur, "
            f"and exponents are limited to {-fmt.exponent_max}..{fmt.exponent_max}, for which there is no "
            "hardware; use more exponent_bits"
        )
    align = integers([point - p for p in x.fracs])
    precision = 0
    if isinstance(element, Minifloat) and element.exponent_bits:
        precision = element.mantissa_bits + 1
    return BlockCast(
        align=tuple(int(a) for a in align),
        size=size,
        top=top,
        largest=element.integer_max,
        precision=precision,
        symmetric=element.integer_min == -element.integer_max,
        rounding=element.rounding,
        low=int((x.low << align).min()),
        high=int((x.high << align).max()),
        result_low=int((result.low << align).min()),
        result_high=int((result.high << align).max()),
    )


def gapped_cast(x: Tensor, fmt: Minifloat | KHot, result: Tensor) -> GappedCast:
    """The steps of a cast of ``x`` to ``fmt`` (a minifloat or a K-hot format) whose tensor is ``result``."""
    coarser = [f - r for f, r in zip(fmt.fracs(x.channels), result.fracs, strict=True)]
    common = min(coarser)
    if isinstance(fmt, Minifloat) and fmt.mantissa_bits == 0:
        # Ties look at the exponent field's lowest bit: keep it that of the exponent in units of the step.
        common -= common & 1
    limit = fmt.integer_max >> common
    # A number that is shifted beyond the limit, or far below one, may as well be shifted a little less.
    reach = x.magnitude.bit_length()
    shifts = [
        max(-limit.bit_length() - 1, min(p - f + common, reach + 2))
        for p, f in zip(x.fracs, fmt.fracs(x.channels), strict=True)
    ]
    shift = max(shifts)
    align = integers([shift - s for s in shifts])
    low, high = x.low << align, x.high << align
    up = max(-shift, 0)
    # Without a sign all that is negative becomes 0, and does not tell how far the result reaches.
    largest = max(int(high.max()), -int(low.min()) if fmt.integer_min < 0 else 0)
    saturates = largest << up > limit << max(shift, 0)
    settle = integers([c - common for c in coarser])
    bits = max(int(high.max()).bit_length(), int(-low.min()).bit_length()) + up
    precision = digits = 0
    if isinstance(fmt, Minifloat):
        # Without an exponent all numbers are on one grid: there are never too many bits above it.
        precision = min(fmt.mantissa_bits + 1, bits) if fmt.exponent_bits else bits
    else:
        most = bits if fmt.digits == "binary" else (bits + 2) // 2
        digits = min(fmt.k, max(most, 1))
    return GappedCast(
        align=tuple(int(a) for a in align),
        shift=shift,
        settle=tuple(int(s) for s in settle),
        precision=max(precision, 1) if isinstance(fmt, Minifloat) else 0,
        digits=digits,
        limit=limit,
        saturates=bool(saturates),
        low=low,
        high=high,
        result_low=int((result.low << settle).min()),
        result_high=int((result.high << settle).max()),
    )
