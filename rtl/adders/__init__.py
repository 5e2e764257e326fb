"""Constant matrices as shared adder graphs (docs/parallel.md)."""

from .graph import Adder, AdderGraph, Output
from .optimize import optimize

__all__ = ["Adder", "AdderGraph", "Output", "optimize"]
