"""Fewer moves: readers write transposes around every layer that wants another axis in front.

The numbers stay the same; only where they stand between two operations changes. Transposes sink below
element-wise operations until they meet another one, and two in a row are one, or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.fx

from qfx.learn.operations import Operation

Node = torch.fx.Node
Sizes = dict[Node, tuple[int, ...]]

_UNARY = ("relu", "leaky_relu", "clip", "function")
_BINARY = ("add", "sub", "mul")


def simplify(operations: Sequence[Operation], output: Node, sizes: Sizes) -> tuple[list[Operation], Node]:
    """Operations that compute the same with fewer transposes, in order; and the node of the result.

    Args:
        operations: live operations in order.
        sizes: shape of every node; nodes that are made here are added.
    """
    current = list(operations)
    while True:
        after = _once(current, output, sizes)
        if after is None:
            return current, output
        current, output = after


def _once(operations: list[Operation], output: Node, sizes: Sizes) -> tuple[list[Operation], Node] | None:
    """One pass; ``None`` when there is nothing to do."""
    users = Counter(n for o in operations for n in o.operands)
    users[output] += 1
    moved = {o.node: o for o in operations if o.kind == "transpose"}
    instead: dict[Node, Node] = {}
    result: list[Operation] = []
    changed = False
    for o in operations:
        o.operands = [instead.get(n, n) for n in o.operands]
        inner = [moved.get(n) for n in o.operands]
        first = inner[0] if inner else None
        if o.kind == "transpose" and first is not None:
            axes = tuple(first.attributes["axes"][a] for a in o.attributes["axes"])
            changed = True
            if axes == tuple(range(len(axes))):
                instead[o.node] = first.operands[0]
                continue
            o.attributes = {"axes": axes}
            o.operands = list(first.operands)
        elif _sinks(o, inner, users, output):
            assert first is not None
            axes = first.attributes["axes"]
            before = _node(o.path, tuple(sizes[first.operands[0]]), sizes)
            transpose = Operation("transpose", [before], {"axes": axes}, o.node, o.path)
            transpose.target = f"{o.path}_transpose"
            o.operands, o.node = [i.operands[0] for i in inner if i is not None], before
            result.append(o)
            moved[transpose.node] = transpose
            changed, o = True, transpose
        result.append(o)
    if not changed:
        return None
    output = instead.get(output, output)
    needed, live = {output}, []
    for o in reversed(result):
        if o.node in needed:
            needed.update(o.operands)
            live.append(o)
    return live[::-1], output


def _sinks(o: Operation, inner: Sequence[Operation | None], users: Counter[Node], output: Node) -> bool:
    """Whether an operation can as well come before the transposes of its operands."""
    plain = o.kind in _UNARY or (
        o.kind == "affine" and o.attributes["scale"].numel() == 1 == o.attributes["offset"].numel()
    )
    if not (plain or o.kind in _BINARY) or not inner or o.node is output:
        return False
    same = {None if i is None else i.attributes["axes"] for i in inner}
    return len(same) == 1 and None not in same and all(users[n] == o.operands.count(n) for n in o.operands)


def _node(name: str, size: tuple[int, ...], sizes: Sizes) -> Node:
    node = torch.fx.Graph().placeholder("moved")
    sizes[node] = size
    return node
