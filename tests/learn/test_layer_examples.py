"""The examples of layers run, on little data, and their networks are exact."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_an_example_learns_and_is_exact(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 80
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.main(epochs=4, samples=600)
    assert result["mismatches"] == 0
    assert result["frozen"] > 0.2  # a tenth would be chance
    assert "0 mismatches" in capsys.readouterr().out
