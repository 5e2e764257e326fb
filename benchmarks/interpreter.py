"""Speed of the interpreter: against torch float32 inference, and against the HLS C simulation, of the same
network.

    python benchmarks/interpreter.py [--json] [--batch 1000] [--hls-samples 200]

The network is the demo's CNN for 28x28 images at 4-bit weights and activations, BatchNorm folded on both
sides, with the same batches and threads.
Each comparison alternates the two sides and takes the median, so that a drifting machine speed cancels. The
outputs of the
C simulation are compared with the interpreter's on every bit before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.optimization import fuse

import qfx
from qfx.demo.networks import FashionNet
from qfx.environment import machine, versions


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of two pieces of work, run in turn after one warm-up each."""
    first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def measure(batch: int, hls_samples: int) -> dict[str, Any]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = FashionNet().eval()
    images = rng.random((batch, 1, 28, 28), dtype=np.float32)
    config = qfx.Config(weight=qfx.FixedPoint(4), activation=qfx.FixedPoint(4), input=qfx.FixedPoint(8))
    quantized = qfx.prepare(model, torch.from_numpy(images[:1]), config)
    qfx.calibrate(quantized, [torch.from_numpy(images[:100])])
    graph = qfx.freeze(quantized)
    floating = fuse(model)

    results: dict[str, Any] = {
        "network": "FashionNet (2 conv, 2 linear), 4-bit",
        "threads": torch.get_num_threads(),
    }
    results["arithmetic"] = sorted(set(graph.interpreter.arithmetic.values()))
    for size in (1, 32, batch):
        tensor = torch.from_numpy(images[:size])

        def run_float(tensor: torch.Tensor = tensor) -> None:
            with torch.no_grad():
                floating(tensor)

        ours, float32 = alternate(lambda n=size: graph.run(images[:n]), run_float, 15 if size > 100 else 100)
        results[f"batch_{size}"] = {
            "interpreter_samples_per_second": size / ours,
            "float32_samples_per_second": size / float32,
            "speed_over_float32": float32 / ours,
        }
    with tempfile.TemporaryDirectory() as folder:
        project = qfx.hls.convert(graph, Path(folder) / "hls", io="parallel")
        project.compile()
        few = images[:hls_samples].astype(np.float64)
        if not np.array_equal(project.predict(few), graph.run(few)):
            sys.exit("the HLS C simulation differs from the interpreter: nothing was timed")
        ours, simulated = alternate(lambda: graph.run(few), lambda: project.predict(few), 3)
    results["hls_c_simulation"] = {
        "samples": hls_samples,
        "interpreter_samples_per_second": hls_samples / ours,
        "c_simulation_samples_per_second": hls_samples / simulated,
        "speed_over_c_simulation": simulated / ours,
    }
    return {**results, "versions": versions(), "machine": machine()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--hls-samples", type=int, default=200)
    parser.add_argument(
        "--json", action="store_true", help="only JSON is ever printed; accepted for uniformity"
    )
    options = parser.parse_args()
    print(json.dumps(measure(options.batch, options.hls_samples), indent=2))
