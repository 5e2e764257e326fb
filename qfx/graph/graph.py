"""The frozen integer graph: nodes in order, and the facts derived from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qfx.errors import QfxError
from qfx.graph.ops import OPS, Input, Op, Weighted
from qfx.graph.tensor import Tensor

NAME = re.compile(r"n[0-9]+_[a-z0-9_]*")


@dataclass(frozen=True, eq=False)
class Node:
    """One operator of a graph and the tensor that it makes.

    Attributes:
        name: unique, safe as an identifier everywhere; also the name of the tensor.
        op: the operator with its attributes.
        inputs: names of the operands, in order.
        path: module path in the torch model, free text for messages.
        tensor: shape, format and interval of the result.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    path: str
    tensor: Tensor

    @property
    def where(self) -> str:
        """How messages name this node."""
        return f"{self.path} ({self.name}, {self.op.kind})" if self.path else f"{self.name} ({self.op.kind})"


class Graph:
    """A network as integers (docs/graph.md). Built by :class:`GraphBuilder`, :func:`qfx.freeze` or
    :func:`qfx.load`; does not change."""

    def __init__(self, nodes: Sequence[Node], output: str) -> None:
        self.nodes: tuple[Node, ...] = tuple(nodes)
        self.output = output
        self._by_name = {node.name: node for node in self.nodes}
        self._interpreter: Any = None
        #: The torch model that this graph was frozen from, in the process that froze it; not saved.
        self.torch_model: Any = None
        #: By node name, the submodule of ``torch_model`` whose forward result is the node's tensor.
        self.torch_taps: dict[str, str] = {}
        if output not in self._by_name:
            raise QfxError(f"graph: output {output!r} is not a node")

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @property
    def input_node(self) -> Node:
        """The input node."""
        return self.nodes[0]

    @property
    def output_node(self) -> Node:
        """The node whose tensor :meth:`run` returns."""
        return self._by_name[self.output]

    def operands(self, node: Node) -> tuple[Tensor, ...]:
        """The tensors that a node takes, in order."""
        return tuple(self._by_name[name].tensor for name in node.inputs)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that take a tensor; a node that takes it twice stands twice."""
        return tuple(node for node in self.nodes for operand in node.inputs if operand == name)

    def run(self, x: Any) -> np.ndarray:
        """The output values of a batch.

        Args:
            x: real numbers, shape ``(samples, *input shape)``; numpy or torch.

        Returns:
            float64 values on the grid of the output format, shape ``(samples, *output shape)``.

        Raises:
            QfxError: wrong shape, or NaN in ``x``.
        """
        return self.interpreter.run(x)

    def run_codes(self, x: Any) -> np.ndarray:
        """As :meth:`run`, but the output codes (int64)."""
        return self.interpreter.run_codes(x)

    def trace(self, x: Any) -> dict[str, np.ndarray]:
        """The codes (int64) of every tensor of the graph, by node name, batch first."""
        return self.interpreter.trace(x)

    @property
    def interpreter(self) -> Any:
        """The interpreter of this graph; made once."""
        if self._interpreter is None:
            from qfx.graph.interpreter import Interpreter

            self._interpreter = Interpreter(self)
        return self._interpreter

    def save(self, path: str | Path) -> None:
        """Write the graph file (docs/graph.md, section 4); the file appears whole or not at all."""
        from qfx.graph.file import save

        save(self, path)

    def summary(self) -> str:
        """A table of the nodes: shape, format, accumulator or result width, number of weights."""
        rows = [("node", "operator", "module", "shape", "format", "range of codes", "weights")]
        for node in self.nodes:
            t = node.tensor
            weights = ""
            if isinstance(node.op, Weighted):
                weights = f"{node.op.weight.size} {node.op.weight_encoding or node.op.weight_format.short}"
            shown = str(t.format) if t.encoding is None else f"{t.encoding} in {t.format.short}"
            shape = "x".join(str(s) for s in t.shape)
            rows.append(
                (
                    node.name,
                    node.op.kind,
                    node.path,
                    shape,
                    shown,
                    f"{t.low.min()}..{t.high.max()}",
                    weights,
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


class GraphBuilder:
    """Builds a graph node by node; every node is checked as it is added."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._by_name: dict[str, Node] = {}

    def add(self, op: Op, inputs: Sequence[str] = (), path: str = "", name: str | None = None) -> str:
        """Append a node and return its name.

        Args:
            op: the operator.
            inputs: names of nodes added before.
            path: module path for messages.
            name: given only by the reader of graph files.

        Raises:
            QfxError: the operator does not fit its operands.
        """
        if name is None:
            name = safe_name(len(self._nodes), path or op.kind)
        where = f"{path or '?'} ({name}, {op.kind})"
        if not NAME.fullmatch(name) or len(name) > 48 or name in self._by_name:
            raise QfxError(
                f"graph: node name {name!r} is not of the form n<index>_<letters, digits, _>, "
                "or is used twice"
            )
        if isinstance(op, Input) != (not self._nodes):
            raise QfxError(f"{where}: a graph has exactly one input, and it is the first node")
        least, most = op.arity
        if len(inputs) < least or (most is not None and len(inputs) > most):
            raise QfxError(
                f"{where}: {len(inputs)} operands, expected {least if most == least else f'{least} or more'}"
            )
        missing = [i for i in inputs if i not in self._by_name]
        if missing:
            raise QfxError(f"{where}: operand {missing[0]!r} does not stand before it")
        try:
            tensor = op.infer(*(self._by_name[i].tensor for i in inputs))
        except QfxError as error:
            raise QfxError(f"{where}: {error}") from error
        node = Node(name, op, tuple(inputs), path, tensor)
        self._nodes.append(node)
        self._by_name[name] = node
        return name

    def tensor(self, name: str) -> Tensor:
        """The tensor of a node added before."""
        return self._by_name[name].tensor

    def build(self, output: str) -> Graph:
        """The finished graph; nodes that the output does not depend on are left out."""
        if output not in self._by_name:
            raise QfxError(f"graph: output {output!r} is not a node")
        needed = {output, self._nodes[0].name}
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.inputs)
        return Graph([n for n in self._nodes if n.name in needed], output)


def safe_name(index: int, path: str) -> str:
    """A node name that is an identifier in every language: ``n<index>_`` and the harmless characters of
    ``path``."""
    tail = re.sub(r"[^a-z0-9]+", "_", path.lower()).strip("_")
    return f"n{index}_{tail}"[:48].rstrip("_") if tail else f"n{index}_x"


assert all(kind == op.kind for kind, op in OPS.items())
