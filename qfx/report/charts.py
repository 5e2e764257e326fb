"""The small charts of the page. Panels are as wide as a telephone and need no shrinking anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from qfx.report import text
from qfx.report.build import BinaryPoint, Build, Epoch, Histogram, MacCost
from qfx.report.svg import Svg, integer_ticks, polyline, shorten, ticks

PANEL = 360
HISTOGRAM = 178
_Scale = Callable[[float], float]


def accuracy(build: Build) -> Svg:
    """A bar for every accuracy with its 95 % interval (Wilson), and the distance to the first."""
    rows = list(build.accuracy.items())
    left, right, height = 74, 86, 34
    plot = PANEL - left - right
    svg = Svg(
        PANEL, len(rows) * height + 36, "Accuracy in percent: " + ", ".join(f"{k} {v:.1f}" for k, v in rows)
    )
    bottom = len(rows) * height + 2
    for tick in (0, 25, 50, 75, 100):
        x = left + plot * tick / 100
        svg.line(x, 0, x, bottom, "grid")
        svg.text(x, bottom + 14, str(tick), "tick", "middle")
    svg.text(left + plot / 2, bottom + 30, "accuracy (%)", "axis", "middle")
    reference = rows[0][1]
    for i, (key, value) in enumerate(rows):
        y = i * height + 6
        svg.text(left - 8, y + 15, text.short_name(key), "label", "end", text.name(key))
        title = f"{text.name(key)}: {value:.2f} %"
        svg.rect(left, y, plot * value / 100, 22, f"fill-{_series(key)}", title, 2)
        edge = left + plot * value / 100
        if build.accuracy_samples:
            low, high = wilson(value, build.accuracy_samples)
            a, b = left + plot * low / 100, left + plot * high / 100
            svg.line(a, y + 11, b, y + 11, "whisker", f"95 % interval {low:.1f} to {high:.1f} %")
            for x in (a, b):
                svg.line(x, y + 7, x, y + 15, "whisker")
            edge = max(edge, b)
        svg.text(edge + 6, y + 15, f"{value:.1f}", "value")
        if i:
            svg.text(
                PANEL - 2, y + 15, text.points(value - reference), "note", "end", "points from the first row"
            )
    return svg


def wilson(percent: float, samples: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion, in percent (E. B. Wilson, JASA 22, 1927)."""
    z2, p = 1.959964**2, percent / 100
    middle = (p + z2 / (2 * samples)) / (1 + z2 / samples)
    half = math.sqrt(z2 * (p * (1 - p) / samples + z2 / (4 * samples**2))) / (1 + z2 / samples)
    return 100 * (middle - half), 100 * (middle + half)


# -- training --------------------------------------------------------------------------------------


def training(epochs: Sequence[Epoch]) -> list[Svg]:
    """Loss (logarithmic) and accuracy over the epochs of every run."""
    losses = [(e.run, e.epoch, e.loss, "") for e in epochs if e.loss > 0]
    charts = [_curves(losses, "training loss", log=True)] if losses else []
    test = [(e.run, e.epoch, e.accuracy, "") for e in epochs if e.accuracy is not None]
    train = [(e.run, e.epoch, e.train_accuracy, " dashed") for e in epochs if e.train_accuracy is not None]
    if test or train:
        name = "test accuracy (%)" if not train else "accuracy (%)"
        charts.append(_curves([*test, *train], name, log=False))
    return charts


def _curves(rows: Sequence[tuple[str, int, float, str]], name: str, log: bool) -> Svg:
    left, right, top, bottom, height = 44, 62, 8, 40, 230
    svg = Svg(PANEL, height, f"{name} by epoch")
    first, last = min(r[1] for r in rows), max(r[1] for r in rows)
    values = [math.log10(r[2]) if log else r[2] for r in rows]
    low, high = min(values), max(values)
    marks = _log_ticks(low, high) if log else ticks(low, high, 5)
    step = marks[1] - marks[0] if len(marks) > 1 and not log else 0
    if not log:  # round numbers at both ends
        low, high = (
            math.floor(low / step) * step if step else low - 1,
            math.ceil(high / step) * step if step else high + 1,
        )
        marks = [m for m in ticks(low, high, 5) if m <= 100]
        high = min(high, 100) if min(high, 100) > low else high
    pad = (high - low or 1) * 0.04
    low, high = low - pad, high + pad

    def x(epoch: float) -> float:
        return left + (PANEL - left - right) * (epoch - first) / max(1, last - first)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    for mark in marks:
        svg.line(left, y(mark), PANEL - right, y(mark), "grid")
        svg.text(left - 6, y(mark) + 4, text.number(round(10**mark, 6) if log else mark), "tick", "end")
    for epoch in integer_ticks(first, last, 6):
        svg.line(x(epoch), height - bottom, x(epoch), height - bottom + 4, "axis-line")
        svg.text(x(epoch), height - bottom + 16, str(epoch), "tick", "middle")
    svg.line(left, height - bottom, PANEL - right, height - bottom, "axis-line")
    svg.text(left + (PANEL - left - right) / 2, height - 4, "epoch", "axis", "middle")
    ends = []
    for (run, style), group in groupby(sorted(rows, key=lambda r: (r[3], r[0])), key=lambda r: (r[0], r[3])):
        line = sorted((epoch, math.log10(v) if log else v) for _, epoch, v, _ in group)
        points = [(x(e), y(v)) for e, v in line]
        series = _series(run)
        if len(points) > 1:
            svg.path(polyline(points), f"curve stroke-{series}{style}")
        for (epoch, value), (px, py) in zip(line, points, strict=True):
            shown = text.number(10**value if log else value)
            radius = 2.5 if len(points) <= 40 and not style else 1.5
            svg.circle(px, py, radius, f"fill-{series}", f"{text.name(run)}, epoch {epoch}: {shown}")
        label = text.short_name(run) + (", train" if style else "")
        ends.append((points[-1][1], points[-1][0], label, series))
    for wanted, (_, px, label, series) in zip(_spread([e[0] for e in ends], 14), ends, strict=True):
        svg.text(px + 7, wanted + 4, label, f"end text-{series}")
    return svg


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        marks = [e + math.log10(f) for e in exponents for f in factors]
        inside = [m for m in marks if low - 1e-9 <= m <= high + 1e-9]
        if len(inside) >= 3:
            return inside
    return inside or [low]


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions near the wanted ones, at least ``gap`` apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    for before, after in zip(order, order[1:], strict=False):
        placed[after] = max(placed[after], placed[before] + gap)
    return placed


# -- binary points ---------------------------------------------------------------------------------

ROLES = (
    ("Weights", ("weight", "scale")),
    ("Biases", ("bias", "offset")),
    ("Input and activations", ("input", "activation")),
)


def binary_points(points: Sequence[BinaryPoint]) -> list[tuple[str, Svg]]:
    """A panel for weights, biases and activations: a row for every quantizer."""
    charts = []
    known = {role for _, roles in ROLES for role in roles}
    others = tuple(dict.fromkeys(p.role for p in points if p.role not in known))
    for title, roles in (*ROLES, ("Others", others)):
        rows = [p for p in points if p.role in roles]
        if rows:
            charts.append((title, _points_panel(title, rows)))
    return charts


def _points_panel(title: str, rows: Sequence[BinaryPoint]) -> Svg:
    left, right, top = 164, 76, 36
    heights = [26 if len(p.learned) > 1 else 19 for p in rows]
    height = top + sum(heights) + 40
    svg = Svg(PANEL, height, f"{title}: fraction bits before and after training")
    everything = [n for p in rows for n in (*p.calibrated, *p.learned)]
    low, high = min(everything) - 1, max(everything) + 1
    bottom = height - 40

    def x(frac: float) -> float:
        return left + (PANEL - left - right) * (frac - low) / (high - low)

    for mark in integer_ticks(low, high, 8):
        svg.line(x(mark), top - 3, x(mark), bottom, "grid")
        svg.text(x(mark), bottom + 14, text.minus(str(mark)), "tick", "middle")
        svg.text(x(mark), top - 8, text.minus(str(mark)), "tick", "middle")
    svg.text((left + PANEL - right) / 2, bottom + 31, "fraction bits", "axis", "middle")
    svg.text(PANEL - 2, 10, "before → after", "note", "end")
    y = float(top)
    for p, h in zip(rows, heights, strict=True):
        middle = y + h / 2
        moved = p.calibrated != p.learned
        svg.text(left - 14, middle + 4, shorten(p.path, 25), "label small", "end", f"{p.path} ({p.name})")
        kind = f"{'s' if p.signed else 'u'}{p.bits}"
        change = f"{_span(p.calibrated)} → {_span(p.learned)}" if moved else _span(p.learned)
        svg.text(PANEL - 2, middle + 4, change, "value" if moved else "note", "end", _points_title(p, kind))
        if len(p.learned) == 1 and len(p.calibrated) == 1:
            a, b = x(p.calibrated[0]), x(p.learned[0])
            if moved:
                svg.line(a, middle, b, middle, "dumbbell")
                svg.circle(a, middle, 4.5, "hollow", f"{p.path}: calibrated at {p.calibrated[0]}")
            svg.circle(b, middle, 4.5, "fill-frozen" if p.frozen else "fill-after", _points_title(p, kind))
        else:
            _lane(svg, x, middle - 5.5, p.calibrated, "hollow", "calibrated")
            _lane(svg, x, middle + 5.5, p.learned, "fill-frozen" if p.frozen else "fill-after", "learned")
        y += h
    return svg


def _lane(svg: Svg, x: _Scale, y: float, fracs: Sequence[int], css: str, what: str) -> None:
    """Circles whose areas are the numbers of channels at each position."""
    svg.line(x(min(fracs)), y, x(max(fracs)), y, "lane")
    for frac in sorted(set(fracs)):
        n = sum(f == frac for f in fracs)
        radius = max(1.6, 5.0 * math.sqrt(n / len(fracs)))
        svg.circle(x(frac), y, radius, css, f"{what}: {text.plural(n, 'channel')} of {len(fracs)} at {frac}")


def _span(fracs: Sequence[int]) -> str:
    low, high = min(fracs), max(fracs)
    return text.minus(str(low) if low == high else f"{low}…{high}")


def _points_title(p: BinaryPoint, kind: str) -> str:
    state = (
        "given, not learned" if p.frozen else f"calibrated {_span(p.calibrated)}, learned {_span(p.learned)}"
    )
    return f"{p.path}: {p.role} {kind}, {state}"


# -- histograms ------------------------------------------------------------------------------------


def histogram(h: Histogram) -> Svg:
    """Values as bars over the shaded range of the format; below, how often each code is used."""
    left, right, top, plot = 6, 6, 4, 62
    width = HISTOGRAM - left - right
    strip = 9 if h.codes else 0
    base = top + plot
    shown = f"{h.path}: {h.samples:,} values, {h.clipped:,} clipped, format {h.format.text}"
    svg = Svg(HISTOGRAM, base + strip + 20, shown)
    step = 1.0 if h.unit == "code" else h.format.step
    first, last = h.range_low - step / 2, h.range_high + step / 2

    def x(value: float) -> float:
        return left + width * (value - h.low) / (h.high - h.low)

    inside = f"range of {h.format.short}: {text.number(h.range_low)} to {text.number(h.range_high)}"
    svg.rect(x(first), top, x(last) - x(first), plot, "range", inside)
    most = max(h.counts) or 1
    for clipped in (False, True):
        bars = _bars(h, x, base, plot / most, first, last, clipped)
        if bars:
            svg.path(bars, "bars-clipped" if clipped else "bars", shown)
    svg.line(left, base, HISTOGRAM - right, base, "axis-line")
    if h.codes:
        _code_strip(svg, h, x, base + 2, strip - 2, step)
    y = base + strip + 13
    for value, anchor in ((h.range_low, "start"), (h.range_high, "end")):
        place = x(first) if anchor == "start" else x(last)
        narrow = x(last) - x(first) < 70
        side = {"start": "end", "end": "start"}[anchor] if narrow else anchor
        place = min(
            max(place, left + (30 if side == "end" else 0)),
            HISTOGRAM - right - (30 if side == "start" else 0),
        )
        svg.text(place, y, text.number(value), "tick", side)
    if h.low < 0 < h.high and x(last) - x(first) > 100 and h.range_low < 0:
        svg.text(x(0), y, "0", "tick", "middle")
    return svg


def _code_strip(svg: Svg, h: Histogram, x: _Scale, y: float, height: float, step: float) -> None:
    """A cell for every code, the darker the more often it is used; many codes share a path per shade."""
    most = max(h.codes) or 1
    paths: dict[int, list[str]] = {}
    few = len(h.codes) <= 16
    for i, n in enumerate(h.codes):
        a, b = x((h.code_low + i - 0.5) * step), x((h.code_low + i + 0.5) * step)
        inset = 0.4 if b - a > 3 else 0.0
        level = 0 if n == 0 else 1 + min(3, int(4 * math.sqrt(n / most) - 1e-9))
        if few:
            title = f"code {h.code_low + i}: {n:,} values ({text.percent(100 * n / h.samples)})"
            svg.rect(a + inset, y, b - a - 2 * inset, height, f"code-{level}", title)
        else:
            paths.setdefault(level, []).append(
                f"M{a + inset:.1f} {y:.0f}V{y + height:.0f}H{b - inset:.1f}V{y:.0f}Z"
            )
    for level, parts in sorted(paths.items()):
        svg.path("".join(parts), f"code-{level}")


def _bars(
    h: Histogram, x: _Scale, base: float, scale: float, first: float, last: float, clipped: bool
) -> str:
    """Path data of the bars that lie outside the range, or inside."""
    step = (h.high - h.low) / len(h.counts)
    parts = []
    for i, n in enumerate(h.counts):
        centre = h.low + (i + 0.5) * step
        if n and clipped != (first <= centre <= last):
            a, b = x(h.low + i * step), x(h.low + (i + 1) * step)
            tall = max(0.7, n * scale)
            parts.append(f"M{a:.1f} {base:.1f}V{base - tall:.1f}H{b:.1f}V{base:.1f}Z")
    return "".join(parts)


# -- cost ------------------------------------------------------------------------------------------


def mac_cost(rows: Sequence[MacCost]) -> Svg:
    """LUTs of every kernel as bars by operand width, with the ratio to the integer of that width."""
    left, right, height = 74, 84, 22
    groups = [
        list(g) for _, g in groupby(sorted(rows, key=lambda r: (r.bits, not r.integer)), key=lambda r: r.bits)
    ]
    total = sum(len(g) for g in groups) * height + len(groups) * 22
    svg = Svg(PANEL, total + 34, "LUTs of multiply-accumulate kernels by format")
    most = max(r.lut for r in rows) or 1
    marks = ticks(0, most, 4)
    plot = PANEL - left - right
    for mark in marks:
        svg.line(left + plot * mark / most, 0, left + plot * mark / most, total, "grid")
        svg.text(left + plot * mark / most, total + 14, text.count(mark), "tick", "middle")
    svg.text(left + plot / 2, total + 30, "LUT", "axis", "middle")
    y = 0
    for group in groups:
        svg.text(2, y + 15, f"{group[0].bits}-bit operands", "note")
        y += 22
        for row in group:
            ratio = ratio_to_integer(row, rows)
            css = "fill-float" if row.integer else "fill-after"
            title = f"{row.format}: {text.plural(row.lut, 'LUT')}, {text.plural(row.dsp, 'DSP')}"
            svg.text(left - 8, y + 14, shorten(row.format, 10), "label", "end", row.format)
            svg.rect(left, y + 2, plot * row.lut / most, height - 6, css, title, 2)
            svg.text(left + plot * row.lut / most + 6, y + 14, text.count(row.lut), "value")
            if ratio is not None and not row.integer:
                svg.text(
                    PANEL - 2,
                    y + 14,
                    f"×{ratio:.2f}",
                    "note",
                    "end",
                    "LUTs relative to the integer of this width",
                )
            y += height
    return svg


def ratio_to_integer(row: MacCost, rows: Iterable[MacCost]) -> float | None:
    """LUTs over those of the integer kernel with as many operand bits; ``None`` without one, or where either
    takes DSP blocks, which LUTs do not count."""
    for other in rows:
        if other.integer and other.bits == row.bits:
            return row.lut / other.lut if other.lut and not row.dsp and not other.dsp else None
    return None


def share(part: float | None, whole: float, css: str = "fill-after") -> Svg | str:
    """A bar inside a table cell."""
    if part is None or whole <= 0:
        return ""
    svg = Svg(46, 8, f"{text.percent(100 * part / whole)} of the largest", "cell")
    svg.rect(0, 0, 46, 8, "track", "", 1)
    if part > 0:
        svg.rect(0, 0, max(1.0, 46 * part / whole), 8, css, "", 1)
    return svg


def _series(key: str) -> str:
    return {"float": "float", "ptq": "before", "learned": "after"}.get(key, "other")
