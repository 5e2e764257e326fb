"""The report of a build: plain data (:class:`Build`) in, one self-contained HTML page out.

``write(build, path)`` writes the page; ``build.save(path)`` keeps the data, ``from_json(path)`` reads it.
The ``collect_…`` functions take the data from graphs, designs, measurements and prepared models.
"""

from qfx.report.build import (
    BinaryPoint,
    Board,
    Build,
    Cycles,
    Epoch,
    Format,
    Histogram,
    Layer,
    MacCost,
    Resources,
    Verification,
    from_json,
)
from qfx.report.collect import (
    binary_points,
    collect_histograms,
    collect_layers,
    collect_resources,
    collect_verification,
    format_of,
    histogram,
)
from qfx.report.page import render, write
from qfx.report.sweep import figure, render_sweep, write_sweep

__all__ = [
    "BinaryPoint",
    "Board",
    "Build",
    "Cycles",
    "Epoch",
    "Format",
    "Histogram",
    "Layer",
    "MacCost",
    "Resources",
    "Verification",
    "binary_points",
    "collect_histograms",
    "collect_layers",
    "collect_resources",
    "collect_verification",
    "figure",
    "format_of",
    "from_json",
    "histogram",
    "render",
    "render_sweep",
    "write",
    "write_sweep",
]
