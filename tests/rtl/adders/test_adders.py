"""Constant matrices as adder graphs: what they compute, and how much they share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx import QfxError
from qfx.rtl import native
from qfx.rtl.adders import AdderGraph, optimize


def run(graph: AdderGraph, x: list[int]) -> list[int]:
    """The outputs for an input vector, adder by adder."""
    values = list(x)
    for adder in graph.adders:
        a, b = values[adder.a] << adder.shift_a, values[adder.b] << adder.shift_b
        assert (adder.sign_a, adder.sign_b) in ((1, 1), (1, -1), (-1, 1))
        values.append(adder.sign_a * a + adder.sign_b * b)
    return [0 if o.node is None else o.sign * (values[o.node] << o.shift) for o in graph.outputs]


def graph_of(matrix: list[list[int]], low: int = -8, high: int = 7) -> AdderGraph:
    table = np.array(matrix, dtype=object)
    return optimize(table, [low] * table.shape[1], [high] * table.shape[1])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_matrices(data: st.DataObject) -> None:
    rows, inputs, bits = data.draw(
        st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 20)), label="size"
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    matrix = rng.integers(-(1 << bits), 1 << bits, (rows, inputs)) * (rng.random((rows, inputs)) < 0.8)
    low, high = rng.integers(-40, 1, inputs).tolist(), rng.integers(1, 40, inputs).tolist()
    graph = optimize(matrix, low, high, rng.integers(0, 4, inputs).tolist())
    intervals = graph.intervals(low, high)
    for _ in range(4):
        x = rng.integers(low, high, endpoint=True).tolist()
        assert run(graph, x) == [sum(int(w) * v for w, v in zip(row, x, strict=True)) for row in matrix]
    for (a, b), form in zip(intervals, graph.forms()[inputs:], strict=True):
        ends = [[int(w) * v for v in pair] for w, pair in zip(form, zip(low, high, strict=True), strict=True)]
        assert (a, b) == (sum(map(min, ends)), sum(map(max, ends)))


@pytest.mark.parametrize(
    ("matrix", "adders"),
    [
        ([[0, 0]], 0),
        ([[4, 0]], 0),
        ([[-1]], 0),  # a sign of the output
        ([[7]], 1),  # 8 - 1
        ([[45]], 2),  # 5 * 9: digits of a coefficient share, too
        ([[3, 3]], 2),  # (a + b) * 3
        ([[1, 1], [2, 2], [-4, -4]], 1),  # the same sum, shifted and negated
        ([[1, 2, 3], [1, 2, 5]], 4),
        ([[3, 1], [1, 3]], 3),  # 3 = 4 - 1: both rows hold a difference that a canonical form of 3 has not
        ([[5, 5, 0], [5, 5, 7]], 4),
    ],
)
def test_known_counts(matrix: list[list[int]], adders: int) -> None:
    graph = graph_of(matrix)
    assert len(graph.adders) == adders
    assert np.array_equal(graph.matrix(), np.array(matrix, dtype=object))


def test_sharing_pays() -> None:
    """A dense layer needs less than half of the adders that its digits would."""
    rng = np.random.default_rng(0)
    matrix = np.clip(np.round(rng.normal(0, 11, (64, 16))), -32, 31).astype(np.int64)
    digits = np.bitwise_count(np.abs(matrix) ^ (3 * np.abs(matrix))).sum()
    graph = optimize(matrix, [0] * 16, [15] * 16)
    assert len(graph.adders) < 0.5 * (digits - 64)


def test_late_inputs_are_added_late() -> None:
    matrix = np.ones((1, 9), dtype=np.int64)
    late = optimize(matrix, [0] * 9, [15] * 9, [0] * 8 + [7])
    # Eight inputs take three levels; the ninth comes after seven.
    depths = [0] * 8 + [7]
    for adder in late.adders:
        depths.append(max(depths[adder.a], depths[adder.b]) + 1)
    assert max(depths) <= 9


def test_long_rows() -> None:
    """Patterns are looked for in groups of inputs; the sum joins the groups."""
    rng = np.random.default_rng(1)
    matrix = rng.integers(-8, 8, (4, 300))
    graph = optimize(matrix, [0] * 300, [7] * 300)
    x = rng.integers(0, 8, 300).tolist()
    assert run(graph, x) == [int(v) for v in matrix @ np.array(x)]


def test_same_arguments_same_graph() -> None:
    matrix = np.random.default_rng(2).integers(-32, 32, (12, 12))
    first, second = (optimize(matrix, [0] * 12, [63] * 12) for _ in range(2))
    assert (first.adders, first.outputs) == (second.adders, second.outputs)


def test_sums_that_are_too_wide_are_refused() -> None:
    with pytest.raises(QfxError, match="up to 58 are supported"):
        graph_of([[(1 << 56) + 1, 1]])
    # A common factor is a shift.
    assert len(graph_of([[3 << 70, 1 << 70]]).adders) == 2


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda source: None)
    with pytest.raises(QfxError, match="no C\\+\\+ compiler"):
        graph_of([[3]])
