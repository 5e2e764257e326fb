"""What K-hot weights save without DSP blocks: one trained perceptron with 8-bit weights, in Yosys' 7-series
primitives.

    python benchmarks/khot_cost.py [--json] [--part dot folded parallel] [--sizes 16 32 16 5] [--pe 4]

dot: a dot product of 8 pairs. folded: the whole accelerator, weights from memories, the same folds for all.
parallel: the whole accelerator, weights constants. All `-nodsp`. Weights are integers or have at most 1, 2 or
3 canonical signed digits; each network is trained with its weights. Integers are multiplied twice: by Booth
multipliers of look-up tables (`multipliers="lut"`) and by what synthesis makes of `*`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_classification

import qfx
from qfx.cost import Cost, Kernel, measure
from qfx.environment import machine, versions
from qfx.formats import KHot
from qfx.graph import Graph
from qfx.rtl.arithmetic import DIGITS, INTEGER, LUT_INTEGER, digit_slots
from qfx.rtl.emit import sources

SIZES = (16, 32, 16, 5)
SEED = 0
SAMPLES = 2048
PAIRS = 8
PARTS = ("dot", "folded", "parallel")


def folds(sizes: tuple[int, ...], pe: int) -> dict[str, dict[str, int]]:
    """Eight inputs by `pe` outputs of each layer in a cycle, or as many outputs as divide it."""
    return {
        str(2 * i): {"pe": max(d for d in range(1, pe + 1) if outputs % d == 0), "simd": PAIRS}
        for i, outputs in enumerate(sizes[1:])
    }


def train(weights: dict[str, Any], sizes: tuple[int, ...]) -> dict[str, tuple[Graph, float]]:
    """One network trained in float, then with each format of weights; graphs, and accuracies on other
    samples."""
    torch.manual_seed(SEED)
    data, labels = make_classification(
        2 * SAMPLES, sizes[0], n_informative=12, n_redundant=2, n_classes=sizes[-1], class_sep=1.5,
        random_state=SEED,
    )  # fmt: skip
    x = torch.tensor(data / abs(data).max(), dtype=torch.float32)
    y = torch.tensor(labels)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])

    def learn(module: torch.nn.Module, steps: int, rate: float) -> None:
        optimizer = torch.optim.Adam(module.parameters(), rate)
        for _ in range(steps):
            batch = torch.randint(0, SAMPLES, (128,))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()

    learn(model, 600, 3e-3)
    eight = qfx.FixedPoint(8, rounding="RND")
    rest = x[SAMPLES:].numpy()
    graphs = {}
    for name, weight in weights.items():
        torch.manual_seed(SEED)
        config = qfx.Config(weight=weight, activation=eight, input=eight, bias=qfx.FixedPoint(16))
        q = qfx.prepare(model, x[:1], config)
        qfx.calibrate(q, [x[:512]])
        learn(q, 400, 1e-3)
        graph = qfx.freeze(q.eval())
        graphs[name] = graph, float((graph.run(rest).argmax(axis=1) == labels[SAMPLES:]).mean())
    return graphs


def counted(cost: Cost) -> dict[str, Any]:
    return {"lut": cost.lut, "ff": cost.ff, "carry": cost.carry, "dsp": cost.dsp, "bram": cost.bram}


def dot_products() -> dict[str, dict[str, Any]]:
    """A dot product of unsigned activations of 4 and 8 bits with 8-bit weights."""
    rows = {}
    for bits in (8, 4):
        common = {"N": PAIRS, "A_WIDTH": bits, "A_SIGNED": 0, "W_SIGNED": 1, "OUT_WIDTH": bits + 11}
        kinds: dict[str, dict[str, int]] = {
            "integer, Booth": {"KIND": LUT_INTEGER, "W_WIDTH": 8},
            "integer, *": {"KIND": INTEGER, "W_WIDTH": 8},
        }
        for k in (1, 2, 3):
            top = (3 * KHot(8, 0, k).integer_max ^ KHot(8, 0, k).integer_max).bit_length() - 1
            digits, fine, places = digit_slots(top, k)
            slot = 1 + (fine.bit_length() - 1) + places.bit_length()
            kinds[f"K-hot, K={k}"] = {
                "KIND": DIGITS, "W_WIDTH": slot * digits, "DIGITS": digits, "FINE": fine, "PLACES": places,
            }  # fmt: skip
        for name, parameters in kinds.items():
            kernel = Kernel("qfx_dot", sources(("qfx_dot",)), {**common, **parameters})
            rows[f"{name}, {bits}-bit activations"] = {
                **counted(measure(kernel, dsp=False)),
                "weight_bits": parameters["W_WIDTH"],
            }
    return rows


def designs(
    architecture: str, graphs: dict[str, tuple[Graph, float]], fold: dict[str, dict[str, int]]
) -> dict[str, dict[str, Any]]:
    """The whole accelerator with each kind of weights."""
    rows = {}
    for name, (graph, accuracy) in graphs.items():
        ways = {"shift": name}
        if name == "integer":
            ways = {"lut": "integer, Booth", "auto": "integer, *"}
        if architecture == "parallel":
            ways = {"auto": name}
        for multipliers, title in ways.items():
            with tempfile.TemporaryDirectory(prefix="qfx-khot-") as folder:
                more: dict[str, Any] = {"architecture": "parallel"}
                if architecture == "folded":
                    more = {"fold": fold, "multipliers": multipliers}
                design = qfx.rtl.generate(graph, Path(folder) / "rtl", **more)
                cost = measure(design, dsp=False, timeout_s=4 * 3600)
            rows[title] = {
                **counted(cost), "tool": f"{cost.tool} {cost.version}", "interval": design.interval,
                "latency": design.latency, "accuracy": accuracy,
            }  # fmt: skip
    return rows


def ratios(rows: dict[str, dict[str, Any]]) -> None:
    """LUTs over those of the integers of the same part (and activations)."""
    for name, row in rows.items():
        activations = name.partition("-bit")[0][-1] if "activations" in name else ""
        for base in ("integer", "integer, Booth", "integer, *"):
            key = f"{base}, {activations}-bit activations" if activations else base
            if key in rows:
                row[f"lut_over_{base.split(', ')[-1]}"] = row["lut"] / rows[key]["lut"]


def show(result: dict[str, Any]) -> None:
    console = Console()
    for part in PARTS:
        if part not in result:
            continue
        rows = result[part]
        keys = list(dict.fromkeys(key for row in rows.values() for key in row if key != "tool"))
        table = Table(title=part, title_justify="left")
        for key in ("weights", *keys):
            table.add_column(key, justify="left" if key == "weights" else "right")
        for name, row in rows.items():
            cells = (row.get(key, "") for key in keys)
            table.add_row(name, *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in cells))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=list(SIZES), help="multiples of 8, then outputs"
    )
    parser.add_argument("--pe", type=int, default=4, help="outputs per cycle of a folded layer, at most")
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    sizes = tuple(options.sizes)
    fold = folds(sizes, options.pe)
    result: dict[str, Any] = {
        "command": " ".join(["benchmarks/khot_cost.py", *sys.argv[1:]]), "sizes": sizes, "folds": fold,
    }  # fmt: skip
    if "dot" in options.part:
        result["dot"] = dot_products()
    if set(options.part) - {"dot"}:
        weights: dict[str, Any] = {"integer": qfx.FixedPoint(8)}
        graphs = train(weights | {f"K-hot, K={k}": KHot(8, None, k) for k in (1, 2, 3)}, sizes)
        for part in ("folded", "parallel"):
            if part in options.part:
                result[part] = designs(part, graphs, fold)
    for part in set(options.part):
        ratios(result[part])
    if options.json or not sys.stdout.isatty():
        print(json.dumps({**result, "versions": versions(), "machine": machine()}, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
