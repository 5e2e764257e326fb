"""Builds as JSON: everything comes back, and nothing else is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qfx import report
from qfx.errors import QfxError
from tests.report.example import full_build


@pytest.fixture(scope="module")
def build() -> report.Build:
    return full_build(1)


def test_a_build_comes_back_from_its_file(build: report.Build, tmp_path: Path) -> None:
    build.save(tmp_path / "deep" / "build.json")
    assert report.from_json(tmp_path / "deep" / "build.json") == build
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["build.json"]


def test_a_build_with_nothing_in_it_comes_back(tmp_path: Path) -> None:
    empty = report.Build("t", "c")
    empty.save(tmp_path / "build.json")
    assert report.from_json(tmp_path / "build.json") == empty


def test_numpy_numbers_become_plain_ones(tmp_path: Path) -> None:
    build = report.Build("t", "c", accuracy={"float": np.float32(98.5)}, seconds={"train": np.float64(1.5)})
    build.save(tmp_path / "build.json")
    assert report.from_json(tmp_path / "build.json").accuracy == {"float": 98.5}


def test_the_summary_has_the_promised_keys(build: report.Build) -> None:
    summary = build.summary()
    assert summary["accuracy"] == {"float": 98.61, "ptq": 91.11, "learned": 97.78}
    assert summary["verify"] == {
        "torch": {"samples": 360, "mismatches": 0},
        "hls": {"samples": 360, "mismatches": 0},
        "rtl": {"samples": 64, "mismatches": 0},
    }
    assert summary["cycles"] == {
        "interval_predicted": 576,
        "interval_simulated": 576.0,
        "latency_predicted": 1312,
        "latency_simulated": 1312,
    }
    assert list(summary["resources"]) == ["lut", "ff", "carry", "dsp", "bram"]
    assert summary["mac_cost"][1] == {"format": "E2M1", "lut": 46, "ff": 22, "dsp": 0, "accumulator_bits": 22}
    assert set(summary) - {"accuracy", "verify", "cycles", "resources", "mac_cost"} == {"seconds", "versions"}
    assert json.loads(json.dumps(summary)) == summary


def test_what_was_not_done_is_null_in_the_summary() -> None:
    summary = report.Build("t", "c").summary()
    assert (summary["cycles"], summary["resources"], summary["verify"]) == (None, None, {})


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("format"), 'expected an object with "format": "qfx-build"'),
        (lambda d: d.update(version=2), "version 2; this QFX reads version 1"),
        (lambda d: d.pop("title"), "build: 'title' is missing"),
        (lambda d: d.update(titel="x"), "build: unknown key 'titel'"),
        (lambda d: d.update(title=3), r"build\.title: expected text, found 3"),
        (lambda d: d.update(layers={}), r"build\.layers: expected a list"),
        (
            lambda d: d["layers"][2].update(lut="many"),
            r"build\.layers\[2\]\.lut: expected an integer, found 'many'",
        ),
        (
            lambda d: d["layers"][2].update(lut=1.5),
            r"build\.layers\[2\]\.lut: expected an integer, found 1\.5",
        ),
        (lambda d: d["layers"][0].update(lut=True), "expected an integer, found True"),
        (
            lambda d: d["accuracy"].update(ptq=None),
            r"build\.accuracy\['ptq'\]: expected a number, found None",
        ),
        (lambda d: d["board"].pop("clock_mhz"), r"build\.board: 'clock_mhz' is missing"),
        (lambda d: d["points"][0].update(frozen=1), "expected true or false"),
        (lambda d: d.update(verify=["x" * 99]), r"build\.verify\[0\]: expected an object, found 'x+\.\.\."),
    ],
)
def test_a_damaged_build_is_refused_by_place(
    build: report.Build, tmp_path: Path, change: Change, message: str
) -> None:
    data = json.loads(json.dumps(build.to_dict()))
    change(data)
    (tmp_path / "b.json").write_text(json.dumps(data))
    with pytest.raises(QfxError, match=message) as error:
        report.from_json(tmp_path / "b.json")
    assert str(tmp_path / "b.json") in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"format": "qfx-build", "version": 1, "title": NaN}', "not JSON .*NaN is not a JSON number"),
        ("[]", "not a build"),
        ('{"accuracy": {"float": 98}, "verify": {}}', r"summary\.json holds the results only"),
        ("[" * 100000, "not JSON"),
    ],
)
def test_a_file_that_is_no_build_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(QfxError, match=message):
        report.from_json(tmp_path / "b.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QfxError, match="none.json: cannot be read .*No such file"):
        report.from_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("accuracy", {"float": float("nan")}, r"build\.accuracy\['float'\] is nan"),
        ("seconds", {"train": float("inf")}, r"build\.seconds\['train'\] is inf"),
        ("accuracy_samples", 3.5, r"build\.accuracy_samples: expected an integer"),
        ("files", {"graph": Path("x")}, r"build\.files\['graph'\] is PosixPath"),
    ],
)
def test_a_build_that_could_not_be_read_is_not_written(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    build = replace(report.Build("t", "c"), **{field: value})
    with pytest.raises(QfxError, match=message):
        build.save(tmp_path / "b.json")
    assert not list(tmp_path.iterdir())


def test_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        report.write(report.Build("t", "c"), tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
