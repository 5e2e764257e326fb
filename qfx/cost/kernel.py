"""A Verilog module with its sources and parameters: the smallest thing that has a cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qfx.errors import QfxError

# Also keeps everything that goes into a Yosys script or a Verilog wrapper to plain words.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Kernel:
    """A Verilog module to be measured.

    Args:
        top: name of the module.
        files: its Verilog sources and those of all modules below it.
        parameters: values for parameters of ``top``: integers (beyond 32 bits they become unsigned vectors),
            booleans or strings.
        data_files: what ``$readmemh`` reads; found by its bare file name.
    """

    top: str
    files: Sequence[Path | str]
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    data_files: Sequence[Path | str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(Path(f) for f in self.files))
        object.__setattr__(self, "data_files", tuple(Path(f) for f in self.data_files))
        object.__setattr__(self, "parameters", dict(self.parameters))
        for what, name in [("module", self.top), *(("parameter", name) for name in self.parameters)]:
            if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
                raise QfxError(f"cost: {what} name {name!r} is not a plain Verilog identifier")
        if not self.files:
            raise QfxError(f"cost of {self.top}: no Verilog files given")
        for path in (*self.paths, *self.data_paths):
            if not path.is_file():
                raise QfxError(f"cost of {self.top}: file {path} not found")
        names = [path.name for path in self.data_paths]
        for name in names:
            if not _FILE_NAME.fullmatch(name):
                raise QfxError(
                    f"cost of {self.top}: data file name {name!r} has characters other than "
                    "letters, digits, _ . + -"
                )
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise QfxError(
                f"cost of {self.top}: several data files are named {', '.join(doubled)}; "
                "$readmemh finds one only"
            )
        for name, value in self.parameters.items():
            if not isinstance(value, int | str):
                raise QfxError(
                    f"cost of {self.top}: parameter {name} = {value!r} is neither an integer nor a string"
                )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The Verilog sources."""
        return tuple(Path(f) for f in self.files)

    @property
    def data_paths(self) -> tuple[Path, ...]:
        """The memory files."""
        return tuple(Path(f) for f in self.data_files)

    def wrapper(self, name: str) -> str:
        """Verilog of a module ``name`` that instantiates the kernel with its parameters.

        A tool's own way of setting parameters loses the sign of an integer or the quotes of a string; an
        instance does not.
        """
        values = ", ".join(f".{key}({verilog_literal(value)})" for key, value in self.parameters.items())
        return f"module {name};\n  {self.top}{f' #({values})' if values else ''} kernel ();\nendmodule\n"


def verilog_literal(value: int | str) -> str:
    """A parameter value as Verilog text."""
    if isinstance(value, str):
        if not value.isascii() or not value.isprintable():
            raise QfxError(f"cost: parameter value {value!r} holds characters that a Verilog string cannot")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    value = int(value)
    if -(2**31) <= value < 2**31:
        return str(value)
    if value < 0:
        raise QfxError(f"cost: parameter value {value} does not fit a 32-bit Verilog integer")
    return f"{value.bit_length()}'h{value:x}"
