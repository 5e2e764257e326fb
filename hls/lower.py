"""The graph as a list of hls4ml layers: every type decided here, from the graph's formats and intervals.

Plain data, without hls4ml: :mod:`qfx.hls.build` turns it into a ``ModelGraph``. Each operator becomes hls4ml's own layer where that is
exact, and a kernel of ours (``kernels/*.h``) elsewhere; a cast is done by the layer that produces its operand where possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qfx.errors import UnsupportedError
from qfx.graph import ops
from qfx.graph.graph import Graph, Node
from qfx.graph.tensor import Tensor
from qfx.hls.carriers import CType, carrier, carries_values, casting, integer_width
from qfx.hls.kernels import INDEX, Struct

#: The longest shift for which the assignment of one ``ap_fixed`` type to another does a cast; beyond it, a kernel does.
_MAX_NATIVE_SHIFT = 48
#: hls4ml's ``clone_stream`` makes at most this many copies.
_MAX_COPIES = 7
#: Constants up to this many bits pass through hls4ml's weight files, which hold doubles.
_EXACT_DOUBLE = 53
#: Tables of constants up to this many entries are written into the configuration struct; longer ones into weight files.
_SMALL_TABLE = 64


@dataclass
class LayerSpec:
    """One hls4ml layer.

    Attributes:
        name: safe in C++; the name of the graph node whose tensor it makes, or with a prefix in front of one.
        class_name: of hls4ml's layer; ``QfxKernel`` for our own.
        inputs: names of operand tensors.
        outputs: names of result tensors; one, but for clones.
        shape: of the result in memory order, channels last.
        types: C++ types by role: ``result``, ``weight``, ``bias``, ``accum``, ``scale``.
        attributes: the rest of hls4ml's layer dictionary.
        node: the graph node whose tensor it makes, or ``None``.
        order: when the codes do not stand in channels-last order: index into the flattened graph tensor, per place in memory.
    """

    name: str
    class_name: str
    inputs: list[str]
    shape: tuple[int, ...]
    types: dict[str, CType]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    node: Node | None = None
    order: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.outputs = self.outputs or [self.name]


@dataclass(frozen=True, eq=False)
class _Value:
    """Where a tensor of the graph is in the HLS design."""

    layer: str
    shape: tuple[int, ...]
    type: CType
    tensor: Tensor
    order: np.ndarray | None = None

    @property
    def fracs(self) -> tuple[int, ...]:
        """The binary point of each channel in memory order."""
        return tuple(int(f) for f in self.per_channel(np.asarray(self.tensor.fracs)))

    def per_channel(self, values: np.ndarray) -> np.ndarray:
        """Per-channel values of the graph tensor, in memory order."""
        return values if self.order is None else values[self.order]

    @property
    def exact_values(self) -> bool:
        return carries_values(self.tensor)


def lower(graph: Graph, io: str) -> list[LayerSpec]:
    """The layers of a graph, in order.

    Args:
        io: ``parallel`` or ``stream``.

    Raises:
        UnsupportedError: listing every node that cannot be done, by module path.
    """
    return _Lowering(graph, io == "stream").run()


def memory_order(shape: tuple[int, ...]) -> np.ndarray:
    """Index into the flattened graph tensor for each place in channels-last memory."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    return np.moveaxis(places, 0, -1).reshape(-1)


def memory_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a graph tensor in memory: channels last."""
    return (*shape[1:], shape[0])


class _Lowering:
    def __init__(self, graph: Graph, stream: bool) -> None:
        self.graph = graph
        self.stream = stream
        self.layers: list[LayerSpec] = []
        self.values: dict[str, _Value] = {}
        self.problems: list[str] = []

    def run(self) -> list[LayerSpec]:
        for node in self.graph.nodes:
            if node.name in self.values:
                continue
            cast = self._fusable_cast(node)
            lowering: Callable[[Node, Node | None], None] = getattr(self, f"_{node.op.kind}")
            try:
                lowering(node, cast)
            except UnsupportedError as error:
                self.problems.append(f"{node.where}: {error}")
                for done in (node, cast):
                    if done is not None:
                        self._stand_in(done)
        if self.problems:
            raise UnsupportedError(
                f"hls: {len(self.problems)} of {len(self.graph.nodes)} nodes cannot be converted:\n  " + "\n  ".join(self.problems)
            )
        self._finish_output()
        if self.stream:
            self._fork_streams()
        return self.layers

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _fusable_cast(self, node: Node) -> Node | None:
        """The cast that alone takes the tensor of ``node``, when the layer of ``node`` can do it too."""
        if isinstance(node.op, ops.Input | ops.Cast | ops.Reshape | ops.Transpose) or node.name == self.graph.output:
            return None
        consumers = self.graph.consumers(node.name)
        return consumers[0] if len(consumers) == 1 and isinstance(consumers[0].op, ops.Cast) else None

    def _stand_in(self, node: Node) -> None:
        """A value for a node that failed, so that later problems are found too."""
        self.values[node.name] = _Value(node.name, memory_shape(node.tensor.shape), carrier(node.tensor), node.tensor)

    def _operand(self, node: Node, which: int = 0) -> _Value:
        return self.values[node.inputs[which]]

    def _emit(self, layer: LayerSpec) -> LayerSpec:
        self.layers.append(layer)
        return layer

    def _layer(
        self,
        node: Node,
        class_name: str,
        operands: list[_Value],
        result: CType,
        types: dict[str, CType] | None = None,
        attributes: dict[str, Any] | None = None,
        order: np.ndarray | None = None,
    ) -> _Value:
        """Emit the layer that makes the tensor of ``node``."""
        shape = memory_shape(node.tensor.shape)
        self._emit(
            LayerSpec(
                node.name, class_name, [o.layer for o in operands], shape, {"result": result, **(types or {})}, attributes or {},
                node=node, order=order,
            )  # fmt: skip
        )
        value = _Value(node.name, shape, result.plain, node.tensor, order)
        self.values[node.name] = value
        return value

    def _kernel(
        self,
        node: Node,
        cast: Node | None,
        operands: list[_Value],
        function: str,
        header: str,
        struct: Struct,
        acc: tuple[int, int],
        order: np.ndarray | None = None,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Emit a kernel of ours for ``node`` and the cast after it, whatever the cast."""
        struct.accumulator(*acc)
        self._cast_members(struct, node.tensor, cast, integer_width(*acc), order)
        self._kernel_layer(cast or node, operands, function, header, struct, order, weights)
        if cast is not None:
            self.values[node.name] = self.values[cast.name]

    def _cast_members(self, struct: Struct, exact: Tensor, cast: Node | None, acc_width: int, order: np.ndarray | None) -> None:
        if cast is None:
            struct.cast([0], acc_width, exact.format.width, "TRN", "WRAP")
            return
        fmt = cast.tensor.format
        shifts = np.asarray(ops.cast_shifts(exact, fmt))
        struct.cast(shifts if order is None else shifts[order], acc_width, fmt.width, fmt.rounding, fmt.overflow)

    def _kernel_layer(
        self,
        node: Node,
        operands: list[_Value],
        function: str,
        header: str,
        struct: Struct,
        order: np.ndarray | None = None,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        attributes: dict[str, Any] = {"function": function, "header": header, "struct": struct.text()}
        for name, codes in (weights or {}).items():
            attributes[f"{name}_data"] = codes.astype(np.float64)
        types = {
            name: CType(integer_width(int(c.min()), int(c.max())), 0, True) for name, c in (weights or {}).items()
        }  # fmt: skip
        self._layer(node, "QfxKernel", operands, carrier(node.tensor), types, attributes, order)

    def _native_result(self, node: Node, cast: Node | None) -> CType | None:
        """The result type of hls4ml's layer for ``node`` when its assignment does ``cast`` too; ``None`` when it cannot."""
        if cast is None:
            return carrier(node.tensor)
        fmt = cast.tensor.format
        exact = node.tensor
        if not carries_values(exact) or not carries_values(cast.tensor) or fmt.overflow == "WRAP_SM":
            return None
        return casting(fmt) if abs(exact.format.max_frac - fmt.max_frac) <= _MAX_NATIVE_SHIFT else None

    def _native(
        self,
        node: Node,
        cast: Node | None,
        class_name: str,
        operands: list[_Value],
        types: dict[str, CType],
        attributes: dict[str, Any],
        order: np.ndarray | None = None,
    ) -> None:
        """Emit hls4ml's layer for ``node``; the cast in its result type, or as a kernel after it."""
        result = self._native_result(node, cast)
        if cast is None or result is None:
            self._layer(node, class_name, operands, carrier(node.tensor), types, attributes, order)
            return  # a cast that is left comes next in the graph's order
        self._layer(cast, class_name, operands, result, types, attributes, order)
        self.values[node.name] = self.values[cast.name]

    def _canonical(self, value: _Value, node: Node) -> _Value:
        """The operand in channels-last order."""
        if value.order is None:
            return value
        name = f"order_{node.name}_{value.layer}"
        places = memory_order(value.tensor.shape)
        return self._reorder(value, name, value.tensor, places, None)

    def _reorder(self, value: _Value, name: str, tensor: Tensor, wanted: np.ndarray, node: Node | None) -> _Value:
        """Emit a kernel that puts the flat graph indices ``wanted`` of ``value`` into memory."""
        present = memory_order(value.tensor.shape) if value.order is None else value.order
        where = np.empty(present.size, dtype=np.int64)
        where[present] = np.arange(present.size)
        struct = Struct()
        struct.constants(n_in=present.size)
        struct.table("source", where[wanted], "unsigned")
        shape = memory_shape(tensor.shape)
        attributes = {"function": "qfx::reorder", "header": "qfx_reorder.h", "struct": struct.text()}
        self._emit(LayerSpec(name, "QfxKernel", [value.layer], shape, {"result": value.type}, attributes, node=node))
        return _Value(name, shape, value.type, tensor)

    # -- operators -----------------------------------------------------------------------------------------------------

    def _input(self, node: Node, cast: Node | None) -> None:
        shape = memory_shape(node.tensor.shape)
        self._layer(node, "InputLayer", [], carrier(node.tensor), attributes={"input_shape": list(shape)})

    def _cast(self, node: Node, cast: Node | None) -> None:
        x = self._operand(node)
        struct = self._pointwise_struct(x)
        low, high = _interval(x.tensor)
        struct.accumulator(low, high)
        fmt = node.tensor.format
        shifts = x.per_channel(np.asarray(ops.cast_shifts(x.tensor, fmt)))
        struct.cast(shifts, integer_width(low, high), fmt.width, fmt.rounding, fmt.overflow)
        self._kernel_layer(node, [x], "qfx::pointwise, qfx::op_cast", "qfx_pointwise.h", struct, x.order)

    def _pointwise_struct(self, x: _Value) -> Struct:
        struct = Struct()
        struct.constants(n_in=x.tensor.size, n_chan=x.tensor.channels)
        return struct

    def _linear(self, node: Node, cast: Node | None) -> None:
        x = self._operand(node)
        op = node.op
        assert isinstance(op, ops.Linear)
        try:
            weight, bias, types = self._weights(node, x)
        except UnsupportedError:
            self._kernel_linear(node, cast, x)
            return
        if x.order is not None:
            weight = weight[:, x.order]
        attributes = {"n_in": op.weight.shape[1], "n_out": op.out_channels, "weight_data": weight.T.copy(), "bias_data": bias}
        self._native(node, cast, "Dense", [x], types, attributes)

    def _kernel_linear(self, node: Node, cast: Node | None, x: _Value) -> None:
        """A convolution over one place: its constants may have 64 bits, hls4ml's 53."""
        op = node.op
        assert isinstance(op, ops.Linear)
        weight, bias, _ = ops.weighted_integers(op, x.tensor)
        struct = Struct()
        for name in ("in", "out", "kernel", "stride", "dilation"):
            struct.constants(**{f"{name}_height": 1, f"{name}_width": 1})
        struct.constants(pad_top=0, pad_bottom=0, pad_left=0, pad_right=0, groups=1)
        struct.constants(n_chan=x.tensor.channels, n_filt=op.out_channels)
        weight = weight if x.order is None else weight[:, x.order]
        self._kernel_weighted(node, cast, x, struct, weight, bias)

    def _weights(self, node: Node, x: _Value) -> tuple[np.ndarray, np.ndarray, dict[str, CType]]:
        """Weight and bias values of hls4ml's layer, in the layout of the graph, and the types that make its sums exact."""
        op = node.op
        assert isinstance(op, ops.Weighted)
        result = carrier(node.tensor)
        weight_fmt, bias_fmt = op.weight_format, op.bias_format
        plain = x.exact_values and carries_values(node.tensor) and not weight_fmt.per_channel
        if plain and (bias_fmt is None or not bias_fmt.per_channel):
            weight = _scaled(op.weight, weight_fmt.max_frac)
            weight_type = CType(weight_fmt.width, weight_fmt.max_frac, weight_fmt.signed)
            bias, bias_type = np.zeros(op.out_channels), CType(1, 0, False)
            if op.bias is not None and bias_fmt is not None:
                bias = _scaled(op.bias, bias_fmt.max_frac)
                bias_type = CType(bias_fmt.width, bias_fmt.max_frac, bias_fmt.signed)
        else:
            aligned, offsets, _ = ops.weighted_integers(op, x.tensor)
            weight, weight_type = _on_grid(aligned, result.frac - x.type.frac)
            bias, bias_type = _on_grid(_zeros(op.out_channels) if offsets is None else offsets, result.frac)
        exact = node.tensor.format
        accum = CType(exact.width + (not exact.signed), result.frac, True)
        return weight, bias, {"weight": weight_type, "bias": bias_type, "accum": accum}

    def _conv(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.Conv)
        x = self._operand(node)
        if op.groups == 1 and set(op.dilation) == {1}:
            try:
                weights = self._weights(node, x)
            except UnsupportedError:
                self._kernel_conv(node, cast, x)
            else:
                self._native_conv(node, cast, x, *weights)
        else:
            self._kernel_conv(node, cast, x)

    def _native_conv(
        self, node: Node, cast: Node | None, x: _Value, weight: np.ndarray, bias: np.ndarray, types: dict[str, CType]
    ) -> None:
        op = node.op
        assert isinstance(op, ops.Conv)
        padding = op.padding
        if self.stream and any(p for pair in padding for p in pair):
            x = self._pad(node, x, padding)
            padding = ((0, 0),) * len(padding)
        names = ("height", "width") if len(padding) == 2 else ("width",)
        sides = (("top", "bottom"), ("left", "right")) if len(padding) == 2 else (("left", "right"),)
        attributes: dict[str, Any] = {"data_format": "channels_last", "n_chan": x.tensor.channels, "n_filt": op.out_channels}
        out = memory_shape(node.tensor.shape)
        for axis, name in enumerate(names):
            attributes[f"in_{name}"] = x.shape[axis]
            attributes[f"out_{name}"] = out[axis]
            attributes[f"filt_{name}"] = op.kernel[axis]
            attributes[f"stride_{name}"] = op.stride[axis]
            attributes[f"pad_{sides[axis][0]}"], attributes[f"pad_{sides[axis][1]}"] = padding[axis]
        attributes["weight_data"] = np.moveaxis(weight, (1, 0), (-2, -1)).copy()
        attributes["bias_data"] = bias
        self._native(node, cast, f"Conv{len(padding)}D", [x], types, attributes)

    def _pad(self, node: Node, x: _Value, padding: ops.Padding) -> _Value:
        """Zeros around a streamed tensor, ahead of hls4ml's convolution."""
        attributes: dict[str, Any] = {"data_format": "channels_last", "n_chan": x.tensor.channels}
        names = ("height", "width") if len(padding) == 2 else ("width",)
        sides = (("top", "bottom"), ("left", "right")) if len(padding) == 2 else (("left", "right"),)
        shape = [s + before + after for s, (before, after) in zip(x.shape, padding, strict=False)]
        for axis, name in enumerate(names):
            attributes[f"in_{name}"] = x.shape[axis]
            attributes[f"out_{name}"] = shape[axis]
            attributes[f"pad_{sides[axis][0]}"], attributes[f"pad_{sides[axis][1]}"] = padding[axis]
        name = f"pad_{node.name}"
        padded = (*shape, x.tensor.channels)
        self._emit(LayerSpec(name, f"ZeroPadding{len(padding)}D", [x.layer], padded, {"result": x.type}, attributes))
        return _Value(name, padded, x.type, x.tensor)

    def _window_struct(self, node: Node, x: _Value, kernel, stride, padding, dilation) -> Struct:  # type: ignore[no-untyped-def]
        struct = Struct()
        sizes = {"in": x.shape[:-1], "out": memory_shape(node.tensor.shape)[:-1], "kernel": kernel, "stride": stride, "dilation": dilation}
        for name, values in sizes.items():
            height, width = (1, *values) if len(values) == 1 else values
            struct.constants(**{f"{name}_height": height, f"{name}_width": width})
        (top, bottom), (left, right) = ((0, 0), *padding) if len(padding) == 1 else padding
        struct.constants(pad_top=top, pad_bottom=bottom, pad_left=left, pad_right=right)
        struct.constants(n_chan=x.tensor.channels, n_filt=node.tensor.channels)
        return struct

    def _kernel_conv(self, node: Node, cast: Node | None, x: _Value) -> None:
        op = node.op
        assert isinstance(op, ops.Conv)
        weight, bias, _ = ops.weighted_integers(op, x.tensor)
        struct = self._window_struct(node, x, op.kernel, op.stride, op.padding, op.dilation)
        struct.constants(groups=op.groups)
        # (filter, channel of the group, *kernel) -> (filter, *kernel, channel of the group)
        self._kernel_weighted(node, cast, x, struct, np.moveaxis(weight, 1, -1), bias)

    def _kernel_weighted(
        self, node: Node, cast: Node | None, x: _Value, struct: Struct, weight: np.ndarray, bias: np.ndarray | None
    ) -> None:
        arrays = self._constants(struct, "weight", weight.reshape(-1))
        arrays |= self._constants(struct, "bias", _zeros(node.tensor.channels) if bias is None else bias)
        acc = _interval(node.tensor)
        self._kernel(node, cast, [x], "qfx::sliding, qfx::op_conv", "qfx_window.h", struct, acc, weights=arrays)

    def _constants(self, struct: Struct, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """Constants of a kernel: in the struct, or in a weight file of hls4ml when there are many."""
        if integer_width(int(values.min()), int(values.max())) > 64:
            raise UnsupportedError(f"a constant of {name}, aligned to the accumulator, needs more than 64 bits")
        exact = max(abs(int(values.min())), abs(int(values.max()))) <= 1 << _EXACT_DOUBLE
        if values.size <= _SMALL_TABLE or not exact:
            struct.table(name, values)
            return {}
        struct.array(name, f"{name[0]}{INDEX}", f"{name}{INDEX}_t")
        return {name: values}

    def _affine(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.Affine)
        x = self._operand(node)
        scale, offset, _ = ops.affine_integers(op, x.tensor)
        scale, offset = x.per_channel(scale), x.per_channel(offset)
        struct = self._pointwise_struct(x)
        _check_bits(scale, offset)
        struct.table("scale", scale)
        struct.table("offset", offset)
        acc = _interval(node.tensor)
        self._kernel(node, cast, [x], "qfx::pointwise, qfx::op_affine", "qfx_pointwise.h", struct, acc, x.order)

    def _add(self, node: Node, cast: Node | None) -> None:
        self._binary(node, cast, "add")

    def _sub(self, node: Node, cast: Node | None) -> None:
        self._binary(node, cast, "subtract")

    def _mul(self, node: Node, cast: Node | None) -> None:
        self._binary(node, cast, "multiply")

    def _binary(self, node: Node, cast: Node | None, operation: str) -> None:
        a, b = self._operand(node, 0), self._operand(node, 1)
        if (a.order is None) != (b.order is None) or (a.order is not None and not np.array_equal(a.order, b.order)):
            a, b = self._canonical(a, node), self._canonical(b, node)
        exact = a.exact_values and b.exact_values and carries_values(node.tensor)
        if exact and self._native_result(node, cast) is not None:
            attributes = {"op": operation}
            self._native(node, cast, "Merge", [a, b], {}, attributes, a.order)
            return
        struct = self._pointwise_struct(a)
        if operation != "multiply":
            up0, up1, _ = ops.alignment(a.tensor, b.tensor)
            struct.table("up0", a.per_channel(up0), "int")
            struct.table("up1", a.per_channel(up1), "int")
        acc = _interval(node.tensor)
        kernel = {"add": "op_add", "subtract": "op_sub", "multiply": "op_mul"}[operation]
        self._kernel(node, cast, [a, b], f"qfx::pointwise2, qfx::{kernel}", "qfx_pointwise.h", struct, acc, a.order)

    def _relu(self, node: Node, cast: Node | None) -> None:
        x = self._operand(node)
        if self._native_result(node, cast) is not None:
            self._native(node, cast, "Activation", [x], {}, {"activation": "relu", "n_in": x.tensor.size}, x.order)
            return
        acc = _interval(x.tensor)
        struct = self._pointwise_struct(x)
        self._kernel(node, cast, [x], "qfx::pointwise, qfx::op_relu", "qfx_pointwise.h", struct, acc, x.order)

    def _leaky_relu(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.LeakyRelu)
        x = self._operand(node)
        struct = self._pointwise_struct(x)
        struct.constants(slope_frac=op.slope_frac)
        struct.table("slope", [op.slope_code])
        acc = _interval(node.tensor)
        self._kernel(node, cast, [x], "qfx::pointwise, qfx::op_leaky_relu", "qfx_pointwise.h", struct, acc, x.order)

    def _clip(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.Clip)
        x = self._operand(node)
        _, shifts, lows, highs = ops.clip_integers(op, x.tensor)
        struct = self._pointwise_struct(x)
        struct.table("up", x.per_channel(shifts), "int")
        # The accumulator holds the operand before it is clipped.
        ends = [int(v) for v in (*(x.tensor.low << shifts), *(x.tensor.high << shifts))]
        for name, bounds in (("low", lows), ("high", highs)):
            struct.constants(**{f"has_{name}": bounds is not None})
            values = _zeros(x.tensor.channels) if bounds is None else bounds
            _check_bits(values)
            struct.table(name, x.per_channel(values))
            ends += [int(v) for v in values]
        acc = min(ends), max(ends)
        self._kernel(node, cast, [x], "qfx::pointwise, qfx::op_clip", "qfx_pointwise.h", struct, acc, x.order)

    def _max_pool(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.MaxPool)
        x = self._operand(node)
        padded = any(p for pair in op.padding for p in pair)
        fits = all(k <= s for k, s in zip(op.kernel, x.shape, strict=False))
        if not padded and op.kernel == op.stride and fits and self._native_result(node, cast) is not None:
            self._native_max_pool(node, cast, x)
            return
        struct = self._window_struct(node, x, op.kernel, op.stride, op.padding, (1,) * len(op.kernel))
        acc = _interval(x.tensor)
        self._kernel(node, cast, [x], "qfx::sliding, qfx::op_max", "qfx_window.h", struct, acc)

    def _native_max_pool(self, node: Node, cast: Node | None, x: _Value) -> None:
        op = node.op
        assert isinstance(op, ops.MaxPool)
        out = memory_shape(node.tensor.shape)
        attributes: dict[str, Any] = {"data_format": "channels_last", "n_filt": x.tensor.channels, "count_pad": False}
        if len(op.kernel) == 1:
            attributes |= {"n_in": x.shape[0], "n_out": out[0], "pool_width": op.kernel[0], "stride_width": op.stride[0]}
            attributes |= {"pad_left": 0, "pad_right": 0}
        else:
            for axis, name in enumerate(("height", "width")):
                attributes |= {f"in_{name}": x.shape[axis], f"out_{name}": out[axis]}
                attributes |= {f"pool_{name}": op.kernel[axis], f"stride_{name}": op.stride[axis]}
            attributes |= {f"pad_{side}": 0 for side in ("top", "bottom", "left", "right")}
        self._native(node, cast, f"MaxPooling{len(op.kernel)}D", [x], {"accum": x.type}, attributes)

    def _avg_pool(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.AvgPool)
        x = self._operand(node)
        struct = self._window_struct(node, x, op.kernel, op.stride, op.padding, (1,) * len(op.kernel))
        struct.table("scale", [op.scale_code])
        acc = _interval(node.tensor)
        self._kernel(node, cast, [x], "qfx::sliding, qfx::op_scaled_sum", "qfx_window.h", struct, acc)

    def _concat(self, node: Node, cast: Node | None) -> None:
        """Pairs from the left; the last pair does the cast."""
        operands = [self.values[name] for name in node.inputs]
        joined = operands[0]
        for i, other in enumerate(operands[1:], start=2):
            last = i == len(operands)
            joined = self._join(node, cast if last else None, joined, other, None if last else i)

    def _join(self, node: Node, cast: Node | None, a: _Value, b: _Value, part: int | None) -> _Value:
        frac = node.tensor.format.max_frac
        tensor = node.tensor
        if part is not None:
            shape = (a.tensor.channels + b.tensor.channels, *tensor.shape[1:])
            tensor = Tensor(shape, tensor.format, node.tensor.low[: shape[0]], node.tensor.high[: shape[0]])
        name = node.name if part is None else f"part{part}_{node.name}"
        made = Node(name, node.op, node.inputs, node.path, tensor)
        order = None
        if a.order is not None or b.order is not None:
            first = np.arange(a.tensor.channels) if a.order is None else a.order
            second = np.arange(b.tensor.channels) if b.order is None else b.order
            order = np.concatenate([first, a.tensor.channels + second])
        exact = a.exact_values and b.exact_values and carries_values(tensor)
        if exact and self._native_result(made, cast) is not None:
            rank = len(tensor.shape)
            self._native(made, cast, "Concatenate", [a, b], {}, {"op": f"concatenate{rank}d", "axis": -1}, order)
        else:
            struct = Struct()
            struct.constants(n_pixels=int(np.prod(tensor.shape[1:])), n_chan0=a.tensor.channels, n_chan1=b.tensor.channels)
            struct.table("up", [*(frac - f for f in a.fracs), *(frac - f for f in b.fracs)], "int")
            acc = _interval(tensor)
            self._kernel(made, cast, [a, b], "qfx::concat", "qfx_concat.h", struct, acc, order)
        if part is not None:
            self.layers[-1].node = None
        return self.values[made.name]

    def _reshape(self, node: Node, cast: Node | None) -> None:
        x = self._operand(node)
        present = memory_order(x.tensor.shape) if x.order is None else x.order
        self._move(node, x, present, np.arange(present.size))

    def _transpose(self, node: Node, cast: Node | None) -> None:
        op = node.op
        assert isinstance(op, ops.Transpose)
        x = self._operand(node)
        present = memory_order(x.tensor.shape) if x.order is None else x.order
        source = np.arange(present.size).reshape(x.tensor.shape).transpose(op.axes).reshape(-1)
        self._move(node, x, present, source)

    def _move(self, node: Node, x: _Value, present: np.ndarray, source: np.ndarray) -> None:
        """Make the tensor of ``node``, whose flat element ``i`` is the operand's flat element ``source[i]``."""
        shape = memory_shape(node.tensor.shape)
        canonical = memory_order(node.tensor.shape)
        where = np.empty(source.size, dtype=np.int64)
        where[source] = np.arange(source.size)
        order: np.ndarray | None = where[present]  # flat index in the result, per place in memory as it is
        if np.array_equal(order, canonical):
            order = None
        elif len(shape) > 1:
            self.values[node.name] = self._reorder(x, node.name, node.tensor, source[canonical], node)
            return
        self._emit(
            LayerSpec(
                node.name, "Reshape", [x.layer], shape, {"result": x.type}, {"target_shape": list(shape)}, node=node, order=order
            )
        )
        self.values[node.name] = _Value(node.name, shape, x.type, node.tensor, order)

    # -- the whole design ----------------------------------------------------------------------------------------------

    def _finish_output(self) -> None:
        """Make the last layer a real one, in channels-last order."""
        output = self.graph.output_node
        value = self.values[output.name]
        last = self.layers[-1]
        if value.order is None and last.class_name not in ("InputLayer", "Reshape"):
            return
        self._reorder(value, f"out_{output.name}", output.tensor, memory_order(output.tensor.shape), None)

    def _fork_streams(self) -> None:
        """A stream has one reader: copies for the others, at most seven from one layer."""
        readers: dict[str, list[tuple[LayerSpec, int]]] = {}
        shapes = {layer.name: layer.shape for layer in self.layers}
        for layer in self.layers:
            for i, name in enumerate(layer.inputs):
                readers.setdefault(name, []).append((layer, i))
        done: list[LayerSpec] = []
        for layer in self.layers:
            if layer.class_name == "Reshape":
                _stream_reshape(layer, shapes[layer.inputs[0]], readers.get(layer.name, []))
            done.append(layer)
            done += _forks(layer, readers.get(layer.name, []))
        self.layers = done


def _stream_reshape(layer: LayerSpec, before: tuple[int, ...], readers: list[tuple[LayerSpec, int]]) -> None:
    """Other beats, unless the reader is hls4ml's dense layer, which gathers the beats of an unflattened tensor itself."""
    if len(layer.shape) == 1 and len(readers) == 1 and readers[0][0].class_name == "Dense":
        return
    if before[-1] % layer.shape[-1] == 0 or layer.shape[-1] % before[-1] == 0:
        layer.class_name = "Repack"
        return
    struct = Struct()
    size = int(np.prod(layer.shape))
    struct.constants(n_in=size)
    struct.table("source", np.arange(size), "unsigned")
    layer.class_name = "QfxKernel"
    layer.attributes = {"function": "qfx::reorder", "header": "qfx_reorder.h", "struct": struct.text()}


def _forks(layer: LayerSpec, readers: list[tuple[LayerSpec, int]]) -> list[LayerSpec]:
    forks: list[LayerSpec] = []
    source = layer.name
    while len(readers) > 1:
        count = min(len(readers), _MAX_COPIES)
        now, readers = (readers[: count - 1], readers[count - 1 :]) if len(readers) > count else (readers, [])
        name = f"fork{len(forks)}_{layer.name}"
        copies = [f"{name}_{i}" for i in range(count)]
        attributes = {"size": int(np.prod(layer.shape))}
        plain = {"result": layer.types["result"].plain}
        forks.append(LayerSpec(name, "Clone", [source], layer.shape, plain, attributes, copies))
        for (reader, i), copy in zip(now, copies, strict=False):
            reader.inputs[i] = copy
        source = copies[-1]
        if len(readers) == 1:
            reader, i = readers[0]
            reader.inputs[i] = source
            readers = []
    return forks


def _interval(tensor: Tensor) -> tuple[int, int]:
    """The smallest and the largest code of a tensor."""
    return int(tensor.low.min()), int(tensor.high.max())


def _on_grid(codes: np.ndarray, frac: int) -> tuple[np.ndarray, CType]:
    """Values of integer constants with binary point ``frac``, and the narrowest type that holds them."""
    entries = [int(c) for c in codes.reshape(-1)]
    nonzero = [c for c in entries if c]
    zeros = min(((c & -c).bit_length() - 1 for c in nonzero), default=0)
    low, high = min(entries) >> zeros, max(entries) >> zeros
    if max(-low, high) > 1 << _EXACT_DOUBLE:
        raise UnsupportedError("a constant, aligned to the accumulator, needs more than 53 bits")
    signed = low < 0
    width = max(1, integer_width(low, high) - (not signed))
    small = np.array([c >> zeros for c in entries], dtype=np.float64).reshape(codes.shape)
    return np.ldexp(small, zeros - frac), CType(width, frac - zeros, signed)


def _scaled(codes: np.ndarray, frac: int) -> np.ndarray:
    if max(abs(int(codes.min())), abs(int(codes.max()))) > 1 << _EXACT_DOUBLE:
        raise UnsupportedError("a weight or bias code needs more than 53 bits")
    return np.ldexp(codes.astype(np.float64), -frac)


def _check_bits(*tables: np.ndarray) -> None:
    for table in tables:
        if any(int(v).bit_length() > 63 for v in table):
            raise UnsupportedError("a constant, aligned to the result, needs more than 64 bits")


def _zeros(n: int) -> np.ndarray:
    """``n`` zeros as Python integers."""
    return np.zeros(n, dtype=object)
