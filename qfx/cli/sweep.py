"""`qfx sweep` and `qfx trial`: many configurations, or one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qfx.cli.console import print_json, print_table
from qfx.cli.options import AsJson, names
from qfx.errors import QfxError

if TYPE_CHECKING:
    from qfx.sweep import Results, Space

Families = Annotated[str, typer.Option("--families", help="Any of integer, minifloat, khot, mx.")]
Bits = Annotated[str, typer.Option("--bits", help="Widths: 3-8, or 4,6,8.")]
Mixed = Annotated[
    bool, typer.Option("--mixed/--same", help="Widths of activations apart from those of weights.")
]
Network = Annotated[str, typer.Option("--network", help="mlp or cnn.")]
Source = Annotated[str, typer.Option("--data", help="digits, fashion-mnist, or a folder of idx files.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE: a parameter that all trials share.")
]
SpaceFile = Annotated[
    Path | None, typer.Option("--space", help="JSON file with points, or choices and ranges.")
]
Function = Annotated[str | None, typer.Option("--objective", help="package.module:function of your own.")]
Goals = Annotated[
    str, typer.Option("--goals", help="Metrics with + (maximize) or - (minimize): +accuracy,-ebops.")
]
Sampler = Annotated[str, typer.Option("--sampler", help="grid, tpe, nsga2 or random.")]
Trials = Annotated[int | None, typer.Option("--trials", help="How many a sampler draws.")]
Jobs = Annotated[int, typer.Option("--jobs", help="Processes on this machine.")]
Storage = Annotated[
    str | None, typer.Option("--storage", help="File or database URL (default: a journal in OUT).")
]
Name = Annotated[str, typer.Option("--name", help="Of the study in the storage.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of the sampler.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run what failed again.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the study of that name as it was begun.")]
Measure = Annotated[
    int, typer.Option("--measure", help="Measure the front's hardware, for that many cycles.")
]
Parameters = Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="Parameters of the trial.")]


def register(app: typer.Typer) -> None:
    for command in (sweep, trial):
        app.command()(command)


def sweep(
    families: Families = "integer,minifloat,khot,mx",
    bits: Bits = "3-8",
    mixed: Mixed = False,
    network: Network = "cnn",
    data: Source = "digits",
    settings: Set = None,
    space: SpaceFile = None,
    objective: Function = None,
    goals: Goals = "+accuracy,-ebops",
    sampler: Sampler = "grid",
    trials: Trials = None,
    jobs: Jobs = 1,
    storage: Storage = None,
    name: Name = "sweep",
    out: Folder = Path("build/sweep"),
    seed: Seed = None,
    retry_failed: Retry = False,
    resume: Resume = False,
    measure: Measure = 0,
    json: AsJson = False,
) -> None:
    """Accuracy and cost of many number formats: run, go on with, or join a sweep.

    Killed at any time, it goes on where it was when called again; several calls work together. Writes
    sweep.json, sweep.csv and report.html to OUT. Exit status 1 when trials failed.
    """
    import qfx.report
    from qfx.sweep import run

    if objective is not None and space is None and not resume:
        raise QfxError("sweep: an objective of your own needs --space FILE with what it varies")
    chosen = None
    if not resume:
        chosen = _space(
            space, families, bits, mixed, network, data, sampler, _pairs(settings or []), objective
        )
    results = run(
        chosen, objective, objectives=parse_goals(goals), out=out, storage=storage, name=name,
        sampler=sampler, trials=trials, jobs=jobs, seed=seed, retry_failed=retry_failed,
    )  # fmt: skip
    if measure:
        from qfx.sweep import measure_front

        results = measure_front(results, out, interval=measure, note=print if not json else None)
        results.save(out / "sweep.json")
    qfx.report.write_sweep(results, out / "report.html")
    if json:
        print_json(results.to_dict())
    else:
        _show(results, out)
    raise typer.Exit(1 if results.failed else 0)


def trial(
    parameters: Parameters,
    objective: Function = None,
    out: Folder = Path("build/trial"),
) -> None:
    """Run one configuration of a sweep by itself and print its result as JSON."""
    from qfx.sweep import objective as objectives

    function = objectives.load(objective or objectives.BUILT_IN)
    folder = out / "trials" / "00000"
    folder.mkdir(parents=True, exist_ok=True)
    result, _ = objectives.checked(function(_pairs(parameters), folder), {})
    print_json(result)


def parse_goals(text: str) -> dict[str, str]:
    """``+accuracy,-lut`` as objectives by metric.

    Raises:
        QfxError: a metric without sign.
    """
    found = {}
    for word in names(text):
        if word[0] not in "+-" or len(word) < 2:
            raise QfxError(f"--goals {text!r}: write + (maximize) or - (minimize) before each metric")
        found[word[1:]] = "maximize" if word[0] == "+" else "minimize"
    return found


def parse_bits(text: str) -> tuple[int, ...]:
    """``3-8`` or ``4,6,8`` as numbers.

    Raises:
        QfxError: anything else, or widths outside 2 to 16.
    """
    found: list[int] = []
    try:
        for word in names(text):
            first, _, last = word.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        found = []
    if not found or min(found) < 2 or max(found) > 16:
        raise QfxError(f"--bits {text!r}: expected widths of 2 to 16, as in 3-8 or 4,6,8")
    return tuple(dict.fromkeys(found))


def _space(
    file: Path | None, families: str, bits: str, mixed: bool, network: str, data: str, sampler: str,
    constants: dict[str, Any], objective: str | None,
) -> Space:  # fmt: skip
    from qfx.sweep import Space, formats, study

    if file is not None:
        return Space.load(file).with_constants(constants)
    shared = {"network": network, "data": data, **constants}
    if sampler == "grid":
        return study.space(names(families), parse_bits(bits), mixed=mixed, **shared)
    every = formats(names(families), parse_bits(bits))
    return Space({"weight": every, "activation": every}).with_constants(shared)


def _pairs(words: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` words; numbers, true and false are read as such."""
    found: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or not name:
            raise QfxError(f"{word!r}: expected NAME=VALUE")
        found[name] = _value(text)
    return found


def _value(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _show(results: Results, out: Path) -> None:
    goals = list(results.objectives)
    others = list(dict.fromkeys(n for t in results.complete for n in t.measured if n not in goals))
    parameters = list(results.trials[0].parameters) if results.trials else []
    varied = [n for n in parameters if len({t.parameters[n] for t in results.trials}) > 1]
    rows = [
        (t.slot, *(t.parameters[n] for n in varied), *(t.all_metrics.get(n) for n in [*goals, *others]))
        for t in sorted(results.front(), key=lambda t: t.all_metrics[goals[0]])
    ]
    title = f"{len(results.complete)} of {results.total} complete, {len(results.failed)} failed; the front:"
    print_table(("slot", *varied, *goals, *others), rows, title=title)
    for t in results.failed[:5]:
        print(f"failed {t.slot}: {t.error}")
    print(f"report: {out / 'report.html'}")
