"""UCI's Letter Recognition (P. Frey, D. Slate, 1991): 20,000 printed letters, 16 features of 0 to 15.

Debian's package r-cran-mlbench carries it, in R's own file format.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np

#: Where the package puts it, and where it lies when the package was only unpacked.
PLACES = (
    Path("/usr/lib/R/site-library/mlbench/data/LetterRecognition.rda"),
    Path("build/mlbench/usr/lib/R/site-library/mlbench/data/LetterRecognition.rda"),
)
HOW = (
    "apt-get install r-cran-mlbench, or without R: apt-get download r-cran-mlbench && "
    "dpkg-deb -x r-cran-mlbench_*.deb build/mlbench"
)


def letters(path: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32 ``(20000, 16)`` in 0..15, and letters, int64 ``(20000,)`` in 0..25.

    Raises:
        FileNotFoundError: the file is nowhere; says how to get it.
    """
    found = next((p for p in ([path] if path else PLACES) if p.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"LetterRecognition.rda is not there: {HOW}")
    columns = list(_Reader(_unpacked(found.read_bytes())).data()["LetterRecognition"])
    return np.stack(columns[1:], axis=1).astype(np.float32), np.asarray(columns[0], dtype=np.int64) - 1


def _unpacked(data: bytes) -> bytes:
    for start, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if data.startswith(start):
            return bytes(module.decompress(data))  # type: ignore[attr-defined]
    return data


class _Reader:
    """As much of R's serialization as data frames of numbers and factors take.

    Source: "R Internals", section 1.8.
    """

    def __init__(self, data: bytes) -> None:
        if not data.startswith((b"RDX2\nX\n", b"RDX3\nX\n")):
            raise ValueError("not an R data file in XDR format")
        self._data, self._at = data, 7
        self._references: list[Any] = []
        version, _, _ = (self._int() for _ in range(3))
        if version == 3:
            self._at += self._int()

    def data(self) -> dict[str, Any]:
        return dict(self._item())

    def _int(self) -> int:
        (value,) = struct.unpack_from(">i", self._data, self._at)
        self._at += 4
        return int(value)

    def _numbers(self, kind: str) -> np.ndarray:
        values = np.frombuffer(self._data, kind, self._int(), self._at)
        self._at += values.nbytes
        return values

    def _item(self) -> Any:
        flags = self._int()
        kind, attributes, tag = flags & 0xFF, bool(flags & 0x200), bool(flags & 0x400)
        if kind == 254:  # NULL
            return []
        if kind == 255:  # a symbol seen before
            return self._references[(flags >> 8 or self._int()) - 1]
        if kind == 1:
            self._references.append(self._item())
            return self._references[-1]
        if kind == 2:  # pairs, one after the other
            if attributes:
                self._item()
            name = self._item() if tag else ""
            value = self._item()
            return [(name, value), *self._item()]
        if kind == 9:  # a string
            size = self._int()
            self._at += max(0, size)
            return self._data[self._at - max(0, size) : self._at].decode("latin-1")
        if kind in (13, 14, 10):
            values: Any = self._numbers(">f8" if kind == 14 else ">i4")
        elif kind in (16, 19):
            values = [self._item() for _ in range(self._int())]
        else:
            raise ValueError(f"R objects of type {kind} are not read")
        if attributes:
            self._item()
        return values
