"""The page in a real browser: it loads, its script runs and no other, and nothing sticks out."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qfx import report
from tests.report.example import full_build

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on PATH (Debian, Ubuntu: apt-get install -y chromium)"
)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--enable-logging=stderr", "--virtual-time-budget=3000",
)  # fmt: skip


def chromium(page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """What the browser prints, and the messages of the page's console."""
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def build() -> report.Build:
    return full_build(3)


def with_script(html: str, more: str) -> str:
    """The page with more at the end of its script, allowed by its policy."""
    (script,) = re.findall(r"<script>(.*)</script>", html, flags=re.DOTALL)

    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert digest(script) in html
    return html.replace(digest(script), digest(script + more)).replace(script, script + more)


def test_the_script_runs_and_no_other(build: report.Build, tmp_path: Path) -> None:
    html = report.render(build)
    (tmp_path / "good.html").write_text(html, encoding="utf-8")
    dom, console = chromium(tmp_path / "good.html", tmp_path, "--dump-dom")
    assert 'data-ready="yes"' in dom and not console
    assert dom.count("<button") == 15 + 7  # headings of both tables that can be sorted
    # Even if a name got through unescaped, the browser would refuse to run it or to load anything.
    evil = "<script>document.documentElement.dataset.evil = 1</script><img src='https://example.com/x.png'>"
    (tmp_path / "bad.html").write_text(html.replace("<main>", f"<main>{evil}"), encoding="utf-8")
    dom, console = chromium(tmp_path / "bad.html", tmp_path, "--dump-dom")
    assert "data-evil" not in dom and 'data-ready="yes"' in dom
    assert any("Content Security Policy" in line for line in console)


def test_a_click_sorts_a_table(build: report.Build, tmp_path: Path) -> None:
    clicks = """
      const table = document.querySelector("table.layers");
      const column = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === "LUT");
      const shown = () => [...table.tBodies[0].rows].map((r) => r.cells[column].dataset.sort).join(" ");
      const states = [shown()];
      for (let i = 0; i < 3; i++) {
        table.tHead.rows[0].cells[column].firstChild.click();
        states.push(shown());
      }
      document.documentElement.dataset.states = states.join("|");
    """
    (tmp_path / "page.html").write_text(with_script(report.render(build), clicks), encoding="utf-8")
    dom, console = chromium(tmp_path / "page.html", tmp_path, "--dump-dom")
    assert not console
    (found,) = re.findall(r'data-states="(.*?)"', dom)
    original, descending, ascending, again = (state.split(" ") for state in found.split("|"))
    assert original == again == ["" if row.lut is None else str(row.lut) for row in build.layers]
    known = sorted((row.lut for row in build.layers if row.lut is not None), reverse=True)
    empty = [""] * (len(build.layers) - len(known))
    assert descending == [*map(str, known), *empty]
    assert ascending == [*map(str, reversed(known)), *empty]


@pytest.mark.parametrize("width", [420, 1280])
def test_only_tables_scroll_sideways(build: report.Build, tmp_path: Path, width: int) -> None:
    measure = """
      const wide = [...document.querySelectorAll("body *")].filter((e) =>
        e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll"));
      parent.postMessage(JSON.stringify({inner: innerWidth, scroll: document.documentElement.scrollWidth,
        wide: wide.map((e) => e.outerHTML.slice(0, 80))}), "*");
    """
    (tmp_path / "page.html").write_text(with_script(report.render(build), measure), encoding="utf-8")
    # Headless windows have a smallest width; frames do not.
    (tmp_path / "frame.html").write_text(
        "<!DOCTYPE html><body><script>onmessage = (e) => document.body.append(e.data)</script>"
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    )
    dom, console = chromium(tmp_path / "frame.html", tmp_path, "--dump-dom", "--window-size=1400,1000")
    assert not console
    assert f'{{"inner":{width},"scroll":{width},"wide":[]}}' in dom


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_has_both_schemes(build: report.Build, tmp_path: Path, scheme: str) -> None:
    image = pytest.importorskip("PIL.Image")  # comes with matplotlib
    report.write(build, tmp_path / "page.html")
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    picture = tmp_path / "page.png"
    chromium(tmp_path / "page.html", tmp_path, f"--screenshot={picture}", "--window-size=1280,1400", *dark)
    pixels = np.asarray(image.open(picture).convert("RGB"))
    assert pixels.shape == (1400, 1280, 3)
    brightness = pixels.mean(axis=2)
    assert (np.median(brightness) > 200) == (scheme == "light")
    assert (np.median(brightness) < 60) == (scheme == "dark")
    # The verdict is green, the bar of the learned accuracy blue: both somewhere, in either scheme.
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    assert ((green > red + 30) & (green > blue + 20)).sum() > 200
    assert ((blue > red + 80) & (blue > green + 50)).sum() > 3000
