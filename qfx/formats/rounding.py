"""Rounding and overflow of integers, as ``ap_fixed`` does them (docs/graph.md, section 2).

The functions take and return arrays of integers: numpy ``int64``, numpy ``object`` (Python integers of any
size), or torch
``int64``. They use only operators that all three share, so that there is one definition and not three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDING = ("TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV")
OVERFLOW = ("SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM")

# Shifting an int64 by 63 or more is undefined or useless. Codes stay below 2**61 on the int64 route, so that
# a larger shift
# rounds to the same integer as this one: what is left is less than half an LSB, and never a tie.
_LARGEST_INT64_SHIFT = 62


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if isinstance(condition, np.ndarray | np.generic):
        return np.where(condition, yes, no)
    import torch

    return torch.where(condition, yes, no)


def _round_up(codes: Any, quotient: Any, remainder: Any, half: Any, rounding: str) -> Any:
    """Whether the floor ``quotient`` is to be raised by one; booleans of the shape of ``codes``."""
    if rounding == "TRN_ZERO":
        return (codes < 0) & (remainder != 0)
    tie = remainder == half
    above = remainder > half
    if rounding == "RND":
        return above | tie
    if rounding == "RND_ZERO":
        return above | (tie & (codes < 0))
    if rounding == "RND_INF":
        return above | (tie & (codes >= 0))
    if rounding == "RND_MIN_INF":
        return above
    if rounding == "RND_CONV":
        return above | (tie & ((quotient & 1) == 1))
    raise ValueError(f"unknown rounding mode {rounding!r}")


def shift_round(codes: Any, shift: Any, rounding: str) -> tuple[Any, Any]:
    """``codes * 2**-shift`` rounded to integers, and the floor of the same.

    Args:
        codes: integers of any shape; below 2**61 in magnitude unless the dtype is ``object``.
        shift: bits to drop (positive) or to append (negative); an integer or an array that broadcasts
            against ``codes``.
        rounding: one of :data:`ROUNDING`.
    """
    if isinstance(shift, int | np.integer):
        right, left = max(int(shift), 0), max(-int(shift), 0)
        if right == 0:
            shifted = codes << left if left else codes
            return shifted, shifted
        if not (isinstance(codes, np.ndarray) and codes.dtype == object):
            right = min(right, _LARGEST_INT64_SHIFT)
        left_codes = codes
    else:
        right = _where(shift > 0, shift, shift * 0)
        left = _where(shift < 0, -shift, shift * 0)
        if not (isinstance(codes, np.ndarray) and codes.dtype == object):
            right = _where(right > _LARGEST_INT64_SHIFT, right * 0 + _LARGEST_INT64_SHIFT, right)
        left_codes = codes << left
    floor = left_codes >> right
    if rounding == "TRN":
        return floor, floor
    remainder = left_codes - (floor << right)
    if isinstance(right, int):
        half = 1 << (right - 1)
    else:
        # Where nothing is dropped the remainder is 0; a half of 1 then stands for "no tie".
        half = (right * 0 + 1) << _where(right > 0, right - 1, right * 0)
    up = _round_up(left_codes, floor, remainder, half, rounding)
    return floor + _as_integer(up, floor), floor


def _as_integer(condition: Any, like: Any) -> Any:
    if isinstance(like, np.ndarray) and like.dtype == object:
        return np.where(condition, 1, 0).astype(object)
    if isinstance(condition, np.ndarray | np.generic):
        return np.asarray(condition).astype(np.int64)
    return condition.to(like.dtype)


def code_range(width: int, signed: bool, overflow: str = "SAT") -> tuple[int, int]:
    """Smallest and largest code of a format; ``SAT_SYM`` never gives the most negative code."""
    if not signed:
        return 0, (1 << width) - 1
    high = (1 << (width - 1)) - 1
    return (-high if overflow == "SAT_SYM" else -high - 1), high


def wrap(values: Any, width: int, signed: bool) -> Any:
    """The low ``width`` bits of integers, read as two's complement when ``signed``."""
    low = values & ((1 << width) - 1)
    if not signed:
        return low
    top = 1 << (width - 1)
    return low - ((low & top) << 1)


def overflow_codes(
    values: Any, floor: Any, width: int, signed: bool, overflow: str, outside: Any = None
) -> Any:
    """Bring rounded integers into the range of a format.

    ``floor`` is the floor of the unrounded values; only ``WRAP_SM`` looks at it (its lowest deleted bit).
    ``outside`` says which
    values are out of range, for a caller who passes only the low bits of larger values.
    """
    low, high = code_range(width, signed, overflow)
    if overflow in ("SAT", "SAT_SYM"):
        if isinstance(values, np.ndarray):
            return np.minimum(np.maximum(values, low), high)
        return values.clamp(low, high)
    if outside is None:
        outside = (values < low) | (values > high)
    if overflow == "SAT_ZERO":
        return _where(outside, values * 0, values)
    wrapped = wrap(values, width, signed)
    if overflow == "WRAP":
        return wrapped
    if overflow != "WRAP_SM":
        raise ValueError(f"unknown overflow mode {overflow!r}")
    deleted = (floor >> width) & 1
    top = (values >> (width - 1)) & 1
    mask = (1 << width) - 1
    inverted = ((~values) & mask & ~(1 << (width - 1))) | (deleted << (width - 1))
    return _where(outside & (deleted != top), wrap(inverted, width, signed), wrapped)


def cast_codes(
    codes: Any, shift: Any, width: int, signed: bool, rounding: str = "RND_CONV", overflow: str = "SAT"
) -> Any:
    """The ``cast`` operator on integers.

    Args:
        codes: input codes, numpy ``int64`` (magnitude below 2**61, also after a left shift), numpy
            ``object``, or torch ``int64``.
        shift: input binary point minus result binary point, an integer or an array that broadcasts against
            ``codes``.
    """
    rounded, floor = shift_round(codes, shift, rounding)
    return overflow_codes(rounded, floor, width, signed, overflow)
