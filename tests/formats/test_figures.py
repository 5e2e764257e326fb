"""The figures of the format pages: drawn by docs/figures.py, all there and all shown."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"formats.md", "minifloat.md", "khot.md", "binary.md", "block.md"}


def script() -> ModuleType:
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(page: str) -> list[str]:
    return re.findall(r"\]\(figures/([a-z-]+)\.svg\)", (DOCS / page).read_text(encoding="utf-8"))


def test_every_format_page_shows_figures_of_the_script() -> None:
    there = {path.stem for path in (DOCS / "figures").glob("*.svg")}
    assert all(shown(page) for page in PAGES)
    used = {name for page in DOCS.glob("*.md") for name in shown(page.name)}
    assert used <= there
    drawn = set(script().FIGURES)
    assert drawn <= used


def test_a_figure_is_drawn_again_alike(tmp_path: Path) -> None:
    """Two runs give the same file, and it shows what the committed one shows."""
    module = script()
    module.FIGURES = {"binary-cast": module.FIGURES["binary-cast"]}
    for folder in ("a", "b"):
        module.main(tmp_path / folder)
    first, second = ((tmp_path / folder / "binary-cast.svg").read_text("utf-8") for folder in ("a", "b"))
    assert first == second

    def words(svg: str) -> list[str]:
        return re.findall(r"<text[^>]*>([^<]*)</text>", svg)

    assert words(first) == words((DOCS / "figures" / "binary-cast.svg").read_text("utf-8"))
    assert {"cast", "gradient passes"} <= set(words(first))
