"""A whole accelerator placed and routed for an ECP5 with open tools: what it takes, how fast it runs.

    python benchmarks/place_and_route.py [--json]

The small convolutional network of docs/rtl.md (random weights) as a stream design for the ULX3S, through
`design.synthesize()`: Yosys, nextpnr-ecp5, their reports read. Beside the figures stand those of the estimate
that folds are chosen by, which counts look-up tables of six inputs; an ECP5 has four. Pins are anywhere
and paths from and to them left out: the accelerator has none of its own. Takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import qfx
from qfx.environment import machine, versions

BOARD, INTERVAL = "ulx3s", 1000


def network() -> qfx.Graph:
    """Convolution, ReLU, linear layer: 4-bit weights and activations."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    images = torch.rand(64, 2, 8, 8)
    four = qfx.FixedPoint(4)
    q = qfx.prepare(model, images[:1], qfx.Config(weight=four, activation=four, input=four))
    qfx.calibrate(q, [images])
    return qfx.freeze(q)


def measure() -> dict[str, Any]:
    """Figures after routing, and the estimate."""
    with tempfile.TemporaryDirectory() as folder:
        design = qfx.rtl.generate(network(), Path(folder) / "rtl", board=BOARD, interval=INTERVAL)
        start = time.perf_counter()
        found = design.synthesize()
        seconds = time.perf_counter() - start
    return {
        "board": BOARD,
        "interval": design.interval,
        "latency": design.latency,
        "routed": {
            **asdict(found),
            "slack_ns": round(found.slack_ns, 3),
            "fmax_mhz": round(found.fmax_mhz, 1),
        },
        "frames_per_second_at_fmax": round(found.fmax_mhz * 1e6 / design.interval),
        "estimate": dict(design.estimate),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    result = {"command": " ".join(["benchmarks/place_and_route.py", *sys.argv[1:]]), **measure()}
    if options.json or not sys.stdout.isatty():
        print(json.dumps({**result, "versions": versions(), "machine": machine()}, indent=2))
        return
    table = Table("", "routed", "estimate")
    for name in ("lut", "ff", "dsp", "bram18"):
        table.add_row(name, str(result["routed"][name]), str(result["estimate"][name]))
    table.add_row("Fmax", f"{result['routed']['fmax_mhz']} MHz", "")
    Console().print(table)


if __name__ == "__main__":
    main()
