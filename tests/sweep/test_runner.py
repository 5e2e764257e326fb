"""Sweeps: a grid once, samplers, failures, several workers, and processes killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="needs optuna: pip install 'qfx[search]'")

from qfx import QfxError, sweep
from qfx.sweep import owner, runner
from qfx.sweep.storage import connect
from tests.sweep import functions

REPOSITORY = Path(__file__).resolve().parents[2]
GRID = {"a": list(range(20)), "b": list(range(10))}
START = """
import sys
from qfx import sweep
if __name__ == "__main__":
    storage, out, jobs = sys.argv[1:4]
    space = sweep.Space({"a": list(range(20)), "b": list(range(10))})
    arguments = {"out": out, "storage": storage, "jobs": int(jobs), "progress": False}
    sweep.run(space, "functions:product", **arguments)
"""


def start(folder: Path, storage: str, jobs: int = 1, script: str = START) -> subprocess.Popen[bytes]:
    """A sweep of 200 points in a process group of its own."""
    file = folder / "start.py"
    file.write_text(script)
    command = [sys.executable, str(file), storage, str(folder / "out"), str(jobs)]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": path}, process_group=0)


def lines(folder: Path) -> Counter[str]:
    """How often each line stands in the log of the objective."""
    log = folder / "out" / "runs.log"
    return Counter(log.read_text().split("\n")[:-1]) if log.exists() else Counter()


def wait_for(folder: Path, ends: int, process: subprocess.Popen[bytes]) -> None:
    """Until so many runs have ended."""
    deadline = time.monotonic() + 120
    while sum(n for line, n in lines(folder).items() if line.startswith("end")) < ends:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def complete(storage: str) -> dict[int, float]:
    """Accuracy by slot of the trials that have finished."""
    return {t.slot: t.metrics["accuracy"] for t in sweep.read(storage).complete}


def check_all(folder: Path, storage: str, kills: int) -> None:
    """All 200 points have their result; only what was running at a kill ran a second time."""
    results = sweep.read(storage)
    assert [t.slot for t in results.trials] == list(range(200))
    points = sweep.Space(GRID).grid()
    for trial in results.trials:
        a, b = points[trial.slot]["a"], points[trial.slot]["b"]
        assert trial.parameters == {"a": a, "b": b} and trial.state == "complete"
        assert trial.metrics == {"accuracy": 100 - abs(a - 7) - b, "ebops": a * 20 + b}
    found = lines(folder)
    assert {line for line in found if line.startswith("end")} == {f"end {slot:05d}" for slot in range(200)}
    again = [line for line, n in found.items() if line.startswith("begin") and n > 1]
    assert len(again) <= kills


@pytest.mark.parametrize(
    ("file", "jobs"),
    [("study.journal", 1), ("study.journal", 2), pytest.param("study.db", 1, marks=pytest.mark.slow)],
)
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, file: str, jobs: int) -> None:
    storage = str(tmp_path / file)
    before: dict[int, float] = {}
    for kills, ends in enumerate((40, 100), 1):
        process = start(tmp_path, storage, jobs)
        wait_for(tmp_path, ends, process)
        os.killpg(process.pid, signal.SIGKILL)  # the workers too
        process.wait()
        finished = complete(storage)
        # Each kill can hit every worker between the end of a run and its record.
        assert len(finished) >= ends - jobs * kills and before.items() <= finished.items()
        ran_before = {slot: lines(tmp_path)[f"begin {slot:05d}"] for slot in finished}
        before = finished
    process = start(tmp_path, storage, jobs)
    assert process.wait(120) == 0
    assert before.items() <= complete(storage).items()
    # What had finished when the last process was killed was not begun again.
    assert ran_before == {slot: lines(tmp_path)[f"begin {slot:05d}"] for slot in ran_before}
    check_all(tmp_path, storage, 2 * jobs)
    saved = sweep.Results.load(tmp_path / "out" / "sweep.json")
    assert saved.trials == sweep.read(storage).trials


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.journal")
    both = [start(tmp_path, storage), start(tmp_path, storage)]
    assert [process.wait(120) for process in both] == [0, 0]
    check_all(tmp_path, storage, 0)
    owners = {t.user_attrs["qfx:owner"]["pid"] for t in _study(storage)}
    assert len(owners) == 2


def test_a_torn_line_of_a_journal_is_cut_off(tmp_path: Path) -> None:
    storage = tmp_path / "study.journal"
    space = sweep.Space({"a": [0, 4], "b": [0]})
    sweep.run(space, functions.product, out=tmp_path / "out", storage=storage, progress=False)
    whole = storage.read_bytes()
    storage.write_bytes(whole + b'{"op_code": 4, "worker_id"')
    assert len(sweep.read(storage).complete) == 2
    sweep.run(
        space, functions.product, out=tmp_path / "out", storage=storage, retry_failed=True, progress=False
    )
    assert storage.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in storage.read_text().splitlines())


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_samplers_draw_from_ranges_and_choices(tmp_path: Path, sampler: str) -> None:
    space = sweep.Space({"a": sweep.Range(0, 19, integer=True), "b": list(range(10))})
    arguments = {"sampler": sampler, "trials": 15, "seed": 3, "progress": False}
    first = sweep.run(space, functions.product, out=tmp_path / "1" / "out", **arguments)
    assert [t.slot for t in first.trials] == list(range(15)) and len(first.complete) == 15
    assert all(0 <= t.parameters["a"] <= 19 and t.parameters["b"] in range(10) for t in first.trials)
    again = sweep.run(space, functions.product, out=tmp_path / "2" / "out", **arguments)
    assert [t.parameters for t in again.trials] == [t.parameters for t in first.trials]


def test_an_interrupted_draw_is_run_again_as_it_was(tmp_path: Path) -> None:
    space = sweep.Space({"a": sweep.Range(0, 1000, integer=True), "b": [0]})
    storage = tmp_path / "study.journal"
    plan = runner._plan(space, functions.product, {"accuracy": "maximize"}, "random", 3)
    runner._agree(connect(storage), "sweep", plan)
    options = runner.Options(str(storage), "sweep", tmp_path / "out")
    book = runner.ledger(options, plan)
    claim = book.next()
    assert claim is not None and not isinstance(claim, float)
    gone = {**owner.me(), "started": "0"}  # as if the process id had been used by another process
    book.storage.set_trial_user_attr(claim.trial_id, "qfx:owner", gone)
    again = runner.ledger(options, plan).next()
    assert again is not None and not isinstance(again, float)
    assert (again.slot, again.parameters) == (claim.slot, claim.parameters) and again.number != claim.number


def test_a_result_that_was_written_before_the_end_is_kept(tmp_path: Path) -> None:
    space = sweep.Space({"a": [5], "b": [1]})
    storage = tmp_path / "study.journal"
    plan = runner._plan(space, functions.product, {"accuracy": "maximize"}, "grid", None)
    runner._agree(connect(storage), "sweep", plan)
    book = runner.ledger(runner.Options(str(storage), "sweep", tmp_path / "out"), plan)
    claim = book.next()
    assert claim is not None and not isinstance(claim, float)
    book._write(claim.trial_id, {"qfx:result": json.dumps({"values": [12.0], "result": {"accuracy": 12.0}})})
    book.storage.set_trial_user_attr(claim.trial_id, "qfx:owner", {**owner.me(), "started": "0"})
    results = sweep.run(None, functions.product, out=tmp_path / "out", storage=storage, progress=False)
    assert [(t.state, t.metrics) for t in results.trials] == [("complete", {"accuracy": 12.0})]
    assert not (tmp_path / "out" / "runs.log").exists()


def test_a_silent_worker_elsewhere_is_given_up(tmp_path: Path) -> None:
    space = sweep.Space({"a": [0, 4], "b": [0]})
    storage = tmp_path / "study.journal"
    plan = runner._plan(space, functions.product, {"accuracy": "maximize", "ebops": "minimize"}, "grid", None)
    runner._agree(connect(storage), "sweep", plan)
    book = runner.ledger(runner.Options(str(storage), "sweep", tmp_path / "out"), plan)
    claim = book.next()
    assert claim is not None and not isinstance(claim, float)
    book.storage.set_trial_user_attr(claim.trial_id, "qfx:owner", {**owner.me(), "machine": "another"})
    arguments = {"out": tmp_path / "out", "storage": storage, "progress": False, "beat_s": 0.05}
    results = sweep.run(None, functions.product, **arguments, grace_s=0.3)
    assert [t.state for t in results.trials] == ["complete", "complete"]
    # It was not dead after all: what it reports comes too late and changes nothing.
    book.finish(claim, {"accuracy": 1.0, "ebops": 1}, [1.0, 1.0])
    assert [t.metrics for t in sweep.read(storage).trials] == [t.metrics for t in results.trials]


def test_failures_are_recorded_and_not_fatal(tmp_path: Path) -> None:
    space = sweep.Space({"a": list(range(5))})
    results = sweep.run(space, functions.sometimes, out=tmp_path / "out", progress=False)
    assert [t.state for t in results.trials] == ["complete", "failed", "failed", "failed", "complete"]
    errors = [t.error for t in results.failed]
    assert "ValueError: a is 1 (functions.py:" in errors[0]
    assert "accuracy = nan" in errors[1] and "also needs ebops" in errors[2]
    again = sweep.run(space, functions.sometimes, out=tmp_path / "out", progress=False)
    assert again.trials == results.trials and sum(lines(tmp_path).values()) == 5
    sweep.run(space, functions.sometimes, out=tmp_path / "out", retry_failed=True, progress=False)
    assert lines(tmp_path) == {"begin 00000": 1, "begin 00004": 1, **{f"begin 0000{i}": 2 for i in (1, 2, 3)}}


def test_wrong_arguments_are_refused_before_anything_runs(tmp_path: Path) -> None:
    space = sweep.Space({"a": [1], "b": [2]})

    def refused(match: str, *arguments: object, **more: object) -> None:
        with pytest.raises(QfxError, match=match):
            options = {"out": tmp_path / "out", "progress": False, **more}
            sweep.run(*arguments, **options)  # type: ignore[arg-type]

    refused("no study", None, functions.product)
    refused("module:function", space, "nonsense")
    refused("No module named", space, "no_such_module:f", name="other")
    refused("needs trials", space, functions.product, sampler="tpe")
    refused("grid has 1 points", space, functions.product, trials=7)
    refused("sampler 'best' is unknown", space, functions.product, sampler="best")
    refused("maximize or minimize", space, functions.product, objectives={"accuracy": "up"})
    refused("cannot import it", space, lambda p, f: {}, jobs=2, name="third")
    refused("cannot be used", space, functions.product, storage="nosuchdatabase://here/there")
    sweep.run(space, functions.product, out=tmp_path / "out", progress=False)
    refused("begun with another space", sweep.Space({"a": [1], "b": [3]}), functions.product)
    assert sum(lines(tmp_path).values()) == 2


def _study(storage: str) -> list:  # type: ignore[type-arg]
    import optuna

    return optuna.load_study(study_name="sweep", storage=connect(storage)).trials
