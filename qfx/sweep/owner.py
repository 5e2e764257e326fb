"""Which process runs a trial, and whether it still lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def me() -> dict[str, Any]:
    """This process, as another one can recognise it: machine, process id, and when it started."""
    pid = os.getpid()
    return {"machine": machine(), "host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has surely ended. Of other machines nothing is known: ``False``."""
    if owner.get("machine") != machine() or not isinstance(owner.get("pid"), int):
        return False
    started = _started(owner["pid"])
    # Process ids are used again; the time of the start tells two of them apart.
    return started is None or started != owner.get("started")


@cache
def machine() -> str:
    """What is the same for all processes that see each other's ids: host, boot, and space of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = space = ""
    return f"{socket.gethostname()} {boot} {space}"


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the boot; ``None`` when it is gone or only waits to be
    reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> str | None:
    """Without /proc: whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"


class Beats:
    """Heartbeats of processes on other machines, judged by this machine's clock.

    A heartbeat is a number that grows. A process whose number has not changed for ``grace_s`` seconds *while
    this process was looking* counts as dead, so that clocks need not agree.
    """

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._seen: dict[int, tuple[Any, float]] = {}

    def is_silent(self, trial: int, beat: Any) -> bool:
        now = time.monotonic()
        last, since = self._seen.get(trial, (None, now))
        if trial not in self._seen or beat != last:
            self._seen[trial] = (beat, now)
            return False
        return now - since > self.grace_s
