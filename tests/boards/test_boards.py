"""Board files: what comes with QFX, and that a wrong file is refused with its name and key."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from qfx import boards
from qfx.errors import QfxError

GOOD = """
name = "mine"
title = "My board"
vendor = "amd"
family = "artix7"
part = "xc7a35ticsg324-1L"
clock_mhz = 100
flow = "vivado"
hls_backend = "Vitis"

[resources]
lut = 20800
lut_inputs = 6
ff = 41600
dsp = 90
bram = 50
bram_kbit = 36

[pins.clk]
site = "E3"
io = "LVCMOS33"
frequency_mhz = 100.0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_boards_that_come_with_qfx() -> None:
    assert boards.names() == ("de10-nano", "generic", "pynq-z2", "ultra96v2", "ulx3s", "zcu104")


@pytest.mark.parametrize("name", boards.names())
def test_every_board_reads_under_its_own_name(name: str) -> None:
    board = boards.get(name)
    assert board.name == name
    assert boards.get(board) is board
    assert board.period_ns * board.clock_mhz == pytest.approx(1000.0)
    assert pickle.loads(pickle.dumps(board)) == board
    assert (board.hls_backend is None) == (board.vendor == "lattice")


# From the data sheets that the files name: LUT, FF, DSP, block RAM in 18 Kbit, UltraRAM.
@pytest.mark.parametrize(
    ("name", "part", "counts"),
    [
        ("ultra96v2", "xczu3eg-sbva484-1-i", (70560, 141120, 360, 432, 0)),
        ("pynq-z2", "xc7z020clg400-1", (53200, 106400, 220, 280, 0)),
        ("zcu104", "xczu7ev-ffvc1156-2-e", (230400, 460800, 1728, 624, 96)),
        ("ulx3s", "LFE5U-85F-6BG381C", (83640, 83640, 156, 208, 0)),
        ("de10-nano", "5CSEBA6U23I7", (41910, 167640, 112, 307, 0)),
        ("generic", "xcvu13p-flga2577-2-e", (1728000, 3456000, 12288, 5376, 1280)),
    ],
)
def test_part_and_resources(name: str, part: str, counts: tuple[int, ...]) -> None:
    board = boards.get(name)
    has = board.resources
    assert board.part == part
    assert (has.lut, has.ff, has.dsp, has.bram18, has.uram) == counts


def test_a_pin_by_name() -> None:
    board = boards.get("ulx3s")
    clock = board.pin("clk")
    assert (clock.site, clock.frequency_mhz) == ("G2", board.clock_mhz)
    assert len({pin.site for pin in board.pins}) == len(board.pins)
    with pytest.raises(QfxError, match=r"board ulx3s: no pin 'reset'; the board file names: clk, "):
        board.pin("reset")


def test_a_users_own_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert boards.get(path) == boards.get(str(path))
    assert boards.get(path).resources.bram18 == 100
    assert boards.get(path).pin("clk").pull is None


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(QfxError, match=r"'ultra96' is not known\. Did you mean ultra96v2\? Known boards: d"):
        boards.get("ultra96")
    with pytest.raises(QfxError, match="not known"):
        boards.get("../boards/ulx3s")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('part = "xc7a35ticsg324-1L"', 'part = "x; exec rm"', "part: 'x; exec rm' does not have the form"),
        ('part = "xc7a35ticsg324-1L"\n', "", "part: missing"),
        ('vendor = "amd"', 'vendor = "amd"\nboard_prat = "x"', "board_prat: unknown key; known here: name,"),
        ("clock_mhz = 100", "clock_mhz = 0", "clock_mhz: 0 is not a frequency"),
        ("clock_mhz = 100", "clock_mhz = nan", "clock_mhz: nan is not a frequency"),
        ("clock_mhz = 100", "clock_mhz = true", "clock_mhz: True is not a frequency"),
        ('flow = "vivado"', 'flow = "ise"', "flow: 'ise' is not one of vivado, quartus, yosys-nextpnr-ecp5"),
        ('hls_backend = "Vitis"', 'hls_backend = "vitis"', "hls_backend: 'vitis' is not one of Vitis"),
        ("lut = 20800", "lut = 20800.5", "resources.lut: 20800.5 is not a whole number of at least 1"),
        ("dsp = 90", "dsp = -1", "resources.dsp: -1 is not a whole number"),
        ("bram_kbit = 36", "bram_kbit = 36\nbrams = 3", "resources.brams: unknown key"),
        ('site = "E3"', 'site = "E3 ]"', "pins.clk.site: 'E3 ]' does not have the form"),
        ("[pins.clk]", '[pins."c k"]', "pins.c k: the name of a pin"),
        ("[resources]", "[resource]", "resources: missing"),
        ('title = "My board"', 'title = "My\\nboard"', "title: "),
        ("clock_mhz = 100", "clock_mhz = ", "not valid TOML"),
    ],
)
def test_a_wrong_file_names_itself_and_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(QfxError) as caught:
        boards.get(path)
    assert str(caught.value).startswith(f"board file {path}: ")
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(QfxError, match="cannot be read: No such file"):
        boards.get(tmp_path / "absent.toml")
