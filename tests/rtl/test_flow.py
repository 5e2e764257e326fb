"""Vendor tools: scripts that an interpreter of Tcl reads, reports, and runs of stand-ins for the tools."""

from __future__ import annotations

import json
import os
import sys
import tkinter
from collections.abc import Callable
from pathlib import Path

import pytest
from rtl_networks import NETWORKS
from typer.testing import CliRunner

import qfx.rtl
from qfx import QfxError, boards
from qfx.cli.app import app
from qfx.rtl import flow, reports

UTILIZATION = """\
Copyright
------------------------------------------------------------------------------------------
| Tool Version : Vivado v.2023.2 (lin64) Build 4029153 Fri Oct 13 20:13:54 MDT 2023
| Command      : report_utilization -file vivado/utilization.txt
| Design       : qfx_top
| Device       : xczu7ev-ffvc1156-2-e
| Speed File   : -2
| Design State : Routed
------------------------------------------------------------------------------------------

1. CLB Logic
------------

+----------------------------+------+-------+------------+-----------+-------+
|          Site Type         | Used | Fixed | Prohibited | Available | Util% |
+----------------------------+------+-------+------------+-----------+-------+
| CLB LUTs                   | 4711 |     0 |          0 |    230400 |  2.04 |
|   LUT as Logic             | 4500 |     0 |          0 |    230400 |  1.95 |
|   LUT as Memory            |  211 |     0 |          0 |    101760 |  0.21 |
| CLB Registers              | 5120 |     0 |          0 |    460800 |  1.11 |
| CARRY8                     |  300 |     0 |          0 |     28800 |  1.04 |
+----------------------------+------+-------+------------+-----------+-------+


3. BLOCKRAM
-----------

+-------------------+------+-------+------------+-----------+-------+
|     Site Type     | Used | Fixed | Prohibited | Available | Util% |
+-------------------+------+-------+------------+-----------+-------+
| Block RAM Tile    | 12.5 |     0 |          0 |       312 |  4.01 |
|   RAMB36/FIFO*    |    9 |     0 |          0 |       312 |  2.88 |
|   RAMB18          |    7 |     0 |          0 |       624 |  1.12 |
| URAM              |    2 |     0 |          0 |        96 |  2.08 |
+-------------------+------+-------+------------+-----------+-------+


4. ARITHMETIC
-------------

+----------------+------+-------+------------+-----------+-------+
|    Site Type   | Used | Fixed | Prohibited | Available | Util% |
+----------------+------+-------+------------+-----------+-------+
| DSPs           |   16 |     0 |          0 |      1728 |  0.93 |
|   DSP48E2 only |   16 |       |            |           |       |
+----------------+------+-------+------------+-----------+-------+
"""

TIMING = """\
------------------------------------------------------------------------------------------------
| Design Timing Summary
| ---------------------
------------------------------------------------------------------------------------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)
    -------      -------  ---------------------  -------------------      -------      -------
     -0.250       -3.125                     40                12345        0.031        0.000

"""

FIT = """\
Fitter Status : Successful - Sun Nov 22 11:00:00 2026
Quartus Prime Version : 23.1std.0 Build 991 11/28/2023 SC Lite Edition
Revision Name : qfx_top
Top-level Entity Name : qfx_top
Family : Cyclone V
Device : 5CSEBA6U23I7
Timing Models : Final
Logic utilization (in ALMs) : 3,456 / 41,910 ( 8 % )
Total registers : 6789
Total pins : 1 / 314 ( < 1 % )
Total virtual pins : 75
Total block memory bits : 81,920 / 5,662,720 ( 1 % )
Total RAM Blocks : 8 / 553 ( 1 % )
Total DSP Blocks : 4 / 112 ( 4 % )
"""

STA = """\
------------------------------------------------------------
Timing Analyzer Summary
------------------------------------------------------------

Type  : Slow 1100mV 100C Model Setup 'aclk'
Slack : 1.750
TNS   : 0.000

Type  : Slow 1100mV 100C Model Hold 'aclk'
Slack : 0.150
TNS   : 0.000

Type  : Slow 1100mV -40C Model Setup 'aclk'
Slack : 1.500
TNS   : 0.000

------------------------------------------------------------
"""


# -- reports -------------------------------------------------------------------------------------------------


def written(folder: Path, **texts: str) -> dict[str, Path]:
    paths = {name: folder / name for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    return paths


def test_vivado_reports(tmp_path: Path) -> None:
    files = written(tmp_path, utilization=UTILIZATION, timing=TIMING)
    found = reports.vivado(files["utilization"], files["timing"], 4.0)
    assert found == reports.Synthesis(
        "Vivado 2023.2", "xczu7ev-ffvc1156-2-e", 4711, 5120, 16, 25, 2, 4.0, -0.25
    )
    assert not found.meets_timing
    assert found.fmax_mhz == pytest.approx(1000 / 4.25)
    # 7-series: other names, no UltraRAM.
    older = UTILIZATION.replace("CLB LUTs ", "Slice LUTs*").replace("CLB Reg", "Slice Reg")
    older = older.replace("| URAM ", "| RAMB ")
    files = written(tmp_path, utilization=older, timing=TIMING.replace("-0.250", " 0.250"))
    found = reports.vivado(files["utilization"], files["timing"], 4.0)
    assert (found.lut, found.ff, found.uram, found.meets_timing) == (4711, 5120, 0, True)


def test_quartus_reports(tmp_path: Path) -> None:
    files = written(tmp_path, fit=FIT, sta=STA)
    found = reports.quartus(files["fit"], files["sta"], 10.0)
    assert found == reports.Synthesis("Quartus 23.1std.0", "5CSEBA6U23I7", 3456, 6789, 4, 8, 0, 10.0, 1.5)
    assert found.fmax_mhz == pytest.approx(1000 / 8.5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda u, t: (u.replace("| CLB LUTs ", "| LUTs "), t), "no row CLB LUTs or Slice LUTs"),
        (lambda u, t: (u.replace("Block RAM Tile", "BRAM"), t), "no row Block RAM Tile"),
        (lambda u, t: (u.replace("Tool Version", "Version"), t), "another version of the tool"),
        (lambda u, t: (u, t.replace("WNS(ns)", "WNS")), r"no table with WNS\(ns\)"),
        (lambda u, t: (u, t.replace("-0.250", "NA")), "WNS is 'NA': no path is constrained"),
        (lambda u, t: (u, t[: t.index("-0.250")]), "WNS is ''"),
    ],
)
def test_damaged_vivado_reports_are_refused(
    tmp_path: Path, damage: Callable[[str, str], tuple[str, str]], message: str
) -> None:
    utilization, timing = damage(UTILIZATION, TIMING)
    files = written(tmp_path, utilization=utilization, timing=timing)
    with pytest.raises(QfxError, match=message):
        reports.vivado(files["utilization"], files["timing"], 4.0)


def test_missing_figures_of_other_tools_are_refused(tmp_path: Path) -> None:
    files = written(tmp_path, fit=FIT.replace("Total registers", "Registers"), sta=STA, json='{"fmax": {}}')
    with pytest.raises(QfxError, match="no line 'Total registers'"):
        reports.quartus(files["fit"], files["sta"], 10.0)
    with pytest.raises(QfxError, match="no setup slack"):
        reports.quartus(written(tmp_path, fit=FIT)["fit"], files["fit"], 10.0)
    with pytest.raises(QfxError, match="not a report of nextpnr-ecp5"):
        reports.ecp5(files["json"], "nextpnr", "part", 10.0)
    with pytest.raises(QfxError, match="did the tool run to its end"):
        reports.ecp5(tmp_path / "nothing", "nextpnr", "part", 10.0)


# -- scripts -------------------------------------------------------------------------------------------------


def calls(script: str, folder: Path) -> list[tuple[str, ...]]:
    """The commands that a script gives to its tool, as Tcl has taken it apart."""
    interpreter = tkinter.Tcl()
    seen: list[tuple[str, ...]] = []
    path = folder / "script.tcl"
    path.write_text(script)
    interpreter.createcommand("record", lambda *words: seen.append(words) or "1")  # type: ignore[func-returns-value]
    interpreter.eval("proc unknown {args} { return [record {*}$args] }")
    interpreter.eval(f"source {{{path}}}")
    return seen


def test_tcl_takes_words_as_they_are() -> None:
    interpreter = tkinter.Tcl()
    for text in ("plain", "a b", "$x", "[exit 1]", "a;exit", "a{b", 'a"b', "back\\slash", "#no", "ü"):
        assert interpreter.eval(f"set word {flow.tcl(text)}") == text
    for text in ("a\nb", "", "\x00"):
        with pytest.raises(QfxError, match="cannot be part of a Tcl script"):
            flow.tcl(text)


def test_vivado_script_gives_vivado_what_it_should(tmp_path: Path) -> None:
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="zcu104")
    done = {words[0]: words[1:] for words in calls((tmp_path / "rtl/vivado.tcl").read_text(), tmp_path)}
    assert tuple(done["read_verilog"][0].split()) == design.verilog
    assert set(done["read_mem"][0].split()) == {memory.file for memory in design.memories}
    assert done["synth_design"][:4] == ("-top", "qfx_top", "-part", "xczu7ev-ffvc1156-2-e")
    assert done["report_timing_summary"] == ("-file", "vivado/timing.txt")


@pytest.mark.parametrize("board", ["zcu104", "pynq-z2"])
def test_zynq_script_connects_every_stream(tmp_path: Path, board: str) -> None:
    graph = NETWORKS["minimal"]()
    design = qfx.rtl.generate(graph, tmp_path / "rtl", board=board, weights={"fc": "stream"})
    seen = calls((tmp_path / "rtl/vivado_zynq.tcl").read_text(), tmp_path)
    assert ("create_project", "-force", "qfx_top", "zynq", "-part", boards.get(board).part) in seen
    files = next(words for words in seen if words[:2] == ("add_files", "-norecurse"))[2].split()
    # All that the netlist is made of; not the weights that come from outside.
    assert set(files) == {path.name for path in design.files} - {"n5_fc_weights.mem"}
    ends = [words[1] for words in seen if words[0] == "get_bd_intf_pins"]
    wanted = {"accelerator/s_axis", "accelerator/m_axis", "accelerator/s_axis_n5_fc_weights"}
    assert {end for end in ends if end.startswith("accelerator/")} == wanted
    created = {words[-1] for words in seen if words[0] == "create_bd_cell"}
    assert {"dma", "narrow", "widen", "dma_n5_fc_weights", "narrow_n5_fc_weights"} <= created
    masters = {words for words in seen if words[0] == "apply_bd_automation"}
    assert len(masters) >= 3
    assert not (tmp_path / "rtl" / "vivado_zynq.tcl").read_text().count("\t")


def test_only_zynq_boards_have_a_processor(tmp_path: Path) -> None:
    qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="generic", interval=600)
    assert not (tmp_path / "rtl/vivado_zynq.tcl").exists()


def test_quartus_project(tmp_path: Path) -> None:
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="de10-nano", top="accel")
    seen = calls((tmp_path / "rtl/accel.qsf").read_text(), tmp_path)
    assert ("set_global_assignment", "-name", "DEVICE", "5CSEBA6U23I7") in seen
    verilog = [words[3] for words in seen if words[2] == "VERILOG_FILE"]
    assert tuple(verilog) == design.verilog
    assert ("set_global_assignment", "-name", "SDC_FILE", "accel.sdc") in seen
    clock = calls((tmp_path / "rtl/accel.sdc").read_text(), tmp_path)
    assert ("create_clock", "-name", "aclk", "-period", "10.000", "1") in clock


# -- running the tools ---------------------------------------------------------------------------------------


def stand_in(folder: Path, name: str, files: dict[str, str], status: int = 0) -> None:
    """A program of that name that writes what the tool would write."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"for name, text in {files!r}.items():\n"
        "    path = pathlib.Path(name)\n"
        "    path.parent.mkdir(exist_ok=True)\n"
        "    path.write_text(text)\n"
        "pathlib.Path('arguments').write_text(' '.join(sys.argv[1:]))\n"
        "print('what the tool says')\n"
        f"sys.exit({status})\n"
    )
    path.chmod(0o755)


def test_synthesize_runs_vivado(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="zcu104")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(QfxError, match=r"zcu104: needs vivado, which is not on PATH; .*script is vivado.tcl"):
        design.synthesize()
    files = {"vivado/utilization.txt": UTILIZATION, "vivado/timing.txt": TIMING}
    stand_in(tmp_path / "bin", "vivado", files)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin:/bin")
    found = design.synthesize()
    assert (found.lut, found.slack_ns, found.period_ns) == (4711, -0.25, 4.0)
    assert (tmp_path / "rtl/arguments").read_text() == "-mode batch -source vivado.tcl"
    stand_in(tmp_path / "bin", "vivado", {}, status=3)
    with pytest.raises(QfxError, match="exit status 3\nwhat the tool says"):
        design.synthesize()


def test_synthesize_runs_quartus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", interval=600)
    with pytest.raises(QfxError, match="the design has no board"):
        design.synthesize()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(QfxError, match="needs quartus_sh, which is not on PATH"):
        design.synthesize("de10-nano")
    files = {"output_files/qfx_top.fit.summary": FIT, "output_files/qfx_top.sta.summary": STA}
    stand_in(tmp_path / "bin", "quartus_sh", files)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin:/bin")
    assert design.synthesize("de10-nano").lut == 3456
    assert (tmp_path / "rtl/arguments").read_text() == "--flow compile qfx_top"


def test_a_plan_cannot_be_synthesized() -> None:
    design = qfx.rtl.plan(NETWORKS["minimal"](), board="zcu104")
    with pytest.raises(QfxError, match="not written yet"):
        design.synthesize()


def test_ecp5_report_of_a_run(tmp_path: Path) -> None:
    data = {
        "fmax": {"$glbnet$aclk$TRELLIS_IO_IN": {"achieved": 80.0, "constraint": 25.0}},
        "utilization": {
            name: {"used": used, "available": 1000}
            for name, used in (("TRELLIS_COMB", 900), ("TRELLIS_FF", 800), ("MULT18X18D", 2), ("DP16KD", 3))
        },
    }
    files = written(tmp_path, report=json.dumps(data))
    found = reports.ecp5(files["report"], "nextpnr", "LFE5U-85F-6BG381C", 40.0)
    assert (found.lut, found.ff, found.dsp, found.bram18) == (900, 800, 2, 3)
    assert found.fmax_mhz == pytest.approx(80.0)
    assert found.slack_ns == pytest.approx(27.5)


@pytest.mark.slow
def test_synthesize_for_ecp5(tmp_path: Path) -> None:
    """From the graph to a routed design and its figures, with tools that pip installs."""
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="ulx3s", interval=600)
    found = design.synthesize()
    assert found.meets_timing and found.part == "LFE5U-85F-6BG381C"
    assert 0.3 < found.lut / design.estimate["lut"] < 3


def test_the_command_line_prints_what_the_tool_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NETWORKS["minimal"]().save(tmp_path / "net.qfx")
    stand_in(tmp_path / "bin", "vivado", {"vivado/utilization.txt": UTILIZATION, "vivado/timing.txt": TIMING})
    arguments = ["rtl", str(tmp_path / "net.qfx"), "--board", "zcu104", "--out", str(tmp_path / "rtl")]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    missing = CliRunner().invoke(app, [*arguments, "--synthesize"])
    assert missing.exit_code != 0 and "needs vivado" in missing.stderr.replace("\n", " ")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin:/bin")
    result = CliRunner().invoke(app, [*arguments, "--synthesize", "--json"])
    found = json.loads(result.stdout)["synthesis"]
    assert (found["tool"], found["lut"], found["bram18"]) == ("Vivado 2023.2", 4711, 25)
    assert (found["fmax_mhz"], found["meets_timing"]) == (235.3, False)
