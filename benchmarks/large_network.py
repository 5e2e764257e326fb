"""A network of 3.5 million weights as Verilog: MobileNetV2, for a ZCU104; its first blocks simulated.

    python benchmarks/large_network.py [--json] [--board zcu104] [--activation 4] [--only generate|blocks]

Weights of 4 bits are random (the initialization of the model), activations are calibrated on noise: what is
measured is the generator, not an accuracy. "generate" is from the graph in memory to the folder of files, all
of them read back and checked; the folding is the fastest that fits the board by the estimate. Peak memory is
that of the whole process, torch and calibration included. "folding" is a network of ten layers: the fastest
within the board, and the cheapest at an interval. "blocks": the first two inverted residual blocks at their
full size, cut out of the same graph, on what reaches them from an image; every output code and every internal
stream that carries a tensor is compared with the interpreter.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import qfx
from qfx import boards, models
from qfx.environment import machine, versions
from qfx.graph import Graph, GraphBuilder, ops
from qfx.rtl import fold
from qfx.rtl.lower import lower

MODEL, IMAGE = "mobilenet_v2", (3, 224, 224)
#: First and last module of each block that is simulated, and how it is called.
BLOCKS = {
    "features.1 (without expansion)": ("features.0.2", "features.1.conv.1"),
    "features.2 (expansion 6, stride 2)": ("features.1.conv.1", "features.2.conv.2"),
}
SAMPLES = 1


def network(activation: int) -> Graph:
    """MobileNetV2 with 4-bit weights and activations of so many bits."""
    torch.manual_seed(0)
    model = models.build(MODEL).eval()
    x = torch.randn(2, *IMAGE)
    four = qfx.FixedPoint(4)
    config = qfx.Config(weight=four, activation=qfx.FixedPoint(activation), input=qfx.FixedPoint(8))
    q = qfx.prepare(model, x[:1], config)
    qfx.calibrate(q, [x])
    return qfx.freeze(q)


def block(graph: Graph, first: str, last: str) -> tuple[Graph, str]:
    """The part of a graph behind the last node of module `first`, up to the last node of module `last`; and
    the node whose tensor is its input."""
    paths = [node.path for node in graph.nodes]
    start = len(paths) - 1 - paths[::-1].index(first)
    stop = len(paths) - 1 - paths[::-1].index(last)
    source = graph.nodes[start]
    builder = GraphBuilder()
    names = {source.name: builder.add(ops.Input(source.tensor.shape, source.tensor.format), (), "input")}
    for node in graph.nodes[start + 1 : stop + 1]:
        names[node.name] = builder.add(node.op, [names[name] for name in node.inputs], node.path, node.name)
    return builder.build(names[graph.nodes[stop].name]), source.name


def generate(graph: Graph, board: str) -> dict[str, Any]:
    """Time and size of the whole network."""
    with tempfile.TemporaryDirectory() as folder:
        start, busy = time.perf_counter(), time.process_time()
        design = qfx.rtl.generate(graph, Path(folder) / "rtl", board=board)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        size = sum(path.stat().st_size for path in design.files)
        top = design.files[0].stat().st_size
    clock = boards.get(board).clock_mhz
    return {
        "seconds": round(seconds, 1),
        # Less than the seconds where other jobs shared the machine.
        "processor_seconds": round(busy, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "kernels": len(design.kernels),
        "fifos": len(design.fifos),
        "interval": design.interval,
        "latency": design.latency,
        "clock_mhz": clock,
        "frames_per_second": round(clock * 1e6 / design.interval, 1),
        "estimate": dict(design.estimate),
        "weights": _places(design),
        "files_mb": round(size / 1e6, 1),
        "top_kb": round(top / 1e3),
    }


def _places(design: qfx.rtl.Design) -> dict[str, dict[str, int]]:
    """Memories of weights, and bits in them, by where they are."""
    from qfx.rtl.memories import place

    found: dict[str, dict[str, int]] = {}
    for kernel in design.kernels:
        memory = kernel.memories.get("WEIGHT_FILE")
        if memory is not None:
            entry = found.setdefault(place(kernel, "WEIGHT_FILE"), {"memories": 0, "bits": 0})
            entry["memories"] += 1
            entry["bits"] += memory.bits * memory.depth
    return found


def ten_layers() -> Graph:
    """Eight convolutions and two linear layers, 100,000 weights."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    channels = 3
    for out, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (48, 2), (48, 1), (64, 2), (64, 1)):
        layers += [torch.nn.Conv2d(channels, out, 3, stride, 1), torch.nn.ReLU()]
        channels = out
    layers += [torch.nn.Flatten(), torch.nn.Linear(1024, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)]
    model = torch.nn.Sequential(*layers)
    x = torch.rand(2, 3, 32, 32)
    four = qfx.FixedPoint(4)
    q = qfx.prepare(model, x[:1], qfx.Config(weight=four, activation=four, input=four))
    qfx.calibrate(q, [x])
    return qfx.freeze(q)


def folding(board: str) -> dict[str, Any]:
    """Time of the solver on ten layers."""
    graph = ten_layers()
    program = lower(graph)
    start = time.perf_counter()
    fastest = fold.choose(graph, program, board=boards.get(board))
    middle = time.perf_counter()
    cheapest = fold.choose(graph, program, interval=2 * fastest.target)
    end = time.perf_counter()
    return {
        "stages": len(program.stages),
        "fastest": {
            "seconds": round(middle - start, 2),
            "interval": fastest.target,
            "gap": fastest.gap,
        },
        "cheapest": {
            "seconds": round(end - middle, 2),
            "interval": cheapest.target,
            "gap": cheapest.gap,
        },
    }


def simulate(graph: Graph, image: np.ndarray) -> list[dict[str, Any]]:
    """Each block against the interpreter."""
    trace = graph.trace(image)
    rows = []
    for name, (first, last) in BLOCKS.items():
        part, source = block(graph, first, last)
        x = part.input_node.tensor.format.decode(trace[source], axis=1)
        with tempfile.TemporaryDirectory() as folder:
            design = qfx.rtl.generate(part, Path(folder) / "rtl")
            expected = part.run_codes(x)
            assert np.array_equal(expected, trace[part.output])
            inside = part.trace(x)
            for stalls in (None, 0.2):
                start = time.perf_counter()
                result = qfx.sim.run(design, x, stalls=stalls, tap=stalls is None)
                wrong = {s.node for s in result.streams if not np.array_equal(s.codes, inside[s.node])}
                rows.append(
                    {
                        "block": name,
                        "input": list(part.input_node.tensor.shape),
                        "output": list(part.output_node.tensor.shape),
                        "stalls": stalls,
                        "samples": len(x),
                        "codes": int(expected.size),
                        "mismatches": int((result.codes != expected).sum()),
                        "streams": len(result.streams),
                        "wrong_streams": sorted(wrong),
                        "latency": {"predicted": design.latency, "simulated": result.latency},
                        "cycles": result.cycles,
                        "seconds": round(time.perf_counter() - start, 1),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--board", default="zcu104")
    parser.add_argument("--activation", type=int, default=4, help="bits (default: %(default)s)")
    parser.add_argument("--only", choices=("generate", "blocks"))
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    start = time.perf_counter()
    graph = network(options.activation)
    result: dict[str, Any] = {
        "command": " ".join(["benchmarks/large_network.py", *sys.argv[1:]]),
        "model": MODEL,
        "input": list(IMAGE),
        "weight_bits": 4,
        "activation_bits": options.activation,
        "weights": sum(int(n.op.weight.size) for n in graph.nodes if isinstance(n.op, ops.Weighted)),
        "graph_seconds": round(time.perf_counter() - start, 1),
    }
    if options.only != "blocks":
        result["generate"] = generate(graph, options.board)
        result["folding"] = folding(options.board)
    if options.only != "generate":
        image = np.random.default_rng(0).normal(size=(SAMPLES, *IMAGE))
        result["blocks"] = simulate(graph, image)
    if options.json or not sys.stdout.isatty():
        print(json.dumps({**result, "versions": versions(), "machine": machine()}, indent=2))
    else:
        show(result)
    if any(row["mismatches"] or row["wrong_streams"] for row in result.get("blocks", ())):
        sys.exit("a block differs from the interpreter")


def show(result: dict[str, Any]) -> None:
    table = Table("", "")
    for part in ("generate", "folding"):
        for key, value in result.get(part, {}).items():
            table.add_row(f"{part}: {key}", str(value))
    for row in result.get("blocks", ()):
        table.add_row(
            f"{row['block']}, stalls {row['stalls']}", f"{row['mismatches']} of {row['codes']} differ"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
