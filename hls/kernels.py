"""The C++ configuration structs of the kernels in ``kernels/*.h``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats import KHot, Minifloat
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph.casts import GappedCast
from qfx.hls.carriers import integer_width

#: Where the headers are; convert copies them into the project.
FOLDER = Path(__file__).resolve().parent / "kernels"

#: Stand for hls4ml's number of the layer and its reuse factor, known only when hls4ml has made it.
INDEX = "@INDEX@"
REUSE = "@REUSE@"


def headers() -> tuple[Path, ...]:
    """All kernel headers, sorted by name."""
    return tuple(sorted(FOLDER.glob("*.h")))


class Struct:
    """A configuration struct being written, member by member."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def constants(self, **values: int | bool) -> None:
        """``static const`` members: unsigned, or bool."""
        for name, value in values.items():
            kind, text = (
                ("bool", str(value).lower()) if isinstance(value, bool) else ("unsigned", str(int(value)))
            )
            self._lines.append(f"    static const {kind} {name} = {text};")

    def number(self, name: str, value: int) -> None:
        """A ``static const int`` member."""
        self._lines.append(f"    static const int {name} = {value};")

    def typedef(self, name: str, target: str) -> None:
        self._lines.append(f"    typedef {target} {name};")

    def accumulator(self, low: int, high: int) -> None:
        """``acc_t``, which holds ``low .. high``."""
        self.typedef("acc_t", f"ap_int<{integer_width(low, high)}>")

    def table(
        self, name: str, values: Sequence[int] | np.ndarray, kind: str | None = None, rom: bool = False
    ) -> None:
        """A member function from an index to a constant; one constant when all are equal.

        Args:
            name: of the function.
            values: constants; the index counts them.
            kind: C++ type; default is the narrowest ``ap_int``.
            rom: the index varies at run time, so the table is a memory; else loops over it are unrolled.
        """
        entries = [int(v) for v in values]
        kind = kind or f"ap_int<{integer_width(min(entries), max(entries))}>"
        body = [f"        return {kind}({literal(entries[0])});"]
        index = "unsigned"
        if len(set(entries)) > 1:
            listed = ", ".join(literal(v) for v in entries)
            body = [
                f"        static const {kind} table[{len(entries)}] = {{{listed}}};",
                "        return table[i];",
            ]
            if not rom:
                body.insert(1, "        #pragma HLS ARRAY_PARTITION variable=table complete")
            index = "unsigned i"
        self._lines += [f"    static {kind} {name}({index}) {{", "        #pragma HLS INLINE", *body, "    }"]

    def array(self, name: str, variable: str, kind: str) -> None:
        """A member function that reads a weight array of the layer."""
        self._lines += [
            f"    static {kind} {name}(unsigned i) {{",
            "        #pragma HLS INLINE",
            f"        #pragma HLS ARRAY_PARTITION variable={variable} complete",
            f"        return {variable}[i];",
            "    }",
        ]

    def cast(self, shifts: Iterable[int], acc_width: int, width: int, rounding: str, overflow: str) -> None:
        """The members of the cast: modes; per channel, bits to drop (positive) or append (negative)."""
        # A shift beyond all bits of the operand, or beyond the result, gives what the nearest shift
        # inside these bounds gives: nothing but a sign is left, or nothing but zeros in the low bits of a
        # value that is out of range.
        clamped = [max(min(s, acc_width + 1), -(width + 2)) for s in shifts]
        self.typedef("cast_t", "qfx::to_fixed")
        self._lines.append(f"    static const unsigned max_left = {max(0, -min(clamped))};")
        self.rounding(rounding)
        self._lines.append(f"    static const int overflow = qfx::{overflow};")
        assert overflow in OVERFLOW
        self.table("shift", clamped, "int")

    def binary_cast(self) -> None:
        """The members of the cast to -1 and 1."""
        self.typedef("cast_t", "qfx::to_binary")

    def gapped_cast(self, cast: GappedCast, fmt: Minifloat | KHot, order: np.ndarray | None) -> None:
        """The members of a cast to a minifloat or a K-hot format.

        Args:
            cast: in the order of the channels of the graph.
            fmt: what is cast to.
            order: index into the flattened tensor, where channels do not stand in the order of the graph.

        Raises:
            UnsupportedError: the limit has more bits than a C++ literal.
        """
        if cast.saturates and cast.limit.bit_length() > 63:
            raise UnsupportedError(
                f"a cast to {fmt} takes {cast.limit.bit_length()} bits here, and constants in HLS C++ have "
                "63: the binary points of its channels are too far apart; use fewer exponent bits, or one "
                "binary point for all channels"
            )
        self.typedef("cast_t", "qfx::to_minifloat" if isinstance(fmt, Minifloat) else "qfx::to_khot")
        self._lines.append(f"    static const int grid = {cast.shift};")
        self.constants(max_align=max(cast.align), saturates=cast.saturates)
        if isinstance(fmt, Minifloat):
            self.constants(precision=cast.precision)
            self.rounding(fmt.rounding)
        else:
            self.constants(digits=cast.digits, csd=fmt.digits == "csd")
            self.rounding("RND_CONV")
        for name, shifts in (("align", cast.align), ("settle", cast.settle)):
            values = np.asarray(shifts)
            self.table(name, values if order is None else values[order], "int")
        self.table("limit", [cast.limit if cast.saturates else 0])

    def rounding(self, mode: str) -> None:
        """The member ``rounding`` of a cast."""
        assert mode in ROUNDING
        self._lines.append(f"    static const int rounding = qfx::{mode};")

    def text(self) -> str:
        """The struct, with :data:`INDEX` and :data:`REUSE` where hls4ml's numbers go."""
        reuse = f"    static const unsigned reuse_factor = {REUSE};"
        return "\n".join([f"struct config{INDEX} {{", reuse, *self._lines, "};", ""])


def literal(value: int) -> str:
    """A C++ integer literal; 64-bit ones marked as such, the lowest without overflow on the way."""
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} does not fit 64 bits")
    if value == -(1 << 63):
        return f"({value + 1}LL - 1)"
    return str(value) if abs(value) < 1 << 31 else f"{value}LL"
