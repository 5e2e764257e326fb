"""Golden casts to formats with gaps, in fractions, written from docs/graph.md: search, not digits and
masks."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import cache

from kernel_golden import round_to_integer


def to_minifloat(
    code: int, shift: int, precision: int, limit: int | None, signed: bool, rounding: str
) -> int:
    """`code * 2**-shift` with at most `precision` significant bits, an integer, within the limit."""
    exact = Fraction(code) * Fraction(2) ** -shift
    step = 1
    while abs(exact) >= step << precision:
        step *= 2
    if precision == 1 and rounding == "RND_CONV" and abs(exact) / step in (Fraction(1, 2), Fraction(3, 2)):
        # Codes of positive numbers: 0 of 0, i + 1 of 2**i. The even one of the two beside a tie.
        lower = int(abs(exact) // step) * step
        nearest = lower if lower.bit_length() % 2 == 0 else 2 * lower
        return _within(nearest if exact > 0 else -nearest, limit, signed)
    return _within(round_to_integer(exact / step, rounding) * step, limit, signed)


@cache
def digit_counts(bits: int, csd: bool) -> dict[int, int]:
    """The fewest nonzero digits of every integer up to `2**bits`: breadth first, one digit more at a time."""
    top = 1 << bits
    powers = [1 << i for i in range(bits + 1)]
    counts = {0: 0}
    latest = {0}
    while latest:
        grown = {n + d for n in latest for p in powers for d in ((p, -p) if csd else (p,))}
        # Sums on the way never have to go beyond twice the range.
        latest = {n for n in grown if (-2 * top if csd else 0) <= n <= 2 * top and n not in counts}
        counts |= dict.fromkeys(latest, 1 + max(counts.values()))
    return {n: count for n, count in counts.items() if 0 <= n <= top}


@cache
def members(bits: int, k: int, csd: bool) -> list[int]:
    """All integers up to `2**bits` with at most `k` nonzero digits, in ascending order."""
    return sorted(n for n, count in digit_counts(bits, csd).items() if count <= k)


def to_khot(code: int, shift: int, k: int, csd: bool, limit: int | None, signed: bool, bits: int) -> int:
    """The nearest integer with at most `k` nonzero digits; `bits`: twice any magnitude fits."""
    exact = Fraction(code) * Fraction(2) ** -shift
    table, counts = members(bits, k, csd), digit_counts(bits, csd)
    place = bisect_left(table, abs(exact))
    near = table[max(place - 1, 0) : place + 1]
    best = min(near, key=lambda n: (abs(n - abs(exact)), counts[n], n))
    return _within(best if exact >= 0 else -best, limit, signed)


def to_binary(code: int) -> int:
    """1 for 0 and above."""
    return 1 if code >= 0 else -1


def to_block(
    codes: list[int], top: int, largest: int, precision: int, signed: bool, symmetric: bool, rounding: str
) -> list[int]:
    """A block of elements: integers up to `largest` of at most `precision` significant bits (0: any), in
    units of a power of two (perhaps a fraction) that puts the leading bits of the largest element and of
    the largest number at one place."""
    codes = codes if signed else [max(code, 0) for code in codes]
    length = max(abs(code) for code in codes).bit_length()
    scale = Fraction(2) ** (length - top)
    results = []
    for code in codes:
        unit = to_minifloat_or_fixed(Fraction(code) / scale, precision, rounding)
        low = 0 if not signed else -largest if symmetric else -largest - 1
        result = max(low, min(largest, unit)) * scale if length else Fraction(0)
        assert result.denominator == 1, "docs/graph.md: the result stays on the operand's grid"
        results.append(int(result))
    return results


def to_minifloat_or_fixed(exact: Fraction, precision: int, rounding: str) -> int:
    """The element without its limits."""
    whole = 1 << 64
    code = exact * whole
    assert code.denominator == 1
    return to_minifloat(int(code), 64, precision or 200, None, True, rounding)


def _within(value: int, limit: int | None, signed: bool) -> int:
    if value < 0 and not signed:
        return 0
    return value if limit is None else max(-limit, min(limit, value))
