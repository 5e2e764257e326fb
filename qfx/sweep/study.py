"""The built-in objective: a small network in given formats, trained, frozen, and counted.

One float network is trained for each set of float settings and kept; every trial starts from it, calibrates,
learns for some epochs and freezes. The accuracy is that of the integer graph.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.sweep import names
from qfx.sweep.space import Space, Value

if TYPE_CHECKING:
    from torch import nn

    from qfx.demo.data import Dataset
    from qfx.graph import Graph

INPUT_BITS = 8


@dataclass(frozen=True)
class Settings:
    """Parameters of a trial; each can be varied.

    Attributes:
        weight, activation: short names of formats (:func:`qfx.sweep.parse`), for all layers. The input has 8
            bits, biases 16, and the result 8 or the bits of the activation format.
        network: ``mlp`` or ``cnn``.
        data: ``digits``, ``fashion-mnist``, or a folder of idx files.
        samples: training images, the first ones; 0 for all.
        float_epochs, epochs: passes over them before and after quantization; 0 ``epochs``: calibration only.
        float_rate, rate: learning rates (AdamW, cosine).
        batch: images per step.
        seed: of weights and shuffling.
        interval: cycles per image for which hardware is estimated; 0: no estimate.
    """

    weight: str = "int8"
    activation: str = "int8"
    network: str = "cnn"
    data: str = "digits"
    samples: int = 0
    float_epochs: int = 8
    epochs: int = 2
    float_rate: float = 4e-3
    rate: float = 2e-3
    batch: int = 64
    seed: int = 1
    interval: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, Value]) -> Settings:
        """From the parameters of a trial.

        Raises:
            QfxError: an unknown parameter, or a value of another type.
        """
        known = {f.name: f for f in fields(cls)}
        for name, value in parameters.items():
            if name not in known:
                raise QfxError(f"study: parameter {name!r} is unknown; use {', '.join(known)}")
            wanted = type(known[name].default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise QfxError(f"study: parameter {name} = {value!r}; expected {wanted.__name__}")
        return cls(**parameters)  # type: ignore[arg-type]


def space(
    families: tuple[str, ...] = names.FAMILIES,
    widths: tuple[int, ...] = (3, 4, 5, 6, 7, 8),
    *,
    mixed: bool = True,
    **settings: Value,
) -> Space:
    """The grid of formats (:func:`qfx.sweep.pairs`) with settings that all trials share.

    Raises:
        QfxError: an unknown family or setting.
    """
    Settings.of(settings)
    points: list[Mapping[str, Value]] = [
        {"weight": w, "activation": a} for w, a in names.pairs(families, widths, mixed=mixed)
    ]
    return Space(points=points).with_constants(settings)


def objective(parameters: Mapping[str, Value], folder: Path) -> dict[str, Any]:
    """Train and freeze one configuration; leaves ``network.qfx`` in ``folder``.

    Returns:
        ``accuracy`` of the frozen graph on the test images and ``accuracy_ptq`` of the calibrated one, in
        percent, ``accuracy_float``; ``ebops`` (:func:`qfx.ebops`); ``memory_bits`` of weights and biases;
        ``mismatches``: test images on which torch and the graph differ; with ``interval`` also
        ``lut_estimate`` and so on.
    """
    import torch

    import qfx
    from qfx.demo import train as loop

    chosen = Settings.of(parameters)
    # Small networks gain nothing from threads, and sums do not depend on their number.
    torch.set_num_threads(1)
    data = _data(chosen.data)
    images, labels = _training(data, chosen.samples)
    model, accuracy_float = float_network(chosen, folder.parent.parent / "float")
    torch.manual_seed(chosen.seed)
    config = qfx.Config(
        weight=names.parse(chosen.weight),
        activation=names.parse(chosen.activation),
        input=qfx.FixedPoint(INPUT_BITS, INPUT_BITS, signed=False),
        per_channel=_has_point(chosen.weight),
    )
    q = qfx.prepare(model, torch.from_numpy(images[:2]), config)
    qfx.calibrate(q, list(torch.from_numpy(images[:1024]).split(128)), progress=False)
    ptq = loop.accuracy(q, data.test_images, data.test_labels)
    if chosen.epochs:
        optimizer = torch.optim.AdamW(qfx.parameter_groups(q, lr=chosen.rate), weight_decay=1e-4)
        arrays = (images, labels, data.test_images[:500], data.test_labels[:500])
        loop.train(q, optimizer, arrays, chosen.epochs, chosen.batch, chosen.seed, _nothing)
    q.eval()
    graph = qfx.freeze(q)
    part = folder / f"network.{os.getpid()}.part"
    graph.save(part)
    part.replace(folder / "network.qfx")
    accuracy, mismatches = _compare(graph, q, data)
    result: dict[str, Any] = {
        "accuracy": accuracy,
        "accuracy_ptq": ptq,
        "accuracy_float": accuracy_float,
        "ebops": qfx.ebops(graph),
        "memory_bits": memory_bits(graph),
        "mismatches": mismatches,
        "layers": layers(graph),
        "notes": {
            "family": names.family(chosen.weight),
            "label": label(chosen.weight, chosen.activation),
            "command": command(parameters),
        },
    }
    if chosen.interval:
        from qfx.sweep.measure import estimates

        result |= estimates(graph, chosen.interval)
    return result


def command(parameters: Mapping[str, Value]) -> str:
    """The command line that runs one trial of this study by itself."""
    import shlex

    words = ["qfx", "trial", *(f"{name}={value}" for name, value in parameters.items())]
    return " ".join(shlex.quote(word) for word in words)


def label(weight: str, activation: str) -> str:
    """A configuration in one word: ``int4``, or ``int4 × int6`` for weights and activations."""
    return weight if weight == activation else f"{weight} × {activation}"


def memory_bits(graph: Graph) -> int:
    """Bits of all weights in their own format (scales of blocks included) and of all biases."""
    from qfx.formats import Block, FixedPoint
    from qfx.graph import ops

    total = 0
    for node in graph.nodes:
        if not isinstance(node.op, ops.Weighted):
            continue
        weight = node.op.weight
        fmt = node.op.weight_encoding or node.op.weight_format
        total += weight.size * fmt.width
        if isinstance(fmt, Block):
            columns = weight.shape[1]
            blocks = -(-columns // fmt.size) if fmt.size else 1
            total += weight.size // columns * blocks * fmt.exponent_bits
        if node.op.bias is not None:
            bias_format = node.op.bias_format
            assert isinstance(bias_format, FixedPoint)
            total += node.op.bias.size * bias_format.width
    return int(total)


def layers(graph: Graph, design: Any = None, cost: Any = None) -> list[dict[str, Any]]:
    """The layers of a graph as plain data for the report."""
    from qfx.report import collect_layers
    from qfx.report.plain import encode

    found = []
    for layer in collect_layers(graph, design, cost):
        row = encode(layer)
        row["shape"] = "×".join(str(n) for n in row["shape"])
        row["format"] = row["format"]["text"]
        del row["inputs"]
        found.append({name: value for name, value in row.items() if value not in (None, "")})
    return found


def float_network(chosen: Settings, folder: Path) -> tuple[nn.Module, float]:
    """The trained float network that trials start from, and its accuracy in percent; kept in ``folder``."""
    import torch

    from qfx.demo import train as loop
    from qfx.sweep import networks

    data = _data(chosen.data)
    images, labels = _training(data, chosen.samples)
    relevant = {
        name: getattr(chosen, name)
        for name in ("network", "data", "samples", "float_epochs", "float_rate", "batch", "seed")
    }
    key = hashlib.sha256(json.dumps([relevant, torch.__version__], sort_keys=True).encode()).hexdigest()[:20]
    done = folder / f"{chosen.network}-{key}.npz"
    torch.manual_seed(chosen.seed)
    model = networks.make(chosen.network, images.shape[-1])
    if not done.is_file():
        optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.float_rate, weight_decay=1e-4)
        arrays = (images, labels, data.test_images[:500], data.test_labels[:500])
        loop.train(model, optimizer, arrays, chosen.float_epochs, chosen.batch, chosen.seed, _nothing)
        folder.mkdir(parents=True, exist_ok=True)
        part = done.with_suffix(f".{os.getpid()}.part.npz")
        np.savez(part, **{name: value.numpy() for name, value in model.state_dict().items()})
        part.replace(done)
    with np.load(done) as arrays_of:
        model.load_state_dict({name: torch.from_numpy(arrays_of[name]) for name in arrays_of.files})
    model.eval()
    return model, loop.accuracy(model, data.test_images, data.test_labels)


@lru_cache(maxsize=2)
def _data(source: str) -> Dataset:
    from qfx.demo.data import load

    return load(source)


def _training(data: Dataset, samples: int) -> tuple[np.ndarray, np.ndarray]:
    if samples < 0:
        raise QfxError(f"study: samples={samples}; must be 0 (all) or more")
    end = samples or None
    return data.train_images[:end], data.train_labels[:end]


def _has_point(name: str) -> bool:
    """Whether weights of a format have a binary point that can be one per channel."""
    return names.family(name) != "mx"


def _compare(graph: Graph, q: nn.Module, data: Dataset) -> tuple[float, int]:
    """Accuracy of the graph in percent, and the test images on which torch gives other numbers."""
    import torch

    right = differing = 0
    for start in range(0, len(data.test_images), 500):
        x = data.test_images[start : start + 500]
        scores = graph.run(x)
        right += int((scores.argmax(1) == data.test_labels[start : start + 500]).sum())
        with torch.no_grad():
            theirs = q(torch.from_numpy(x)).double().numpy()
        differing += int((theirs != scores).any(axis=1).sum())
    return 100 * right / len(data.test_images), differing


def _nothing() -> None:
    pass
