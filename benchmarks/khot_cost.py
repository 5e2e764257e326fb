"""What K-hot weights save without DSP blocks: one trained perceptron with 8-bit weights, in Yosys' 7-series
primitives.

    python benchmarks/khot_cost.py [--json] [--part dot folded parallel] [--sizes 16 64 32 32 5] [--pe 4]
                                   [--digit-loss 2e-5] [--out FILE]

dot: a dot product of 8 pairs. folded: the whole accelerator, weights from memories, the same folds for all.
parallel: the whole accelerator, weights constants. All `-nodsp`. Weights are integers or have at most 1, 2 or
3 canonical signed digits; each network is trained with its weights. Integers are multiplied twice: by Booth
multipliers of look-up tables (`multipliers="lut"`) and by what synthesis makes of `*`.

"digit loss" rows are trained with a loss that draws each weight to the nearest number of fewer digits: what a
constant costs in adders, so they are measured in the parallel part, for integers too.

A parallel network of the default size takes Yosys a quarter of an hour and more; `--out` writes after every
row, and rows that the file has from the same settings and versions are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_classification

import qfx
from qfx.cost import Cost, Kernel, measure
from qfx.environment import machine, versions
from qfx.formats import KHot
from qfx.graph import Graph, ops
from qfx.nn.weighted import QuantWeighted
from qfx.rtl.arithmetic import DIGITS, INTEGER, LUT_INTEGER, digit_slots
from qfx.rtl.emit import sources

SIZES = (16, 64, 32, 32, 5)
SEED = 0
SAMPLES = 2048
PAIRS = 8
#: Bits of weights and of activations of the dot products.
OPERANDS = ((8, 8), (8, 4), (12, 8), (16, 8))
PARTS = ("dot", "folded", "parallel")
STEPS = 800
#: Factors of the digit loss.
DIGIT_LOSS = (2e-5,)
LOSS = ", digit loss"


def folds(sizes: tuple[int, ...], pe: int) -> dict[str, dict[str, int]]:
    """Eight inputs by `pe` outputs of each layer in a cycle, or as many outputs as divide it."""
    return {
        str(2 * i): {"pe": max(d for d in range(1, pe + 1) if outputs % d == 0), "simd": PAIRS}
        for i, outputs in enumerate(sizes[1:])
    }


def digit_counts(integers: np.ndarray) -> np.ndarray:
    """Nonzero canonical signed digits of each integer."""
    magnitude = np.abs(integers.astype(np.int64))
    return np.bitwise_count(magnitude ^ 3 * magnitude).astype(np.int64)


def digit_loss(model: torch.nn.Module) -> torch.Tensor:
    """How far the weights are from the nearest numbers that have fewer digits than they have now, in steps of
    their grid: its gradient draws each there until the cast gives it."""
    total = torch.zeros(())
    for module in model.modules():
        if not isinstance(module, QuantWeighted):
            continue
        held = module.weight_quantizer.constant(module.weight)
        step = 2.0 ** -torch.tensor(held.format.fracs(len(module.weight)), dtype=torch.float32)[:, None]
        digits = torch.from_numpy(digit_counts(held.codes))
        scaled = module.weight / step
        for few in range(int(digits.max())):
            numbers = np.unique(KHot(9, 0, few).values()) if few else np.zeros(1)
            nearest = torch.tensor(numbers, dtype=torch.float32)
            between = (nearest[1:] + nearest[:-1]) / 2
            goal = nearest[torch.bucketize(scaled.detach(), between)]
            total = total + ((scaled - goal).abs() * (digits == few + 1)).sum()
    return total


def train(
    weights: dict[str, Any],
    sizes: tuple[int, ...],
    losses: Sequence[float],
    only: Sequence[str] | None = None,
) -> dict[str, tuple[Graph, float]]:
    """One network trained in float, then with each format of weights, without and with the digit losses;
    graphs, and accuracies on other samples. ``only``: names of rows, of which the names of networks are the
    beginnings."""
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

    def learn(module: torch.nn.Module, steps: int, rate: float, digits: float = 0.0) -> None:
        optimizer = torch.optim.Adam(module.parameters(), rate)
        for _ in range(steps):
            batch = torch.randint(0, SAMPLES, (128,))
            optimizer.zero_grad()
            error = torch.nn.functional.cross_entropy(module(x[batch]), y[batch])
            if digits:
                error = error + digits * digit_loss(module)
            error.backward()
            optimizer.step()

    learn(model, 600, 3e-3)
    eight = qfx.FixedPoint(8, rounding="RND")
    rest = x[SAMPLES:].numpy()
    graphs = {}
    for (format_name, weight), digits in product(weights.items(), (0.0, *losses)):
        name = f"{format_name}{LOSS} {digits:g}" if digits else format_name
        if only and not any(row.startswith(name) for row in only):
            continue
        torch.manual_seed(SEED)
        config = qfx.Config(weight=weight, activation=eight, input=eight, bias=qfx.FixedPoint(16))
        q = qfx.prepare(model, x[:1], config)
        qfx.calibrate(q, [x[:512]])
        learn(q, STEPS, 1e-3, digits)
        graph = qfx.freeze(q.eval())
        accuracy = float((graph.run(rest).argmax(axis=1) == labels[SAMPLES:]).mean())
        graphs[name] = graph, accuracy
    return graphs


def counted(cost: Cost) -> dict[str, Any]:
    return {"lut": cost.lut, "ff": cost.ff, "carry": cost.carry, "dsp": cost.dsp, "bram": cost.bram}


def dot_products() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Dot products of weights with unsigned activations: names of rows, and what measures them."""
    for weight, bits in OPERANDS:
        common = {"N": PAIRS, "A_WIDTH": bits, "A_SIGNED": 0, "W_SIGNED": 1, "OUT_WIDTH": weight + bits + 3}
        kinds: dict[str, dict[str, int]] = {
            "integer, Booth": {"KIND": LUT_INTEGER, "W_WIDTH": weight},
            "integer, *": {"KIND": INTEGER, "W_WIDTH": weight},
        }
        for k in (1, 2, 3):
            most = KHot(weight, 0, k).integer_max
            digits, fine, places = digit_slots((3 * most ^ most).bit_length() - 1, k)
            slot = 1 + (fine.bit_length() - 1) + places.bit_length()
            kinds[f"K-hot, K={k}"] = {
                "KIND": DIGITS, "W_WIDTH": slot * digits, "DIGITS": digits, "FINE": fine, "PLACES": places,
            }  # fmt: skip
        for name, parameters in kinds.items():

            def row(parameters: dict[str, int] = common | parameters) -> dict[str, Any]:
                kernel = Kernel("qfx_dot", sources(("qfx_dot",)), parameters)
                return {**counted(measure(kernel, dsp=False)), "weight_bits": parameters["W_WIDTH"]}

            yield f"{name}, {weight} by {bits} bits", row


def designs(
    architecture: str, graphs: dict[str, tuple[Graph, float]], fold: dict[str, dict[str, int]]
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The whole accelerator with each kind of weights: names of rows, and what measures them."""
    for name, (graph, accuracy) in graphs.items():
        if architecture == "parallel":
            ways: dict[str, dict[str, Any]] = {name: {"architecture": "parallel"}}
        elif LOSS in name:
            continue
        elif name == "integer":
            ways = {"integer, Booth": {"multipliers": "lut"}, "integer, *": {"multipliers": "auto"}}
        else:
            ways = {name: {"multipliers": "shift"}}
        for title, options in ways.items():
            if architecture == "folded":
                options = {**options, "fold": fold}

            def row(
                graph: Graph = graph, accuracy: float = accuracy, options: dict[str, Any] = options
            ) -> dict[str, Any]:
                with tempfile.TemporaryDirectory(prefix="qfx-khot-") as folder:
                    design = qfx.rtl.generate(graph, Path(folder) / "rtl", **options)
                    cost = measure(design, dsp=False, timeout_s=4 * 3600)
                weights = [n.op.weight for n in graph.nodes if isinstance(n.op, ops.Linear)]
                digits = np.concatenate([digit_counts(w).reshape(-1) for w in weights])
                return {
                    **counted(cost), "tool": f"{cost.tool} {cost.version}", "interval": design.interval,
                    "latency": design.latency, "accuracy": accuracy,
                    "digits_per_weight": float(digits.mean()),
                }  # fmt: skip

            yield title, row


def ratios(rows: dict[str, dict[str, Any]]) -> None:
    """LUTs over those of the integers of the same part (and operands)."""
    losses = [f"integer{LOSS} {value:g}" for value in DIGIT_LOSS]
    for name, row in rows.items():
        operands = f", {name.rpartition(', ')[2]}" if " by " in name else ""
        for base in ("integer", "integer, Booth", "integer, *", *losses):
            if base + operands in rows:
                found = rows[base + operands]["lut"]
                row[f"lut_over_{base.removeprefix('integer, ')}"] = row["lut"] / found


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
    parser.add_argument(
        "--digit-loss", type=float, nargs="*", default=DIGIT_LOSS, help="per weight and step of its grid"
    )
    parser.add_argument("--only", nargs="+", help="rows to measure, by name (default: all)")
    parser.add_argument("--out", type=Path, help="a JSON file to write after every row, and to go on from")
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    sizes = tuple(options.sizes)
    fold = folds(sizes, options.pe)
    result: dict[str, Any] = {
        "sizes": list(sizes), "folds": fold, "steps": STEPS, "digit_loss": list(options.digit_loss),
        "versions": versions(), "machine": machine(),
    }  # fmt: skip
    if options.out and options.out.exists():
        result = resumed(result, json.loads(options.out.read_text()))
    command = " ".join(["benchmarks/khot_cost.py", *sys.argv[1:]])
    result["commands"] = [*result.get("commands", ()), command]
    graphs: dict[str, tuple[Graph, float]] = {}
    if set(options.part) - {"dot"}:
        weights: dict[str, Any] = {"integer": qfx.FixedPoint(8)}
        graphs = train(
            weights | {f"K-hot, K={k}": KHot(8, None, k) for k in (1, 2, 3)},
            sizes,
            options.digit_loss,
            options.only,
        )
    for part in options.part:
        rows = result.setdefault(part, {})
        for name, row in dot_products() if part == "dot" else designs(part, graphs, fold):
            if name not in rows and name in (options.only or [name]):
                rows[name] = row()
                ratios(rows)
                if options.out:
                    write(options.out, result)
    if options.json or not sys.stdout.isatty():
        print(json.dumps(result, indent=2))
    else:
        show(result)


def resumed(settings: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The rows of a file that was written under the same settings.

    Raises:
        SystemExit: they are others.
    """
    differ = [key for key, value in settings.items() if found.get(key) != value]
    if differ:
        raise SystemExit(f"--out: the file has rows under other settings ({', '.join(differ)}); name another")
    return found


def write(path: Path, result: dict[str, Any]) -> None:
    """All or nothing."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(partial, path)


if __name__ == "__main__":
    main()
