"""Workers that crash, hang or raise cost their task only."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qfx.sim.workers import Died, Workers

ACT = """
import os, subprocess

def act(task):
    if task == "abort":
        os.write(2, b"last words")
        os.abort()
    if task == "hang":
        subprocess.run(["sleep", "60"], check=True)
    if task == "raise":
        raise ValueError("no such network")
    return task.upper()
"""


def test_results_and_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The workers import the function by name, from a place that they can see.
    (tmp_path / "worker_act.py").write_text(ACT)
    monkeypatch.syspath_prepend(tmp_path)
    from worker_act import act  # type: ignore[import-not-found]

    tasks = ["a", "abort", "b", "raise", "c", "hang", "d"]
    start = time.monotonic()
    with Workers(act, 2, timeout_s=8) as workers:
        results = dict(workers.map(tasks))
        assert workers.call("e") == "E"
    assert time.monotonic() - start < 40
    assert [results[i] for i in (0, 2, 4, 6)] == ["A", "B", "C", "D"]
    assert (
        isinstance(results[1], Died)
        and "status -6" in results[1].reason
        and "last words" in results[1].reason
    )
    assert isinstance(results[3], Died) and "no such network" in results[3].reason
    assert isinstance(results[5], Died) and "stopped after 8 s" in results[5].reason
