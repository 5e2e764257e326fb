"""Operators of the graph from float constants of other tools, and where float32 is not exact."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np

from qfx.exact import FLOAT32_BOUND
from qfx.graph import arrays, ops
from qfx.graph.graph import Graph, Node
from qfx.graph.interpreter import partial_sum_bound
from qfx.interop.dyadic import SHORT, constant, fraction_bits
from qfx.interop.problems import Refused

#: Operators whose sums and products float32 may round; all others pass numbers on.
COMPUTING = (
    ops.Weighted, ops.Affine, ops.Add, ops.Sub, ops.Mul, ops.AvgPool, ops.LeakyRelu,
    arrays.ReduceSum, arrays.MatMul,
)  # fmt: skip


def inexact_in_float32(graph: Graph) -> list[tuple[Node, int]]:
    """Nodes whose partial sums float32 (24 bits) may not hold, and how many bits they take at most."""
    found = []
    for node in graph.nodes[1:]:
        if isinstance(node.op, COMPUTING):
            bound = partial_sum_bound(node, graph.operands(node))
            if bound >= FLOAT32_BOUND:
                found.append((node, bound.bit_length()))
    return found


def clip(low: float | None, high: float | None) -> ops.Clip:
    """``clip`` between real numbers.

    Raises:
        Refused: a bound is not a binary fraction of 31 bits.
    """
    bounds = np.array([b for b in (low, high) if b is not None], dtype=np.float64)
    constant(bounds, 31)
    frac = max(0, fraction_bits(bounds))
    codes = [None if b is None else int(np.ldexp(float(b), frac)) for b in (low, high)]
    return ops.Clip(codes[0], codes[1], frac)


def leaky_relu(slope: float) -> ops.LeakyRelu:
    """``leaky_relu`` with a real slope.

    Raises:
        Refused: the slope is not a short binary fraction.
    """
    codes, fmt = constant(np.array([slope]), SHORT)
    frac = max(0, fmt.max_frac)
    return ops.LeakyRelu(int(codes[0]) << (frac - fmt.max_frac), frac)


def exact_norm(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float
) -> ops.Affine:
    """A BatchNorm on running statistics as ``affine``: ``y = x * g + (beta - mean * g)`` with
    ``g = gamma / sqrt(var + eps)``, all float64 of shape ``(channels,)``.

    Raises:
        Refused: a root is irrational, or a factor is not a short binary fraction.
    """
    factors, offsets = [], []
    for g, b, m, v in zip(*(a.tolist() for a in (gamma, beta, mean, var)), strict=True):
        square = Fraction(v) + Fraction(eps)
        roots = isqrt(max(square.numerator, 0)), isqrt(square.denominator)
        if square <= 0 or (roots[0] ** 2, roots[1] ** 2) != (square.numerator, square.denominator):
            raise Refused(f"1/sqrt({float(square):g}) is not a binary fraction")
        factor = Fraction(g) * roots[1] / roots[0]
        offset = Fraction(b) - Fraction(m) * factor
        if any(f.denominator & (f.denominator - 1) for f in (factor, offset)):
            raise Refused(f"its factor {float(factor):g} is not a binary fraction")
        factors.append(float(factor))
        offsets.append(float(offset))
    return ops.Affine(*constant(np.array(factors), SHORT), *constant(np.array(offsets), SHORT))
