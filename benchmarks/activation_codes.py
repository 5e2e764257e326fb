"""Memory that activations in codes save: a residual network with E4M3 activations, before and after.

    python benchmarks/activation_codes.py [--json] [--size 32] [--yosys]

Stem, a residual block of two 3x3 convolutions, 2x2 maxima, a convolution, a global average, a classifier;
weights of 4 bits are random. "integers" is the same network with integers in FIFOs before
additions and in the window of the maxima, as `qfx.rtl.lower.CODES_FROM` beyond all bounds gives it. Bits are
those of FIFOs and windows; look-up tables, flip-flops and block RAMs are the estimate's, with `--yosys` also
those of Yosys for 7-series, of the kernels that only one of the two designs has.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import qfx
import qfx.cost
from qfx.environment import machine, versions
from qfx.graph import Graph, GraphBuilder, ops
from qfx.rtl.design import Kernel
from qfx.rtl.emit import sources

E4M3, W4 = qfx.Minifloat(4, 3), qfx.FixedPoint(4, 3)
LOWER = importlib.import_module("qfx.rtl.lower")
MEMORIES = ("qfx_fifo", "qfx_window")


def network(size: int, channels: int = 16) -> Graph:
    """The network for pictures of ``size`` by ``size``."""
    rng = np.random.default_rng(0)
    builder = GraphBuilder()

    def conv(x: str, out: int) -> str:
        codes = rng.integers(-8, 8, (out, builder.tensor(x).channels, 3, 3))
        op = ops.Conv(codes, W4, None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
        return builder.add(ops.Cast(E4M3), (builder.add(op, (x,), "conv"),), "cast")

    x = builder.add(ops.Input((3, size, size), qfx.FixedPoint(8, 6)), (), "input")
    x = conv(x, channels)
    x = builder.add(ops.Add(), (x, conv(conv(x, channels), channels)), "add")
    x = builder.add(ops.Cast(E4M3), (x,), "cast")
    x = conv(builder.add(ops.MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), (x,), "pool"), 2 * channels)
    half = size // 2
    x = builder.add(
        ops.AvgPool((half, half), (1, 1), ((0, 0), (0, 0)), 1, 2 * (half.bit_length() - 1)), (x,), "mean"
    )
    x = builder.add(ops.Cast(E4M3), (x,), "cast")
    x = builder.add(ops.Reshape((2 * channels,)), (x,), "flat")
    return builder.build(
        builder.add(ops.Linear(rng.integers(-8, 8, (10, 2 * channels)), W4, None, None), (x,), "fc")
    )


def facts(design: qfx.rtl.Design) -> dict[str, Any]:
    """What a design holds and costs by the estimate."""
    memories = [k for k in design.kernels if k.module in MEMORIES]
    return {
        "interval": design.interval,
        "latency": design.latency,
        "bits": sum(k.number("DEPTH") * k.number("WIDTH") for k in memories),
        "estimate": dict(design.estimate),
    }


def synthesized(kernels: Iterable[Kernel]) -> dict[str, Any]:
    """What Yosys makes of some kernels, each by itself."""
    found = [
        qfx.cost.measure(qfx.cost.Kernel(k.module, sources((k.module,)), dict(k.parameters))) for k in kernels
    ]
    return {
        "kernels": len(found),
        "lut": sum(cost.lut for cost in found),
        "ff": sum(cost.ff for cost in found),
        "bram18": sum(round(2 * cost.bram) for cost in found),
    }


def without(kernels: Iterable[Kernel], others: Iterable[Kernel]) -> list[Kernel]:
    """Kernels that have no counterpart of the same parameters among others."""
    known = Counter((k.module, *sorted(k.parameters.items())) for k in others)
    left = []
    for kernel in kernels:
        key = (kernel.module, *sorted(kernel.parameters.items()))
        known[key] -= 1
        if known[key] < 0:
            left.append(kernel)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=32, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--interval", type=int, action="append", help="cycles per frame (default: two)")
    parser.add_argument("--yosys", action="store_true", help="synthesize the kernels that differ")
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    graph = network(options.size)
    usual, rows = LOWER.CODES_FROM, []
    for interval in options.interval or (9 * options.size**2, 36 * options.size**2):
        designs = {}
        for name, least in (("integers", float("inf")), ("codes", usual)):
            LOWER.CODES_FROM = least
            designs[name] = qfx.rtl.plan(graph, interval=interval)
        for (name, one), other in zip(designs.items(), reversed(designs.values()), strict=True):
            row = {"streams": name, **facts(one)}
            if options.yosys:
                row["yosys"] = synthesized(without(one.kernels, other.kernels))
            rows.append(row)
    result = {"command": " ".join(["benchmarks/activation_codes.py", *sys.argv[1:]]), "rows": rows}
    if options.json or not sys.stdout.isatty():
        print(json.dumps({**result, "versions": versions(), "machine": machine()}, indent=2))
        return
    table = Table("streams", "interval", "latency", "bits in FIFOs and windows", "estimate", "Yosys")
    for row in rows:
        table.add_row(
            *(str(row.get(k, "")) for k in ("streams", "interval", "latency", "bits", "estimate", "yosys"))
        )
    Console().print(table)


if __name__ == "__main__":
    main()
