"""What a wheel carries: every package, and every file that is not Python but needed at run time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = SETTINGS["tool"]["setuptools"]["package-dir"]


def package_files() -> dict[str, Path]:
    """Name in the wheel -> source, for every file below the package folders."""
    files = {}
    for package, folder in FOLDERS.items():
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{package.replace('.', '/')}/{path.relative_to(REPOSITORY / folder)}"] = path
    return files


def test_every_package_is_listed() -> None:
    suffix = "/__init__.py"
    there = {name.removesuffix(suffix).replace("/", ".") for name in package_files() if name.endswith(suffix)}
    assert there == set(SETTINGS["tool"]["setuptools"]["packages"])


def test_the_lock_pins_every_dependency_exactly() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    locked = {canonicalize_name(pin.split("==")[0]): Version(pin.split("==")[1]) for pin in pins}
    project = SETTINGS["project"]
    for text in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        requirement = Requirement(text)
        pinned = locked.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is not in requirements.lock"
        assert requirement.specifier.contains(pinned, prereleases=True), f"{text}, locked {pinned}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources: setuptools leaves its work where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for top in FOLDERS.values():
        shutil.copytree(REPOSITORY / top, source / top, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (built,) = folder.glob("qfx-*.whl")
    return built


def test_a_wheel_carries_every_file(wheel: Path) -> None:
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert carried == set(package_files())


def test_the_wheel_works_where_there_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import pathlib, qfx, qfx.boards, qfx.hls, qfx.rtl, qfx.sim\n"
        "for package in (qfx, qfx.boards, qfx.hls, qfx.rtl, qfx.sim):\n"
        f"    assert pathlib.Path(package.__file__).is_relative_to({str(tmp_path)!r}), package.__file__\n"
        "assert qfx.boards.get('ulx3s').pin('clk').site == 'G2'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
