"""What vendor tools say about a design: their reports of resources and timing, read.

The layouts are those that the tools' manuals show: AMD UG906 (``report_utilization``,
``report_timing_summary``), Intel's summaries ``*.fit.summary`` and ``*.sta.summary`` of Quartus Prime, and
the JSON report of nextpnr. A figure that a report does not have is an error, not 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qfx.errors import QfxError


@dataclass(frozen=True)
class Synthesis:
    """What a design costs after place and route.

    Attributes:
        tool: name and version of the tool.
        part: the device.
        lut: look-up tables; on Intel devices adaptive logic modules (ALM).
        ff: flip-flops.
        dsp: multiplier blocks.
        bram18: block RAMs of 18 Kbit; on Intel devices blocks of their own size (``M10K``, ``M20K``).
        uram: UltraRAMs.
        period_ns: the clock that was asked for.
        slack_ns: worst setup slack; negative where the clock is not reached.
    """

    tool: str
    part: str
    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int
    period_ns: float
    slack_ns: float

    @property
    def fmax_mhz(self) -> float:
        """The highest clock frequency by the worst path."""
        return 1000 / (self.period_ns - self.slack_ns)

    @property
    def meets_timing(self) -> bool:
        """Whether the clock that was asked for is reached."""
        return self.slack_ns >= 0


def vivado(utilization: Path, timing: Path, period_ns: float) -> Synthesis:
    """Vivado's ``report_utilization`` and ``report_timing_summary``.

    Raises:
        QfxError: a report is missing or does not have the figures.
    """
    text = _read(utilization)
    rows: dict[str, str] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        # Name, used, ...; the first table of a name is the summary, later ones repeat or detail it.
        if len(cells) >= 2 and re.fullmatch(r"[0-9.]+", cells[1]):
            rows.setdefault(cells[0].rstrip("*"), cells[1])

    def used(*names: str) -> float:
        for name in names:
            if name in rows:
                return float(rows[name])
        raise QfxError(f"{utilization}: no row {' or '.join(names)}; expected Vivado's report_utilization")

    # Parts without UltraRAM have no row for it.
    uram = used("URAM") if "URAM" in rows else 0
    return Synthesis(
        tool="Vivado " + _field(utilization, text, r"Tool Version\s*:\s*Vivado v\.?(\S+)"),
        part=_field(utilization, text, r"Device\s*:\s*(\S+)"),
        lut=int(used("CLB LUTs", "Slice LUTs")),
        ff=int(used("CLB Registers", "Slice Registers")),
        dsp=int(used("DSPs", "DSP Slices")),
        # Half a tile is a block of 18 Kbit.
        bram18=round(2 * used("Block RAM Tile")),
        uram=int(uram),
        period_ns=period_ns,
        slack_ns=_vivado_slack(timing),
    )


def _vivado_slack(path: Path) -> float:
    """WNS out of the table "Design Timing Summary"."""
    lines = _read(path).splitlines()
    for number, line in enumerate(lines):
        if line.split()[:2] == ["WNS(ns)", "TNS(ns)"] and number + 2 < len(lines):
            value = (lines[number + 2].split() or [""])[0]
            if re.fullmatch(r"-?\d+\.\d+", value):
                return float(value)
            raise QfxError(f"{path}: WNS is {value!r}: no path is constrained, is the clock missing?")
    raise QfxError(f"{path}: no table with WNS(ns); expected Vivado's report_timing_summary")


def quartus(fit: Path, timing: Path, period_ns: float) -> Synthesis:
    """Quartus' ``*.fit.summary`` and ``*.sta.summary``.

    Raises:
        QfxError: a summary is missing or does not have the figures.
    """
    text = _read(fit)
    rows = dict(re.findall(r"^([^:\n]+?) : (.*)$", text, re.MULTILINE))

    def used(name: str) -> int:
        match = re.match(r"([\d,]+)", rows.get(name, ""))
        if match is None:
            raise QfxError(f"{fit}: no line {name!r}; expected the fitter summary of Quartus")
        return int(match[1].replace(",", ""))

    slacks = re.findall(r"^Type\s*: .*Setup.*\nSlack\s*: (-?[\d.]+)$", _read(timing), re.MULTILINE)
    if not slacks:
        raise QfxError(f"{timing}: no setup slack; expected the timing summary of Quartus")
    return Synthesis(
        tool="Quartus " + _field(fit, text, r"Quartus Prime Version : (\S+)"),
        part=_field(fit, text, r"^Device : (\S+)"),
        lut=used("Logic utilization (in ALMs)"),
        ff=used("Total registers"),
        dsp=used("Total DSP Blocks") if "Total DSP Blocks" in rows else 0,
        bram18=used("Total RAM Blocks"),
        uram=0,
        period_ns=period_ns,
        slack_ns=min(float(slack) for slack in slacks),
    )


def ecp5(report: Path, tool: str, part: str, period_ns: float) -> Synthesis:
    """The JSON report of nextpnr-ecp5.

    Raises:
        QfxError: the report is missing or does not have the figures.
    """
    try:
        data = json.loads(_read(report))
        cells: Mapping[str, Mapping[str, int]] = data["utilization"]
        fmax = min(float(clock["achieved"]) for clock in data["fmax"].values())
        counts = [cells[name]["used"] for name in ("TRELLIS_COMB", "TRELLIS_FF", "MULT18X18D", "DP16KD")]
    except (KeyError, ValueError, TypeError) as error:
        raise QfxError(f"{report}: not a report of nextpnr-ecp5 ({type(error).__name__}: {error})") from error
    lut, ff, dsp, bram18 = counts
    return Synthesis(tool, part, lut, ff, dsp, bram18, 0, period_ns, period_ns - 1000 / fmax)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise QfxError(f"{path}: cannot be read ({error.strerror}); did the tool run to its end?") from error


def _field(path: Path, text: str, pattern: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise QfxError(f"{path}: nothing matches {pattern!r}; is it a report of another version of the tool?")
    return match[1]
