"""Choosing a binary point from data: the one with the smallest squared error."""

from __future__ import annotations

import math

import torch

from qfx.formats.base import Format
from qfx.formats.fixed import MAX_WIDTH
from qfx.nn.functional import cast

#: Numbers that an observer keeps; beyond that a random sample of what it saw.
SAMPLES = 1 << 16


class Observer:
    """Keeps a random sample of the numbers that pass by, and the extremes of every batch.

    Args:
        channels: 1, or the number of channels that get a binary point each.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._chunks: list[torch.Tensor] = []
        self._keep = 1.0
        # Its own generator: calibration neither depends on nor disturbs the global random state.
        self._random = torch.Generator().manual_seed(0)

    def see(self, x: torch.Tensor, axis: int) -> None:
        """Take a tensor into account."""
        rows = x.reshape(1, -1) if self._channels == 1 else x.movedim(axis, 0).reshape(self._channels, -1)
        if rows.shape[1] == 0:
            return
        extremes = torch.stack([rows.amin(dim=1), rows.amax(dim=1)], dim=1)
        budget = max(64, SAMPLES // self._channels)
        drawn = self._draw(rows, min(budget, math.ceil(rows.shape[1] * self._keep)))
        self._chunks.append(torch.cat([extremes, drawn], dim=1).cpu().double())
        total = sum(c.shape[1] for c in self._chunks)
        if total > 2 * budget:
            halves = [self._draw(c[:, 2:], max(1, c.shape[1] // 2)) for c in self._chunks]
            self._chunks = [
                torch.cat([c[:, :2], h], dim=1) for c, h in zip(self._chunks, halves, strict=True)
            ]
            self._keep /= 2

    @property
    def samples(self) -> torch.Tensor:
        """What was kept: float64, shape ``(channels, n)``; ``n`` is 0 when nothing was seen."""
        return (
            torch.cat(self._chunks, dim=1)
            if self._chunks
            else torch.zeros(self._channels, 0, dtype=torch.float64)
        )

    def _draw(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """``count`` random columns; a column may come twice, which costs nothing and saves a permutation."""
        if count >= rows.shape[1]:
            return rows
        picked = torch.randint(rows.shape[1], (count,), generator=self._random)
        return rows[:, picked.to(rows.device)]


def best_frac(fmt: Format, samples: torch.Tensor, limit: int | None = None) -> int | None:
    """The binary point with the smallest squared error over ``samples`` under the modes of ``fmt``; of equals
    the smallest.

    The search starts where the largest number still fits and goes on to positions that clip: a few outliers
    may be worth less than one more bit for all others. In a format with gaps many positions are almost
    equally good, and of those the smallest keeps the sums of products narrow: one whose error is larger by a
    thousandth counts as equal.

    Args:
        samples: float64, one dimension.
        limit: largest binary point allowed.

    Returns:
        ``None`` when all samples are 0, or rounded to 0 within the limit (every position is as good as any
        other), or there are none.
    """
    samples = samples[torch.isfinite(samples)]
    if samples.numel() == 0:
        return None
    largest = float(samples.abs().max())
    if largest == 0.0:
        return None
    gaps = math.isfinite(fmt.dense_below)
    span = max(0, fmt.integer_max.bit_length() - MAX_WIDTH)
    lowest, highest = -200, 200 + span
    fits = math.floor(math.log2(max(fmt.integer_max, 1)) - math.log2(largest))
    first, last = fits - 2, fits + (13 if gaps else min(fmt.width, 10) + 3)
    if limit is not None:
        first, last = min(first, limit), min(last, limit)

    def error(frac: int) -> float:
        difference = samples - cast(samples, 2.0**frac, fmt)
        return float(torch.dot(difference, difference))

    errors = {frac: error(frac) for frac in range(max(first, lowest), min(last, highest) + 1)}
    if not errors:
        return None
    best = min(errors, key=lambda frac: (errors[frac], frac))
    if limit is not None and errors[best] >= float(torch.dot(samples, samples)):
        return None
    # Numbers that a coarser grid holds as well are no reason for more fraction bits.
    enough = errors[best] * 1.001 if gaps else errors[best]
    while best > lowest:
        coarser = error(best - 1)
        if coarser > enough:
            break
        best -= 1
        enough = enough if gaps else coarser
    return best


def best_fracs(fmt: Format, rows: torch.Tensor, limits: list[int] | None = None) -> list[int | None]:
    """:func:`best_frac` of every row, with its own limit; all rows at once.

    Args:
        rows: finite, float64 ``(channels, n)``.
    """
    if rows.shape[1] == 0:
        return [None] * len(rows)
    largest = rows.abs().amax(1)
    gaps = math.isfinite(fmt.dense_below)
    span = max(0, fmt.integer_max.bit_length() - MAX_WIDTH)
    lowest, highest = -200, 200 + span
    known = largest > 0
    top = math.log2(max(fmt.integer_max, 1))
    fits = torch.tensor([math.floor(top - math.log2(x)) if x > 0 else 0 for x in largest.tolist()])
    first, last = fits - 2, fits + (13 if gaps else min(fmt.width, 10) + 3)
    if limits is not None:
        limit = torch.tensor(limits)
        first, last = torch.minimum(first, limit), torch.minimum(last, limit)
    first, last = first.clamp(min=lowest), last.clamp(max=highest)

    def errors(fracs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        difference = rows - cast(rows, torch.exp2(fracs.double()).unsqueeze(1), fmt)
        return difference.square().sum(1)

    best, least = first.clone(), torch.full(largest.shape, math.inf, dtype=torch.float64)
    for offset in range(int((last - first).max()) + 1):
        fracs = first + offset
        error = errors(fracs, rows)
        better = (error < least) & (fracs <= last)
        best, least = torch.where(better, fracs, best), torch.where(better, error, least)
    known &= last >= first
    if limits is not None:
        known &= least < rows.square().sum(1)
    enough = least * 1.001 if gaps else least.clone()
    going = known & (best > lowest)
    while bool(going.any()):
        error = errors(best[going] - 1, rows[going])
        goes = error <= enough[going]
        at = going.nonzero().squeeze(1)
        going[at[~goes]] = False
        best[at[goes]] -= 1
        if not gaps:
            enough[at[goes]] = error[goes]
        going &= best > lowest
    return [int(f) if k else None for f, k in zip(best, known, strict=True)]


def default_frac(fmt: Format) -> int:
    """A position for tensors that are all zero."""
    frac = getattr(fmt, "frac", None)
    return int(fmt.width - 1 if frac is None else frac)
