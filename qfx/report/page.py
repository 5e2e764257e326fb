"""From a build to its page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from qfx.report import charts, text
from qfx.report.build import Build, Histogram, write_text
from qfx.report.dataflow import dataflow
from qfx.report.svg import clean, shorten

_IMPLEMENTATIONS = ("torch", "hls", "rtl")


def render(build: Build) -> str:
    """The page: one HTML document that loads nothing, with everything from the build escaped."""
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        build=build,
        style=Markup(_file("style.css")),
        script=Markup(script),
        # The page's own script is the only one that a browser will run.
        script_hash=Markup(f"sha256-{digest}"),
        **_context(build),
    )


def write(build: Build, path: str | Path) -> None:
    """Write the page; the file appears whole or not at all."""
    write_text(path, render(build))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        count=text.count,
        moment=text.moment,
        name=text.name,
        number=text.number,
        shape=text.shape,
        share=charts.share,
        short_node=lambda name: name.partition("_")[0],
        shorten=shorten,
        time=text.time,
    )
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return resources.files("qfx.report").joinpath(name).read_text(encoding="utf-8")


def _context(build: Build) -> dict[str, Any]:
    show = {
        "weights": any(layer.weights is not None for layer in build.layers),
        "accumulator": any(layer.accumulator is not None for layer in build.layers),
        "fold": any(layer.pe is not None for layer in build.layers),
        "cycles": any(layer.cycles is not None for layer in build.layers),
        "cost": any(layer.lut is not None for layer in build.layers),
        "mac_carry": any(row.carry is not None for row in build.mac_cost),
    }
    columns = _columns(show)
    training = zip(
        ("Training loss", "Accuracy during training"), charts.training(build.training), strict=False
    )
    return {
        "facts": _facts(build),
        "verdict": _verdict(build),
        "tiles": _tiles(build),
        "resource_tiles": _resource_tiles(build),
        "resource_words": _resource_words(build),
        "sections": _sections(build),
        "accuracy_chart": charts.accuracy(build) if build.accuracy else None,
        "accuracy_words": _accuracy_words(build),
        "training_charts": list(training) if build.training else [],
        "states": [_state(v.mismatches, v.samples) for v in build.verify],
        "not_verified": [key for key in _IMPLEMENTATIONS if key not in {v.name for v in build.verify}],
        "cycle_rows": _cycle_rows(build),
        "show": show,
        "columns": columns,
        "slowest": max((layer.cycles for layer in build.layers if layer.cycles is not None), default=0),
        "most_lut": max((layer.lut for layer in build.layers if layer.lut is not None), default=0),
        "layer_words": _layer_words(build),
        "footer": _footer(build, columns),
        "span": next((i for i, c in enumerate(columns) if c.total), 0),
        "drawings": dataflow(build.layers) if build.layers else [],
        "point_panels": charts.binary_points(build.points),
        "point_words": _point_words(build),
        "any_frozen": any(p.frozen for p in build.points),
        "any_channels": any(len(p.learned) > 1 for p in build.points),
        "histogram_groups": _histogram_groups(build),
        "any_code_units": any(h.unit == "code" for h in build.histograms),
        "mac_chart": charts.mac_cost(build.mac_cost) if build.mac_cost else None,
        "mac_rows": [(row, charts.ratio_to_integer(row, build.mac_cost)) for row in build.mac_cost],
        "longest": max(build.seconds.values(), default=0.0),
        "total_seconds": sum(build.seconds.values()),
        "fact_tables": [
            (title, values)
            for title, values in (
                ("Versions", build.versions),
                ("Machine", {key.replace("_gib", " (GiB)"): value for key, value in build.machine.items()}),
                ("Files", build.files),
            )
            if values
        ],
    }


# -- the top of the page ---------------------------------------------------------------------------


def _facts(build: Build) -> list[str]:
    board = build.board
    facts = [f"Data: {build.dataset}" if build.dataset else ""]
    if board is not None:
        facts.append(f"Board: {board.title or board.name}" + (f", {board.part}" if board.part else ""))
        facts.append(f"{text.number(board.clock_mhz)} MHz")
    facts.append(text.moment(build.created))
    return [fact for fact in facts if fact]


def _verdict(build: Build) -> dict[str, str]:
    if not build.verify:
        return {"css": "none", "text": "Not verified in this build."}
    names = [text.short_name(v.name) for v in build.verify]
    wrong = [v for v in build.verify if v.mismatches]
    if wrong:
        parts = [
            f"{text.short_name(v.name)} differs in "
            f"{text.count(v.mismatches)} of {text.plural(v.samples, 'sample')}"
            for v in wrong
        ]
        return {
            "css": "bad",
            "text": f"✗ Not bit-exact with the integer graph: {', '.join(parts)}.",
        }
    if not all(v.samples for v in build.verify):
        return {"css": "bad", "text": "✗ An implementation was compared on no samples."}
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    verb = "agrees" if len(names) == 1 else "agree"
    return {
        "css": "good",
        "text": f"✓ Bit-exact: {joined} {verb} with the integer graph on every bit of every sample.",
    }


@dataclass(frozen=True)
class _Tile:
    what: str
    big: str
    unit: str = ""
    lines: list[str] = field(default_factory=list)
    css: str = ""


def _tiles(build: Build) -> list[_Tile]:
    tiles = []
    if build.accuracy:
        key = "learned" if "learned" in build.accuracy else list(build.accuracy)[-1]
        value = build.accuracy[key]
        others = [
            f"{text.points(value - v)} vs. {text.short_name(k)} {v:.1f} %"
            for k, v in build.accuracy.items()
            if k != key
        ]
        what = "Accuracy, " + text.name(key)[0].lower() + text.name(key)[1:]
        tiles.append(_Tile(what, f"{value:.1f}", "%", others))
    if build.verify:
        wrong = sum(v.mismatches for v in build.verify)
        lines = [
            f"{text.short_name(v.name)}: {text.count(v.mismatches)} of {text.count(v.samples)}"
            for v in build.verify
        ]
        good = not wrong and all(v.samples for v in build.verify)
        tiles.append(_Tile("Samples that differ", text.count(wrong), "", lines, "good" if good else "bad"))
    if build.cycles is not None:
        tiles += _cycle_tiles(build)
    return tiles


def _cycle_tiles(build: Build) -> list[_Tile]:
    c, board = build.cycles, build.board
    assert c is not None
    tiles = []
    interval = c.interval_simulated if c.interval_simulated is not None else c.interval_predicted
    latency = c.latency_simulated if c.latency_simulated is not None else c.latency_predicted
    if interval is not None:
        lines = [_agreement(c.interval_predicted, c.interval_simulated)]
        if board is not None and interval > 0:
            hertz = board.clock_mhz * 1e6 / interval
            lines.insert(0, f"{text.count(interval)} cycles, {text.time(1 / hertz)} per frame")
            big, _, prefix = text.rate(hertz).partition(" ")
            tiles.append(_Tile("Throughput", big, f"{prefix} frames/s".strip(), lines))
        else:
            tiles.append(_Tile("Interval", text.count(interval), "cycles", lines))
    if latency is not None:
        lines = [_agreement(c.latency_predicted, c.latency_simulated)]
        if board is not None:
            big, unit = text.time(latency / board.clock_mhz / 1e6).rsplit(" ", 1)
            tiles.append(_Tile("Latency", big, unit, [f"{text.count(latency)} cycles", *lines]))
        else:
            tiles.append(_Tile("Latency", text.count(latency), "cycles", lines))
    return tiles


def _agreement(predicted: float | None, simulated: float | None) -> str:
    if predicted is None:
        return "simulated"
    if simulated is None:
        return "predicted, not simulated"
    return "predicted = simulated" if predicted == simulated else f"predicted {text.count(predicted)}"


def _resource_tiles(build: Build) -> list[dict[str, Any]]:
    r, board = build.resources, build.board
    if r is None:
        return []
    tiles = []
    for what, used, there in (
        ("LUT", r.lut, board.lut if board else None),
        ("FF", r.ff, board.ff if board else None),
        ("CARRY4", r.carry, None),
        ("DSP", r.dsp, board.dsp if board else None),
        ("BRAM, 36 Kbit", r.bram, board.bram if board else None),
    ):
        share = 100 * used / there if there else None
        line = f"{text.percent(share)} of {text.count(there)}" if share is not None else ""
        tiles.append({"what": what, "big": text.count(used), "share": share, "line": line})
    return tiles


def _resource_words(build: Build) -> str:
    r = build.resources
    if r is None:
        return ""
    tool = f" by {r.tool}" if r.tool else ""
    words = f"Resources are synthesis counts of the whole design{tool}, before placement."
    if r.lutram:
        words += f" {text.plural(r.lutram, 'LUT')} of them serve as memory."
    if r.fmax is not None:
        words += f" After place and route the clock can reach {text.number(r.fmax)} MHz."
    return words


def _sections(build: Build) -> list[tuple[str, str]]:
    names = [
        ("accuracy", "Accuracy"),
        ("verification", "Verification"),
        ("hardware", "Hardware"),
        ("layers", "Layers"),
        ("graph", "Dataflow graph"),
        ("points", "Binary points"),
        ("histograms", "Values"),
        ("mac", "MAC cost"),
        ("reproduce", "How this was made"),
    ]
    return [(key, title) for key, title in names if key != "graph" or build.layers]


def _accuracy_words(build: Build) -> str:
    if not build.accuracy:
        return ""
    if not build.accuracy_samples:
        return "In percent."
    n = build.accuracy_samples
    return f"Over {n:,} test samples: one sample is {100 / n:.2g} points. Whiskers: 95 % interval (Wilson)."


# -- hardware --------------------------------------------------------------------------------------


def _state(mismatches: int, samples: int) -> tuple[str, str]:
    if not samples:
        return "bad", "✗ no samples"
    return ("bad", "✗ differs") if mismatches else ("good", "✓ bit-exact")


def _cycle_rows(build: Build) -> list[dict[str, Any]]:
    c = build.cycles
    if c is None:
        return []
    rows = []
    for what, predicted, simulated in (
        ("Initiation interval (cycles per frame)", c.interval_predicted, c.interval_simulated),
        ("Latency (first input to last output, cycles)", c.latency_predicted, c.latency_simulated),
    ):
        if predicted is None and simulated is None:
            continue
        css, state = "", "–"
        if predicted is not None and simulated is not None:
            css, state = (
                ("good", "✓ equal")
                if predicted == simulated
                else ("bad", f"✗ {text.minus(f'{simulated - predicted:+g}')}")
            )
        cycles = simulated if simulated is not None else predicted
        assert cycles is not None
        time = text.time(cycles / build.board.clock_mhz / 1e6) if build.board else ""
        rows.append(
            {
                "what": what,
                "predicted": predicted,
                "simulated": simulated,
                "css": css,
                "state": state,
                "time": time,
            }
        )
    return rows


@dataclass(frozen=True)
class _Column:
    title: str
    numeric: bool = False
    hint: str = ""
    total: str = ""  # the attribute of layers and resources that the footer sums


def _columns(show: dict[str, bool]) -> list[_Column]:
    columns = [
        _Column("node"),
        _Column("module"),
        _Column("operator"),
        _Column("shape"),
        _Column("format", hint="of the result: signedness, bits, fraction bits"),
    ]
    if show["weights"]:
        columns += [
            _Column("weights", True, total="weights"),
            _Column("format", hint="of the weights", total="-"),
        ]
    if show["accumulator"]:
        columns.append(
            _Column("acc. bits", True, "width of the exact sum, from the interval analysis", total="-")
        )
    if show["fold"]:
        columns += [
            _Column("PE", True, "outputs computed at once", total="-"),
            _Column("SIMD", True, "inputs taken at once", total="-"),
        ]
    if show["cycles"]:
        columns.append(
            _Column("cycles / frame", True, "a pipeline is as slow as its slowest stage", total="-")
        )
    if show["cost"]:
        columns += [
            _Column("LUT", True, total="lut"),
            _Column("FF", True, total="ff"),
            _Column("DSP", True, total="dsp"),
            _Column("BRAM", True, "tiles of 36 Kbit", total="bram"),
        ]
    return columns


def _footer(build: Build, columns: list[_Column]) -> list[dict[str, Any]]:
    totals = [c for c in columns if c.total]
    if not totals:
        return []

    def row(title: str, value: Callable[[str], float | None]) -> dict[str, Any]:
        found = [None if c.total == "-" else value(c.total) for c in totals]
        return {"title": title, "cells": ["" if v is None else text.count(v) for v in found]}

    def layers(key: str) -> float | None:
        values = [getattr(layer, key) for layer in build.layers if getattr(layer, key) is not None]
        return sum(values) if values else None

    rows = [row("Sum of layers", layers)]
    r = build.resources
    if r is not None and any(layer.lut is not None for layer in build.layers):

        def rest(key: str) -> float | None:
            part = layers(key)
            return None if key == "weights" or part is None else getattr(r, key) - part

        rows.append(row("Ports, and what synthesis shares or removes across layers", rest))
        rows.append(row("Whole design", lambda key: None if key == "weights" else getattr(r, key)))
    return rows


def _layer_words(build: Build) -> str:
    weights = sum(layer.weights or 0 for layer in build.layers)
    macs = sum(layer.macs or 0 for layer in build.layers)
    words = f"{text.plural(len(build.layers), 'node')}"
    if weights:
        words += f", {text.plural(weights, 'weight')}, {macs:,} multiply-accumulates per frame."
    else:
        words += "."
    timed = [layer for layer in build.layers if layer.cycles is not None]
    if timed:
        most = max(layer.cycles or 0 for layer in timed)
        slowest = [layer.path or layer.name for layer in timed if layer.cycles == most]
        names = (
            slowest[0] if len(slowest) == 1 else f"{slowest[0]} and {text.plural(len(slowest) - 1, 'other')}"
        )
        words += f" {names} {'takes' if len(slowest) == 1 else 'take'} the most cycles per frame, {most:,}"
        if build.cycles is not None and build.cycles.interval_predicted == most:
            words += ": the initiation interval"
        words += "."
    return words + " Click a heading to sort."


# -- formats ---------------------------------------------------------------------------------------


def _point_words(build: Build) -> str:
    learned = [p for p in build.points if not p.frozen]
    channels = sum(len(p.learned) for p in learned)
    pairs = [(p, a, b) for p in learned for a, b in zip(p.calibrated, p.learned, strict=False)]
    moved = [(p, a, b) for p, a, b in pairs if a != b]
    number = f"{len(moved):,}" if moved else "none"
    words = (
        "Position of the binary point, in fraction bits: one more halves the step and the range. "
        f"Of {text.plural(channels, 'learned binary point')}, {number} left where calibration put them"
    )
    if moved:
        p, a, b = max(moved, key=lambda m: abs(m[2] - m[1]))
        words += (
            f"; the furthest is the {p.role} of {p.path}, from {text.minus(str(a))} to {text.minus(str(b))}"
        )
    return words + "."


def _histogram_groups(build: Build) -> list[tuple[str, list[dict[str, Any]]]]:
    known = {role for _, roles in charts.ROLES for role in roles}
    others = tuple(dict.fromkeys(h.role for h in build.histograms if h.role not in known))
    groups = []
    for title, roles in (*charts.ROLES, ("Others", others)):
        figures = [_histogram(h) for h in build.histograms if h.role in roles]
        if figures:
            groups.append((title, figures))
    return groups


def _histogram(h: Histogram) -> dict[str, Any]:
    line = h.format.short + (", per channel" if h.format.per_channel else "")
    if h.zeros:
        line += f" · {text.percent(100 * h.zeros / h.samples, 0)} zeros"
    return {
        "path": f"{h.path} ({h.name}), {h.samples:,} values, {h.format.text}",
        "label": shorten(h.path, 25),
        "line": line,
        "chart": charts.histogram(h),
        "clipped": text.percent(100 * h.clipped / h.samples) if h.clipped else "",
        "codes": f"{h.used:,}/{h.available:,} codes",
        "sqnr": "" if h.sqnr_db is None else text.minus(f"{h.sqnr_db:.1f} dB"),
    }
