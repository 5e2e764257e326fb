"""Layers of a stream design as blocks of adders: by name, and where the solver finds them cheaper."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import NETWORKS, Net, inputs

import qfx.rtl
import qfx.sim
from qfx import FixedPoint, QfxError
from qfx.formats import KHot
from qfx.graph import Graph, ops
from qfx.rtl import estimate, readback
from qfx.rtl.lower import lower
from qfx.rtl.parallel import unrolled
from qfx.rtl.readback import ReadbackError
from qfx.rtl.stages import MatVec
from qfx.sim import verilator


def network() -> Graph:
    """A padded window, a window of one pixel, a bias, weights of few digits, a shift that all weights share,
    and a layer behind a flatten."""
    n = Net((2, 5, 6), FixedPoint(4, 2))
    x = n.cast(
        n.relu(n.conv(n.x, 4, (3, 3), FixedPoint(4, 3), padding=((1, 1), (0, 1)), path="c1")), 4, 1, False
    )
    codes = n.codes((3, 4, 1, 1), FixedPoint(4, 3)) * 2
    point = ops.Conv(
        codes,
        FixedPoint(5, 3),
        n.codes((3,), FixedPoint(4, 2)),
        FixedPoint(4, 2),
        (1, 1),
        ((0, 0),) * 2,
        (1, 1),
        1,
    )
    x = n.cast(n.add(point, x, path="c2"), 4, 1)
    x = n.add(ops.Reshape((int(np.prod(n.builder.tensor(x).shape)),)), x)
    weight = KHot(6, 2, 2).quantize(n.rng.normal(0, 3, (5, n.channels(x))))
    fc = ops.Linear(
        np.ldexp(weight, 2).astype(np.int64), FixedPoint(6, 2), None, None, weight_encoding=KHot(6, 2, 2)
    )
    return n.build(n.add(fc, x, path="fc"))


def check(graph: Graph, folder: Path, **options: object) -> qfx.rtl.design.Design:
    design = qfx.rtl.generate(graph, folder, **options)  # type: ignore[arg-type]
    verilator.lint([file for file in design.files if file.suffix == ".v"], design.top)
    x = inputs(graph, 12)
    result = qfx.sim.run(design, x, tap=True)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    assert (result.latency, result.interval) == (design.latency, design.interval)
    stalled = qfx.sim.run(design, x, stalls=qfx.sim.Stalls(0.4, 0.4), reset_after=50)
    np.testing.assert_array_equal(stalled.codes, result.codes)
    return design


def test_layers_by_name(tmp_path: Path) -> None:
    graph = network()
    fc = next(node.name for node in graph.nodes if node.path == "fc")
    by = {"c1": "parallel", "c2": "parallel", fc: "parallel"}
    design = check(graph, tmp_path / "rtl", architecture=by)
    blocks = [kernel for kernel in design.kernels if kernel.files]
    assert [design.graph[kernel.node].path for kernel in blocks] == ["c1", "c2", "fc"]
    assert "qfx_matvec" not in design.modules
    names = {path.name for path in (tmp_path / "rtl").iterdir()}
    graphs = {"graph.qfx", *(f"{kernel.module}.qfx" for kernel in blocks)}
    assert names == {*design.verilog, *(m.file for m in design.memories), "design.json", *graphs}
    assert "unrolled" in design.summary()

    loaded = qfx.rtl.load(tmp_path / "rtl")
    assert [(k.name, k.latency, k.files) for k in loaded.kernels] == [
        (k.name, k.latency, k.files) for k in design.kernels
    ]
    readback.check(loaded)
    assert qfx.rtl.timing.simulate(loaded, 1).latency == design.latency


def test_blocks_of_a_loaded_design_are_read_back(tmp_path: Path) -> None:
    """As those of a design that was just written: parsed, and computed on vectors of the interpreter."""
    n = Net((4, 3, 3), FixedPoint(4, 2))
    graph = n.build(n.cast(n.conv(n.x, 3, (1, 1), FixedPoint(4, 3), path="c"), 6, 2))
    design = qfx.rtl.generate(graph, tmp_path / "rtl", architecture={"c": "parallel"})
    loaded = qfx.rtl.load(tmp_path / "rtl")
    (kernel,) = (k for k in loaded.kernels if k.files)
    (written,) = (k for k in design.kernels if k.files)
    assert kernel.nested is not None and written.nested is not None
    assert kernel.nested.texts == written.nested.texts
    assert estimate.total(loaded.kernels) == estimate.total(design.kernels)
    readback.check(loaded)
    changed = 0
    for name in kernel.files[1:]:
        path = tmp_path / "rtl" / name
        text = path.read_text()
        for old, new in ((" + ", " - "), (" - ", " + ")):
            if old in text:
                changed += 1
                path.write_text(text.replace(old, new, 1))
                with pytest.raises(ReadbackError, match=path.name):
                    readback.check(loaded)
        path.write_text(text)
    assert changed
    readback.check(loaded)
    # A design of an older QFX has nothing but the text of the block.
    manifest = tmp_path / "rtl" / "design.json"
    data = json.loads(manifest.read_text())
    for entry in data["kernels"]:
        del entry["nested"]
    manifest.write_text(json.dumps(data))
    old = qfx.rtl.load(tmp_path / "rtl")
    assert all(k.nested is None for k in old.kernels)
    readback.check(old)


@pytest.mark.slow
def test_one_layer_and_levels(tmp_path: Path) -> None:
    graph = network()
    deep = check(graph, tmp_path / "a", architecture={"c1": "parallel", "fc": "stream"}, levels=1)
    flat = check(graph, tmp_path / "b", architecture={"c1": "parallel"}, levels=8, interval=deep.interval)
    latencies = [next(k.latency for k in d.kernels if k.files) for d in (deep, flat)]
    assert latencies[0] > latencies[1] == 1


def test_the_solver_takes_the_cheaper() -> None:
    """A matrix of few digits costs less as adders than the multipliers that keep up with the target."""
    n = Net((4, 6, 6), FixedPoint(6, 2))
    weight = np.random.default_rng(0).choice([-4, -1, 0, 0, 1, 2], (4, 4, 1, 1))
    op = ops.Conv(weight, FixedPoint(4, 3), None, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    graph = n.build(n.add(op, n.x, path="c"))
    stream = qfx.rtl.plan(graph, interval=36)
    design = qfx.rtl.plan(graph, architecture="mixed", interval=36)
    assert any(kernel.files for kernel in design.kernels) and design.interval == 36
    assert design.estimate["lut"] < stream.estimate["lut"]
    # Many digits, and time for one product after the other: a multiplier and a memory are less.
    n = Net((32,), FixedPoint(6, 2))
    slow = qfx.rtl.plan(n.build(n.linear(n.x, 32, FixedPoint(6, 2))), architecture="mixed", interval=4000)
    assert not any(kernel.files for kernel in slow.kernels)


def test_estimate_of_a_candidate() -> None:
    """What the solver weighs is near what is built."""
    graph = network()
    for stage in lower(graph, adders=[node.name for node in graph.nodes]).stages:
        if isinstance(stage, MatVec):
            before, built = unrolled.kernel(stage, 3, None).nested, unrolled.kernel(stage, 3, "top").nested
            assert before is not None and built is not None
            assert 0.5 < before.lut / built.lut < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": {"c9": "parallel"}}, r"'c9' is no linear or conv; layers: .*\(c1\)"),
        ({"architecture": {"c1": "systolic"}}, "'systolic'; supported: stream, parallel"),
        ({"architecture": {"c1": "parallel"}, "fold": {"c1": {"pe": 2}}}, "nothing to fold"),
        ({"architecture": {"c1": "parallel"}, "levels": 0}, "levels=0"),
        ({"architecture": {"c1": "parallel"}, "interval": 20}, "cannot be reached"),
    ],
)
def test_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.rtl.plan(network(), **options)  # type: ignore[arg-type]


def test_groups_are_refused() -> None:
    graph = NETWORKS["depthwise"]()
    depthwise = next(n for n in graph.nodes if isinstance(n.op, ops.Conv) and n.op.groups > 1)
    with pytest.raises(QfxError, match='cannot be "parallel" within a stream design'):
        qfx.rtl.plan(graph, architecture={depthwise.name: "parallel"})


@pytest.mark.parametrize(
    ("file", "pattern", "by", "message"),
    [
        (
            "n1_c1_unrolled.v",
            r"input  wire \[\d+:0\] s_axis_tdata",
            "input  wire [1:0] s_axis_tdata",
            "width of",
        ),
        ("n1_c1_unrolled.v", r"output wire m_axis_tvalid", "output wire m_axis_valid", "ports"),
        ("n1_c1_n1_\\w+.v", r"(= v\d+ )\+|(\}\}, v\d+\} )\+", r"\g<0>-", "block|expected|not|compute|lies"),
        ("n1_c1.v", r"_tvalid = valid\[(\d+)\]", r"_tvalid = valid[0\g<1>0]", "cycles behind"),
    ],
)
def test_read_back_finds(
    file: str, pattern: str, by: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = qfx.rtl.generate(network(), tmp_path / "rtl", architecture={"c1": "parallel"})
    (path,) = (p for p in (tmp_path / "rtl").iterdir() if re.fullmatch(f"qfx_top_{file}", p.name))
    text = path.read_text()
    changed = re.sub(pattern, by, text, count=1)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(readback.ReadbackError, match=message):
        readback.check(design)
