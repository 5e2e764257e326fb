"""Verilog from the integer graph: a streaming dataflow accelerator (docs/rtl.md)."""

from .design import Design, Kernel, Layer, Memory, Stream
from .generate import generate, plan
from .manifest import load

__all__ = ["Design", "Kernel", "Layer", "Memory", "Stream", "generate", "load", "plan"]
