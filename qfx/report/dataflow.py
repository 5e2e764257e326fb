"""The drawing of the dataflow graph: boxes of operators, tensors on the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qfx.report import text
from qfx.report.build import Layer
from qfx.report.layout import Place, layered
from qfx.report.svg import Svg, shorten

BOX = 206.0
LINE = 14.0
SPACE = 42.0  # between boxes: the tensor is written there
MARGIN = 8.0
COLUMN = 680.0  # pixels of height, about, before the drawing goes on in another column
_FOLLOWERS = frozenset({"relu", "leaky_relu", "clip", "cast", "affine", "reshape", "transpose"})
_CLASSES = {
    "input": "end", "linear": "weighted", "conv": "weighted", "add": "join", "sub": "join", "mul": "join",
    "concat": "join", "max_pool": "pool", "avg_pool": "pool",
}  # fmt: skip


@dataclass
class Box:
    """Nodes that follow each other without a branch, drawn as one."""

    nodes: list[Layer]

    @property
    def height(self) -> float:
        return 12 + LINE * (1 + len(self.nodes))


def boxes(layers: Sequence[Layer]) -> list[Box]:
    """A box for every node; element-wise operators, casts and reshapes join the box before them."""
    consumers: dict[str, int] = {}
    for layer in layers:
        for name in layer.inputs:
            consumers[name] = consumers.get(name, 0) + 1
    found: list[Box] = []
    of: dict[str, Box] = {}
    for layer in layers:
        before = of.get(layer.inputs[0]) if len(layer.inputs) == 1 else None
        if (
            before is not None
            and layer.op in _FOLLOWERS
            and consumers[layer.inputs[0]] == 1
            and len(before.nodes) < 5
        ):
            before.nodes.append(layer)
            of[layer.name] = before
        else:
            of[layer.name] = Box([layer])
            found.append(of[layer.name])
    return found


def dataflow(layers: Sequence[Layer]) -> list[Svg]:
    """Drawings that continue each other, top to bottom."""
    found = boxes(layers)
    owner = {layer.name: i for i, box in enumerate(found) for layer in box.nodes}
    edges = dict.fromkeys(
        (owner[name], i) for i, box in enumerate(found) for name in box.nodes[0].inputs if name in owner
    )
    rows = layered(dict.fromkeys(range(len(found)), BOX), list(edges))
    heights = [max((found[p.key].height for p in row if not p.dummy), default=LINE) for row in rows]
    total = sum(heights) + SPACE * len(heights)
    limit = total / math.ceil(total / COLUMN)
    columns: list[list[int]] = [[]]
    filled = 0.0
    for i, height in enumerate(heights):
        if columns[-1] and filled + height / 2 > limit * len(columns):
            columns.append([])
        columns[-1].append(i)
        filled += height + SPACE
    width = max(p.x + p.width / 2 for row in rows for p in row) + 2 * MARGIN
    return [_column(found, rows, heights, numbers, width) for numbers in columns]


def _column(
    found: list[Box], rows: list[list[Place]], heights: list[float], numbers: list[int], width: float
) -> Svg:
    first = numbers[0]
    continued = first > 0
    top = {}
    y = SPACE if continued else MARGIN
    for i in numbers:
        top[i] = y
        y += heights[i] + SPACE
    height = y
    names = [
        node.path or node.name for i in numbers for p in rows[i] if not p.dummy for node in found[p.key].nodes
    ]
    svg = Svg(width, height, f"Dataflow graph: {', '.join(names)}", "dataflow")
    for i in numbers:
        for place in rows[i]:
            x = place.x + MARGIN
            bottom = top[i] + (heights[i] if place.dummy else found[place.key].height)
            if place.dummy:
                svg.path(f"M{x:.1f} {top[i]:.1f}V{bottom:.1f}", "edge")
            for lower in place.below:
                to = top.get(i + 1, height)
                port = _port(place, lower) + MARGIN if i + 1 in top else x
                svg.path(_edge(x, bottom, port, to), "edge")
                if not lower.dummy and i + 1 in top:
                    _arrow(svg, port, to)
            if not place.below and not place.dummy:
                svg.path(_edge(x, bottom, x, bottom + SPACE - 8), "edge")
                _arrow(svg, x, bottom + SPACE - 8)
    if continued:
        for place in rows[first]:
            for upper in place.above:
                port = _port(upper, place) + MARGIN
                svg.path(_edge(upper.x + MARGIN, 0, port, top[first]), "edge")
                if not place.dummy:
                    _arrow(svg, port, top[first])
    for i in numbers:
        for place in rows[i]:
            if not place.dummy:
                _box(svg, found[place.key], place.x + MARGIN, top[i])
    return svg


def _port(upper: Place, lower: Place) -> float:
    """Where an edge enters what is below: in the middle from straight above, beside it from either side."""
    if lower.dummy or abs(upper.x - lower.x) < 1 or len(lower.above) == 1:
        return lower.x
    side = [p for p in lower.above if (p.x > lower.x) == (upper.x > lower.x) and abs(p.x - lower.x) >= 1]
    side.sort(key=lambda p: abs(p.x - lower.x))
    offset = (side.index(upper) + 1) * min(28.0, 0.45 * lower.width / len(side))
    return lower.x + (offset if upper.x > lower.x else -offset)


def _edge(x1: float, y1: float, x2: float, y2: float) -> str:
    if abs(x1 - x2) < 0.5:
        return f"M{x1:.1f} {y1:.1f}V{y2:.1f}"
    # Straight past the tensor's text, then across.
    bend = max(y1, y2 - 20)
    middle = (bend + y2) / 2
    return (
        f"M{x1:.1f} {y1:.1f}V{bend:.1f}C{x1:.1f} {middle + 4:.1f} {x2:.1f} {middle - 4:.1f} {x2:.1f} {y2:.1f}"
    )


def _arrow(svg: Svg, x: float, y: float) -> None:
    svg.path(f"M{x - 4:.1f} {y - 6:.1f}L{x:.1f} {y:.1f}L{x + 4:.1f} {y - 6:.1f}Z", "arrow")


def _box(svg: Svg, box: Box, x: float, y: float) -> None:
    head, tail = box.nodes[0], box.nodes[-1]
    left = x - BOX / 2
    kind = _CLASSES.get(head.op, "other")
    title = "\n".join(
        f"{n.path or '-'}: {n.op} {n.detail}".rstrip() + f" → {text.shape(n.shape)} {n.format.text}"
        for n in box.nodes
    )
    svg.rect(left, y, BOX, box.height, f"box box-{kind}", title, 5)
    svg.rect(left, y, 4, box.height, f"tab tab-{kind}", "", 2)
    svg.text(left + 12, y + 16, shorten(head.path or head.name, 30), "box-name", title=head.path)
    for i, node in enumerate(box.nodes):
        words = f"{node.op} {node.detail}".strip()
        if node is not tail and node.op == "cast":
            words = f"cast {node.format.short}"
        svg.text(left + 12, y + 16 + LINE * (i + 1), shorten(words, 34), "box-line", title=words)
    base = y + box.height + 14
    svg.text(x - 7, base, text.shape(tail.shape), "tensor", "end")
    svg.text(x + 7, base, tail.format.short, "tensor", "start", tail.format.text)
