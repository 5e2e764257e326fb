"""A brevitas model becomes an integer graph, a QONNX file and Verilog, with the same outputs on every sample.

    python examples/migrate_brevitas.py [--epochs 8] [--out build/migrated]

The first half is an ordinary brevitas script; the second half is what migrating it takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brevitas.nn as qnn
import brevitas.quant as bq
import torch
from rich.progress import track
from torch import nn
from torch.nn.functional import cross_entropy

import qfx
from qfx.demo.data import load


def brevitas_model() -> nn.Module:
    """Power-of-two scales everywhere: the quantizers of ``brevitas.quant`` with FixedPoint in their names."""
    weight, act = bq.Int8WeightPerTensorFixedPoint, bq.Uint8ActPerTensorFixedPoint
    shared = {"weight_quant": weight, "weight_bit_width": 5, "bias_quant": bq.Int16Bias}
    return nn.Sequential(
        qnn.QuantIdentity(act, return_quant_tensor=True),  # the input must be quantized too
        qnn.QuantConv2d(1, 8, 3, padding=1, return_quant_tensor=True, **shared),
        qnn.QuantReLU(act, bit_width=4, return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(128, 10, bias=True, **shared),
    )


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in track(range(epochs), "training with brevitas"):
        for batch in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()


def main(epochs: int, out: Path) -> None:
    torch.manual_seed(0)
    data = load("digits")
    model = brevitas_model()
    train(model, torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels), epochs)

    # From here on: QFX. What cannot be represented would be listed here, all of it, with what to do.
    graph = qfx.from_brevitas(model, torch.from_numpy(data.test_images[:16]))
    print(graph.summary())
    report = qfx.verify(graph, data.test_images, against=("torch",))
    accuracy = (graph.run(data.test_images).argmax(axis=1) == data.test_labels).mean()
    print(f"accuracy {accuracy:.3f}; against brevitas: {report}")

    out.mkdir(parents=True, exist_ok=True)
    graph.save(out / "network.qfx")
    qfx.to_qonnx(graph, out / "network.onnx")
    design = qfx.rtl.generate(graph, out / "rtl")
    print(f"{out}: network.qfx, network.onnx (Netron, qonnx, FINN), {len(design.files)} Verilog files in rtl")
    if not report.ok:
        raise SystemExit("the graph differs from brevitas")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("build/migrated"))
    options = parser.parse_args()
    main(options.epochs, options.out)
