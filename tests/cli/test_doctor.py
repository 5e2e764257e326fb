"""`qfx doctor` and `require`: what is missing is named, with the command that installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qfx import doctor
from qfx.errors import MissingToolError, QfxError

REPOSITORY = Path(__file__).resolve().parents[2]


def system_check(path: str) -> subprocess.CompletedProcess[str]:
    """`python -m qfx.doctor` as the Makefile runs it, isolated from installed packages, with this PATH."""
    return subprocess.run(
        [sys._base_executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); "  # type: ignore[attr-defined]
         "import runpy; runpy.run_module('qfx.doctor', run_name='__main__')"],
        env={"PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    path.chmod(0o755)


def test_the_system_check_needs_no_package_and_passes_here() -> None:
    done = system_check(os.environ["PATH"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_missing_program_is_named_with_its_command(tmp_path: Path) -> None:
    program(tmp_path, "apt-get", "exit 0")
    done = system_check(str(tmp_path))
    assert done.returncode == 1
    sudo = "" if os.geteuid() == 0 else "sudo "
    for name in ("perl", "make", "g++"):
        assert f"missing: {name} (" in done.stderr
        assert f"    {sudo}apt-get install -y {name}\n" in done.stderr


def test_without_apt_the_package_is_named(tmp_path: Path) -> None:
    done = system_check(str(tmp_path))
    assert "install g++ with your system's package manager (Debian and Ubuntu: apt-get " in done.stderr


def test_a_compiler_that_cannot_compile_is_missing(tmp_path: Path) -> None:
    for name in ("perl", "make"):
        program(tmp_path, name, "exit 0")
    program(tmp_path, "g++", "echo 'fatal error: optional: No such file or directory' >&2; exit 1")
    done = system_check(str(tmp_path))
    assert done.returncode == 1
    assert "missing: g++ (" in done.stderr
    assert "): cannot build a C++17 program: fatal error: optional" in done.stderr
    assert "perl" not in done.stderr


def test_require_finds_a_program() -> None:
    assert Path(doctor.require("g++")).name == "g++"


def test_require_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"g\+\+ is not on PATH \(compiles HLS.* g\+\+"):
        doctor.require("g++")
    with pytest.raises(QfxError, match=r"vitis_hls \(vitis-run, vitis_hls, v\+\+\) is not .* settings64\.sh"):
        doctor.require("vitis_hls")


def test_any_of_a_tools_names_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "v++", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.require("vitis_hls") == str(tmp_path / "v++")


def test_a_package_outside_its_range_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["pytest<2", "nowhere>=1", "pip; extra=='x'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: requirements)
    wrong, absent = doctor._check_packages()
    assert (wrong.ok, wrong.required, wrong.purpose) == (False, True, "qfx needs pytest<2")
    assert wrong.fix.endswith("-m pip install 'pytest<2'")
    assert (absent.ok, absent.found) == (False, "not installed")


def test_a_tool_that_does_not_start_is_reported(tmp_path: Path) -> None:
    program(tmp_path, "tool", "echo 'no perl here' >&2; exit 3")
    check = doctor._starts("tool", "tests", [str(tmp_path / "tool")], "install it", 10)
    assert (check.ok, check.found, check.fix) == (False, "does not start: no perl here", "install it")


@pytest.mark.timeout(700)
def test_everything_is_here() -> None:
    """Also the first start of Yosys on a new machine, which takes half a minute."""
    command = [sys.executable, "-m", "qfx.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    missing = [check for check in report["checks"] if check["required"] and not check["ok"]]
    assert (done.returncode, report["ok"], missing) == (0, True, [])
    names = {check["name"] for check in report["checks"]}
    assert names >= {"python", "perl", "make", "g++", "torch", "libpython"}
    assert "fused quantizer" in names
    assert names >= {"ap_fixed headers", "verilator starts", "yosys starts", "vivado", "ccache"}
