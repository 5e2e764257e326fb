"""The command that quantizes a float model after training: ptq."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qfx.cli.console import print_json, print_table
from qfx.cli.options import AsJson, names
from qfx.errors import QfxError

if TYPE_CHECKING:
    import torch

    from qfx.formats.base import Format
    from qfx.learn.config import Config

_MINIFLOAT = re.compile(r"e(\d+)m(\d+)", re.IGNORECASE)


def register(app: typer.Typer) -> None:
    app.command()(ptq)


def ptq(
    model: Annotated[str, typer.Argument(help="package.module:function; called without arguments.")],
    data: Annotated[Path, typer.Option(help="A .npy file of samples, or a folder of images.")],
    weight: Annotated[str, typer.Option(help="Bits, or a minifloat like e2m1.")] = "8",
    activation: Annotated[str, typer.Option(help="Bits, or a minifloat like e4m3.")] = "8",
    methods: Annotated[
        str, typer.Option(help='"best" for the formats, or names with commas in between; see docs/ptq.md.')
    ] = "best",
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale for all output channels.")
    ] = False,
    calibration: Annotated[int, typer.Option(help="Samples to calibrate with.")] = 64,
    evaluation: Annotated[int, typer.Option(help="Further samples to compare with the float model.")] = 64,
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 16,
    size: Annotated[int, typer.Option(help="Height and width of images.")] = 224,
    byte_input: Annotated[
        bool, typer.Option("--byte-input", help="The graph takes the bytes of images (see docs/ptq.md).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the order in which samples are drawn.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="The graph file.")] = Path("build/ptq.qfx"),
    json: AsJson = False,
) -> None:
    """Quantize a trained torch model with calibration data, and save the integer graph."""
    import torch

    import qfx

    q_methods = "best" if methods.strip() == "best" else names(methods)
    config = qfx.Config(
        weight=number_format("--weight", weight),
        activation=number_format("--activation", activation),
        per_channel=not per_tensor,
    )
    if min(calibration, batch, size) < 1 or evaluation < 0:
        raise QfxError("--calibration, --batch and --size must be at least 1, --evaluation at least 0")
    network = load_model(model).eval()
    found, labels = load_samples(data, calibration + evaluation, size, seed)
    if byte_input:
        network, found, config = for_bytes(network, found, config, data)
    first, rest, truth = found[:calibration], found[calibration:], labels[calibration:]
    q = qfx.ptq.quantize(network, list(first.split(batch)), config, q_methods)
    graph = qfx.freeze(q)
    out.parent.mkdir(parents=True, exist_ok=True)
    graph.save(out)
    facts: dict[str, Any] = {"graph": str(out), "methods": q_methods, "calibration": len(first)}
    if len(rest):
        with torch.no_grad():
            wanted = torch.cat([network(part) for part in rest.split(batch)])
            there = torch.cat([torch.from_numpy(graph.run(part.numpy())) for part in rest.split(batch)])
        facts |= compare(wanted.double(), there.double(), truth)
    if json:
        print_json(facts)
    else:
        print_table(("", ""), [(k.replace("_", " "), v if v is not None else "-") for k, v in facts.items()])


def for_bytes(
    network: torch.nn.Module, x: torch.Tensor, config: Config, data: Path
) -> tuple[torch.nn.Module, torch.Tensor, Config]:
    """A network, samples and formats when the graph is to take bytes.

    Raises:
        QfxError: the data is no folder of images, or :func:`qfx.models.byte_input` cannot take the network.
    """
    import dataclasses

    import torch

    import qfx
    from qfx.data.images import MEAN, STD

    if not data.is_dir():
        raise QfxError(
            f"--byte-input: needs a folder of images, found {data}; use qfx.models.byte_input for arrays"
        )
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    formats = {"sub": {"activation": qfx.FixedPoint(9, 0)}}
    config = dataclasses.replace(config, input=qfx.FixedPoint(8, 0, signed=False), overrides=formats)
    return qfx.models.byte_input(network, x[:1]), ((x * std + mean) * 255).round(), config


def number_format(option: str, text: str) -> Format:
    """``8`` is fixed point of 8 bits, ``e4m3`` a minifloat with a sign; binary points are calibrated."""
    import qfx

    if text.isdecimal():
        return qfx.FixedPoint(int(text))
    match = _MINIFLOAT.fullmatch(text)
    if match is None:
        raise QfxError(f"{option} {text!r}: expected a number of bits, or a minifloat like e4m3")
    return qfx.Minifloat(int(match[1]), int(match[2]))


def load_model(place: str) -> torch.nn.Module:
    """What a function of the user's returns; modules are found from the current folder, too.

    Raises:
        QfxError: no such module or function, or what it returns is no torch module.
    """
    import torch

    module, _, function = place.partition(":")
    if not function or not all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        raise QfxError(f"model {place!r}: expected package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise QfxError(f"model {place!r}: {error}") from error
    network = found() if callable(found) and not isinstance(found, torch.nn.Module) else found
    if not isinstance(network, torch.nn.Module):
        raise QfxError(f"model {place!r}: gives {type(network).__name__}, expected a torch.nn.Module")
    return network


def load_samples(path: Path, count: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """At most ``count`` samples in random order, and their labels (-1 where there is none)."""
    import numpy as np
    import torch

    if path.is_dir():
        from qfx.data import ImageFolder, batches

        pairs = list(batches(ImageFolder(path, size), 1, count, shuffle=seed))
        return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise QfxError(f"{path}: neither a folder nor a .npy file of numbers ({error})") from error
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "fiu" or data.ndim < 2 or not len(data):
        raise QfxError(f"{path}: expected one array of real numbers, samples first")
    order = np.random.default_rng(seed).permutation(len(data))[:count]
    return torch.from_numpy(data[order].astype(np.float32)), torch.full((len(order),), -1)


def compare(wanted: torch.Tensor, there: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """How close the graph's results are to the float model's; accuracies where there are labels."""
    import math

    noise = float((there - wanted).square().sum())
    power = float(wanted.square().sum())
    facts: dict[str, Any] = {
        "evaluation": len(wanted),
        "sqnr_db": 10 * math.log10(power / noise) if noise > 0 < power else None,
    }
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        facts["agreement"] = float((there.argmax(1) == wanted.argmax(1)).double().mean())
        known = labels >= 0
        if bool(known.any()):
            facts["accuracy"] = float((there.argmax(1) == labels)[known].double().mean())
            facts["float_accuracy"] = float((wanted.argmax(1) == labels)[known].double().mean())
    return facts
