"""Casts by ``ap_fixed`` itself: a generated C++ program on the headers that hls4ml ships, compiled with
g++."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from qfx.formats import FixedPoint

_PROGRAM = """
#include "ap_fixed.h"
#include <cstdint>
#include <cstdio>
#include <vector>

template <class Source, class Target> void convert(const int64_t *in, int64_t *out, long n) {
    for (long i = 0; i < n; i++) {
        Source source;
        source.range() = in[i];
        Target target = source;
        out[i] = (int64_t)target.range().to_int64();
    }
}

template <class Target> void from_double(const int64_t *in, int64_t *out, long n) {
    for (long i = 0; i < n; i++) {
        double value;
        __builtin_memcpy(&value, &in[i], 8);
        Target target = value;
        out[i] = (int64_t)target.range().to_int64();
    }
}

typedef void (*Case)(const int64_t *, int64_t *, long);
static const Case cases[] = {CASES};

int main() {
    for (Case run : cases) {
        int64_t n;
        if (fread(&n, 8, 1, stdin) != 1) return 1;
        std::vector<int64_t> in(n), out(n);
        if ((long)fread(in.data(), 8, n, stdin) != n) return 1;
        run(in.data(), out.data(), n);
        fwrite(out.data(), 8, n, stdout);
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Case:
    """One cast: from ``source`` (``None``: from double) to ``target``, on ``inputs`` (codes, or float64
    values)."""

    source: FixedPoint | None
    target: FixedPoint
    inputs: np.ndarray


def headers() -> Path:
    spec = find_spec("hls4ml")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "templates" / "vivado" / "ap_types"


def cpp_type(fmt: FixedPoint) -> str:
    modes = f"AP_{fmt.rounding}, AP_{fmt.overflow}"
    return f"ap_{'' if fmt.signed else 'u'}fixed<{fmt.width}, {fmt.width - fmt.max_frac}, {modes}>"


def run(cases: Sequence[Case], build: Path) -> list[np.ndarray]:
    """The codes that ap_fixed gives, per case; the program is compiled in ``build``."""
    calls = ",\n".join(
        f"convert<{cpp_type(c.source)}, {cpp_type(c.target)}>"
        if c.source
        else f"from_double<{cpp_type(c.target)}>"
        for c in cases
    )
    text = _PROGRAM.replace("CASES", calls)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    source, program = build / f"{name}.cpp", build / name
    source.write_text(text)
    command = ["g++", "-std=c++14", "-O0", "-w", f"-I{headers()}", str(source), "-o", str(program)]
    subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C"})
    stream = b"".join(
        np.int64(len(c.inputs)).tobytes()
        + (c.inputs.view(np.int64) if c.source is None else c.inputs.astype(np.int64)).tobytes()
        for c in cases
    )
    raw = subprocess.run([program], input=stream, stdout=subprocess.PIPE, check=True).stdout
    flat = np.frombuffer(raw, dtype=np.int64)
    results, start = [], 0
    for case in cases:
        codes = flat[start : start + len(case.inputs)]
        start += len(case.inputs)
        width = case.target.width
        mask = (1 << width) - 1
        codes = codes & mask
        results.append(codes - ((codes >> (width - 1)) << width) if case.target.signed else codes)
    return results
