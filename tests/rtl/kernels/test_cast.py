"""qfx_cast: all seven rounding and five overflow modes, all codes of narrow words and random wide ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_cast import sweep, wrapper
from kernel_wrapper import SOURCES

from qfx.sim import verilator

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "name",
    ["4 bits", "wide", *(pytest.param(n, marks=pytest.mark.slow) for n in ("1 bit", "5 bits", "8 bits"))],
)
def test_cast(name: str, tmp_path: Path) -> None:
    top = "qfx_cast_sweep"
    source = tmp_path / f"{top}.v"
    source.write_text(wrapper(sweep(name), top))
    sources = [path for path in SOURCES if path.stem in ("qfx_cast", "qfx_extend")]
    built = verilator.build([source, *sources], top, public=False)
    results = verilator.run(
        built, "kernel_cast_bench", test_dir=tmp_path / "run", env={"QFX_SWEEP": name}, python_path=[HERE]
    )
    assert results.passed
