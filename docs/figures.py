"""Draws the figures of the pages about number formats: ``python docs/figures.py [folder]``.

Every figure is computed with the formats themselves. Needs matplotlib (the ``docs`` extra).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

import qfx
from qfx.formats import OVERFLOW, ROUNDING, Block, FixedPoint, Minifloat

FOLDER = Path(__file__).resolve().parent / "figures"
BLUE, ORANGE, GREEN, GREY = "#3f51b5", "#e65100", "#2e7d32", "#9e9e9e"

plt.rcParams.update(
    {
        "svg.hashsalt": "qfx",  # the same figure gives the same file
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.grid": True,
        "grid.color": "#eeeeee",
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
    }
)


def number_lines(ax: Any, rows: Sequence[tuple[str, np.ndarray]], color: str = BLUE) -> None:
    """One row of ticks per set of numbers, the first row on top."""
    for row, (_, numbers) in enumerate(reversed(rows)):
        # One line with gaps: a fifth of the size of as many lines.
        heights = np.tile([row - 0.32, row + 0.32, np.nan], len(numbers))
        ax.plot(np.repeat(numbers, 3), heights, color=color, linewidth=0.8)
    ax.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(left=False)


def staircase(
    ax: Any, fmt: Any, low: float, high: float, color: str = BLUE, label: str | None = None
) -> None:
    """The cast of every real number from ``low`` to ``high``: corners only."""
    x = np.linspace(low, high, 4001)
    y = fmt.quantize(x)
    jumps = np.flatnonzero(np.diff(y))
    corners = np.unique(np.concatenate(([0, len(x) - 1], jumps, jumps + 1)))
    ax.plot([low, high], [low, high], color=GREY, linewidth=0.6)
    ax.plot(x[corners], y[corners], color=color, linewidth=1.3, label=label)


def grid_of(count: int, columns: int, width: float = 7.4, height: float = 1.9) -> Sequence[Any]:
    rows = -(-count // columns)
    _, axes = plt.subplots(rows, columns, figsize=(width, height * rows), sharex=True, sharey=True)
    flat = np.asarray(axes).reshape(-1)
    for ax in flat[count:]:
        ax.axis("off")
    return list(flat[:count])


# -- fixed point -----------------------------------------------------------------------------------------


def fixed_numbers() -> None:
    _, ax = plt.subplots(figsize=(7.4, 1.9))
    number_lines(
        ax,
        [
            ("FixedPoint(4, 2)", FixedPoint(4, 2).values()),
            ("FixedPoint(4, 1)", FixedPoint(4, 1).values()),
            ("FixedPoint(4, 0)", FixedPoint(4, 0).values()),
            ("FixedPoint(4, 1, signed=False)", FixedPoint(4, 1, signed=False).values()),
        ],
    )


def fixed_rounding() -> None:
    for ax, mode in zip(grid_of(len(ROUNDING), 4), ROUNDING, strict=True):
        fmt = FixedPoint(4, 0, rounding=mode)
        staircase(ax, fmt, -3, 3)
        ax.set_xticks([-2, 0, 2])
        ties = np.arange(-2.5, 3)
        ax.plot(ties, fmt.quantize(ties), ".", color=ORANGE, markersize=6)
        ax.set_title(mode)


def fixed_overflow() -> None:
    for ax, mode in zip(grid_of(len(OVERFLOW), 5), OVERFLOW, strict=True):
        staircase(ax, FixedPoint(4, 0, overflow=mode), -24, 24)
        ax.set_xticks([-16, 0, 16])
        ax.set_title(mode)
        ax.set_ylim(-10, 10)


# -- minifloat -------------------------------------------------------------------------------------------


def minifloat_numbers() -> None:
    _, axes = plt.subplots(2, 1, figsize=(7.4, 3.6))
    rows = [
        ("E2M1", Minifloat(2, 1)),
        ("E2M3", Minifloat(2, 3)),
        ("E3M2", Minifloat(3, 2)),
        ("E4M3", Minifloat(4, 3, specials="fn")),
        ("E5M2", Minifloat(5, 2, specials="ieee")),
    ]
    number_lines(axes[0], [(name, f.values()[np.abs(f.values()) <= 8]) for name, f in rows])
    axes[0].set_title("from -8 to 8")
    number_lines(axes[1], [(name, f.values()[f.values() > 0]) for name, f in rows])
    axes[1].set_xscale("log", base=2)
    axes[1].set_title("all positive numbers, logarithmic")


def minifloat_rounding() -> None:
    for ax, mode in zip(grid_of(len(ROUNDING), 4), ROUNDING, strict=True):
        fmt = Minifloat(2, 1, rounding=mode)
        staircase(ax, fmt, -4.5, 4.5)
        ax.set_xticks([-4, -2, 0, 2, 4])
        values = fmt.values()
        ties = (values[1:] + values[:-1]) / 2
        ties = ties[np.abs(ties) < 4.5]
        ax.plot(ties, fmt.quantize(ties), ".", color=ORANGE, markersize=5)
        ax.set_title(mode)


def minifloat_overflow() -> None:
    cases = [
        ("E2M1, SAT", Minifloat(2, 1)),
        ("ieee, SAT", Minifloat(2, 2, specials="ieee")),
        ("ieee, INF", Minifloat(2, 2, specials="ieee", overflow="INF")),
        ("fn, INF", Minifloat(2, 1, specials="fn", overflow="INF")),
    ]
    for ax, (title, fmt) in zip(grid_of(len(cases), 4), cases, strict=True):
        x = np.linspace(-9, 9, 2001)
        y = fmt.quantize(x)
        ax.plot([-9, 9], [-9, 9], color=GREY, linewidth=0.6)
        ax.plot(x, np.where(np.isfinite(y), y, np.nan), color=BLUE, linewidth=1.3)
        for lost, name in ((np.isinf(y), "infinity"), (np.isnan(y), "NaN")):
            if lost.any():
                edge = x[lost & (x > 0)][0]
                ax.axvspan(edge, 9, color=ORANGE, alpha=0.25, linewidth=0)
                ax.axvspan(-9, -edge, color=ORANGE, alpha=0.25, linewidth=0)
                ax.text(8.8, -8.4, name, ha="right")
        ax.set_title(title)
        ax.set_ylim(-9, 9)
        ax.set_xticks([-6, 0, 6])


# -- K-hot and binary ------------------------------------------------------------------------------------


def khot_numbers() -> None:
    _, ax = plt.subplots(figsize=(7.4, 3.0))
    rows: list[tuple[str, Any]] = [
        ("Ternary", qfx.Ternary(0)),
        ("k=1", qfx.KHot(6, 0, 1)),
        ("k=2, csd", qfx.KHot(6, 0, 2)),
        ("k=2, binary", qfx.KHot(6, 0, 2, "binary")),
        ("k=3, csd", qfx.KHot(6, 0, 3)),
        ("k=3, binary", qfx.KHot(6, 0, 3, "binary")),
        ("FixedPoint(6)", FixedPoint(6, 0, overflow="SAT_SYM")),
    ]
    number_lines(ax, [(name, f.values()) for name, f in rows])


def khot_cast() -> None:
    for ax, (title, fmt) in zip(
        grid_of(3, 3, height=2.4),
        [
            ("KHot(5, 0, k=1)", qfx.KHot(5, 0, 1)),
            ("KHot(5, 0, k=2)", qfx.KHot(5, 0, 2)),
            ('KHot(5, 0, k=2, "binary")', qfx.KHot(5, 0, 2, "binary")),
        ],
        strict=True,
    ):
        staircase(ax, fmt, -19, 19)
        values = fmt.values()
        ties = (values[1:] + values[:-1]) / 2
        ax.plot(ties, fmt.quantize(ties), ".", color=ORANGE, markersize=5)
        ax.set_title(title)


def khot_error() -> None:
    """Root mean square error of normal weights, each format with its best binary point."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(100_000)
    _, ax = plt.subplots(figsize=(5.2, 3.0))

    def best(fmt: FixedPoint | qfx.KHot) -> float:
        casts = (fmt.with_frac(frac).quantize(weights) for frac in range(-1, 12))
        return min(float(np.sqrt(np.mean((cast - weights) ** 2))) for cast in casts)

    widths = range(3, 11)
    for k, color in ((1, ORANGE), (2, GREEN), (3, BLUE)):
        for digits, style in (("csd", "-"), ("binary", "--")):
            errors = [best(qfx.KHot(w, k=k, digits=digits)) for w in widths]
            ax.plot(widths, errors, style, marker="o", markersize=3, color=color, label=f"k={k}, {digits}")
    ax.plot(widths, [best(FixedPoint(w)) for w in widths], color="black", label="FixedPoint")
    ax.set_yscale("log")
    ax.set_xlabel("width of the integers")
    ax.set_ylabel("error, standard deviation 1")
    ax.legend(fontsize=7, ncols=2)


def binary_cast() -> None:
    _, ax = plt.subplots(figsize=(4.4, 2.4))
    low, high = qfx.Binary(0).pass_range
    ax.axvspan(low, high, color=GREEN, alpha=0.15, linewidth=0, label="gradient passes")
    staircase(ax, qfx.Binary(0), -2, 2, label="cast")
    ax.plot([0], [1], "o", color=BLUE, markersize=4)
    ax.legend(fontsize=8, loc="lower right")


# -- blocks ----------------------------------------------------------------------------------------------


def block_numbers() -> None:
    """What one number of a block can be, for several largest neighbours."""
    _, axes = plt.subplots(1, 2, figsize=(7.4, 2.6), sharex=True)
    for ax, title, fmt in zip(
        axes,
        ["MXFP4", "BlockFloatingPoint(4)"],
        [qfx.MXFP4(), qfx.BlockFloatingPoint(4)],
        strict=True,
    ):
        rows = []
        for largest in (1.0, 3.0, 6.0, 12.0):
            _, exponents = fmt.encode(np.array([[largest, 0.0]]))
            numbers = fmt.element.values() * 2.0 ** int(exponents[0, 0])
            rows.append((f"largest {largest:g}", numbers))
        number_lines(ax, rows)
        ax.set_title(title)


def block_cast() -> None:
    """A cast of one number, beside a neighbour."""
    for ax, neighbour in zip(grid_of(3, 3, height=2.4), (0.0, 3.0, 12.0), strict=True):
        x = np.linspace(-14, 14, 4001)
        y = Block(Minifloat(2, 1), 2).quantize(np.stack([x, np.full_like(x, neighbour)], axis=1))[:, 0]
        ax.plot([-14, 14], [-14, 14], color=GREY, linewidth=0.6)
        keep = np.unique(
            np.concatenate(([0, len(x) - 1], np.flatnonzero(np.diff(y)), np.flatnonzero(np.diff(y)) + 1))
        )
        ax.plot(x[keep], y[keep], color=BLUE, linewidth=1.2)
        ax.set_title(f"beside {neighbour:g}")


FIGURES: dict[str, Callable[[], None]] = {
    "fixed-numbers": fixed_numbers,
    "fixed-rounding": fixed_rounding,
    "fixed-overflow": fixed_overflow,
    "minifloat-numbers": minifloat_numbers,
    "minifloat-rounding": minifloat_rounding,
    "minifloat-overflow": minifloat_overflow,
    "khot-numbers": khot_numbers,
    "khot-cast": khot_cast,
    "khot-error": khot_error,
    "binary-cast": binary_cast,
    "block-numbers": block_numbers,
    "block-cast": block_cast,
}


def main(folder: Path = FOLDER) -> None:
    """Write every figure as SVG into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        draw()
        plt.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close("all")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
