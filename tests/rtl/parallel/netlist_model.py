"""What each kind of node of a netlist computes, on arrays of integers: the reference for the text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from qfx.rtl.parallel.netlist import Netlist, Ref

Values = np.ndarray


def wrapped(value: Values, width: int, signed: bool) -> Values:
    code = value & ((1 << width) - 1)
    return np.where(code >> (width - 1), code - (1 << width), code) if signed else code


def evaluate(net: Netlist, inputs: Mapping[int, Values]) -> list[Values]:
    """The values of every node; ``inputs`` by the bit offset of an input node. Checks them against the
    intervals."""
    values: list[Values] = []
    for node in net.nodes:
        a = [values[i] for i in node.args]
        d = node.data
        v: Values
        match node.kind:
            case "input":
                v = inputs[d[1]]
            case "add":
                v = (a[0] << d[0]) + d[2] * (a[1] << d[1])
            case "offset":
                v = d[0] + d[1] * (a[0] << d[2])
            case "floor":
                v = a[0] >> d[0]
            case "wrap":
                v = wrapped(a[0] << d[2], d[0], bool(d[1]))
            case "clamp":
                v = np.clip(a[0], d[0], d[1])
            case "max":
                v = reduce(np.maximum, a)
            case "select":
                rest = a[1:]
                positive, negative = (rest.pop(0) if d[i] else d[i + 1] for i in (0, 2))
                v = np.where(a[0] >= 0, positive, negative)
            case "add_sign":
                v = a[0] + d[0] + np.where(a[0] < 0, d[1], 0)
            case "even":
                rounded = a[1] if len(a) == 2 else d[1]
                v = np.where(a[0] % (1 << d[0]) == 0, rounded & ~1, rounded)
            case "inside":
                v = np.where((d[0] <= a[0]) & (a[0] <= d[1]), a[0], 0)
            case "wrap_sm":
                rounded, floor = (a.pop(0) if d[i] else np.asarray(d[i + 1]) for i in (1, 3))
                plain, top = wrapped(rounded, d[0], True), d[0] - 1
                deleted = floor >> d[0] & 1
                turned = (plain != rounded) & (deleted != (rounded >> top & 1))
                inverted = ~rounded & ((1 << top) - 1) | deleted << top
                v = np.where(turned, wrapped(inverted, d[0], True), plain)
            case "min":
                v = reduce(np.minimum, a)
            case "narrow":
                v = a[0]
            case "append":
                v = a[0] << d[0] | d[1]
            case "fold":
                v = np.where(a[0] < 0, ~a[0], a[0])
            case "and" | "or" | "xor" | "andnot" | "gate":
                x, y = mixed(a, d)
                operations = {
                    "and": x & y,
                    "or": x | y,
                    "xor": x ^ y,
                    "andnot": x & ~y,
                    "gate": np.where(y != 0, x, 0),
                }
                v = operations[node.kind]
            case "above":
                v = np.array([(1 << int(x).bit_length()) - 1 for x in a[0]])
            case "any":
                v = (a[0] & d[0] != 0).astype(np.int64)
            case "step_up":
                x, drop, *tie = mixed(a, d[1:])
                assert ((drop & (drop + 1)) == 0).all()
                remainder, half = 2 * (x & drop), drop + 1
                floor_is_odd = (x & (drop + 1)) != 0
                ties_up = [False, True, x < 0, x >= 0, False, floor_is_odd, *(t != 0 for t in tie)][d[0]]
                v = (remainder > half) | ((remainder == half) & (drop > 0) & ties_up)
                v = ((x < 0) & (remainder > 0) if d[0] == 0 else v).astype(np.int64)
            case "round_at":
                x, drop, up = mixed(a, d[1:])
                v = ((x & ~drop) + up * (drop + 1)) >> d[0]
            case kind:
                raise AssertionError(kind)
        assert (node.low <= v).all() and (v <= node.high).all(), node
        values.append(v)
    return values


def mixed(args: list[Values], data: tuple[int, ...]) -> list[Values]:
    """Operands of which some are constants: by whether they are nodes, and the constants."""
    rest = list(args)
    return [
        rest.pop(0) if is_node else np.asarray(v) for is_node, v in zip(data[::2], data[1::2], strict=True)
    ]


def value(x: Ref, values: list[Values]) -> Values:
    return np.asarray(x.value) if x.node is None else values[x.node] << x.shift
