"""Layered drawing of a directed acyclic graph (Sugiyama, Tagawa and Toda, IEEE SMC 11, 1981).

Longest-path layers, dummy nodes where an edge skips layers, ordering by medians, and positions by least
squares under the ordering, which keeps chains straight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GAP = 26.0
DUMMY_WIDTH = 8.0
_SWEEPS = 12


@dataclass
class Place:
    """A node with its number, or a dummy where an edge passes a layer. ``x`` is the centre."""

    key: int
    width: float
    layer: int
    dummy: bool
    x: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)


def layered(widths: Mapping[int, float], edges: Sequence[tuple[int, int]]) -> list[list[Place]]:
    """Layers from top to bottom, places from left to right; every edge joins neighbouring layers.

    Args:
        widths: of the nodes, by their numbers, in topological order.
        edges: from, to; each pair once.
    """
    parents: dict[int, list[int]] = {key: [] for key in widths}
    children: dict[int, list[int]] = {key: [] for key in widths}
    for a, b in edges:
        parents[b].append(a)
        children[a].append(b)
    layer: dict[int, int] = {}
    for key in widths:
        layer[key] = max((layer[p] + 1 for p in parents[key]), default=0)
    layers: list[list[Place]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    places = {key: Place(key, width, layer[key], False) for key, width in widths.items()}
    for place in places.values():
        layers[place.layer].append(place)
    for a in widths:
        # Nearest targets first: the way on stays left, what skips ahead runs to its right.
        for b in sorted(children[a], key=lambda key: layer[key]):
            upper = places[a]
            for number in range(layer[a] + 1, layer[b]):
                dummy = Place(-1, DUMMY_WIDTH, number, True)
                layers[number].append(dummy)
                _join(upper, dummy)
                upper = dummy
            _join(upper, places[b])
    _order(layers)
    _position(layers)
    return layers


def _join(upper: Place, lower: Place) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _order(layers: list[list[Place]]) -> None:
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in layers if down else reversed(layers):
            rank = {id(p): i for other in layers for i, p in enumerate(other)}

            keys: dict[int, tuple[float, bool, int]] = {}
            for i, place in enumerate(row):
                near = sorted(rank[id(p)] for p in (place.above if down else place.below))
                middle = (near[(len(near) - 1) // 2] + near[len(near) // 2]) / 2 if near else i
                keys[id(place)] = (middle, place.dummy, i)
            row.sort(key=lambda place: keys[id(place)])


def _position(layers: list[list[Place]]) -> None:
    for row in layers:
        _settle(row, [0.0] * len(row), [1.0] * len(row))
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        for row in layers if down else reversed(layers):
            wanted, weights = [], []
            for place in row:
                pulls = [(p.x, _weight(place, p)) for p in (place.above if down else place.below)]
                weight = sum(w for _, w in pulls)
                wanted.append(sum(x * w for x, w in pulls) / weight if weight else place.x)
                weights.append(weight or 0.1)
            _settle(row, wanted, weights)
    left = min((p.x - p.width / 2 for row in layers for p in row), default=0.0)
    for row in layers:
        for place in row:
            place.x -= left


def _weight(a: Place, b: Place) -> float:
    """How much an edge wants to be straight: chains of boxes and skips, not where they meet."""
    if a.dummy and b.dummy:
        return 16.0
    return 0.001 if a.dummy or b.dummy else 2.0


def _settle(row: list[Place], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """The positions nearest to the wanted ones that keep order and distance (isotonic regression)."""
    offset, offsets = 0.0, []
    for i, place in enumerate(row):
        if i:
            offset += (row[i - 1].width + place.width) / 2 + GAP
        offsets.append(offset)
    blocks: list[list[float]] = []  # mean, weight, members
    for target, weight, shift in zip(wanted, weights, offsets, strict=True):
        blocks.append([target - shift, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, total, n = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + mean * total) / (before[1] + total)
            before[1] += total
            before[2] += n
    positions = [mean for mean, _, n in blocks for _ in range(int(n))]
    for place, position, shift in zip(row, positions, offsets, strict=True):
        place.x = position + shift
