"""The hardware of the points of a front: generated, simulated against the integer graph, synthesised."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.sweep.result import Results, Trial

if TYPE_CHECKING:
    from qfx.graph import Graph

#: Raised when the same graph would be measured differently.
_REVISION = 1


def estimates(graph: Graph, interval: int) -> dict[str, float]:
    """Estimated resources of the hardware for ``interval`` cycles per sample: ``lut_estimate`` and so on.

    Raises:
        QfxError: there is no such hardware.
    """
    import qfx

    design = qfx.rtl.plan(graph, interval=interval)
    guess = qfx.cost.estimate(design)
    found = {f"{name}_estimate": round(getattr(guess, name), 1) for name in ("lut", "ff", "dsp", "bram18")}
    return {**found, "latency": float(design.latency), "interval_reached": float(design.interval)}


def measure_front(
    results: Results,
    out: Path | str,
    *,
    interval: int,
    slots: Iterable[int] | None = None,
    samples: np.ndarray | None = None,
    per_layer: bool = True,
    kept_only: bool = False,
    note: Callable[[str], None] | None = None,
) -> Results:
    """Generate, simulate and synthesise the hardware of trials that left ``trials/<slot>/network.qfx`` in
    ``out``.

    What was measured is kept beside the graph and not measured again, until the graph, the question or the
    generator of the Verilog changes.

    Args:
        results: of the sweep.
        out: its folder.
        interval: cycles per sample to fold for; one of the trials that cannot reach it gets the shortest it
            can.
        slots: which trials; the front of the sweep when not given.
        samples: float inputs to simulate, batch first; 4 random ones when not given.
        per_layer: also count the LUTs of each layer (a second synthesis).
        kept_only: take what was measured before, and measure nothing.
        note: called with a line about each trial.

    Returns:
        The results with measurements: ``lut``, ``ff``, ``carry``, ``dsp``, ``bram`` (36 Kbit), ``latency``
        and ``interval`` in cycles, ``simulated`` samples and ``rtl_mismatches`` among
        them. A trial whose hardware cannot be made has the reason in its notes, under ``hardware``.
    """
    out = Path(out)
    chosen = {t.slot for t in results.front()} if slots is None else set(slots)
    measured: dict[int, Mapping[str, Any]] = {}
    for trial in results.trials:
        file = out / "trials" / f"{trial.slot:05d}" / "network.qfx"
        if trial.slot not in chosen or not file.is_file():
            continue
        try:
            kept = _kept(file, interval, samples, per_layer)
            if kept is None and kept_only:
                continue
            found = kept or _measured(file, interval, samples, per_layer)
        except QfxError as error:
            found = {"metrics": {}, "notes": {"hardware": str(error)}, "layers": trial.layers}
        measured[trial.slot] = found
        if note is not None:
            note(_line(trial, found))
    return results.with_measured(measured)


def _kept(file: Path, interval: int, samples: np.ndarray | None, per_layer: bool) -> dict[str, Any] | None:
    """Measurements kept beside a graph, when they are of the same graph and question."""
    kept = file.with_name("hardware.json")
    if not kept.is_file():
        return None
    data = json.loads(kept.read_text())
    if data.get("digest") != _digest(file, interval, samples, per_layer):
        return None
    return dict(data["found"])


def _digest(file: Path, interval: int, samples: np.ndarray | None, per_layer: bool) -> str:
    digest = hashlib.sha256(f"{_REVISION} {generator_digest()} {interval} {per_layer}".encode())
    digest.update(file.read_bytes())
    digest.update(b"" if samples is None else np.ascontiguousarray(samples).tobytes())
    return digest.hexdigest()


@cache
def generator_digest() -> str:
    """Digest of what makes Verilog of a graph, every file of ``qfx.graph`` and ``qfx.rtl``. After a change of
    the generator or of a kernel, the same graph takes other hardware."""
    digest = hashlib.sha256()
    for package in ("qfx.graph", "qfx.rtl"):
        folder = Path(str(importlib.resources.files(package)))
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".cpp", ".j2", ".v")):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _measured(file: Path, interval: int, samples: np.ndarray | None, per_layer: bool) -> dict[str, Any]:
    """Generate, simulate and synthesise a graph, and keep the result beside it."""
    import qfx
    from qfx.report.build import write_text

    graph = qfx.load(file)
    x = samples
    if x is None:
        x = np.random.default_rng(0).random((4, *graph.input_node.tensor.shape), dtype=np.float32)
    folder = file.with_name("rtl")
    try:
        design = _generate(graph, folder, interval)
        ran = qfx.sim.run(design, x)
        wrong = (ran.codes != graph.run_codes(x)).reshape(len(x), -1).any(axis=1)
        cost = qfx.cost.measure(design, per_layer=per_layer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    from qfx.sweep.study import layers

    found = {
        "metrics": {
            **{name: getattr(cost, name) for name in ("lut", "ff", "carry", "dsp", "bram")},
            "latency": design.latency,
            "interval": design.interval,
            "simulated": len(x),
            "rtl_mismatches": int(wrong.sum()),
        },
        "layers": layers(graph, design, cost),
        "notes": {"tool": f"{cost.tool} {cost.version}"},
    }
    digest = _digest(file, interval, samples, per_layer)
    write_text(
        file.with_name("hardware.json"), json.dumps({"digest": digest, "found": found}, indent=1) + "\n"
    )
    return found


def _generate(graph: Graph, folder: Path, interval: int) -> Any:
    import qfx

    try:
        return qfx.rtl.generate(graph, folder, interval=interval)
    except QfxError:
        return qfx.rtl.generate(graph, folder)


def _line(trial: Trial, found: Mapping[str, Any]) -> str:
    name = trial.notes.get("label", str(trial.slot))
    if not found["metrics"]:
        return f"{name}: {found['notes']['hardware']}"
    m = found["metrics"]
    return (
        f"{name}: {m['lut']} LUT, {m['dsp']} DSP, {m['bram']} BRAM36, interval {m['interval']}; "
        f"{m['rtl_mismatches']} of {m['simulated']} simulated samples differ"
    )
