"""Compiles C++ extensions of torch on first use and keeps them in the user's cache folder.

A library is kept under a digest of its sources, the compiler, torch's version and the processor's instruction
set, so that none of them can change under it. Processes that start together wait for the one that compiles.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

#: Set to 0 to compute with torch operators only.
SWITCH = "QFX_FUSED"
# Nothing here may change what IEEE operations give in the order written; errno and traps are not looked at.
_KERNEL_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math")
_TIMEOUT_S = 900


class BuildError(Exception):
    """Why there is no compiled library."""


class Extension:
    """A shared library of torch operators, made of two C++ files.

    Args:
        name: of the library and its cache folder.
        what: what messages call it.
        consequence: what is so without it, as a clause.
        kernels: the file with the loops, compiled for this processor; no torch headers.
        operators: the file that registers the torch operators.
        headers: every other file that they include.
        contract: whether a product and a sum may become one fused operation: where all of them are exact.
    """

    def __init__(
        self, name: str, what: str, consequence: str, kernels: Path, operators: Path,
        headers: Sequence[Path], contract: bool = False,
    ) -> None:  # fmt: skip
        self._flags = (*_KERNEL_FLAGS, f"-ffp-contract={'fast' if contract else 'off'}")
        self._name, self._what, self._consequence = name, what, consequence
        self._kernels, self._operators = kernels, operators
        self._sources = (*headers, kernels, operators)
        self._loaded: list[str | None] = []
        self._path: Path | None = None

    def load(self) -> str | None:
        """Make the operators available, compiling them if that was not done yet.

        Returns:
            ``None`` when they are; otherwise why not, in a few words. Warns once in that case, unless it was
            asked for.
        """
        if not self._loaded:
            self._loaded.append(self._try())
        return self._loaded[0]

    def status(self) -> tuple[bool, str]:
        """Whether the operators are in use, and the file or the reason. Compiles them if need be."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reason = self.load()
        return (True, str(self._built())) if reason is None else (False, reason)

    def _try(self) -> str | None:
        if switched_off():
            return f"switched off ({SWITCH}=0)"
        try:
            torch.ops.load_library(str(self._built()))
        except (BuildError, OSError) as error:
            warnings.warn(
                f"qfx: {self._consequence}: {error}. Results are the same. {SWITCH}=0 silences this",
                RuntimeWarning,
                stacklevel=3,
            )
            return str(error).splitlines()[0]
        return None

    def _built(self) -> Path:
        """The shared library.

        Raises:
            BuildError: there is no compiler, or it cannot compile this.
            OSError: the cache folder cannot be written.
        """
        if self._path is not None:
            return self._path
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
        if compiler is None:
            raise BuildError("there is no C++ compiler (g++) on PATH")
        target = cache_folder() / self._name / f"{self._name}-{self._key(compiler)}.so"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target.parent / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not target.exists():
                    self._compile(compiler, target)
        self._path = target
        return target

    def _compile(self, compiler: str, target: Path) -> None:
        print(f"qfx: compiling {self._what}; this happens once and takes about 20 seconds", file=sys.stderr)
        root = Path(torch.__file__).parent
        include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'torch' / 'csrc' / 'api' / 'include'}"]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
        libraries = [f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            kernels, built = Path(folder) / "kernels.o", Path(folder) / target.name
            self._run([compiler, *self._flags, "-std=c++17", "-fPIC", "-c", self._kernels, "-o", kernels])
            # C++20 is what torch's newer headers ask for; the older ones compile with it too.
            command = [compiler, "-O1", "-std=c++20", "-fPIC", "-shared", "-fopenmp", abi, *include]
            self._run([*command, self._operators, kernels, "-o", built, *libraries])
            os.replace(built, target)

    def _run(self, command: list[str | Path]) -> None:
        try:
            done = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, errors="replace",
                timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{command[0]} does not run: {error}") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise BuildError(f"{command[0]} cannot compile {self._what}: {' '.join(lines[:1])}")

    def _key(self, compiler: str) -> str:
        digest = hashlib.sha256()
        for source in self._sources:
            digest.update(source.read_bytes())
        digest.update(repr((self._flags, torch.__version__, _version(compiler), _processor())).encode())
        return digest.hexdigest()[:20]


def switched_off() -> bool:
    """Whether the environment says that torch operators are to do everything."""
    return os.environ.get(SWITCH, "1") == "0"


def cache_folder() -> Path:
    """Where libraries are kept: ``QFX_CACHE``, or ``qfx`` in the user's cache folder."""
    root = os.environ.get("QFX_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "qfx"
    )
    return Path(root)


@cache
def _version(compiler: str) -> str:
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{compiler} does not run: {error}") from error
    return done.stdout.partition("\n")[0]


def _processor() -> str:
    """What -march=native looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    return os.uname().machine + (flags[0] if flags else os.uname().nodename)
