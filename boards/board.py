"""Board files: what is in one, and reading it strictly.

A board file is TOML. Every value ends up in scripts for vendor tools, so each is checked against a pattern or
a list, and unknown keys are refused: a misspelt `board_prat` must not be ignored in silence.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from qfx.errors import QfxError

FLOWS = ("vivado", "quartus", "yosys-nextpnr-ecp5")
"""Tool chains that turn the Verilog of a design into a bitstream."""

HLS_BACKENDS = ("Vitis", "Vivado", "Quartus", "Catapult", "oneAPI", "Libero")
"""hls4ml's names of its backends."""

_FOLDER = Path(__file__).resolve().parent
_PULLS = ("none", "up", "down")
_NAME = r"[a-z0-9][a-z0-9-]*"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class Resources:
    """What the device of a board offers, from its data sheet."""

    lut: int
    """Look-up tables of `lut_inputs` inputs."""
    lut_inputs: int
    ff: int
    dsp: int
    """Multiplier blocks: DSP48E1, DSP48E2, MULT18X18D."""
    bram: int
    """Block RAMs of `bram_kbit` Kbit each (36 on AMD parts: one block is two halves of 18)."""
    bram_kbit: int
    uram: int = 0
    """UltraRAMs of 288 Kbit."""

    @property
    def bram18(self) -> int:
        """Block RAM capacity in units of 18 Kbit, the unit that RAMB18 and ECP5's EBR have."""
        return self.bram * self.bram_kbit // 18


@dataclass(frozen=True)
class Pin:
    """One pin of the device that the board wires to something."""

    name: str
    """What it is wired to: letters, digits, `_`."""
    site: str
    """The package's name of the pin."""
    io: str
    """I/O standard."""
    pull: str | None = None
    frequency_mhz: float | None = None


@dataclass(frozen=True)
class Board:
    """A board, or a bare device, that designs are built for."""

    name: str
    title: str
    vendor: str
    family: str
    part: str
    """Full part number with package and speed grade, as the vendor's tool takes it."""
    clock_mhz: float
    """Default clock of an accelerator on this board."""
    flow: str
    """Tool chain from Verilog to bitstream, one of `FLOWS`."""
    resources: Resources
    board_part: str | None = None
    """Vivado's board definition, where one exists."""
    hls_backend: str | None = None
    """hls4ml's backend for this device; None: there is no HLS tool for it."""
    pins: tuple[Pin, ...] = ()
    """Pins in the order of the file; none where the accelerator talks to a processor on the same chip."""

    @property
    def period_ns(self) -> float:
        """Clock period in nanoseconds."""
        return 1000.0 / self.clock_mhz

    def pin(self, name: str) -> Pin:
        """The pin of that name; `QfxError` when the board file has none."""
        for pin in self.pins:
            if pin.name == name:
                return pin
        known = ", ".join(pin.name for pin in self.pins) or "none"
        raise QfxError(f"board {self.name}: no pin {name!r}; the board file names: {known}")


def names() -> tuple[str, ...]:
    """Names of the boards that come with QFX, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def get(board: str | os.PathLike[str] | Board) -> Board:
    """The board of that name, or the one described by a TOML file.

    Args:
        board: a name out of `names()`, a path (anything that ends in `.toml`), or a `Board`, which comes back
            as it is.

    Raises:
        QfxError: no such board, or the file breaks a rule; the message names the file and the key.
    """
    if isinstance(board, Board):
        return board
    if isinstance(board, os.PathLike) or board.endswith(".toml"):
        return _read(Path(board))
    if board not in names():
        close = get_close_matches(board, names(), n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise QfxError(
            f"board {board!r} is not known.{hint} Known boards: {', '.join(names())}; for another one give "
            "the path of a TOML file (docs/boards.md says what is in it)"
        )
    return _read(_FOLDER / f"{board}.toml")


def _read(path: Path) -> Board:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QfxError(f"board file {path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QfxError(f"board file {path}: not valid TOML: {error}") from error
    top = _Table(path, "", data)
    board = Board(
        name=top.text("name", _NAME),
        title=top.text("title", r"[^\x00-\x1f\x7f]+"),
        vendor=top.text("vendor", _NAME),
        family=top.text("family", _NAME),
        part=top.text("part", _WORD),
        board_part=top.optional_text("board_part", r"[A-Za-z0-9._:-]+"),
        clock_mhz=top.positive("clock_mhz"),
        flow=top.choice("flow", FLOWS),
        hls_backend=top.choice("hls_backend", HLS_BACKENDS) if "hls_backend" in data else None,
        resources=_resources(top.table("resources")),
        pins=_pins(top.table("pins")) if "pins" in data else (),
    )
    top.close()
    return board


def _resources(table: _Table) -> Resources:
    resources = Resources(
        lut=table.count("lut", low=1),
        lut_inputs=table.count("lut_inputs", low=3),
        ff=table.count("ff", low=1),
        dsp=table.count("dsp"),
        bram=table.count("bram"),
        bram_kbit=table.count("bram_kbit", low=1),
        uram=table.count("uram") if "uram" in table.data else 0,
    )
    table.close()
    return resources


def _pins(table: _Table) -> tuple[Pin, ...]:
    pins = []
    for name in table.data:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            table.fail(name, "the name of a pin is made of lower-case letters, digits and _")
        entry = table.table(name)
        pin = Pin(
            name=name,
            site=entry.text("site", r"[A-Z]{1,2}[0-9]{1,2}"),
            io=entry.text("io", r"[A-Z0-9_]+"),
            pull=entry.choice("pull", _PULLS) if "pull" in entry.data else None,
            frequency_mhz=entry.positive("frequency_mhz") if "frequency_mhz" in entry.data else None,
        )
        entry.close()
        pins.append(pin)
    return tuple(pins)


class _Table:
    """One TOML table being read: every key is asked for once, `close` refuses what nobody asked for."""

    def __init__(self, path: Path, prefix: str, data: dict[str, Any]) -> None:
        self.path, self.prefix, self.data = path, prefix, data
        self.asked: list[str] = []

    def fail(self, key: str, what: str) -> NoReturn:
        raise QfxError(f"board file {self.path}: {self.prefix}{key}: {what}")

    def value(self, key: str) -> Any:
        self.asked.append(key)
        if key not in self.data:
            self.fail(key, "missing")
        return self.data[key]

    def text(self, key: str, pattern: str) -> str:
        value = self.value(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self.fail(key, f"{value!r} does not have the form {pattern}")
        return str(value)

    def optional_text(self, key: str, pattern: str) -> str | None:
        return self.text(key, pattern) if key in self.data else None

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.value(key)
        if value not in choices:
            self.fail(key, f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    def positive(self, key: str) -> float:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e5:
            self.fail(key, f"{value!r} is not a frequency in MHz")
        return float(value)

    def count(self, key: str, low: int = 0) -> int:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            self.fail(key, f"{value!r} is not a whole number of at least {low}")
        return int(value)

    def table(self, key: str) -> _Table:
        value = self.value(key)
        if not isinstance(value, dict):
            self.fail(key, f"{value!r} is not a table")
        return _Table(self.path, f"{self.prefix}{key}.", value)

    def close(self) -> None:
        extra = [key for key in self.data if key not in self.asked]
        if extra:
            self.fail(extra[0], f"unknown key; known here: {', '.join(self.asked)}")
