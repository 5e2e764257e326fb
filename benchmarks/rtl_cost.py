"""What the parallel architecture costs: a trained multilayer perceptron (16-64-32-32-5) in Yosys' 7-series
primitives.

    python benchmarks/rtl_cost.py [--json] [--bits 6 4] [--no-products] [--times]

Per width of weights and activations three designs of the same frozen graph, all pipelined, all fully
unrolled, through the same Yosys script: QFX (`architecture="parallel"`), alkaid (the `peers` extra; its
traced logic is first compared with the interpreter, sample by sample) and the same design as QFX's with
`x*const` in place of adder graphs (`-nodsp` for all). Time to RTL is from the graph in memory to files, the
best of three; QFX's contains reading the files back, which alkaid does not do. Before it, both tools have
made a small network, so that no compiler and no parser generator is in it; `--times` measures nothing else.
Yosys takes minutes per design, half an hour for the one with products.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib import products
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_classification

import qfx
from qfx.cost import Kernel
from qfx.environment import machine, versions
from qfx.graph import Graph, ops
from qfx.rtl import parallel, readback

SIZES = (16, 64, 32, 32, 5)
SEED = 0
REPEATS = 3
SAMPLES = 2048


def train(bits: int) -> tuple[Graph, np.ndarray, float]:
    """A network trained in float, then with quantizers; the graph, inputs, and its accuracy on other
    samples."""
    torch.manual_seed(SEED)
    data, labels = make_classification(
        2 * SAMPLES,
        SIZES[0],
        n_informative=12,
        n_redundant=2,
        n_classes=SIZES[-1],
        class_sep=1.5,
        random_state=SEED,
    )
    x = torch.tensor(data / np.abs(data).max(), dtype=torch.float32)
    y = torch.tensor(labels)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in zip(SIZES, SIZES[1:], strict=False):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model: torch.nn.Module = torch.nn.Sequential(*layers[:-1])

    def learn(module: torch.nn.Module, steps: int, rate: float) -> None:
        optimizer = torch.optim.Adam(module.parameters(), rate)
        for _ in range(steps):
            batch = torch.randint(0, SAMPLES, (128,))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()

    learn(model, 400, 3e-3)
    activation = qfx.FixedPoint(bits, rounding="RND", overflow="SAT")
    config = qfx.Config(weight=qfx.FixedPoint(bits), activation=activation, input=activation)
    q = qfx.prepare(model, x[:1], config)
    qfx.calibrate(q, [x[:512]])
    learn(q, 300, 2e-3)
    graph = qfx.freeze(q.eval())
    rest = x[SAMPLES:].numpy()
    accuracy = float((graph.run(rest).argmax(axis=1) == labels[SAMPLES:]).mean())
    return graph, rest, accuracy


def timed(function: Callable[[Path], Any], folder: Path) -> tuple[Any, float, float]:
    """The last result of three calls, each with a folder of its own; the fewest seconds that one took, and
    the fewest that the processor worked for one."""
    walls, cpus = [], []
    for attempt in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(folder / str(attempt))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return result, min(walls), min(cpus)


def cost(top: str, files: list[Path], times: bool = False) -> dict[str, Any]:
    """Primitives of a design. Inverters stand in no count of LUTs; they are given beside them."""
    if times:
        return {}
    found = qfx.cost.measure(Kernel(top, files), dsp=False, timeout_s=4 * 3600)
    return {
        "lut": found.lut,
        "inverters": found.cells.get("INV", 0),
        "ff": found.ff,
        "carry": found.carry,
        "dsp": found.dsp,
        "tool": f"{found.tool} {found.version}",
    }


def ours(graph: Graph, folder: Path, levels: int, times: bool) -> dict[str, Any]:
    """QFX: files, time, cost."""
    design, seconds, cpu = timed(
        lambda to: qfx.rtl.generate(graph, to, architecture="parallel", levels=levels), folder
    )
    _, _, read_back = timed(lambda _: readback.check(design), folder)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "read_back_cpu_seconds": read_back,
        "verilog_bytes": sum(path.stat().st_size for path in design.files),
        "latency": design.latency,
        "estimate": dict(design.estimate),
        **cost(design.top, list(design.files), times),
    }


def alkaid_logic(graph: Graph) -> Any:
    """The graph as traced by alkaid."""
    from alkaid.trace import FVArrayInput, HWConfig, trace

    source = graph.input_node
    fmt, size = source.tensor.format, source.tensor.size
    x = FVArrayInput((size,), hwconf=HWConfig(1, -1, -1))
    signed = int(fmt.signed)
    values = {source.name: x.quantize(signed, fmt.width - fmt.frac - signed, fmt.frac)}
    for node in graph.nodes[1:]:
        operand, o = values[node.inputs[0]], node.op
        if isinstance(o, ops.Linear):
            result = operand @ (o.weight.T * 2.0 ** -np.array(o.weight_format.fracs(o.out_channels)))
            if o.bias is not None and o.bias_format is not None:
                result = result + o.bias * 2.0 ** -np.array(o.bias_format.fracs(o.out_channels))
        elif isinstance(o, ops.Relu):
            result = np.maximum(operand, 0)
        else:
            assert isinstance(o, ops.Cast) and isinstance(o.format, qfx.FixedPoint)
            f, s = o.format, int(o.format.signed)
            result = operand.quantize(s, f.width - f.frac - s, f.frac, f.overflow, f.rounding)
        values[node.name] = result
    return trace(x, values[graph.output])


def theirs(graph: Graph, x: np.ndarray, folder: Path, stages: int, times: bool) -> dict[str, Any]:
    """alkaid with as many pipeline stages; two-operand adders, which come out smaller in Yosys than its fused
    ones."""
    from alkaid.codegen.rtl.rtl_model import RTLModel

    def generate(to: Path) -> Any:
        logic = alkaid_logic(graph)
        RTLModel(logic, to, "top", n_stages=stages, ternary_fuse=False).write()
        return logic

    logic, seconds, cpu = timed(generate, folder)
    grid = graph.input_node.tensor.format.quantize(x).astype(np.float64)
    found = np.asarray(logic.predict(grid)).reshape(len(x), -1)
    if not np.array_equal(found, graph.run(x)):
        raise SystemExit("alkaid's logic and the graph differ: not the same network")
    files = [p for p in sorted((folder / str(REPEATS - 1) / "src").rglob("*.v")) if "wrapper" not in p.name]
    return {"seconds": seconds, "cpu_seconds": cpu, "latency": stages, **cost("top", files, times)}


def constants(graph: Graph, x: np.ndarray, folder: Path, levels: int) -> dict[str, Any]:
    """`x*const`, simulated before it is measured."""
    design = products.generate(graph, folder, levels)
    if not np.array_equal(qfx.sim.run(design, x[:64]).outputs, graph.run(x[:64])):
        raise SystemExit("the design with products and the graph differ")
    return {"latency": design.latency, **cost(design.top, list(design.files))}


def warm_up() -> None:
    """Both tools once, on a network of two layers."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    fmt = qfx.FixedPoint(4, rounding="RND", overflow="SAT")
    x = torch.rand(32, 4)
    q = qfx.prepare(model, x[:1], qfx.Config(weight=fmt, activation=fmt, input=fmt))
    qfx.calibrate(q, [x])
    graph = qfx.freeze(q.eval())
    from alkaid.codegen.rtl.rtl_model import RTLModel

    with tempfile.TemporaryDirectory() as name:
        qfx.rtl.generate(graph, Path(name) / "qfx", architecture="parallel")
        RTLModel(alkaid_logic(graph), Path(name) / "alkaid", "top", n_stages=2, ternary_fuse=False).write()


def measure(bits: int, levels: int, with_products: bool, times: bool) -> dict[str, Any]:
    """One row: the designs of one network."""
    graph, x, accuracy = train(bits)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row: dict[str, Any] = {"bits": bits, "accuracy": accuracy}
        row["qfx"] = ours(graph, folder / "qfx", levels, times)
        row["alkaid"] = theirs(graph, x, folder / "alkaid", row["qfx"]["latency"], times)
        if not times:
            row["lut_ratio_to_alkaid"] = row["qfx"]["lut"] / row["alkaid"]["lut"]
        # Reading back is in QFX's time.
        for what in ("seconds", "cpu_seconds"):
            row[f"{what}_ratio_to_alkaid"] = row["qfx"][what] / row["alkaid"][what]
        if with_products:
            row["products"] = constants(graph, x, folder / "products", levels)
            row["lut_ratio_to_products"] = row["qfx"]["lut"] / row["products"]["lut"]
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as a table."""
    table = Table(title="-".join(map(str, SIZES)) + ", one vector per cycle", title_justify="left")
    for title in ("bits", "design", "LUT", "inverters", "FF", "CARRY4", "DSP", "stages", "s to RTL"):
        table.add_column(title, justify="left" if title == "design" else "right")
    for row in rows:
        for name in ("qfx", "alkaid", "products"):
            if name in row:
                d = row[name]
                seconds = f"{d['seconds']:.1f}" if "seconds" in d else ""
                counts = (str(d.get(k, "")) for k in ("lut", "inverters", "ff", "carry", "dsp", "latency"))
                table.add_row(str(row["bits"]), name, *counts, seconds)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 4], help="widths (default: 6 4)")
    parser.add_argument(
        "--levels", type=int, default=parallel.LEVELS, help="levels between registers (default: %(default)s)"
    )
    parser.add_argument("--no-products", action="store_true", help="leave out x*const")
    parser.add_argument("--times", action="store_true", help="time to RTL alone: no synthesis")
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    warm_up()
    with_products = not (options.no_products or options.times)
    rows = [measure(bits, options.levels, with_products, options.times) for bits in options.bits]
    if options.json or not sys.stdout.isatty():
        print(
            json.dumps(
                {
                    "network": list(SIZES),
                    "levels": options.levels,
                    "rows": rows,
                    "versions": {**versions(), "alkaid": version("alkaid")},
                    "machine": machine(),
                    "command": "python " + " ".join(sys.argv),
                },
                indent=2,
            )
        )
    else:
        show(rows)


if __name__ == "__main__":
    main()
