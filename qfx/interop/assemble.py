"""Building a graph from a model whose input is not quantized until its first quantizer.

In other tools the input of a network is a float tensor, and the quantizer that puts it on a grid may stand
behind a flatten. In the graph the input node itself has the format. Rounding and saturation are monotonic and
act on each element alone, so they commute with everything that only moves or selects elements: such operators
wait until the format is known, and are then applied to the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.fixed import FixedPoint
from qfx.graph.graph import GraphBuilder
from qfx.graph.ops import Cast, Input, MaxPool, Op, Relu, Reshape, Transpose
from qfx.graph.tensor import Shape, Tensor, full_range
from qfx.interop.problems import Refused


@dataclass(frozen=True)
class Step:
    """An operator to be added, its module path, and its node name when it is given."""

    op: Op
    path: str
    name: str | None = None


@dataclass(frozen=True)
class Pending:
    """The network's input before it is quantized, and the operators that wait for its format."""

    steps: tuple[Step, ...] = ()


Value = str | Pending

#: Why an operator that computes is refused on the network's input.
UNQUANTIZED = (
    "works on the model's input before it is quantized; quantize the input first (brevitas.nn.QuantIdentity "
    "in front of the model, a Quant node in QONNX)"
)


class Assembler:
    """A :class:`qfx.graph.graph.GraphBuilder` whose input node appears with the first cast.

    Args:
        shape: of the network's input, without the batch axis.
        drop_idle_casts: leave out casts to the format that the operand has already.
    """

    def __init__(self, shape: Shape, drop_idle_casts: bool) -> None:
        self.builder = GraphBuilder()
        self._shape = shape
        self._drop = drop_idle_casts
        self._input: tuple[str, Format, str] | None = None

    def add(self, step: Step, operands: Sequence[Value]) -> Value:
        """Append an operator.

        Raises:
            Refused: it works on the unquantized input.
            QfxError: it does not fit its operands.
        """
        waiting = [v for v in operands if isinstance(v, Pending)]
        if not waiting:
            names = [v for v in operands if isinstance(v, str)]
            if self._drop and self._idle(step.op, names[0]):
                return names[0]
            return self.builder.add(step.op, names, step.path, step.name)
        if isinstance(step.op, Cast):
            return self._quantize_input(step, step.op.format, waiting[0])
        if isinstance(step.op, Relu | MaxPool | Reshape | Transpose):
            return Pending((*waiting[0].steps, step))
        raise Refused(UNQUANTIZED)

    def tensor(self, value: Value) -> Tensor:
        """The tensor of a value that is in the graph."""
        assert isinstance(value, str)
        return self.builder.tensor(value)

    def shape(self, value: Value) -> Shape:
        """The shape of a value, without the batch axis."""
        if isinstance(value, str):
            return self.builder.tensor(value).shape
        tensor = full_range(self._shape, FixedPoint(8, 0))
        for step in value.steps:
            tensor = step.op.infer(tensor)
        return tensor.shape

    def _quantize_input(self, step: Step, fmt: Format, pending: Pending) -> str:
        if fmt.per_channel and any(isinstance(s.op, Reshape | Transpose) for s in pending.steps):
            raise Refused("quantizes a reshaped input per channel; quantize before the reshape")
        if isinstance(fmt, Binary) and any(isinstance(s.op, Relu) for s in pending.steps):
            raise Refused("takes the sign of numbers that are never negative")
        if self._input is None:
            name = self.builder.add(Input(self._shape, fmt), (), step.path, step.name)
            self._input = (name, fmt, step.path)
        name, known, where = self._input
        if known != fmt:
            raise Refused(
                f"quantizes the model's input to {fmt}, and {where} quantizes it to {known}; "
                "quantize it once and use the result twice"
            )
        for waiting in pending.steps:
            if not (isinstance(waiting.op, Relu) and not fmt.signed):
                name = self.builder.add(waiting.op, [name], waiting.path, waiting.name)
        return name

    def _idle(self, op: Op, operand: str) -> bool:
        """Whether a cast changes neither codes nor format."""
        if not isinstance(op, Cast) or not isinstance(op.format, FixedPoint):
            return False
        x, fmt = self.builder.tensor(operand), op.format
        return (
            isinstance(x.format, FixedPoint)
            and (x.format.width, x.format.signed) == (fmt.width, fmt.signed)
            and x.fracs == fmt.fracs(x.channels)
            and fmt.code_min <= x.low.min()
            and x.high.max() <= fmt.code_max
        )
