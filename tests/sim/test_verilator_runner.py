"""The runner itself: a failure of any kind must never look like a pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cocotb_tools.config
import pytest

from qfx.errors import MissingToolError, QfxError
from qfx.sim import verilator

COUNTER = """
module qfx_counter #(parameter WIDTH = 4, parameter START = "") (
    input wire clk, input wire rst, output reg [WIDTH-1:0] q
);
  reg [WIDTH-1:0] first [0:0];
  initial $readmemh(START, first);
  always @(posedge clk) if (rst) q <= first[0]; else q <= q + 1'b1;
endmodule
"""

TESTS = """
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

async def count(dut, steps):
    Clock(dut.clk, 2, "ns").start()
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    for _ in range(steps + 1):
        await RisingEdge(dut.clk)
    return int(dut.q.value)

@cocotb.test()
async def counts(dut):
    assert await count(dut, 5) == (0xA5 + 5) % 2 ** len(dut.q)

@cocotb.test()
async def fails(dut):
    assert await count(dut, 5) == 0, "this test is wrong on purpose"
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "qfx_counter.v").write_text(COUNTER)
    (tmp_path / "bench_counter.py").write_text(TESTS)
    (tmp_path / "start.hex").write_text("a5\n")
    return tmp_path


def simulate(bench: Path, **options: object) -> verilator.Results:
    arguments: dict[str, object] = {
        "parameters": {"WIDTH": 8, "START": "start.hex"},
        "python_path": [bench],
        "data_files": [bench / "start.hex"],
        "test_dir": bench / "run",
        **options,
    }
    return verilator.simulate([bench / "qfx_counter.v"], "qfx_counter", "bench_counter", **arguments)  # type: ignore[arg-type]


def test_parameters_strings_and_memory_files_reach_the_design(bench: Path) -> None:
    results = simulate(bench, testcase="counts")
    assert results.passed == ("counts",)
    assert results.test_dir == bench / "run"


def test_a_cached_simulator_outlives_the_environment_that_built_it(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is shared by virtual environments; the one that built a simulator may have been removed."""
    monkeypatch.setenv("QFX_CACHE", str(bench / "cache"))
    built = verilator.build(
        [bench / "qfx_counter.v"], "qfx_counter", parameters={"WIDTH": 8, "START": "start.hex"}
    )
    program = built.executable.read_bytes()
    libraries = str(cocotb_tools.config.libs_dir).encode()
    assert libraries in program
    built.executable.write_bytes(program.replace(libraries, b"/" + b"x" * (len(libraries) - 1)))
    results = simulate(bench, testcase="counts")
    assert results.passed == ("counts",)
    assert verilator.build(
        [bench / "qfx_counter.v"], "qfx_counter", parameters={"WIDTH": 8, "START": "start.hex"}
    ).cached


def test_the_kept_library_outlives_the_environment_that_compiled_it(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QFX_CACHE", str(bench / "cache"))
    source = [bench / "qfx_counter.v"]
    verilator.build(source, "qfx_counter", parameters={"WIDTH": 8})
    (library,) = (bench / "cache/verilator").glob("runtime-*")
    assert {path.suffix for path in library.iterdir()} == {".o"}
    # What make writes of dependencies names files of a virtual environment, and was kept once.
    (library / "verilated.d").write_text("verilated.o: /nowhere/verilated.cpp\n")
    assert not verilator.build(source, "qfx_counter", parameters={"WIDTH": 9}).cached


def test_a_failing_test_is_an_error_that_names_it(bench: Path) -> None:
    with pytest.raises(verilator.SimulationError, match="fails: .*wrong on purpose"):
        simulate(bench)


def test_no_test_is_an_error(bench: Path) -> None:
    with pytest.raises(verilator.SimulationError, match="no test ran"):
        simulate(bench, testcase="absent")


def test_a_missing_test_module_is_an_error(bench: Path) -> None:
    built = verilator.build(
        [bench / "qfx_counter.v"], "qfx_counter", parameters={"WIDTH": 8, "START": "start.hex"}
    )
    with pytest.raises(verilator.SimulationError, match="bench_absent"):
        verilator.run(built, "bench_absent", test_dir=bench / "run")


def test_a_build_error_shows_the_line(bench: Path) -> None:
    (bench / "broken.v").write_text(
        "module qfx_broken(input wire a, output wire b);\n  assign b = ;\nendmodule\n"
    )
    with pytest.raises(verilator.SimulationError, match=r"broken\.v:2"):
        verilator.build([bench / "broken.v"], "qfx_broken")


def test_a_width_warning_fails_the_build(bench: Path) -> None:
    (bench / "wide.v").write_text(
        "module qfx_wide(input wire [3:0] a, output wire [7:0] b);\n  assign b = a;\nendmodule\n"
    )
    with pytest.raises(verilator.SimulationError, match="WIDTH"):
        verilator.build([bench / "wide.v"], "qfx_wide")
    with pytest.raises(verilator.SimulationError, match="WIDTH"):
        verilator.lint([bench / "wide.v"], "qfx_wide")


def test_a_hanging_simulation_is_stopped(bench: Path) -> None:
    (bench / "bench_hangs.py").write_text(
        "import cocotb, time\n@cocotb.test()\nasync def hangs(dut):\n    time.sleep(60)\n"
    )
    built = verilator.build(
        [bench / "qfx_counter.v"], "qfx_counter", parameters={"WIDTH": 8, "START": "start.hex"}
    )
    with pytest.raises(verilator.SimulationError, match="stopped after 3 s"):
        verilator.run(
            built,
            "bench_hangs",
            test_dir=bench / "run",
            python_path=[bench],
            timeout_s=3,
            data_files=[bench / "start.hex"],
        )


def test_missing_files_and_programs_are_named(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QfxError, match=r"absent\.v: Verilog source not found"):
        verilator.build([bench / "absent.v"], "qfx_absent")
    monkeypatch.setenv("PATH", str(bench))
    with pytest.raises(MissingToolError, match="perl, make, g\\+\\+.*apt-get install perl make g\\+\\+"):
        verilator.build([bench / "qfx_counter.v"], "qfx_counter")


def test_the_cache_follows_the_content(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bench / "qfx_counter.v"
    first = verilator.build([source], "qfx_counter", parameters={"WIDTH": 8})
    assert verilator.build([source], "qfx_counter", parameters={"WIDTH": 8}).cached
    assert verilator.build([source], "qfx_counter", parameters={"WIDTH": 9}).key != first.key
    source.write_text(COUNTER.replace("q + 1'b1", "q + 1'b0"))
    assert verilator.build([source], "qfx_counter", parameters={"WIDTH": 8}).key != first.key


BUILD = """
import sys
from qfx.sim import verilator
print(verilator.build([sys.argv[1]], "qfx_counter", parameters={"WIDTH": 12}).cached)
"""


def test_two_processes_build_once(bench: Path) -> None:
    source = bench / "qfx_counter.v"
    source.write_text(
        COUNTER + f"// {bench}\n"
    )  # a key that no earlier run of this test has left in the cache
    command = [sys.executable, "-c", BUILD, str(source)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=120)[0].strip() for process in processes) == ["False", "True"]
