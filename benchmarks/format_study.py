"""Which number format, how many bits, what accuracy, what hardware: a study of two networks on Fashion-MNIST.

    python benchmarks/format_study.py [--json] [--jobs 1] [--networks mlp,cnn] [--stage all] [--seeds 1,2,3]

Every configuration starts from one float network (5 epochs), is calibrated, trained for 2 epochs with learned
binary points and frozen; the multilayer perceptron on all training images, the convolutional network on the
first 10,000. Configurations: integers of 3 to 8 bits for weights and for activations, in all 36 combinations
(the convolutional network: the same width for both); minifloats of 3 to 8 bits in every split with 2 to 5
exponent bits, for both; K-hot weights of 3 to 8 bits with integer activations of the same width; the MX
formats for both.

Stages: ``train`` runs the sweep, ``measure`` generates, simulates and synthesises hardware (of the front and
of a few more), ``all`` does both, ``show`` prints what there is. What is finished is kept in
build/format_study, so that a run can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from qfx import report, sweep
from qfx.demo import data as datasets
from qfx.environment import machine, versions
from qfx.sweep import names, networks, study

SETTINGS = {"data": "fashion-mnist", "float_epochs": 5, "epochs": 2, "batch": 64}
#: The first one trains every configuration.
SEEDS = "1,2,3"
#: Training images, the first ones of the 60,000; and whether widths of weights and activations are combined.
SAMPLES = {"mlp": 60000, "cnn": 10000}
MIXED = {"mlp": True, "cnn": False}
#: Cycles per image that the hardware of the front is folded for, and test images that are simulated.
INTERVAL = {"mlp": 3136, "cnn": 7056}
IMAGES = 4
#: Measured whether on the front or not: integers and minifloats of the same widths.
ALSO = "int4,E2M1,int6,E2M3,int8,E4M3,MXFP4"


def space(network: str, seed: int, everything: bool) -> sweep.Space:
    """All configurations of a network, or only those whose widths are compared."""
    if everything:
        every = sweep.pairs(("integer",), range(3, 9), mixed=MIXED[network])
        every += sweep.pairs(("minifloat", "khot", "mx"), range(3, 9), mixed=False)
    else:
        every = sweep.pairs(("integer", "minifloat"), range(3, 9), mixed=False)
    points = [{"weight": weight, "activation": activation} for weight, activation in every]
    constants = {"network": network, "samples": SAMPLES[network], **SETTINGS, "seed": seed}
    return sweep.Space(points=points).with_constants(constants)


def train(network: str, out: Path, jobs: int, seed: int, everything: bool) -> sweep.Results:
    """The sweep of a network in a folder, as far as it is not finished yet."""
    return sweep.run(space(network, seed, everything), study.objective, out=out, name=out.name, jobs=jobs)


def measure(results: sweep.Results, out: Path, also: list[str], kept_only: bool) -> sweep.Results:
    """The hardware of the front and of other configurations by name, with the first test images simulated."""
    images = datasets.load(str(SETTINGS["data"])).test_images[:IMAGES]
    front = {t.slot for t in results.front()}
    return sweep.measure_front(
        results,
        out,
        interval=INTERVAL[results.name],
        slots=front | {t.slot for t in results.complete if t.notes["label"] in also},
        samples=images,
        per_layer=False,
        kept_only=kept_only,
        note=lambda line: print(line, file=sys.stderr, flush=True),
    )


def rows(results: sweep.Results) -> list[dict[str, Any]]:
    """What is committed of each configuration."""
    front = {t.slot for t in results.front()}
    return [
        {
            "configuration": t.notes["label"],
            "family": t.notes["family"],
            **t.parameters,
            "front": t.slot in front,
            **{name: round(value, 2) for name, value in t.metrics.items()},
            "hardware": t.measured,
        }
        for t in results.complete
    ]


def widths(found: list[dict[str, Any]]) -> dict[int, dict[str, dict[str, float]]]:
    """For each width the accuracies of the integer (named ``integer``) and of every minifloat split of that
    width, weights and activations alike: calibrated (``accuracy_ptq``) and learned (``accuracy``)."""
    lines: dict[int, dict[str, dict[str, float]]] = {}
    for row in found:
        if row["weight"] == row["activation"] and row["family"] in ("integer", "minifloat"):
            name = "integer" if row["family"] == "integer" else row["configuration"]
            accuracies = {key: row[key] for key in ("accuracy_ptq", "accuracy")}
            lines.setdefault(names.bits(row["weight"]), {})[name] = accuracies
    return lines


def same_width(network: str, seeds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """By how many points minifloats lead integers of the same width: mean over the seeds, and standard error.

    The split is the one with the best mean, chosen by the same test images: that favours minifloats.
    """
    each = [widths(found) for found in seeds]
    lines = []
    for bits in sorted(each[0]):
        line: dict[str, Any] = {"network": network, "bits": bits, "seeds": len(each)}
        for kind, key in (("ptq", "accuracy_ptq"), ("learned", "accuracy")):
            values = {name: np.array([e[bits][name][key] for e in each]) for name in each[0][bits]}
            integer = values.pop("integer")
            split = max(values, key=lambda name: float(values[name].mean()))
            lead = values[split] - integer
            error = float(lead.std(ddof=1)) / len(lead) ** 0.5 if len(lead) > 1 else None
            line[kind] = {
                "integer": round(float(integer.mean()), 2),
                "minifloat": round(float(values[split].mean()), 2),
                "split": split,
                "lead": round(float(lead.mean()), 2),
                "standard_error": None if error is None else round(error, 2),
            }
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--networks", default=",".join(networks.NETWORKS))
    parser.add_argument("--also", default=ALSO, help="measured besides the front, by name")
    parser.add_argument("--stage", choices=("train", "measure", "all", "show"), default="all")
    parser.add_argument("--seeds", default=SEEDS)
    parser.add_argument("--work", type=Path, default=Path("build/format_study"))
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    everything: list[list[sweep.Results]] = []
    for network in arguments.networks.split(","):
        everything.append([])
        for seed in seeds:
            first = seed == seeds[0]
            out = arguments.work / (network if first else f"{network}-seed{seed}")
            if arguments.stage in ("train", "all"):
                train(network, out, arguments.jobs, seed, first)
            if arguments.stage == "train" or not (out / "study.journal").exists():
                continue
            results = sweep.read(out / "study.journal", out.name)
            if first:
                results = measure(results, out, arguments.also.split(","), arguments.stage == "show")
                results.save(out / "sweep.json")
                report.write_sweep(results, out / "report.html")
            everything[-1].append(results)
    everything = [sweeps for sweeps in everything if sweeps]
    if arguments.json:
        found = [[rows(results) for results in sweeps] for sweeps in everything]
        document = {
            "benchmark": "format_study",
            "settings": {**SETTINGS, "samples": SAMPLES, "interval": INTERVAL, "simulated images": IMAGES},
            "same_width": [line for part in found for line in same_width(part[0][0]["network"], part)],
            "rows": [row for part in found for sweep_rows in part for row in sweep_rows],
            "versions": versions(),
            "machine": machine(),
        }
        print(json.dumps(document, indent=1))
        return
    for sweeps in everything:
        for row in rows(sweeps[0]):
            if row["hardware"]:
                print(row["network"], row["configuration"], row["accuracy"], row["ebops"], row["hardware"])


if __name__ == "__main__":
    main()
