"""Run a sweep: alone, with several processes, or beside workers on other machines."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qfx.errors import QfxError
from qfx.sweep import objective as objectives_of
from qfx.sweep.claims import Heart, Ledger
from qfx.sweep.objective import BUILT_IN, Objective
from qfx.sweep.result import Results, check_objectives, from_trials
from qfx.sweep.space import Space
from qfx.sweep.storage import connect, optuna

SAMPLERS = ("grid", "tpe", "nsga2", "random")
_PLAN = "qfx:plan"


@dataclass(frozen=True)
class Plan:
    """What all workers of a study must agree on.

    Attributes:
        objectives: by metric ``"maximize"`` or ``"minimize"``.
        space: what is varied.
        sampler: ``"grid"``, ``"tpe"``, ``"nsga2"`` or ``"random"``.
        trials: slots.
        objective: name of the function.
    """

    objectives: Mapping[str, str]
    space: Space
    sampler: str
    trials: int
    objective: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "objectives": dict(self.objectives),
            "space": self.space.to_dict(),
            "sampler": self.sampler,
            "trials": self.trials,
            "objective": self.objective,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        return cls(**{**data, "space": Space.from_dict(data["space"])})


@dataclass(frozen=True)
class Options:
    """How one worker goes about it; nothing here changes what is found.

    Attributes:
        storage: see :func:`qfx.sweep.storage.connect`.
        name: of the study.
        folder: where trials may leave files, each in a folder of its own.
        seed: of the sampler.
        beat_s, grace_s: heartbeat, and silence that counts as death on other machines, in seconds.
        path: folders in which the objective is searched, besides the usual ones.
    """

    storage: str
    name: str
    folder: Path
    seed: int | None = None
    beat_s: float = 15.0
    grace_s: float = 300.0
    path: tuple[str, ...] = field(default=())


def run(
    space: Space | None = None,
    objective: Objective | str | None = None,
    *,
    objectives: Mapping[str, str] | None = None,
    out: Path | str = "build/sweep",
    storage: str | Path | None = None,
    name: str = "sweep",
    sampler: str = "grid",
    trials: int | None = None,
    jobs: int = 1,
    seed: int | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    beat_s: float = 15.0,
    grace_s: float = 300.0,
) -> Results:
    """Run a sweep, or go on with one.

    A study that exists in the storage is continued: what has finished stays, what a killed process was at is
    run again, and nothing runs twice. Any number of processes, on any machines that reach the storage, can
    call this with the same arguments at the same time.

    Args:
        space: what to vary; ``None`` takes the study's own when it exists.
        objective: a function of the parameters and a folder that returns metrics by name, or its name
            ``package.module:function``. What it raises is recorded and the sweep goes on. When not given: the
            study's own, or the built-in one (:mod:`qfx.sweep.study`).
        objectives: by metric ``"maximize"`` or ``"minimize"``; accuracy and EBOPs when not given.
        out: folder for the journal, for files of the trials, and for ``sweep.json`` and ``sweep.csv``.
        storage: a file or a URL (:func:`qfx.sweep.storage.connect`); a journal in ``out`` when not given.
        name: of the study in the storage.
        sampler: ``"grid"``: every point once; ``"tpe"``, ``"nsga2"``, ``"random"``: Optuna's samplers.
        trials: how many; a sampler needs it, a grid has as many as points.
        jobs: processes on this machine.
        seed: of the sampler; with one job a sweep is then reproducible.
        retry_failed: run what failed again.
        progress: show a bar.
        beat_s: seconds between heartbeats.
        grace_s: seconds of silence after which a process on another machine counts as dead. Dead processes on
            this machine are seen at once.

    Returns:
        All trials.

    Raises:
        QfxError: unusable arguments, a study that was begun with other ones, a storage that cannot be
        reached.
    """
    out = Path(out)
    where = str(storage) if storage is not None else str(out / "study.journal")
    target = {"accuracy": "maximize", "ebops": "minimize"} if objectives is None else dict(objectives)
    check_objectives(target)
    if isinstance(objective, str):
        objective = objectives_of.load(objective)
    plan = None if space is None else _plan(space, objective or BUILT_IN, target, sampler, trials)
    plan = _agree(connect(where), name, plan)
    if plan is None:
        raise QfxError(f"sweep: {where} has no study {name!r} yet; give a space to begin it")
    if jobs < 1:
        raise QfxError(f"sweep: jobs={jobs}; must be 1 or more")
    options = Options(where, name, out, seed, beat_s, grace_s)
    book = ledger(options, plan)
    if retry_failed:
        book.retry_failed()
    with _Bar(book, progress) as bar:
        if jobs == 1:
            work(book, objective or objectives_of.load(plan.objective), options, bar)
        else:
            _processes(plan, options, objectives_of.name_of(objective or plan.objective), jobs, bar)
    found = results(book, plan, options)
    found.save(out / "sweep.json")
    from qfx.report.build import write_text

    write_text(out / "sweep.csv", found.to_csv())
    return found


def read(storage: str | Path, name: str = "sweep") -> Results:
    """The trials of a study as they are now, without running any.

    Raises:
        QfxError: the storage has no study of that name.
    """
    where = str(storage)
    if "://" not in where and not Path(where).is_file():
        raise QfxError(f"sweep: {where} does not exist")
    plan = _agree(connect(where), name, None)
    if plan is None:
        raise QfxError(f"sweep: {where} has no study {name!r}")
    options = Options(where, name, Path())
    return results(ledger(options, plan), plan, options)


def work(book: Ledger, function: Objective, options: Options, bar: Any = None) -> int:
    """Run slots until none is left; how many this process ran."""
    done = 0
    while (claim := book.next()) is not None:
        if isinstance(claim, float):
            time.sleep(claim)
            continue
        folder = options.folder / "trials" / f"{claim.slot:05d}"
        with Heart(book, claim):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                result, values = objectives_of.checked(function(claim.parameters, folder), _objectives(book))
            except Exception as error:
                book.fail(claim, _message(error))
            else:
                book.finish(claim, result, values)
        done += 1
        if bar is not None:
            bar.update()
    return done


def ledger(options: Options, plan: Plan) -> Ledger:
    """The slots of a study, connected anew."""
    storage = connect(options.storage)
    study = optuna().load_study(
        study_name=options.name, storage=storage, sampler=_sampler(plan.sampler, options.seed)
    )
    return Ledger(
        study, storage, plan.space, plan.trials, grid=plan.sampler == "grid",
        beat_s=options.beat_s, grace_s=options.grace_s,
    )  # fmt: skip


def results(book: Ledger, plan: Plan, options: Options) -> Results:
    """What a study holds."""
    from qfx.environment import machine, versions

    facts = {"objective": plan.objective, "sampler": plan.sampler, "storage": _shown(options.storage)}
    facts |= {f"version of {k}": v for k, v in versions().items()}
    facts |= {k: str(v) for k, v in machine().items()}
    return Results(options.name, dict(plan.objectives), plan.trials, from_trials(book.trials()), facts)


# -- the study -----------------------------------------------------------------------------------------------


def _plan(
    space: Space, objective: Objective | str, objectives: dict[str, str], sampler: str, trials: int | None
) -> Plan:
    if sampler not in SAMPLERS:
        raise QfxError(f"sweep: sampler {sampler!r} is unknown; use {', '.join(SAMPLERS)}")
    if sampler == "grid":
        count = len(space.grid())
        if trials not in (None, count):
            raise QfxError(f"sweep: the grid has {count} points, trials={trials}; leave trials out")
    elif space.points is not None:
        raise QfxError(f"sweep: a list of points is a grid; sampler {sampler!r} needs choices or ranges")
    elif trials is None or trials < 1:
        raise QfxError(f"sweep: sampler {sampler!r} needs trials=, a number of 1 or more")
    else:
        count = trials
    try:
        function = objectives_of.name_of(objective)
    except QfxError:
        function = repr(getattr(objective, "__qualname__", objective))
    return Plan(objectives, space, sampler, count, function)


def _agree(storage: Any, name: str, plan: Plan | None) -> Plan | None:
    """The plan of the study of that name; begins the study when there is none and a plan is given."""
    package = optuna()
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        if plan is None:
            return None
        directions = list(plan.objectives.values())
        package.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        study_id = storage.get_study_id_from_name(name)
    text = storage.get_study_user_attrs(study_id).get(_PLAN)
    if text is None:
        if plan is None:
            return None
        text = json.dumps(plan.to_dict(), sort_keys=True)
        storage.set_study_user_attr(study_id, _PLAN, text)
    known = Plan.from_dict(json.loads(text))
    if plan is not None:
        mine, theirs = plan.to_dict(), known.to_dict()
        differing = [key for key in mine if mine[key] != theirs[key]]
        if differing:
            raise QfxError(
                f"sweep: study {name!r} was begun with another {' and another '.join(differing)}; "
                "give the study another name, or continue it as it is"
            )
    return known


def _sampler(name: str, seed: int | None) -> Any:
    samplers = optuna().samplers
    if name == "tpe":
        # Running trials count as bad, so that parallel workers do not all try the same.
        return samplers.TPESampler(seed=seed, constant_liar=True)
    return samplers.NSGAIISampler(seed=seed) if name == "nsga2" else samplers.RandomSampler(seed=seed)


def _objectives(book: Ledger) -> Mapping[str, str]:
    text = book.storage.get_study_user_attrs(book.study_id)[_PLAN]
    found: dict[str, str] = json.loads(text)["objectives"]
    return found


def _message(error: Exception) -> str:
    if isinstance(error, QfxError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"


def _shown(storage: str) -> str:
    from qfx.sweep.storage import _hidden

    return _hidden(storage)


# -- processes -----------------------------------------------------------------------------------------------


def _processes(plan: Plan, options: Options, function: str, jobs: int, bar: _Bar) -> None:
    context = multiprocessing.get_context("spawn")
    seeds = [None if options.seed is None else options.seed + i for i in range(jobs)]
    workers = [
        context.Process(target=_worker, args=(plan.to_dict(), {**vars(options), "seed": seed}, function))
        for seed in seeds
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            workers[0].join(0.5)
            for worker in workers[1:]:
                worker.join(0.05)
            bar.update()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()
    lost = [worker.exitcode for worker in workers if worker.exitcode]
    if lost:
        raise QfxError(
            f"sweep: {len(lost)} of {jobs} workers ended with status {lost[0]}; call again to go on with "
            f"what is left"
        )


def _worker(plan: Mapping[str, Any], options: Mapping[str, Any], function: str) -> None:
    chosen = Options(**options)
    work(ledger(chosen, Plan.from_dict(plan)), objectives_of.load(function), chosen)


class _Bar:
    """Finished slots of the study, those of other workers included."""

    def __init__(self, book: Ledger, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._book, self._last = book, -math.inf
        columns = [
            TextColumn("{task.description:24}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[failed]}", style="red"),
        ]  # fmt: skip
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._task = self._bar.add_task(book.study.study_name, total=book.total, failed="")

    def update(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._last < 0.5:
            return
        self._last = time.monotonic()
        trials = [t for t in self._book.trials() if t.state.is_finished()]
        failed = sum(t.state.name == "FAIL" for t in trials)
        self._bar.update(self._task, completed=len(trials), failed=f"{failed} failed" if failed else "")

    def __enter__(self) -> _Bar:
        self._bar.start()
        self.update()
        return self

    def __exit__(self, *_: object) -> None:
        self.update(now=True)
        self._bar.stop()
