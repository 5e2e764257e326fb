"""The harness on a hand-written design: measured figures are right, and every kind of misbehaviour is
caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qfx.errors import QfxError
from qfx.sim.simulation import Stalls, run
from qfx.sim.verilator import SimulationError
from tests.sim.toy import BEATS, CHANNELS, HEIGHT, WIDTH, toy

SAMPLES = 6


@pytest.fixture
def x() -> np.ndarray:
    """Every code occurs, and values beyond both ends."""
    count = SAMPLES * CHANNELS * HEIGHT * WIDTH
    return (np.arange(count) * 37 % 64 - 32).reshape(SAMPLES, CHANNELS, HEIGHT, WIDTH) / 4 * 1.25


def test_outputs_cycles_and_streams(tmp_path: Path, x: np.ndarray) -> None:
    design = toy(tmp_path)
    result = run(design, x, tap=True)
    outputs, cycles = result
    assert np.array_equal(outputs, design.graph.run(x))
    assert np.array_equal(result.codes, design.graph.run_codes(x))
    # Two register stages: the first beat leaves two cycles after it came, and the design never waits.
    assert (result.first_latency, result.latency, result.interval) == (2, BEATS + 1, BEATS)
    assert cycles == SAMPLES * BEATS + 2
    assert [s.node for s in result.streams] == [n.name for n in design.graph.nodes]
    trace = design.graph.trace(x)
    for stream in result.streams:
        assert np.array_equal(stream.codes, trace[stream.node])


@pytest.mark.parametrize(
    "stalls",
    [
        Stalls(),
        Stalls(input=0.9, output=0.0, burst=16),
        Stalls(input=0.0, output=0.9, burst=1, seed=7),
        Stalls(input=0.5, output=0.5, ready_after_valid=True, seed=2**40),
    ],
)
def test_stalls_change_the_time_only(tmp_path: Path, x: np.ndarray, stalls: Stalls) -> None:
    design = toy(tmp_path)
    result = run(design, x, stalls=stalls, tap=True)
    assert np.array_equal(result.codes, design.graph.run_codes(x))
    assert result.cycles > 1.2 * (SAMPLES * BEATS + 2)
    again = run(design, x, stalls=stalls)
    assert again.cycles == result.cycles  # the seed decides the stalls
    if stalls == Stalls():
        assert run(design, x, stalls=Stalls(seed=2)).cycles != result.cycles


@pytest.mark.parametrize("reset_after", [1, 17, 40])
def test_a_reset_in_a_frame_starts_again_cleanly(tmp_path: Path, x: np.ndarray, reset_after: int) -> None:
    design = toy(tmp_path)
    result = run(design, x, reset_after=reset_after, stalls=0.2, tap=True)
    assert np.array_equal(result.codes, design.graph.run_codes(x))


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        ("hangs", {}, r"(?s)the design hangs.*19 of 72 output beats.*s_axis tvalid=1 tready=0.*n0 tvalid=0"),
        ("tlast", {}, "tlast is wrong at frame 0, beat 10"),
        ("drops_valid", {"stalls": 0.5}, "tvalid fell or tdata changed"),
        ("changes_data", {"stalls": 0.5}, "tvalid fell or tdata changed"),
        ("surplus", {}, "74 output beats for 6 frames of 12"),
        ("floods", {}, "7[3-9] output beats for 6 frames of 12"),
        ("keeps_place", {"reset_after": 20}, "tlast is wrong at frame 0"),
    ],
)
def test_misbehaviour_is_an_error(
    tmp_path: Path, x: np.ndarray, fault: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SimulationError, match=message):
        run(toy(tmp_path, fault), x, tap=True, **options)  # type: ignore[arg-type]


def test_wrong_codes_come_back_as_they_are(tmp_path: Path, x: np.ndarray) -> None:
    design = toy(tmp_path, "wrong")
    assert (run(design, x).codes != design.graph.run_codes(x)).any()


def test_the_directory_is_kept_when_asked(tmp_path: Path, x: np.ndarray) -> None:
    result = run(toy(tmp_path), x[:1], directory=tmp_path / "kept", waves=True)
    assert result.directory == tmp_path / "kept"
    assert (tmp_path / "kept" / "dump.vcd").stat().st_size > 1000
    assert result.interval is None


def test_bad_arguments(tmp_path: Path, x: np.ndarray) -> None:
    design = toy(tmp_path)
    with pytest.raises(QfxError, match=r"expected \(samples, 4, 3, 2\)"):
        run(design, x[0])
    with pytest.raises(QfxError, match="NaN"):
        run(design, np.where(x > 3, np.nan, x))
    with pytest.raises(QfxError, match="0 to below 1"):
        run(design, x, stalls=1.0)
    with pytest.raises(QfxError, match="power of two"):
        Stalls(burst=3)
