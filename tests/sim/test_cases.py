"""What the fuzzer once found, kept as the files that it saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from qfx.sim import fuzz

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_that_once_failed(path: Path) -> None:
    report = fuzz.replay(path)
    assert report["mismatches"] == 0 and report["refused"] == 0, report["failures"]


def test_there_are_cases() -> None:
    assert len(CASES) >= 3
