"""What is measured: names, parameters and files, before any tool runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from qfx.cost import Kernel, measure
from qfx.cost.kernel import verilog_literal
from qfx.cost.result import count, unknown
from qfx.errors import QfxError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.v"
    path.write_text("module m; endmodule\n")
    return path


def test_parameters_become_verilog() -> None:
    assert verilog_literal(-3) == "-3"
    assert verilog_literal(2**31 - 1) == "2147483647"
    assert verilog_literal(2**40 + 1) == "41'h10000000001"
    assert verilog_literal(True) == "1"
    assert verilog_literal('a"b\\c') == '"a\\"b\\\\c"'
    for bad in (-(2**31) - 1, "line\nbreak", "ü"):
        with pytest.raises(QfxError, match="parameter value"):
            verilog_literal(bad)


@pytest.mark.parametrize("name", ["a b", "a;b", "1a", "", "a'; rm -rf $(x)", "a\nb", "\\a "])
def test_names_are_identifiers(name: str, source: Path) -> None:
    with pytest.raises(QfxError, match="not a plain Verilog identifier"):
        Kernel(name, [source])
    with pytest.raises(QfxError, match="not a plain Verilog identifier"):
        Kernel("m", [source], {name: 1})


def test_files_are_there_and_have_plain_names(source: Path, tmp_path: Path) -> None:
    with pytest.raises(QfxError, match="no Verilog files given"):
        Kernel("m", [])
    with pytest.raises(QfxError, match=r"absent\.v not found"):
        Kernel("m", [tmp_path / "absent.v"])
    strange = tmp_path / "a;b.mem"
    strange.write_text("0\n")
    with pytest.raises(QfxError, match="data file name 'a;b.mem'"):
        Kernel("m", [source], data_files=[strange])
    (tmp_path / "other").mkdir()
    twins = [tmp_path / "w.mem", tmp_path / "other" / "w.mem"]
    for path in twins:
        path.write_text("0\n")
    with pytest.raises(QfxError, match=r"several data files are named w\.mem"):
        Kernel("m", [source], data_files=twins)
    with pytest.raises(QfxError, match=r"parameter P = 1\.5 is neither"):
        Kernel("m", [source], {"P": 1.5})  # type: ignore[dict-item]


def test_what_cannot_be_measured_is_refused(source: Path) -> None:
    with pytest.raises(QfxError, match="cannot measure int"):
        measure(3)
    with pytest.raises(QfxError, match="unknown family 'max10'; supported: xc7"):
        measure(Kernel("m", [source]), family="max10")


def test_cells_become_resources() -> None:
    cells = {
        "LUT1": 1,
        "LUT4": 2,
        "LUT6": 3,
        "RAM64M": 2,
        "RAM32X1D": 1,
        "SRL16E": 5,
        "FDRE": 7,
        "FDSE": 1,
        "CARRY4": 4,
        "CARRY8": 1,
        "DSP48E1": 2,
        "RAMB36E1": 3,
        "RAMB18E1": 1,
        "MUXF7": 2,
        "LDCE": 1,
        "BUFG": 1,
    }
    assert count(cells) == {
        "lut": 6 + 15,
        "lutram": 4 * 2 + 2 + 5,
        "ff": 8,
        "carry": 6,
        "dsp": 2,
        "bram": 3.5,
        "bram36": 3,
        "bram18": 1,
        "latch": 1,
        "muxf": 2,
    }
    assert unknown(cells) == []
    assert unknown({"LUT6": 1, "ALTSYNCRAM": 1}) == ["ALTSYNCRAM"]
