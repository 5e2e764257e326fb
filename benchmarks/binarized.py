"""A binarized network with fixed-point and with K-hot BatchNorm and shortcuts, on Fashion-MNIST.

    python benchmarks/binarized.py [--json] [--jobs 2]

Weights and activations of the four inner convolutions are one bit; the element-wise layers around them
(BatchNorm, and the shortcut with its constant per channel) are 8-bit fixed point, or K-hot numbers that need
no multiplier. The first layer, the one that halves the image, and the last are 8-bit. Recipe and comparison
as in benchmarks/number_formats.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from lib.networks import make
from lib.training import Row, Settings, train_rows
from rich.console import Console
from rich.table import Table

import qfx
from qfx.environment import machine, versions

ONE_BIT = {"block*.conv": {"weight": qfx.Binary()}, "block*.sign": {"activation": qfx.Binary()}}


def row(name: str, scale: Any, stream: Any) -> Row:
    """BatchNorm and shortcut constants in ``scale``, the numbers on the shortcut in ``stream``."""
    config = qfx.Config(
        weight=qfx.FixedPoint(8),
        activation=stream,
        scale=scale,
        input=qfx.FixedPoint(8, 8, signed=False),
        batch_norm="keep",
        per_channel=True,
        overrides=ONE_BIT,
    )
    return Row(name, "BinaryNet", config)


ROWS = [
    row("fixed point 8", qfx.FixedPoint(8), qfx.FixedPoint(8)),
    row("K-hot K=2", qfx.KHot(8, None, 2), qfx.FixedPoint(8)),
    row("K-hot K=1", qfx.KHot(8, None, 1), qfx.FixedPoint(8)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=Path("build/formats"))
    arguments = parser.parse_args()
    settings = Settings()
    results = train_rows(make, ROWS, settings, arguments.work, arguments.jobs)
    for r in results:
        r["to_fixed_point"] = round(r["learned"] - results[0]["learned"], 2)
    if arguments.json:
        document = {
            "benchmark": "binarized",
            "settings": vars(settings),
            "rows": results,
            "versions": versions(),
            "machine": machine(),
        }
        print(json.dumps(document, indent=1))
    else:
        shown = Table("element-wise layers", "float %", "learned %", "to fixed point", "differing images")
        for r in results:
            shown.add_row(
                r["name"], f"{r['float']:.2f}", f"{r['learned']:.2f}", f"{r['to_fixed_point']:+.2f}",
                f"{r['mismatches']} of {r['compared']}",
            )  # fmt: skip
        Console(width=120).print(shown)
    if any(r["mismatches"] for r in results):
        sys.exit("the interpreter differs from torch")


if __name__ == "__main__":
    main()
