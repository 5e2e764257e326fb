"""Reading the report of the vendor's C synthesis."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from qfx.errors import QfxError


@dataclass(frozen=True)
class SynthesisReport:
    """Estimates of C synthesis, before place and route.

    Attributes:
        part: the device.
        lut, ff, dsp, bram18, uram: estimated resources; block RAM in units of 18 Kbit.
        target_ns, estimated_ns: clock period asked for and estimated.
        latency_min, latency_max: clock cycles of one frame; ``None`` when the tool could not tell.
        interval_min, interval_max: clock cycles between frames; ``None`` likewise.
    """

    part: str
    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int
    target_ns: float
    estimated_ns: float
    latency_min: int | None
    latency_max: int | None
    interval_min: int | None
    interval_max: int | None

    @property
    def estimated_mhz(self) -> float:
        """The clock that the estimated period allows."""
        return 1000.0 / self.estimated_ns


def read_report(project: Path, top: str) -> SynthesisReport:
    """Parse ``csynth.xml`` of a synthesised project.

    Raises:
        QfxError: no report, or not one that this reader knows.
    """
    reports = sorted(project.glob(f"{top}_prj/*/syn/report/{top}_csynth.xml")) or sorted(
        project.glob(f"{top}_prj/*/syn/report/csynth.xml")
    )
    if not reports:
        raise QfxError(
            f"hls: no csynth report under {project / (top + '_prj')}: run synthesis first, or see its log"
        )
    return parse_report(reports[0])


def parse_report(path: Path) -> SynthesisReport:
    """Parse one ``csynth.xml``."""
    try:
        # Some versions put everything into a namespace, some do not.
        root = ElementTree.fromstring(re.sub(' xmlns="[^"]*"', "", path.read_text(), count=1))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise QfxError(f"hls: {path}: not a csynth report: {error}") from error

    def text(tag: str) -> str:
        found = root.find(tag)
        if found is None or found.text is None:
            raise QfxError(f"hls: {path}: not a csynth report: no {tag}")
        return found.text.strip()

    def cycles(tag: str) -> int | None:
        value = text(tag)
        return int(value) if value.isdigit() else None

    def count(*tags: str) -> int:
        for tag in tags:
            found = root.find(f"AreaEstimates/Resources/{tag}")
            if found is not None and found.text is not None:
                return int(found.text)
        return 0

    summary = "PerformanceEstimates/SummaryOfOverallLatency"
    return SynthesisReport(
        part=text("UserAssignments/Part"),
        lut=count("LUT"),
        ff=count("FF"),
        dsp=count("DSP", "DSP48E"),
        bram18=count("BRAM_18K"),
        uram=count("URAM"),
        target_ns=float(text("UserAssignments/TargetClockPeriod")),
        estimated_ns=float(text("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")),
        latency_min=cycles(f"{summary}/Best-caseLatency"),
        latency_max=cycles(f"{summary}/Worst-caseLatency"),
        interval_min=cycles(f"{summary}/Interval-min"),
        interval_max=cycles(f"{summary}/Interval-max"),
    )
