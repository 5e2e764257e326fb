"""The commands that convert, run and measure a graph, each on a small network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qfx.cli import app
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Cast, Input, Linear, Relu


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def network() -> Graph:
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    x = builder.add(Input((4,), FixedPoint(4, 2)))
    first = Linear(rng.integers(-4, 4, (6, 4)), FixedPoint(3, 1), rng.integers(-8, 8, 6), FixedPoint(4, 2))
    hidden = builder.add(Relu(), [builder.add(first, [x], "fc1")], "relu")
    hidden = builder.add(Cast(FixedPoint(4, 1, signed=False)), [hidden], "relu")
    second = Linear(rng.integers(-4, 4, (3, 6)), FixedPoint(3, 1), None, None)
    return builder.build(builder.add(second, [hidden], "fc2"))


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "network.qfx"
    network().save(path)
    return path


def test_qonnx_there_and_back(graph_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    there, back = tmp_path / "network.ONNX", tmp_path / "again.qfx"
    assert run("convert", graph_file, "--out", there).stdout == f"{there}: 5 operators\n"
    assert run("convert", there, "--out", back).exit_code == 0
    assert back.read_bytes() == graph_file.read_bytes()
    shown = [run("summary", file, "--json").stdout for file in (graph_file, there)]
    assert shown[0] == shown[1] and json.loads(shown[0])["output"]


def test_convert_says_what_it_cannot_read(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    result = run("convert", tmp_path / "bad.onnx", "--out", tmp_path / "out.qfx")
    assert result.exit_code == 2 and "bad.onnx" in result.stderr
    assert not (tmp_path / "out.qfx").exists()


@pytest.mark.parametrize(
    ("board", "part", "period"),
    [("ultra96v2", "xczu3eg-sbva484-1-i", 5), ("zcu104", "xczu7ev-ffvc1156-2-e", 4)],
)
def test_hls_writes_a_project_for_the_board(
    graph_file: Path, tmp_path: Path, board: str, part: str, period: int
) -> None:
    out = tmp_path / "project"
    result = run("hls", graph_file, "--out", out, "--board", board)
    assert (result.exit_code, result.stdout) == (0, f"HLS project: {out}\n")
    settings = (out / "project.tcl").read_text(encoding="utf-8")
    assert part in settings
    assert f"clock_period {period}" in settings


def test_hls_synthesis_without_the_vendor_tool(
    graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    result = run("hls", graph_file, "--out", tmp_path / "project", "--synthesize")
    assert result.exit_code == 2
    assert "is not on PATH" in result.stderr


def test_verify(graph_file: Path) -> None:
    result = run("verify", graph_file, "--against", "hls", "--samples", 20, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (report["hls"]["samples"], report["hls"]["mismatches"]) == (20, 0)
    result = run("verify", graph_file, "--against", "hls,vhdl")
    assert (result.exit_code, "supported: torch, hls, rtl" in result.stderr) == (2, True)


def test_rtl(graph_file: Path, tmp_path: Path) -> None:
    facts = json.loads(run("rtl", graph_file, "--interval", 6, "--out", tmp_path / "rtl", "--json").stdout)
    assert facts["interval"] <= 6
    assert all(Path(file).is_file() for file in facts["files"])
    assert f"module {facts['top']}" in Path(facts["files"][0]).read_text(encoding="utf-8")
    result = run("rtl", graph_file, "--interval", 6, "--out", tmp_path / "rtl")
    assert f"latency {facts['latency']} cycles, interval {facts['interval']} cycles" in result.stdout


def test_rtl_of_another_architecture(graph_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "rtl"
    facts = json.loads(run("rtl", graph_file, "--architecture", "parallel", "--out", out, "--json").stdout)
    assert facts["interval"] == 1
    result = run("rtl", graph_file, "--frames-per-second", 1e6, "--board", "zcu104", "--out", out, "--json")
    assert 1 < json.loads(result.stdout)["interval"] <= 250  # at 250 MHz
    result = run("rtl", graph_file, "--architecture", "systolic", "--out", out)
    assert result.exit_code == 2 and "systolic" in result.stderr


def test_sim(graph_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "sim"
    result = run("sim", graph_file, "--frames", 12, "--interval", 6, "--out", out, "--waves", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["frames"], report["mismatches"]) == (0, 12, 0)
    assert report["latency_simulated"] == report["latency_predicted"]
    assert report["interval_simulated"] == report["interval_predicted"]
    assert (out / "simulation" / "dump.vcd").is_file()


def test_sim_notices_a_wrong_weight(
    graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of one weight turned over in the memory file: the frames differ and the exit status says so."""
    from qfx import rtl

    generate = rtl.generate

    def damaged(*arguments: object, **options: object) -> object:
        design = generate(*arguments, **options)  # type: ignore[arg-type]
        memory = next(path for path in design.files if path.suffix == ".mem" and "weight" in path.name)
        lines = memory.read_text(encoding="ascii").split("\n")
        lines[0] = f"{int(lines[0], 16) ^ 1:0{len(lines[0])}x}"
        memory.write_text("\n".join(lines), encoding="ascii")
        return design

    monkeypatch.setattr(rtl, "generate", damaged)
    result = run("sim", graph_file, "--frames", 12, "--interval", 6, "--out", tmp_path / "sim", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["mismatches"] > 0


def test_cost(graph_file: Path, tmp_path: Path) -> None:
    result = run("cost", graph_file, "--interval", 6, "--out", tmp_path / "cost", "--json")
    report = json.loads(result.stdout)
    assert report["lut"] > 0 and report["ff"] > 0 and report["latch"] == 0
    assert {"fc1", "fc2"} <= {layer["module"] for layer in report["layers"]}
    assert sum(layer["ff"] for layer in report["layers"]) >= report["ff"] // 2
    table = run("cost", graph_file, "--interval", 6, "--out", tmp_path / "cost").stdout
    assert "whole design" in table and "yosys" in table


def test_fuzz(tmp_path: Path) -> None:
    """Against torch alone, which builds nothing; tests/sim runs all implementations."""
    result = run("fuzz", "--networks", 2, "--seed", 3, "--against", "torch", "--out", tmp_path, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["networks"], report["mismatches"], report["failures"]) == (0, 2, 0, [])
    assert report["refused"] in (0, 1, 2)
    result = run("fuzz", "--architecture", "systolic")
    known = "supported are stream, parallel, mixed, both, all"
    assert (result.exit_code, known in result.stderr) == (2, True)
    result = run("fuzz", "--replay", tmp_path / "absent.case")
    assert (result.exit_code, "absent.case" in result.stderr) == (2, True)


def test_fuzz_exit_status_after_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    from qfx.sim import fuzz

    failure = {"network": 1, "found": {"rtl": "n1: code 3, expected 4"}, "file": "build/fuzz/1-1.case"}
    report = {
        "networks": 2,
        "refused": 0,
        "mismatches": 1,
        "failures": [failure],
        "refusals": {},
        "equal": {},
    }
    monkeypatch.setattr(fuzz, "run", lambda *arguments, **options: report)
    result = run("fuzz", "--networks", 2)
    assert result.exit_code == 1
    assert "2 networks, 0 refused, 1 mismatches" in result.stdout
    assert "network 1: build/fuzz/1-1.case\n    rtl: n1: code 3, expected 4" in result.stdout


def test_report(tmp_path: Path) -> None:
    result = run("report", tmp_path)
    assert (result.exit_code, "no build.json or sweep.json in it" in result.stderr) == (2, True)
