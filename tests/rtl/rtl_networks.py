"""Small networks that reach every operator and every shape of dataflow; all tests here share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qfx import FixedPoint
from qfx.formats import (
    MXFP4,
    Binary,
    Block,
    BlockFloatingPoint,
    DynamicFixedPoint,
    Format,
    KHot,
    Minifloat,
)
from qfx.graph import Graph, GraphBuilder, ops

Padding = tuple[tuple[int, int], ...]


class Net:
    """A graph builder with short names and random weights."""

    def __init__(self, shape: tuple[int, ...], fmt: Format, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder()
        self.x = self.builder.add(ops.Input(shape, fmt), (), "input")

    def codes(self, shape: tuple[int, ...], fmt: FixedPoint) -> np.ndarray:
        low, high = (-(1 << (fmt.width - 1)), fmt.code_max) if fmt.signed else (0, fmt.code_max)
        return self.rng.integers(low, high + 1, shape)

    def add(self, op: ops.Op, *inputs: str, path: str = "") -> str:
        return self.builder.add(op, inputs, path or op.kind)

    def channels(self, x: str) -> int:
        return self.builder.tensor(x).channels

    def cast(self, x: str, width: int, frac: int | tuple[int, ...], signed: bool = True, *modes: str) -> str:
        return self.add(ops.Cast(FixedPoint(width, frac, signed, *modes)), x)

    def format(self, x: str, fmt: Format) -> str:
        return self.add(ops.Cast(fmt), x)

    def relu(self, x: str) -> str:
        return self.add(ops.Relu(), x)

    def linear(
        self, x: str, out: int, weight: FixedPoint, bias: FixedPoint | None = None, path: str = ""
    ) -> str:
        codes = self.codes((out, self.channels(x)), weight)
        return self.add(
            ops.Linear(codes, weight, None if bias is None else self.codes((out,), bias), bias), x, path=path
        )

    def conv(
        self,
        x: str,
        out: int,
        kernel: Sequence[int],
        weight: FixedPoint,
        bias: FixedPoint | None = None,
        *,
        stride: int = 1,
        padding: Padding | int = 0,
        dilation: int = 1,
        groups: int = 1,
        path: str = "",
    ) -> str:
        rank = len(kernel)
        pads = ((padding, padding),) * rank if isinstance(padding, int) else padding
        codes = self.codes((out, self.channels(x) // groups, *kernel), weight)
        bias_codes = None if bias is None else self.codes((out,), bias)
        op = ops.Conv(codes, weight, bias_codes, bias, (stride,) * rank, pads, (dilation,) * rank, groups)
        return self.add(op, x, path=path)

    def affine(self, x: str, scale: FixedPoint, offset: FixedPoint) -> str:
        n = self.channels(x)
        return self.add(ops.Affine(self.codes((n,), scale), scale, self.codes((n,), offset), offset), x)

    def pool(self, x: str, kind: str, kernel: int, stride: int, padding: int = 0, *scale: int) -> str:
        rank = len(self.builder.tensor(x).shape) - 1
        window = ((kernel,) * rank, (stride,) * rank, ((padding, padding),) * rank)
        return self.add(ops.MaxPool(*window) if kind == "max" else ops.AvgPool(*window, *scale), x)

    def reshape(self, x: str, *shape: int) -> str:
        return self.add(ops.Reshape(shape), x)

    def build(self, output: str) -> Graph:
        return self.builder.build(output)


W4, W8 = FixedPoint(4, 3), FixedPoint(8, 6)


def minimal() -> Graph:
    """Convolution, ReLU, cast, linear, cast."""
    n = Net((3, 6, 6), FixedPoint(4, 2))
    x = n.cast(n.relu(n.conv(n.x, 4, (3, 3), W4, W4, padding=1, path="conv")), 4, 2, False)
    return n.build(n.cast(n.linear(n.reshape(x, 144), 5, W4, W8, path="fc"), 8, 2))


def residual_cnn(size: int = 8, channels: int = 6) -> Graph:
    """A stem, a block whose skip waits for two convolutions, pooling, a classifier; size: a power of two."""
    n = Net((1, size, size), FixedPoint(8, 5), 1)
    x = n.conv(n.x, channels, (3, 3), W4, padding=1, path="stem")
    x = n.cast(n.relu(n.affine(x, FixedPoint(6, 4), FixedPoint(8, 3))), 4, 1, False)
    y = n.cast(n.relu(n.conv(x, channels, (3, 3), W4, W4, padding=1, path="block.conv1")), 4, 0, False)
    y = n.cast(n.conv(y, channels, (3, 3), W4, padding=1, path="block.conv2"), 4, -1)
    x = n.cast(n.relu(n.add(ops.Add(), y, x)), 4, 0, False)
    x = n.pool(x, "max", 2, 2)
    half = size // 2
    x = n.cast(n.pool(x, "avg", half, 1, 0, 1, 2 * (half.bit_length() - 1)), 6, 3, False)
    return n.build(n.cast(n.linear(n.reshape(x, channels), 10, W4, W8, path="fc"), 8, 3))


def per_channel() -> Graph:
    """A binary point per channel meeting every operator that has to bring them together."""
    fracs = (2, 3, 1, 4)
    n = Net((4, 5, 5), FixedPoint(5, fracs), 2)
    x = n.conv(n.x, 4, (2, 2), FixedPoint(4, (3, 1, 2, 5)), FixedPoint(6, (9, 2, 3, 5)), path="conv")
    x = n.cast(x, 5, (2, 1, 3, 2), True, "RND", "SAT_SYM")
    y = n.add(ops.LeakyRelu(-3, 3), n.add(ops.Clip(-9, 6, 1), x))
    y = n.cast(y, 6, (4, 3, 3, 5), True, "TRN_ZERO", "WRAP")
    z = n.add(ops.Sub(), n.add(ops.Add(), x, y), n.cast(x, 3, 1, True, "RND_INF", "SAT_ZERO"))
    z = n.cast(z, 7, (3, 4, 2, 3), True, "RND_ZERO", "WRAP_SM")
    z = n.add(ops.Concat(), z, x, y)
    z = n.affine(z, FixedPoint(5, tuple(range(12))), FixedPoint(7, tuple(range(3, 15))))
    z = n.cast(z, 6, tuple(range(12)), True, "RND_MIN_INF", "SAT")
    return n.build(n.linear(n.reshape(n.pool(z, "avg", 4, 4, 0, 5, 6), 12), 3, W4, W8, path="fc"))


def one_dimension() -> Graph:
    """Conv1d with stride, dilation, groups, depthwise; uneven padding; pools with padding."""
    n = Net((4, 24), FixedPoint(6, 3), 3)
    x = n.conv(n.x, 8, (5,), W4, stride=2, padding=((3, 1),), path="strided")
    x = n.add(ops.LeakyRelu(3, 4), n.cast(x, 6, 1))
    x = n.cast(n.conv(x, 6, (3,), W4, W4, dilation=2, padding=2, groups=2, path="grouped"), 5, 0)
    x = n.pool(x, "max", 3, 2, 1)
    x = n.cast(n.conv(x, 6, (3,), W4, W4, padding=1, groups=6, path="depthwise"), 5, 0)
    x = n.pool(x, "avg", 3, 3, 1, 21, 6)
    return n.build(n.cast(x, 9, 2, True, "TRN", "WRAP"))


def element_wise() -> Graph:
    """Forks, joins, and a tensor that meets itself."""
    n = Net((6,), FixedPoint(5, 2), 4)
    a = n.cast(n.linear(n.x, 6, W4), 5, 1)
    b = n.add(ops.Add(), a, a)
    c = n.add(ops.Mul(), n.add(ops.Sub(), n.x, b), a)
    d = n.cast(c, 7, 2, True, "RND", "WRAP")
    e = n.add(ops.Clip(None, 20, 0), n.add(ops.Add(), d, n.x))
    return n.build(n.add(ops.Concat(), e, n.relu(n.cast(d, 4, 0)), n.x, a))


def moves() -> Graph:
    """Reshapes and transposes: free, absorbed by weights, and by reordering."""
    n = Net((4, 3, 6), FixedPoint(4, 1), 5)
    x = n.add(ops.Transpose((0, 2, 1)), n.x)
    x = n.cast(n.conv(x, 4, (3, 1), W4, path="conv"), 5, 0)
    y = n.reshape(x, 48)
    y = n.affine(n.relu(y), FixedPoint(3, 1), FixedPoint(4, 0))
    y = n.cast(n.linear(n.cast(y, 4, -1), 12, W4, path="fc"), 6, -2)
    y = n.cast(n.conv(n.reshape(y, 3, 4), 4, (2,), W4, path="conv2"), 5, -2)
    return n.build(n.add(ops.Transpose((1, 0)), y))


def depthwise() -> Graph:
    """The blocks of MobileNet: depthwise, pointwise, strided depthwise, grouped pointwise."""
    n = Net((4, 7, 7), FixedPoint(4, 2), 6)
    x = n.cast(n.relu(n.conv(n.x, 4, (3, 3), W4, W4, padding=1, groups=4, path="dw1")), 4, 1, False)
    x = n.cast(n.conv(x, 8, (1, 1), W4, W8, path="pw1"), 4, 0)
    x = n.cast(n.conv(x, 8, (3, 3), W4, stride=2, padding=1, groups=8, path="dw2"), 4, -1)
    x = n.cast(n.conv(x, 6, (1, 1), W4, groups=2, path="pw2"), 4, -2)
    return n.build(n.cast(n.conv(x, 3, (4, 4), W4, path="whole"), 8, -2))


def far_points() -> Graph:
    """Binary points outside the word, biases finer than products, common trailing zeros, all-zero weights."""
    n = Net((8,), FixedPoint(5, 9), 7)
    coarse = n.codes((6, 8), FixedPoint(6, 0)) * 4
    x = n.add(ops.Linear(coarse, FixedPoint(8, -4), n.codes((6,), FixedPoint(8, 0)), FixedPoint(8, 11)), n.x)
    x = n.cast(x, 6, -3, True, "RND_CONV", "WRAP_SM")
    zero = ops.Linear(np.zeros((4, 6), dtype=np.int64), W4, n.codes((4,), W4), FixedPoint(4, 20))
    y = n.add(zero, x)
    z = n.linear(n.cast(x, 4, -9), 4, FixedPoint(5, 12, False), FixedPoint(3, (2, 5, -1, 7)))
    return n.build(n.cast(n.add(ops.Add(), n.cast(z, 12, 6), y), 10, 1))


def number_formats() -> Graph:
    """Activations in minifloats and K-hot numbers, with binary points per channel around the casts."""
    n = Net((3, 5, 5), Minifloat(3, 2, 3), 8)
    x = n.conv(n.x, 4, (3, 3), W4, W4, padding=1, path="conv")
    a = n.format(x, Minifloat(3, 2, 2))
    # Coarser and finer than the operand: shifts before the cast, and zeros to drop behind it.
    b = n.format(a, Minifloat(2, 1, (0, 2, -3, 6), rounding="RND_INF"))
    c = n.format(x, KHot(6, (3, 4, 2, 5), 2))
    d = n.format(n.relu(x), KHot(5, 0, 2, "binary", signed=False))
    y = n.add(
        ops.Concat(), n.add(ops.Mul(), a, c), b, n.add(ops.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))), d)
    )
    y = n.format(n.conv(y, 4, (3, 3), W4, path="conv2"), KHot(9, -2, 3))
    y = n.format(n.reshape(y, 36), Minifloat(2, 0, -4, signed=False))
    return n.build(
        n.format(n.linear(y, 5, W4, W8, path="fc"), Minifloat(4, 3, specials="fn", rounding="TRN"))
    )


def binarized() -> Graph:
    """Signs between layers, and zeros around pictures of signs."""
    n = Net((2, 6, 6), FixedPoint(6, 3), 9)
    sign = FixedPoint(2, 0)
    x = n.format(n.x, Binary(0))
    for path in ("conv1", "conv2"):
        codes = 1 - 2 * n.rng.integers(0, 2, (4, n.channels(x), 3, 3))
        conv = ops.Conv(
            codes, sign, None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, weight_encoding=Binary(0)
        )
        x = n.format(n.affine(n.add(conv, x, path=path), FixedPoint(4, 2), FixedPoint(6, 1)), Binary(1))
    x = n.format(n.pool(x, "max", 2, 2), Binary((1, 0, -1, 2)))
    return n.build(n.linear(n.reshape(x, 36), 3, W4, W8, path="fc"))


def blocks() -> Graph:
    """Blocks with a scale of their own: of all the channels, of some, with a rest; in a flattened picture."""
    n = Net((2, 4, 4), FixedPoint(8, 4), 10)
    x = n.conv(n.x, 6, (3, 3), W4, W4, padding=1, path="conv")
    a = n.format(x, Block(Minifloat(2, 1, 1), 4))
    b = n.format(x, Block(FixedPoint(4, 2, rounding="TRN"), 2))
    c = n.format(n.cast(x, 7, (3, 5, 2, 4, 4, 1)), Block(Minifloat(3, 0, 3), 32))
    d = n.format(x, Block(Minifloat(2, 2, 1, signed=False, rounding="RND"), 3))
    y = n.conv(n.add(ops.Concat(), a, b, c, d), 5, (3, 3), W4, path="conv2")
    y = n.format(n.reshape(n.format(y, BlockFloatingPoint(6)), 20), MXFP4())
    return n.build(n.format(n.linear(y, 4, W4, path="fc"), DynamicFixedPoint(6)))


NETWORKS: dict[str, Callable[[], Graph]] = {
    f.__name__: f
    for f in (
        minimal,
        residual_cnn,
        per_channel,
        one_dimension,
        element_wise,
        moves,
        depthwise,
        far_points,
        number_formats,
        binarized,
        blocks,
    )
}


def inputs(graph: Graph, samples: int, seed: int = 0) -> np.ndarray:
    """Real inputs that cover the input format: random codes, both ends, and values between codes."""
    rng = np.random.default_rng(seed)
    op = graph.input_node.op
    assert isinstance(op, ops.Input)
    fmt = op.format
    if not isinstance(fmt, FixedPoint):
        x = np.asarray(rng.choice(fmt.with_frac(fmt.max_frac).values(), (samples, *op.shape)))
        x[0], x[-1] = fmt.max, fmt.min
        return x
    codes = rng.integers(fmt.code_min, fmt.code_max + 1, (samples, *op.shape))
    codes[0] = fmt.code_max
    codes[-1] = fmt.code_min
    return np.asarray(fmt.decode(codes, axis=1))
