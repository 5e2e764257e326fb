"""Max and average pooling."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from qfx.graph import ops
from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound
from qfx.nn.elementwise import dyadic
from qfx.nn.module import Exact, QuantModule, to


class QuantMaxPool(QuantModule):
    """``max_pool`` of docs/graph.md; exact on any grid.

    Args:
        kernel, stride: one number per spatial axis.
        padding: (before, after) per spatial axis.
    """

    def __init__(
        self, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[tuple[int, int], ...]
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.symmetric = all(
            before == after <= k // 2 for (before, after), k in zip(padding, kernel, strict=True)
        )

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        x = to(x, exact)
        pool = F.max_pool1d if len(self.kernel) == 1 else F.max_pool2d
        if self.symmetric:
            return pool(x, self.kernel, self.stride, [before for before, _ in self.padding])
        x = F.pad(x, [p for pair in reversed(self.padding) for p in pair], value=-torch.inf)
        return pool(x, self.kernel, self.stride)

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        space = ops.window_shape(x.shape, self.kernel, self.stride, self.padding, (1,) * len(self.kernel))
        return Bound((x.shape[0], *space), x.fracs, x.magnitude)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return builder.add(ops.MaxPool(self.kernel, self.stride, self.padding), inputs, path)


class QuantAvgPool(QuantModule):
    """``avg_pool`` of docs/graph.md: the window's sum times a constant.

    Args:
        kernel, stride: one number per spatial axis.
        padding: (before, after) per spatial axis; padding counts as zeros.
        bits: significant bits of the constant ``1 / places``; it is exact when the window has ``2**k``
            places.
        mean: divide by the number of places; otherwise the result is the sum.
    """

    grows: ClassVar[bool] = True

    def __init__(
        self,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[tuple[int, int], ...],
        bits: int,
        mean: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.scale_code, self.scale_frac = dyadic(1.0 / int(np.prod(kernel)) if mean else 1.0, bits)
        self.symmetric = all(
            before == after <= k // 2 for (before, after), k in zip(padding, kernel, strict=True)
        )

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        x = to(x, exact)
        padding = [before for before, _ in self.padding]
        if not self.symmetric:
            x = F.pad(x, [p for pair in reversed(self.padding) for p in pair])
            padding = [0] * len(padding)
        # As images also in one dimension: avg_pool1d has no way to ask for the sum.
        flat = len(self.kernel) == 1
        kernel, stride = ((1, *self.kernel), (1, *self.stride)) if flat else (self.kernel, self.stride)
        if flat:
            x, padding = x.unsqueeze(2), [0, *padding]
        x = F.avg_pool2d(x, kernel, stride, padding, divisor_override=1)
        x = x * (self.scale_code * 2.0**-self.scale_frac)
        return x.squeeze(2) if flat else x

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        space = ops.window_shape(x.shape, self.kernel, self.stride, self.padding, (1,) * len(self.kernel))
        magnitude = x.magnitude * float(np.prod(self.kernel)) * self.scale_code
        return Bound((x.shape[0], *space), x.fracs + self.scale_frac, magnitude)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        op = ops.AvgPool(self.kernel, self.stride, self.padding, self.scale_code, self.scale_frac)
        return builder.add(op, inputs, path)
