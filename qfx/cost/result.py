"""The result of a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# How many LUTs of a slice each memory primitive takes (AMD UG474, tables 2-3 and 2-4; UG574 for the last
# two).
LUTRAM = {
    "RAM16X1S": 1, "RAM16X1D": 2, "RAM32X1S": 1, "RAM32X1D": 2, "RAM32M": 4,
    "RAM64X1S": 1, "RAM64X1D": 2, "RAM64M": 4, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM256X1D": 8,
    "RAM512X1S": 8,
    "SRL16": 1, "SRL16E": 1, "SRLC16E": 1,
    "SRLC32E": 1, "RAM32M16": 8, "RAM64M8": 8,
}  # fmt: skip
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "FDRE_1", "FDSE_1", "FDCE_1", "FDPE_1")
LATCHES = ("LDCE", "LDPE")
BRAM36 = ("RAMB36E1", "RAMB36E2")
BRAM18 = ("RAMB18E1", "RAMB18E2")
DSP = ("DSP48E1", "DSP48E2", "DSP48A1")
CARRY = {"CARRY4": 1, "CARRY8": 2}
# Neither logic nor memory: buffers that a tool puts at the ports and clocks.
FREE = ("IBUF", "OBUF", "BUFG", "BUFGCTRL", "GND", "VCC", "INV", "$scopeinfo")


@dataclass(frozen=True)
class InstanceCost:
    """One instance of the top module, everything below it included. Counts as in :class:`Cost`."""

    name: str
    module: str
    lut: int
    lutram: int
    ff: int
    carry: int
    dsp: int
    bram: float


@dataclass(frozen=True)
class Cost:
    """What a module takes on the fabric.

    Attributes:
        lut: look-up tables, logic and memory: LUT1 to LUT6, and the LUTs of distributed RAM and shift
            registers. A synthesis count: no packing of two small functions into one LUT6, which place and
            route can still do.
        lutram: those of ``lut`` that serve as memory.
        ff: flip-flops.
        carry: CARRY4 primitives (a CARRY8 counts as two).
        dsp: DSP48 blocks.
        bram: block RAM in tiles of 36 Kbit; an 18-Kbit half counts 0.5.
        bram36, bram18: the same by primitive.
        latch: level-sensitive latches; 0 in a sound design.
        muxf: MUXF7/F8 multiplexers, which sit behind the LUTs of a slice at no cost in LUTs.
        fmax: highest clock frequency in MHz after place and route, None unless asked for.
        fmax_device: the device that ``fmax`` was found on.
        cells: every primitive with its count.
        warnings: what the tool warned about.
        tool, version: what measured it.
        instances: the instances of the top module one by one, when asked for. Each is synthesised as a module
            of its own, so that their sum differs from the total by what is optimised across boundaries.
        top: the measured module.
    """

    top: str
    lut: int
    lutram: int
    ff: int
    carry: int
    dsp: int
    bram: float
    bram36: int
    bram18: int
    latch: int
    muxf: int
    cells: Mapping[str, int]
    tool: str
    version: str
    warnings: tuple[str, ...] = ()
    fmax: float | None = None
    fmax_device: str | None = None
    instances: tuple[InstanceCost, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cost:
        """The inverse of :meth:`to_dict`."""
        values = dict(data)
        values["warnings"] = tuple(values["warnings"])
        values["instances"] = tuple(InstanceCost(**entry) for entry in values["instances"])
        return cls(**values)


def count(cells: Mapping[str, int]) -> dict[str, Any]:
    """Resources from the number of primitives of each type (the common fields of :class:`Cost`)."""
    memory = sum(LUTRAM[name] * number for name, number in cells.items() if name in LUTRAM)
    logic = sum(number for name, number in cells.items() if name in {f"LUT{i}" for i in range(1, 7)})
    bram36 = sum(cells.get(name, 0) for name in BRAM36)
    bram18 = sum(cells.get(name, 0) for name in BRAM18)
    return {
        "lut": logic + memory,
        "lutram": memory,
        "ff": sum(cells.get(name, 0) for name in FLIP_FLOPS),
        "carry": sum(weight * cells.get(name, 0) for name, weight in CARRY.items()),
        "dsp": sum(cells.get(name, 0) for name in DSP),
        "bram": bram36 + bram18 / 2,
        "bram36": bram36,
        "bram18": bram18,
        "latch": sum(cells.get(name, 0) for name in LATCHES),
        "muxf": sum(cells.get(name, 0) for name in ("MUXF7", "MUXF8", "MUXF9")),
    }


def unknown(cells: Mapping[str, int]) -> list[str]:
    """Cell types that :func:`count` knows nothing about; a count that ignored them would be wrong."""
    known = {f"LUT{i}" for i in range(1, 7)} | {"MUXF7", "MUXF8", "MUXF9"}
    known |= {*LUTRAM, *FLIP_FLOPS, *LATCHES, *BRAM36, *BRAM18, *DSP, *CARRY, *FREE}
    return sorted(name for name in cells if name not in known)
