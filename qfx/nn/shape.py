"""Operators that only move elements."""

from __future__ import annotations

import torch

from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound
from qfx.nn.module import Exact, QuantModule, to


class QuantReshape(QuantModule):
    """``reshape`` of docs/graph.md: flatten, view, reshape, squeeze, unsqueeze.

    Args:
        shape: of the result, without the batch axis.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return to(x, exact).reshape(x.shape[0], *self.shape)

    def bound(self, *operands: Bound) -> Bound:
        return operands[0].moved(lambda a: a.reshape(self.shape))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Reshape(self.shape), inputs, path)

    def extra_repr(self) -> str:
        return "x".join(map(str, self.shape))


class QuantTranspose(QuantModule):
    """``transpose`` of docs/graph.md: permute, transpose.

    Args:
        axes: the order of the axes without the batch axis, from 0.
    """

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        return to(x, exact).permute(0, *(a + 1 for a in self.axes))

    def bound(self, *operands: Bound) -> Bound:
        return operands[0].moved(lambda a: a.transpose(self.axes))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.Transpose(self.axes), inputs, path)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.axes))
