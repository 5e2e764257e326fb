"""The operators of the graph behind layers that take several of them, and the readers' tools to write them.

:class:`Sketch` writes down operations one after the other; sizes follow. What torch calls one layer
(softmax, attention, an LSTM) becomes a list of operations with readable paths, each of which the user can
give a format of its own: ``overrides={"encoder.attention.scores": {"activation": ...}}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import nn

from qfx.approx import Real
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.learn.operations import Context, Expansion, Operation, Refusal
from qfx.nn.arrays import (
    QuantConstant,
    QuantEmbedding,
    QuantInsertZeros,
    QuantMatMul,
    QuantReduceMax,
    QuantReduceSum,
    QuantRepeat,
    QuantSlice,
)
from qfx.nn.constant import significant_bits
from qfx.nn.function import QuantFunction, QuantInverseRoot
from qfx.nn.module import QuantModule

#: Modules that are made of nothing but the attributes of an operation, by its kind.
MODULES: dict[str, type[QuantModule]] = {
    "inverse_root": QuantInverseRoot,
    "reduce_sum": QuantReduceSum,
    "reduce_max": QuantReduceMax,
    "repeat": QuantRepeat,
    "slice": QuantSlice,
    "insert_zeros": QuantInsertZeros,
    "matmul": QuantMatMul,
}
#: What else this module adds to the kinds of operations: made with formats of the config.
FORMATTED: dict[str, type[QuantModule]] = {
    "function": QuantFunction,
    "embedding": QuantEmbedding,
    "constant": QuantConstant,
}
Node = torch.fx.Node
_MOVES = ("reshape", "transpose", "slice", "repeat")


class Sketch:
    """Operations that a reader writes down.

    Methods take nodes and give the node of the result. ``name`` is what the path of the operation ends in.
    Further keyword arguments are those of :class:`Operation`: ``exact``, ``format``, ``share``.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.operations: list[Operation] = []
        self._prefix = ""
        self._exact: set[Node] = set()

    def expansion(self, result: Any) -> Expansion:
        """What the reader returns."""
        return Expansion(self.operations, result)

    def size(self, x: Node) -> tuple[int, ...]:
        """Shape without the batch axis."""
        return self.context.size(x)

    def within(self, prefix: str) -> Sketch:
        """A sketch that writes to the same list, with a prefix to every name."""
        inner = Sketch(self.context)
        inner.operations, inner._prefix = self.operations, self._prefix + prefix + "."
        inner._exact = self._exact
        return inner

    def put(
        self,
        kind: str,
        operands: list[Node],
        attributes: dict[str, Any],
        size: tuple[int, ...],
        name: str,
        **options: Any,
    ) -> Node:
        """One operation of any kind with a result of a size; moves of exact results are exact."""
        if not 1 <= len(size) <= 3:
            raise Refusal(f"its {name} would have {len(size)} axes besides the batch; 1 to 3 are supported")
        # A node of a graph of its own: everything that is known of it stands in the dictionaries of Traced.
        node = torch.fx.Graph().placeholder(name or kind)
        self.context.traced.sizes[node] = size
        self.context.traced.dynamic.add(node)
        if kind in _MOVES and operands[0] in self._exact and "share" not in options:
            options["exact"] = True
        if options.get("exact"):
            self._exact.add(node)
        path = f"{self._prefix}{name}".strip(".")
        self.operations.append(Operation(kind, operands, attributes, node, path, **options))
        return node

    # -- moves -----------------------------------------------------------------------------------------------

    def reshape(self, x: Node, size: tuple[int, ...], name: str = "reshape") -> Node:
        return x if size == self.size(x) else self.put("reshape", [x], {"shape": size}, size, name)

    def transpose(self, x: Node, axes: tuple[int, ...], name: str = "transpose") -> Node:
        if axes == tuple(range(len(axes))):
            return x
        size = tuple(self.size(x)[a] for a in axes)
        return self.put("transpose", [x], {"axes": axes}, size, name)

    def front(self, x: Node, axis: int) -> Node:
        """An axis moved to the front, the others in order."""
        return self.transpose(x, (axis, *(a for a in range(len(self.size(x))) if a != axis)))

    def back(self, x: Node, axis: int) -> Node:
        """The first axis moved to a place: undoes :meth:`front`."""
        rest = list(range(1, len(self.size(x))))
        rest.insert(axis, 0)
        return self.transpose(x, tuple(rest))

    def slice(self, x: Node, places: dict[int, slice], name: str = "slice", **options: Any) -> Node:
        """Parts along some axes."""
        size = self.size(x)
        written = [places.get(a, slice(None)).indices(n) for a, n in enumerate(size)]
        new = tuple(len(range(*w)) for w in written)
        if min(new) < 1:
            raise Refusal("it takes an empty part of its operand")
        if min(w[2] for w in written) < 1:
            raise Refusal("negative steps are not supported")
        if new == size:
            return x
        starts, stops, steps = (tuple(w[i] for w in written) for i in range(3))
        attributes = {"starts": starts, "stops": stops, "steps": steps}
        return self.put("slice", [x], attributes, new, name, **options)

    def repeat(self, x: Node, times: tuple[int, ...], name: str = "repeat") -> Node:
        if set(times) == {1}:
            return x
        size = tuple(n * t for n, t in zip(self.size(x), times, strict=True))
        return self.put("repeat", [x], {"times": times}, size, name)

    def like(self, x: Node, other: Node) -> Node:
        """Axes of size 1 repeated to the size of another tensor."""
        return self.broadcast(x, self.size(other))

    def broadcast(self, x: Node, size: tuple[int, ...]) -> Node:
        """As torch would, the batch apart."""
        own = self.size(x)
        if len(own) < len(size):
            x, own = self.reshape(x, (1,) * (len(size) - len(own)) + own), (1,) * (len(size) - len(own)) + own
        if any(n not in (1, m) for n, m in zip(own, size, strict=True)):
            raise Refusal(f"a tensor of shape {own} (without the batch) does not fit one of shape {size}")
        return self.repeat(x, tuple(m // n for n, m in zip(own, size, strict=True)))

    # -- arithmetic ------------------------------------------------------------------------------------------

    def binary(self, kind: str, a: Node, b: Node, name: str, **options: Any) -> Node:
        """``add``, ``sub`` or ``mul`` of equal sizes."""
        return self.put(kind, [a, b], {}, self.size(a), name, **options)

    def relu(self, x: Node, name: str, **options: Any) -> Node:
        return self.put("relu", [x], {}, self.size(x), name, **options)

    def affine(
        self, x: Node, scale: torch.Tensor, offset: torch.Tensor, name: str,
        formats: tuple[Format, Format] | None = None, **options: Any,
    ) -> Node:  # fmt: skip
        """Per channel of axis 0, or with one number for all; ``formats`` of scale and offset, where they are
        not those of the config."""
        attributes: dict[str, Any] = {"scale": scale, "offset": offset}
        if formats is not None:
            attributes["formats"] = formats
        return self.put("affine", [x], attributes, self.size(x), name, **options)

    def function(self, x: Node, function: Real, name: str, **options: Any) -> Node:
        return self.put("function", [x], {"function": function}, self.size(x), name, **options)

    def inverse_root(self, x: Node, name: str, **arguments: Any) -> Node:
        """Never cast: the result has few significant bits, at any size."""
        return self.put("inverse_root", [x], arguments, self.size(x), name, exact=True)

    def reduce(self, kind: str, x: Node, axes: tuple[int, ...], name: str, **options: Any) -> Node:
        """``reduce_sum`` or ``reduce_max``; the axes stay with size 1."""
        size = tuple(1 if a in axes else n for a, n in enumerate(self.size(x)))
        return self.put(kind, [x], {"axes": tuple(sorted(axes))}, size, name, **options)

    def matmul(self, a: Node, b: Node, name: str, **options: Any) -> Node:
        size = (*self.size(a)[:-1], self.size(b)[-1])
        return self.put("matmul", [a, b], {}, size, name, **options)

    def linear(
        self, x: Node, weight: nn.Parameter, bias: nn.Parameter | None, name: str, **options: Any
    ) -> Node:
        """``(in,)`` to ``(out,)``; ``(in, positions)`` to ``(out, positions)`` as a convolution of length 1,
        for which the weight must have three axes."""
        size = (int(weight.shape[0]), *self.size(x)[1:])
        if len(size) == 1:
            return self.put("linear", [x], {"weight": weight, "bias": bias}, size, name, **options)
        attributes = {
            "weight": weight, "bias": bias,
            "stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1,
        }  # fmt: skip
        return self.put("conv", [x], attributes, size, name, **options)

    def concat(self, parts: list[Node], name: str, **options: Any) -> Node:
        """Along axis 0."""
        if len(parts) == 1:
            return parts[0]
        size = (sum(self.size(p)[0] for p in parts), *self.size(parts[0])[1:])
        return self.put("concat", parts, {}, size, name, **options)

    def constant(self, value: torch.Tensor, name: str, format: Format | None = None) -> Node:
        """A tensor without the batch axis; a ``Parameter`` is trained. ``format``: of its numbers."""
        attributes = {"value": value, "format": format}
        return self.put("constant", [], attributes, tuple(value.shape), name)


def wider(bits: int, *, signed: bool = True, integer_bits: int | None = None) -> Callable[[Format], Format]:
    """A fixed-point format of some bits more than the significant ones of the activation format.

    Args:
        integer_bits: in front of the binary point, sign apart; learned when not given.
    """

    def make(activation: Format) -> Format:
        width = min(significant_bits(activation) + bits, 24)
        frac = None if integer_bits is None else width - integer_bits - signed
        return FixedPoint(width, frac, signed)

    return make


def derived(
    context: Context, source: torch.Tensor, how: str, make: Callable[[torch.Tensor], torch.Tensor]
) -> nn.Parameter:
    """A parameter made of another one; the same for the same source and name. It is trained if the source
    is."""
    known = context.traced.derived
    if (id(source), how) not in known:
        trained = isinstance(source, nn.Parameter) and source.requires_grad
        with torch.no_grad():
            known[id(source), how] = nn.Parameter(make(source.detach()).clone(), requires_grad=trained)
            # An id is only good as long as its owner lives.
            known[id(source), "source"] = source  # type: ignore[assignment]
    return known[id(source), how]


def positional(context: Context, weight: torch.Tensor) -> nn.Parameter:
    """A matrix as the kernel of a convolution of length 1."""
    return derived(context, weight, "positional", lambda w: w.unsqueeze(-1))
