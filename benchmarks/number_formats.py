"""Accuracy of every number format on Fashion-MNIST: float, post-training quantization, learned binary points.

    python benchmarks/number_formats.py [--json | --markdown] [--jobs 2] [--only fixed,...] [--plot FILE.svg]

One residual network with BatchNorm kept as layers of their own, one recipe for every row: the float network
is trained for 4 epochs; each row calibrates it ("ptq") and trains it for 4 more with learned binary points
("learned"); "float" is the float network trained for as many epochs in all. The learned networks are frozen,
and the integer interpreter is compared with torch on all test images. The first layer's input is 8-bit.

Rows that finish are kept in build/formats, so that a run can be interrupted and resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.networks import make
from lib.training import Row, Settings, train_rows
from rich.console import Console
from rich.table import Table

import qfx
from qfx.environment import machine, versions

INPUT = qfx.FixedPoint(8, 8, signed=False)
NETWORK = "ShortcutNet"
# The results of BatchNorm in front of a shortcut, and of the shortcut's addition.
ELEMENTWISE = ("block*.bn2", "block*.add")


def rows() -> dict[str, list[Row]]:
    """All rows, by family."""

    def row(name: str, weight: Any, activation: Any, **more: Any) -> Row:
        config = qfx.Config(
            weight=weight, activation=activation, input=INPUT, batch_norm="keep", per_channel=True, **more
        )
        return Row(name, NETWORK, config)

    def fixed(bits: int, elementwise: int | None = None) -> Row:
        less = elementwise or bits
        name = f"fixed point {bits}" + (f", element-wise {less}" if elementwise else "")
        overrides = {glob: {"activation": qfx.FixedPoint(less)} for glob in ELEMENTWISE}
        overrides |= {glob: {"scale": qfx.FixedPoint(less)} for glob in ("bn*", "block*.bn*")}
        if elementwise is None:
            overrides = {}
        return row(name, qfx.FixedPoint(bits), qfx.FixedPoint(bits), overrides=overrides)

    def minifloat(exponent: int, mantissa: int, **more: Any) -> Row:
        fmt = qfx.Minifloat(exponent, mantissa, **more)
        return row(f"minifloat E{exponent}M{mantissa}", fmt, fmt)

    return {
        "fixed": [fixed(bits) for bits in (8, 6, 5, 4, 3)],
        "elementwise": [fixed(8, 5), fixed(6, 4), fixed(5, 3), fixed(4, 3)],
        "minifloat": [minifloat(2, 1), minifloat(3, 2), minifloat(2, 3), minifloat(4, 3, specials="fn")],
        "khot": [
            *(row(f"K-hot K={k}, activations 5", qfx.KHot(8, None, k), qfx.FixedPoint(5)) for k in (1, 2, 3)),
            row("ternary, activations 4", qfx.Ternary(), qfx.FixedPoint(4)),
            row("binary, activations 4", qfx.Binary(), qfx.FixedPoint(4)),
        ],
        "block": [row("MXFP4", qfx.MXFP4(), qfx.MXFP4())],
    }


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table for the terminal."""
    shown = Table(
        "format", "weights", "activations", "float %", "PTQ %", "learned %", "gain", "differing images"
    )
    for r in results:
        shown.add_row(
            r["name"], r["weight"], r["activation"], f"{r['float']:.2f}", f"{r['ptq']:.2f}",
            f"{r['learned']:.2f}", f"{r['learned'] - r['ptq']:+.2f}", f"{r['mismatches']} of {r['compared']}",
        )  # fmt: skip
    return shown


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The rows as the table of the documentation."""
    lines = ["| format | float | PTQ | learned | differing images |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {r['name']} | {r['float']:.2f} | {r['ptq']:.2f} | {r['learned']:.2f} | {r['mismatches']} of "
        f"{r['compared']:,} |"
        for r in results
    ]
    return "\n".join(lines)


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """PTQ and learned accuracy of every row as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "qfx"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.5, 0.34 * len(results) + 1.3), layout="constrained")
    floor = 80.0
    for place, r in enumerate(reversed(results)):
        ptq = max(r["ptq"], floor)
        axes.plot([ptq, r["learned"]], [place, place], color="0.75", linewidth=2, zorder=1)
        marker = "<" if r["ptq"] < floor else "o"
        axes.scatter([ptq], [place], color="tab:orange", marker=marker, zorder=2)
        axes.scatter([r["learned"]], [place], color="tab:blue", zorder=3)
    axes.axvline(results[0]["float"], color="0.4", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(results)), [r["name"] for r in reversed(results)])
    axes.set_xlim(floor - 0.4, None)
    axes.set_xlabel("accuracy on the Fashion-MNIST test set, %")
    axes.scatter([], [], color="tab:orange", label="calibrated only (arrow: below 80 %)")
    axes.scatter([], [], color="tab:blue", label="learned binary points")
    axes.plot([], [], color="0.4", linestyle=":", label="float")
    axes.legend(loc="lower left", fontsize="small")
    part = path.with_suffix(".part.svg")
    figure.savefig(part, metadata={"Date": None})
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/results.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="families, comma separated: " + ", ".join(rows()))
    parser.add_argument("--work", type=Path, default=Path("build/formats"))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    families = rows()
    chosen = [name for name in arguments.only.split(",") if name] or list(families)
    unknown = [name for name in chosen if name not in families]
    if unknown:
        parser.error(f"unknown families {', '.join(unknown)}; known: {', '.join(families)}")
    settings = Settings()
    wanted = [row for name in chosen for row in families[name]]
    results = train_rows(make, wanted, settings, arguments.work, arguments.jobs)
    if arguments.plot:
        plot(results, arguments.plot)
    if arguments.markdown:
        print(markdown(results))
    elif arguments.json:
        document = {
            "benchmark": "number_formats",
            "settings": vars(settings),
            "rows": results,
            "versions": versions(),
            "machine": machine(),
        }
        print(json.dumps(document, indent=1))
    else:
        Console(width=160).print(table(results))
    if any(r["mismatches"] for r in results):
        sys.exit("the interpreter differs from torch")


if __name__ == "__main__":
    main()
