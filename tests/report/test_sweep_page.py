"""The page of a sweep, as text and in a real browser: filters, hovering, opening a configuration, saving."""

from __future__ import annotations

import html as htmllib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qfx import report
from qfx.sweep.result import Results, Trial
from tests.report.test_browser import BROWSER, chromium, with_script

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on PATH (Debian, Ubuntu: apt-get install -y chromium)"
)
ROWS = [
    ("int3", "integer", 80.0, 300, 1000),
    ("int4", "integer", 88.0, 420, None),
    ("int8", "integer", 90.5, 900, 4000),
    ("E2M1", "minifloat", 88.5, 600, 3500),
    ("E4M3", "minifloat", 91.0, 1500, 9000),
    ("khot4k1", "khot", 87.0, 310, 900),
    ("MXFP4", "mx", 88.2, 700, None),
]


def sweep() -> Results:
    """Seven trials of four families, five of them measured, and one that failed."""
    trials = []
    for slot, (name, family, accuracy, ebops, lut) in enumerate(ROWS):
        layers = [
            {"name": "n0", "path": "conv1", "op": "conv", "weights": 144, "cycles": 784, "lut": 210 + slot},
            {"name": "n1", "path": "fc", "op": "linear", "weights": 7840, "cycles": 640},
        ]
        trials.append(
            Trial(
                slot,
                {"weight": name, "activation": name},
                "complete",
                {"accuracy": accuracy, "ebops": float(ebops)},
                {} if lut is None else {"lut": float(lut), "dsp": float(slot)},
                tuple(layers),
                {"family": family, "label": name, "command": f"qfx trial weight={name} activation={name}"},
            )
        )
    trials.append(Trial(7, {"weight": "int99", "activation": "int99"}, "failed", error="<b>too wide</b>"))
    return Results(
        "formats", {"accuracy": "maximize", "ebops": "minimize"}, 8, tuple(trials), {"sampler": "grid"}
    )


def run(tmp_path: Path, results: Results, script: str, *options: str) -> dict[str, object]:
    """What a script found on the page: it fills ``found``."""
    more = (
        f"(async () => {{ const found = {{}}; {script}; "
        "document.documentElement.dataset.found = JSON.stringify(found); })();"
    )
    page = tmp_path / "page.html"
    page.write_text(with_script(report.render_sweep(results), more), encoding="utf-8")
    dom, console = chromium(page, tmp_path, "--dump-dom", "--window-size=1200,1000", *options)
    assert not console and 'data-ready="yes"' in dom
    (found,) = re.findall(r'data-found="(.*?)"', dom)
    return dict(json.loads(htmllib.unescape(found)))


def test_everything_from_outside_is_escaped() -> None:
    bad = "</script><script>alert(1)</script>&<!--"
    results = sweep()
    first = results.trials[0]
    evil = replace(
        first,
        parameters={bad: bad},
        notes={"label": bad, "family": bad, "command": bad},
        layers=({"name": bad},),
    )
    page = report.render_sweep(
        replace(results, name=bad, trials=(evil, *results.trials[1:]), facts={bad: bad})
    )
    assert "alert(1)</script>" not in page and "<script>alert" not in page and "<b>too" not in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert json.loads(data)["trials"][0]["label"] == bad


def test_the_front_of_other_objectives() -> None:
    results = sweep()
    assert [t.notes["label"] for t in results.front()] == ["int3", "int4", "int8", "E2M1", "E4M3", "khot4k1"]
    measured = results.front({"accuracy": "maximize", "lut": "minimize"})
    assert [t.notes["label"] for t in measured] == ["int8", "E2M1", "E4M3", "khot4k1"]
    assert Results.from_dict(json.loads(json.dumps(results.to_dict()))) == results
    lines = results.to_csv().splitlines()
    assert lines[0] == "slot,state,front,weight,activation,accuracy,ebops,measured_lut,measured_dsp,error"
    assert lines[2] == "1,complete,1,int4,int4,88.0,420.0,,," and len(lines) == 9


@needs_browser
def test_axes_and_families_choose_what_is_drawn(tmp_path: Path) -> None:
    script = """
      const set = (id, value) => { $(id).value = value;
        $(id).dispatchEvent(new Event("change", { bubbles: true })); };
      const marks = () => [...document.querySelectorAll(".mark")];
      const labels = () => marks().map((m) => m.getAttribute("aria-label").split(",")[0]);
      const fronts = () => marks()
        .filter((m) => m.classList.contains("on-front"))
        .map((m) => m.getAttribute("aria-label").split(",")[0]);
      found.axes = [$("x-axis").value, $("y-axis").value];
      found.lut = labels(); found.lutFront = fronts(); found.lutStatus = $("status").textContent;
      set("x-axis", "ebops"); found.ebops = labels(); found.ebopsFront = fronts();
      $("families").querySelector("input[value=minifloat]").click();
      found.without = labels(); found.withoutFront = fronts();
      found.rows = [...document.querySelectorAll("#table tbody tr")].filter((r) =>
        getComputedStyle(r).display !== "none").length;
      $("only-front").click(); found.only = labels();
      $("log").click();
        found.logTicks = [...document.querySelectorAll("#plot text")].map((t) => t.textContent);
      found.csv = csv();
    """
    found = run(tmp_path, sweep(), script)
    assert found["axes"] == ["lut", "accuracy"]
    assert found["lut"] == ["khot4k1", "int3", "E2M1", "int8", "E4M3"]
    assert found["lutFront"] == ["khot4k1", "E2M1", "int8", "E4M3"]
    assert "5 of 7 configurations shown, 4 on the front; 2 have no value" in str(found["lutStatus"])
    assert found["ebops"] == ["int3", "khot4k1", "int4", "E2M1", "MXFP4", "int8", "E4M3"]
    assert found["ebopsFront"] == ["int3", "khot4k1", "int4", "E2M1", "int8", "E4M3"]
    assert found["without"] == ["int3", "khot4k1", "int4", "MXFP4", "int8"]
    # Without E2M1, MXFP4 is on the front.
    assert found["withoutFront"] == ["int3", "khot4k1", "int4", "MXFP4", "int8"] == found["only"]
    assert found["rows"] == 6  # with the one that failed
    assert {"500", "1,000"} & set(found["logTicks"])  # type: ignore[call-overload]
    lines = str(found["csv"]).splitlines()
    assert lines[0].startswith("slot,configuration,family,front,weight") and len(lines) == 6
    assert lines[1] == "0,int3,integer,1,int3,int3,80,300,1000,0,qfx trial weight=int3 activation=int3"


@needs_browser
def test_hovering_shows_the_configuration_and_the_command(tmp_path: Path) -> None:
    script = """
      const mark = document.querySelector('.mark[data-slot="3"]');
      found.before = $("tip").hidden;
      mark.dispatchEvent(new PointerEvent("pointerenter"));
      found.shown = !$("tip").hidden; found.text = $("tip").textContent;
      const box = $("tip").getBoundingClientRect();
      found.inside = box.left >= 0 && box.right <= innerWidth && box.width > 100;
      mark.dispatchEvent(new PointerEvent("pointerleave"));
      found.after = $("tip").hidden;
    """
    found = run(tmp_path, sweep(), script)
    assert found["before"] and found["shown"] and found["inside"] and found["after"]
    for part in ("E2M1", "minifloat", "accuracy (%): 88.5", "LUTs, measured: 3,500", "qfx trial weight=E2M1"):
        assert part in str(found["text"])


@needs_browser
def test_a_click_or_a_key_opens_the_layers(tmp_path: Path) -> None:
    script = """
      const rows = () => [...document.querySelectorAll("#layers tbody tr")].map((r) => r.textContent);
      found.hidden = $("details").hidden;
      document.querySelector('.mark[data-slot="2"]').dispatchEvent(new MouseEvent("click"));
      found.title = $("details-title").textContent; found.rows = rows();
      found.focused = document.activeElement.id; found.body = $("details-body").textContent;
      const key = (name) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
      const tabbable = [...document.querySelectorAll('.mark[tabindex="0"]')];
      found.tabbable = tabbable.length;
      tabbable[0].focus(); key("Home");
      found.first = document.activeElement.dataset.slot;
      key("ArrowRight"); found.second = document.activeElement.dataset.slot; found.tip = $("tip").textContent;
      key("Enter"); found.keyTitle = $("details-title").textContent;
        found.chosen = document.querySelector(".mark.chosen").dataset.slot;
      document.querySelector('#table a[data-slot="7"]').click();
      found.failed = $("details-body").textContent;
    """
    found = run(tmp_path, sweep(), script)
    assert found["hidden"] and found["title"] == "int8 (integer)" and found["focused"] == "details"
    assert found["rows"] == ["n0conv1conv144784212", "n1fclinear7,840640"]
    for part in ("LUTs, measured4,000", "qfx trial weight=int8 activation=int8", "weightint8"):
        assert part in str(found["body"])
    assert found["tabbable"] == 1 and (found["first"], found["second"]) == ("5", "0")
    assert "int3" in str(found["tip"]) and found["keyTitle"] == "int3 (integer)" and found["chosen"] == "0"
    assert "<b>too wide</b>" in str(found["failed"])  # as text


@needs_browser
def test_pictures_stand_alone(tmp_path: Path) -> None:
    script = """
      found.svg = picture();
      const made = await png();
      found.png = [made.type, made.size];
    """
    found = run(tmp_path, sweep(), script)
    svg = str(found["svg"])
    assert svg.startswith("<svg") and "class=" not in svg and svg.count("<path") == 5 + 1
    assert "rgb(31, 95, 191)" in svg and "LUTs, measured" in svg
    kind, size = found["png"]  # type: ignore[misc]
    assert kind == "image/png" and size > 5000


@needs_browser
@pytest.mark.parametrize("width", [420, 1280])
def test_only_tables_scroll_sideways(tmp_path: Path, width: int) -> None:
    measure = """
      open(trials[0]);
      const wide = [...document.querySelectorAll("body *")].filter((e) =>
        e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll") && !e.closest("#tip"));
      parent.postMessage(JSON.stringify({inner: innerWidth, scroll: document.documentElement.scrollWidth,
        wide: wide.map((e) => e.outerHTML.slice(0, 80))}), "*");
    """
    (tmp_path / "page.html").write_text(with_script(report.render_sweep(sweep()), measure), encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        "<!DOCTYPE html><body><script>onmessage = (e) => document.body.append(e.data)</script>"
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    )
    dom, console = chromium(tmp_path / "frame.html", tmp_path, "--dump-dom", "--window-size=1400,1000")
    assert not console
    assert f'{{"inner":{width},"scroll":{width},"wide":[]}}' in dom


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_families_can_be_told_apart_in_both_schemes(tmp_path: Path, scheme: str) -> None:
    """Contrast of each family's colour, and of text, with the card behind it (WCAG 2.2: 3 and 4.5 to 1)."""
    script = """
      const paper = getComputedStyle(document.querySelector("section")).backgroundColor;
      found.paper = paper;
      found.marks = families.map((f) =>
        getComputedStyle(document.querySelector("#families ." + cssOf(f))).fill);
      found.text = ["#status", ".plot text", "h2"].map((s) =>
        { const e = getComputedStyle(document.querySelector(s));
        return s === ".plot text" ? e.fill : e.color; });
      found.shapes = new Set(families.map((f) => markPath(f, 0, 0, 5))).size;
    """
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    found: dict[str, Any] = run(tmp_path, sweep(), script, *dark)
    assert found["shapes"] == 4
    assert all(contrast(colour, found["paper"]) >= 3 for colour in found["marks"])
    assert all(contrast(colour, found["paper"]) >= 4.5 for colour in found["text"])


def contrast(one: str, other: str) -> float:
    """Contrast of two CSS colours, ``rgb(…)`` (WCAG 2.2, relative luminance)."""

    def luminance(text: str) -> float:
        values = np.array([int(n) for n in re.findall(r"\d+", text)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_figures_for_a_paper(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"figure.{ending}"
    report.figure(sweep(), file, x="lut", title="Fashion-MNIST")
    first = file.read_bytes()
    report.figure(sweep(), file, x="lut", title="Fashion-MNIST")
    assert file.read_bytes() == first and len(first) > 5000
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    with pytest.raises(report.build.QfxError, match="no trial of sweep 'formats' has both nothing"):
        report.figure(sweep(), file, x="nothing")
