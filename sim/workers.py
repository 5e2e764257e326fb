"""Worker processes that may die: a C simulation that aborts, or a hang, costs one task and not the run."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A fresh interpreter for each worker: torch and forked threads do not go together.
_CONTEXT = multiprocessing.get_context("spawn")
_FAREWELL_S = 5.0


@dataclass(frozen=True)
class Died:
    """In place of a result: the worker ended, or was stopped after its time was up."""

    reason: str


@dataclass
class _Worker:
    process: Any
    pipe: Any
    log: Path
    task: int | None = None
    deadline: float = 0.0


class Workers:
    """Processes that call `function` on tasks, one at a time each. A context manager."""

    def __init__(self, function: Callable[[Any], Any], count: int, timeout_s: float) -> None:
        self._function = function
        self._timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="qfx-workers-")
        self._started = 0
        self._workers = [self._start() for _ in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *details: object) -> None:
        # One that waits for a task ends by itself when its pipe is closed, and gives back what it holds.
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            if worker.task is None:
                worker.process.join(_FAREWELL_S)
            if worker.process.is_alive():
                _kill(worker.process)
        self._folder.cleanup()

    def call(self, task: Any) -> Any:
        """The result of one task, or :class:`Died`."""
        return next(iter(self.map([task])))[1]

    def map(self, tasks: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Results in the order in which they come, each with the number of its task; :class:`Died` where a
        worker was lost."""
        waiting = deque(enumerate(tasks))
        while waiting or any(worker.task is not None for worker in self._workers):
            for worker in self._workers:
                if worker.task is None and waiting:
                    worker.task, task = waiting.popleft()
                    worker.deadline = time.monotonic() + self._timeout_s
                    with contextlib.suppress(
                        BrokenPipeError
                    ):  # it has died; waiting for its answer will tell
                        worker.pipe.send(task)
            busy = {worker.pipe: worker for worker in self._workers if worker.task is not None}
            limit = min(worker.deadline for worker in busy.values()) - time.monotonic()
            for pipe in multiprocessing.connection.wait(list(busy), timeout=max(0.0, limit)):
                worker = busy[pipe]
                number = worker.task
                assert number is not None
                try:
                    result = worker.pipe.recv()
                    worker.task = None
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    result = self._replace(worker, f"the process ended with status {worker.process.exitcode}")
                yield number, result
            for worker in self._workers:
                if worker.task is not None and time.monotonic() > worker.deadline:
                    number = worker.task
                    _kill(worker.process)
                    yield number, self._replace(worker, f"stopped after {self._timeout_s:.0f} s")

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        self._started += 1
        log = Path(self._folder.name) / f"{self._started}.log"
        process = _CONTEXT.Process(target=_serve, args=(theirs, self._function, str(log)), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, log)

    def _replace(self, worker: _Worker, reason: str) -> Died:
        output = worker.log.read_text(errors="replace") if worker.log.is_file() else ""
        self._workers[self._workers.index(worker)] = self._start()
        tail = "\n".join(output.splitlines()[-5:])
        return Died(f"{reason}\n{tail}".rstrip())


def _kill(process: Any) -> None:
    """End a worker and what it started: compilers and simulators are in its process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()  # it has ended, or has not come to make its group yet
    process.join()


def _serve(pipe: Any, function: Callable[[Any], Any], log: str) -> None:
    # What C code prints before it aborts is the only trace of why; Python's own output goes there as well.
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        os.ftruncate(1, 0)
        try:
            result = function(task)
        except Exception:
            result = Died(traceback.format_exc())
        pipe.send(result)
