"""`qfx sweep`, `qfx trial` and `qfx report`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qfx import QfxError
from qfx.cli import app
from qfx.cli.sweep import parse_bits, parse_goals
from qfx.formats import FixedPoint
from qfx.graph import GraphBuilder
from qfx.graph.ops import Cast, Input, Linear

pytest.importorskip("optuna", reason="needs optuna: pip install 'qfx[search]'")

OBJECTIVE = """
def objective(parameters, folder):
    if parameters["bits"] == 7:
        raise RuntimeError("seven")
    return {"score": 10 - abs(parameters["bits"] - 5), "size": parameters["bits"] * parameters["scale"]}
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an objective and a space."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OBJECTIVE)
    (tmp_path / "space.json").write_text(json.dumps({"choices": {"bits": [3, 5, 7]}}))
    (tmp_path / "name").write_text(f"{name}:objective")
    return tmp_path


def test_a_sweep_of_ones_own(folder: Path) -> None:
    objective = (folder / "name").read_text()
    common = ["--space", "space.json", "--objective", objective, "--goals", "+score,-size", "--out", "out"]
    done = run("sweep", *common, "--set", "scale=2", "--json")
    assert done.exit_code == 1  # one point fails
    found = json.loads(done.stdout)
    assert [t["metrics"] for t in found["trials"]] == [{"score": 8, "size": 6}, {"score": 10, "size": 10}, {}]
    assert found["trials"][2]["error"].startswith("RuntimeError: seven")
    assert {p.name for p in (folder / "out").iterdir()} >= {"sweep.json", "sweep.csv", "report.html"}
    again = run("sweep", "--resume", "--out", "out")
    assert again.exit_code == 1 and "2 of 3 complete, 1 failed" in again.stdout and "seven" in again.stdout
    (folder / "out" / "report.html").unlink()
    page = run("report", "out", "--figure", "front.svg", "--x", "size", "--y", "score")
    assert page.exit_code == 0 and (folder / "front.svg").read_text().startswith("<?xml")
    assert "bits=5" in (folder / "out" / "report.html").read_text()


def test_one_trial(folder: Path) -> None:
    done = run("trial", "bits=4", "scale=1.5", "--objective", (folder / "name").read_text())
    assert done.exit_code == 0 and json.loads(done.stdout) == {"score": 9, "size": 6.0}
    wrong = run("trial", "bits", "--objective", (folder / "name").read_text())
    assert wrong.exit_code == 2 and "NAME=VALUE" in wrong.stderr


def test_the_built_in_study_on_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    arguments = ["--families", "integer,khot", "--bits", "4", "--network", "mlp", "--out", tmp_path]
    done = run(
        "sweep", *arguments, "--set", "float_epochs=3", "--set", "epochs=1", "--set", "interval=64", "--json"
    )
    assert done.exit_code == 0, done.stdout
    trials = json.loads(done.stdout)["trials"]
    assert [t["notes"]["label"] for t in trials] == ["int4", "khot4k1 × int4"]
    for trial in trials:
        assert trial["metrics"]["mismatches"] == 0 and trial["metrics"]["accuracy"] > 60
        assert trial["metrics"]["lut_estimate"] > 0 and trial["metrics"]["latency"] > 0
        assert trial["metrics"]["memory_bits"] == 4 * (64 * 64 + 64 * 64 + 64 * 10) + 16 * (64 + 64 + 10)
    words = "activation=int4 data=digits epochs=1 float_epochs=3 interval=64 network=mlp weight=int4"
    assert trials[0]["notes"]["command"] == f"qfx trial {words}"
    bad = run("sweep", "--set", "epoch=1", "--out", tmp_path / "other")
    assert bad.exit_code == 2 and "parameter 'epoch' is unknown" in bad.stderr


def test_the_report_of_a_graph_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    x = builder.add(Input((4,), FixedPoint(4, 2)))
    first = Linear(rng.integers(-4, 4, (6, 4)), FixedPoint(3, 1), rng.integers(-8, 8, 6), FixedPoint(4, 2))
    hidden = builder.add(Cast(FixedPoint(4, 1, signed=False)), [builder.add(first, [x], "fc1")], "fc1")
    graph = builder.build(
        builder.add(Linear(rng.integers(-4, 4, (3, 6)), FixedPoint(3, 1), None, None), [hidden], "fc2")
    )
    graph.save(tmp_path / "network.qfx")
    done = run("report", tmp_path / "network.qfx", "--out", tmp_path / "report", "--frames", 3)
    assert done.exit_code == 0, done.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Bit-exact: RTL agrees" in page and "fc1" in page and "LUT" in page
    again = run("report", tmp_path / "report")
    assert again.exit_code == 0 and (tmp_path / "report" / "report.html").read_text() == page


def test_reports_need_something_to_report(tmp_path: Path) -> None:
    done = run("report", tmp_path)
    assert done.exit_code == 2 and "no build.json or sweep.json" in done.stderr


def test_words_are_read_exactly() -> None:
    assert parse_goals("+accuracy,-lut") == {"accuracy": "maximize", "lut": "minimize"}
    assert parse_bits("3-5,8") == (3, 4, 5, 8)
    for text in ("", "8-3", "three", "1", "40"):
        with pytest.raises(QfxError, match="--bits"):
            parse_bits(text)
    with pytest.raises(QfxError, match="--goals"):
        parse_goals("accuracy")
