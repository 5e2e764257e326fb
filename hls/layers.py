"""One layer of the HLS design as plain data, and the order of elements in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qfx.graph.graph import Node
from qfx.hls.carriers import CType


@dataclass
class LayerSpec:
    """One hls4ml layer.

    Attributes:
        name: safe in C++; the name of the graph node whose tensor it makes, or with a prefix before one.
        class_name: of hls4ml's layer; ``QfxKernel`` for our own.
        inputs: names of operand tensors.
        shape: of the result in memory order, channels last.
        types: C++ types by role: ``result``, ``weight``, ``bias``, ``accum``, ``scale``.
        attributes: the rest of hls4ml's layer dictionary.
        outputs: names of result tensors; one, but for clones.
        nodes: the graph nodes that it computes, in order; the tensor of the last is its result. None for
            copies, padding and the like.
        order: when the elements do not stand in channels-last order: index into the flattened graph tensor,
            per place in memory.
    """

    name: str
    class_name: str
    inputs: list[str]
    shape: tuple[int, ...]
    types: dict[str, CType]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    nodes: tuple[Node, ...] = ()
    order: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.outputs = self.outputs or [self.name]

    @property
    def size(self) -> int:
        """Elements of a frame."""
        return int(np.prod(self.shape))

    @property
    def traced(self) -> bool:
        """Whether C simulation can record the tensor of a graph node here."""
        return bool(self.nodes) and self.class_name not in ("InputLayer", "Reshape")


def memory_order(shape: tuple[int, ...]) -> np.ndarray:
    """Index into the flattened graph tensor for each place in channels-last memory."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    return np.moveaxis(places, 0, -1).reshape(-1)


def memory_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a graph tensor in memory: channels last."""
    return (*shape[1:], shape[0])
