"""The operators of the graph: attributes, and the exact result format of each (docs/graph.md).

Every operator is a frozen dataclass; ``infer`` gives the result tensor of its operands, or raises
:class:`QfxError`. Data is computed elsewhere: in :mod:`qfx.graph.reference` (plain integers) and
:mod:`qfx.graph.interpreter` (fast). The operators of :mod:`qfx.graph.functions` and
:mod:`qfx.graph.arrays` bring their plain integers along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from qfx.errors import QfxError, UnsupportedError
from qfx.formats.base import Format
from qfx.formats.fixed import MAX_WIDTH, FixedPoint
from qfx.graph.tensor import Shape, Tensor, exact_tensor, full_range, integers, one_or_many

Padding = tuple[tuple[int, int], ...]


#: Every operator by its name in graph files.
OPS: dict[str, type[Op]] = {}


@dataclass(frozen=True, eq=False)
class Op:
    """Base of all operators; ``kind`` is the name in graph files."""

    kind: ClassVar[str] = ""
    arity: ClassVar[tuple[int, int | None]] = (1, 1)

    def __init_subclass__(cls) -> None:
        if cls.kind:
            OPS[cls.kind] = cls

    def infer(self, *operands: Tensor) -> Tensor:
        raise NotImplementedError

    def evaluate(self, operands: Sequence[Tensor], codes: Sequence[np.ndarray]) -> np.ndarray:
        """The result's codes; see :func:`qfx.graph.reference.evaluate`."""
        raise NotImplementedError(self.kind)

    def largest(self, operands: Sequence[Tensor]) -> int:
        """An upper bound of the integers on the way to the result, where they exceed operands and result."""
        return 0


@dataclass(frozen=True, eq=False)
class Input(Op):
    """Real numbers are cast to ``format``; the first node of every graph."""

    kind: ClassVar[str] = "input"
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    shape: Shape
    format: Format

    def infer(self, *operands: Tensor) -> Tensor:
        if not self.format.has_point:
            raise QfxError(
                f"input: {self.format} takes its scale from the data, which real numbers cannot be cast to "
                "exactly; use a fixed-point or minifloat input, and cast behind it"
            )
        span = max(self.format.integer_max, -self.format.integer_min).bit_length()
        if span >= MAX_WIDTH:
            raise QfxError(
                f"input: the numbers of {self.format} span {span} bits, and a tensor can have {MAX_WIDTH}; "
                "use fewer exponent bits, or a fixed-point input and a cast behind it"
            )
        result = full_range(self.shape, self.format)
        _ = result.fracs
        return result


@dataclass(frozen=True, eq=False)
class Cast(Op):
    """The only operator that loses bits."""

    kind: ClassVar[str] = "cast"
    format: Format

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        f = self.format
        low, high = (integers(ends) for ends in f.cast_interval(x.low, x.high, x.fracs))
        if isinstance(f, FixedPoint):
            _ = f.fracs(x.channels)
            return Tensor(x.shape, f, low, high)
        result = exact_tensor(x.shape, tuple(f.result_points(x.fracs)), low, high)
        return replace(result, encoding=f)


@dataclass(frozen=True, eq=False)
class Weighted(Op):
    """What ``linear`` and ``conv`` share: weight and bias codes.

    ``weight`` is int64 ``(out, in)`` or ``(out, in / groups, *kernel)``; ``bias`` int64 ``(out,)`` or
    ``None``, with ``bias_format`` ``None`` alike. ``weight_encoding`` is a number format that the weights
    obey besides, or ``None``.
    """

    weight: np.ndarray
    weight_format: FixedPoint
    bias: np.ndarray | None
    bias_format: FixedPoint | None
    weight_encoding: Format | None = field(default=None, kw_only=True)

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])

    def check_codes(self) -> None:
        check_codes("weight", self.weight, self.weight_format)
        check_members("weight", self.weight, self.weight_format, self.weight_encoding)
        self.weight_format.fracs(self.out_channels)
        if (self.bias is None) != (self.bias_format is None):
            raise QfxError("bias and bias_format: give both or neither")
        if self.bias is not None and self.bias_format is not None:
            if self.bias.shape != (self.out_channels,):
                raise QfxError(f"bias has shape {self.bias.shape}, expected {(self.out_channels,)}")
            check_codes("bias", self.bias, self.bias_format)
            self.bias_format.fracs(self.out_channels)


@dataclass(frozen=True, eq=False)
class Linear(Weighted):
    """Matrix times vector, plus bias."""

    kind: ClassVar[str] = "linear"

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        self.check_codes()
        if self.weight.ndim != 2 or x.shape != (self.weight.shape[1],):
            raise QfxError(
                f"linear: weight of shape {self.weight.shape} and operand of shape {x.shape} do not match"
            )
        return _weighted_result(self, x, (self.out_channels,), padded=False)


@dataclass(frozen=True, eq=False)
class Conv(Weighted):
    """Cross-correlation in one or two dimensions, plus bias."""

    kind: ClassVar[str] = "conv"
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(int(k) for k in self.weight.shape[2:])

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        self.check_codes()
        rank = len(x.shape) - 1
        if self.weight.ndim != rank + 2 or rank not in (1, 2):
            raise QfxError(
                f"conv: weight of shape {self.weight.shape} and operand of shape {x.shape} do not match"
            )
        if (
            self.groups < 1
            or x.channels != self.weight.shape[1] * self.groups
            or self.out_channels % self.groups
        ):
            raise QfxError(
                f"conv: {self.groups} groups of {self.weight.shape[1]} channels to "
                f"{self.out_channels}, operand has {x.channels} channels"
            )
        spatial = window_shape(x.shape, self.kernel, self.stride, self.padding, self.dilation)
        padded = any(p for pair in self.padding for p in pair)
        return _weighted_result(self, x, (self.out_channels, *spatial), padded)


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """Multiply by ``scale`` and add ``offset``, per channel; both int64 ``(channels,)`` or ``(1,)``.

    ``scale_encoding`` is a number format that the scales obey besides, or ``None``.
    """

    kind: ClassVar[str] = "affine"
    scale: np.ndarray
    scale_format: FixedPoint
    offset: np.ndarray
    offset_format: FixedPoint
    scale_encoding: Format | None = field(default=None, kw_only=True)

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        for name, codes, fmt in (
            ("scale", self.scale, self.scale_format),
            ("offset", self.offset, self.offset_format),
        ):
            check_codes(name, codes, fmt)
            if codes.shape not in ((x.channels,), (1,)):
                raise QfxError(f"affine: {name} has shape {codes.shape}, expected {(x.channels,)} or (1,)")
            fmt.fracs(codes.shape[0])
        check_members("scale", self.scale, self.scale_format, self.scale_encoding)
        scale, offset, fracs = affine_integers(self, x)
        a, b = x.low * scale, x.high * scale
        return exact_tensor(x.shape, fracs, np.minimum(a, b) + offset, np.maximum(a, b) + offset)


@dataclass(frozen=True, eq=False)
class _Binary(Op):
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def _same_shape(self, a: Tensor, b: Tensor) -> None:
        if a.shape != b.shape:
            raise QfxError(
                f"{self.kind}: operands of shape {a.shape} and {b.shape}; both must have the same shape"
            )


@dataclass(frozen=True, eq=False)
class Add(_Binary):
    kind: ClassVar[str] = "add"

    def infer(self, *operands: Tensor) -> Tensor:
        a, b = operands
        self._same_shape(a, b)
        sa, sb, fracs = alignment(a, b)
        return exact_tensor(a.shape, fracs, (a.low << sa) + (b.low << sb), (a.high << sa) + (b.high << sb))


@dataclass(frozen=True, eq=False)
class Sub(_Binary):
    kind: ClassVar[str] = "sub"

    def infer(self, *operands: Tensor) -> Tensor:
        a, b = operands
        self._same_shape(a, b)
        sa, sb, fracs = alignment(a, b)
        return exact_tensor(a.shape, fracs, (a.low << sa) - (b.high << sb), (a.high << sa) - (b.low << sb))


@dataclass(frozen=True, eq=False)
class Mul(_Binary):
    kind: ClassVar[str] = "mul"

    def infer(self, *operands: Tensor) -> Tensor:
        a, b = operands
        self._same_shape(a, b)
        corners = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
        if a is b:
            # A square is not negative, and never the product of two different ends.
            least = np.where((a.low <= 0) & (a.high >= 0), 0, np.minimum(corners[0], corners[3]))
            corners = np.stack([least, corners[0], corners[3]])
        fracs = tuple(p + q for p, q in zip(a.fracs, b.fracs, strict=True))
        return exact_tensor(a.shape, fracs, corners.min(axis=0), corners.max(axis=0))


@dataclass(frozen=True, eq=False)
class Relu(Op):
    kind: ClassVar[str] = "relu"

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        result = exact_tensor(x.shape, x.fracs, np.maximum(x.low, 0), np.maximum(x.high, 0))
        zero = integers([0]).reshape(1, 1)
        keeps = x.encoding is not None and bool(x.encoding.members(zero).all())
        return replace(result, encoding=x.encoding if keeps else None)


@dataclass(frozen=True, eq=False)
class LeakyRelu(Op):
    """Codes below zero are multiplied by ``slope_code * 2**-slope_frac``."""

    kind: ClassVar[str] = "leaky_relu"
    slope_code: int
    slope_frac: int

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if not 0 <= self.slope_frac <= 62 or abs(self.slope_code) >= 1 << 31:
            raise QfxError(
                f"leaky_relu: slope {self.slope_code} * 2**-{self.slope_frac} is outside what is supported"
            )
        ends = [self.map(x.low), self.map(x.high)]
        # A negative slope folds the function, with its turning point at 0.
        zero = np.where((x.low < 0) & (x.high > 0), 0, ends[0])
        low = np.minimum(np.minimum(*ends), zero)
        high = np.maximum(np.maximum(*ends), zero)
        return exact_tensor(x.shape, tuple(f + self.slope_frac for f in x.fracs), low, high)

    def map(self, codes: np.ndarray) -> np.ndarray:
        return np.where(codes >= 0, codes << self.slope_frac, codes * self.slope_code)


@dataclass(frozen=True, eq=False)
class Clip(Op):
    """Between two constants with binary point ``bound_frac``; ReLU6 and Hardtanh."""

    kind: ClassVar[str] = "clip"
    low: int | None
    high: int | None
    bound_frac: int

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if self.low is not None and self.high is not None and self.low > self.high:
            raise QfxError(f"clip: lower bound {self.low} above upper bound {self.high}")
        fracs, shifts, lows, highs = clip_integers(self, x)
        lo, hi = x.low << shifts, x.high << shifts
        if lows is not None:
            lo, hi = np.maximum(lo, lows), np.maximum(hi, lows)
        if highs is not None:
            lo, hi = np.minimum(lo, highs), np.minimum(hi, highs)
        return exact_tensor(x.shape, fracs, lo, hi)


@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    kind: ClassVar[str] = "max_pool"
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        spatial = window_shape(x.shape, self.kernel, self.stride, self.padding, (1,) * len(self.kernel))
        if any(p >= k for pair, k in zip(self.padding, self.kernel, strict=True) for p in pair):
            raise QfxError(f"max_pool: padding {self.padding} must be smaller than the kernel {self.kernel}")
        encoding = x.encoding if x.encoding is None or x.encoding.has_point else None
        return Tensor((x.channels, *spatial), x.format, x.low, x.high, encoding)


@dataclass(frozen=True, eq=False)
class AvgPool(Op):
    """Sum of the window times ``scale_code * 2**-scale_frac``."""

    kind: ClassVar[str] = "avg_pool"
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    scale_code: int
    scale_frac: int

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if not 0 < self.scale_code < 1 << 31 or abs(self.scale_frac) > 62:
            raise QfxError(
                f"avg_pool: scale {self.scale_code} * 2**-{self.scale_frac} is outside what is supported"
            )
        spatial = window_shape(x.shape, self.kernel, self.stride, self.padding, (1,) * len(self.kernel))
        low, high = x.low, x.high
        if any(p for pair in self.padding for p in pair):
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        n = int(np.prod(self.kernel)) * self.scale_code
        return exact_tensor(
            (x.channels, *spatial), tuple(f + self.scale_frac for f in x.fracs), low * n, high * n
        )


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Join along the channel axis."""

    kind: ClassVar[str] = "concat"
    arity: ClassVar[tuple[int, int | None]] = (2, None)

    def infer(self, *operands: Tensor) -> Tensor:
        if len({x.shape[1:] for x in operands}) != 1:
            raise QfxError(f"concat: operands of shapes {[x.shape for x in operands]} differ beyond axis 0")
        frac = max(x.format.max_frac for x in operands)
        low = np.concatenate([x.low << to_frac(x, frac) for x in operands])
        high = np.concatenate([x.high << to_frac(x, frac) for x in operands])
        return exact_tensor((sum(x.channels for x in operands), *operands[0].shape[1:]), frac, low, high)


@dataclass(frozen=True, eq=False)
class Reshape(Op):
    kind: ClassVar[str] = "reshape"
    shape: Shape

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if int(np.prod(self.shape)) != x.size or not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise QfxError(f"reshape: {x.shape} to {self.shape} is not possible")
        return _moved(x, lambda a: a.reshape(self.shape))


@dataclass(frozen=True, eq=False)
class Transpose(Op):
    kind: ClassVar[str] = "transpose"
    axes: tuple[int, ...]

    def infer(self, *operands: Tensor) -> Tensor:
        (x,) = operands
        if sorted(self.axes) != list(range(len(x.shape))):
            raise QfxError(
                f"transpose: axes {self.axes} are not a permutation of the {len(x.shape)} axes of {x.shape}"
            )
        return _moved(x, lambda a: a.transpose(self.axes))


# -- integers that an implementation needs
# -----------------------------------------------------


def cast_shifts(x: Tensor, fmt: FixedPoint) -> tuple[int, ...]:
    """Per channel: bits that a cast of ``x`` to ``fmt`` drops (positive) or appends (negative)."""
    return tuple(p - f for p, f in zip(x.fracs, fmt.fracs(x.channels), strict=True))


def fixed_point_format(op: Cast) -> FixedPoint:
    """The format of a cast, for backends that can cast to fixed point only.

    Raises:
        UnsupportedError: it is another one.
    """
    if not isinstance(op.format, FixedPoint):
        raise UnsupportedError(
            f"a cast of activations to {op.format} has no hardware here yet; supported: FixedPoint. Use a "
            "fixed-point activation format (weights may have any format), or the interpreter: graph.run(x)"
        )
    return op.format


def no_hardware(op: Op) -> str:
    """What backends say of an operator that they have no kernel for."""
    return (
        f"there is no kernel for the operator {op.kind} here yet (docs/layers.md lists the layers that have "
        "hardware); replace the layer, keep it outside the network, or compute with the interpreter: "
        "graph.run(x)"
    )


def to_frac(x: Tensor, frac: int) -> np.ndarray:
    """Per channel: the left shift that brings ``x`` to binary point ``frac``."""
    return integers([frac - f for f in x.fracs])


def alignment(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Left shifts of both operands of an addition, and the binary points of the result, per channel."""
    fracs = tuple(max(p, q) for p, q in zip(a.fracs, b.fracs, strict=True))
    return (
        integers([f - p for f, p in zip(fracs, a.fracs, strict=True)]),
        integers([f - p for f, p in zip(fracs, b.fracs, strict=True)]),
        fracs,
    )


def affine_integers(op: Affine, x: Tensor) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Scale and offset codes per channel, both brought to the binary points of the result; and these."""
    n = x.channels
    scale_fracs = op.scale_format.fracs(op.scale.shape[0]) * (n // op.scale.shape[0])
    offset_fracs = op.offset_format.fracs(op.offset.shape[0]) * (n // op.offset.shape[0])
    product = [p + s for p, s in zip(x.fracs, scale_fracs, strict=True)]
    fracs = tuple(max(p, o) for p, o in zip(product, offset_fracs, strict=True))
    scale = integers(np.broadcast_to(op.scale, (n,))) << integers(
        [f - p for f, p in zip(fracs, product, strict=True)]
    )
    offset = integers(np.broadcast_to(op.offset, (n,))) << integers(
        [f - o for f, o in zip(fracs, offset_fracs, strict=True)]
    )
    return scale, offset, fracs


def clip_integers(
    op: Clip, x: Tensor
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Per channel: result binary points, left shift of the operand, lower and upper bound in result codes."""
    if abs(op.bound_frac) > 62 or any(b is not None and abs(b) >= 1 << 31 for b in (op.low, op.high)):
        raise QfxError(
            f"clip: bounds {op.low}, {op.high} with binary point {op.bound_frac} are outside "
            "what is supported"
        )
    if op.low is None and op.high is None:
        raise QfxError("clip: needs at least one bound")
    fracs = tuple(max(f, op.bound_frac) for f in x.fracs)
    up = integers([f - op.bound_frac for f in fracs])
    shifts = integers([f - p for f, p in zip(fracs, x.fracs, strict=True)])
    return (
        fracs,
        shifts,
        None if op.low is None else integers([op.low] * x.channels) << up,
        None if op.high is None else integers([op.high] * x.channels) << up,
    )


def weighted_integers(op: Weighted, x: Tensor) -> tuple[np.ndarray, np.ndarray | None, tuple[int, ...]]:
    """``W``, the aligned bias and ``F`` of docs/graph.md: all terms of an output channel on one binary point.

    Returns:
        weight: ``object`` integers of the shape of ``op.weight``; bias: ``object`` integers ``(out,)`` or
            ``None``; fracs: ``(out,)``.
    """
    out = op.out_channels
    groups = op.groups if isinstance(op, Conv) else 1
    top = x.format.max_frac
    fracs = [f + top for f in op.weight_format.fracs(out)]
    bias = None
    if op.bias is not None and op.bias_format is not None:
        bias_fracs = op.bias_format.fracs(out)
        fracs = [max(f, b) for f, b in zip(fracs, bias_fracs, strict=True)]
        bias = integers(op.bias) << integers([f - b for f, b in zip(fracs, bias_fracs, strict=True)])
    own = integers([f - w for f, w in zip(fracs, op.weight_format.fracs(out), strict=True)])
    per_group = op.weight.shape[1]
    inputs = integers(x.fracs).reshape(groups, per_group)
    group_of = np.arange(out) // (out // groups)
    shifts = own[:, None] - inputs[group_of]
    shape = (*shifts.shape, *(1,) * (op.weight.ndim - 2))
    return integers(op.weight) << shifts.reshape(shape), bias, tuple(fracs)


def window_shape(
    shape: Shape, kernel: Sequence[int], stride: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> tuple[int, ...]:
    """Spatial size after a sliding window."""
    rank = len(shape) - 1
    if rank not in (1, 2) or not len(kernel) == len(stride) == len(padding) == len(dilation) == rank:
        raise QfxError(
            f"window of kernel {kernel}, stride {stride}, padding {padding} does not fit an "
            f"operand of shape {shape}"
        )
    if min(*kernel, *stride, *dilation, 1) < 1 or any(len(pair) != 2 or min(pair) < 0 for pair in padding):
        raise QfxError(
            f"kernel {kernel}, stride {stride}, dilation {dilation} must be at least 1 and "
            f"padding {padding} at least 0"
        )
    out = tuple(
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, k, s, (before, after), d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    )
    if min(out) < 1:
        raise QfxError(
            f"a window of kernel {kernel}, dilation {dilation} does not fit into shape "
            f"{shape} with padding {padding}"
        )
    return out


def check_codes(name: str, codes: np.ndarray, fmt: FixedPoint) -> None:
    """Refuse constants that are not codes of their format."""
    if codes.dtype != np.int64 or codes.ndim < 1 or codes.size == 0:
        raise QfxError(
            f"{name}: expected a non-empty int64 array of codes, found dtype {codes.dtype}, "
            f"shape {codes.shape}"
        )
    low, high = (-(1 << (fmt.width - 1)), fmt.code_max) if fmt.signed else (0, fmt.code_max)
    if int(codes.min()) < low or int(codes.max()) > high:
        raise QfxError(
            f"{name}: codes {codes.min()}..{codes.max()} are outside the range {low}..{high} of {fmt}"
        )


def check_members(name: str, codes: np.ndarray, fmt: FixedPoint, encoding: Format | None) -> None:
    """Refuse constants that are not numbers of the encoding that they are said to have."""
    if encoding is None:
        return
    values = integers(codes)
    if encoding.has_point:
        rows = codes.shape[0]
        pairs = zip(encoding.fracs(rows), fmt.fracs(rows), strict=True)
        shape = (-1, *(1,) * (codes.ndim - 1))
        shifts = integers([e - f for e, f in pairs]).reshape(shape)
        up, down = np.maximum(shifts, 0), np.maximum(-shifts, 0)
        if ((values >> down) << down != values).any():
            raise QfxError(f"{name}: codes lie between the numbers of {encoding}")
        values = (values << up) >> down
    outside = ~encoding.members(values)
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        raise QfxError(f"{name}: the code {codes[place]} at {place} is not a number of {encoding}")


def _weighted_result(op: Weighted, x: Tensor, shape: Shape, padded: bool) -> Tensor:
    weight, bias, fracs = weighted_integers(op, x)
    low, high = (np.minimum(x.low, 0), np.maximum(x.high, 0)) if padded else (x.low, x.high)
    out, groups = op.out_channels, op.groups if isinstance(op, Conv) else 1
    per_group = op.weight.shape[1]
    group_of = np.arange(out) // (out // groups)
    taps = weight.reshape(out, per_group, -1)
    low = low.reshape(groups, per_group)[group_of][:, :, None]
    high = high.reshape(groups, per_group)[group_of][:, :, None]
    positive, negative = np.maximum(taps, 0), np.minimum(taps, 0)
    offset = bias if bias is not None else integers([0] * out)
    result_low = (positive * low + negative * high).sum(axis=(1, 2)) + offset
    result_high = (positive * high + negative * low).sum(axis=(1, 2)) + offset
    return exact_tensor(shape, fracs, integers(result_low), integers(result_high))


def _moved(x: Tensor, move) -> Tensor:  # type: ignore[no-untyped-def]
    """A tensor whose codes change place: per-channel facts follow the codes."""
    place = (-1, *(1,) * (len(x.shape) - 1))

    def per_new_channel(values: np.ndarray) -> np.ndarray:
        moved = move(np.broadcast_to(values.reshape(place), x.shape))
        return moved.reshape(moved.shape[0], -1)

    shape = move(np.broadcast_to(np.int8(0), x.shape)).shape
    fmt = x.format
    if fmt.per_channel:
        fracs = per_new_channel(np.asarray(x.fracs))
        if (fracs.min(axis=1) != fracs.max(axis=1)).any():
            raise QfxError(
                "reshape/transpose: the operand has a binary point per channel, and a "
                "channel of the result would have several"
            )
        fmt = fmt.with_frac(one_or_many(tuple(int(f) for f in fracs[:, 0])))
    low, high = per_new_channel(x.low).min(axis=1), per_new_channel(x.high).max(axis=1)
    # One that tells channels apart would have to be taken apart.
    whole = x.encoding is not None and x.encoding.has_point and not x.encoding.per_channel
    encoding = x.encoding if whole else None
    return Tensor(tuple(int(s) for s in shape), fmt, integers(low), integers(high), encoding)
