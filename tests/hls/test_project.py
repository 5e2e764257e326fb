"""The project on disk: what is written and what is not, the C simulation's edges, the vendor's tool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import qfx.boards
import qfx.hls
from qfx.errors import MissingToolError, QfxError
from qfx.formats.fixed import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.hls.project import Project
from qfx.hls.report import parse_report

EVIL = "a'; rm -rf $(touch /tmp/qfx_owned) \"`x`\n module ü"


def small_graph(path: str = "net.0") -> Graph:
    """A convolution of a 1x4x4 picture, ReLU, and a dense layer."""
    rng = np.random.default_rng(2)
    builder = GraphBuilder()
    x = builder.add(ops.Input((1, 4, 4), FixedPoint(6, 3)), path=path)
    weight, fmt = rng.integers(-8, 8, (2, 1, 3, 3)), FixedPoint(4, 2)
    conv = ops.Conv(weight, fmt, None, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    y = builder.add(conv, [x], path)
    y = builder.add(ops.Cast(FixedPoint(5, 1, False)), [builder.add(ops.Relu(), [y], path)], path)
    y = builder.add(ops.Reshape((8,)), [y], path)
    y = builder.add(ops.Linear(rng.integers(-8, 8, (3, 8)), fmt, None, None), [y], path)
    return builder.build(builder.add(ops.Cast(FixedPoint(7, 1)), [y], path))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("hls") / "project"
    return qfx.hls.convert(small_graph(), folder, "ultra96v2", io="stream").compile(optimize=0)


def inputs(samples: int = 20) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, 1, 4, 4)) * 3


# -- what is written ---------------------------------------------------------------------------------------


def test_board_part_and_clock(compiled: Project) -> None:
    board = qfx.boards.get("ultra96v2")
    script = (compiled.out_dir / "project.tcl").read_text()
    assert f'"{board.part}"' in script
    assert f"{board.period_ns:g}" in script
    assert "xczu3eg" in compiled.summary()


def test_clock_can_be_given(tmp_path: Path) -> None:
    project = qfx.hls.convert(small_graph(), tmp_path / "p", clock_mhz=125)
    assert "8.0" in (tmp_path / "p" / "project.tcl").read_text()
    assert "125 MHz" in project.summary()


def test_names_of_models_never_reach_the_project(tmp_path: Path) -> None:
    project = qfx.hls.convert(small_graph(EVIL), tmp_path / "p").compile(optimize=0)
    assert np.array_equal(project.predict(inputs()), project.graph.run(inputs()))
    for file in (tmp_path / "p").rglob("*"):
        if file.is_file() and "ap_types" not in file.parts:
            text = file.read_bytes()
            assert not any(part in text for part in (b"$(touch", b"rm -rf", b"`x`", "ü".encode())), file
    assert not Path("/tmp/qfx_owned").exists()


def test_own_folder_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    target = tmp_path / "p"
    qfx.hls.convert(small_graph(), target)
    (target / "stale.txt").write_text("from before")
    qfx.hls.convert(small_graph(), target, io="stream")
    assert not (target / "stale.txt").exists()
    assert os.listdir(tmp_path) == ["p"]


def test_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(QfxError, match="did not write"):
        qfx.hls.convert(small_graph(), tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(QfxError, match="not a folder"):
        qfx.hls.convert(small_graph(), tmp_path / "thesis.tex")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"io": "serial"}, "'parallel', 'stream'"),
        ({"backend": "Quartus"}, "supported.*Vitis, Vivado"),
        ({"board": "ultra69"}, "Did you mean ultra96v2"),
        ({"board": "ulx3s"}, "no HLS tool for board ulx3s"),
        ({"reuse_factor": 0}, "at least 1"),
        ({"reuse_factor": {"net.7": 2}}, "'net.7' matches no layer"),
        ({"strategy": "Magic"}, "supported: Latency, Resource"),
        ({"clock_mhz": 0}, "clock_mhz"),
        ({"clock_mhz": float("nan")}, "clock_mhz"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.hls.convert(small_graph(), tmp_path / "p", **options)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qfx.hls import build

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(build, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        qfx.hls.convert(small_graph(), tmp_path / "p")
    assert os.listdir(tmp_path) == []


# -- options of hls4ml -------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["parallel", "stream"])
def test_resource_strategy_and_reuse(io: str, tmp_path: Path) -> None:
    options = {"strategy": "Resource", "reuse_factor": {"n1_*": 3, "net.*": 4}}
    project = qfx.hls.convert(small_graph(), tmp_path / "p", io=io, **options)  # type: ignore[arg-type]
    config = (tmp_path / "p" / "firmware" / "parameters.h").read_text()
    assert "nnet::resource" in config and "reuse_factor = 4" in config
    assert any("Invalid ReuseFactor" in remark for remark in project.remarks)
    assert "note: Invalid ReuseFactor" in project.summary()
    project.compile(optimize=0)
    assert np.array_equal(project.predict(inputs()), project.graph.run(inputs()))


def test_a_remark_on_layers_too_large_to_unroll(tmp_path: Path) -> None:
    builder = GraphBuilder()
    x = builder.add(ops.Input((70,), FixedPoint(4, 1)))
    weight = np.ones((60, 70), dtype=np.int64)
    graph = builder.build(builder.add(ops.Linear(weight, FixedPoint(2, 0), None, None), [x]))
    assert "unrolls 4200 products" in qfx.hls.convert(graph, tmp_path / "p").remarks[0]
    assert qfx.hls.convert(graph, tmp_path / "p", strategy="Resource", reuse_factor=70).remarks == ()


@pytest.mark.parametrize("io", ["parallel", "stream"])
def test_vivado_backend(io: str, tmp_path: Path) -> None:
    project = qfx.hls.convert(small_graph(), tmp_path / "p", io=io, backend="Vivado").compile(optimize=0)
    assert np.array_equal(project.predict(inputs()), project.graph.run(inputs()))
    assert project.synthesis_command == ("vivado_hls", "-f", "build_prj.tcl")


# -- C simulation ------------------------------------------------------------------------------------------


def test_predict_before_compile(tmp_path: Path) -> None:
    project = qfx.hls.convert(small_graph(), tmp_path / "p")
    with pytest.raises(QfxError, match="call .compile"):
        project.predict(inputs())


def test_bad_inputs(compiled: Project) -> None:
    with pytest.raises(QfxError, match=r"\(samples, 1, 4, 4\)"):
        compiled.predict(np.zeros((2, 4, 4, 1)))
    with pytest.raises(QfxError, match="NaN"):
        compiled.predict(np.full((1, 1, 4, 4), np.nan))


def test_torch_float32_and_no_samples(compiled: Project) -> None:
    import torch

    x = inputs().astype(np.float32)
    expected = compiled.graph.run(x)
    assert np.array_equal(compiled.predict(torch.from_numpy(x)), expected)
    assert np.array_equal(compiled.predict(x), expected)
    assert compiled.predict(inputs(0)).shape == (0, 3)


def test_two_designs_in_one_process(compiled: Project, tmp_path: Path) -> None:
    """They share names of types and functions, not their state."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((1, 5, 6), FixedPoint(6, 3)))
    weight = np.ones((2, 1, 3, 3), dtype=np.int64)
    conv = ops.Conv(weight, FixedPoint(4, 2), None, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    other = builder.build(builder.add(conv, [x]))
    second = qfx.hls.convert(other, tmp_path / "p", io="stream").compile(optimize=0)
    wide = np.random.default_rng(0).normal(size=(20, 1, 5, 6))
    for _ in range(2):
        assert np.array_equal(compiled.predict(inputs()), compiled.graph.run(inputs()))
        assert np.array_equal(second.predict(wide), other.run(wide))


def test_a_fault_in_a_kernel_is_caught_and_located(tmp_path: Path) -> None:
    """RND for RND_CONV in the cast kernel: the trace names the node where the two part."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((4,), FixedPoint(6, 3)))
    y = builder.add(ops.Relu(), [builder.add(ops.Cast(FixedPoint(4, (1, 2, 0, 1))), [x], "quantizer")])
    graph = builder.build(y)
    project = qfx.hls.convert(graph, tmp_path / "p")
    header = project.out_dir / "firmware" / "nnet_utils" / "qfx_cast.h"
    fault = header.read_text().replace("up = above || (tie && bool(floor[0]));", "up = above || tie;")
    assert fault != header.read_text()
    header.write_text(fault)
    project.compile(optimize=0)
    ties = np.arange(-32, 32).reshape(16, 4) / 8
    assert not np.array_equal(project.predict(ties), graph.run(ties))
    expected = graph.trace(ties)
    different = [
        name for name, codes in project.trace(ties).items() if not np.array_equal(codes, expected[name])
    ]
    assert graph[different[0]].path == "quantizer"


def test_a_failed_assertion_is_an_error_not_the_end(tmp_path: Path) -> None:
    project = qfx.hls.convert(small_graph(), tmp_path / "p")
    source = project.out_dir / "firmware" / "qfx_top.cpp"
    source.write_text(source.read_text().replace("#pragma HLS PIPELINE", "assert(2 < 1);", 1).replace(
        "#pragma HLS DATAFLOW", "assert(2 < 1);", 1))  # fmt: skip
    project.compile(optimize=0)
    with pytest.raises(QfxError, match=r"sample 0: .*assertion failed: 2 < 1"):
        project.predict(inputs())


def test_a_compiler_error_is_reported(tmp_path: Path) -> None:
    project = qfx.hls.convert(small_graph(), tmp_path / "p")
    (project.out_dir / "firmware" / "defines.h").write_text("#error broken on purpose\n")
    with pytest.raises(QfxError, match="broken on purpose"):
        project.compile()


def test_the_vendors_test_bench_checks_every_code(compiled: Project) -> None:
    """What C simulation and co-simulation of the vendor run: passes as it is, fails on one altered code."""
    assert "csim 0" in (compiled.out_dir / "build_opt.tcl").read_text()
    folder = compiled.write_test_vectors(inputs(5))
    assert "csim 1" in (compiled.out_dir / "build_opt.tcl").read_text()
    flags = ["-std=c++11", "-O0", "-w", "-Ifirmware/ap_types"]
    program = ["firmware/qfx_top.cpp", "qfx_top_test.cpp", "-o", "build/test_bench"]
    weights = '-DWEIGHTS_DIR="firmware/weights"'
    subprocess.run(["g++", *flags, weights, *program], cwd=compiled.out_dir, check=True)
    done = subprocess.run(
        ["build/test_bench"], cwd=compiled.out_dir, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "5 frames, 0 differing outputs" in done.stdout
    expected = np.loadtxt(folder / "outputs.txt", dtype=int)
    expected[3, 1] += 1
    np.savetxt(folder / "outputs.txt", expected, fmt="%d")
    done = subprocess.run(
        ["build/test_bench"], cwd=compiled.out_dir, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "frame 3, output 1" in done.stderr


# -- the vendor's tool -------------------------------------------------------------------------------------

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<profile{namespace}>
<UserAssignments><Part>xczu3eg-sbva484-1-i</Part><TargetClockPeriod>5.00</TargetClockPeriod></UserAssignments>
<PerformanceEstimates>
<SummaryOfTimingAnalysis><unit>ns</unit><EstimatedClockPeriod>3.636</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency><Best-caseLatency>21</Best-caseLatency><Worst-caseLatency>{worst}</Worst-caseLatency>
<Interval-min>16</Interval-min><Interval-max>17</Interval-max></SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates><Resources><BRAM_18K>3</BRAM_18K><DSP>4</DSP><FF>1234</FF><LUT>5678</LUT><URAM>0</URAM></Resources>
</AreaEstimates>
</profile>
"""


def test_report(tmp_path: Path) -> None:
    file = tmp_path / "csynth.xml"
    file.write_text(REPORT.format(namespace=' xmlns="http://example.com"', worst="?"))
    report = parse_report(file)
    assert (report.lut, report.ff, report.dsp, report.bram18, report.uram) == (5678, 1234, 4, 3, 0)
    assert (report.latency_min, report.latency_max) == (21, None)
    assert (report.interval_min, report.interval_max) == (16, 17)
    assert report.estimated_mhz == pytest.approx(275.03, abs=0.01)
    file.write_text("<profile></profile>")
    with pytest.raises(QfxError, match="no UserAssignments/Part"):
        parse_report(file)
    file.write_text("not xml")
    with pytest.raises(QfxError, match="not a csynth report"):
        parse_report(file)


def test_missing_tool_says_how_to_run_elsewhere(compiled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolError, match=r"cd project && vitis-run --mode hls --tcl build_prj.tcl"):
        compiled.synthesize()
    with pytest.raises(MissingToolError, match=r"g\+\+ is not on PATH"):
        compiled.compile()


def test_synthesize_runs_the_tool_and_reads_its_report(
    compiled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the vendor's tool: checks how it is called, and writes a report where the tool does."""
    (tmp_path / "report.xml").write_text(REPORT.format(namespace="", worst="22"))
    tool = tmp_path / "vitis-run"
    tool.write_text(
        "#!/bin/sh\nset -e\n"
        '[ "$*" = "--mode hls --tcl build_prj.tcl" ]\n'
        "grep -q 'synth 1' build_opt.tcl\n"
        "mkdir -p qfx_top_prj/solution1/syn/report\n"
        f"cp {tmp_path}/report.xml qfx_top_prj/solution1/syn/report/qfx_top_csynth.xml\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    report = compiled.synthesize()
    assert (report.part, report.lut, report.latency_max) == ("xczu3eg-sbva484-1-i", 5678, 22)

    tool.write_text("#!/bin/sh\necho no licence\nexit 3\n")
    with pytest.raises(QfxError, match="exit status 3; see .*synthesis.log"):
        compiled.synthesize()
    assert "no licence" in (compiled.out_dir / "synthesis.log").read_text()

    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(QfxError, match="did not end within"):
        compiled.synthesize(timeout_s=0.2)


def test_no_report_after_synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = qfx.hls.convert(small_graph(), tmp_path / "p")
    tool = tmp_path / "vitis-run"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(QfxError, match="no csynth report"):
        project.synthesize()
    with pytest.raises(QfxError, match="write_test_vectors"):
        project.synthesize(cosim=True)
