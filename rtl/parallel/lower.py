"""Graph to blocks of scalars: every operator unrolled, with exact constants (docs/parallel.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeVar

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats import Binary, FixedPoint, KHot, Minifloat
from qfx.formats import Block as Blocks
from qfx.graph import Graph, Node
from qfx.graph import ops as op
from qfx.graph.ops import affine_integers, alignment, cast_shifts, clip_integers, to_frac, weighted_integers
from qfx.rtl.adders import AdderGraph, optimize
from qfx.rtl.design import canonical_order
from qfx.rtl.parallel import gaps
from qfx.rtl.parallel.casts import cast
from qfx.rtl.parallel.multiply import product_of
from qfx.rtl.parallel.netlist import Netlist, Ref, width_of

#: Nonzero weights times places that one layer may unroll to.
PRODUCTS = 65_536
#: Elements of a tensor.
ELEMENTS = 65_536


@dataclass
class Block:
    """A layer with what follows it up to the next layer: one module.

    Attributes:
        node: name of the first graph node in it.
        netlist: its scalars.
        inputs: graph nodes whose tensors it reads; the number of a port is the position here.
        outputs: tensors that others read, each an ``object`` array of :class:`Ref` in the tensor's shape.
        nodes: the graph nodes in it.
    """

    node: str
    netlist: Netlist = field(default_factory=Netlist)
    inputs: list[str] = field(default_factory=list)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)

    def refs(self) -> Iterator[Ref]:
        """Every scalar that leaves the block."""
        for tensor in self.outputs.values():
            yield from tensor.reshape(-1)


def lower(graph: Graph) -> list[Block]:
    """The blocks of a graph, each behind those that it reads.

    Raises:
        UnsupportedError: an operator that this architecture does not have, or a layer too large to unroll.
    """
    return Lowering(graph).run()


def _homes(graph: Graph) -> dict[str, int]:
    """The block of each node: a layer begins one, everything else joins the last of its operands. -1: the
    input."""
    homes = {graph.input_node.name: -1}
    blocks, first = 0, None
    for node in graph.nodes[1:]:
        newest = max(homes[name] for name in node.inputs)
        if isinstance(node.op, op.Linear | op.Conv):
            newest, blocks = blocks, blocks + 1
        elif newest < 0:
            # What is done to the input before any layer.
            if first is None:
                first, blocks = blocks, blocks + 1
            newest = first
        homes[node.name] = newest
    return homes


_Op = TypeVar("_Op", bound=op.Op)


class Lowering:
    """Goes through a graph once; :meth:`run` gives the blocks."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.blocks: list[Block] = []
        self.home = _homes(graph)
        self.values: dict[tuple[int, str], np.ndarray] = {}
        self.net = Netlist()
        self.block = -1
        self.graphs: dict[object, tuple[AdderGraph, tuple[tuple[int, int], ...]]] = {}

    def run(self) -> list[Block]:
        """The blocks of the graph."""
        handlers: dict[type[op.Op], Callable[[Node], np.ndarray]] = {
            op.Cast: self.cast,
            op.Linear: self.linear,
            op.Conv: self.conv,
            op.Affine: self.affine,
            op.Add: self.add,
            op.Sub: self.add,
            op.Mul: self.mul,
            op.Relu: self.relu,
            op.LeakyRelu: self.leaky_relu,
            op.Clip: self.clip,
            op.MaxPool: self.max_pool,
            op.AvgPool: self.avg_pool,
            op.Concat: self.concat,
            op.Reshape: self.reshape,
            op.Transpose: self.transpose,
        }
        readers = self._readers()
        for node in self.graph.nodes[1:]:
            handler = handlers.get(type(node.op))
            if handler is None:
                known = ", ".join(sorted(kind.kind for kind in handlers))
                raise UnsupportedError(
                    f"{node.where}: the parallel architecture has no {node.op.kind}; it has {known}. "
                    'Use architecture="stream"'
                )
            if node.tensor.size > ELEMENTS:
                raise UnsupportedError(
                    f"{node.where}: {node.tensor.size} elements at once; the parallel architecture goes "
                    f'up to {ELEMENTS}. Use architecture="stream"'
                )
            home = self.home[node.name]
            if home == len(self.blocks):
                self.blocks.append(Block(node.name))
            self.block, self.net = home, self.blocks[home].netlist
            result = self.within(node, handler(node))
            self.values[home, node.name] = result
            self.blocks[home].nodes.append(node.name)
            if node.name == self.graph.output or any(self.home[r] != home for r in readers[node.name]):
                self.blocks[home].outputs[node.name] = result
        return self.blocks

    def within(self, node: Node, result: np.ndarray) -> np.ndarray:
        """The scalars of a tensor with no wider intervals than the graph knows: a stream has no more bits."""
        low, high = node.tensor.low, node.tensor.high
        return self.per_channel(
            node, result, lambda ref, c: self.net.narrowed(ref, int(low[c]), int(high[c]))
        )

    def _readers(self) -> dict[str, list[str]]:
        readers: dict[str, list[str]] = {node.name: [] for node in self.graph.nodes}
        for node in self.graph.nodes[1:]:
            for name in node.inputs:
                readers[name].append(node.name)
        return readers

    def operand(self, node: Node, index: int = 0) -> np.ndarray:
        """The scalars of an operand in the present block; those of another block through a port."""
        name = node.inputs[index]
        known = self.values.get((self.block, name))
        if known is not None:
            return known
        home, block = self.home[name], self.blocks[self.block]
        tensor = self.graph[name].tensor
        port = len(block.inputs)
        block.inputs.append(name)
        width, per_channel = tensor.format.width, tensor.size // tensor.channels
        result = np.empty(tensor.size, dtype=object)
        # Where each element stands in the port, which has the order of a stream.
        offset = np.empty(tensor.size, dtype=np.int64)
        offset[canonical_order(tensor.shape)] = np.arange(tensor.size) * width
        for i in range(tensor.size):
            if home < 0:
                low, high = int(tensor.low[i // per_channel]), int(tensor.high[i // per_channel])
                result[i] = self.net.input(port, int(offset[i]), width_of(low, high), low, high)
                continue
            # What the block before knows goes on here: constants, zeros at the bottom, the interval.
            before = self.blocks[home]
            ref: Ref = before.outputs[name].reshape(-1)[i]
            if ref.node is None:
                result[i] = ref
                continue
            source = before.netlist.nodes[ref.node]
            scalar = self.net.input(port, int(offset[i]) + ref.shift, source.width, source.low, source.high)
            result[i] = scalar.shifted(ref.shift)
        result = result.reshape(tensor.shape)
        self.values[self.block, name] = result
        return result

    # -- matrices --------------------------------------------------------------------------------------------

    def matrix(self, node: Node, x: Sequence[Ref], weight: np.ndarray, bias: Sequence[int]) -> list[Ref]:
        """``weight @ x + bias``; ``weight`` holds Python integers ``(rows, inputs)``."""
        net = self.net
        totals = [int(b) for b in bias]
        # Columns of one node are one column; constants go into the bias.
        columns: dict[int, np.ndarray] = {}
        for j, ref in enumerate(x):
            if ref.node is None:
                totals = [t + int(w) * ref.value for t, w in zip(totals, weight[:, j], strict=True)]
            else:
                column = weight[:, j] * (1 << ref.shift)
                columns[ref.node] = columns[ref.node] + column if ref.node in columns else column
        used = [n for n, column in columns.items() if any(column)]
        if not used:
            return [Ref(None, 0, total) for total in totals]
        table = np.stack([columns[n] for n in used], axis=1)
        try:
            graph, intervals = self.adders(table, used)
        except UnsupportedError as error:
            raise UnsupportedError(f"{node.where}: {error}") from error
        values = [Ref(n) for n in used]
        for adder, ends in zip(graph.adders, intervals, strict=True):
            a, b = values[adder.a].shifted(adder.shift_a), values[adder.b].shifted(adder.shift_b)
            values.append(net.add(a, b, adder.sign_a, adder.sign_b, ends))
        results = []
        for out, total in zip(graph.outputs, totals, strict=True):
            value = Ref(None) if out.node is None else values[out.node].shifted(out.shift)
            results.append(net.offset(value, total, out.sign))
        return results

    def adders(
        self, table: np.ndarray, used: Sequence[int]
    ) -> tuple[AdderGraph, tuple[tuple[int, int], ...]]:
        """An adder graph and the interval of each adder; one for all places that have the same matrix,
        intervals and levels.
        """
        nodes = [self.net.nodes[n] for n in used]
        first = min(n.level for n in nodes)
        facts = tuple((n.low, n.high, n.level - first) for n in nodes)
        key = (tuple(int(w) for w in table.reshape(-1)), facts)
        if key not in self.graphs:
            low, high, level = (list(v) for v in zip(*facts, strict=True))
            graph = optimize(table, low, high, level)
            self.graphs[key] = graph, graph.intervals(low, high)
        return self.graphs[key]

    def linear(self, node: Node) -> np.ndarray:
        o, source = _operator(node, op.Linear), self.graph[node.inputs[0]].tensor
        weight, bias, _ = weighted_integers(o, source)
        self.check_size(node, int(np.count_nonzero(weight)))
        values = self.matrix(node, list(self.operand(node)), weight, _bias(bias, len(weight)))
        return _array(values, node.tensor.shape)

    def conv(self, node: Node) -> np.ndarray:
        o, source = _operator(node, op.Conv), self.graph[node.inputs[0]].tensor
        weight, bias, _ = weighted_integers(o, source)
        places = node.tensor.size // node.tensor.channels
        self.check_size(node, int(np.count_nonzero(weight)) * places)
        x = self.operand(node)
        result = np.empty(node.tensor.shape, dtype=object)
        out, per_group = weight.shape[0] // o.groups, weight.shape[1]
        offsets = _bias(bias, len(weight))
        for group in range(o.groups):
            rows = slice(group * out, (group + 1) * out)
            channels = x[group * per_group : (group + 1) * per_group]
            flat = weight[rows].reshape(out, per_group, -1)
            for place in product(*(range(n) for n in node.tensor.shape[1:])):
                taps = list(_window(place, source.shape[1:], o.kernel, o.stride, o.padding, o.dilation))
                window = [channels[(c, *at)] for _, at in taps for c in range(per_group)]
                columns = [flat[:, c, tap] for tap, _ in taps for c in range(per_group)]
                table = np.stack(columns, axis=1) if columns else np.zeros((out, 0), dtype=object)
                where: tuple[slice | int, ...] = (rows, *place)
                result[where] = self.matrix(node, window, table, offsets[rows])
        return result

    def affine(self, node: Node) -> np.ndarray:
        x, source = self.operand(node), self.graph[node.inputs[0]].tensor
        scale, offset, _ = affine_integers(_operator(node, op.Affine), source)
        return self.per_channel(node, x, lambda ref, c: self.times(node, ref, int(scale[c]), int(offset[c])))

    def times(self, node: Node, x: Ref, factor: int, offset: int = 0) -> Ref:
        """``factor * x + offset``."""
        return self.matrix(node, [x], np.array([[factor]], dtype=object), [offset])[0]

    def check_size(self, node: Node, products: int) -> None:
        if products > PRODUCTS:
            raise UnsupportedError(
                f"{node.where}: unrolled it has {products} products with nonzero weights; the parallel "
                f'architecture goes up to {PRODUCTS} per layer. Use architecture="stream", or prune the layer'
            )

    # -- element by element ----------------------------------------------------------------------------------

    def per_channel(self, node: Node, x: np.ndarray, function: Callable[[Ref, int], Ref]) -> np.ndarray:
        """A function of each element and its channel."""
        flat, each = x.reshape(-1), node.tensor.size // node.tensor.channels
        return _array([function(ref, i // each) for i, ref in enumerate(flat)], node.tensor.shape)

    def cast(self, node: Node) -> np.ndarray:
        fmt = _operator(node, op.Cast).format
        source = self.graph[node.inputs[0]].tensor
        if isinstance(fmt, Minifloat | KHot):
            caster = gaps.GappedCaster(self.net, source, fmt)
            return self.per_channel(node, self.operand(node), caster.cast)
        if isinstance(fmt, Binary):
            return self.per_channel(node, self.operand(node), lambda ref, _: gaps.sign(self.net, ref))
        if isinstance(fmt, Blocks):
            try:
                return gaps.blocks(self.net, self.operand(node), source, fmt, node.tensor)
            except UnsupportedError as error:
                raise UnsupportedError(f"{node.where}: {error}") from error
        assert isinstance(fmt, FixedPoint)
        drop = cast_shifts(source, fmt)
        return self.per_channel(node, self.operand(node), lambda ref, c: cast(self.net, ref, drop[c], fmt))

    def relu(self, node: Node) -> np.ndarray:
        return self.per_channel(node, self.operand(node), lambda ref, _: self.net.clamp(ref, 0, None))

    def leaky_relu(self, node: Node) -> np.ndarray:
        o = _operator(node, op.LeakyRelu)

        def leaky(x: Ref, _: int) -> Ref:
            if self.net.interval(x)[0] >= 0:
                return x.shifted(o.slope_frac)
            return self.net.select(x, x.shifted(o.slope_frac), self.times(node, x, o.slope_code))

        return self.per_channel(node, self.operand(node), leaky)

    def clip(self, node: Node) -> np.ndarray:
        source = self.graph[node.inputs[0]].tensor
        _, shifts, lows, highs = clip_integers(_operator(node, op.Clip), source)

        def clip(x: Ref, c: int) -> Ref:
            low, high = (None if bound is None else int(bound[c]) for bound in (lows, highs))
            return self.net.clamp(x.shifted(int(shifts[c])), low, high)

        return self.per_channel(node, self.operand(node), clip)

    def add(self, node: Node) -> np.ndarray:
        a, b = (self.graph[name].tensor for name in node.inputs)
        shifts_a, shifts_b, _ = alignment(a, b)
        sign = -1 if isinstance(node.op, op.Sub) else 1
        each = node.tensor.size // node.tensor.channels
        pairs = zip(self.operand(node).reshape(-1), self.operand(node, 1).reshape(-1), strict=True)
        values = [
            self.net.add(x.shifted(int(shifts_a[i // each])), y.shifted(int(shifts_b[i // each])), 1, sign)
            for i, (x, y) in enumerate(pairs)
        ]
        return _array(values, node.tensor.shape)

    def mul(self, node: Node) -> np.ndarray:
        pairs = zip(self.operand(node).reshape(-1), self.operand(node, 1).reshape(-1), strict=True)
        values = []
        for x, y in pairs:
            if x.node is None:
                x, y = y, x
            values.append(self.times(node, x, y.value) if y.node is None else product_of(self.net, x, y))
        return _array(values, node.tensor.shape)

    # -- windows and order -----------------------------------------------------------------------------------

    def windows(self, node: Node) -> Iterator[tuple[tuple[int, ...], list[Ref]]]:
        """The elements of each window of a pool, padding left out."""
        o = node.op
        assert isinstance(o, op.MaxPool | op.AvgPool)
        x, shape = self.operand(node), self.graph[node.inputs[0]].tensor.shape
        ones = (1,) * len(o.kernel)
        for c, *place in product(*(range(n) for n in node.tensor.shape)):
            taps = _window(place, shape[1:], o.kernel, o.stride, o.padding, ones)
            yield (c, *place), [x[(c, *at)] for _, at in taps]

    def max_pool(self, node: Node) -> np.ndarray:
        result = np.empty(node.tensor.shape, dtype=object)
        for place, values in self.windows(node):
            while len(values) > 1:
                pairs = [self.net.maximum(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
                values = pairs + values[len(values) & ~1 :]
            result[place] = values[0]
        return result

    def avg_pool(self, node: Node) -> np.ndarray:
        o = _operator(node, op.AvgPool)
        result = np.empty(node.tensor.shape, dtype=object)
        for place, values in self.windows(node):
            ones = np.ones((1, len(values)), dtype=object)
            (total,) = self.matrix(node, values, ones, [0])
            result[place] = self.times(node, total, o.scale_code)
        return result

    def concat(self, node: Node) -> np.ndarray:
        frac = node.tensor.fracs[0]
        parts = []
        for index, name in enumerate(node.inputs):
            tensor = self.graph[name].tensor
            shifts, each = to_frac(tensor, frac), tensor.size // tensor.channels
            flat = self.operand(node, index).reshape(-1)
            moved = [ref.shifted(int(shifts[i // each])) for i, ref in enumerate(flat)]
            parts.append(_array(moved, tensor.shape))
        return np.concatenate(parts)

    def reshape(self, node: Node) -> np.ndarray:
        return self.operand(node).reshape(node.tensor.shape)

    def transpose(self, node: Node) -> np.ndarray:
        return self.operand(node).transpose(_operator(node, op.Transpose).axes)


def _window(
    place: Sequence[int],
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: op.Padding,
    dilation: Sequence[int],
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The taps of a window that lie inside the image: their number and where they are."""
    for tap, index in enumerate(product(*(range(k) for k in kernel))):
        at = tuple(
            p * s - before + k * d
            for p, s, (before, _), k, d in zip(place, stride, padding, index, dilation, strict=True)
        )
        if all(0 <= a < n for a, n in zip(at, size, strict=True)):
            yield tap, at


def _bias(bias: np.ndarray | None, rows: int) -> list[int]:
    return [0] * rows if bias is None else [int(b) for b in bias]


def _array(values: Sequence[Ref], shape: tuple[int, ...]) -> np.ndarray:
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result.reshape(shape)


def _operator(node: Node, kind: type[_Op]) -> _Op:
    assert isinstance(node.op, kind)
    return node.op
