"""Hardware of the points of a front, on a graph of two layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Cast, Input, Linear
from qfx.sweep import measure, measure_front
from qfx.sweep.result import Results, Trial
from qfx.sweep.study import layers, memory_bits


def network() -> Graph:
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    x = builder.add(Input((4,), FixedPoint(4, 2)))
    first = Linear(rng.integers(-4, 4, (6, 4)), FixedPoint(3, 1), rng.integers(-8, 8, 6), FixedPoint(4, 2))
    hidden = builder.add(Cast(FixedPoint(4, 1, signed=False)), [builder.add(first, [x], "fc1")], "fc1")
    last = Linear(rng.integers(-4, 4, (3, 6)), FixedPoint(3, 1), None, None)
    return builder.build(builder.add(last, [hidden], "fc2"))


@pytest.mark.slow
def test_the_front_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    for slot in (0, 2):
        folder = tmp_path / "trials" / f"{slot:05d}"
        folder.mkdir(parents=True)
        graph.save(folder / "network.qfx")
    trials = [
        Trial(slot, {"bits": slot}, "complete", {"accuracy": 90.0 + slot, "ebops": 100.0 * cost})
        for slot, cost in ((0, 1), (1, 9), (2, 2))
    ]
    results = Results("s", {"accuracy": "maximize", "ebops": "minimize"}, 3, tuple(trials))
    lines: list[str] = []
    nothing = measure_front(results, tmp_path, interval=24, kept_only=True)
    assert not any(t.measured for t in nothing.trials)
    found = measure_front(results, tmp_path, interval=24, note=lines.append)
    # Slot 1 is beaten in nothing but left no graph; slots 0 and 2 are the same network.
    assert [bool(t.measured) for t in found.trials] == [True, False, True]
    one, _, other = found.trials
    assert (
        one.measured == other.measured and len(lines) == 2 and "0 of 4 simulated samples differ" in lines[0]
    )
    assert one.measured["rtl_mismatches"] == 0 and one.measured["interval"] <= 24
    assert one.measured["lut"] > 0 and one.measured["latency"] > 0
    assert sum(layer.get("lut", 0) for layer in one.layers) > 0
    kept = measure_front(results, tmp_path, interval=24, kept_only=True)
    assert kept == found
    # Another interval is another question.
    assert not any(t.measured for t in measure_front(results, tmp_path, interval=12, kept_only=True).trials)
    assert not list(tmp_path.glob("trials/*/rtl"))
    # Another generator makes other hardware.
    monkeypatch.setattr(measure, "generator_digest", lambda: "another")
    assert not any(t.measured for t in measure_front(results, tmp_path, interval=24, kept_only=True).trials)


def test_memory_and_layers_of_a_graph() -> None:
    graph = network()
    assert memory_bits(graph) == 3 * (24 + 18) + 4 * 6
    rows = layers(graph)
    assert [row["op"] for row in rows] == ["input", "linear", "cast", "linear"]
    assert rows[1]["path"] == "fc1" and rows[1]["weights"] == 24 and "lut" not in rows[1]
