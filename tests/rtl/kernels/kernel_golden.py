"""Golden arithmetic of the kernels in Python integers, written from docs/graph.md, not from the Verilog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil, floor, trunc

import numpy as np

ROUNDINGS = ("TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV")
OVERFLOWS = ("SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM")


def code_range(width: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest code."""
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)


def to_signed(value: int, width: int, signed: bool) -> int:
    """The code whose low `width` bits are those of `value`."""
    value &= (1 << width) - 1
    return value - (1 << width) if signed and value >> (width - 1) else value


def round_to_integer(v: Fraction, rounding: str) -> int:
    """Step 1 of the cast."""
    if rounding == "TRN":
        return floor(v)
    if rounding == "TRN_ZERO":
        return trunc(v)
    below, above = floor(v), ceil(v)
    if v - below != Fraction(1, 2):
        return below if v - below < Fraction(1, 2) else above
    if rounding == "RND":
        return above
    if rounding == "RND_MIN_INF":
        return below
    if rounding == "RND_ZERO":
        return below if v > 0 else above
    if rounding == "RND_INF":
        return above if v > 0 else below
    return below if below % 2 == 0 else above


def cast(code: int, shift: int, width: int, signed: bool, rounding: str, overflow: str) -> int:
    """The cast of docs/graph.md, section 2, with s = `shift`."""
    exact = Fraction(code) * Fraction(2) ** -shift
    v = round_to_integer(exact, rounding)
    low, high = code_range(width, signed)
    if overflow == "SAT_SYM" and signed:
        low = -high
    if low <= v <= high:
        return v
    if overflow in ("SAT", "SAT_SYM"):
        return low if v < low else high
    if overflow == "SAT_ZERO":
        return 0
    if overflow == "WRAP":
        return to_signed(v, width, signed)
    deleted = (floor(exact) >> width) & 1
    top = (v >> (width - 1)) & 1
    bits = v & ((1 << width) - 1)
    if deleted != top:
        bits = ~bits & ((1 << (width - 1)) - 1) | deleted << (width - 1)
    return to_signed(bits, width, True)


def pack(elements: Iterable[int], width: int) -> int:
    """A beat, or a memory word: element 0 in the lowest bits."""
    word = 0
    for i, element in enumerate(elements):
        word |= (int(element) & ((1 << width) - 1)) << (i * width)
    return word


def pack_beats(elements: np.ndarray, lanes: int, width: int) -> list[int]:
    """A flat array of elements as beats of `lanes` elements."""
    return [pack(row, width) for row in np.asarray(elements).reshape(-1, lanes)]


def random_codes(rng: np.random.Generator, shape: Sequence[int], width: int, signed: bool) -> np.ndarray:
    """Codes of the whole range, its ends drawn more often than the rest. Object arrays: no overflow ever."""
    low, high = code_range(width, signed)
    flat = [
        int(rng.choice([low, high, 0]))
        if rng.random() < 0.2
        else low + int(rng.integers(0, 2**62)) % (high - low + 1)
        for _ in range(int(np.prod(shape)))
    ]
    return np.array(flat, dtype=object).reshape(shape)
