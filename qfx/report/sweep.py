"""The page of a sweep: an interactive front of accuracy against cost, in one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from qfx.errors import MissingToolError, QfxError
from qfx.report import text
from qfx.report.build import write_text
from qfx.report.svg import clean

if TYPE_CHECKING:
    from qfx.sweep.result import Results, Trial

#: Metrics that the axes know by a longer name. What starts with "accuracy" is better the larger it is, and
#: what the sweep maximizes; everything else is better the smaller it is.
TITLES = {
    "accuracy": "accuracy (%)",
    "accuracy_ptq": "accuracy after calibration alone (%)",
    "accuracy_float": "accuracy of the float network (%)",
    "ebops": "effective bit operations (EBOPs)",
    "memory_bits": "memory of weights and biases (bits)",
    "lut": "LUTs, measured",
    "ff": "flip-flops, measured",
    "carry": "CARRY4, measured",
    "dsp": "DSP blocks, measured",
    "bram": "block RAMs of 36 Kbit, measured",
    "lut_estimate": "LUTs, estimated",
    "ff_estimate": "flip-flops, estimated",
    "dsp_estimate": "DSP blocks, estimated",
    "bram18_estimate": "block RAMs of 18 Kbit, estimated",
    "latency": "latency (cycles)",
    "interval": "cycles per sample",
    "mismatches": "samples on which torch and the integers differ",
    "rtl_mismatches": "samples on which RTL and the integers differ",
    "simulated": "samples simulated in RTL",
}
#: Not offered as an axis: they describe a check, not the network.
_CHECKS = ("mismatches", "rtl_mismatches", "simulated")
_COLOURS = {"integer": "#1f5fbf", "minifloat": "#b4560b", "khot": "#7a3fa0", "mx": "#16713f"}
_MARKERS = {"integer": "o", "minifloat": "s", "khot": "^", "mx": "D"}


def render_sweep(results: Results) -> str:
    """The page: one HTML document that loads nothing, with everything from the sweep escaped.

    Raises:
        QfxError: numbers that JSON cannot hold.
    """
    script, style = _file("sweep.js"), _file("style.css") + _file("sweep.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = page_data(results)
    try:
        plain = json.dumps(data, ensure_ascii=True, allow_nan=False)
    except ValueError as error:
        raise QfxError(f"report of sweep {results.name!r}: {error}") from error
    return _template().render(
        results=results,
        data=Markup(plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")),
        trials=data["trials"],
        facts=results.facts,
        titles=TITLES,
        style=Markup(style),
        script=Markup(script),
        script_hash=Markup(f"sha256-{digest}"),
    )


def write_sweep(results: Results, path: str | Path) -> None:
    """Write the page; the file appears whole or not at all."""
    write_text(path, render_sweep(results))


def page_data(results: Results) -> dict[str, Any]:
    """What the page's script reads: metrics with titles and directions, and the trials."""
    names = list(dict.fromkeys(n for t in results.complete for n in t.all_metrics))
    front = {t.slot for t in results.front()}
    return {
        "name": results.name,
        "metrics": [
            {
                "name": n,
                "title": TITLES.get(n, n.replace("_", " ")),
                "maximize": results.objectives.get(n) == "maximize" or n.startswith("accuracy"),
                "axis": n not in _CHECKS,
            }
            for n in names
        ],
        "objectives": list(results.objectives),
        "trials": [_trial(results, t, t.slot in front) for t in results.trials],
    }


def _trial(results: Results, trial: Trial, front: bool) -> dict[str, Any]:
    return {
        "slot": trial.slot,
        "state": trial.state,
        "front": front,
        "label": clean(label(trial)),
        "family": clean(trial.notes.get("family", "other")),
        "parameters": {clean(str(k)): clean(str(v)) for k, v in trial.parameters.items()},
        "metrics": trial.all_metrics,
        "measured": list(trial.measured),
        "command": clean(command(results, trial)),
        "notes": {
            clean(k): clean(v) for k, v in trial.notes.items() if k not in ("family", "label", "command")
        },
        "layers": [{clean(str(k)): _plain(v) for k, v in layer.items()} for layer in trial.layers],
        "error": clean(trial.error),
        "seconds": trial.seconds,
    }


def label(trial: Trial) -> str:
    """A trial in a word or two: what its objective called it, or the values of its parameters."""
    return trial.notes.get("label") or ", ".join(f"{k}={v}" for k, v in trial.parameters.items())


def command(results: Results, trial: Trial) -> str:
    """The command line that runs a trial again by itself."""
    if "command" in trial.notes:
        return trial.notes["command"]
    objective = results.facts.get("objective", "")
    words = ["qfx", "trial", *(f"{name}={value}" for name, value in trial.parameters.items())]
    return " ".join(shlex.quote(w) for w in [*words, *(["--objective", objective] if objective else [])])


def figure(
    results: Results,
    path: str | Path,
    *,
    x: str = "lut",
    y: str = "accuracy",
    log: bool = False,
    title: str = "",
) -> None:
    """Draw the trials and their front as a picture for a paper; PNG, SVG or PDF by the ending of ``path``.

    Args:
        results: of the sweep.
        path: the file to write.
        x, y: metrics or measurements; trials without one of them are left out.
        log: a logarithmic x axis.
        title: above the drawing.

    Raises:
        QfxError: no trial has both metrics; MissingToolError without matplotlib.
    """
    rows = [t for t in results.complete if x in t.all_metrics and y in t.all_metrics]
    if not rows:
        raise QfxError(f"figure: no trial of sweep {results.name!r} has both {x} and {y}")
    try:
        import matplotlib
    except ImportError:
        raise MissingToolError("figure: matplotlib is not installed; pip install 'qfx[plot]'") from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    with matplotlib.rc_context({"svg.hashsalt": "qfx"}):
        drawing = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=150)
        FigureCanvasAgg(drawing)
        axes = drawing.subplots()
        for family in dict.fromkeys([*_COLOURS, *(t.notes.get("family", "other") for t in rows)]):
            mine = [t for t in rows if t.notes.get("family", "other") == family]
            if mine:
                axes.scatter(
                    [t.all_metrics[x] for t in mine], [t.all_metrics[y] for t in mine], s=26, label=family,
                    color=_COLOURS.get(family, "0.45"), marker=_MARKERS.get(family, "o"), alpha=0.85,
                    linewidth=0,
                )  # fmt: skip
        data = {m["name"]: m for m in page_data(results)["metrics"]}
        goals = {n: "maximize" if data[n]["maximize"] else "minimize" for n in (x, y)}
        best = sorted(results.front(goals), key=lambda t: t.all_metrics[x])
        axes.step(
            [t.all_metrics[x] for t in best],
            [t.all_metrics[y] for t in best],
            where="post",
            color="0.4",
            linewidth=1,
        )
        for t in best:
            axes.annotate(
                label(t), (t.all_metrics[x], t.all_metrics[y]), (0, 5), textcoords="offset points",
                fontsize=6.5, ha="center",
            )  # fmt: skip
        axes.set_xlabel(data[x]["title"])
        axes.set_ylabel(data[y]["title"])
        axes.set_title(title, fontsize=10)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        if log:
            axes.set_xscale("log")
        axes.legend(fontsize=8, loc="lower right")
        part = path.with_name(f".{path.stem}.part{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(part, metadata=_metadata(path))
        part.replace(path)


def _metadata(path: Path) -> Mapping[str, Any]:
    """No date in the file: the same data give the same bytes."""
    return (
        {"Date": None} if path.suffix == ".svg" else {"CreationDate": None} if path.suffix == ".pdf" else {}
    )


def _plain(value: Any) -> Any:
    return clean(value) if isinstance(value, str) else value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(number=text.number, count=text.count)
    return environment.from_string(_file("sweep.html"))


def _file(name: str) -> str:
    return resources.files("qfx.report").joinpath(name).read_text(encoding="utf-8")
