"""Time and memory of a training step: QFX against torch float32, brevitas and PQuantML.

    python benchmarks/qat_step.py [--json] [--rounds 15] [--threads N] [--networks LeNet,CNN-32,MLP]
                                  [--cpu-time]

The same networks in the same process with the same threads: 8-bit weights and activations with powers of two
as scales everywhere. QFX also quantizes biases (16 bits) and learns all binary points but that of the input;
brevitas leaves biases in float, takes weight scales from the weights and learns those of activations.
PQuantML (`pip install pquant-ml==0.1.0`, torch backend, no pruning) quantizes biases too: once with binary
points that stay where they are put, once with its HGQ quantizers, one per tensor, which learn bits. A step is
zero_grad, forward, cross entropy, backward and SGD with momentum. The sides take turns, a few steps at a
time; medians over all rounds are compared. The JSON is a list with an entry per network.

Memory is what a step has allocated through torch at its peak (torch.profiler), together with parameters,
optimizer state, buffers and the batch, which were there before. Libraries that allocate for themselves are
not seen.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from lib.qat_peers import COLLECT_STEPS, PEERS, Network, peer_versions, peers
from rich.console import Console
from rich.table import Table
from torch import nn

import qfx
from qfx.environment import machine, versions
from qfx.nn import fused

# How long the steps of one side run before the other side's turn.
TURN_SECONDS = 0.15


def _hidden(*sizes: int) -> Iterator[Any]:
    for a, b in zip(sizes, sizes[1:], strict=False):
        yield from (("linear", a, b), "relu")


NETWORKS = {
    n.name: n
    for n in (
        Network(
            "LeNet", 128, (1, 28, 28), 10,
            (
                ("conv", 1, 6, 5, 2), "relu", "pool", ("conv", 6, 16, 5, 0), "relu", "pool", "flatten",
                *_hidden(400, 120, 84), ("linear", 84, 10),
            ),
            4,
        ),
        Network(
            "CNN-32", 64, (3, 32, 32), 10,
            (
                ("conv", 3, 32, 3, 1), "relu", ("conv", 32, 32, 3, 1), "relu", "pool",
                ("conv", 32, 64, 3, 1), "relu", ("conv", 64, 64, 3, 1), "relu", "pool", "flatten",
                *_hidden(4096, 128), ("linear", 128, 10),
            ),
            4,
        ),
        Network("MLP", 1024, (16,), 5, (*_hidden(16, 64, 32, 32), ("linear", 32, 5)), 4),
    )
}  # fmt: skip


def in_float(network: Network) -> nn.Module:
    """The network as plain torch modules."""
    plain = {"relu": nn.ReLU, "flatten": nn.Flatten}
    layers: list[nn.Module] = []
    for layer in network.layers:
        if layer == "pool":
            layers.append(nn.MaxPool2d(2))
        elif isinstance(layer, str):
            layers.append(plain[layer]())
        elif layer[0] == "conv":
            layers.append(nn.Conv2d(layer[1], layer[2], layer[3], padding=layer[4]))
        else:
            layers.append(nn.Linear(layer[1], layer[2]))
    return nn.Sequential(*layers)


def in_qfx(network: Network, model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network prepared by QFX: 8 bits, the input's binary point given."""
    config = qfx.Config(input=qfx.FixedPoint(8, network.frac))
    q = qfx.prepare(model, x[:2], config)
    return qfx.calibrate(q, [x]).train()


class Side:
    """One implementation of a network, and its training step."""

    def __init__(self, model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> None:
        self.model, self.x, self.labels = model.train(), x, labels
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
        self.times: list[float] = []

    def step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.labels).backward()
        self.optimizer.step()

    def turn(self, steps: int, clock: Callable[[], float]) -> None:
        start = clock()
        for _ in range(steps):
            self.step()
        self.times.append((clock() - start) / steps)

    @property
    def seconds(self) -> float:
        return statistics.median(self.times)

    def resident(self) -> int:
        """Bytes that are there before a step."""
        tensors = [*self.model.parameters(), *self.model.buffers(), self.x, self.labels]
        for state in self.optimizer.state.values():
            tensors += [v for v in state.values() if isinstance(v, torch.Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)

    def peak(self) -> int:
        """Bytes at the peak of a step."""
        self.optimizer.zero_grad()
        cpu = [torch.profiler.ProfilerActivity.CPU]
        with _quiet(), torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
            self.step()
        events = [
            e for e in _tree(profile.profiler.kineto_results.experimental_event_tree()) if _allocates(e)
        ]
        live = peak = 0
        for event in sorted(events, key=lambda e: e.start_time_ns):
            live += event.extra_fields.alloc_size
            peak = max(peak, live)
        return self.resident() + peak


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries print on stderr; torch's profiler reports every start and stop."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _tree(events: Any) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _tree(event.children)


def _allocates(event: Any) -> bool:
    return bool(event.tag == torch._C._profiler._EventType.Allocation)


def measure(network: Network, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Times and peak memory of all sides for one network."""
    torch.manual_seed(0)
    x = torch.randn(network.batch, *network.shape)
    labels = torch.randint(network.classes, (network.batch,))
    model = in_float(network)
    sides = {"float": Side(model, x, labels), "qfx": Side(in_qfx(network, model, x), x, labels)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, peer in peers(network).items():
            sides[name] = Side(peer, x, labels)
        for side in sides.values():
            for _ in range(COLLECT_STEPS + 3):
                side.step()
        one = {name: _first(side, clock) for name, side in sides.items()}
        for _ in range(rounds):
            for name, side in sides.items():
                side.turn(max(1, round(TURN_SECONDS / one[name])), clock)
        memory = {name: side.peak() for name, side in sides.items()}
    ms = {name: side.seconds * 1e3 for name, side in sides.items()}
    row: dict[str, Any] = {
        "network": network.name,
        "batch": network.batch,
        "qfx_over_float": ms["qfx"] / ms["float"],
        "memory_over_float": memory["qfx"] / memory["float"],
    }
    for name in PEERS:
        if name in sides:
            row[f"{name}_over_qfx"] = ms[name] / ms["qfx"]
            row[f"{name}_memory_over_float"] = memory[name] / memory["float"]
    row["milliseconds"] = {name: round(value, 4) for name, value in ms.items()}
    row["peak_bytes"] = memory
    return row


def _first(side: Side, clock: Callable[[], float]) -> float:
    start = clock()
    side.step()
    return max(clock() - start, 1e-5)


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal: a line per network and library."""
    shown = Table("network", "batch", "library")
    for title in ("ms", "time / float", "time / QFX", "memory / float"):
        shown.add_column(title, justify="right")
    for r in rows:
        ms, peak = r["milliseconds"], r["peak_bytes"]
        for name in ms:
            shown.add_row(
                r["network"], str(r["batch"]), name, f"{ms[name]:.2f}", f"{ms[name] / ms['float']:.2f}",
                f"{ms[name] / ms['qfx']:.2f}", f"{peak[name] / peak['float']:.2f}",
                end_section=name == list(ms)[-1],
            )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument(
        "--cpu-time", action="store_true", help="seconds of the processor, steadier on a busy machine"
    )
    options = parser.parse_args()
    unknown = [name for name in options.networks.split(",") if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown networks {', '.join(unknown)}; known: {', '.join(NETWORKS)}")
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    load_before = os.getloadavg()[0]
    rows = [measure(NETWORKS[name], options.rounds, clock) for name in options.networks.split(",")]
    if not options.json:
        Console(width=140).print(table(rows))
        return
    facts = {
        "threads": options.threads,
        "clock": "processor time" if options.cpu_time else "wall clock",
        "rounds": options.rounds,
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "quantizers": fused.describe(),
        "versions": {**versions(), **peer_versions()},
        "machine": machine(),
    }
    print(json.dumps([{**row, **facts} for row in rows], indent=1))


if __name__ == "__main__":
    main()
