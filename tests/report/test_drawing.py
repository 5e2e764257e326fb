"""The parts of charts: scales, text, the layout of graphs, statistics."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from qfx import report
from qfx.report import charts, text
from qfx.report.dataflow import boxes, dataflow
from qfx.report.layout import GAP, layered
from qfx.report.svg import Svg, integer_ticks, shorten, ticks
from tests.report.example import full_build, residual_network


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson_intervals(right: int, samples: int) -> None:
    right = min(right, samples)
    low, high = charts.wilson(100 * right / samples, samples)
    expected = binomtest(right, samples).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-3)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    assume(span > 1e-6 * abs(low))  # an axis that doubles can still divide
    high = low + span
    marks = ticks(low, high, count)
    assert all(low - 1e-6 * span <= m <= high + 1e-6 * span for m in marks)
    assert len(marks) <= count + 2
    steps = {float(f"{(b - a):.3g}") for a, b in pairwise(marks)}
    assert all(re.fullmatch(r"[125]e[+-]\d+", f"{s:.0e}") for s in steps)


@given(st.integers(-300, 300), st.integers(0, 600))
def test_integer_ticks(low: int, span: int) -> None:
    marks = integer_ticks(low, low + span)
    assert all(low <= m <= low + span for m in marks) and len(marks) <= 9
    assert marks or span < 400


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, "100 ms"), (2.88e-6, "2.88 µs"), (1.5e-9, "1.50 ns"), (41.2, "41.2 s"), (184, "3 min 04 s"),
        (0, "0 ns"), (89.96, "90.0 s"), (1e-3, "1.00 ms"), (3599.6, "60 min 00 s"),
    ],
)  # fmt: skip
def test_times(value: float, expected: str) -> None:
    assert text.time(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.0 %"),
        (0.01, "< 0.1 %"),
        (0.06, "0.1 %"),
        (99.99, "> 99.9 %"),
        (100.0, "100.0 %"),
        (12.34, "12.3 %"),
    ],
)
def test_a_share_that_is_not_zero_does_not_look_like_zero(value: float, expected: str) -> None:
    assert text.percent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(347222.2, "347 k"), (1.5e6, "1.50 M"), (25_000, "25.0 k"), (12.3456, "12.3"), (2e9, "2000 M")],
)
def test_rates(value: float, expected: str) -> None:
    assert text.rate(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1234567, "1,234,567"), (12.5, "12.5"), (-312, "−312"), (None, "–"), (576.0, "576")],
)
def test_counts(value: float | None, expected: str) -> None:
    assert text.count(value) == expected


@pytest.mark.parametrize(
    ("iso", "expected"),
    [
        ("2025-11-22T05:10:59+00:00", "2025-11-22 05:10 UTC"),
        ("2025-11-22", "2025-11-22 00:00"),
        ("today", "today"),
    ],
)
def test_moments(iso: str, expected: str) -> None:
    assert text.moment(iso) == expected


@given(st.text(max_size=60), st.integers(4, 40))
def test_shortened_names_keep_both_ends(name: str, limit: int) -> None:
    short = shorten(name, limit)
    assert len(short) <= limit
    if short != name:
        head, tail = short.split("…", 1) if "…" not in name else (short[:1], short[-1:])
        assert name.startswith(head) and name.endswith(tail)


def test_drawings_escape_what_they_show() -> None:
    svg = Svg(10, 10, '"<&>\x00')
    svg.text(1, 1, "</text><script>", title="]]>\ud800")
    root = ElementTree.fromstring(str(svg))
    assert root.get("aria-label") == '"<&>\ufffd'
    assert root[0].text == "</text><script>" and root[0][0].text == "]]>\ufffd"


# -- charts --------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_numbers() -> None:
    build = report.Build("t", "c", accuracy={"float": 100.0, "ptq": 50.0}, accuracy_samples=100)
    root = ElementTree.fromstring(str(charts.accuracy(build)))
    full, half = (float(r.attrib["width"]) for r in root.iter("rect"))
    assert half == pytest.approx(full / 2, abs=0.01)
    texts = [t.text for t in root.iter("text")]
    assert "−50.0" in texts and "accuracy (%)" in texts


def test_curves_of_one_epoch_and_of_equal_values_can_be_drawn() -> None:
    one = charts.training([report.Epoch("float", 1, 0.5, 97.0)])
    flat = charts.training([report.Epoch("learned", e, 1.0, 100.0, 100.0) for e in (1, 2, 3)])
    none = charts.training([report.Epoch("learned", 1, 0.0)])
    assert (len(one), len(flat), len(none)) == (2, 2, 0)
    for chart in one + flat:
        assert "nan" not in str(chart) and "epoch" in str(chart)


def test_a_bias_beyond_the_others_does_not_hide_a_binary_point() -> None:
    point = report.BinaryPoint("q", "conv", "weight", 4, True, (-60,), (90,))
    ((title, svg),) = charts.binary_points([point])
    root = ElementTree.fromstring(str(svg))
    places = [float(c.attrib["cx"]) for c in root.iter("circle")]
    assert title == "Weights" and len(places) == 2 and places[0] < places[1] <= charts.PANEL


def test_areas_of_channels() -> None:
    point = report.BinaryPoint("q", "conv", "bias", 4, True, (3, 3, 3, 3), (2, 2, 2, 5))
    ((_, svg),) = charts.binary_points([point])
    circles = list(ElementTree.fromstring(str(svg)).iter("circle"))
    after = {c[0].text: float(c.attrib["r"]) for c in circles if c.attrib["class"] == "fill-after"}
    assert after["learned: 3 channels of 4 at 2"] ** 2 == pytest.approx(
        3 * after["learned: 1 channel of 4 at 5"] ** 2, rel=0.02
    )


def test_ratios_to_the_integer_of_the_same_width() -> None:
    int8 = report.MacCost("int8", 8, True, 100, 1, 0, 30)
    e4m3 = report.MacCost("E4M3", 8, False, 221, 1, 0, 50)
    assert charts.ratio_to_integer(e4m3, [int8, e4m3]) == 2.21
    assert charts.ratio_to_integer(e4m3, [e4m3]) is None
    in_dsp = report.MacCost("int8", 8, True, 20, 1, 1, 30)
    assert charts.ratio_to_integer(e4m3, [in_dsp, e4m3]) is None, "a DSP block is no LUT"


# -- graphs --------------------------------------------------------------------------------------

DAGS = st.integers(1, 14).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.sets(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] < e[1]), max_size=24
        ),
    )
)


@given(DAGS)
def test_layouts_keep_edges_downwards_and_boxes_apart(dag: tuple[int, set[tuple[int, int]]]) -> None:
    n, edges = dag
    rows = layered(dict.fromkeys(range(n), 100.0), sorted(edges))
    found = {p.key: p for row in rows for p in row if not p.dummy}
    assert sorted(found) == list(range(n))
    for number, row in enumerate(rows):
        for place in row:
            assert place.layer == number and place.x - place.width / 2 >= -1e-6
            assert all(p.layer == number + 1 for p in place.below)
        for a, b in pairwise(row):
            assert b.x - a.x >= (a.width + b.width) / 2 + GAP - 1e-6
    reached = set()
    for place in found.values():
        for below in place.below:
            while below.dummy:
                (below,) = below.below
            reached.add((place.key, below.key))
    assert reached == edges


def test_residual_chains_are_straight() -> None:
    layers = report.collect_layers(residual_network(5))
    found = boxes(layers)
    assert sum(len(box.nodes) for box in found) == len(layers)
    owner = {node.name: i for i, box in enumerate(found) for node in box.nodes}
    edges = {(owner[name], i) for i, box in enumerate(found) for name in box.nodes[0].inputs}
    rows = layered(dict.fromkeys(range(len(found)), 200.0), sorted(edges))
    centres = [p.x for row in rows for p in row if not p.dummy]
    assert max(centres) - min(centres) < 1
    skips = [p.x for row in rows for p in row if p.dummy]
    assert len(skips) == 10 and max(skips) - min(skips) < 1


def test_boxes_end_where_a_tensor_forks() -> None:
    found = boxes(report.collect_layers(residual_network(1)))
    assert [[node.op for node in box.nodes] for box in found] == [
        ["input"], ["conv", "relu", "cast"], ["conv", "relu", "cast"], ["conv", "cast"],
        ["add", "relu", "cast"], ["max_pool", "reshape"], ["linear"],
    ]  # fmt: skip


def test_every_box_is_drawn_once_however_many_columns() -> None:
    build = full_build(12)
    drawings = dataflow(build.layers)
    assert len(drawings) > 2
    names = [
        t.text
        for svg in drawings
        for t in ElementTree.fromstring(str(svg)).iter("text")
        if t.get("class") == "box-name"
    ]
    assert names == [shorten(box.nodes[0].path, 30) for box in boxes(build.layers)]


def test_parallel_branches_are_drawn_side_by_side() -> None:
    fmt = report.Format("f", "s4 f2", 4, -2, 1, 0.25)

    def row(name: str, op: str, *inputs: str) -> report.Layer:
        return report.Layer(name, op, name, inputs, (4,), fmt)

    branches = [row(f"n{i}_b", "conv", "n0_x") for i in range(1, 5)]
    (svg,) = dataflow([row("n0_x", "input"), *branches, row("n5_c", "concat", *(b.name for b in branches))])
    root = ElementTree.fromstring(str(svg))
    rects = [r for r in root.iter("rect") if r.get("class", "").startswith("box box-weighted")]
    assert len({r.attrib["y"] for r in rects}) == 1 and len({r.attrib["x"] for r in rects}) == 4
    arrows = [p for p in root.iter("path") if p.get("class") == "arrow"]
    assert len(arrows) == 4 + 4 + 1
    assert len({p.attrib["d"] for p in arrows}) == 9, "operands enter at places of their own"
