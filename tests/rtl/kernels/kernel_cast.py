"""qfx_cast: what is swept, a wrapper of one combinational instance per point, and its cocotb test."""

from __future__ import annotations

import random
from dataclasses import dataclass

from kernel_golden import OVERFLOWS, ROUNDINGS, cast, code_range


@dataclass(frozen=True)
class Point:
    """Parameters of one qfx_cast."""

    x_width: int
    x_signed: bool
    shift: int
    y_width: int
    y_signed: bool
    rounding: str
    overflow: str

    def golden(self, code: int) -> int:
        return cast(code, self.shift, self.y_width, self.y_signed, self.rounding, self.overflow)


def modes(y_signed: bool) -> list[tuple[str, str]]:
    """All rounding and overflow modes; WRAP_SM is for signed results."""
    return [(r, o) for r in ROUNDINGS for o in OVERFLOWS if y_signed or o != "WRAP_SM"]


def exhaustive(width: int, shifts: range, y_widths: tuple[int, ...]) -> list[Point]:
    """All modes and signs; where nothing is shifted out one rounding stands for all."""
    return [
        Point(width, x_signed, shift, y_width, y_signed, rounding, overflow)
        for x_signed in (False, True)
        for y_signed in (False, True)
        for shift in shifts
        for y_width in y_widths
        for rounding, overflow in modes(y_signed)
        if shift > 0 or rounding == "RND_CONV"
    ]


def wide(count: int, seed: int) -> list[Point]:
    """Random points with words to 40 bits and shifts beyond the word."""
    rng = random.Random(seed)
    points = []
    for _ in range(count):
        y_signed = rng.random() < 0.6
        rounding, overflow = rng.choice(modes(y_signed))
        x_width = rng.randint(1, 40)
        points.append(
            Point(
                x_width,
                rng.random() < 0.7,
                rng.randint(-12, x_width + 8),
                rng.randint(1, 40),
                y_signed,
                rounding,
                overflow,
            )
        )
    return points


def sweep(name: str) -> list[Point]:
    """The points of a named sweep (both sides draw the same)."""
    if name == "5 bits":
        return exhaustive(5, range(-1, 9), (1, 2, 3, 6))
    if name == "4 bits":
        # Rounding and overflow are two steps: all pairs at one shift, elsewhere each mode with one other.
        points = exhaustive(4, range(-1, 7), (1, 3))
        return [p for p in points if p.shift == 2 or p.overflow == "SAT" or p.rounding == "RND_CONV"]
    if name == "1 bit":
        return exhaustive(1, range(-2, 5), (1, 2, 3))
    if name == "8 bits":
        return [p for p in exhaustive(8, range(0, 8, 2), (4, 7)) if p.x_signed]
    return wide(300, 7)


def wrapper(points: list[Point], top: str) -> str:
    """One instance per point; inputs are the low bits of one `x`, results stand side by side in `y`."""
    x_bits = max(p.x_width for p in points)
    total = sum(p.y_width for p in points)
    body, position = [], 0
    for i, p in enumerate(points):
        parameters = {
            "IN_WIDTH": p.x_width,
            "IN_SIGNED": int(p.x_signed),
            "SHIFT": p.shift,
            "OUT_WIDTH": p.y_width,
            "OUT_SIGNED": int(p.y_signed),
            "ROUNDING": ROUNDINGS.index(p.rounding),
            "OVERFLOW": OVERFLOWS.index(p.overflow),
        }
        values = ", ".join(f".{name}({value})" for name, value in parameters.items())
        ports = f".x(x[{p.x_width - 1}:0]), .y(y[{position} +: {p.y_width}])"
        body.append(f"  qfx_cast #({values}) i{i} ({ports});")
        position += p.y_width
    return (
        f"module {top} (input wire [{x_bits - 1}:0] x /* verilator public_flat_rw */, "
        f"output wire [{total - 1}:0] y /* verilator public_flat_rw */);\n"
        + "\n".join(body)
        + "\nendmodule\n"
    )


def stimuli(points: list[Point]) -> list[int]:
    """All words of narrow inputs; for wide ones the ends, ties, and random words."""
    bits = max(p.x_width for p in points)
    if bits <= 10:
        return list(range(1 << bits))
    rng = random.Random(3)
    words = [0, (1 << bits) - 1]
    words += (
        [1 << i for i in range(bits)]
        + [(1 << i) - 1 for i in range(bits)]
        + [3 << i for i in range(bits - 1)]
    )
    words += [rng.getrandbits(bits) for _ in range(300)]
    words += [rng.getrandbits(bits) & ~((1 << rng.randrange(bits)) - 1) for _ in range(200)]
    return words


def expected(points: list[Point], word: int) -> int:
    """The value of `y` for an `x`."""
    y, position = 0, 0
    for p in points:
        code = word & ((1 << p.x_width) - 1)
        if p.x_signed and code > code_range(p.x_width, True)[1]:
            code -= 1 << p.x_width
        y |= (p.golden(code) & ((1 << p.y_width) - 1)) << position
        position += p.y_width
    return y


def differences(points: list[Point], word: int, observed: int) -> list[str]:
    """What differs from the golden result, in words."""
    found, position = [], 0
    for p in points:
        mask = (1 << p.y_width) - 1
        want = expected([p], word)
        got = observed >> position & mask
        position += p.y_width
        if got != want:
            found.append(f"{p}: x = {word & ((1 << p.x_width) - 1):#x} gives {got:#x}, not {want:#x}")
    return found
