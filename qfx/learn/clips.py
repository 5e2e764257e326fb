"""Clips that the cast behind them makes superfluous."""

from __future__ import annotations

import numpy as np
import torch

from qfx.learn.model import QuantizedModel
from qfx.nn.elementwise import QuantClip
from qfx.nn.quantizer import InputQuantizer, Quantizer


def idle_clips(q: QuantizedModel) -> set[int]:
    """Steps of clips at 0 and above (ReLU6) that compute what a ReLU would, as far as the network sees.

    All that reads the result of such a clip are casts that saturate, at a number that the upper bound is cast
    to as well: what lies beyond the bound becomes that number with the clip and without it.
    """
    steps = list(q._qfx_items())
    readers: dict[int, list[torch.nn.Module]] = {n: [] for n in range(len(steps))}
    for step, module in steps:
        for i in step.inputs:
            readers[i].append(module)
    return {
        n
        for n, (_, module) in enumerate(steps[:-1])
        if isinstance(module, QuantClip)
        and module.low == 0
        and (highs := module.channel_bounds) is not None
        and all(saturates(reader, highs) for reader in readers[n])
    }


def saturates(cast: torch.nn.Module, bounds: np.ndarray) -> bool:
    """Whether a cast takes each bound, float64 ``(channels,)`` or ``(1,)``, and all above it to its largest
    number."""
    if not isinstance(cast, Quantizer) or isinstance(cast, InputQuantizer):
        return False
    if not cast._plain or not cast.fmt.has_point or cast.bypass:
        return False
    largest = float(cast.fmt.integer_max)
    if int(largest) != cast.fmt.integer_max:
        return False  # too wide to be told from its neighbours in float64
    # In codes, one per channel; and how other overflow modes give themselves away.
    scaled = torch.from_numpy(bounds) * cast.scale(cast._frac(), torch.float64, 1)
    beyond = [scaled.clamp(min=1.0) * 2.0**k for k in range(1, 64)]
    return bool((cast.fmt.round_scaled(torch.stack([scaled, *beyond])) == largest).all())
