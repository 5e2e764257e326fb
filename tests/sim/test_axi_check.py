"""The cocotbext-axi testbench on a hand-written design: it passes the right one and catches the faulty
ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qfx.sim import check_axi
from qfx.sim.axi_check import TESTS
from qfx.sim.verilator import SimulationError
from tests.sim.toy import CHANNELS, HEIGHT, WIDTH, toy


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(-5, 5, (3, CHANNELS, HEIGHT, WIDTH))


def test_all_three_tests_run_and_pass(tmp_path: Path, x: np.ndarray) -> None:
    assert check_axi(toy(tmp_path), x).passed == TESTS


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("tlast", "tlast after 11 bytes, not 12"),
        ("keeps_place", "reset_in_a_frame: .*tlast after"),
        ("wrong", r"back_to_back: frame 1: byte \d+ is"),
    ],
)
def test_faults_are_caught(tmp_path: Path, x: np.ndarray, fault: str, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        check_axi(toy(tmp_path, fault), x)
