"""The numbers that weights can become, as a grid to round to by other rules than to the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from qfx.formats.fixed import FixedPoint
from qfx.nn.quantizer import Quantizer

#: Formats of more bits than this are not listed number by number.
_MOST_LISTED_BITS = 16


@dataclass(frozen=True, eq=False)
class Grid:
    """Ascending numbers times a power of two per row.

    Attributes:
        scale: ``2**frac``, float64, broadcasts against what is rounded.
        low, high: the ends in units of ``2**-frac``.
        numbers: all of them, float64, ascending; ``None`` when they are the integers between the ends.
    """

    scale: torch.Tensor
    low: float
    high: float
    numbers: torch.Tensor | None

    def down(self, x: torch.Tensor) -> torch.Tensor:
        """The largest number not above ``x``, or the smallest of all."""
        if self.numbers is None:
            return torch.floor(x * self.scale).clamp(self.low, self.high) / self.scale
        at = torch.searchsorted(self.numbers, (x * self.scale).contiguous(), right=True) - 1
        return self.numbers[at.clamp(min=0)] / self.scale

    def up(self, x: torch.Tensor) -> torch.Tensor:
        """The smallest number not below ``x``, or the largest of all."""
        if self.numbers is None:
            return torch.ceil(x * self.scale).clamp(self.low, self.high) / self.scale
        at = torch.searchsorted(self.numbers, (x * self.scale).contiguous())
        return self.numbers[at.clamp(max=len(self.numbers) - 1)] / self.scale

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """The number closest to ``x``; of two, the even code in fixed point and the smaller one otherwise."""
        if self.numbers is None:
            return torch.round(x * self.scale).clamp(self.low, self.high) / self.scale
        down, up = self.down(x), self.up(x)
        return torch.where(up - x < x - down, up, down)

    def beside(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The numbers before and after ``x``, which is on the grid; at the ends ``x`` itself."""
        codes = x * self.scale
        if self.numbers is None:
            return (codes - 1).clamp(min=self.low) / self.scale, (codes + 1).clamp(max=self.high) / self.scale
        at = torch.searchsorted(self.numbers, codes.contiguous())
        before = self.numbers[(at - 1).clamp(min=0)] / self.scale
        return before, self.numbers[(at + 1).clamp(max=len(self.numbers) - 1)] / self.scale

    def rows(self, groups: int, out: int) -> Grid:
        """The same grid for weights of shape ``(groups, out / groups, n)``."""
        scale = self.scale.reshape(-1).expand(out) if self.scale.numel() == 1 else self.scale.reshape(-1)
        return Grid(scale.reshape(groups, out // groups, 1), self.low, self.high, self.numbers)


def grid_of(quantizer: Quantizer) -> Grid | None:
    """The grid of a calibrated quantizer, or ``None`` for formats whose scale comes from the data (block
    formats) or that have too many numbers to list."""
    fmt = quantizer.fmt
    if not fmt.has_point:
        return None
    numbers = None
    if not isinstance(fmt, FixedPoint):
        if fmt.width > _MOST_LISTED_BITS or not hasattr(fmt, "values"):
            return None
        numbers = torch.from_numpy(np.asarray(fmt.with_frac(0).values(), dtype=np.float64))
    frac = np.atleast_1d(np.asarray(quantizer._frac()))
    scale = torch.from_numpy(np.ldexp(1.0, frac))
    return Grid(scale, float(fmt.integer_min), float(fmt.integer_max), numbers)
