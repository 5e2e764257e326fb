"""HLS C++ through hls4ml: ``convert`` writes a project whose C simulation equals ``Graph.run`` on every bit."""

from qfx.hls.convert import convert
from qfx.hls.project import Project
from qfx.hls.report import SynthesisReport

__all__ = ["Project", "SynthesisReport", "convert"]
