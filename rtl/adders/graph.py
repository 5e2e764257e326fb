"""A graph of two-operand adders: what a constant matrix becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qfx.graph.tensor import integers


@dataclass(frozen=True)
class Adder:
    """``sign_a * (a << shift_a) + sign_b * (b << shift_b)``.

    ``a`` and ``b`` number the inputs of the graph first, then its adders. At most one sign is -1.
    """

    a: int
    b: int
    shift_a: int
    shift_b: int
    sign_a: int
    sign_b: int


@dataclass(frozen=True)
class Output:
    """``sign * (node << shift)``; ``node`` is ``None`` for a row of zeros."""

    node: int | None
    shift: int
    sign: int


@dataclass(frozen=True, eq=False)
class AdderGraph:
    """A matrix times a vector in additions, subtractions and shifts.

    Attributes:
        inputs: length of the vector.
        adders: each after its operands.
        outputs: one per row of the matrix.
    """

    inputs: int
    adders: tuple[Adder, ...] = field(repr=False)
    outputs: tuple[Output, ...] = field(repr=False)

    def forms(self) -> np.ndarray:
        """Every node as a combination of the inputs: ``object`` integers ``(inputs + adders, inputs)``."""
        forms = np.zeros((self.inputs + len(self.adders), self.inputs), dtype=object)
        forms[: self.inputs] = np.eye(self.inputs, dtype=object)
        for node, adder in enumerate(self.adders, self.inputs):
            a, b = forms[adder.a] * (1 << adder.shift_a), forms[adder.b] * (1 << adder.shift_b)
            forms[node] = adder.sign_a * a + adder.sign_b * b
        return forms

    def intervals(self, low: Sequence[int], high: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The interval of each adder when the inputs are independent of each other: exact."""
        forms = self.forms()[self.inputs :]
        least, most = integers(low), integers(high)
        positive, negative = np.maximum(forms, 0), np.minimum(forms, 0)
        lows, highs = positive @ least + negative @ most, positive @ most + negative @ least
        return tuple((int(a), int(b)) for a, b in zip(lows, highs, strict=True))

    def matrix(self) -> np.ndarray:
        """The matrix that the graph computes, by its structure alone: ``object`` integers ``(rows,
        inputs)``."""
        forms = self.forms()
        rows = [
            np.zeros(self.inputs, dtype=object)
            if out.node is None
            else out.sign * forms[out.node] * (1 << out.shift)
            for out in self.outputs
        ]
        return np.array(rows, dtype=object).reshape(len(self.outputs), self.inputs)

    def depths(self) -> list[int]:
        """Adders on the longest way to each node."""
        depths = [0] * self.inputs
        for adder in self.adders:
            depths.append(max(depths[adder.a], depths[adder.b]) + 1)
        return depths
