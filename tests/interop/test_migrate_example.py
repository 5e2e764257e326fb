"""The migration example, on one epoch."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import qfx

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "migrate_brevitas.py"


def test_the_migration_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT))["main"](epochs=1, out=tmp_path)
    assert "torch  360 samples: equal" in capsys.readouterr().out
    saved, written = qfx.load(tmp_path / "network.qfx"), qfx.from_qonnx(tmp_path / "network.onnx")
    assert [node.name for node in saved.nodes] == [node.name for node in written.nodes]
    assert list((tmp_path / "rtl").rglob("*.v"))


def test_the_example_is_short() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 80
