"""A top module with one instance of a kernel per case: one build serves a whole sweep.

Instance `i` has a reset of its own and two vectors, so that the bench writes and reads once per cycle:
`i<i>_in` = {data and valid of each input (the first highest), ready of each output (the last highest)},
`i<i>_out` = {m_axis_tdata, tready of each input, tvalid of each output} (the first lowest)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernel_cases import Case

KERNEL_DIR = Path(__file__).resolve().parents[3] / "rtl" / "kernels"
# Only what the bench drives is visible to it: the rest is optimized as in a synthesis.
VISIBLE = "/* verilator public_flat_rw */"
SOURCES = sorted(KERNEL_DIR.glob("*.v"))


def literal(value: int | str, bits: int = 32) -> str:
    """A parameter value in Verilog."""
    if isinstance(value, str):
        return f'"{value}"'
    if value < 0:
        return f"-{-value}"
    return str(value) if value < 2**31 else f"{max(bits, value.bit_length())}'h{value:x}"


def instance(case: Case, name: str, files: dict[str, str]) -> str:
    """The parameter list and instance name of a case; `files` are names of memory files by parameter."""
    values = {**case.parameters, **files}
    inner = ", ".join(f".{key}({literal(value)})" for key, value in values.items())
    return f"{case.kernel} #({inner}) {name}"


def wrapper(cases: Sequence[Case], top: str) -> str:
    """Verilog text of the top module."""
    ports, body = ["input wire clk"], []
    for i, case in enumerate(cases):
        inputs = len(case.input_bits)
        in_bits = sum(case.input_bits) + inputs + case.outputs
        out_bits = case.output_bits + inputs + case.outputs
        ports += [
            f"input wire i{i}_rst",
            f"input wire [{in_bits - 1}:0] i{i}_in",
            f"output wire [{out_bits - 1}:0] i{i}_out",
        ]
        connections = [".clk(clk)", f".rst(i{i}_rst)"]
        position = in_bits
        for s, bits in enumerate(case.input_bits):
            prefix = "s_axis" if inputs == 1 else f"s{s}_axis"
            position -= bits
            connections.append(f".{prefix}_tdata(i{i}_in[{position} +: {bits}])")
            position -= 1
            connections.append(f".{prefix}_tvalid(i{i}_in[{position}])")
            connections.append(f".{prefix}_tready(i{i}_out[{case.outputs + s}])")
        connections.append(f".m_axis_tready(i{i}_in[{case.outputs - 1}:0])")
        connections.append(f".m_axis_tvalid(i{i}_out[{case.outputs - 1}:0])")
        connections.append(f".m_axis_tdata(i{i}_out[{out_bits - 1}:{case.outputs + inputs}])")
        body.append(
            f"  {instance(case, f'i{i}', file_names(case, i))} (\n    "
            + ",\n    ".join(connections)
            + "\n  );"
        )
    return (
        f"module {top} (\n  "
        + ",\n  ".join(f"{port} {VISIBLE}" for port in ports)
        + "\n);\n"
        + "\n".join(body)
        + "\nendmodule\n"
    )


def file_names(case: Case, index: int) -> dict[str, str]:
    """Names of the memory files of a case."""
    return {parameter: f"{case.kernel}_{index}_{parameter.lower()}.mem" for parameter in case.files}


def write_files(case: Case, index: int, directory: Path) -> list[Path]:
    """Write the memory files of a case; returns their paths."""
    paths = []
    for parameter, name in file_names(case, index).items():
        bits, words = case.files[parameter]
        path = directory / name
        path.write_text("".join(f"{word:0{(bits + 3) // 4}x}\n" for word in words))
        paths.append(path)
    return paths
