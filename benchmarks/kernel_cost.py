"""What each stream kernel costs: a typical size of every module of `rtl/kernels` that the generator places.

    python benchmarks/kernel_cost.py [--json] [--fmax] [--only REGEX] [--jobs 2]

Yosys' 7-series primitives, DSP blocks allowed; memories hold random numbers (seed 0). Lanes and widths are
those of a layer of an 8-bit network: four elements of 8 bits per beat, eight by four products in a matrix.
Latency is in cycles. Every kernel starts a step per cycle; cycles per frame follow from its steps
(docs/kernels.md). `--fmax` also places and routes each for a Lattice ECP5-85F.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import qfx.cost
from qfx.cost.table import defaults
from qfx.environment import machine, versions
from qfx.rtl import library
from qfx.rtl.arithmetic import digit_slots
from qfx.rtl.design import Kernel
from qfx.rtl.emit import sources


@dataclass(frozen=True)
class Point:
    """A kernel with parameters, and its memories: depth and bits of a word, by parameter."""

    module: str
    size: str
    parameters: dict[str, int | str]
    memories: dict[str, tuple[int, int]]


def point(module: str, size: str, numbers: str, **memories: tuple[int, int]) -> Point:
    """Parameters are written as ``P=4 RAM_STYLE=block``."""
    pairs = (pair.split("=") for pair in numbers.split())
    parameters = {name: int(v) if re.fullmatch(r"-?\d+", v) else v for name, v in pairs}
    return Point(module, size, parameters, memories)


PLAIN = "DIGITS=1 FINE=1 PLACES=1 ZERO=1"
KINDS = ("integers", "integers, no DSP", "K-hot weights, K=2", "E4M3 by E4M3", "one bit each")


def codes(kind: int) -> tuple[str, int, int]:
    """For a way to multiply (docs/kernels.md, `KIND`): parameters, bits of a weight and of the sum."""
    if kind == 2:
        digits, fine, places = digit_slots(8, 2)
        bits = digits * (1 + (fine.bit_length() - 1) + places.bit_length())
        slots = f"DIGITS={digits} FINE={fine} PLACES={places} ZERO=1"
        return f"KIND=2 A_WIDTH=8 A_SIGNED=0 W_WIDTH={bits} W_SIGNED=1 {slots}", bits, 24
    if kind == 3:
        return f"KIND=3 A_WIDTH=8 A_SIGNED=1 W_WIDTH=8 W_SIGNED=1 {PLAIN} A_EXP=4 W_EXP=4", 8, 44
    if kind == 4:
        return f"KIND=4 A_WIDTH=1 A_SIGNED=0 W_WIDTH=1 W_SIGNED=0 {PLAIN}", 1, 8
    return f"KIND={kind} A_WIDTH=8 A_SIGNED=0 W_WIDTH=8 W_SIGNED=1 {PLAIN}", 8, 24


def products() -> list[Point]:
    """Matrices, depthwise convolutions and scales."""
    found = []
    for kind, title in enumerate(KINDS):
        numbers, bits, acc = codes(kind)
        numbers += f" GROUPS=1 SHIFT=0 HAS_BIAS=1 ACC_WIDTH={acc}"
        matrix, size = f"SIMD=8 PE=4 SF=4 NF=4 {numbers}", f"32 x 16 by 8 x 4, {title}"
        words, biases = (16, 32 * bits), (4, 4 * acc)
        found.append(point("qfx_matvec", size, matrix, WEIGHT_FILE=words, BIAS_FILE=biases))
        if kind == 0:
            found.append(point("qfx_matvec_stream", size, matrix, BIAS_FILE=biases))
        if kind < 4:
            depthwise = "P=4 K=9 " + numbers.replace("GROUPS=1", "GROUPS=4")
            size, words = f"3 x 3, 4 of 16 channels, {title}", (36, 4 * bits)
            found.append(point("qfx_depthwise", size, depthwise, WEIGHT_FILE=words, BIAS_FILE=biases))
    affine = (
        "P=4 BEATS=4 IN_WIDTH=8 IN_SIGNED=1 SCALE_WIDTH=8 SCALE_SIGNED=1 OUT_WIDTH=18 SHIFT=0 HAS_OFFSET=1 "
        f"{PLAIN}"
    )
    files = {"SCALE_FILE": (4, 32), "OFFSET_FILE": (4, 72)}
    matmul = "SIMD=8 PE=4 SF=2 NF=4 ROWS=16 B_LAYOUT=0 A_WIDTH=8 A_SIGNED=1 B_WIDTH=8 B_SIGNED=1 OUT_WIDTH=20"
    return [
        *found,
        point("qfx_affine", "4 of 16 channels", f"{affine} KIND=0", **files),
        point("qfx_affine", "4 of 16 channels, no DSP", f"{affine} KIND=1", **files),
        point("qfx_matmul", "16 x 16 by 16 x 16, 8 x 4", matmul),
    ]


def casts() -> list[Point]:
    """Casts of 24-bit sums to eight bits or less, and encoders."""
    x = "P=4 IN_WIDTH=24 IN_SIGNED=1"
    plain = f"{x} SHIFT=12 OUT_WIDTH=8 OUT_SIGNED=1 ROUNDING=6 OVERFLOW=0"
    minifloat = f"{x} SHIFT=5 OUT_WIDTH=19 OUT_SIGNED=1 ROUNDING=6 SATURATE=1 PRECISION=4 LIMIT={480 << 9}"
    digits = f"{x} SHIFT=12 CSD=1 OUT_WIDTH=9 OUT_SIGNED=1 SATURATE=1 LIMIT=128"
    block = (
        "P=32 IN_WIDTH=16 IN_SIGNED=1 SIZE=32 TOP=4 PRECISION=2 OUT_WIDTH=17 OUT_SIGNED=1 ROUNDING=6 "
        "SATURATE=1 LARGEST=12"
    )
    channels = f"{plain} PER_CHANNEL=1 BEATS=4 ALIGN_MAX=7"
    return [
        point("qfx_cast_stream", "24 to 8 bits, nearest even, saturating", f"{plain} PER_CHANNEL=0"),
        point("qfx_cast_stream", "the same, a point per channel", channels, ALIGN_FILE=(4, 12)),
        point("qfx_cast_minifloat", "24 bits to E4M3", minifloat),
        point("qfx_cast_khot", "24 bits to powers of two", digits.replace("CSD=1", "CSD=0 K=1")),
        point("qfx_cast_khot", "24 bits to two signed digits", f"{digits} K=2"),
        point("qfx_cast_block", "32 of 16 bits to MXFP4", block),
        point("qfx_cast_binary", "24 bits to signs", f"{x} OUT_WIDTH=2"),
        point("qfx_encode_minifloat", "19 bits to E4M3 codes", "P=4 IN_WIDTH=19 IN_SIGNED=1 EXP=4 MAN=3"),
        point("qfx_decode_float", "E4M3 codes to 19 bits", "P=4 EXP=4 MAN=3 SIGNED=1 OUT_WIDTH=19"),
        point("qfx_encode_binary", "signs to codes", "P=4 IN_WIDTH=2"),
    ]


def functions() -> list[Point]:
    """One operand or two, element by element."""
    x = "P=4 IN_WIDTH=8 IN_SIGNED=1"
    two = "P=4 WIDTH0=8 SIGNED0=1 SHIFT0=0 WIDTH1=8 SIGNED1=1"
    bounds = "OUT_WIDTH=8 SHIFT=0 BOUND_WIDTH=8 HAS_LOW=1 LOW=0 HAS_HIGH=1 HIGH=96 PER_CHANNEL=0"
    table = "P=2 IN_WIDTH=8 IN_SIGNED=1 PRECISION=0 FIRST=128 DEPTH=256 OUT_WIDTH=8"
    parabolas = (
        "P=1 IN_WIDTH=12 IN_SIGNED=1 FIRST=2048 SHIFT=7 SEGMENTS=32 DEGREE=2 C_WIDTH=12 LEFT0=10 LEFT1=4 "
        "LEFT2=0 OUT_WIDTH=27"
    )
    root = (
        "P=1 IN_WIDTH=16 IN_SIGNED=0 WIDE=17 OFFSET=1 LEAST=1 ROOT=2 PARITY=0 TOP=16 BITS=8 SHIFT=4 "
        "SEGMENTS=48 DEGREE=1 C_WIDTH=12 GUARD=2 OUT_WIDTH=20"
    )
    return [
        point("qfx_relu", "8 bits", f"{x} OUT_WIDTH=7"),
        point("qfx_leaky_relu", "slope 1/8", f"{x} OUT_WIDTH=12 SLOPE_FRAC=3 SLOPE_WIDTH=2 SLOPE=1"),
        point("qfx_clip", "8 bits, both bounds", f"{x} {bounds}"),
        point("qfx_binary", "8 + 8 bits, other binary points", f"{two} SHIFT1=1 MODE=0 OUT_WIDTH=10"),
        point("qfx_binary", "8 x 8 bits", f"{two} SHIFT1=0 MODE=2 OUT_WIDTH=16"),
        point("qfx_table", "any function of 8 bits", table, TABLE_FILE=(256, 8)),
        point("qfx_piecewise", "12 bits, 32 parabolas", parabolas, COEFFICIENT_FILE=(32, 36)),
        point("qfx_inverse_root", "1 / sqrt of 16 bits", root, COEFFICIENT_FILE=(48, 24)),
    ]


def windows() -> list[Point]:
    """Windows, pools and reductions."""
    window = (
        "WIDTH=32 BEATS=4 GROUPS=1 IN_H=16 IN_W=16 OUT_H=16 OUT_W=16 KERNEL_H=3 KERNEL_W=3 STRIDE_H=1 "
        "STRIDE_W=1 DILATION_H=1 DILATION_W=1 PAD_TOP=1 PAD_LEFT=1 PAD_VALUE=0 DEPTH=144"
    )
    pool = "P=4 K=4 IN_WIDTH=8 IN_SIGNED=1 SCALE_WIDTH=2 SCALE=1"
    axis = "P=1 SIMD=8 N=8 INNER=1 IN_WIDTH=8 IN_SIGNED=1"
    return [
        point("qfx_window", "3 x 3 of 16 x 16 x 16, LUT RAM", f"{window} RAM_STYLE=distributed"),
        point("qfx_window", "the same, block RAM", f"{window} RAM_STYLE=block"),
        point("qfx_pool", "maximum of 4", f"{pool} MODE=0 OUT_WIDTH=8"),
        point("qfx_pool", "sum of 4", f"{pool} MODE=1 OUT_WIDTH=10"),
        point("qfx_reduce", "maximum of 64", f"{axis} MODE=0 OUT_WIDTH=8"),
        point("qfx_reduce", "sum of 64", f"{axis} MODE=1 OUT_WIDTH=14"),
    ]


def streams() -> list[Point]:
    """What only moves and stores beats."""
    cut = (
        "WIDTH=32 A=16 A_START=2 A_STEP=1 A_COUNT=12 B=16 B_START=0 B_STEP=2 B_COUNT=8 C=4 C_START=0 "
        "C_STEP=1 C_COUNT=4"
    )
    rows = "IN_WIDTH=6 IN_SIGNED=0 ROWS=64 BEATS=4 P=4 WIDTH=8"
    zeros = "WIDTH=32 IN_H=8 IN_W=8 BEATS=4 FACTOR_H=2 FACTOR_W=2"
    return [
        point("qfx_fifo", "32 beats of 32 bits, LUT RAM", "WIDTH=32 DEPTH=32 STYLE=0"),
        point("qfx_fifo", "512 beats of 32 bits, block RAM", "WIDTH=32 DEPTH=512 STYLE=1"),
        point("qfx_fork", "two ways", "WIDTH=32 N=2"),
        point("qfx_upsize", "1 to 4 elements of 8 bits", "WIDTH=8 IN=1 OUT=4"),
        point("qfx_downsize", "4 to 1 elements of 8 bits", "WIDTH=8 IN=4 OUT=1"),
        point("qfx_concat", "4 and 4 beats of 32 bits", "WIDTH=32 BEATS0=4 BEATS1=4 WAIT=0"),
        point("qfx_reorder", "64 beats of 32 bits", "WIDTH=32 LENGTH=64", ADDRESS_FILE=(64, 6)),
        point("qfx_slice", "12 rows, every other column of 16 x 16", cut),
        point("qfx_repeat", "4 beats, 4 times", "P=4 WIDTH=8 SPREAD=1 BLOCK=4 TIMES=4"),
        point("qfx_insert_zeros", "8 x 8 pixels, every other", zeros),
        point("qfx_constant", "16 beats of 32 bits", "WIDTH=32 BEATS=16", DATA_FILE=(16, 32)),
        point("qfx_gather", "64 rows of 16 elements", rows, TABLE_FILE=(256, 32)),
    ]


SECTIONS = {
    "products": products,
    "casts": casts,
    "elements and functions": functions,
    "windows and reductions": windows,
    "streams": streams,
}
#: Latency of those that have no steps.
WITHOUT_STEPS = {"qfx_fifo": 1, "qfx_fork": 0}


def memory(what: Point, parameter: str) -> str:
    """The text of a memory of random words, always the same; of ``qfx_reorder``, a permutation."""
    depth, bits = what.memories[parameter]
    random = np.random.default_rng([0, zlib.crc32(f"{what.module} {parameter}".encode())])
    if what.module == "qfx_reorder":
        words = [int(word) for word in random.permutation(depth)]
    else:
        words = [int.from_bytes(random.bytes((bits + 7) // 8), "little") % (1 << bits) for _ in range(depth)]
    return "".join(f"{word:0{(bits + 3) // 4}x}\n" for word in words)


def measured(section: str, what: Point, fmax: bool) -> dict[str, Any]:
    """One row: what the kernel costs, and its latency."""
    with tempfile.TemporaryDirectory(prefix="qfx-kernel-") as scratch:
        files = {name: Path(scratch) / f"{name.lower()}.mem" for name in what.memories}
        for name, path in files.items():
            path.write_text(memory(what, name))
        parameters = what.parameters | {name: path.name for name, path in files.items()}
        kernel = qfx.cost.Kernel(what.module, sources((what.module,)), parameters, list(files.values()))
        cost = qfx.cost.measure(kernel, fmax=fmax)
    row: dict[str, Any] = {"section": section, "module": what.module, "size": what.size}
    row |= {"lut": cost.lut, "ff": cost.ff, "carry": cost.carry, "dsp": cost.dsp, "bram18": 2 * cost.bram}
    if what.module in WITHOUT_STEPS:
        row["latency"] = WITHOUT_STEPS[what.module] + int(what.parameters.get("STYLE", 0))
    else:
        parameters = defaults(what.module) | what.parameters
        row["latency"] = library.latency(Kernel("", what.module, parameters, (), (), ""))
    return row | ({"fmax": cost.fmax} if fmax else {})


def show(rows: list[dict[str, Any]]) -> None:
    """A table per section."""
    for section in SECTIONS:
        found = [row for row in rows if row["section"] == section]
        if not found:
            continue
        keys = [key for key in found[0] if key != "section"]
        table = Table(title=section, title_justify="left")
        for key in keys:
            table.add_column(key, justify="left" if key in ("module", "size") else "right")
        for row in found:
            table.add_row(*(f"{row[k]:.0f}" if isinstance(row[k], float) else str(row[k]) for k in keys))
        Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    parser.add_argument("--fmax", action="store_true", help="also place and route for an ECP5")
    parser.add_argument("--only", default="", help="regular expression on module and size")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    wanted = [
        (section, what)
        for section, make in SECTIONS.items()
        for what in make()
        if re.search(options.only, f"{what.module} {what.size}")
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda pair: measured(*pair, options.fmax), wanted))
    if options.json or not sys.stdout.isatty():
        command = " ".join(["benchmarks/kernel_cost.py", *sys.argv[1:]])
        result = {"command": command, "rows": rows, "versions": versions(), "machine": machine()}
        print(json.dumps(result, indent=1))
    else:
        show(rows)


if __name__ == "__main__":
    main()
