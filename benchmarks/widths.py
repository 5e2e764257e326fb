"""Learned widths: a front of accuracy against EBOPs from one run, and uniform widths trained for as long.

    python benchmarks/widths.py [--json] [--task mlp|cnn|cnn_once|all] [--out docs/results]

`mlp` is a 16-64-32-32-5 network, the size of those that tag jets, on the first five letters of UCI's Letter
Recognition (Debian's r-cran-mlbench; `benchmarks/lib/letter.py` says how to get it). `cnn` is the demo's
network for 28x28 images on Fashion-MNIST (Debian's dataset-fashion-mnist), `cnn_once` the same with a gentler
loss. All start from a float network; the uniform ones learn their binary points, the front its widths too,
all for the same number of epochs. Networks are chosen by validation data; what is reported is the accuracy on
test data, of the frozen graph, which is compared with torch on every bit.

`--out` writes `widths_<task>.json`, `.md` and `.svg`. Threads: one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lib.letter import letters
from torch import nn

import qfx
from qfx import Config, FixedPoint
from qfx.demo import data as datasets
from qfx.demo.networks import FashionNet
from qfx.environment import machine, versions

Split = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """Settings of one comparison.

    Attributes:
        float_epochs, epochs: of the float network; of everything that starts from it.
        input: format of the input, frozen.
        beta: weight of the resource loss at the start and at the end.
        checks: looks at the model per epoch.
        cycles: how often the front's learning rate falls along a cosine.
        average: epochs over which the front's networks are averaged.
        widths: of the uniform networks.
    """

    name: str
    title: str
    float_epochs: int
    epochs: int
    batch_size: int
    float_lr: float
    lr: float
    weight_decay: float
    input: FixedPoint
    beta: tuple[float, float]
    checks: int
    average: float
    cycles: int = 1
    widths: tuple[int, ...] = (8, 6, 4)
    seed: int = 0


MLP = Task(
    "mlp", "Letters A to E, 16-64-32-32-5", 100, 300, 128, 5e-3, 2e-3, 0.05,
    FixedPoint(4, 2), (1e-6, 1e-3), 1, 5.0,
)  # fmt: skip
CNN = Task(
    "cnn", "Fashion-MNIST, two convolutions", 10, 8, 128, 4e-3, 2e-3, 0.01,
    FixedPoint(6, 6, signed=False), (1e-7, 1e-4), 8, 0.25, 8,
)  # fmt: skip
# The learning rate falls once, and the loss weight ends where accuracy begins to suffer: fewer points, more
# accurate ones.
CNN_ONCE = replace(CNN, name="cnn_once", beta=(1e-8, 5e-6), average=0.5, cycles=1)


class Batches:
    """A split in batches, shuffled anew in every epoch."""

    def __init__(self, split: Split, size: int, seed: int) -> None:
        self.split, self.size = split, size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.split[0]) // self.size)

    def __iter__(self) -> Iterator[Split]:
        for part in torch.randperm(len(self.split[0]), generator=self.generator).split(self.size):
            yield self.split[0][part], self.split[1][part]


def mlp_data() -> tuple[nn.Module, list[Split]]:
    """The network and its training, validation and test data: 60, 20 and 20 percent, in the file's order."""
    features, labels = letters()
    chosen = labels < 5
    # Whole numbers of 0..15 around 0: a 4-bit format holds them exactly.
    x, y = torch.from_numpy((features[chosen] - 8) / 4), torch.from_numpy(labels[chosen])
    first, second = int(0.6 * len(x)), int(0.8 * len(x))
    sizes = (16, 64, 32, 32, 5)
    layers: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(i, o), nn.ReLU()]
    splits = [(x[a:b], y[a:b]) for a, b in ((0, first), (first, second), (second, len(x)))]
    return nn.Sequential(*layers[:-1]), splits


def cnn_data() -> tuple[nn.Module, list[Split]]:
    """The network and 16,000 training, 5,000 validation and 10,000 test images."""
    d = datasets.load("fashion-mnist")
    x, y = torch.from_numpy(d.train_images), torch.from_numpy(d.train_labels)
    test = torch.from_numpy(d.test_images), torch.from_numpy(d.test_labels)
    return FashionNet(), [(x[:16000], y[:16000]), (x[-5000:], y[-5000:]), test]


def train(model: nn.Module, groups: Any, batches: Batches, epochs: int, lr: float) -> None:
    """AdamW, the learning rate falling along a cosine to a hundredth."""
    optimizer = torch.optim.AdamW(groups, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches), lr / 100)
    model.train()
    for _ in range(epochs):
        for x, y in batches:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def float_accuracy(model: nn.Module, split: Split) -> float:
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in _parts(split))
    return 100.0 * right / len(split[0])


def measured(q: Any, split: Split) -> tuple[float, int]:
    """Accuracy of the frozen graph in percent, and in how many of the first 1,000 samples torch differs."""
    graph = qfx.freeze(q)
    right = wrong = 0
    with torch.no_grad():
        for index, (x, y) in enumerate(_parts(split)):
            values = graph.run(x)
            right += int((values.argmax(1) == y.numpy()).sum())
            if index < 2:
                wrong += int((values != q(x).double().numpy()).any(axis=1).sum())
    return 100.0 * right / len(split[0]), wrong


def _parts(split: Split) -> Iterator[Split]:
    return zip(split[0].split(500), split[1].split(500), strict=True)


def compare(task: Task, progress: bool) -> tuple[dict[str, Any], qfx.Front]:
    """Everything for one task."""
    torch.manual_seed(task.seed)
    model, (training, validation, test) = mlp_data() if task.name == "mlp" else cnn_data()
    started = time.process_time()
    batches = Batches(training, task.batch_size, task.seed)
    train(model, model.parameters(), batches, task.float_epochs, task.float_lr)
    result: dict[str, Any] = {
        "task": {**asdict(task), "input": str(task.input)},
        "samples": [len(s[0]) for s in (training, validation, test)],
        "float": {"validation": float_accuracy(model, validation), "test": float_accuracy(model, test)},
    }

    def prepared(width: int, **learned: Any) -> Any:
        fmt = FixedPoint(width)
        config = Config(weight=fmt, activation=fmt, input=task.input, bias=FixedPoint(12), **learned)
        q = qfx.prepare(model, training[0][:2], config)
        return qfx.calibrate(q, list(training[0][:2000].split(500)), progress=False)

    result["uniform"] = []
    for width in task.widths:
        q = prepared(width)
        batches = Batches(training, task.batch_size, task.seed)
        groups = qfx.parameter_groups(q, lr=task.lr, weight_decay=task.weight_decay)
        train(q, groups, batches, task.epochs, task.lr)
        on_test, wrong = measured(q, test)
        row = {"width": width, "ebops": qfx.ebops(qfx.freeze(q)), "differ": wrong}
        result["uniform"].append({**row, "validation": measured(q, validation)[0], "test": on_test})

    q = prepared(6, learn_width={"weight": "weight", "bias": "weight", "activation": "tensor"})
    front = qfx.front(
        q, Batches(training, task.batch_size, task.seed), list(_parts(validation)), epochs=task.epochs,
        beta=task.beta, lr=task.lr, checks=task.checks, progress=progress,
        average=task.average, weight_decay=task.weight_decay, cycles=task.cycles,
    )  # fmt: skip
    result["front"] = []
    for point in front.points:
        on_test, wrong = measured(front.restore(q, point), test)
        row = {"ebops": point.cost, "differ": wrong, "epoch": point.epoch, "beta": point.beta}
        row |= {"validation": point.score, "test": on_test, "channels": channels(qfx.freeze(q))}
        result["front"].append({**row, "widths": [asdict(w) for w in point.widths]})
    result["at_equal_accuracy"] = [at_equal_accuracy(row, result["front"]) for row in result["uniform"]]
    result["cpu_seconds"] = round(time.process_time() - started)
    return result, front


def channels(graph: qfx.Graph) -> list[int]:
    """Output channels of the layers that are left."""
    return [n.tensor.channels for n in graph.nodes if n.op.kind in ("linear", "conv")]


def at_equal_accuracy(uniform: dict[str, Any], front: list[dict[str, Any]]) -> dict[str, Any]:
    """The cheapest network of the front that is at least as accurate: on the validation data, which it was
    chosen by, and on the test data too."""

    def found(*splits: str) -> dict[str, Any] | None:
        for p in front:
            if all(p[s] >= uniform[s] for s in splits):
                return {
                    "ebops": p["ebops"],
                    "fewer_ebops": uniform["ebops"] / p["ebops"],
                    "test_difference": p["test"] - uniform["test"],
                }
        return None

    return {
        "uniform": uniform["width"],
        "on_validation": found("validation"),
        "on_validation_and_test": found("validation", "test"),
    }


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    floating = result["float"]
    lines = [
        f"Float: {floating['validation']:.2f} % on validation, {floating['test']:.2f} % on test data.",
        "",
        "| network | EBOPs | validation | test | channels left | weights pruned |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in result["uniform"]:
        head = f"| uniform {row['width']} bits | {row['ebops']:,} |"
        lines.append(f"{head} {row['validation']:.2f} | {row['test']:.2f} | | |")
    for row in result["front"]:
        weights = [w for w in row["widths"] if w["name"].endswith("weight_quantizer")]
        pruned = sum(w["pruned"] * w["count"] for w in weights) / sum(w["count"] for w in weights)
        head = f"| learned widths, epoch {row['epoch']:g} | {row['ebops']:,} |"
        left = "-".join(map(str, row["channels"]))
        lines.append(f"{head} {row['validation']:.2f} | {row['test']:.2f} | {left} | {pruned:.0%} |")
    head = "| at least as accurate as | on | EBOPs | fewer | test accuracy |"
    lines += ["", head, "| --- | --- | ---: | ---: | ---: |"]
    for row in result["at_equal_accuracy"]:
        for key in ("on_validation", "on_validation_and_test"):
            who, where = f"uniform {row['uniform']} bits", key[3:].replace("_", " ")
            if row[key] is None:
                lines.append(f"| {who} | {where} | none | | |")
            else:
                p = row[key]
                lines.append(
                    f"| {who} | {where} | {p['ebops']:,} | {p['fewer_ebops']:.1f}x | "
                    f"{p['test_difference']:+.2f} points |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", choices=("mlp", "cnn", "cnn_once", "all"), default="all")
    parser.add_argument("--out", type=Path, help="folder for JSON, table and picture")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for task in (MLP, CNN, CNN_ONCE):
        if options.task not in (task.name, "all"):
            continue
        result, front = compare(task, progress=not options.json)
        result |= {"versions": versions(), "machine": machine()}
        results[task.name] = result
        if options.out:
            write(result, front, task, options.out)
        if not options.json:
            print(f"{task.title}\n\n{table(result)}")
    if options.json:
        print(json.dumps(results, indent=1))


def write(result: dict[str, Any], front: qfx.Front, task: Task, out: Path) -> None:
    """The three files of one task."""
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"widths_{task.name}"
    command = f"python benchmarks/widths.py --task {task.name} --out docs/results"
    checks = [asdict(c) for c in front.checks]
    document = {"command": command, **result, "checks": checks}
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(f"`{command}`\n\n{table(result)}", encoding="utf-8")
    uniform = {f"uniform {r['width']} bits": [(r["ebops"], r["validation"])] for r in result["uniform"]}
    front.plot(stem.with_suffix(".svg"), uniform, title=task.title, score="validation accuracy (%)")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
