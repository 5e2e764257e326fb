"""What stands in the memories of a kernel, as far as it decides what the kernel costs: look-up tables of a
ROM by its columns, digits of constant weights.

A design has the words of its memories (:class:`qfx.rtl.design.Memory`); while a folding is only being weighed
they are not there, and :mod:`qfx.cost.features` takes what random words would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qfx.rtl.design import Kernel

#: Words of a bit in one look-up table of six inputs.
TABLE = 64
#: Words of a bit that look-up tables of a slice hold with the multiplexers behind them, MUXF7 and MUXF8.
SLICE = 256
#: Look-up tables of a bit that choose among slices: for the first two, and for each further one. Yosys' own
#: for ROMs of random words: 432 words of 12 bits take 118, 84 of them for the words; 1,000 of 5 bits 116 and
#: 80; 2,000 of 6 bits 266 and 192; 4,800 of 12 bits 1,255 and 900 (tests/cost/test_contents.py, slow).
SELECT_FIRST = 2.9
SELECT = 1.6
#: Words up to which the kernels read a ROM amid other logic; deeper ones stand apart (``qfx_rom``).
APART = 32
#: Where elements are, and the parameter that has their width.
_WIDTHS = {"WEIGHT_FILE": "W_WIDTH", "SCALE_FILE": "SCALE_WIDTH"}


def of(kernel: Kernel) -> dict[str, float]:
    """Numbers by the name of the memory (``weight``, ``bias``, …) and what is counted.

    ``…_lut``: look-up tables of a memory of several words, each distinct column by its 64-word pieces that
    are not constant. ``…_live``: share of columns that are not constant. ``…_ff``: distinct columns that are
    not constant, each a register where the memory has one. Of a single word, wires: ``…_digits``, nonzero
    canonical signed digits of all elements, and ``…_nonzero``, elements that are not zero. Memories in block
    RAM, and those without words, are left out.
    """
    found: dict[str, float] = {}
    for parameter, memory in kernel.memories.items():
        name = parameter.removesuffix("_FILE").lower()
        styled = parameter in ("WEIGHT_FILE", "SCALE_FILE")
        if memory.words is None or styled and kernel.parameters.get("ROM_STYLE") == "block":
            continue
        if memory.depth == 1:
            width = kernel.parameters.get(_WIDTHS.get(parameter, ""))
            if isinstance(width, int):
                signed = bool(kernel.parameters.get(_WIDTHS[parameter].replace("WIDTH", "SIGNED"), 1))
                elements = split(memory.words[0], width, memory.bits // width, signed)
                found[f"{name}_digits"] = float(sum(digits(e) for e in elements))
                found[f"{name}_nonzero"] = float(sum(e != 0 for e in elements))
            continue
        lut, live, distinct = columns(memory.words, memory.bits)
        found |= {
            f"{name}_lut": float(lut),
            f"{name}_live": live / memory.bits,
            f"{name}_ff": float(distinct),
        }
    return found


def columns(words: Sequence[int], bits: int) -> tuple[int, int, int]:
    """Look-up tables of a ROM, its columns that are not constant, and how many of these are distinct."""
    size = -(-bits // 8)
    raw = b"".join(word.to_bytes(size, "little") for word in words)
    rows = np.frombuffer(raw, np.uint8).reshape(len(words), size)
    table = np.unpackbits(rows, axis=1, bitorder="little")[:, :bits]
    alive = (table != table[0]).any(axis=0)
    # Columns as strings of bytes: np.unique(axis=1) on single bits is slow.
    packed = np.ascontiguousarray(np.packbits(table[:, alive], axis=0).T)
    _, first = np.unique(packed.view(f"V{packed.shape[1]}").reshape(-1), return_index=True)
    whole = table[:, alive][:, first]
    distinct = int(whole.shape[1])
    if len(words) <= APART:
        # Together with what reads it: a column and its complement are one, an address bit is none.
        address = np.arange(len(words))[:, None] >> np.arange(max(1, (len(words) - 1).bit_length())) & 1
        kept = {column.tobytes() for column in (whole ^ whole[:1]).T.astype(np.uint8)}
        lut = len(kept - {column.tobytes() for column in address.T.astype(np.uint8)})
        return lut, int(alive.sum()), distinct
    lut = 0
    for start in range(0, len(words), TABLE):
        piece = whole[start : start + TABLE]
        lut += int((piece != piece[0]).any(axis=0).sum())
    return lut + _select(len(words), distinct), int(alive.sum()), distinct


def _select(depth: int, columns: int) -> int:
    """Look-up tables that choose among the slices of a ROM."""
    further = math.ceil(depth / SLICE) - 2
    return 0 if further < 0 else round((SELECT_FIRST + SELECT * further) * columns)


def expected(depth: int, bits: int) -> dict[str, float]:
    """``lut``, ``live`` and ``ff`` of a ROM of random words."""
    if depth <= 1:
        return {"lut": 0.0, "live": 0.0, "ff": 0.0}
    kinds = 2.0 ** min(depth, 60) - 2
    live = bits * (1 - 2 / 2.0 ** min(depth, 60))
    distinct = kinds * -math.expm1(live * math.log1p(-1 / kinds)) if kinds > 1 else min(live, kinds)
    if depth > APART:
        return {
            "lut": distinct * math.ceil(depth / TABLE) + _select(depth, round(distinct)),
            "live": live / bits,
            "ff": distinct,
        }
    functions = kinds / 2
    names = (depth - 1).bit_length()  # address bits are no functions of their own
    each = -math.expm1(live * math.log1p(-1 / functions)) if functions > 1 else 1.0
    return {"lut": max(0.0, functions - names) * each, "live": live / bits, "ff": distinct}


def split(word: int, width: int, count: int, signed: bool) -> list[int]:
    """Elements of a word, element 0 in the lowest bits."""
    elements = [word >> width * i & (1 << width) - 1 for i in range(count)]
    return [e - (1 << width) if signed and e >> (width - 1) else e for e in elements]


def digits(number: int) -> int:
    """Nonzero canonical signed digits."""
    magnitude = abs(number)
    return (magnitude ^ 3 * magnitude).bit_count()
