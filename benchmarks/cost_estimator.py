"""The cost estimator against synthesis, on random designs that it was not fitted to.

    python benchmarks/cost_estimator.py [--json] [--fresh 0] [--folding 0] [--seed 3] [--jobs 1]

The designs are those of the cost table (`qfx.cost.designs`), synthesised as a whole with Yosys: small
multilayer perceptrons and convolutional networks with integers, minifloats, K-hot weights or MX blocks of 2
to 8 bits, or with 8 bits for everything, and networks of integers with activation tables, softmax, LayerNorm
or attention, folded for random intervals. Each is estimated by a fit to all the others; the kernels of the
table come from other networks. `weighed` is what folding makes of a design, for which memories have random
words, and `structure` an estimate from the structure alone, without the table.

With `--fresh N`, N more designs of another seed are drawn (and a quarter as many of MX formats, of 8 bits and
of networks with such functions each), folded, estimated with the shipped table and synthesised. With
`--folding N`, so many are folded twice, once by structure alone, and both are synthesised.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import qfx
from qfx.cost import designs, estimator
from qfx.cost.features import blocks
from qfx.cost.table import defaults
from qfx.environment import machine, versions
from qfx.rtl import estimate
from qfx.rtl.design import Kernel

RESOURCES = ("lut", "ff", "dsp")
# The parser that checks generated Verilog (pyverilog) has one state for all threads.
_GENERATING = Lock()


def compare(drawn: designs.Drawn) -> dict[str, Any]:
    """Estimate and synthesis of one design."""
    with tempfile.TemporaryDirectory(prefix="qfx-estimator-") as scratch:
        with _GENERATING:
            design = qfx.rtl.generate(drawn.graph, Path(scratch) / "rtl", **drawn.arguments)
        guess = qfx.cost.estimate(design)
        cost = qfx.cost.measure(design)
    row: dict[str, Any] = {"network": drawn.number, "family": drawn.family, "kernels": len(design.kernels)}
    for name in RESOURCES:
        row |= {name: getattr(cost, name), f"{name}_estimate": round(getattr(guess, name), 1)}
    row |= {"lut_error": round(guess.lut_error, 1), "ff_error": round(guess.ff_error, 1)}
    row |= {"bram18": 2 * cost.bram, "bram18_estimate": guess.bram18}
    return row | {"lut_weighed": design.estimate["lut"], "lut_structure": round(of_structure(design.kernels))}


def of_structure(kernels: Iterable[Kernel]) -> float:
    """LUTs of kernels without the table."""
    return float(sum(estimate.structure(kernel).lut for kernel in kernels))


def folded_twice(drawn: designs.Drawn) -> dict[str, Any]:
    """Synthesis of a network that was folded by the table and by structure alone."""
    row: dict[str, Any] = {"network": drawn.number, "family": drawn.family}
    for name in ("table", "structure"):
        with tempfile.TemporaryDirectory(prefix="qfx-estimator-") as scratch:
            with _GENERATING, estimate.by_structure_alone() if name == "structure" else nullcontext():
                design = qfx.rtl.generate(drawn.graph, Path(scratch) / "rtl", **drawn.arguments)
            cost = qfx.cost.measure(design)
        used = estimate.Resources(cost.lut, cost.ff, cost.dsp, 2 * cost.bram)
        row |= {f"{resource}_{name}": getattr(used, resource) for resource in ("lut", "ff", "dsp", "bram18")}
        row |= {f"weight_{name}": used.weight, f"interval_{name}": design.interval}
    return row


def folding_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What folding by the table takes, in parts of what folding by structure takes."""
    ratio = np.array([r["weight_table"] / r["weight_structure"] for r in rows])
    return {
        "designs": len(rows),
        "weight_geometric_mean": float(np.exp(np.log(ratio).mean())),
        "weight_best": float(ratio.min()),
        "weight_worst": float(ratio.max()),
        "cheaper": int((ratio < 0.995).sum()),
        "dearer": int((ratio > 1.005).sum()),
        **{
            f"{name}_total": sum(r[f"{name}_table"] for r in rows)
            / max(1, sum(r[f"{name}_structure"] for r in rows))
            for name in ("lut", "ff", "dsp", "bram18")
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Relative errors over all designs, and how often synthesis lies within two standard errors."""

    def relative(name: str, guess: str) -> np.ndarray:
        found = np.array([r[guess] for r in rows], dtype=float)
        true = np.array([r[name] for r in rows], dtype=float)
        return np.asarray((found - true) / np.maximum(true, 1))

    lut, ff = relative("lut", "lut_estimate"), relative("ff", "ff_estimate")
    weighed, structure = relative("lut", "lut_weighed"), relative("lut", "lut_structure")
    worst = int(np.abs(lut).argmax())
    of = np.array([r["family"] for r in rows])
    inside = [abs(r["lut_estimate"] - r["lut"]) <= 2 * r["lut_error"] for r in rows]
    return {
        "designs": len(rows),
        "lut_mean_absolute_error": float(np.abs(lut).mean()),
        "lut_median_absolute_error": float(np.median(np.abs(lut))),
        "lut_worst_error": float(lut[worst]),
        "lut_worst_network": rows[worst]["network"],
        "lut_mean_error": float(lut.mean()),
        "families": {
            family: {
                "designs": int((of == family).sum()),
                "lut_mean_absolute_error": float(np.abs(lut[of == family]).mean()),
                "lut_worst_error": float(lut[of == family][np.abs(lut[of == family]).argmax()]),
            }
            for family in sorted(set(of.tolist()))
        },
        "lut_within_two_standard_errors": float(np.mean(inside)),
        "lut_mean_absolute_error_weighed": float(np.abs(weighed).mean()),
        "lut_mean_absolute_error_structure": float(np.abs(structure).mean()),
        "ff_mean_absolute_error": float(np.abs(ff).mean()),
        "ff_worst_error": float(ff[int(np.abs(ff).argmax())]),
        "dsp_exact": sum(r["dsp"] == r["dsp_estimate"] for r in rows),
        "bram18_exact": sum(r["bram18"] == r["bram18_estimate"] for r in rows),
    }


def held_out() -> list[dict[str, Any]]:
    """Every design of the table, estimated by a fit to all the others."""
    fitted = estimator.default()
    luts, ffs, weighed = (fitted.held_out(*how) for how in (("lut",), ("ff",), ("lut", False)))
    rows = []
    for index, (whole, lut, ff) in enumerate(zip(fitted.table.wholes, luts, ffs, strict=True)):
        kernels = [
            Kernel("", m, {**defaults(m), **parameters}, (), (), "") for m, parameters, _ in whole.kernels
        ]
        dsp, bram18 = (sum(part) for part in zip(*(blocks(k, fitted.products) for k in kernels), strict=True))
        row: dict[str, Any] = {"network": index, "family": whole.family, "kernels": len(kernels)}
        row |= {"lut": lut[0], "lut_estimate": round(lut[1], 1), "lut_error": round(lut[2], 1)}
        row |= {"ff": ff[0], "ff_estimate": round(ff[1], 1), "ff_error": round(ff[2], 1)}
        row |= {"dsp": whole.dsp, "dsp_estimate": dsp, "bram18": whole.bram18, "bram18_estimate": bram18}
        row |= {"lut_weighed": round(weighed[index][1]), "lut_structure": round(of_structure(kernels))}
        rows.append(row)
    return rows


def structure_ratios() -> dict[str, dict[str, float]]:
    """Kernels of the table by module and kind of multiplier: what they take together, in parts of what
    structure alone makes of them."""
    found: dict[str, dict[str, float]] = {}
    for row in estimator.default().table.rows:
        kind = row.parameters.get("KIND")
        name = row.module if kind is None else f"{row.module} KIND={kind}"
        guess = estimate.structure(
            Kernel("", row.module, {**defaults(row.module), **row.parameters}, (), (), "")
        )
        keys = ("kernels", "lut", "lut_structure", "ff", "ff_structure")
        sums = found.setdefault(name, dict.fromkeys(keys, 0.0))
        for key, value in zip(sums, (1, row.lut, guess.lut, row.ff, guess.ff), strict=True):
            sums[key] += value
    for sums in found.values():
        sums |= {f"{r}_ratio": round(sums[r] / max(sums[f"{r}_structure"], 1), 3) for r in ("lut", "ff")}
    return dict(sorted(found.items()))


def show_foldings(rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """Both foldings of each network."""
    shown = Table("network", "family", "LUT", "by structure", "FF", "by structure", "DSP", "by structure")
    for r in rows:
        each = (f"{r[f'{name}_{way}']:,}" for name in ("lut", "ff", "dsp") for way in ("table", "structure"))
        shown.add_row(str(r["network"]), r["family"], *each)
    Console(width=120).print(shown)
    for name, value in found.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--fresh", type=int, default=0, help="draw and synthesise so many more designs")
    parser.add_argument("--folding", type=int, default=0, help="fold so many twice and synthesise both")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    table = estimator.default().table
    rows, command = held_out(), "python benchmarks/cost_estimator.py"
    if arguments.fresh or arguments.folding:
        if arguments.seed in (table.made["seed"], table.made["seed"] + 1):
            parser.error(f"--seed {arguments.seed} is one that the table was measured with")
    if arguments.fresh:
        command += f" --fresh {arguments.fresh} --seed {arguments.seed}"
        with ThreadPoolExecutor(arguments.jobs) as pool:
            rows = list(pool.map(compare, designs.mixture(arguments.seed, arguments.fresh)))
    if arguments.folding:
        command += f" --folding {arguments.folding} --seed {arguments.seed}"
        with ThreadPoolExecutor(arguments.jobs) as pool:
            rows = list(pool.map(folded_twice, designs.mixture(arguments.seed, arguments.folding)))
    found = folding_summary(rows) if arguments.folding else summary(rows)
    if arguments.json:
        measured = {"kernels": len(table.rows), "designs": len(table.wholes), **table.made}
        document = {
            "benchmark": "cost_estimator",
            "command": command,
            "table": {**measured, "tool": f"{table.tool} {table.version}"},
            "summary": found,
            "rows": rows,
            "structure_ratios": structure_ratios(),
            "versions": versions(),
            "machine": machine(),
        }
        print(json.dumps(document, indent=1))
        return
    if arguments.folding:
        show_foldings(rows, found)
        return
    shown = Table(
        "network", "family", "LUT", "estimate", "standard error", "error", "FF", "estimate", "DSP", "estimate"
    )
    for r in rows:
        shown.add_row(
            str(r["network"]), r["family"], f"{r['lut']:,}", f"{r['lut_estimate']:,.0f}",
            f"{r['lut_error']:,.0f}",
            f"{100 * (r['lut_estimate'] / max(r['lut'], 1) - 1):+.1f} %", f"{r['ff']:,}",
            f"{r['ff_estimate']:,.0f}", str(r["dsp"]), f"{r['dsp_estimate']:.0f}",
        )  # fmt: skip
    Console(width=120).print(shown)
    for name, value in found.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    main()
