"""Compiles the fused quantizer on first use; see :mod:`qfx.extension`."""

from __future__ import annotations

from pathlib import Path

from qfx.extension import SWITCH, Extension, switched_off

__all__ = ["SWITCH", "load", "status", "switched_off"]

_FOLDER = Path(__file__).parent
_EXTENSION = Extension(
    name="fused",
    what="the fused quantizer",
    consequence="training uses plain torch operators, which take about twice as long",
    kernels=_FOLDER / "fused_kernels.cpp",
    operators=_FOLDER / "fused.cpp",
    headers=(_FOLDER / "fused_kernels.h", _FOLDER.parent / "graph" / "rounding.h"),
)

load = _EXTENSION.load
status = _EXTENSION.status
