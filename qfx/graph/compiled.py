"""The interpreter's plan as one compiled program: ``program.cpp`` runs it without going back to Python.

Steps that the program cannot run (tables, number formats with gaps, integers wider than 53 bits) stay Python
steps; the steps between two of them are a program each. What a program computes is what the steps compute, on
every bit: all numbers on the way are integers times powers of two that the step's arithmetic holds exactly,
so that a scale may be folded into weights, and monotonic operators may change places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from qfx.exact import round_
from qfx.extension import Extension
from qfx.formats.fixed import FixedPoint
from qfx.formats.rounding import ROUNDING
from qfx.graph import ops
from qfx.graph.graph import Graph, Node
from qfx.graph.tensor import Tensor

_FOLDER = Path(__file__).parent
EXTENSION = Extension(
    name="program",
    what="the interpreter's loops",
    consequence="graphs run step by step in Python, which takes up to three times as long",
    kernels=_FOLDER / "program_kernels.cpp",
    operators=_FOLDER / "program.cpp",
    headers=(_FOLDER / "program_kernels.h", _FOLDER / "convolution.h", _FOLDER / "rounding.h"),
    contract=True,
)

# Powers of two up to this exponent times any code stay well inside the exponent range of float32.
LARGEST_FLOAT_SHIFT = 60
_NEAREST = ("RND_CONV", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF")
_AS_IT_IS = len(ROUNDING)
_HALF_EVEN = ROUNDING.index("RND_CONV")
# Parameters per channel are written out for at least this many numbers, so that inner loops are long.
_LEAST_PERIOD = 128
_COMPILED = (
    ops.Linear, ops.Conv, ops.Affine, ops.Add, ops.Sub, ops.Mul, ops.Relu, ops.LeakyRelu, ops.Clip,
    ops.MaxPool, ops.AvgPool, ops.Concat, ops.Reshape, ops.Transpose,
)  # fmt: skip


class Opcode(IntEnum):
    """As in program.cpp."""

    ENCODE = 0
    CONV = 1
    LINEAR = 2
    POINTWISE = 3
    MAX_POOL = 4
    SUM_POOL = 5
    CONCAT = 6
    RESHAPE = 7
    TRANSPOSE = 8
    CONVERT = 9


class Kind(IntEnum):
    """As in program_kernels.h."""

    KEEP = 0
    SCALE = 1
    SUM = 2
    PRODUCT = 3
    LEAKY = 4
    CAST_SUM = 5


@dataclass
class Instruction:
    """One instruction; ``operands`` and ``result`` are slots."""

    opcode: Opcode
    operands: list[int]
    result: int
    double: bool
    numbers: list[int] = field(default_factory=list)
    constants: list[torch.Tensor] = field(default_factory=list)
    post: Pointwise | None = None


def _value(number: float) -> np.ndarray:
    return np.array([float(number)])


@dataclass(frozen=True)
class Pointwise:
    """``clamp(round(expression))`` of each number: see program_kernels.h. Arrays are float64, one number per
    channel or one for all; the expression is exact before it is rounded."""

    kind: Kind
    fa: np.ndarray = field(default_factory=lambda: _value(1))
    fb: np.ndarray = field(default_factory=lambda: _value(0))
    offset: np.ndarray = field(default_factory=lambda: _value(0))
    inner_low: np.ndarray = field(default_factory=lambda: _value(-np.inf))
    inner_high: np.ndarray = field(default_factory=lambda: _value(np.inf))
    low: np.ndarray = field(default_factory=lambda: _value(-np.inf))
    high: np.ndarray = field(default_factory=lambda: _value(np.inf))
    rounding: int = _AS_IT_IS

    def finish(self, numbers: np.ndarray) -> np.ndarray:
        """Round and clamp; infinities stay what they are until they are clamped."""
        if self.rounding != _AS_IT_IS:
            numbers = round_(torch.from_numpy(np.array(numbers)), ROUNDING[self.rounding]).numpy()
        return np.clip(numbers, self.low, self.high)

    def then(self, after: Pointwise) -> Pointwise | None:
        """This, then ``after`` on the result, as one; ``None`` when it does not go in one.

        With ``g(v) = clamp(round(v * f))``, which never decreases, ``g(min(max(v, low), high))`` is
        ``min(max(g(v), g(low)), g(high))``.
        """
        simple = after.kind in (Kind.KEEP, Kind.SCALE) and not after.offset.any()
        if self.rounding != _AS_IT_IS or not simple or not _powers_of_two(after.fa):
            return None
        f = after.fa
        if self.kind == Kind.CAST_SUM:
            return None
        kind = Kind.SCALE if self.kind == Kind.KEEP and (f != 1).any() else self.kind
        return replace(
            self, kind=kind, fa=self.fa * f, fb=self.fb * f, offset=self.offset * f, rounding=after.rounding,
            low=after.finish(self.low * f), high=after.finish(self.high * f),
        )  # fmt: skip

    def table(self, double: bool, channels: int) -> torch.Tensor:
        """The parameters as program.cpp takes them."""
        rows = [self.fa, self.fb, self.offset, self.inner_low, self.inner_high, self.low, self.high]
        dtype = torch.float64 if double else torch.float32
        if all((row == row[0]).all() for row in rows):
            table = np.array([[row[0]] for row in rows])
        else:
            table = np.stack([np.broadcast_to(row, (channels,)) for row in rows])
            table = np.tile(table, (1, -(-_LEAST_PERIOD // channels)))
        exact = torch.from_numpy(np.ascontiguousarray(table))
        stored = exact.to(dtype)
        if not torch.equal(stored.to(torch.float64), exact):
            raise NotCompiledError("a constant that the arithmetic cannot hold")
        return stored


class NotCompiledError(Exception):
    """Why a step stays a Python step."""


def _powers_of_two(numbers: np.ndarray) -> bool:
    return bool((np.frexp(numbers)[0] == 0.5).all())


class Step(Protocol):
    """What a program needs to know of a step of the plan."""

    @property
    def node(self) -> Node: ...
    @property
    def nodes(self) -> Sequence[Node]: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def arithmetic(self) -> str: ...


class Program:
    """Consecutive steps, compiled. Constant after construction.

    Args:
        graph: that the steps are of.
        steps: of the plan, all of which :func:`compilable` accepts.
        wanted: names of the tensors that are needed after them.
        encode: whether the operand is the network's real input, to be cast here.

    Raises:
        NotCompiledError: some step cannot be compiled after all.
    """

    def __init__(self, graph: Graph, steps: Sequence[Step], wanted: Sequence[str], encode: bool) -> None:
        #: Names of the operands, and the arithmetic in which they are expected.
        self.inputs = operands_of(steps)
        self.encodes = encode
        writer = _Writer(graph, self.inputs, encode)
        for step in steps:
            writer.add(step)
        self.results = {name: writer.slot_of(name) for name in wanted}
        instructions = _optimized(writer.code, set(self.results.values()))
        self._shapes = {name: graph[name].tensor.shape for name in wanted}
        self._program = torch.classes.qfx_graph.Program(
            *_assembled(instructions, set(self.results.values()), writer.channels), writer.slots,
            len(self.inputs),
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self

    def run(self, operands: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The wanted tensors, codes in float32 or float64, shape ``(samples, *shape)`` of the graph.

        Args:
            operands: codes of ``inputs``, in the arithmetic named there; or the real input.
        """
        ready = [_images(x) if self.encodes else _laid_out(_images(x)) for x in operands]
        found = self._program.run(ready, list(self.results.values()))
        return {
            name: tensor.reshape(len(tensor), *self._shapes[name])
            for name, tensor in zip(self.results, found, strict=True)
        }

    def values(self, x: torch.Tensor, name: str, scale: torch.Tensor) -> torch.Tensor:
        """The wanted tensor ``name`` for the real input ``x``, times ``scale`` per channel (float64).

        Raises:
            RuntimeError: there is a NaN in ``x``.
        """
        found = self._program.values(_images(x), self.results[name], scale)
        return found.squeeze(2) if len(self._shapes[name]) == 2 else found


def operands_of(steps: Sequence[Step]) -> dict[str, str]:
    """What steps take from outside: names, and the arithmetic in which they are needed first."""
    made: set[str] = set()
    found: dict[str, str] = {}
    for step in steps:
        for name in step.inputs:
            if name not in made:
                found.setdefault(name, step.arithmetic)
        made.add(step.node.name)
    return found


def compilable(step: Step) -> bool:
    """Whether a program can run a step."""
    return step.arithmetic in ("float32", "float64") and all(
        isinstance(node.op, _COMPILED)
        or (isinstance(node.op, ops.Cast) and isinstance(node.op.format, FixedPoint))
        for node in step.nodes
    )


def _images(x: torch.Tensor) -> torch.Tensor:
    return x.unsqueeze(2) if x.ndim == 3 else x


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)


def _program_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Rows of length L are images of height 1."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else tuple(shape)


def can_encode(fmt: Any, channels: int) -> bool:
    """Whether ``x * 2**frac`` in x's own dtype, float32 or float64, is exact enough to be rounded: to
    nearest, numbers too small for the exponent range round to 0 as they should."""
    return (
        isinstance(fmt, FixedPoint)
        and fmt.rounding in _NEAREST
        and fmt.overflow in ("SAT", "SAT_SYM")
        and fmt.width < 24
        and max(abs(p) for p in fmt.fracs(channels)) <= LARGEST_FLOAT_SHIFT
    )


# -- writing instructions
# -----------------------------------------------------------------------


class _Writer:
    """Turns steps into instructions."""

    def __init__(self, graph: Graph, inputs: dict[str, str], encode: bool) -> None:
        self.graph = graph
        self.code: list[Instruction] = []
        self.channels: dict[int, int] = {}
        self.slots = 0
        self._slots: dict[tuple[str, bool], int] = {}
        for name, arithmetic in inputs.items():
            slot = self._new(graph[name].tensor.channels)
            if not encode:
                self._slots[name, arithmetic == "float64"] = slot

    def slot_of(self, name: str) -> int:
        """Where the codes of a tensor are, in whatever arithmetic."""
        return next(slot for (known, _), slot in self._slots.items() if known == name)

    def add(self, step: Step) -> None:
        double = step.arithmetic == "float64"
        operands = [self._operand(name, step.arithmetic) for name in step.inputs]
        slot = -1
        for node in step.nodes:
            slot = self._node(node, operands, double)
            operands = [slot]
        self._slots[step.node.name, double] = slot

    def _new(self, channels: int) -> int:
        self.slots += 1
        self.channels[self.slots - 1] = channels
        return self.slots - 1

    def _operand(self, name: str, arithmetic: str) -> int:
        double = arithmetic == "float64"
        if (name, double) in self._slots:
            return self._slots[name, double]
        if (name, not double) in self._slots:
            source = self._slots[name, not double]
            slot = self._emit(Opcode.CONVERT, [source], self.channels[source], double, [int(double)])
        else:
            slot = self._encode(double)  # the real input, in slot 0
        self._slots[name, double] = slot
        return slot

    def _encode(self, double: bool) -> int:
        node = self.graph.input_node
        assert isinstance(node.op, ops.Input)
        fmt = node.op.format
        assert isinstance(fmt, FixedPoint)
        scale = torch.tensor([2.0**f for f in fmt.fracs(node.tensor.channels)], dtype=torch.float64)
        scale = scale[:1].clone() if (scale == scale[0]).all() else scale
        ends = torch.tensor([fmt.code_min, fmt.code_max], dtype=torch.float64)
        numbers = [ROUNDING.index(fmt.rounding), int(double)]
        return self._emit(Opcode.ENCODE, [0], node.tensor.channels, double, numbers, [scale, ends])

    def _emit(
        self, opcode: Opcode, operands: list[int], channels: int, double: bool,
        numbers: Sequence[int] = (), constants: Sequence[torch.Tensor] = (), post: Pointwise | None = None,
    ) -> int:  # fmt: skip
        slot = self._new(channels)
        self.code.append(
            Instruction(opcode, operands, slot, double, [int(n) for n in numbers], list(constants), post)
        )
        return slot

    def _pointwise(self, operands: list[int], channels: int, double: bool, post: Pointwise) -> int:
        return self._emit(Opcode.POINTWISE, operands, channels, double, post=post)

    def _node(self, node: Node, slots: list[int], double: bool) -> int:
        op, tensor = node.op, node.tensor
        operands = self.graph.operands(node)
        if isinstance(op, ops.Weighted):
            return self._weighted(op, operands[0], slots, double)
        if isinstance(op, ops.MaxPool | ops.AvgPool):
            return self._pool(op, tensor, slots, double)
        if isinstance(op, ops.Concat):
            frac = max(t.format.max_frac for t in operands)
            parts = []
            for slot, t in zip(slots, operands, strict=True):
                up = _up(ops.to_frac(t, frac))
                parts.append(slot if (up == 1).all() else self._pointwise(
                    [slot], t.channels, double, Pointwise(Kind.SCALE, up)))  # fmt: skip
            return self._emit(Opcode.CONCAT, parts, tensor.channels, double)
        if isinstance(op, ops.Reshape):
            return self._emit(Opcode.RESHAPE, slots, tensor.channels, double, _program_shape(tensor.shape))
        if isinstance(op, ops.Transpose):
            axes = _transposed_axes(op.axes)
            return self._emit(Opcode.TRANSPOSE, slots, tensor.channels, double, axes)
        return self._pointwise(slots, tensor.channels, double, _pointwise_of(node, operands))

    def _weighted(self, op: ops.Weighted, x: Tensor, slots: list[int], double: bool) -> int:
        weight_codes, bias_codes, _ = ops.weighted_integers(op, x)
        constants = [torch.from_numpy(weight_codes.astype(np.float64))]
        if bias_codes is not None:
            constants.append(torch.from_numpy(bias_codes.astype(np.float64)))
        if isinstance(op, ops.Linear):
            return self._emit(Opcode.LINEAR, slots, op.out_channels, double, (), constants)
        assert isinstance(op, ops.Conv)
        stride, dilation, padding = op.stride, op.dilation, op.padding
        if len(op.kernel) == 1:
            constants[0] = constants[0].unsqueeze(2)
            stride, dilation, padding = (1, *stride), (1, *dilation), ((0, 0), *padding)
        numbers = (*stride, *padding[0], *padding[1], *dilation, op.groups)
        return self._emit(Opcode.CONV, slots, op.out_channels, double, numbers, constants)

    def _pool(self, op: ops.MaxPool | ops.AvgPool, result: Tensor, slots: list[int], double: bool) -> int:
        kernel, stride, padding = op.kernel, op.stride, op.padding
        if len(kernel) == 1:
            kernel, stride, padding = (1, *kernel), (1, *stride), ((0, 0), *padding)
        place = _program_shape(result.shape)[1:]
        numbers = (*kernel, *stride, padding[0][0], padding[1][0], *place)
        opcode = Opcode.MAX_POOL if isinstance(op, ops.MaxPool) else Opcode.SUM_POOL
        slot = self._emit(opcode, slots, result.channels, double, numbers)
        if isinstance(op, ops.AvgPool) and op.scale_code != 1:
            post = Pointwise(Kind.SCALE, _value(op.scale_code))
            slot = self._pointwise([slot], result.channels, double, post)
        return slot


def _transposed_axes(axes: Sequence[int]) -> tuple[int, ...]:
    if len(axes) == 2:  # (channels, length) lies as (channels, 1, length)
        place = (1, 3)
        return (0, place[axes[0]], 2, place[axes[1]])
    return (0, *(a + 1 for a in axes))


def _up(shifts: np.ndarray) -> np.ndarray:
    return np.ldexp(1.0, np.asarray(shifts, dtype=np.int64))


def _floats(codes: np.ndarray) -> np.ndarray:
    return np.asarray(codes).reshape(-1).astype(np.float64)


def _pointwise_of(node: Node, operands: Sequence[Tensor]) -> Pointwise:
    """The operators that compute each number from the one (or two) in its place."""
    op, x = node.op, operands[0]
    if isinstance(op, ops.Cast) and isinstance(op.format, FixedPoint):
        fmt = op.format
        factor = np.ldexp(1.0, -np.array(ops.cast_shifts(x, fmt), dtype=np.int64))
        return Pointwise(
            Kind.SCALE, factor, low=_value(fmt.code_min), high=_value(fmt.code_max),
            rounding=ROUNDING.index(fmt.rounding),
        )  # fmt: skip
    if isinstance(op, ops.Affine):
        scale, offset, _ = ops.affine_integers(op, x)
        return Pointwise(Kind.SCALE, _floats(scale), offset=_floats(offset))
    if isinstance(op, ops.Add | ops.Sub):
        left, right, _ = ops.alignment(*operands)
        sign = 1.0 if isinstance(op, ops.Add) else -1.0
        return Pointwise(Kind.SUM, _up(left), sign * _up(right))
    if isinstance(op, ops.Mul):
        return Pointwise(Kind.PRODUCT)
    if isinstance(op, ops.Relu):
        return Pointwise(Kind.KEEP, low=_value(0))
    if isinstance(op, ops.LeakyRelu):
        return Pointwise(Kind.LEAKY, _value(1 << op.slope_frac), _value(op.slope_code))
    if isinstance(op, ops.Clip):
        _, shifts, low, high = ops.clip_integers(op, x)
        post = Pointwise(Kind.SCALE, _up(shifts))
        # torch.clamp with low > high gives high, as max then min does here and in program_kernels.cpp.
        post = post if low is None else replace(post, low=_floats(low))
        return post if high is None else replace(post, high=_floats(high))
    raise NotCompiledError(op.kind)


# -- fewer instructions
# -------------------------------------------------------------------------


def _optimized(code: list[Instruction], wanted: set[int]) -> list[Instruction]:
    """The same results with fewer passes over memory."""
    for rule in (_join, _fold_scale, _pool_first, _join_cast_and_sum):
        code = _applied(code, wanted, rule)
    return code


def _applied(code: list[Instruction], wanted: set[int], rule: Any) -> list[Instruction]:
    """``rule(instruction, maker)`` may change both, and say which of the two to keep, when ``maker`` makes an
    operand of ``instruction`` that nobody else needs."""
    uses = Counter(slot for step in code for slot in step.operands)
    makers: dict[int, Instruction] = {}
    kept: list[Instruction] = []
    for step in code:
        for slot in list(step.operands):
            maker = makers.get(slot)
            if maker is not None and uses[slot] == 1 and slot not in wanted and rule(step, maker):
                kept = [other for other in kept if other is not maker]
                break
        makers[step.result] = step
        kept.append(step)
    return kept


def _join(step: Instruction, maker: Instruction) -> bool:
    """Two operators on single numbers are one."""
    if step.post is None or maker.post is None or len(step.operands) != 1 or step.double != maker.double:
        return False
    both = maker.post.then(step.post)
    if both is None:
        return False
    step.post, step.operands = both, maker.operands
    return True


def _fold_scale(step: Instruction, maker: Instruction) -> bool:
    """Powers of two go into weights and biases; both instructions stay."""
    post = step.post
    if post is None or post.kind != Kind.SCALE or step.double != maker.double:
        return False
    if maker.opcode in (Opcode.CONV, Opcode.LINEAR) and not post.offset.any() and _powers_of_two(post.fa):
        factors = torch.from_numpy(np.broadcast_to(post.fa, len(maker.constants[0])).copy())
        weight, *bias = maker.constants
        weight = weight * factors.reshape(-1, *(1,) * (weight.ndim - 1))
        maker.constants = [weight, *(b * factors for b in bias)]
        step.post = replace(post, kind=Kind.KEEP, fa=_value(1))
    return False


def _pool_first(step: Instruction, maker: Instruction) -> bool:
    """A maximum and a function that never decreases change places: less is left to round."""
    post = maker.post
    if step.opcode != Opcode.MAX_POOL or post is None or post.kind != Kind.KEEP:
        return False
    pool = replace(step)
    step.opcode, step.post, step.numbers = Opcode.POINTWISE, post, []
    maker.opcode, maker.post, maker.numbers = Opcode.MAX_POOL, None, pool.numbers
    return False


def _join_cast_and_sum(step: Instruction, maker: Instruction) -> bool:
    """A cast in front of a sum is done while adding."""
    post, cast = step.post, maker.post
    if post is None or cast is None or post.kind != Kind.SUM or step.double != maker.double:
        return False
    if cast.kind != Kind.KEEP or cast.rounding != _HALF_EVEN:
        return False
    (source,) = maker.operands
    if step.operands[0] == maker.result:
        fa, fb, other = post.fa, post.fb, step.operands[1]
    else:
        fa, fb, other = post.fb, post.fa, step.operands[0]
    step.operands = [source, other]
    step.post = replace(
        post, kind=Kind.CAST_SUM, fa=fa, fb=fb, inner_low=cast.low, inner_high=cast.high
    )  # fmt: skip
    return True


# -- what program.cpp takes
# ---------------------------------------------------------------------


def _assembled(
    code: Sequence[Instruction], wanted: set[int], channels: dict[int, int]
) -> tuple[list[list[int]], list[list[torch.Tensor]]]:
    last = {slot: index for index, step in enumerate(code) for slot in step.operands}
    numbers, constants = [], []
    for index, step in enumerate(code):
        dead = sorted({slot for slot in step.operands if last[slot] == index and slot not in wanted})
        parameters, tensors = step.numbers, step.constants
        if step.post is not None:
            parameters = [int(step.post.kind), step.post.rounding]
            tensors = [step.post.table(step.double, channels[step.result])]
        elif step.opcode in (Opcode.CONV, Opcode.LINEAR):
            tensors = [_stored(t, step.double) for t in tensors]
        operands = step.operands
        numbers.append(
            [int(step.opcode), step.result, len(operands), *operands, len(dead), *dead, *parameters]
        )
        constants.append(tensors)
    return numbers, constants


def _stored(constant: torch.Tensor, double: bool) -> torch.Tensor:
    stored = constant.to(torch.float64 if double else torch.float32)
    if not torch.equal(stored.to(torch.float64), constant):
        raise NotCompiledError("a constant that the arithmetic cannot hold")
    return stored.contiguous(memory_format=torch.channels_last) if stored.ndim == 4 else stored.contiguous()
