"""The HLS design while it grows: where each tensor of the graph is, and how a layer is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qfx.formats import Binary, FixedPoint, Format, KHot, Minifloat
from qfx.graph import ops
from qfx.graph.casts import gapped_cast
from qfx.graph.graph import Node
from qfx.graph.tensor import Tensor
from qfx.hls.carriers import CType, carrier, carries_values, casting, integer_width
from qfx.hls.kernels import Struct
from qfx.hls.layers import LayerSpec, memory_order, memory_shape

#: The longest shift for which the assignment of one ``ap_fixed`` type to another does a cast; beyond it, a
#: kernel does. ``ap_fixed`` would build words of all the bits in between.
_MAX_NATIVE_SHIFT = 48


@dataclass(frozen=True, eq=False)
class Value:
    """Where a tensor of the graph is in the design."""

    layer: str
    shape: tuple[int, ...]
    type: CType
    tensor: Tensor
    order: np.ndarray | None = None

    def per_channel(self, values: Any) -> np.ndarray:
        """Per-channel values of the graph tensor, in memory order."""
        values = np.asarray(values)
        return values if self.order is None else values[self.order]

    @property
    def has_point(self) -> bool:
        """Whether the C++ type has the tensor's binary point; else the words are typed as integers."""
        return carries_values(self.tensor)

    @property
    def interval(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        return interval(self.tensor)


class Design:
    """The layers so far.

    Attributes:
        stream: tensors are streams, not arrays.
        layers: in order.
        values: where the tensor of each graph node is.
    """

    def __init__(self, stream: bool) -> None:
        self.stream = stream
        self.layers: list[LayerSpec] = []
        self.values: dict[str, Value] = {}

    def operands(self, node: Node) -> list[Value]:
        """Where the operands of a node are."""
        return [self.values[name] for name in node.inputs]

    def stand_in(self, node: Node) -> None:
        """A value for a node that failed, so that problems further on are found too."""
        shape = memory_shape(node.tensor.shape)
        self.values[node.name] = Value(node.name, shape, carrier(node.tensor), node.tensor)

    def add(
        self,
        nodes: tuple[Node, ...],
        class_name: str,
        operands: list[Value],
        result: CType,
        types: dict[str, CType],
        attributes: dict[str, Any],
        order: np.ndarray | None = None,
    ) -> None:
        """Add the layer that computes ``nodes`` and makes the tensor of the last."""
        last = nodes[-1]
        shape = memory_shape(last.tensor.shape)
        inputs = [o.layer for o in operands]
        types = {"result": result, **types}
        self.layers.append(
            LayerSpec(last.name, class_name, inputs, shape, types, attributes, nodes=nodes, order=order)
        )
        value = Value(last.name, shape, result.plain, last.tensor, order)
        for node in nodes:
            self.values[node.name] = value

    def native_cast(self, node: Node, cast: Node | None) -> bool:
        """Whether hls4ml's layer for ``node`` can do ``cast`` too, by the type of its result."""
        if cast is None:
            return True
        if not isinstance(_target(cast), FixedPoint):
            return False
        exact, fmt = node.tensor, cast.tensor.format
        if not carries_values(exact) or not carries_values(cast.tensor) or fmt.overflow == "WRAP_SM":
            return False
        shift = exact.format.max_frac - fmt.max_frac
        # ap_fixed reads a bit beyond its operand when more bits are dropped than there are.
        return -_MAX_NATIVE_SHIFT <= shift <= min(_MAX_NATIVE_SHIFT, exact.format.width)

    def add_native(
        self,
        node: Node,
        cast: Node | None,
        class_name: str,
        operands: list[Value],
        types: dict[str, CType],
        attributes: dict[str, Any],
        order: np.ndarray | None = None,
    ) -> None:
        """Add hls4ml's layer for ``node``, with ``cast`` in its result type where that can be."""
        if cast is not None and self.native_cast(node, cast):
            result = casting(cast.tensor.format)
            self.add((node, cast), class_name, operands, result, types, attributes, order)
        else:
            self.add((node,), class_name, operands, carrier(node.tensor), types, attributes, order)

    def add_kernel(
        self,
        node: Node,
        cast: Node | None,
        operands: list[Value],
        function: str,
        header: str,
        struct: Struct,
        acc: tuple[int, int],
        order: np.ndarray | None = None,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Add a kernel of ours for ``node`` and the cast after it, whichever that is.

        Args:
            node: what the kernel computes exactly.
            cast: what it does to the result; ``None``: nothing.
            operands: what it reads.
            function: of the header, and the operator it is given: ``"qfx::pointwise, qfx::op_relu"``.
            header: file name under ``kernels``.
            struct: the operator's configuration.
            acc: the smallest and the largest integer that the accumulator meets.
            order: of the result's elements.
            weights: integers that the kernel reads from hls4ml's weight files.
        """
        struct.accumulator(*acc)
        last, acc_width = cast or node, integer_width(*acc)
        fmt = last.tensor.format
        target = None if cast is None else _target(cast)
        if cast is None:
            struct.cast([0], acc_width, fmt.width, "TRN", "WRAP")
        elif isinstance(target, Minifloat | KHot):
            struct.gapped_cast(gapped_cast(node.tensor, target, cast.tensor), target, order)
        elif isinstance(target, Binary):
            struct.binary_cast()
        else:
            shifts = np.asarray(ops.cast_shifts(node.tensor, fmt))
            shifts = shifts if order is None else shifts[order]
            struct.cast(shifts, acc_width, fmt.width, fmt.rounding, fmt.overflow)
        attributes: dict[str, Any] = {"function": function, "header": header, "struct": struct.text()}
        types = {}
        for name, codes in (weights or {}).items():
            attributes[f"{name}_data"] = codes.astype(np.float64)
            types[name] = CType(integer_width(int(codes.min()), int(codes.max())), 0, True)
        nodes = (node,) if cast is None else (node, cast)
        self.add(nodes, "QfxKernel", operands, carrier(last.tensor), types, attributes, order)

    def add_reorder(
        self, value: Value, name: str, tensor: Tensor, wanted: np.ndarray, nodes: tuple[Node, ...] = ()
    ) -> Value:
        """Add a kernel that puts the flat graph elements ``wanted`` of ``value`` into memory."""
        where = np.empty(wanted.size, dtype=np.int64)
        where[present_order(value)] = np.arange(wanted.size)
        struct = Struct()
        struct.constants(n_in=wanted.size)
        struct.table("source", where[wanted], "unsigned", rom=True)
        shape = memory_shape(tensor.shape)
        attributes = {"function": "qfx::reorder", "header": "qfx_reorder.h", "struct": struct.text()}
        self.layers.append(
            LayerSpec(
                name, "QfxKernel", [value.layer], shape, {"result": value.type}, attributes, nodes=nodes
            )
        )
        return Value(name, shape, value.type, tensor)


def _target(cast: Node) -> Format:
    assert isinstance(cast.op, ops.Cast)
    return cast.op.format


def present_order(value: Value) -> np.ndarray:
    """Flat graph index of each element, as they stand in memory."""
    return memory_order(value.tensor.shape) if value.order is None else value.order


def interval(tensor: Tensor) -> tuple[int, int]:
    """The smallest and the largest code of a tensor."""
    return int(tensor.low.min()), int(tensor.high.max())
