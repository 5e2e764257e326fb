"""The command line: fast start, errors as one message, JSON that parses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import qfx
from qfx.cli import app
from qfx.cli.samples import samples
from qfx.errors import QfxError
from qfx.formats import FixedPoint
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Cast, Input, Linear


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def small_graph() -> Graph:
    builder = GraphBuilder()
    x = builder.add(Input((3,), FixedPoint(4, 2)))
    weight = np.array([[1, -2, 3], [0, 1, 1]], dtype=np.int64)
    y = builder.add(Linear(weight, FixedPoint(4, 1), None, None), [x], "fc")
    return builder.build(builder.add(Cast(FixedPoint(5, 1)), [y], "fc"))


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.qfx"
    small_graph().save(path)
    return path


def test_help_lists_the_commands_and_imports_nothing_slow() -> None:
    program = (
        "import sys; sys.argv = ['qfx', '--help']\n"
        "from qfx.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "slow = {'torch', 'hls4ml', 'cocotb', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands = "doctor demo boards summary hls rtl sim verify cost fuzz report version"
    for command in re.findall(r"\w+", commands):
        assert f" {command} " in done.stdout


def test_version() -> None:
    versions = json.loads(run("version", "--json").stdout)
    assert versions["qfx"] == qfx.__version__
    assert f"qfx {qfx.__version__}\n" in run("version").stdout


def test_boards() -> None:
    listed = json.loads(run("boards", "--json").stdout)
    assert [board["name"] for board in listed] == list(qfx.boards.names())
    assert "xczu3eg-sbva484-1-i" in run("boards").stdout


def test_an_error_is_one_message_without_traceback(tmp_path: Path) -> None:
    result = run("summary", str(tmp_path / "absent.qfx"))
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path}/absent.qfx: no such file\n"
    assert result.stdout == ""


@pytest.mark.parametrize("where", [0, 2])
def test_debug_lets_the_traceback_through(tmp_path: Path, where: int) -> None:
    arguments = ["summary", str(tmp_path / "absent.qfx")]
    arguments.insert(where, "--debug")
    assert isinstance(run(*arguments).exception, QfxError)


def test_summary(graph_file: Path) -> None:
    assert run("summary", str(graph_file)).stdout == small_graph().summary() + "\n"
    data = json.loads(run("summary", str(graph_file), "--json").stdout)
    assert [node["op"] for node in data["nodes"]] == ["input", "linear", "cast"]
    # Codes -8..7 at the input: 1*-8 - 2*7 + 3*-8 and 1*7 + 2*8 + 3*7.
    assert (data["nodes"][1]["low"], data["nodes"][1]["high"]) == (-46, 44)
    assert (data["nodes"][1]["frac"], data["output"]) == (3, data["nodes"][2]["name"])


def test_random_samples_reach_ties_and_saturation_and_repeat() -> None:
    graph = small_graph()
    x = samples(graph, 500, seed=3)
    np.testing.assert_array_equal(x, samples(graph, 500, seed=3))
    codes = x[np.isfinite(x)] * 4
    assert x.shape == (500, 3)
    assert codes.min() < -8.5 and codes.max() > 8 and np.isinf(x).any()
    assert np.count_nonzero(codes % 1 == 0.5) > 100
    with pytest.raises(QfxError, match="0 samples"):
        samples(graph, 0, seed=3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 2)), r"float64, shape \(4, 2\); expected real numbers of shape \(samples, 3\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([[1j, 0, 0]]), "complex128"),
        (np.array([{}], dtype=object), "not a .npy file of numbers"),
    ],
)
def test_wrong_samples_are_refused(tmp_path: Path, data: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", data, allow_pickle=True)
    with pytest.raises(QfxError, match=message):
        samples(small_graph(), 4, 1, tmp_path / "x.npy")


def test_samples_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    x = samples(small_graph(), 2, 1, tmp_path / "x.npy")
    np.testing.assert_array_equal(x, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def test_wrong_options(graph_file: Path) -> None:
    result = run("hls", str(graph_file), "--io", "serial")
    assert (result.exit_code, result.stderr) == (2, "error: --io serial: not one of parallel, stream\n")
    result = run("rtl", str(graph_file), "--board", "ultra97")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: board 'ultra97' is not known.")
