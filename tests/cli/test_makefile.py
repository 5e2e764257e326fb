"""The checks of the Makefile that run before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = Path(sys._base_executable)  # type: ignore[attr-defined]


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path or os.environ["PATH"]}  # none of the variables that an outer make sets
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    path.chmod(0o755)
    return str(path)


def test_this_machine_passes() -> None:
    done = make("system", f"PYTHON={BASE}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_python() -> None:
    done = make("system", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert "/nowhere/python3 is not on PATH. Debian or Ubuntu: apt-get install -y python3 " in done.stderr


def test_an_old_python(tmp_path: Path) -> None:
    python = fake_python(tmp_path, '[ "$1" = --version ] && echo "Python 3.9.2" && exit; exit 1')
    done = make("system", f"PYTHON={python}")
    assert done.returncode != 0
    assert f"{python} is Python 3.9.2; 3.11 or newer is needed: make PYTHON=python3.11 ..." in done.stderr


def test_a_python_without_venv(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f'case "$2" in *ensurepip*) exit 1;; esac; exec "{BASE}" "$@"')
    done = make("system", f"PYTHON={python}")
    assert done.returncode != 0
    assert "cannot make virtual environments. Debian or Ubuntu: apt-get install -y python3-venv" in (
        done.stderr
    )


def test_a_missing_compiler(tmp_path: Path) -> None:
    for name in ("sh", "perl", "make", "env"):
        (tmp_path / name).symlink_to("/bin/true" if name == "perl" else _which(name))
    done = make("system", f"PYTHON={BASE}", path=str(tmp_path))
    assert done.returncode != 0
    assert "missing: g++ (" in done.stderr
    assert "missing: perl" not in done.stderr


def test_a_model_that_is_not_there() -> None:
    done = make("model", "MODEL=build/no such model.qfx")
    assert done.returncode != 0
    assert "build/no such model.qfx is not there: run 'make demo' first, or name a graph" in done.stderr


def test_help_names_every_target() -> None:
    done = make("help")
    named = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")}
    assert named >= {"demo", "test", "test-slow", "test-all", "hls", "rtl", "sim"}
    assert named >= {"cost", "bench", "lint", "docs"}


def _which(name: str) -> str:
    path = shutil.which(name)
    assert path is not None
    return path
