"""One node of an ONNX file while it is read: its operands, its attributes, and where its result goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from qfx.graph import ops
from qfx.graph.graph import NAME
from qfx.graph.tensor import Shape
from qfx.interop.assemble import Assembler, Step, Value
from qfx.interop.problems import Refused
from qfx.interop.qonnx_constants import Constant
from qfx.interop.qonnx_file import MAX_ELEMENTS, Attributes, metadata
from qfx.interop.qonnx_spelling import PATH_KEY


@dataclass
class Scope:
    """What the nodes of one file share.

    Attributes:
        assembler: the graph under construction.
        batch: size of the batch axis.
        output: name of the file's output tensor.
        users: by tensor name, the nodes that take it.
        values: by tensor name, what it is.
        done: results of nodes that an earlier node took along.
    """

    assembler: Assembler
    batch: int
    output: str
    users: dict[str, list[Any]]
    values: dict[str, Value | Constant]
    done: set[str] = field(default_factory=set)


class OnnxNode:
    """One node that is being read: its operands, attributes, and where its result goes."""

    def __init__(self, scope: Scope, node: Any) -> None:
        self.scope, self.node = scope, node
        self.attributes = Attributes(node)
        self.last = node

    # -- operands --------------------------------------------------------------------------------------------

    def given(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def operand(self, index: int) -> Value | Constant:
        if not self.given(index):
            raise Refused(f"operand {index} is missing")
        return self.scope.values[self.node.input[index]]

    def dynamic(self, index: int) -> Value:
        value = self.operand(index)
        if isinstance(value, Constant):
            raise Refused(f"operand {index} is a constant; expected a tensor that depends on the input")
        return value

    def constant(self, index: int, what: str) -> Constant:
        value = self.operand(index)
        if not isinstance(value, Constant):
            raise Refused(f"{what} is computed from the input; expected a constant")
        return value

    def shape(self, value: Value) -> Shape:
        return self.scope.assembler.shape(value)

    def follower(self, kinds: tuple[str, ...]) -> tuple[Any, Value | Constant] | None:
        """The only user of the result when it is of one of these kinds, and its other operand."""
        name = self.last.output[0]
        users = self.scope.users.get(name, [])
        if len(users) != 1 or name == self.scope.output or users[0].domain not in ("", "ai.onnx"):
            return None
        (user,) = users
        others = [i for i in user.input if i != name]
        if user.op_type not in kinds or len(user.input) != 2 or len(others) != 1:
            return None
        other = self.scope.values.get(others[0])
        return None if other is None else (user, other)

    # -- results ---------------------------------------------------------------------------------------------

    def keep(self, value: Value | Constant) -> None:
        """The result of the node itself."""
        self.scope.values[self.node.output[0]] = value

    def extend(self, user: Any) -> None:
        """Take the next node along: the result goes where its result would."""
        self.last = user
        self.scope.done.add(user.output[0])

    def step(self, op: ops.Op) -> Step:
        """An operator under the name and path of the last ONNX node."""
        own = bool(NAME.fullmatch(self.last.name)) and len(self.last.name) <= 48
        path = metadata(self.last).get(PATH_KEY, "" if own else self.last.name or self.last.output[0])
        return Step(op, path[:1000], self.last.name if own else None)

    def add(self, op: ops.Op, *operands: Value) -> None:
        if isinstance(op, ops.Concat) and sum(prod(self.shape(v)) for v in operands) > MAX_ELEMENTS:
            raise Refused(f"joins to a tensor of more than {MAX_ELEMENTS} elements")
        value = self.scope.assembler.add(self.step(op), operands)
        if prod(self.shape(value)) > MAX_ELEMENTS:
            raise Refused(f"makes a tensor of more than {MAX_ELEMENTS} elements")
        self.scope.values[self.last.output[0]] = value
