"""What travels between stages: element formats, and streams of tensors in an order."""

from __future__ import annotations

import numpy as np

from qfx.graph import Tensor
from qfx.graph.tensor import Shape, integers
from qfx.rtl.design import canonical_order
from qfx.rtl.stages import Value


def bits_of(low: int, high: int) -> tuple[int, bool]:
    """Width and signedness of the narrowest integers that hold ``low .. high``."""
    signed = low < 0
    return max(1, max(high, 0).bit_length() + signed, (-low - 1).bit_length() + 1 if signed else 0), signed


def loop_order(shape: Shape, axes: tuple[int, ...]) -> np.ndarray:
    """Row-major index of the elements when ``axes[0]`` is the outermost loop over them, ``axes[-1]`` the
    innermost."""
    return np.arange(int(np.prod(shape))).reshape(shape).transpose(axes).reshape(-1)


def stream_value(t: Tensor, name: str, node: str | None, order: np.ndarray) -> Value:
    """A tensor on a stream in a given order: by pixels where that is the usual one, else the whole frame
    counts as one pixel."""
    width, signed = t.format.width, t.format.signed
    if np.array_equal(order, canonical_order(t.shape)):
        return Value(name, node, t.size // t.channels, t.channels, width, signed, order, t.fracs)
    fracs = tuple(integers(t.fracs)[order // (t.size // t.channels)].tolist())
    return Value(name, node, 1, t.size, width, signed, order, fracs)
