"""Drawing: SVG elements for a page, escaped by construction, and what every chart needs of axes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

# Characters that XML 1.0 cannot hold in any spelling, among them lone surrogates.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Number = int | float


class Svg:
    """An ``<svg>`` element under construction; colours and type come from CSS classes of the page.

    Args:
        width, height: in CSS pixels; the drawing shrinks with a narrower page but does not grow.
        label: what it shows, for readers who cannot see it.
    """

    def __init__(self, width: Number, height: Number, label: str, css: str = "") -> None:
        self.width, self.height = width, height
        self._root = ElementTree.Element(
            "svg",
            {
                "class": f"chart {css}".strip(),
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "width": _number(width),
                "height": _number(height),
                "role": "img",
                "aria-label": clean(label),
            },
        )

    def line(self, x1: Number, y1: Number, x2: Number, y2: Number, css: str, title: str = "") -> None:
        self._add("line", css, title, x1=x1, y1=y1, x2=x2, y2=y2)

    def rect(
        self, x: Number, y: Number, w: Number, h: Number, css: str, title: str = "", radius: Number = 0
    ) -> None:
        """A rectangle; negative sizes are drawn as 0."""
        self._add("rect", css, title, x=x, y=y, width=max(0, w), height=max(0, h), rx=radius)

    def circle(self, x: Number, y: Number, r: Number, css: str, title: str = "") -> None:
        self._add("circle", css, title, cx=x, cy=y, r=r)

    def path(self, d: str, css: str, title: str = "") -> None:
        """A path; ``d`` from :func:`polyline` or alike."""
        self._add("path", css, title, d=d)

    def text(
        self, x: Number, y: Number, text: str, css: str = "", anchor: str = "start", title: str = ""
    ) -> None:
        """Text on the baseline ``y``; ``anchor`` is ``start``, ``middle`` or ``end``."""
        element = self._add("text", css, "", x=x, y=y)
        if anchor != "start":
            element.set("text-anchor", anchor)
        element.text = clean(text)
        if title and title != text:
            ElementTree.SubElement(element, "title").text = clean(title)

    def _add(self, tag: str, css: str, title: str, **attributes: Number | str) -> ElementTree.Element:
        values = {k: v if isinstance(v, str) else _number(v) for k, v in attributes.items()}
        element = ElementTree.SubElement(self._root, tag, {"class": css, **values} if css else values)
        if title:
            ElementTree.SubElement(element, "title").text = clean(title)
        return element

    def __str__(self) -> str:
        return ElementTree.tostring(self._root, encoding="unicode")

    def __html__(self) -> str:
        """Tells template engines that this is markup."""
        return str(self)


def clean(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def polyline(points: Sequence[tuple[Number, Number]]) -> str:
    """Path data through points."""
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters; module paths differ at their ends, so the middle goes."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count``, at steps of 1, 2 or 5 times ``10**n``."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def integer_ticks(low: int, high: int, count: int = 8) -> list[int]:
    """Whole numbers from ``low`` to ``high``, about ``count`` of them."""
    step = next(s for s in (1, 2, 4, 5, 10, 20, 40, 50, 100, 200, 400) if (high - low) / s <= count)
    return [i for i in range(low, high + 1) if i % step == 0]


def _number(value: Number) -> str:
    return f"{round(float(value), 2):g}" if abs(value) < 1e5 else str(round(value))
