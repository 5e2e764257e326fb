"""The parallel architecture: fully unrolled, one vector per cycle (docs/parallel.md)."""

from .build import LEVELS, Parallel, build

__all__ = ["LEVELS", "Parallel", "build"]
