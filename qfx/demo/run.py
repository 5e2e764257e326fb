"""The main job: train a network, learn its binary points, freeze it, show that all implementations agree."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

import qfx
from qfx import boards, doctor, report
from qfx.demo import networks, recipe, train
from qfx.demo.data import Dataset, load
from qfx.environment import machine, versions
from qfx.graph import Graph, ops
from qfx.learn import QuantizedModel
from qfx.report.build import write_text


@dataclass
class _Steps:
    """Seconds per step, and a line in the terminal for each."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str, title: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        start = time.perf_counter()
        columns = [
            TextColumn("{task.description:44}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        ]
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)
        self.seconds[name] = round(time.perf_counter() - start, 2)
        self.console.print(f"{title:44} {self.seconds[name]:8.1f} s")


@dataclass(frozen=True)
class Learned:
    """What training gave: accuracies in percent, the curve, the model, binary points before and after."""

    accuracy: dict[str, float]
    curve: tuple[report.Epoch, ...]
    model: QuantizedModel
    points: tuple[report.BinaryPoint, ...]


def run(
    data: str = "digits",
    out: Path | str = "build/demo",
    *,
    board: str = "ultra96v2",
    settings: recipe.Recipe | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the demo and write ``network.qfx``, ``hls/``, ``rtl/``, ``summary.json``, ``build.json`` and
    ``report.html`` to ``out``.

    Args:
        data: ``digits``, ``fashion-mnist``, or a folder of idx files.
        out: folder for the results; made when missing.
        board: target of the HLS project and clock of the report.
        settings: training and build settings; by default those for the size of the images.

    Returns:
        What ``summary.json`` holds.

    Raises:
        QfxError: missing data or tools, before anything is trained.
    """
    console = console or Console()
    out = Path(out)
    target = boards.get(board)
    dataset = load(data)
    settings = settings or recipe.for_image_size(dataset.train_images.shape[-1])
    for tool in ("perl", "make", "g++"):
        doctor.require(tool)
    out.mkdir(parents=True, exist_ok=True)
    steps = _Steps(console)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(min(settings.threads, threads))
        learned = learn(dataset, settings, steps)
    finally:
        torch.set_num_threads(threads)
    with steps("freeze", "Freezing to integers"):
        graph = qfx.freeze(learned.model)
        graph.save(out / "network.qfx")
    learned.accuracy["learned"] = _graph_accuracy(graph, dataset)

    images = dataset.test_images
    verified: dict[str, Any] = {}
    with steps("verify_torch", f"Comparing torch on {len(images)} images"):
        verified.update(qfx.verify(graph, images, against=("torch",)))
    # Where there is no HLS tool for the board, the C simulation is still worth comparing.
    hls = {"board": target if target.hls_backend else "generic"}
    with steps("verify_hls", f"HLS project and C simulation of {len(images)}"):
        verified.update(qfx.verify(graph, images, against=("hls",), hls=hls, directory=out))
    with steps("verify_rtl", f"Verilog and its simulation of {settings.rtl_frames}"):
        verified.update(
            qfx.verify(
                graph,
                images[: settings.rtl_frames],
                against=("rtl",),
                tap=True,
                rtl={"interval": settings.interval, "board": target},
                directory=out,
            )
        )
    with steps("cost", "Synthesis with Yosys"):
        design = qfx.rtl.load(out / "rtl")
        cost = qfx.cost.measure(design, per_layer=True)
    with steps("mac_cost", "Multiply-accumulate kernels side by side"):
        mac_cost = mac_rows()

    build = report.Build(
        title=f"{dataset.name}: learned binary points, {settings.weight_bits}-bit weights and activations",
        command=f"make demo DATA={data}",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        description=_describe(learned.model, graph),
        dataset=dataset.name,
        board=_board(target),
        accuracy=learned.accuracy,
        accuracy_samples=len(images),
        verify=report.collect_verification(verified, HOW),
        cycles=_cycles(verified["rtl"].details),
        resources=report.collect_resources(cost),
        layers=report.collect_layers(graph, design, cost),
        points=learned.points,
        histograms=report.collect_histograms(learned.model, torch.from_numpy(dataset.train_images[:512])),
        training=learned.curve,
        mac_cost=mac_cost,
        seconds=steps.seconds,
        versions=versions(),
        machine=machine(),
        files=dict(FILES),
    )
    build.save(out / "build.json")
    report.write(build, out / "report.html")
    summary = build.summary()
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    show(build, out, console)
    return summary


FILES = {
    "integer graph": "network.qfx",
    "HLS project": "hls/",
    "Verilog": "rtl/",
    "results": "summary.json",
}

HOW = {
    "torch": "eval() of the trained model",
    "hls": "hls4ml project, C simulation",
    "rtl": "cocotb on Verilator, once without stalls and once with random stalls on both ends; every stream",
}


def learn(dataset: Dataset, settings: recipe.Recipe, steps: _Steps) -> Learned:
    """Float training, post-training quantization, then training with learned binary points."""
    torch.manual_seed(settings.seed)
    splits = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    per_epoch = train.batches_per_epoch(len(dataset.train_images), settings.batch_size)
    curve: list[report.Epoch] = []
    accuracy = {}

    model = networks.for_image_size(dataset.train_images.shape[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.float_rate, weight_decay=1e-2)
    with steps("train_float", "Training in float", settings.float_epochs * per_epoch) as tick:
        epochs = train.train(
            model, optimizer, splits, settings.float_epochs, settings.batch_size, settings.seed, tick
        )
    curve += [report.Epoch("float", e.epoch, e.loss, e.test_accuracy) for e in epochs]
    accuracy["float"] = epochs[-1].test_accuracy

    with steps("ptq", "Post-training quantization"):
        config = qfx.Config(
            weight=qfx.FixedPoint(settings.weight_bits),
            activation=qfx.FixedPoint(settings.activation_bits),
            input=qfx.FixedPoint(settings.input_bits, signed=False),
        )
        quantized = qfx.prepare(model.eval(), torch.from_numpy(dataset.train_images[:1]), config)
        qfx.calibrate(quantized, [torch.from_numpy(dataset.train_images[: settings.calibration])])
        calibrated = report.binary_points(quantized)
        accuracy["ptq"] = _graph_accuracy(qfx.freeze(quantized), dataset)

    optimizer = torch.optim.AdamW(quantized.parameters(), lr=settings.learned_rate, weight_decay=1e-3)
    with steps("train_learned", "Learning binary points", settings.learned_epochs * per_epoch) as tick:
        epochs = train.train(
            quantized,
            optimizer,
            splits,
            settings.learned_epochs,
            settings.batch_size,
            settings.seed + 1,
            tick,
        )
    curve += [report.Epoch("learned", e.epoch, e.loss, e.test_accuracy) for e in epochs]
    return Learned(accuracy, tuple(curve), quantized, report.binary_points(quantized, calibrated))


def mac_rows() -> tuple[report.MacCost, ...]:
    """The multiply-accumulate kernels of integer and minifloat formats, measured."""
    from qfx.cost.mac import mac_table

    names = {f.name for f in dataclasses.fields(report.MacCost)}
    return tuple(report.MacCost(**{k: v for k, v in row.items() if k in names}) for row in mac_table())


def show(build: report.Build, out: Path, console: Console) -> None:
    """The results as a table."""
    table = Table(title=build.title, show_header=False, title_justify="left")
    for name, percent in build.accuracy.items():
        table.add_row(f"accuracy, {name}", f"{percent:.2f} %")
    for row in build.verify:
        table.add_row(f"{row.name} against integers", f"{row.mismatches} mismatches in {row.samples} samples")
    if build.cycles:
        c = build.cycles
        table.add_row(
            "initiation interval", f"{c.interval_simulated} cycles (predicted {c.interval_predicted})"
        )
        table.add_row("latency", f"{c.latency_simulated} cycles (predicted {c.latency_predicted})")
    if build.resources:
        r = build.resources
        table.add_row(
            "resources (Yosys)", f"{r.lut} LUT, {r.ff} FF, {r.carry} CARRY4, {r.dsp} DSP, {r.bram} BRAM36"
        )
    for mac in build.mac_cost:
        table.add_row(
            f"MAC {mac.format}", f"{mac.lut} LUT, {mac.ff} FF, accumulator {mac.accumulator_bits} bits"
        )
    table.add_row("report", str(out / "report.html"))
    console.print(table)


def _graph_accuracy(graph: Graph, dataset: Dataset) -> float:
    return 100 * float((graph.run(dataset.test_images).argmax(axis=1) == dataset.test_labels).mean())


def _cycles(details: Any) -> report.Cycles:
    return report.Cycles(
        interval_predicted=details["interval_predicted"],
        interval_simulated=details["interval"],
        latency_predicted=details["latency_predicted"],
        latency_simulated=details["latency"],
    )


def _describe(model: nn.Module, graph: Graph) -> str:
    weights = sum(
        int(np.prod(node.op.weight.shape)) for node in graph.nodes if isinstance(node.op, ops.Weighted)
    )
    return (
        f"{weights} weights; the binary points of every layer learned together with them; "
        f"frozen to {len(graph.nodes)} integer nodes."
    )


def _board(board: boards.Board) -> report.Board:
    have = board.resources
    return report.Board(
        name=board.name, clock_mhz=board.clock_mhz, title=board.title, part=board.part,
        lut=have.lut, ff=have.ff, dsp=have.dsp, bram=have.bram * have.bram_kbit / 36,
    )  # fmt: skip
