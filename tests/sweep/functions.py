"""Objectives of the tests: importable by name, fast, and they leave a line for each run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfx.sweep.space import Value


def note(folder: Path, text: str) -> None:
    """One line in ``runs.log``, whole even when several processes write."""
    log = os.open(folder.parent.parent / "runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(log, f"{text}\n".encode())
    finally:
        os.close(log)


def product(parameters: Mapping[str, Value], folder: Path) -> dict[str, Any]:
    """Takes 5 ms; notes the beginning and the end of each run."""
    a, b = int(parameters["a"] or 0), int(parameters["b"] or 0)
    note(folder, f"begin {folder.name}")
    time.sleep(0.005)
    note(folder, f"end {folder.name}")
    return {"accuracy": 100 - abs(a - 7) - b, "ebops": a * 20 + b}


def sometimes(parameters: Mapping[str, Value], folder: Path) -> dict[str, Any]:
    """Fails in different ways for some points."""
    a = parameters["a"]
    note(folder, f"begin {folder.name}")
    if a == 1:
        raise ValueError("a is 1")
    if a == 2:
        return {"accuracy": float("nan"), "ebops": 1}
    if a == 3:
        return {"accuracy": 1.0}
    return {"accuracy": 90, "ebops": 1}


def slow_third(parameters: Mapping[str, Value], folder: Path) -> dict[str, Any]:
    """Point 2 never ends."""
    note(folder, f"begin {folder.name}")
    if parameters["a"] == 2:
        time.sleep(600)
    return {"accuracy": float(parameters["a"] or 0), "ebops": 1}
