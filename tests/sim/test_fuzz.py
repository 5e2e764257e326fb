"""The fuzzer as a whole: networks four ways, the report, saved cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qfx.errors import QfxError
from qfx.sim import case as cases
from qfx.sim import fuzz
from qfx.sim.case import check


def test_four_ways_on_a_few_networks(tmp_path: Path) -> None:
    report = fuzz.run(4, seed=5, jobs=1, out_dir=tmp_path, progress=False)
    assert json.loads(json.dumps(report)) == report
    assert {key: report[key] for key in ("networks", "refused", "mismatches", "failures")} == {
        "networks": 4,
        "refused": 0,
        "mismatches": 0,
        "failures": [],
    }
    assert report["operators"]["input"] == 4
    assert list(tmp_path.iterdir()) == []


def test_a_network_is_the_same_every_time_and_survives_its_file(tmp_path: Path) -> None:
    for index in (6, 7):  # a torch module and an integer graph
        one, two = fuzz.draw(5, index), fuzz.draw(5, index)
        assert one.graph.summary() == two.graph.summary()
        assert np.array_equal(one.x, two.x) and (one.hls, one.rtl, one.simulations) == (
            two.hls,
            two.rtl,
            two.simulations,
        )
        one.save(tmp_path / "one.case")
        read = cases.load(tmp_path / "one.case")
        assert read.graph.summary() == one.graph.summary()
        assert np.array_equal(read.graph.run_codes(read.x), one.graph.run_codes(one.x))
        assert (read.module, read.hls, read.rtl, read.simulations) == (
            one.module,
            one.hls,
            one.rtl,
            one.simulations,
        )
        # The torch model is built again from the file alone.
        assert check(read, ("torch",)).equal == (("torch",) if index == 6 else ("reference",))


def test_designs_of_a_network() -> None:
    """One for each architecture that is asked for and that the network has, with options of its own."""
    every = fuzz.draw(5, 7, architectures=fuzz.ARCHITECTURES)
    kinds = [cases.architecture(options) for options in every.rtl]
    assert kinds == sorted(set(kinds), key=fuzz.ARCHITECTURES.index) and "parallel" in kinds
    for kind in kinds:
        assert fuzz.draw(5, 7, architectures=(kind,)).rtl == every.designs(kind).rtl
    drawn = [fuzz.draw(5, index, architectures=("mixed",)) for index in range(8, 14)]
    named = [options["architecture"] for case in drawn for options in case.rtl]
    assert named and all(set(by.values()) == {"parallel"} for by in named)


def test_a_failure_names_the_implementation_and_a_crash_is_one() -> None:
    case = fuzz.draw(5, 7)
    outcome = check(case.replace(rtl=({"fold": {"no_such_layer": {"pe": 1}}},)), ("torch", "rtl"))
    assert outcome.equal == ("reference",)
    assert set(outcome.failed) == {"rtl stream"} and "no_such_layer" in outcome.failed["rtl stream"]


def test_bad_arguments_and_files(tmp_path: Path) -> None:
    with pytest.raises(QfxError, match="supported: at least 1 network"):
        fuzz.run(0, against=("rtl",), progress=False)
    with pytest.raises(QfxError, match="supported: stream, parallel, mixed"):
        fuzz.run(1, against=("rtl",), architectures=("systolic",), progress=False)
    with pytest.raises(QfxError, match="against torch, hls, rtl"):
        fuzz.run(1, against=("verilog",), progress=False)
    with pytest.raises(QfxError, match="not a fuzz case"):
        fuzz.replay(tmp_path / "absent.case")
    (tmp_path / "broken.case").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(QfxError, match="not a fuzz case"):
        fuzz.replay(tmp_path / "broken.case")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, 200, 20))
def test_two_hundred_networks(first: int, tmp_path: Path) -> None:
    """Twenty at a time, so that workers share them and a failure is not hours away."""
    report = fuzz.run(20, seed=1, first=first, jobs=1, out_dir=tmp_path, progress=False)
    assert report["mismatches"] == 0, json.dumps(report["failures"], indent=1)
    assert report["refused"] <= 1, json.dumps(report["refusals"], indent=1)
