"""The page: whole, well-formed, self-contained, escaped, and silent about what was not done."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from qfx import report
from tests.report.example import full_build, layers, residual_network

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element that opens closes, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def build() -> report.Build:
    return full_build(3)


@pytest.fixture(scope="module")
def html(build: report.Build) -> str:
    return report.render(build)


def test_the_page_is_well_formed(html: str) -> None:
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.tags["svg"] > 50
    assert len(page.ids) == len(set(page.ids))
    links = [value for tag, key, value in page.attributes if (tag, key) == ("a", "href")]
    assert links and {f"#{id}" for id in page.ids} == set(links)


def test_every_drawing_is_well_formed_xml_with_finite_coordinates(html: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == Page(html).tags["svg"]
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("aria-label") or root.get("aria-hidden") == "true"
        for element in root.iter():
            for key, value in element.attrib.items():
                if key not in ("aria-label", "class", "role", "text-anchor"):
                    assert not re.search("nan|inf|e[+-]", value), (key, value)
                if key in ("width", "height", "r"):
                    assert value == "100%" or float(value) >= 0


def test_charts_stay_inside_their_drawings(html: str) -> None:
    for drawing in re.findall(r'<svg class="chart.*?</svg>', html, flags=re.DOTALL):
        root = ElementTree.fromstring(drawing)
        _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
        for element in root.iter():
            x = [float(element.attrib[k]) for k in ("x", "x1", "x2", "cx") if k in element.attrib]
            y = [float(element.attrib[k]) for k in ("y", "y1", "y2", "cy") if k in element.attrib]
            assert all(-0.5 <= v <= width + 0.5 for v in x), (root.get("aria-label"), element.attrib)
            assert all(-0.5 <= v <= height + 0.5 for v in y), (root.get("aria-label"), element.attrib)


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert "://" not in re.sub(r'aria-label="[^"]*"', "", html)
    assert "@import" not in html and "url(" not in html
    assert not [a for a in page.attributes if a[1] == "src" or (a[1] == "href" and a[2][:1] not in "#d")]  # type: ignore[index]
    (policy,) = [
        v for t, k, v in page.attributes if t == "meta" and k == "content" and v and "default-src" in v
    ]
    assert policy.startswith("default-src 'none'") and re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


def test_every_part_is_there(html: str) -> None:
    words = Page(html).words()
    for expected in (
        "Bit-exact: PyTorch, HLS and RTL agree with the integer graph on every bit of every sample.",
        "97.8 %", "−0.8 vs. Float32 98.6 %", "+6.7 vs. PTQ 91.1 %",
        "347 k frames/s", "576 cycles, 2.88 µs per frame", "6.56 µs", "predicted = simulated",
        "15.8 % of 70,560", "12.5", "Yosys 0.70", "420 LUTs of them serve as memory",
        "one sample is 0.28 points", "features.block1.conv2", "3×3, 8→8, pad 1",
        "HLS C++", "random stalls at both ends (30 %)", "E5M2", "×2.85", "make demo DATA=digits",
        "AMD EPYC 7R13", "2.13.0", "build/demo/network.qfx", "2025-11-22 05:10 UTC", "3 min 04 s",
    ):  # fmt: skip
        assert expected in words, expected


def test_sums_of_the_layer_table_are_right(build: report.Build, html: str) -> None:
    foot = html[html.index("<tfoot>") : html.index("</tfoot>")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in foot.split("<tr>")[1:]]
    lut = sum(layer.lut or 0 for layer in build.layers)
    assert build.resources is not None
    columns = [[cell.replace(",", "").replace("−", "-") for cell in row] for row in rows]
    place = columns[0].index(str(lut))
    assert int(columns[2][place]) == build.resources.lut
    assert int(columns[1][place]) == build.resources.lut - lut
    weights = sum(layer.weights or 0 for layer in build.layers)
    assert str(weights) in columns[0]


def test_what_was_not_done_is_a_sentence_and_not_a_zero() -> None:
    html = report.render(report.Build("Nothing", "make nothing"))
    page = Page(html)
    words = page.words()
    for sentence in (
        "Not verified in this build.",
        "No accuracy was measured in this build.",
        "Nothing was verified in this build.",
        "No RTL was generated in this build: there are no cycle counts.",
        "Resources were not measured in this build.",
        "No graph was frozen in this build.",
        "No binary points were learned in this build.",
        "No histograms were collected in this build.",
        "The cost of multiply-accumulate kernels was not measured in this build.",
    ):
        assert sentence in words
    assert page.tags["svg"] == 0
    assert not re.search(
        r"\d",
        re.sub("<(style|script).*?</(style|script)>", "", html[html.index("<body") :], flags=re.S)
        .replace("h1", "")
        .replace("h2", "")
        .replace("h3", ""),
    )


def test_a_note_says_why() -> None:
    build = report.Build(
        "t", "c", notes={"cycles": "Verilator is not installed.", "mac_cost": "Left out by --fast."}
    )
    words = Page(report.render(build)).words()
    assert "Verilator is not installed." in words and "Left out by --fast." in words
    assert "No RTL was generated" not in words


def test_a_build_without_rtl(build: report.Build) -> None:
    rows = report.collect_layers(residual_network(1))
    part = replace(
        build,
        layers=rows,
        cycles=None,
        resources=None,
        verify=build.verify[:2],
        notes={"rtl": "RTL was switched off."},
    )
    page = Page(report.render(part))
    words = page.words()
    assert "Bit-exact: PyTorch and HLS agree" in words
    assert words.count("RTL was switched off.") == 2  # under verification and under the layers
    assert "PE" not in words.split("Layers")[-1].split("Dataflow")[0]
    assert "frames/s" not in words and "whole design" not in words.lower()


def test_a_difference_is_shown_as_one(build: report.Build) -> None:
    wrong = replace(
        build.verify[2],
        mismatches=3,
        first_difference="features.stem (n1, conv): sample 5, code 3, expected 4",
    )
    page = Page(
        report.render(
            replace(build, verify=(*build.verify[:2], wrong), cycles=report.Cycles(576, 580.5, 9, 9))
        )
    )
    words = page.words()
    assert "Not bit-exact with the integer graph: RTL differs in 3 of 64 samples." in words
    assert "Verilog, first difference:" in words and "sample 5, code 3, expected 4" in words
    assert "every bit of every sample" not in words
    assert "✗ +4.5" in words and "✓ equal" in words


def test_no_samples_are_no_proof(build: report.Build) -> None:
    words = Page(report.render(replace(build, verify=(report.Verification("rtl", 0, 0),)))).words()
    assert "Bit-exact" not in words and "compared on no samples" in words


ATTACKS = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></svg><iframe src=javascript:alert(1)>",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "{{ 7*7 }}{% raw %}",
    "\x00\x1b[2J\x7f",
    "\ud800 \u202e ünïcode 網路",
    "a'; rm -rf $(x)",
)
FREE_TEXT = {
    "title", "command", "description", "dataset", "path", "name", "inputs", "detail", "how",
    "first_difference", "part", "tool", "text", "short", "weight_format", "created",
}  # fmt: skip
FREE_KEYS = {"versions", "machine", "files", "seconds"}


def poisoned(value: Any, attack: str, key: str = "") -> Any:
    """Plain data with every free text followed by an attack."""
    if isinstance(value, dict):
        free = key in FREE_KEYS
        return {
            f"{k}{attack}" if free else k: poisoned(v, attack, "title" if free and isinstance(v, str) else k)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [poisoned(v, attack, key) for v in value]
    return f"{value}{attack}" if value and isinstance(value, str) and key in FREE_TEXT else value


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_a_model_stays_text(attack: str, tmp_path: Path) -> None:
    build = full_build(1)
    build = replace(
        build, verify=(replace(build.verify[0], mismatches=1, first_difference="x"), *build.verify[1:])
    )
    data = poisoned(build.to_dict(), attack)
    data["format"] = "qfx-build"
    bad = report.Build.from_dict(data)
    assert bad.layers[1].path.endswith(attack) and bad.layers[1].inputs[0].endswith(attack)
    report.write(bad, tmp_path / "bad.html")
    text = (tmp_path / "bad.html").read_text(encoding="utf-8")
    page, good = Page(text), Page(report.render(replace(build, created="not a date")))
    # The names are others, the structure is the same: no element and no attribute came from a name.
    # (More tooltips where names are shortened now, and a sentence each for torch, hls and rtl.)
    assert set(page.tags - good.tags) <= {"title", "p"}
    assert good.tags - page.tags == Counter()
    assert {(t, k) for t, k, _ in page.attributes} <= {(t, k) for t, k, _ in good.attributes}
    assert page.tags["script"] == 1 and page.tags["img"] == 0 and page.tags["iframe"] == 0
    for drawing in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(drawing)
    if attack.isprintable() and attack.isascii():
        assert attack in page.words()


def test_a_big_network_stays_below_two_megabytes() -> None:
    build = full_build(29)
    assert sum(layer.op in ("conv", "linear") for layer in build.layers) == 60
    html = report.render(build)
    Page(html)
    assert len(html.encode()) < 2_000_000


def test_a_network_with_rows_for_every_node_but_no_figures() -> None:
    graph = residual_network(1)
    rows = tuple(replace(row, lut=None) for row in layers(graph))
    words = Page(report.render(report.Build("t", "c", layers=rows))).words()
    assert "The cost of single layers was not measured in this build." in words
