"""From a constant matrix to a shared adder graph."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qfx.errors import QfxError, UnsupportedError
from qfx.rtl import native
from qfx.rtl.adders.graph import Adder, AdderGraph, Output

_SOURCE = Path(__file__).with_name("adders.cpp")
# What a try may cost in all, in pairs of nonzero digits within a row; fixed, so that every machine gives the
# same graph.
_WORK = 400_000
_DEPTH_WEIGHT = 0.2
_LONG = 96


def optimize(
    matrix: np.ndarray,
    low: Sequence[int],
    high: Sequence[int],
    depth: Sequence[int] | None = None,
    tries: int | None = None,
) -> AdderGraph:
    """Additions, subtractions and shifts that compute ``matrix @ x``.

    Common two-term patterns are taken out one by one, the one that saves most first, as Hosangadi, Fallah and
    Kastner do ("Common subexpression elimination involving multiple variables for linear DSP synthesis", ASAP
    2004), weighted by the size of the adder as in Sun et al., "da4ml" (arXiv 2507.04535); but over every
    minimal signed-digit form of a coefficient at once. The whole is done several times with varied weights
    and the cheapest graph is kept. The result depends on nothing but the arguments.

    Args:
        matrix: integers ``(rows, inputs)``.
        low, high: interval of each input.
        depth: levels of logic in front of each input, 0 by default; inputs that come late are added late.
        tries: how often; by default as often as a fixed amount of work allows, between 2 and 24.

    Returns:
        The graph; :meth:`AdderGraph.matrix` has been compared with ``matrix``.

    Raises:
        UnsupportedError: a result needs more than 58 bits.
        QfxError: there is no C++ compiler (the optimizer is compiled on
        first use).
    """
    rows, inputs = matrix.shape
    exact = np.array([[int(w) for w in row] for row in matrix], dtype=object).reshape(rows, inputs)
    largest = [max(abs(int(a)), abs(int(b)), 1) for a, b in zip(low, high, strict=True)]
    # A factor of a whole row is a shift of its output.
    shifts = [_trailing_zeros(row) for row in exact]
    reduced = np.array([[w >> s for w in row] for row, s in zip(exact, shifts, strict=True)], dtype=object)
    reach = max((sum(abs(w) * m for w, m in zip(row, largest, strict=True)) for row in reduced), default=0)
    # Signed-digit forms reach one bit further than the sums themselves, partial sums of them another.
    if reach >= 1 << 58:
        raise UnsupportedError(
            f"adder graph: sums of up to {reach.bit_length()} bits; up to 58 are supported. "
            'Use narrower weights or inputs, or architecture="stream"'
        )
    library = native.library(_SOURCE)
    if library is None:
        raise QfxError("adder graph: no C++ compiler (g++ or c++) on PATH; install one")
    small = np.ascontiguousarray(reduced.reshape(rows, inputs).astype(np.int64))
    weights = _digits(small)
    if tries is None:
        pairs = int((weights.sum(axis=1) ** 2).sum())
        tries = int(np.clip(_WORK // max(1, pairs), 2, 24)) if pairs < 4 * _WORK else 1
    room = max(1, int(weights.sum()))
    # Patterns of long rows are looked for within groups of inputs: the work grows with the square of a group.
    group = inputs if inputs <= _LONG else -(-inputs // -(-inputs // _LONG))
    settings = np.array([inputs, rows, room, tries, max(group, 1)], dtype=np.int64)
    ends = np.array([list(low), list(high), list(depth or [0] * inputs)], dtype=np.int64).reshape(3, inputs)
    options = np.array([_DEPTH_WEIGHT], dtype=np.float64)
    adders = np.zeros((room, 6), dtype=np.int64)
    outputs = np.zeros((rows, 3), dtype=np.int64)
    arrays = (settings, small, *ends, options, adders, outputs)
    count = library.qfx_adders(*(array.ctypes.data_as(ctypes.c_void_p) for array in arrays))
    assert count >= 0, "every adder removes a digit, so there are fewer adders than digits"
    graph = AdderGraph(
        inputs,
        tuple(Adder(*(int(v) for v in record)) for record in adders[:count]),
        tuple(
            Output(None, 0, 1) if node < 0 else Output(int(node), int(shift) + own, int(sign))
            for (node, shift, sign), own in zip(outputs, shifts, strict=True)
        ),
    )
    if not np.array_equal(graph.matrix(), exact):
        raise AssertionError("the adder graph does not compute its matrix")  # a fault of the optimizer
    return graph


def _trailing_zeros(row: np.ndarray) -> int:
    union = 0
    for value in row:
        union |= abs(int(value))
    return (union & -union).bit_length() - 1 if union else 0


def _digits(matrix: np.ndarray) -> np.ndarray:
    """Nonzero digits of the shortest signed-digit form of each element."""
    magnitude = np.abs(matrix)
    return np.bitwise_count(magnitude ^ (3 * magnitude)).astype(np.int64)
