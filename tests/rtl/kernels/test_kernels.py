"""Every kernel in simulation: cycle-exact against its timing model, bit-exact against golden arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_cases import KERNELS, cases
from kernel_wrapper import SOURCES, wrapper, write_files

from qfx.sim import verilator

HERE = Path(__file__).parent


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(kernel: str, tmp_path: Path) -> None:
    sweep = cases(kernel)
    top = f"{kernel}_sweep"
    source = tmp_path / f"{top}.v"
    source.write_text(wrapper(sweep, top))
    files = [path for i, case in enumerate(sweep) for path in write_files(case, i, tmp_path)]
    built = verilator.build([source, *SOURCES], top, public=False)
    results = verilator.run(
        built,
        "kernel_bench",
        test_dir=tmp_path / "run",
        data_files=files,
        env={"QFX_KERNEL": kernel},
        python_path=[HERE],
    )
    assert len(results.passed) == len(sweep)
