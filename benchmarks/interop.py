"""A brevitas model trained on Fashion-MNIST, read as a graph, written as QONNX, run by qonnx, read again.

    python benchmarks/interop.py [--json] [--data fashion-mnist] [--epochs 1] [--train-samples 60000]

The network has two convolutions with BatchNorm and two linear layers, with brevitas's power-of-two quantizers
at 8 bits. The BatchNorms are merged into the convolutions after training. Every test image goes through
brevitas, through the interpreter of `qfx.from_brevitas(model)`, and through qonnx; what is counted are
samples with any difference in any output. The file is then read again and compared attribute by attribute,
and so is the file that brevitas's own exporter writes, by its results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import brevitas.quant as bq
import numpy as np
import torch
from brevitas.export import export_qonnx
from brevitas.nn.utils import merge_bn
from brevitas.quant.fixed_point import Int8WeightPerChannelFixedPoint
from torch import nn
from torch.nn.functional import cross_entropy

import qfx
from qfx.demo.data import load
from qfx.environment import machine, versions

#: qonnx wants a fixed batch; this many images go through it at a time.
BATCH = 1000


class QuantFashionNet(nn.Module):
    """conv 16 - conv 32 - linear 64 - linear 10 on 28x28 images; input ``(batch, 1, 28, 28)``."""

    def __init__(self) -> None:
        super().__init__()
        conv = {"padding": 1, "bias": False, "weight_quant": Int8WeightPerChannelFixedPoint}
        linear = {"bias": True, "weight_quant": bq.Int8WeightPerTensorFixedPoint, "bias_quant": bq.Int16Bias}
        shared = {"return_quant_tensor": True}
        act = {"act_quant": bq.Uint8ActPerTensorFixedPoint, **shared}
        self.input = qnn.QuantIdentity(bq.Uint8ActPerTensorFixedPoint, **shared)
        self.conv1 = qnn.QuantConv2d(1, 16, 3, bias_quant=bq.Int16Bias, **conv, **shared)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = qnn.QuantReLU(**act)
        self.conv2 = qnn.QuantConv2d(16, 32, 3, bias_quant=bq.Int16Bias, **conv, **shared)
        self.bn2 = nn.BatchNorm2d(32)
        self.relu2 = qnn.QuantReLU(**act)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = qnn.QuantLinear(32 * 49, 64, **linear, **shared)
        self.relu3 = qnn.QuantReLU(**act)
        self.dropout = nn.Dropout(0.1)
        self.fc2 = qnn.QuantLinear(64, 10, **linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu1(self.bn1(self.conv1(self.input(x)))))
        x = self.pool(self.relu2(self.bn2(self.conv2(x))))
        return self.fc2(self.dropout(self.relu3(self.fc1(x.flatten(1)))))

    def merge_batch_norms(self) -> None:
        """Fold both BatchNorms into the convolutions before them, whose biases are quantized from then on."""
        for name in ("1", "2"):
            merge_bn(getattr(self, f"conv{name}"), getattr(self, f"bn{name}"))
            setattr(self, f"bn{name}", nn.Identity())


def train(model: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int) -> float:
    """Seconds of training with Adam at batch 128."""
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    start = time.perf_counter()
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return time.perf_counter() - start


def run_qonnx(file: Path, images: np.ndarray) -> np.ndarray:
    """The outputs of all images as qonnx computes them."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(str(file))
    (source,), (result,) = ([v.name for v in values] for values in (model.graph.input, model.graph.output))
    found = [execute_onnx(model, {source: b})[result] for b in np.split(images, len(images) // BATCH)]
    return np.concatenate(found)


def same_graph(one: qfx.Graph, two: qfx.Graph) -> bool:
    """Equal nodes, names, paths and attributes."""

    def plain(graph: qfx.Graph) -> list[Any]:
        return [
            (
                n.name,
                n.op.kind,
                n.inputs,
                n.path,
                [_plain(getattr(n.op, f.name)) for f in dataclasses.fields(n.op)],
            )
            for n in graph.nodes
        ]

    return plain(one) == plain(two) and one.output == two.output


def _plain(value: Any) -> Any:
    return (value.shape, value.tolist()) if isinstance(value, np.ndarray) else value


def measure(data: str, epochs: int, train_samples: int) -> dict[str, Any]:
    torch.manual_seed(0)
    dataset = load(data)
    images, labels = dataset.test_images, dataset.test_labels
    images = images[: len(images) // BATCH * BATCH]
    model = QuantFashionNet()
    train_seconds = train(
        model, dataset.train_images[:train_samples], dataset.train_labels[:train_samples], epochs
    )
    model.eval()
    model.merge_batch_norms()

    start = time.perf_counter()
    with torch.no_grad():
        expected = torch.cat([model(b) for b in torch.from_numpy(images).split(BATCH)]).double().numpy()
    brevitas_seconds = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # float32 holds every partial sum
        graph = qfx.from_brevitas(model, torch.from_numpy(images[:16]))
    start = time.perf_counter()
    found = graph.run(images)
    interpreter_seconds = time.perf_counter() - start

    def mismatches(outputs: np.ndarray, of: np.ndarray) -> int:
        return int((outputs.astype(np.float64) != of).any(axis=1).sum())

    with tempfile.TemporaryDirectory() as folder:
        file, exported = Path(folder) / "net.onnx", Path(folder) / "brevitas.onnx"
        qfx.to_qonnx(graph, file, batch=BATCH)
        again = qfx.from_qonnx(file)
        start = time.perf_counter()
        by_qonnx = run_qonnx(file, images)
        qonnx_seconds = time.perf_counter() - start
        export_qonnx(model, args=torch.from_numpy(images[:1]), export_path=str(exported), verbose=False)
        from_export = qfx.from_qonnx(exported)
    return {
        "network": "QuantFashionNet (2 conv, 2 linear), 8-bit",
        "data": dataset.name,
        "epochs": epochs,
        "train_samples": min(train_samples, len(dataset.train_images)),
        "train_seconds": train_seconds,
        "accuracy": float((expected.argmax(axis=1) == labels[: len(images)]).mean()),
        "test_images": len(images),
        "from_brevitas_mismatches": mismatches(found, expected),
        "qonnx_mismatches": mismatches(by_qonnx, found),
        "imported_graph_is_the_same": same_graph(again, graph),
        "brevitas_export_mismatches": mismatches(from_export.run(images), expected),
        "brevitas_seconds": brevitas_seconds,
        "interpreter_seconds": interpreter_seconds,
        "qonnx_seconds": qonnx_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist", help="fashion-mnist, or a folder of idx files")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train-samples", type=int, default=60_000)
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # torch's exporter tells about packages that are not needed
    result = measure(options.data, options.epochs, options.train_samples)
    if options.json or not sys.stdout.isatty():
        print(json.dumps({**result, "versions": versions(), "machine": machine()}, indent=2))
        return
    for name, value in result.items():
        print(f"{name:28} {value if not isinstance(value, float) else round(value, 3)}")


if __name__ == "__main__":
    main()
