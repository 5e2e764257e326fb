"""Sliding windows: what convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qfx.graph.graph import Node
from qfx.graph.ops import Padding
from qfx.hls.kernels import Struct
from qfx.hls.layers import memory_shape
from qfx.hls.lowering.design import Value

HEADER = "qfx_window.h"

#: Names of spatial axes and of their two sides, by rank.
AXES = {1: ("width",), 2: ("height", "width")}
SIDES = {1: (("left", "right"),), 2: (("top", "bottom"), ("left", "right"))}


def window_struct(
    node: Node,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> Struct:
    """The members that every kernel of ``qfx_window.h`` wants; one row when there is one spatial axis."""
    struct = Struct()
    before, after = x.shape[:-1], memory_shape(node.tensor.shape)[:-1]
    sizes = {"in": before, "out": after, "kernel": kernel, "stride": stride, "dilation": dilation}
    for name, sizes_of_axes in sizes.items():
        height, width = (1, *sizes_of_axes) if len(sizes_of_axes) == 1 else sizes_of_axes
        struct.constants(**{f"{name}_height": height, f"{name}_width": width})
    (top, bottom), (left, right) = ((0, 0), *padding) if len(padding) == 1 else padding
    struct.constants(pad_top=top, pad_bottom=bottom, pad_left=left, pad_right=right)
    struct.constants(n_chan=x.tensor.channels, n_filt=node.tensor.channels)
    return struct


def pads(padding: Padding) -> dict[str, Any]:
    """hls4ml's attributes of a padding."""
    sides = SIDES[len(padding)]
    return {
        f"pad_{s}": int(n)
        for pair, names in zip(padding, sides, strict=True)
        for s, n in zip(names, pair, strict=True)
    }
