"""The interpreter: runs a graph faster than torch runs the float network, exactly.

Codes travel as integers inside float32 or float64 tensors wherever every partial sum provably fits the
mantissa, and as int64 or Python integers otherwise. The bound of each node comes from the intervals of its
operands and the actual weights; the cheapest arithmetic that the bound allows is taken. A chain
``linear/conv -> relu -> cast`` runs as one product with scaled weights (the scale is a power of two, so the
products stay exact), one rounding and one clamp.

The plan is a list of such steps. Consecutive steps in floating point run as one compiled program
(:mod:`qfx.graph.compiled`) where there is a compiler; each step can also be called from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qfx.errors import QfxError
from qfx.exact import FLOAT32_BOUND, FLOAT64_BOUND, exact_float32, round_
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.graph import ops
from qfx.graph.compiled import EXTENSION, NotCompiledError, Program, can_encode, compilable, operands_of
from qfx.graph.graph import Graph, Node
from qfx.graph.kernels import array_kernel
from qfx.graph.reference import evaluate
from qfx.graph.tensor import Tensor

#: A batch is cut so that the largest tensor of a chunk stays about this many elements: inside the last-level
# cache.
CHUNK_ELEMENTS = 1 << 20
_INT64_BOUND = 1 << 61
# Powers of two up to this exponent times any code stay well inside the exponent range of float32.
_LARGEST_FLOAT_SHIFT = 60

Value = torch.Tensor | np.ndarray
Kernel = Callable[..., Any]
_ONE = torch.ones(1, dtype=torch.float64)


class Step:
    """One entry of the plan: what to compute, from which tensors, in which arithmetic.

    Args:
        nodes: the chain that the step computes; the last one's name is that of the result.
        arithmetic: ``float32``, ``float64``, ``int64`` or ``object``.
        make: makes the function of the operands; called when it is needed first, since it holds constants.
    """

    def __init__(self, nodes: Sequence[Node], arithmetic: str, make: Callable[[], Kernel]) -> None:
        self.nodes = tuple(nodes)
        self.node = self.nodes[-1]
        self.inputs = self.nodes[0].inputs
        self.arithmetic = arithmetic
        self._make = make

    @cached_property
    def kernel(self) -> Kernel:
        """Computes the result from the operands, all in the step's arithmetic."""
        return self._make()


class Interpreter:
    """Runs one graph. Thread-safe: it holds nothing but constants.

    Args:
        compiled: run what can be as compiled programs (:mod:`qfx.graph.compiled`); they are compiled when the
            first batch comes. Without a compiler, or with False, every step is a call from Python.
    """

    def __init__(self, graph: Graph, compiled: bool = True) -> None:
        self._graph = graph
        self._input = graph.input_node
        self._plan = make_plan(graph, fuse=True)
        self._compiled = compiled
        largest = max(node.tensor.size for node in graph.nodes)
        self._chunk = max(1, CHUNK_ELEMENTS // largest)

    @property
    def arithmetic(self) -> dict[str, str]:
        """Per step (named by the node that ends it): ``float32``, ``float64``, ``int64`` or ``object``."""
        return {step.node.name: step.arithmetic for step in self._plan}

    @property
    def programs(self) -> int:
        """How many compiled programs the steps are; 0 when all are called from Python."""
        return sum(isinstance(stage, Program) for stage in self._stages)

    def run(self, x: Any) -> np.ndarray:
        """Output values, float64; see :meth:`Graph.run`."""
        tensor = self._graph.output_node.tensor
        scale = self._value_scale
        if scale is None or self._whole is None:
            return tensor.format.decode(self.run_codes(x), axis=1) + 0.0
        return self._run_whole(x, scale)

    def run_codes(self, x: Any) -> np.ndarray:
        """Output codes, int64, shape ``(samples, *output shape)``."""
        if self._whole is not None:
            return self._run_whole(x, _ONE).astype(np.int64)
        x = self._checked(x)
        with torch.no_grad(), exact_float32():
            codes = [_as_int64(self._execute(part)[self._graph.output]) for part in self._parts(x)]
        return codes[0] if len(codes) == 1 else np.concatenate(codes)

    def trace(self, x: Any) -> dict[str, np.ndarray]:
        """Codes of every tensor, int64 by node name."""
        x = self._checked(x)
        values: dict[str, Value] = {self._input.name: self._encode(x)}
        with torch.no_grad(), exact_float32():
            for step in self._traced:
                values[step.node.name] = _computed(step, values, len(x))
        return {name: _as_int64(value) for name, value in values.items()}

    @cached_property
    def _traced(self) -> list[Step]:
        whole = len(self._plan) == len(self._graph.nodes) - 1
        return self._plan if whole else make_plan(self._graph, fuse=False)

    @cached_property
    def _stages(self) -> list[Step | Program]:
        if not self._compiled or not any(map(compilable, self._plan)) or EXTENSION.load() is not None:
            return list(self._plan)
        return compiled_stages(self._graph, self._plan)

    @cached_property
    def _last_use(self) -> dict[str, int]:
        return _last_uses(self._stages, self._graph.output)

    @cached_property
    def _whole(self) -> Program | None:
        """The program that is the network from the real input on."""
        stage = self._stages[0] if len(self._stages) == 1 else None
        return stage if isinstance(stage, Program) and stage.encodes else None

    @cached_property
    def _value_scale(self) -> torch.Tensor | None:
        """What output codes are multiplied by, per channel, where doubles hold the product."""
        tensor = self._graph.output_node.tensor
        if not isinstance(tensor.format, FixedPoint) or max(map(abs, tensor.fracs)) > _LARGEST_FLOAT_SHIFT:
            return None
        scale = torch.tensor([2.0**-f for f in tensor.fracs], dtype=torch.float64)
        return scale[:1].clone() if (scale == scale[0]).all() else scale

    def _run_whole(self, x: Any, scale: torch.Tensor) -> np.ndarray:
        assert self._whole is not None
        x = self._checked(x, nan=False)
        try:
            with exact_float32():
                parts = [self._whole.values(part, self._graph.output, scale) for part in self._parts(x)]
        except RuntimeError as error:
            if "qfx_graph: NaN" not in str(error):
                raise
            self._checked(x)  # says which sample
            raise
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).numpy()

    def _parts(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        return (x,) if len(x) <= self._chunk else x.split(self._chunk)

    def _execute(self, x: torch.Tensor) -> dict[str, Value]:
        values: dict[str, Value] = {}
        first = self._stages[0] if self._stages else None
        if not (isinstance(first, Program) and first.encodes):
            values[self._input.name] = self._encode(x)
        for index, stage in enumerate(self._stages):
            if isinstance(stage, Step):
                values[stage.node.name] = _computed(stage, values, len(x))
            elif stage.encodes:
                values.update(stage.run([x]))
            else:
                operands = [_as(values[name], how) for name, how in stage.inputs.items()]
                values.update(stage.run(operands))  # type: ignore[arg-type]  # programs compute in float
            for name in stage.inputs:
                if self._last_use.get(name) == index:
                    values.pop(name, None)
        return values

    def _checked(self, x: Any, nan: bool = True) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu()
        else:
            array = np.asarray(x)
            if array.dtype.kind not in "fiub":
                raise QfxError(f"graph input: expected real numbers, found dtype {array.dtype}")
            if array.dtype not in (np.float32, np.float64):
                array = array.astype(np.float64)
            x = torch.from_numpy(np.ascontiguousarray(array))
        if tuple(x.shape[1:]) != self._input.tensor.shape or x.ndim != len(self._input.tensor.shape) + 1:
            raise QfxError(
                f"graph input: found shape {tuple(x.shape)}, expected (samples, "
                f"{', '.join(map(str, self._input.tensor.shape))})"
            )
        if x.dtype not in (torch.float32, torch.float64):
            x = x.to(torch.float64)
        if nan and torch.isnan(x).any():
            sample = int(torch.isnan(x).flatten(1).any(1).nonzero()[0])
            raise QfxError(
                f"graph input: sample {sample} holds NaN, which has no code; remove NaNs from the data first"
            )
        return x

    def _encode(self, x: torch.Tensor) -> Value:
        op = self._input.op
        assert isinstance(op, ops.Input)
        f = op.format
        if not isinstance(f, FixedPoint):
            return f.integers(x.numpy(), axis=1)
        mantissa = 24 if x.dtype == torch.float32 else 53
        nearest = f.rounding in ("RND_CONV", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF")
        fracs = f.fracs(op.shape[0])
        # To nearest, values too small for the exponent range round to 0 as they should, so that scaling in
        # x's own dtype is exact enough.
        if (
            nearest
            and f.overflow in ("SAT", "SAT_SYM")
            and f.width < mantissa
            and max(abs(p) for p in fracs) <= _LARGEST_FLOAT_SHIFT
        ):
            scale = _per_channel([2.0**p for p in fracs], x.ndim, x.dtype)
            scaled = (x * scale).clamp_(f.code_min - 1, f.code_max + 1)
            return round_(scaled, f.rounding).clamp_(f.code_min, f.code_max)
        return np.asarray(f.encode(x.numpy(), axis=1))


def _computed(step: Step, values: dict[str, Value], samples: int) -> Value:
    result: Value = step.kernel(*(_as(values[name], step.arithmetic) for name in step.inputs))
    if step.inputs:
        return result
    assert isinstance(result, torch.Tensor)
    return result.expand(samples, *result.shape[1:])  # a constant has one sample, which stands for all


def compiled_stages(graph: Graph, plan: Sequence[Step]) -> list[Step | Program]:
    """The plan with runs of steps that can be compiled as programs."""
    runs = [list(run) for _, run in groupby(plan, key=compilable)]
    stages: list[Step | Program] = []
    for index, run in enumerate(runs):
        others = [step for other in runs[:index] + runs[index + 1 :] for step in other]
        later = {name for step in others for name in step.inputs} | {graph.output}
        made = [step.node.name for step in run if step.node.name in later]
        inputs = operands_of(run)
        encode = (
            set(inputs) == {graph.input_node.name}
            and graph.input_node.name not in later
            and isinstance(graph.input_node.op, ops.Input)
            and can_encode(graph.input_node.op.format, graph.input_node.tensor.channels)
        )
        try:
            stages += [Program(graph, run, made, encode)] if compilable(run[0]) else run
        except NotCompiledError:
            stages += run
    return stages


def make_plan(graph: Graph, fuse: bool) -> list[Step]:
    """The steps of a graph, in order; with ``fuse`` the chains of linear/conv, relu and cast are one step
    each."""
    plan: list[Step] = []
    done: set[str] = set()
    for node in graph.nodes[1:]:
        if node.name in done:
            continue
        chain = _fusible(graph, node) if fuse else None
        if chain:
            done.update(n.name for n in chain)
            step = _fused_step(graph, chain)
            if step is not None:
                plan.append(step)
                continue
            done.difference_update(n.name for n in chain[1:])
        plan.append(_plain_step(node, graph.operands(node)))
    return plan


# -- which arithmetic
# --------------------------------------------------------------------------


def partial_sum_bound(node: Node, operands: Sequence[Tensor]) -> int:
    """An upper bound of every intermediate integer that a node computes, in any order of summation."""
    op = node.op
    bound = max(node.tensor.magnitude, op.largest(operands), *(t.magnitude for t in operands))
    if not operands:
        return bound
    x = operands[0]
    if isinstance(op, ops.Weighted):
        weight, bias, _ = ops.weighted_integers(op, x)
        magnitudes = np.abs(weight).reshape(op.out_channels, -1).sum(axis=1) * x.magnitude
        if bias is not None:
            magnitudes = magnitudes + np.abs(bias)
        return max(bound, int(magnitudes.max()), int(np.abs(weight).max()))
    if isinstance(op, ops.Affine):
        scale, offset, _ = ops.affine_integers(op, x)
        return max(bound, int((np.abs(scale) * x.magnitude + np.abs(offset)).max()))
    if isinstance(op, ops.Add | ops.Sub):
        left, right, _ = ops.alignment(*operands)
        return max(bound, x.magnitude << int(left.max()), operands[1].magnitude << int(right.max()))
    if isinstance(op, ops.LeakyRelu):
        return max(bound, x.magnitude << op.slope_frac, x.magnitude * abs(op.slope_code))
    if isinstance(op, ops.Clip):
        _, shifts, low, high = ops.clip_integers(op, x)
        bounds = [int(np.abs(b).max()) for b in (low, high) if b is not None]
        return max(bound, x.magnitude << int(shifts.max()), *bounds)
    if isinstance(op, ops.AvgPool):
        return max(bound, x.magnitude * int(np.prod(op.kernel)) * op.scale_code)
    if isinstance(op, ops.Concat):
        frac = max(t.format.max_frac for t in operands)
        return max(bound, *(t.magnitude << int(ops.to_frac(t, frac).max()) for t in operands))
    if isinstance(op, ops.Cast):
        results = op.format.result_points(x.fracs)
        return max(bound, x.magnitude << max(0, *(r - p for r, p in zip(results, x.fracs, strict=True))))
    return bound


def choose_arithmetic(bound: int) -> str:
    """The cheapest arithmetic in which integers up to ``bound`` are exact."""
    if bound < FLOAT32_BOUND:
        return "float32"
    if bound < FLOAT64_BOUND:
        return "float64"
    return "int64" if bound < _INT64_BOUND else "object"


def _cast_in_float(fmt: Format, points: tuple[int, ...]) -> bool:
    """Whether a cast can be computed in floating point: no wrapping, no exponents out of range."""
    shifts = [u - p for u, p in zip(fmt.units(points), points, strict=True)]
    wraps = isinstance(fmt, FixedPoint) and fmt.overflow not in ("SAT", "SAT_SYM")
    small = fmt.integer_max.bit_length() <= _LARGEST_FLOAT_SHIFT if fmt.has_point else True
    return not wraps and small and max(abs(s) for s in shifts) <= _LARGEST_FLOAT_SHIFT


# -- steps ---------------------------------------------------------------------------------------


def _fusible(graph: Graph, node: Node) -> list[Node] | None:
    """``[linear or conv, (relu or clip,) cast, (max_pool)]`` where nobody else sees what is in between."""
    if not isinstance(node.op, ops.Weighted):
        return None
    chain = [node]
    while True:
        last = chain[-1]
        users = graph.consumers(last.name)
        user = users[0] if last.name != graph.output and len(users) == 1 else None
        if isinstance(last.op, ops.Cast):
            return [*chain, user] if user is not None and isinstance(user.op, ops.MaxPool) else chain
        if user is None:
            return None
        activation = isinstance(user.op, ops.Relu | ops.Clip) and len(chain) == 1
        cast = isinstance(user.op, ops.Cast) and isinstance(user.op.format, FixedPoint)
        if not activation and not cast:
            return None
        chain.append(user)


def _fused_step(graph: Graph, chain: Sequence[Node]) -> Step | None:
    head, last = chain[0], chain[-1]
    cast = next(node for node in chain if isinstance(node.op, ops.Cast))
    (x,) = graph.operands(head)
    assert isinstance(head.op, ops.Weighted) and isinstance(cast.op, ops.Cast)
    fmt = cast.op.format
    assert isinstance(fmt, FixedPoint)
    arithmetic = choose_arithmetic(partial_sum_bound(head, (x,)))
    sums = head.tensor
    shifts = ops.cast_shifts(sums, fmt)
    if (
        not arithmetic.startswith("float")
        or not _cast_in_float(fmt, sums.fracs)
        or fmt.code_max >= _mantissa(arithmetic)
    ):
        return None

    def make() -> Kernel:
        product = _product_kernel(head, x, _dtype(arithmetic), scale=[2.0**-s for s in shifts])
        rounding = fmt.rounding
        low, high = _bounds(graph, chain[1], fmt, len(head.tensor.shape) + 1, _dtype(arithmetic))
        # A maximum and a monotonic function can change places: the pool comes first and leaves less to round.
        pool = _pool_kernel(last.op, len(cast.tensor.shape) - 1) if isinstance(last.op, ops.MaxPool) else None

        def kernel(codes: torch.Tensor) -> torch.Tensor:
            sums = product(codes)
            return round_(sums if pool is None else pool(sums), rounding).clamp_(low, high)

        return kernel

    return Step(chain, arithmetic, make)


def _bounds(graph: Graph, node: Node, fmt: FixedPoint, ndim: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Range of a cast's codes behind a relu or clip: all are monotonic, so the bounds are cast alone."""
    (x,) = graph.operands(node)
    low, high = fmt.code_min, fmt.code_max
    if isinstance(node.op, ops.Relu):
        return max(low, 0), max(high, 0)
    if not isinstance(node.op, ops.Clip):
        return low, high
    fracs, _, least, most = ops.clip_integers(node.op, x)
    found = []
    for bound, default in ((least, low), (most, high)):
        codes = [default] if bound is None else fmt.cast_integers(bound.reshape(1, -1), fracs)[0]
        found.append(_per_channel(codes, ndim, dtype))
    if all(bound.ndim == 0 for bound in found):
        return found[0].item(), found[1].item()
    shape = torch.broadcast_shapes(*(bound.shape for bound in found))
    return found[0].expand(shape), found[1].expand(shape)


def _plain_step(node: Node, operands: Sequence[Tensor]) -> Step:
    arithmetic = choose_arithmetic(partial_sum_bound(node, operands))
    if isinstance(node.op, ops.Cast) and arithmetic.startswith("float"):
        if not _cast_in_float(node.op.format, operands[0].fracs):
            arithmetic = "int64"
    return Step([node], arithmetic, partial(_plain_kernel, node, operands, arithmetic))


def _plain_kernel(node: Node, operands: Sequence[Tensor], arithmetic: str) -> Kernel:
    if not operands:
        values = torch.from_numpy(node.op.evaluate((), ()).astype(np.int64))
        if arithmetic.startswith("float"):
            values = values.to(_dtype(arithmetic))
        return lambda: values
    if arithmetic in ("int64", "object"):
        return lambda *codes: evaluate(node, operands, codes)
    kernel = array_kernel(node.op, operands, _dtype(arithmetic))
    return kernel or _float_kernel(node, operands, _dtype(arithmetic))


def _float_kernel(node: Node, operands: Sequence[Tensor], dtype: torch.dtype) -> Kernel:
    op, x = node.op, operands[0]
    ndim = len(node.tensor.shape) + 1

    def constant(values: np.ndarray | Sequence[float], rank: int = ndim) -> torch.Tensor:
        return _per_channel(values, rank, dtype)

    def shifted(shifts: np.ndarray) -> torch.Tensor | None:
        return None if not shifts.any() else constant([float(1 << int(s)) for s in shifts])

    def up(codes: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
        return codes if factor is None else codes * factor

    if isinstance(op, ops.Cast):
        fmt, units, results = op.format, op.format.units(x.fracs), op.format.result_points(x.fracs)
        scale = constant([2.0 ** (u - p) for u, p in zip(units, x.fracs, strict=True)])
        if units == results:
            return lambda c: fmt.round_scaled(c * scale)
        back = constant([2.0 ** (r - u) for u, r in zip(units, results, strict=True)])
        return lambda c: fmt.round_scaled(c * scale).mul_(back)
    if isinstance(op, ops.Weighted):
        return _product_kernel(node, x, dtype, None)
    if isinstance(op, ops.Affine):
        scale_codes, offset_codes, _ = ops.affine_integers(op, x)
        factor, offset = constant(scale_codes), constant(offset_codes)
        return lambda c: torch.addcmul(offset, c, factor)
    if isinstance(op, ops.Add | ops.Sub):
        left, right, _ = ops.alignment(*operands)
        a_up, b_up = shifted(left), shifted(right)
        combine = torch.add if isinstance(op, ops.Add) else torch.sub
        return lambda a, b: combine(up(a, a_up), up(b, b_up))
    if isinstance(op, ops.Mul):
        return lambda a, b: a * b
    if isinstance(op, ops.Relu):
        return lambda c: c.clamp(min=0)
    if isinstance(op, ops.LeakyRelu):
        positive, negative = float(1 << op.slope_frac), float(op.slope_code)
        return lambda c: torch.where(c >= 0, c * positive, c * negative)
    if isinstance(op, ops.Clip):
        _, shifts, low_codes, high_codes = ops.clip_integers(op, x)
        factor_up = shifted(shifts)
        lower = None if low_codes is None else constant(low_codes)
        upper = None if high_codes is None else constant(high_codes)
        return lambda c: torch.clamp(up(c, factor_up), lower, upper)
    if isinstance(op, ops.MaxPool | ops.AvgPool):
        return _pool_kernel(op, len(x.shape) - 1)
    if isinstance(op, ops.Concat):
        frac = max(t.format.max_frac for t in operands)
        rises = [_maybe_scale(ops.to_frac(t, frac), ndim, dtype) for t in operands]
        return lambda *c: torch.cat([up(v, rise) for v, rise in zip(c, rises, strict=True)], dim=1)
    if isinstance(op, ops.Reshape):
        shape = op.shape
        return lambda c: c.reshape(len(c), *shape)
    if isinstance(op, ops.Transpose):
        axes = (0, *(a + 1 for a in op.axes))
        return lambda c: c.permute(axes)
    raise NotImplementedError(op.kind)


def _product_kernel(node: Node, x: Tensor, dtype: torch.dtype, scale: Sequence[float] | None) -> Kernel:
    """linear or conv in floating point; ``scale`` are powers of two per output channel, folded into the
    constants."""
    op = node.op
    assert isinstance(op, ops.Weighted)
    weight_codes, bias_codes, _ = ops.weighted_integers(op, x)
    weight = torch.from_numpy(weight_codes.astype(np.float64))
    bias = None if bias_codes is None else torch.from_numpy(bias_codes.astype(np.float64))
    if scale is not None:
        factors = torch.tensor(list(scale), dtype=torch.float64)
        if len(factors) == 1:
            factors = factors.expand(op.out_channels)
        weight = weight * factors.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = None if bias is None else bias * factors
    weight = weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    if isinstance(op, ops.Linear):
        return lambda c: F.linear(c, weight, bias)
    assert isinstance(op, ops.Conv)
    convolve = F.conv1d if len(op.kernel) == 1 else F.conv2d
    pads, symmetric = _pads(op.padding)
    stride, dilation, groups = op.stride, op.dilation, op.groups

    def kernel(codes: torch.Tensor) -> torch.Tensor:
        if symmetric is None:
            codes = F.pad(codes, pads)
        return convolve(codes, weight, bias, stride, symmetric or 0, dilation, groups)

    return kernel


def _pool_kernel(op: ops.MaxPool | ops.AvgPool, rank: int) -> Kernel:
    kernel, stride = op.kernel, op.stride
    pads, _ = _pads(op.padding)
    padded = any(pads)
    if isinstance(op, ops.MaxPool):
        pool = F.max_pool1d if rank == 1 else F.max_pool2d
        return lambda c: pool(F.pad(c, pads, value=-torch.inf) if padded else c, kernel, stride)
    factor = float(op.scale_code)
    # avg_pool1d has no divisor_override: a row of height 1 does.
    kernel2, stride2 = (kernel, stride) if rank == 2 else ((1, *kernel), (1, *stride))

    def average(codes: torch.Tensor) -> torch.Tensor:
        codes = F.pad(codes, pads) if padded else codes
        image = codes if rank == 2 else codes.unsqueeze(-2)
        total = F.avg_pool2d(image, kernel2, stride2, divisor_override=1) * factor
        return total if rank == 2 else total.squeeze(-2)

    return average


# -- small helpers
# -----------------------------------------------------------------------------


def _pads(padding: ops.Padding) -> tuple[list[int], tuple[int, ...] | None]:
    """Padding as ``F.pad`` takes it, and as convolutions take it when both sides are equal."""
    flat = [p for pair in reversed(padding) for p in pair]
    symmetric = tuple(a for a, _ in padding) if all(a == b for a, b in padding) else None
    return flat, symmetric


def _per_channel(values: np.ndarray | Sequence[float], ndim: int, dtype: torch.dtype) -> torch.Tensor:
    numbers = [float(v) for v in values]
    if len(set(numbers)) == 1:
        return torch.tensor(numbers[0], dtype=dtype)
    return torch.tensor(numbers, dtype=dtype).reshape(1, -1, *(1,) * (ndim - 2))


def _maybe_scale(shifts: np.ndarray, ndim: int, dtype: torch.dtype) -> torch.Tensor | None:
    return None if not shifts.any() else _per_channel([float(1 << int(s)) for s in shifts], ndim, dtype)


def _dtype(arithmetic: str) -> torch.dtype:
    return torch.float32 if arithmetic == "float32" else torch.float64


def _mantissa(arithmetic: str) -> int:
    return FLOAT32_BOUND if arithmetic == "float32" else FLOAT64_BOUND


def _as(value: Value, arithmetic: str) -> Value:
    """Bring codes into an arithmetic; the producer's bound says that they fit."""
    if arithmetic.startswith("float"):
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value.astype(np.float64)))
        return value.to(_dtype(arithmetic))
    array = _as_int64(value) if not (isinstance(value, np.ndarray) and value.dtype == object) else value
    return array.astype(object) if arithmetic == "object" else array.astype(np.int64)


def _as_int64(value: Value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.to(torch.int64).numpy()
    return value.astype(np.int64)


def _last_uses(stages: Sequence[Step | Program], output: str) -> dict[str, int]:
    uses = {name: index for index, stage in enumerate(stages) for name in stage.inputs}
    uses.pop(output, None)
    return uses
