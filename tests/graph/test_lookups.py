"""Tables as memories: every code that an operand can have finds its entry."""

from __future__ import annotations

import numpy as np
import pytest

from qfx.errors import UnsupportedError
from qfx.formats import FixedPoint, Minifloat
from qfx.graph import Graph, GraphBuilder, arrays, ops
from qfx.graph.functions import Table, members_between
from qfx.graph.lookups import Lookup, constant_tensors, float_place, lookup
from qfx.graph.tensor import Tensor, integers


def entry(found: Lookup, code: int, channel: int) -> int:
    """What hardware does with a code."""
    aligned = code << found.align[channel]
    if not found.precision:
        return int(found.entries[aligned - found.first])
    half = len(found.entries) // 2 if aligned < 0 else 0
    assert half == 0 or found.signed
    return int(found.entries[float_place(abs(aligned), found.precision) + half])


def tensor(fmt: FixedPoint, low: int, high: int, encoding: Minifloat | None = None) -> Tensor:
    return Tensor((2, 3), fmt, integers([low, low]), integers([high, high]), encoding)


@pytest.mark.parametrize(
    ("x", "extra"),
    [
        (tensor(FixedPoint(6, 3), -32, 31), 0),
        (tensor(FixedPoint(6, 3), -7, 20), 2),
        (tensor(FixedPoint(5, (2, 4), signed=False), 0, 31), 1),
        (tensor(FixedPoint(8, 5, signed=False), 0, 128, Minifloat(3, 1, 5)), 0),
        (tensor(FixedPoint(19, 9), -(448 << 9), 448 << 9, Minifloat(4, 3, specials="fn")), 0),
        (tensor(FixedPoint(19, 9), -(32 << 9), 448 << 9, Minifloat(4, 3, specials="fn")), 1),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_every_code_finds_its_entry(x: Tensor, extra: int, listed: bool) -> None:
    rng = np.random.default_rng(extra)
    frac = max(x.fracs) + extra
    shifts = ops.to_frac(x, frac)
    low, high = int((x.low << shifts).min()), int((x.high << shifts).max())
    inputs = None
    if listed:
        if x.encoding is None:
            return
        inputs = np.array(members_between(x.encoding, frac, low, high), dtype=np.int64)
    size = high - low + 1 if inputs is None else len(inputs)
    op = Table(frac, FixedPoint(9, 2), 0 if listed else low, inputs, rng.integers(-256, 256, size))
    found = lookup(op, x)
    assert len(found.entries) <= 2048
    for channel, shift in enumerate(shifts):
        codes = np.arange(int(x.low[channel]), int(x.high[channel]) + 1)
        if x.encoding is not None:
            codes = np.array(members_between(x.encoding, x.fracs[channel], codes[0], codes[-1]))
        single = np.broadcast_to((codes << int(shift))[:, None], (len(codes), 2))
        # The operator by itself, on codes that are aligned already.
        wanted = op.table[
            single[:, 0] - op.first if inputs is None else np.searchsorted(inputs, single[:, 0])
        ]
        assert [entry(found, int(c), channel) for c in codes] == wanted.tolist()


def test_a_memory_that_is_too_large_is_refused() -> None:
    x = tensor(FixedPoint(30, 3), 0, 1 << 25)
    members = np.array([0, 1 << 25], dtype=np.int64)
    with pytest.raises(UnsupportedError, match="33554433 entries, and 1048576 are supported"):
        lookup(Table(3, FixedPoint(4, 2), 0, members, np.array([1, 2])), x)


def graph() -> Graph:
    builder = GraphBuilder()
    x = builder.add(ops.Input((2, 3), FixedPoint(4, 2)), path="input")
    row = builder.add(arrays.Constant(np.array([[1, -2, 3]]), FixedPoint(4, 2)), (), "table")
    both = builder.add(arrays.Repeat((2, 1)), [row], "table")
    return builder.build(builder.add(ops.Add(), [x, both], "add"))


def test_tensors_without_an_input() -> None:
    g = graph()
    known = constant_tensors(g)
    assert {g[name].op.kind for name in known} == {"constant", "repeat"}
    (repeated,) = (codes for name, codes in known.items() if g[name].op.kind == "repeat")
    assert repeated.tolist() == [[[1, -2, 3], [1, -2, 3]]]
