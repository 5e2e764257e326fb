"""Operators that only move elements."""

from __future__ import annotations

import numpy as np
import torch

from qfx.formats.fixed import smallest_format
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
        return add_move(builder, ops.Reshape(self.shape), inputs, path)

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
        return add_move(builder, ops.Transpose(self.axes), inputs, path)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.axes))


def add_move(
    builder: GraphBuilder, op: ops.Reshape | ops.Transpose, inputs: tuple[str, ...], path: str
) -> str:
    """Append a move; where it would put codes with different binary points into one channel, all are brought
    to one binary point first by a cast that loses nothing."""
    x = builder.tensor(inputs[0])
    top = x.format.max_frac
    if x.format.per_channel and not _keeps_channels_apart(op, x.shape, x.fracs):
        shifts = ops.to_frac(x, top)
        fmt = smallest_format(int((x.low << shifts).min()), int((x.high << shifts).max()), top)
        inputs = (builder.add(ops.Cast(fmt), inputs, path),)
    return builder.add(op, inputs, path)


def _keeps_channels_apart(
    op: ops.Reshape | ops.Transpose, shape: tuple[int, ...], fracs: tuple[int, ...]
) -> bool:
    places = np.broadcast_to(np.asarray(fracs).reshape(-1, *(1,) * (len(shape) - 1)), shape)
    moved = places.reshape(op.shape) if isinstance(op, ops.Reshape) else places.transpose(op.axes)
    rows = moved.reshape(moved.shape[0], -1)
    return bool((rows.min(axis=1) == rows.max(axis=1)).all())
