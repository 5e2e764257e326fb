"""Sweeps over number formats: accuracy and cost of many configurations, kept in an Optuna study.

:func:`run` runs or continues a sweep, :func:`read` looks at one, :class:`Space` says what is varied. Trials
survive the death of processes, and several processes can work on one study (docs/sweep.md).
"""

from qfx.sweep.measure import measure_front
from qfx.sweep.names import family, formats, pairs, parse
from qfx.sweep.result import Results, Trial
from qfx.sweep.runner import read, run
from qfx.sweep.space import Range, Space

__all__ = [
    "Range",
    "Results",
    "Space",
    "Trial",
    "family",
    "formats",
    "measure_front",
    "pairs",
    "parse",
    "read",
    "run",
]
