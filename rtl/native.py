"""C++ helpers: compiled on first use, kept in the cache folder under a digest of their source."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from qfx.errors import QfxError


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The shared library of a C++ source; ``None`` where there is no C++ compiler or no place to keep it.

    Raises:
        QfxError: the source does not compile.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    key = hashlib.sha256(source.read_bytes() + os.uname().machine.encode()).hexdigest()[:20]
    root = os.environ.get("QFX_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "qfx"
    )
    target = Path(root) / source.stem / f"{source.stem}-{key}.so"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                built = Path(folder) / target.name
                command = [compiler, "-O2", "-std=c++17", "-shared", "-fPIC", "-o", str(built), str(source)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                if done.returncode:
                    raise QfxError(f"{source}: does not compile with {compiler}: {done.stderr[-1500:]}")
                os.replace(built, target)
        except OSError:
            return None
    return ctypes.CDLL(str(target))
