"""What it saves to keep weights in block formats (OCP MX) as codes of elements and a shift per block: one
trained perceptron (16-64-32-32-5) in Yosys' 7-series primitives.

    python benchmarks/block_cost.py [--json] [--formats MXFP4 MXINT8] [--ways blocks integers]
                                    [--pe 2] [--simd 16]

Each network is measured twice with the same folds: as it is, and with the format of its weights forgotten, so
that they are integers on the finest grid of their layer. Weights in look-up tables, no DSP blocks (`-nodsp`);
both designs are first simulated and compared with the interpreter.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from khot_cost import counted, train
from rich.console import Console
from rich.table import Table

import qfx
from qfx.cost import measure
from qfx.environment import machine, versions
from qfx.graph import Graph, ops
from qfx.rtl.design import Design

SIZES = (16, 64, 32, 32, 5)
FORMATS = {
    "MXFP4": qfx.MXFP4(),
    "MXFP6 E2M3": qfx.MXFP6("e2m3"),
    "MXFP6 E3M2": qfx.MXFP6("e3m2"),
    "MXINT8": qfx.MXINT8(),
}
WAYS = ("blocks", "integers")
SAMPLES = 16


def forgotten(graph: Graph) -> Graph:
    """The graph with weights that are just integers."""
    nodes = [
        replace(n, op=replace(n.op, weight_encoding=None)) if isinstance(n.op, ops.Linear) else n
        for n in graph.nodes
    ]
    return Graph(nodes, graph.output)


def weight_bits(design: Design) -> int:
    """Bits of the memories of weights and of the scales of their blocks."""
    names = ("WEIGHT_FILE", "SCALES_FILE")
    found = [k.memories[name] for k in design.kernels for name in names if name in k.memories]
    return sum(memory.depth * memory.bits for memory in found)


def measured(graph: Graph, pe: int, simd: int) -> dict[str, Any]:
    """One design, simulated, then synthesized."""
    matrices = [n for n in graph.nodes if isinstance(n.op, ops.Linear)]
    fold = {}
    for n in matrices:
        outputs, inputs = n.op.weight.shape
        lanes = max(d for d in range(1, pe + 1) if outputs % d == 0)
        fold[n.name] = {"pe": lanes, "simd": max(d for d in range(1, simd + 1) if inputs % d == 0)}
    x = np.random.default_rng(0).normal(size=(SAMPLES, SIZES[0])) * 0.3
    with tempfile.TemporaryDirectory(prefix="qfx-block-") as folder:
        design = qfx.rtl.generate(
            graph, Path(folder) / "rtl", fold=fold, multipliers="lut", weights=dict.fromkeys(fold, "lut")
        )
        if not np.array_equal(qfx.sim.run(design, x).outputs, graph.run(x)):
            raise SystemExit("the design and the graph differ")
        cost = measure(design, dsp=False, timeout_s=4 * 3600)
    bits, count = weight_bits(design), sum(n.op.weight.size for n in matrices)
    return {
        **counted(cost), "weight_memory_bits": bits, "bits_per_weight": bits / count,
        "interval": design.interval, "latency": design.latency, "tool": f"{cost.tool} {cost.version}",
        "folds": fold,
        "matrices": {
            design.graph[k.node].path or k.node: {
                name: k.number(name) for name in ("KIND", "W_WIDTH", "BLOCK", "HOLD", "SCALE_WIDTH")
            }
            for k in design.kernels
            if k.module == "qfx_matvec"
        },
    }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="-".join(map(str, SIZES)), title_justify="left")
    keys = ("lut", "ff", "carry", "weight_memory_bits", "bits_per_weight", "interval")
    for key in ("format", "accuracy", "weights as", *keys):
        table.add_column(key, justify="left" if key in ("format", "weights as") else "right")
    for row in rows:
        for how in (way for way in WAYS if way in row):
            cells = (f"{v:.2f}" if isinstance(v, float) else str(v) for v in (row[how][k] for k in keys))
            table.add_row(row["format"], f"{row['accuracy']:.3f}", how, *cells)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["MXFP4", "MXINT8"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="to keep the weights")
    parser.add_argument("--pe", type=int, default=2, help="outputs per cycle of a layer, at most")
    parser.add_argument("--simd", type=int, default=16, help="inputs per cycle of a layer, at most")
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    rows = []
    for name, (graph, accuracy) in train({n: FORMATS[n] for n in options.formats}, SIZES, ()).items():
        row: dict[str, Any] = {"format": name, "accuracy": accuracy}
        for way in options.ways:
            kept = graph if way == "blocks" else forgotten(graph)
            row[way] = measured(kept, options.pe, options.simd)
        if len(options.ways) == len(WAYS):
            for key in ("lut", "weight_memory_bits"):
                row[f"{key}_ratio"] = row["blocks"][key] / row["integers"][key]
        rows.append(row)
    if options.json or not sys.stdout.isatty():
        result = {
            "command": " ".join(["benchmarks/block_cost.py", *sys.argv[1:]]), "network": list(SIZES),
            "rows": rows, "versions": versions(), "machine": machine(),
        }  # fmt: skip
        print(json.dumps(result, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
