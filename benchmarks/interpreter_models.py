"""Speed and memory of the interpreter against torch float32 inference: LeNet, ResNet-20, MobileNetV2.

    OMP_NUM_THREADS=1 python benchmarks/interpreter_models.py [--json] [--batches 1,32,1000]
        [--networks lenet,resnet20,mobilenet_v2] [--into docs/results/interpreter.json]

4-bit weights and activations, BatchNorm folded on both sides (torch.fx.experimental.optimization.fuse),
eager torch, same batches and threads, the two sides in turn, medians of time by the clock; processor time
beside it, which tells whether something else was running. The interpreter's outputs are compared with those
of its plan called step by step from Python, on every bit, before anything is timed. Memory is the growth of
the peak resident size of a process of its own while it runs one batch, over what it held with the network
loaded and warmed up on one sample.

--into merges the rows into a file of earlier rows, measured with the same versions on the same machine: for
networks that are measured one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.fx.experimental.optimization import fuse

import qfx
from qfx import models
from qfx.environment import machine, versions
from qfx.graph.interpreter import Interpreter

NETWORKS = ("lenet", "resnet20", "mobilenet_v2")


def frozen(name: str) -> qfx.Graph:
    """The network's integer graph, random weights."""
    torch.manual_seed(0)
    model = models.build(name).eval()
    x = torch.rand(4, *models.INPUT_SHAPES[name])
    config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), input=qfx.FixedPoint(8))
    q = qfx.prepare(model, x, config)
    qfx.calibrate(q, [x], progress=False)
    return qfx.freeze(q)


def floating(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The float network with its BatchNorms folded."""
    torch.manual_seed(0)
    return fuse(models.build(name).eval()) if name != "lenet" else models.build(name).eval()


def side(name: str, which: str, graph: str) -> Callable[[torch.Tensor], Any]:
    """Inference of one batch by the interpreter or by torch."""
    if which == "interpreter":
        return qfx.load(graph).run
    model = floating(name)

    def infer(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(x)

    return infer


def images(name: str, batch: int) -> torch.Tensor:
    return torch.rand(batch, *models.INPUT_SHAPES[name], generator=torch.Generator().manual_seed(1))


def check(name: str, graph: qfx.Graph) -> None:
    """Two routes through the same plan, on hard numbers too."""
    x = 3 * images(name, 3) - 1
    if not np.array_equal(graph.run(x), Interpreter(graph, compiled=False).run(x)):
        sys.exit(f"{name}: the compiled plan and the plan in Python differ; nothing was timed")


def measure_memory(name: str, which: str, graph: str, batch: int) -> None:
    """Print how many bytes the peak resident size grows by: for a process of its own."""
    infer = side(name, which, graph)
    infer(images(name, 1))
    x = images(name, batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    before = peak()
    infer(x)
    print(peak() - before)


def peak() -> int:
    """Peak resident bytes of this process since the peak was cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def memory(name: str, which: str, graph: str, batch: int) -> int:
    command = [sys.executable, __file__, "--memory", name, which, graph, str(batch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Time by the clock, and processor time of this process."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def compare(name: str, batch: int, graph: qfx.Graph, path: str) -> dict[str, Any]:
    """One line of the table."""
    x = images(name, batch)
    ours, theirs = side(name, "interpreter", path), side(name, "float32", path)
    once, _ = seconds(lambda: theirs(x))
    ours(x)
    if once < 1.0:
        once, _ = seconds(lambda: theirs(x))
    rounds = int(np.clip(3.0 / max(once, 1e-6), 3, 300))
    pairs = [(seconds(lambda: ours(x)), seconds(lambda: theirs(x))) for _ in range(rounds)]
    (interpreter, interpreter_cpu), (float32, float32_cpu) = (
        [statistics.median(pair[side][kind] for pair in pairs) for kind in (0, 1)] for side in (0, 1)
    )
    sizes = {which: memory(name, which, path, batch) for which in ("interpreter", "float32")}
    return {
        "network": name,
        "batch": batch,
        "interpreter_ms": 1e3 * interpreter,
        "float32_ms": 1e3 * float32,
        "speed_over_float32": float32 / interpreter,
        "processor_time_over_float32": interpreter_cpu / float32_cpu,
        "memory_over_float32": sizes["interpreter"] / max(1, sizes["float32"]),
        "memory_mib": {which: round(size / 2**20, 1) for which, size in sizes.items()},
        "rounds": rounds,
        "arithmetic": sorted(set(graph.interpreter.arithmetic.values())),
        "compiled": graph.interpreter.programs > 0,
        "load": os.getloadavg()[0],
    }


def merged(report: dict[str, Any], path: Path) -> dict[str, Any]:
    """The report with the rows of a file that it does not measure anew.

    Raises:
        SystemExit: the file's rows were measured with other versions, on another machine, or otherwise.
    """
    if not path.exists():
        return report
    before = json.loads(path.read_text())
    for key in report.keys() - {"rows"}:
        if before.get(key) != report[key]:
            sys.exit(f"{path}: {key} was {before.get(key)}, now {report[key]}; measure all networks again")
    new = {(row["network"], row["batch"]) for row in report["rows"]}
    rows = [row for row in before["rows"] if (row["network"], row["batch"]) not in new] + report["rows"]
    rows.sort(key=lambda row: (NETWORKS.index(row["network"]), row["batch"]))
    return {**report, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--batches", default="1,32,1000")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--into", type=Path, help="a JSON file of earlier rows to merge the new ones into")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        name, which, graph, batch = arguments.memory
        measure_memory(name, which, graph, int(batch))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks.split(","):
            graph, path = frozen(name), str(Path(folder) / f"{name}.qfx")
            check(name, graph)
            graph.save(path)
            for batch in map(int, arguments.batches.split(",")):
                rows.append(compare(name, batch, graph, path))
    report: dict[str, Any] = {
        "benchmark": "interpreter_models",
        "command": "OMP_NUM_THREADS=1 python benchmarks/interpreter_models.py --json",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "machine": machine(),
        "rows": rows,
    }
    if arguments.into:
        report = merged(report, arguments.into)
        scratch = arguments.into.with_suffix(".part")
        scratch.write_text(json.dumps(report, indent=1) + "\n")
        scratch.replace(arguments.into)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    table = Table(
        "network", "batch", "interpreter ms", "float32 ms", "speed over float32", "memory over float32"
    )
    for r in report["rows"]:
        table.add_row(
            r["network"], str(r["batch"]), f"{r['interpreter_ms']:.2f}", f"{r['float32_ms']:.2f}",
            f"{r['speed_over_float32']:.2f}", f"{r['memory_over_float32']:.2f}",
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
