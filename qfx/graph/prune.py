"""Channels that never change leave the graph, and with them everything that feeds only them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qfx.formats.fixed import smallest_format
from qfx.graph import arrays, functions, ops
from qfx.graph.graph import Graph, GraphBuilder, Node
from qfx.graph.tensor import Tensor, integers, one_or_many


def prune(graph: Graph) -> Graph:
    """A graph that computes the same without channels that contribute nothing.

    A channel goes when its interval holds one number only (0, say, because all its weights are 0), or when
    all weights that read it are 0. It goes from the operator that makes it and from all that take it: through
    casts, activation functions, pooling, sums, concatenations and reshapes; all channels of what other
    operators (``matmul``, say) take or make stay. A constant other than 0 moves into the biases of the layers
    that read it. A sum with a tensor that is always 0 disappears. What only fed removed channels goes too, so
    this is repeated until nothing more goes.

    The input, the output, and at least one channel of every other tensor stay. Names and paths of nodes stay.

    Returns:
        a graph whose :meth:`~qfx.graph.Graph.run` gives the same values for every input; ``graph`` itself
        when there is nothing to remove. Values that remain inside are the same too, though they may be on a
        coarser grid.
    """
    result = graph
    while True:
        smaller = _without_channels(_without_zero_terms(result))
        if smaller is result or not _same_grids(graph, smaller):
            return result
        result = smaller


#: Operators whose result channel ``c`` comes from channel ``c`` of the operands, whatever the other channels.
_ELEMENTWISE = (
    ops.Cast, ops.Affine, ops.Add, ops.Sub, ops.Mul, ops.Relu, ops.LeakyRelu, ops.Clip, ops.MaxPool,
    ops.AvgPool, functions.Table, functions.Piecewise, arrays.InsertZeros,
)  # fmt: skip
#: Others that channels can be taken from.
_KNOWN = (ops.Weighted, ops.Reshape, ops.Transpose, ops.Concat)


def _elementwise(op: ops.Op) -> bool:
    if isinstance(op, arrays.ReduceSum | arrays.ReduceMax):
        return 0 not in op.axes
    if isinstance(op, arrays.Repeat):
        return op.times[0] == 1
    return isinstance(op, _ELEMENTWISE)


def _same_grids(graph: Graph, smaller: Graph) -> bool:
    """Whether operators that look at codes rather than at numbers (an inverse root adds its offset to a code)
    still have operands on the grids that they were made for."""
    return all(
        [t.fracs for t in smaller.operands(node)] == [t.fracs for t in graph.operands(graph[node.name])]
        for node in smaller.nodes
        if not _elementwise(node.op) and not isinstance(node.op, _KNOWN)
    )


# -- sums with 0 ---------------------------------------------------------------------------------------------


def _without_zero_terms(graph: Graph) -> Graph:
    instead: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.op, ops.Add | ops.Sub):
            a, b = node.inputs
            if _is_zero(graph[b].tensor):
                instead[node.name] = instead.get(a, a)
            elif _is_zero(graph[a].tensor) and isinstance(node.op, ops.Add):
                instead[node.name] = instead.get(b, b)
    if not instead:
        return graph
    builder = GraphBuilder()
    for node in graph.nodes:
        if node.name not in instead:
            builder.add(node.op, [instead.get(i, i) for i in node.inputs], node.path, node.name)
    return builder.build(instead.get(graph.output, graph.output))


def _is_zero(x: Tensor) -> bool:
    return not x.low.any() and not x.high.any()


# -- channels ------------------------------------------------------------------------------------------------


class _Classes:
    """Channels of all tensors, in classes that can only go together."""

    def __init__(self, graph: Graph) -> None:
        self._first: dict[str, int] = {}
        count = 0
        for node in graph.nodes:
            self._first[node.name] = count
            count += node.tensor.channels
        self._parent = np.arange(count)
        self._stays = np.zeros(count, dtype=bool)

    def of(self, name: str, channels: np.ndarray) -> np.ndarray:
        """The representative of each of these channels."""
        return np.asarray([self._root(self._first[name] + int(c)) for c in channels])

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, a: str, of_a: np.ndarray, b: str, of_b: np.ndarray) -> None:
        """Channels of two tensors, pair by pair, go only together."""
        for left, right in zip(of_a, of_b, strict=True):
            p, q = self._root(self._first[a] + int(left)), self._root(self._first[b] + int(right))
            if p != q:
                self._parent[q] = p
                self._stays[p] |= self._stays[q]

    def keep(self, name: str, channels: np.ndarray) -> None:
        """These channels stay, and with them their classes."""
        for channel in channels:
            self._stays[self._root(self._first[name] + int(channel))] = True

    def kept(self, node: Node) -> np.ndarray:
        """Which channels of a node stay: booleans."""
        return self._stays[self.of(node.name, np.arange(node.tensor.channels))]


def _without_channels(graph: Graph) -> Graph:
    classes = _Classes(graph)
    for node in (graph.input_node, graph.output_node):
        classes.keep(node.name, np.arange(node.tensor.channels))
    for node in graph.nodes:
        _relate(node, graph, classes)
    while True:
        empty = [node for node in graph.nodes if not classes.kept(node).any()]
        if not empty:
            break
        # A tensor has at least one channel. Those that stay for it may fill other tensors too.
        classes.keep(empty[0].name, np.asarray([0]))
    keep = {node.name: classes.kept(node) for node in graph.nodes}
    if all(mask.all() for mask in keep.values()):
        return graph
    builder = GraphBuilder()
    for node in graph.nodes:
        builder.add(_reduced(node, graph, keep), node.inputs, node.path, node.name)
    return builder.build(graph.output)


def _relate(node: Node, graph: Graph, classes: _Classes) -> None:
    """What one operator demands: channels that go together, and channels that stay because it needs them."""
    op, y = node.op, node.tensor
    tensors = graph.operands(node)
    if not tensors:
        classes.keep(node.name, np.arange(y.channels))
        return
    x, source = tensors[0], node.inputs[0]
    everything = np.arange(x.channels)
    if isinstance(op, ops.Weighted):
        groups = op.groups if isinstance(op, ops.Conv) else 1
        if groups > 1:
            # A group goes as a whole; in a depthwise convolution that is a channel.
            group = everything // (x.channels // groups)
            outputs = np.arange(y.channels) // (y.channels // groups)
            classes.join(source, everything, node.name, group * (y.channels // groups))
            classes.join(node.name, outputs * (y.channels // groups), node.name, np.arange(y.channels))
        else:
            classes.keep(source, everything[~_unread(op, x)])
    elif isinstance(op, ops.Reshape | ops.Transpose):
        here = np.broadcast_to(everything.reshape(-1, *(1,) * (len(x.shape) - 1)), x.shape)
        moved = here.reshape(op.shape) if isinstance(op, ops.Reshape) else here.transpose(op.axes)
        there = np.broadcast_to(np.arange(y.channels).reshape(-1, *(1,) * (len(y.shape) - 1)), y.shape)
        pairs = np.unique(np.stack([moved.reshape(-1), there.reshape(-1)]), axis=1)
        classes.join(source, pairs[0], node.name, pairs[1])
    elif isinstance(op, ops.Concat):
        start = 0
        for name, tensor in zip(node.inputs, tensors, strict=True):
            channels = np.arange(tensor.channels)
            classes.join(name, channels, node.name, channels + start)
            start += tensor.channels
    elif not _elementwise(op):
        # Operators on whole arrays keep what they read and what they make.
        for name, tensor in zip(node.inputs, tensors, strict=True):
            classes.keep(name, np.arange(tensor.channels))
        classes.keep(node.name, np.arange(y.channels))
    else:
        for name in node.inputs:
            classes.join(name, everything, node.name, everything)
        if isinstance(op, ops.Cast) and not op.format.has_point:
            # Blocks of channels share a scale: without one of them all blocks would be others.
            classes.keep(source, everything)


def _unread(op: ops.Weighted, x: Tensor) -> np.ndarray:
    """Input channels that a layer can do without: booleans."""
    if op.weight_encoding is not None and not op.weight_encoding.has_point:
        return np.zeros(x.channels, dtype=bool)  # blocks of weights along the inputs share a scale
    padded = isinstance(op, ops.Conv) and any(p for pair in op.padding for p in pair)
    constant = (x.low == x.high) & ((x.low == 0) | (not padded))
    unused = ~op.weight.any(axis=(0, *range(2, op.weight.ndim)))
    return np.asarray(constant.astype(bool) | unused)


# -- operators on fewer channels -----------------------------------------------------------------------------


def _reduced(node: Node, graph: Graph, keep: Mapping[str, np.ndarray]) -> ops.Op:
    op, mine = node.op, keep[node.name]
    if isinstance(op, ops.Weighted):
        return _reduced_weighted(op, graph.operands(node)[0], keep[node.inputs[0]], mine)
    if isinstance(op, ops.Cast):
        return replace(op, format=_part(op.format, mine))
    if isinstance(op, ops.Affine):
        scaled, added = (len(codes) > 1 for codes in (op.scale, op.offset))
        return replace(
            op,
            scale=op.scale[mine] if scaled else op.scale,
            scale_format=_part(op.scale_format, mine) if scaled else op.scale_format,
            scale_encoding=_part(op.scale_encoding, mine) if scaled else op.scale_encoding,
            offset=op.offset[mine] if added else op.offset,
            offset_format=_part(op.offset_format, mine) if added else op.offset_format,
        )
    if isinstance(op, ops.Reshape):
        return ops.Reshape((int(mine.sum()), *op.shape[1:]))
    return op


def _reduced_weighted(op: ops.Weighted, x: Tensor, inputs: np.ndarray, outputs: np.ndarray) -> ops.Weighted:
    groups = op.groups if isinstance(op, ops.Conv) else 1
    if groups > 1:
        kept = int(outputs.reshape(groups, -1)[:, 0].sum())
        smaller: ops.Weighted = replace(op, groups=kept)  # type: ignore[call-arg]
    else:
        smaller = _with_constants(op, x, ~inputs)
        smaller = replace(smaller, weight=smaller.weight[:, inputs])
    return replace(
        smaller,
        weight=np.ascontiguousarray(smaller.weight[outputs]),
        weight_format=_part(smaller.weight_format, outputs),
        weight_encoding=_part(smaller.weight_encoding, outputs),
        bias=None if smaller.bias is None else smaller.bias[outputs],
        bias_format=_part(smaller.bias_format, outputs),
    )


def _with_constants(op: ops.Weighted, x: Tensor, gone: np.ndarray) -> ops.Weighted:
    """What removed channels contribute, all of them constant or unused, added to the bias."""
    constant = gone & (x.low == x.high).astype(bool)
    if not x.low[constant].any():
        return op
    weight, bias, fracs = ops.weighted_integers(op, x)
    taps = weight.reshape(*weight.shape[:2], -1)[:, constant].sum(axis=2)
    total = (taps * x.low[constant]).sum(axis=1) + (0 if bias is None else bias)
    # On the grid of the result nothing is rounded. Zeros at the end of all codes are not worth their bits.
    shift = _common_zeros(total)
    codes = integers(total) >> shift
    frac = one_or_many(tuple(f - shift for f in fracs))
    fmt = smallest_format(int(codes.min()), int(codes.max()), frac)
    return replace(op, bias=codes.astype(np.int64), bias_format=fmt)


def _common_zeros(codes: np.ndarray) -> int:
    together = 0
    for code in codes:
        together |= int(code)
    return (together & -together).bit_length() - 1 if together else 0


def _part(fmt: Any, keep: np.ndarray) -> Any:
    """A format for some of the channels."""
    if fmt is None or not fmt.has_point or not fmt.per_channel:
        return fmt
    fracs = fmt.fracs(len(keep))
    return fmt.with_frac(one_or_many(tuple(f for f, k in zip(fracs, keep, strict=True) if k)))
