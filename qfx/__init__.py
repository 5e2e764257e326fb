"""Fixed-point networks learned in PyTorch, computed bit for bit on FPGAs.

Everything public is reached from here. Names are looked up on first use, so that `qfx --help`, `qfx doctor`
and work on graphs alone do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qfx.errors import GraphFileError, MissingToolError, QfxError, UnsupportedError

if TYPE_CHECKING:
    from qfx import boards, cost, data, hls, models, nn, ptq, rtl, sim, sweep
    from qfx.formats import (
        MXFP4,
        MXFP6,
        MXFP8,
        MXINT8,
        Binary,
        Block,
        BlockFloatingPoint,
        DynamicFixedPoint,
        FixedPoint,
        KHot,
        PowerOfTwo,
        Ternary,
    )
    from qfx.formats.minifloat import Minifloat
    from qfx.graph import Graph
    from qfx.graph.ebops import ebops
    from qfx.graph.file import load
    from qfx.graph.prune import prune
    from qfx.interop.brevitas import from_brevitas
    from qfx.interop.qonnx_export import to_qonnx
    from qfx.interop.qonnx_import import from_qonnx
    from qfx.learn import (
        Config,
        EBOPs,
        Front,
        MeasuredCost,
        ResourceLoss,
        average_points,
        calibrate,
        freeze,
        freeze_points,
        front,
        load_checkpoint,
        parameter_groups,
        points,
        prepare,
        quantizers,
        resource_loss,
        save_checkpoint,
        widths,
    )
    from qfx.verification import verify

# Public name -> module that defines it; an empty entry is a subpackage.
_PUBLIC = {
    "FixedPoint": "qfx.formats",
    "Minifloat": "qfx.formats.minifloat",
    "KHot": "qfx.formats.khot",
    "PowerOfTwo": "qfx.formats.khot",
    "Ternary": "qfx.formats.khot",
    "Binary": "qfx.formats.binary",
    "Block": "qfx.formats.block",
    "MXINT8": "qfx.formats.block",
    "MXFP8": "qfx.formats.block",
    "MXFP6": "qfx.formats.block",
    "MXFP4": "qfx.formats.block",
    "BlockFloatingPoint": "qfx.formats.block",
    "DynamicFixedPoint": "qfx.formats.block",
    "Graph": "qfx.graph",
    "load": "qfx.graph.file",
    "ebops": "qfx.graph.ebops",
    "prune": "qfx.graph.prune",
    "Config": "qfx.learn",
    "from_brevitas": "qfx.interop.brevitas",
    "from_qonnx": "qfx.interop.qonnx_import",
    "to_qonnx": "qfx.interop.qonnx_export",
    "prepare": "qfx.learn",
    "calibrate": "qfx.learn",
    "freeze": "qfx.learn",
    "verify": "qfx.verification",
    "freeze_points": "qfx.learn",
    "parameter_groups": "qfx.learn",
    "quantizers": "qfx.learn",
    "EBOPs": "qfx.learn",
    "Front": "qfx.learn",
    "MeasuredCost": "qfx.learn",
    "ResourceLoss": "qfx.learn",
    "front": "qfx.learn",
    "resource_loss": "qfx.learn",
    "widths": "qfx.learn",
    "save_checkpoint": "qfx.learn",
    "load_checkpoint": "qfx.learn",
    "points": "qfx.learn",
    "average_points": "qfx.learn",
    "boards": "",
    "cost": "",
    "data": "",
    "hls": "",
    "models": "",
    "nn": "",
    "ptq": "",
    "rtl": "",
    "sim": "",
    "sweep": "",
}

__all__ = [
    "MXFP4",
    "MXFP6",
    "MXFP8",
    "MXINT8",
    "Binary",
    "Block",
    "BlockFloatingPoint",
    "Config",
    "DynamicFixedPoint",
    "EBOPs",
    "FixedPoint",
    "Front",
    "Graph",
    "GraphFileError",
    "KHot",
    "MeasuredCost",
    "Minifloat",
    "MissingToolError",
    "PowerOfTwo",
    "QfxError",
    "ResourceLoss",
    "Ternary",
    "UnsupportedError",
    "average_points",
    "boards",
    "calibrate",
    "cost",
    "data",
    "ebops",
    "freeze",
    "freeze_points",
    "from_brevitas",
    "from_qonnx",
    "front",
    "hls",
    "load",
    "load_checkpoint",
    "models",
    "nn",
    "parameter_groups",
    "points",
    "prepare",
    "ptq",
    "prune",
    "quantizers",
    "resource_loss",
    "rtl",
    "save_checkpoint",
    "sim",
    "sweep",
    "to_qonnx",
    "verify",
    "widths",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("qfx")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'qfx' has no attribute {name!r}")
    module = _PUBLIC[name]
    found = importlib.import_module(module or f"qfx.{name}")
    value = getattr(found, name) if module else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
