"""HLS C++ through hls4ml, exact: C simulation of a converted graph equals ``Graph.run`` on every bit."""

from qfx.hls.convert import convert
from qfx.hls.project import Project
from qfx.hls.report import SynthesisReport

__all__ = ["Project", "SynthesisReport", "convert"]
