"""Parallel designs: what they compute, when, and what reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import NETWORKS, Net, inputs, residual_cnn

import qfx.rtl
import qfx.sim
from qfx import FixedPoint, QfxError
from qfx.graph import Graph, GraphBuilder, ops
from qfx.graph.arrays import ReduceSum
from qfx.rtl import readback
from qfx.rtl.design import Design
from qfx.rtl.parallel import readback as parallel
from qfx.sim import verilator

SMALL = ("far_points", "element_wise")
LARGE: dict[str, Callable[[], Graph]] = {
    **{name: NETWORKS[name] for name in ("per_channel", "moves", "minimal", "one_dimension", "depthwise")},
    # A quarter of the picture and four of six channels: 200,000 look-up tables would take minutes to compile.
    "residual_cnn": lambda: residual_cnn(4, 4),
}


def mlp(seed: int) -> Graph:
    """A random multilayer perceptron: sizes, formats, modes, sparsity and shortcuts by the seed."""
    rng = np.random.default_rng(seed)
    n = Net((int(rng.integers(2, 13)),), FixedPoint(int(rng.integers(2, 8)), 3, bool(rng.integers(2))), seed)
    x = n.x
    for layer in range(int(rng.integers(1, 4))):
        weight = FixedPoint(int(rng.integers(2, 8)), int(rng.integers(0, 6)))
        codes = n.codes((int(rng.integers(1, 13)), n.channels(x)), weight)
        codes *= rng.random(codes.shape) < rng.choice([0.3, 1.0])
        bias = FixedPoint(6, int(rng.integers(0, 9))) if rng.integers(2) else None
        op = ops.Linear(codes, weight, None if bias is None else n.codes((len(codes),), bias), bias)
        y = n.add(op, x, path=f"fc{layer}")
        kind = rng.integers(4)
        if kind == 0:
            y = n.relu(y)
        elif kind == 1:
            y = n.add(ops.LeakyRelu(int(rng.integers(-5, 6)), 3), y)
        elif kind == 2:
            y = n.add(ops.Clip(int(rng.integers(-20, 1)), int(rng.integers(1, 30)), 2), y)
        rounding = str(
            rng.choice(["TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV"])
        )
        overflow = str(rng.choice(["SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM"]))
        signed = bool(rng.integers(2)) or overflow == "WRAP_SM"
        y = n.cast(y, int(rng.integers(2, 8)), int(rng.integers(-1, 4)), signed, rounding, overflow)
        same = n.channels(x) == n.channels(y)
        x = n.add(ops.Add() if rng.integers(2) else ops.Sub(), y, x) if same else y
        if rng.integers(3) == 0:
            x = n.cast(n.add(ops.Concat(), x, y), 5, 1)
    return n.build(x)


def check_simulation(graph: Graph, folder: Path, samples: int, **options: int) -> Design:
    """Generate (which reads back) and simulate, without and with stalls at both ends."""
    design = qfx.rtl.generate(graph, folder, architecture="parallel", **options)
    x = inputs(graph, samples)
    codes = graph.run_codes(x)
    result = qfx.sim.run(design, x, tap=True)
    np.testing.assert_array_equal(result.codes, codes)
    assert (result.latency, result.interval) == (design.latency, design.interval)
    assert design.interval == 1
    tensors = graph.trace(x)
    assert {stream.node for stream in result.streams} == {stream.node for stream in design.streams}
    for stream in result.streams:
        np.testing.assert_array_equal(stream.codes, tensors[stream.node], err_msg=stream.node)
    stalled = qfx.sim.run(design, x, stalls=qfx.sim.Stalls(0.4, 0.4), reset_after=7)
    np.testing.assert_array_equal(stalled.codes, codes)
    return design


@pytest.mark.parametrize("name", SMALL)
def test_networks(name: str, tmp_path: Path) -> None:
    check_simulation(NETWORKS[name](), tmp_path / "rtl", 30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", LARGE)
def test_large_networks(name: str, tmp_path: Path) -> None:
    check_simulation(LARGE[name](), tmp_path / "rtl", 30)


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_read_back(seed: int, tmp_path: Path) -> None:
    """The text itself is evaluated against the interpreter, and its registers are counted."""
    design = qfx.rtl.generate(mlp(seed), tmp_path / "rtl", architecture="parallel", levels=1 + seed % 4)
    verilator.lint(design.files, design.top)


@pytest.mark.parametrize("seed", [100, *(pytest.param(s, marks=pytest.mark.slow) for s in range(101, 125))])
def test_random_networks(seed: int, tmp_path: Path) -> None:
    check_simulation(mlp(seed), tmp_path / "rtl", 60, levels=1 + seed % 4)


@pytest.mark.parametrize("levels", [1, 2, 5, 100])
def test_levels_between_registers(levels: int, tmp_path: Path) -> None:
    graph = mlp(3)
    design = qfx.rtl.generate(graph, tmp_path / "rtl", architecture="parallel", levels=levels)
    shallow = qfx.rtl.plan(graph, architecture="parallel", levels=levels + 1)
    assert shallow.latency <= design.latency
    # One stage per layer at least, and no more than levels allow: read-back has counted them.
    layers = sum(isinstance(node.op, ops.Linear) for node in graph.nodes)
    assert design.latency >= layers
    if levels == 100:
        assert design.latency == layers


def test_input_alone(tmp_path: Path) -> None:
    n = Net((2, 3), FixedPoint(5, 1))
    assert check_simulation(n.build(n.x), tmp_path / "rtl", 5).latency == 1


def test_constant_outputs(tmp_path: Path) -> None:
    """Weights of nothing but zeros leave a bias."""
    n = Net((3,), FixedPoint(4, 2))
    zero = ops.Linear(np.zeros((2, 3), dtype=np.int64), FixedPoint(4, 2), np.array([3, -5]), FixedPoint(5, 1))
    design = qfx.rtl.generate(n.build(n.add(zero, n.x)), tmp_path / "rtl", architecture="parallel")
    assert (design.latency, design.estimate["lut"]) == (1, 0)


def test_interval_of_the_graph_is_narrower(tmp_path: Path) -> None:
    """A slope of 0 leaves no negative values, which the choice by the sign alone does not show: the stream
    between two blocks has the bits that the graph says."""
    n = Net((3,), FixedPoint(5, 2))
    x = n.add(ops.LeakyRelu(0, 0), n.x)
    graph = n.build(n.linear(x, 2, FixedPoint(4, 2)))
    assert not graph[x].tensor.format.signed
    qfx.rtl.generate(graph, tmp_path / "rtl", architecture="parallel")


def test_load_gives_the_design_back(tmp_path: Path) -> None:
    design = qfx.rtl.generate(mlp(1), tmp_path / "rtl", architecture="parallel", board="ultra96v2")
    loaded = qfx.rtl.load(tmp_path / "rtl")
    for name in (
        "architecture",
        "top",
        "streams",
        "layers",
        "latency",
        "interval",
        "files",
        "estimate",
        "verilog",
    ):
        assert getattr(loaded, name) == getattr(design, name), name
    readback.check(loaded)
    assert "interval 1 cycles" in loaded.summary()
    names = {path.name for path in (tmp_path / "rtl").iterdir()}
    scripts = {"vivado.tcl", "vivado_zynq.tcl", "clock.xdc"}
    assert names == {*design.verilog, "design.json", "graph.qfx", *scripts}


def test_same_graph_same_files(tmp_path: Path) -> None:
    a, b = (qfx.rtl.generate(mlp(2), tmp_path / name, architecture="parallel") for name in "ab")
    assert [p.read_bytes() for p in a.files] == [p.read_bytes() for p in b.files]


def test_no_multiplier_no_memory(tmp_path: Path) -> None:
    design = qfx.rtl.generate(mlp(4), tmp_path / "rtl", architecture="parallel")
    for path in design.files:
        code = re.sub(r"//[^\n]*|\(\* keep \*\)|@\(posedge \w+\)", "", path.read_text())
        assert "*" not in code


@pytest.mark.slow
def test_cost(tmp_path: Path) -> None:
    """Yosys agrees with the structure: no DSP, no memory, every register that was planned or fewer."""
    graph = mlp(5)
    design = qfx.rtl.generate(graph, tmp_path / "rtl", architecture="parallel")
    cost = qfx.cost.measure(design)
    assert (cost.dsp, cost.bram, cost.latch) == (0, 0, 0)
    assert cost.ff <= design.estimate["ff"]
    assert 0.6 < cost.lut / design.estimate["lut"] < 1.6


# -- what is refused -----------------------------------------------------------------------------------------


def _reduced() -> Graph:
    n = Net((4,), FixedPoint(4, 2))
    return n.build(n.add(ReduceSum((0,)), n.x, path="total"))


def _too_large() -> Graph:
    n = Net((8, 40, 40), FixedPoint(4, 2))
    return n.build(n.conv(n.x, 8, (3, 3), FixedPoint(4, 3), path="stage1.conv"))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (_reduced, {}, r"total \(n1_total, reduce_sum\): the parallel architecture has no reduce_sum"),
        (_too_large, {}, r"stage1\.conv .*products with nonzero weights"),
        (NETWORKS["far_points"], {"fold": {"0": {"pe": 2}}}, "nothing to fold"),
        (NETWORKS["far_points"], {"levels": 0}, "levels=0"),
        (NETWORKS["far_points"], {"levels": True}, "levels=True"),
        (NETWORKS["far_points"], {"architecture": "systolic"}, "'stream', 'parallel', 'mixed'"),
        (NETWORKS["far_points"], {"architecture": "stream", "levels": 2}, "levels: only"),
        (NETWORKS["far_points"], {"top": "1x"}, "top="),
    ],
)
def test_refused(make: Callable[[], Graph], options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.rtl.generate(make(), tmp_path / "rtl", **{"architecture": "parallel", **options})  # type: ignore[arg-type]
    assert not (tmp_path / "rtl").exists()


# -- read-back -----------------------------------------------------------------------------------------------


def _replaced(pattern: str, by: str, file: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        changed = re.sub(pattern, by, text, count=1, flags=re.MULTILINE)
        assert changed != text
        (folder / file).write_text(changed)

    return edit


TOP, FIRST = "qfx_top.v", "qfx_top_n1_fc0.v"


@pytest.mark.parametrize("whole", [False, True], ids=["lines", "pyverilog"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            _replaced(r"(wire \[\d+:0\] v\d+(_s)? = .*) \+ ", r"\1 - ", FIRST),
            "does not compute|but lies in",
        ),
        (_replaced(r"(v\d+)_r1 <= v\d+;", r"\1_r1 <= \1_r1;", FIRST), "read, but is no value"),
        (_replaced(r"(= .*)\bv(\d+)_r1\b", r"\1v\2", FIRST), "registers"),
        (
            _replaced(r"wire \[(\d+):0\] (v\d+) = (n0_input.*);", r"wire [\1:0] \2 = {1'b0, \3};", FIRST),
            "bits",
        ),
        (_replaced(r"endmodule", "    assign v0 = v0;\nendmodule", FIRST), "two drivers|not a line"),
        (_replaced(r"^    assign n\d+_\w+ = ", "    assign v0 = ", FIRST), "bits|two drivers|no output"),
        (_replaced(r"module \w+", "module other", FIRST), "holds module other"),
        (_replaced(r"output wire \[\d+:0\]", "output wire [0:0]", FIRST), "bits"),
        (_replaced(r"if \(en\) begin", "if (clk) begin", FIRST), r"enabled by en|if \(en\)"),
        (_replaced(r"\.en\(en\)", ".en(aclk)", TOP), "en is not connected"),
        (_replaced(r"_tvalid = valid\[(\d+)\]", r"_tvalid = valid[0\g<1>0]", TOP), "cycles behind"),
        (_replaced(r"\.n0_input\(\w+\)", ".n0_input(s_axis_tdata)", TOP), "has"),
        (_replaced(r"qfx_top_n1_fc0 ", "qfx_top_n9 ", TOP), "not in the design"),
        (_replaced(r"input  wire (.*) aclk", r"input  wire \1 clock", TOP), "ports"),
        (_replaced(r"endmodule", "", TOP), "pyverilog cannot read"),
    ],
)
def test_read_back_finds(
    fault: Callable[[Path], None], message: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both readers find it, each alone."""
    n = Net((5,), FixedPoint(5, 2))
    x = n.cast(n.relu(n.linear(n.x, 4, FixedPoint(5, 3), path="fc0")), 4, 0, False)
    design = qfx.rtl.generate(
        n.build(n.linear(x, 3, FixedPoint(4, 1), path="fc1")),
        tmp_path / "rtl",
        architecture="parallel",
        levels=1,
    )
    readback.check(design)
    fault(tmp_path / "rtl")
    monkeypatch.setattr(parallel, "check_lines" if whole else "check_whole", lambda *arguments: None)
    with pytest.raises(readback.ReadbackError, match=message):
        readback.check(design)


def test_wide_parts_of_a_port_that_nobody_reads(tmp_path: Path) -> None:
    """They are named in pieces that fit what reads the text back."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((80,), FixedPoint(4, 0)), path="x")
    weight = np.zeros((2, 80), dtype=np.int64)
    weight[:, [0, 70]] = [[3, 1], [-2, 5]]
    graph = builder.build(builder.add(ops.Linear(weight, FixedPoint(4, 0), None, None), [x], path="fc"))
    design = qfx.rtl.generate(graph, tmp_path / "rtl", architecture="parallel")
    values = np.random.default_rng(0).integers(-8, 8, (20, 80)).astype(float)
    np.testing.assert_array_equal(qfx.sim.run(design, values).outputs, graph.run(values))
