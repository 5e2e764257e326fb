"""A deliberate fault in one implementation must be found, placed, shrunk and saved; without it all are equal.

Each fault is one that a person could write: a rounding mode taken for another, an off-by-one, a lost reset.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import qfx
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.sim import case as cases
from qfx.sim.case import Case
from qfx.sim.shrink import shrink, size


def network() -> Graph:
    """A padded convolution, a cast that meets ties, a residual join, max pooling."""
    rng = np.random.default_rng(4)
    builder = GraphBuilder()
    x = builder.add(ops.Input((2, 4, 4), FixedPoint(4, 0)), path="x")
    weight = rng.integers(-8, 8, (2, 2, 3, 3))
    one, pad = (1, 1), ((1, 1), (1, 1))
    y = builder.add(ops.Conv(weight, FixedPoint(4, 2), None, None, one, pad, one, 1), [x], path="conv")
    y = builder.add(ops.Cast(FixedPoint(12, (1, 2), rounding="RND_CONV")), [y], path="act")
    y = builder.add(ops.Add(), [y, x], path="join")
    y = builder.add(ops.MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), [y], path="pool")
    return builder.build(builder.add(ops.Cast(FixedPoint(12, 1, rounding="TRN")), [y], path="out"))


def replaced(source: Path, target: Path, file: str, old: str, new: str) -> Path:
    """A copy of a folder with one piece of one file exchanged; the piece must occur."""
    shutil.copytree(source, target)
    text = (target / file).read_text()
    assert old in text, f"{file} no longer holds {old!r}: choose another fault"
    (target / file).write_text(text.replace(old, new))
    return target


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(-8, 8, (12, 2, 4, 4)).astype(float)


# What one could get wrong: file, the piece, the fault, and the module path of the first layer to show it.
RTL_FAULTS = {
    "RND for RND_CONV": ("qfx_cast.v", "half && (rest || floor[0])", "half", "act"),
    "unsigned comparison": ("qfx_pool.v", "$signed(x) > $signed(best)", "x > best", "pool"),
    "padding not zero": ("qfx_window.v", "padding ? PAD_VALUE : data", "data", "conv"),
}
HLS_FAULTS = {
    "RND for RND_CONV": ("qfx_cast.h", "tie && bool(floor[0])", "tie", "act"),
}


def break_rtl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, old: str, new: str) -> None:
    import qfx.rtl.emit

    folder = replaced(qfx.rtl.emit.KERNELS, tmp_path / "kernels", file, old, new)
    monkeypatch.setattr(qfx.rtl.emit, "KERNELS", folder)


def break_hls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, old: str, new: str) -> None:
    import qfx.hls.kernels

    folder = replaced(qfx.hls.kernels.FOLDER, tmp_path / "kernels", file, old, new)
    monkeypatch.setattr(qfx.hls.kernels, "FOLDER", folder)


def test_without_a_fault_all_are_equal(x: np.ndarray) -> None:
    report = qfx.verify(network(), x, ("hls", "rtl"), tap=True, hls={"optimize": 1})
    assert report.ok, str(report)
    assert report["rtl"].layers >= 5 and report["hls"].layers >= 3
    facts = report["rtl"].details
    assert facts["interval"] == facts["interval_predicted"] and facts["latency"] == facts["latency_predicted"]


@pytest.mark.parametrize("fault", RTL_FAULTS)
def test_a_fault_in_a_verilog_kernel_is_placed(
    fault: str, tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, old, new, path = RTL_FAULTS[fault]
    break_rtl(monkeypatch, tmp_path, file, old, new)
    comparison = qfx.verify(network(), x, ("rtl",))["rtl"]
    assert comparison.mismatches > 0
    assert comparison.first_difference is not None and comparison.first_difference.path == "out"
    assert comparison.first_layer is not None and comparison.first_layer.path == path


def test_a_lost_reset_is_caught(tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    break_rtl(monkeypatch, tmp_path, "qfx_pool.v", "if (rst) k <=", "if (rst && k == 0) k <=")
    # One of four window places is under way at a time, so some of these resets meet a count that is not 0.
    case = Case(network(), x, simulations=tuple({"reset_after": cycle} for cycle in (60, 90, 121, 150)))
    assert "rtl stream" in cases.check(case, ("rtl",)).failed


@pytest.mark.parametrize("fault", HLS_FAULTS)
def test_a_fault_in_an_hls_kernel_is_placed(
    fault: str, tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, old, new, path = HLS_FAULTS[fault]
    break_hls(monkeypatch, tmp_path, file, old, new)
    comparison = qfx.verify(network(), x, ("hls",), hls={"optimize": 1})["hls"]
    assert comparison.mismatches > 0
    assert comparison.first_layer is not None and comparison.first_layer.path == path


def test_a_failing_case_is_shrunk_saved_and_replayed(
    tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(network(), x, simulations=({},))
    with monkeypatch.context() as broken:
        break_rtl(broken, tmp_path, *RTL_FAULTS["RND for RND_CONV"][:3])

        def fails(candidate: Case) -> str:
            return cases.check(candidate, ("rtl",)).failed.get("rtl stream", "")

        assert "act" in fails(case)
        small = shrink(case, fails, attempts=12)
        assert size(small) < (4, 2)
        assert any(isinstance(node.op, ops.Cast) for node in small.graph.nodes)
        small.save(tmp_path / "small.case")
        assert fails(cases.load(tmp_path / "small.case"))
    # With the kernel as it should be, the same file shows no fault.
    from qfx.sim import fuzz

    report = fuzz.replay(tmp_path / "small.case", against=("rtl",))
    assert (report["networks"], report["mismatches"], report["refused"]) == (1, 0, 0)
