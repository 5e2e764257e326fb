"""What a multiply-accumulate kernel costs in each number format, integers of the same size beside it.

    python benchmarks/mac_cost.py [--json] [--n 4608] [--fmax]

Kernels of `rtl/mac`, synthesised by Yosys for 7-series primitives; multipliers from look-up tables unless a
column says DSP. Prints a table, or JSON with `--json` or into a file or pipe.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from qfx.cost.mac import DOT_PRODUCT, FORMATS, mac_table
from qfx.environment import machine, versions
from qfx.formats import Minifloat

# More look-up tables than the same-size integer, in percent: "Shedding the Bits", arXiv 2311.12359v3, and its
# companion.
PUBLISHED_PERCENT = {"sum": (20, 180), "cast": (60, 300)}
COLUMNS = {
    "format": "format",
    "accumulator_bits": "acc. bits",
    "accumulator_bits_exact": "needed",
    "lut": "LUT",
    "ff": "FF",
    "carry": "CARRY4",
    "ratio": "/ integer",
    "lut_cast": "LUT with cast",
    "ratio_cast": "/ integer",
    "ratio_cast_cast": "/ integer with cast",
    "lut_finite": "LUT, no NaN",
    "lut_dsp": "LUT, with DSP",
    "dsp_dsp": "DSP",
}


def percentages(rows: list[dict[str, Any]], key: str) -> list[float]:
    """How much more than the integers of their widths the minifloats take."""
    floats = [row for row in rows if isinstance(FORMATS.get(row["format"]), Minifloat)]
    return [100 * (row[key] - 1) for row in floats if row[key] is not None]


def show(rows: list[dict[str, Any]], n: int) -> None:
    """The rows as a table."""
    table = Table(title=f"Multiply-accumulate kernels for dot products of {n}", title_justify="left")
    fmax = {"fmax": "MHz (ECP5)", "fmax_cast": "with cast"}
    columns = {**COLUMNS, **(fmax if "fmax" in rows[0] else {})}
    for title in columns.values():
        table.add_column(title, justify="left" if title == "format" else "right")
    for row in rows:
        values = (row[name] for name in columns)
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else "" if v is None else str(v) for v in values))
    console = Console()
    console.print(table)
    for kind, key in (("sum", "ratio"), ("cast", "ratio_cast")):
        percent = percentages(rows, key)
        low, high = PUBLISHED_PERCENT[kind]
        where = "with the cast" if kind == "cast" else "without the cast"
        console.print(
            f"minifloat over the integer of the same width, {where}: {min(percent):+.0f} % to "
            f"{max(percent):+.0f} % "
            f"LUT (published: +{low} % to +{high} %)"
        )
    console.print(f"{rows[0]['tool']} {rows[0]['version']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--n", type=int, default=DOT_PRODUCT, help="length of the dot product (default: %(default)s)"
    )
    parser.add_argument("--fmax", action="store_true", help="also place and route for an ECP5")
    parser.add_argument("--json", action="store_true", help="JSON, also in a terminal")
    options = parser.parse_args()
    rows = mac_table(options.n, full=True, fmax=options.fmax)
    if options.json or not sys.stdout.isatty():
        measured = {
            kind: [round(edge(percentages(rows, key)), 1) for edge in (min, max)]
            for kind, key in (("sum", "ratio"), ("cast", "ratio_cast"))
        }
        result = {
            "command": " ".join(["benchmarks/mac_cost.py", *sys.argv[1:]]),
            "n": options.n,
            "published_percent": PUBLISHED_PERCENT,
            "measured_percent": measured,
            "kernels": rows,
        }
        print(json.dumps({**result, "versions": versions(), "machine": machine()}, indent=2))
    else:
        show(rows, options.n)


if __name__ == "__main__":
    main()
