"""A case whose design takes weights from outside: a fault there is found, shrunk and replayed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import qfx.rtl
import qfx.rtl.emit
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.sim import case as cases
from qfx.sim import fuzz
from qfx.sim.case import Case
from qfx.sim.shrink import candidates, describe, shrink, size

#: Weights move on while what they are multiplied with waits, which only stalls show.
FAULT = ("if (en) w <= s1_axis_tdata;", "if (s1_axis_tvalid) w <= s1_axis_tdata;")


def network() -> Graph:
    """Two layers, the second with a bias, between casts."""
    rng = np.random.default_rng(7)
    builder = GraphBuilder()
    fmt = FixedPoint(4, 2)
    x = builder.add(ops.Input((6,), fmt), path="x")
    for path, rows, columns, bias in (("first", 4, 6, None), ("second", 3, 4, rng.integers(-8, 8, 3))):
        weight = rng.integers(-8, 8, (rows, columns))
        op = ops.Linear(weight, fmt, bias, None if bias is None else fmt)
        x = builder.add(ops.Cast(FixedPoint(6, 1)), [builder.add(op, [x], path)], f"{path}.act")
    return builder.build(x)


def case() -> Case:
    """As the fuzzer draws it: places of weights by node name, with options that the fault does not need."""
    graph = network()
    weights = {"n1_first": "lut", "n3_second": "stream"}
    x = np.random.default_rng(8).integers(-8, 8, (8, 6)) / 4
    stalls = {"input": 0.1, "output": 0.7, "weights": 0.2, "burst": 16, "seed": 3}
    return Case(
        graph,
        x,
        rtl=({"multipliers": "lut", "fold": {"n3_second": {"simd": 2}}, "weights": weights},),
        simulations=({}, {"stalls": stalls}),
    )


def streamed(case: Case) -> list[str]:
    """Nodes whose weights come in a stream, in the design that is built of the case."""
    (options,) = case.rtl
    return [k.node for k in qfx.rtl.plan(case.graph, **options).kernels if k.module == "qfx_matvec_stream"]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    folder = tmp_path / "kernels"
    shutil.copytree(qfx.rtl.emit.KERNELS, folder)
    kernel = folder / "qfx_matvec_stream.v"
    assert FAULT[0] in kernel.read_text(), "the kernel has changed: choose another fault"
    kernel.write_text(kernel.read_text().replace(*FAULT))
    return folder


def test_a_fault_of_streamed_weights_is_shrunk(tmp_path: Path) -> None:
    """To the one layer, one sample, no other option: the stream stays when the nodes around it go."""

    def fails(candidate: Case) -> str:
        nodes = [candidate.graph[name] for name in streamed(candidate)]
        weights = [node.op.weight for node in nodes if isinstance(node.op, ops.Weighted)]
        return "negative weights in a stream" if any((w < 0).any() for w in weights) else ""

    big = case()
    assert streamed(big) == ["n3_second"] and fails(big)
    small = shrink(big, fails, attempts=100)
    assert fails(small) and size(small) == (2, 1) and small.simulations == ({},)
    assert small.rtl == ({"weights": {"n3_second": "stream"}},)
    assert describe(small)["designs"] == [{"weights": {"n3_second": "stream"}}]
    small.save(tmp_path / "small.case")
    assert fails(cases.load(tmp_path / "small.case"))


def test_a_fault_of_the_kernel_is_found_and_replayed(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "streamed.case"
    case().save(path)
    read = cases.load(path)
    assert read.rtl == case().rtl and streamed(read) == ["n3_second"]
    with monkeypatch.context() as patched:
        patched.setattr(qfx.rtl.emit, "KERNELS", broken)
        assert "second.act" in cases.check(read, ("rtl",)).failed["rtl stream"]
        # With the weights inside, the same network is equal: this is no fault of the layer as such.
        assert cases.check(read.replace(rtl=({},)), ("rtl",)).equal == ("rtl stream",)
    # With the kernel as it should be, the same file shows no fault.
    report = fuzz.replay(path, against=("rtl",))
    assert report["equal"] == {"rtl stream": 1} and report["mismatches"] == report["refused"] == 0


def test_every_simpler_case_has_a_design() -> None:
    """No simplification leaves a place of weights behind for a layer that is not there any more."""
    for smaller in candidates(case()):
        (options,) = smaller.rtl
        places = options.get("weights", {})
        assert streamed(smaller) == [name for name, place in places.items() if place == "stream"]
