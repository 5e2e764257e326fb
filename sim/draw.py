"""Random integer graphs and inputs for the fuzzer: every operator, format, rounding and overflow mode of
docs/graph.md.

Sizes are small and formats tight on purpose: faults live in corners, and a corner of a small network is hit
in every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qfx.errors import QfxError
from qfx.formats import Block, FixedPoint, Format
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph import Graph, GraphBuilder, Op, Tensor, ops
from qfx.sim.draw_formats import BLOCK, constants, draw_gapped

Rng = np.random.Generator

_MAX_ELEMENTS = 400  # of one tensor
_MAX_WORK = 20_000  # multiplications of one layer and sample
_WIDE = 22  # bits from which a cast usually comes next
_WIDEST = 44  # bits at which it always does


@dataclass(frozen=True)
class Sizes:
    """How large a drawn network may be."""

    steps: int = 7
    channels: int = 6
    side: int = 8
    features: int = 16


def draw_graph(
    rng: Rng,
    sizes: Sizes | None = None,
    *,
    every_format: bool = False,
    every_layer: bool = False,
    hardware: bool = False,
) -> Graph:
    """A random graph of a few operators, with forks and joins; with ``every_format`` not only fixed point,
    with ``every_layer`` also functions and operators on whole arrays; for ``hardware`` without blocks that
    take in a whole sample of many places."""
    sizes = sizes or Sizes()
    kind: type[Drawer] = Drawer
    if every_layer:
        from qfx.sim.draw_layers import LayerDrawer

        kind = LayerDrawer
    drawer = kind(rng, sizes, every_format)
    drawer.hardware = hardware
    for _ in range(int(rng.integers(1, sizes.steps + 1))):
        drawer.step()
    return drawer.finish()


def draw_input(rng: Rng, graph: Graph, samples: int) -> np.ndarray:
    """Inputs that reach ties, saturation and both ends of the input format.

    Returns:
        float64 ``(samples, *input shape)``: the first three samples are all lowest, all highest and all zero,
        the rest mixes values on the grid, half and quarter steps, and values beyond the range by up to half
        of it, now and then by much more.
    """
    tensor = graph.input_node.tensor
    fmt = tensor.format
    low, high = fmt.code_min, fmt.code_max
    size = (samples, *tensor.shape)
    codes = rng.uniform(low - 0.25 * (high - low + 1), high + 0.25 * (high - low + 1), size)
    steps = rng.choice([1.0, 2.0, 4.0], size)
    codes = np.round(codes * steps) / steps
    codes = np.where(
        rng.random(size) < 0.1, rng.choice([low, high, 0, -1, 1, low - 0.5, high + 0.5], size), codes
    )
    codes = np.where(rng.random(size) < 0.02, rng.choice([-1e6, 1e6, -np.inf, np.inf], size), codes)
    for index, value in enumerate((low, high, 0)[:samples]):
        codes[index] = value
    fracs = np.asarray(tensor.fracs).reshape(-1, *(1,) * (len(tensor.shape) - 1))
    return np.ldexp(codes, -fracs)


def draw_format(
    rng: Rng, width: int, frac: int, channels: int = 1, *, signed: bool | None = None
) -> FixedPoint:
    """A format of that width with random signedness and modes; with several channels sometimes a binary point
    for each."""
    signed = bool(rng.integers(2)) if signed is None else signed
    modes = [
        m for m in OVERFLOW if (signed or m != "WRAP_SM") and not (signed and width == 1 and m == "SAT_SYM")
    ]
    place: int | tuple[int, ...] = frac
    if channels > 1 and rng.random() < 0.2:
        place = tuple(int(f) for f in frac + rng.integers(-2, 3, channels))
    return FixedPoint(width, place, signed, str(rng.choice(list(ROUNDING))), str(rng.choice(modes)))


def draw_width(rng: Rng) -> int:
    """1 to 16 bits, mostly few."""
    return int(
        rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16], p=_shares([2, 4, 5, 6, 5, 5, 4, 5, 2, 2, 1, 1]))
    )


def _shares(weights: Sequence[float]) -> np.ndarray:
    return np.asarray(weights) / np.sum(weights)


class Drawer:
    """Appends random operators to a builder; `current` is the tensor that the network goes on from."""

    #: Whether a cast to blocks of a whole sample gets a size, with no number drawn.
    hardware = False

    def __init__(self, rng: Rng, sizes: Sizes, every_format: bool) -> None:
        self.rng = rng
        self.every_format = every_format
        self.sizes = sizes
        self.builder = GraphBuilder()
        shape = self._input_shape()
        width = draw_width(rng)
        frac = int(rng.integers(-3, width + 4))
        fmt: Format = draw_format(rng, width, frac, shape[0])
        if every_format and rng.random() < 0.3:
            gapped = draw_gapped(rng, int(rng.integers(0, 4)), shape[0])
            if gapped.has_point and gapped.integer_max.bit_length() <= _WIDEST:
                fmt = gapped
        self.current = self.builder.add(ops.Input(shape, fmt), path="x")
        self.known = [self.current]
        self.count = 0

    def _input_shape(self) -> tuple[int, ...]:
        rng, sizes = self.rng, self.sizes
        rank = int(rng.choice([0, 1, 2], p=[0.25, 0.25, 0.5]))
        if rank == 0:
            return (int(rng.integers(1, sizes.features + 1)),)
        side = sizes.side + 4 if rank == 1 else sizes.side
        return (int(rng.integers(1, sizes.channels + 1)), *(int(n) for n in rng.integers(1, side + 1, rank)))

    @property
    def tensor(self) -> Tensor:
        return self.builder.tensor(self.current)

    def step(self) -> None:
        """One operator that fits the current tensor, or a few when it opens a branch."""
        if self.tensor.format.width >= _WIDEST or (
            self.tensor.format.width >= _WIDE and self.rng.random() < 0.8
        ):
            self.cast()
            return
        choices: dict[Callable[[], None], float] = {
            self.cast: 2,
            self.affine: 1,
            self.relu: 1.5,
            self.leaky_relu: 1,
            self.clip: 1,
            self.residual: 2,
            self.concat: 1,
            self.reshape: 0.7,
        }
        if len(self.tensor.shape) == 1:
            choices[self.linear] = 5
        else:
            choices |= {
                self.conv: 5,
                self.max_pool: 1.2,
                self.avg_pool: 1.2,
                self.transpose: 0.7,
                self.flatten: 0.7,
            }
        choices |= self.more_choices()
        names = list(choices)
        for _ in range(20):
            move = names[int(self.rng.choice(len(names), p=_shares(list(choices.values()))))]
            before = self.current
            move()
            if self.current != before:
                return

    def more_choices(self) -> dict[Callable[[], None], float]:
        """Operators beyond those that every implementation has, and how often."""
        return {}

    def finish(self) -> Graph:
        """The graph; most networks end with a cast."""
        if self.tensor.format.width >= _WIDEST or self.rng.random() < 0.7:
            self.cast()
        return self.builder.build(self.current)

    def add(self, op: Op, *inputs: str) -> bool:
        """Append an operator; False when it does not fit (a window larger than the image, say) or makes too
        much."""
        operands = [self.builder.tensor(name) for name in inputs]
        try:
            result = op.infer(*operands)
        except QfxError:
            return False
        if result.size > _MAX_ELEMENTS or result.format.width > 60:
            return False
        self.count += 1
        self.current = self.builder.add(op, inputs, path=f"{op.kind}{self.count}")
        self.known.append(self.current)
        return True

    # -- operators
    # -----------------------------------------------------------------------------------------------------

    def cast(self) -> None:
        rng, x = self.rng, self.tensor
        width = draw_width(rng)
        signed = bool(rng.random() < 0.7) if int(x.low.min()) < 0 else bool(rng.random() < 0.3)
        # Integer bits that the values need, give or take a few: both rounding and overflow happen.
        needed = max(
            max(int(lo).bit_length(), int(hi).bit_length()) - f
            for lo, hi, f in zip(x.low, x.high, x.fracs, strict=True)
        )
        if self.every_format and rng.random() < 0.5:
            gapped = draw_gapped(rng, needed, x.channels)
            if self.hardware and isinstance(gapped, Block) and gapped.size is None and x.size > x.channels:
                gapped = replace(gapped, size=BLOCK)
            if self.add(ops.Cast(gapped), self.current):
                return
        frac = width - int(signed) - needed + int(rng.integers(-2, 4))
        if rng.random() < 0.1:
            frac = int(rng.integers(-4, width + 5))
        frac = int(np.clip(frac, -40, 40))
        self.add(ops.Cast(draw_format(rng, width, frac, x.channels, signed=signed)), self.current)

    def linear(self) -> None:
        x = self.tensor
        out = int(self.rng.integers(1, self.sizes.features + 1))
        weight, weight_format, encoding = self._weight((out, x.size))
        bias, bias_format = self._bias(out, x, weight_format)
        op = ops.Linear(weight, weight_format, bias, bias_format, weight_encoding=encoding)
        self.add(op, self.current)

    def conv(self) -> None:
        rng, x = self.rng, self.tensor
        rank = len(x.shape) - 1
        groups = int(
            rng.choice([1, 1, 1, x.channels, *(g for g in range(2, x.channels) if x.channels % g == 0)])
        )
        out = groups * int(rng.integers(1, max(1, self.sizes.channels // groups) + 1))
        kernel = tuple(int(k) for k in rng.integers(1, 4, rank))
        weight, weight_format, encoding = self._weight((out, x.channels // groups, *kernel))
        bias, bias_format = self._bias(out, x, weight_format)
        dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], rank))
        op = ops.Conv(
            weight,
            weight_format,
            bias,
            bias_format,
            stride=tuple(int(s) for s in rng.choice([1, 1, 1, 2, 3], rank)),
            padding=self._padding([d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]),
            dilation=dilation,
            groups=groups,
            weight_encoding=encoding,
        )
        try:
            positions = int(np.prod(op.infer(x).shape[1:]))
        except QfxError:
            return
        if weight.size * positions <= _MAX_WORK:
            self.add(op, self.current)

    def affine(self) -> None:
        x = self.tensor
        scale, scale_format, encoding = self._weight((x.channels if self.rng.random() < 0.7 else 1,))
        offset, offset_format = self._bias(
            x.channels if self.rng.random() < 0.7 else 1, x, scale_format, always=True
        )
        assert offset is not None and offset_format is not None
        op = ops.Affine(scale, scale_format, offset, offset_format, scale_encoding=encoding)
        self.add(op, self.current)

    def relu(self) -> None:
        self.add(ops.Relu(), self.current)

    def leaky_relu(self) -> None:
        frac = int(self.rng.integers(0, 5))
        self.add(ops.LeakyRelu(int(self.rng.integers(-2, (1 << frac) + 2)), frac), self.current)

    def clip(self) -> None:
        rng, x = self.rng, self.tensor
        frac = int(np.clip(x.format.max_frac + rng.integers(-2, 2), -20, 40))
        reach = max(1, min(1 << 20, x.magnitude << max(0, frac - x.format.max_frac)))
        low, high = sorted(int(v) for v in rng.integers(-reach, reach, 2, endpoint=True))
        bounds = [(low, high), (0, high if high > 0 else 1), (low, None), (None, high)]
        self.add(ops.Clip(*bounds[int(rng.integers(4))], frac), self.current)

    def max_pool(self) -> None:
        kernel, stride, padding = self._window()
        self.add(ops.MaxPool(kernel, stride, padding), self.current)

    def avg_pool(self) -> None:
        kernel, stride, padding = self._window()
        if self.rng.random() < 0.3:  # global
            kernel, stride = tuple(self.tensor.shape[1:]), tuple(self.tensor.shape[1:])
            padding = ((0, 0),) * len(kernel)
        places = int(np.prod(kernel))
        if places & (places - 1) == 0:
            scale, frac = 1, places.bit_length() - 1
        else:
            frac = int(self.rng.integers(3, 12))
            scale = max(1, round(2**frac / places))
        self.add(ops.AvgPool(kernel, stride, padding, scale, frac), self.current)

    def reshape(self) -> None:
        size, shapes = self.tensor.size, [self.tensor.shape]
        for a in range(1, size + 1):
            if size % a == 0:
                shapes.append((a, size // a))
                shapes += [(a, b, size // a // b) for b in range(1, size // a + 1) if size // a % b == 0]
        shape = shapes[int(self.rng.integers(len(shapes)))]
        if shape != self.tensor.shape and max(shape) <= 40:
            self.add(ops.Reshape(tuple(int(n) for n in shape)), self.current)

    def flatten(self) -> None:
        if self.tensor.size <= 4 * self.sizes.features:
            self.add(ops.Reshape((self.tensor.size,)), self.current)

    def transpose(self) -> None:
        axes = tuple(int(a) for a in self.rng.permutation(len(self.tensor.shape)))
        if axes != tuple(range(len(axes))):
            self.add(ops.Transpose(axes), self.current)

    def residual(self) -> None:
        """Join the current tensor with another of its shape: an earlier one, or a branch made here."""
        main = self.current
        shape = self.tensor.shape
        others = [n for n in self.known[:-1] if self.builder.tensor(n).shape == shape]
        if others and self.rng.random() < 0.6:
            other = str(self.rng.choice(others))
        else:
            self._branch(shape)
            other = self.current
            if self.builder.tensor(other).shape != shape:
                return
        kind = [ops.Add, ops.Add, ops.Sub, ops.Mul][int(self.rng.integers(4))]
        pair = (main, other) if self.rng.random() < 0.5 else (other, main)
        if not self.add(kind(), *pair):
            self.current = main

    def concat(self) -> None:
        main, space = self.current, self.tensor.shape[1:]
        others = [n for n in self.known if self.builder.tensor(n).shape[1:] == space]
        count = int(self.rng.integers(1, 3))
        if self.rng.random() < 0.5:
            self._branch(self.tensor.shape)
            others = [self.current] if self.tensor.shape[1:] == space else others
        chosen = [main, *(str(n) for n in self.rng.choice(others, count))]
        self.rng.shuffle(chosen)
        if not self.add(ops.Concat(), *chosen):
            self.current = main

    def _branch(self, shape: tuple[int, ...]) -> None:
        """One or two operators that keep the shape, behind the current tensor."""
        moves = [self.cast, self.affine, self.relu, self.leaky_relu]
        for _ in range(int(self.rng.integers(1, 3))):
            if self.rng.random() < 0.4:
                self._same_shape_weighted(shape)
            else:
                moves[int(self.rng.integers(len(moves)))]()

    def _same_shape_weighted(self, shape: tuple[int, ...]) -> None:
        x = self.tensor
        rank = len(shape) - 1
        if rank == 0:
            weight, weight_format = self._codes((shape[0], x.size))
            bias, bias_format = self._bias(shape[0], x, weight_format)
            self.add(ops.Linear(weight, weight_format, bias, bias_format), self.current)
            return
        kernel = tuple(int(k) for k in self.rng.choice([1, 3], rank))
        weight, weight_format = self._codes((shape[0], x.channels, *kernel))
        bias, bias_format = self._bias(shape[0], x, weight_format)
        ones = (1,) * rank
        padding = tuple((k // 2, k // 2) for k in kernel)
        if weight.size * int(np.prod(shape[1:])) <= _MAX_WORK:
            self.add(ops.Conv(weight, weight_format, bias, bias_format, ones, padding, ones, 1), self.current)

    # -- constants
    # -----------------------------------------------------------------------------------------------------

    def _weight(self, shape: tuple[int, ...]) -> tuple[np.ndarray, FixedPoint, Format | None]:
        """Codes of a weight or a scale, the fixed-point format that holds them, and their encoding."""
        if self.every_format and self.rng.random() < 0.5:
            fmt = draw_gapped(self.rng, 1, 1)
            if fmt.has_point or len(shape) > 1:
                found = constants(fmt, self.rng.normal(0, 0.7, shape))
                if found is not None:
                    return *found, fmt
        return *self._codes(shape), None

    def _codes(self, shape: tuple[int, ...]) -> tuple[np.ndarray, FixedPoint]:
        rng = self.rng
        width = min(draw_width(rng), 12)
        fmt = draw_format(
            rng, width, int(rng.integers(-1, width + 3)), shape[0], signed=bool(rng.random() < 0.8)
        )
        low = -(1 << (width - 1)) if fmt.signed else 0
        codes = rng.integers(low, fmt.code_max, shape, dtype=np.int64, endpoint=True)
        codes = np.where(rng.random(shape) < 0.15, rng.choice([low, fmt.code_max, 0], shape), codes)
        return codes.astype(np.int64), fmt

    def _bias(
        self, channels: int, x: Tensor, weight: FixedPoint, *, always: bool = False
    ) -> tuple[np.ndarray | None, FixedPoint | None]:
        rng = self.rng
        if not always and rng.random() < 0.3:
            return None, None
        width = draw_width(rng)
        frac = int(np.clip(x.format.max_frac + weight.max_frac + rng.integers(-4, 3), -20, 40))
        fmt = draw_format(rng, width, frac, channels)
        low = -(1 << (width - 1)) if fmt.signed else 0
        return rng.integers(low, fmt.code_max, (channels,), dtype=np.int64, endpoint=True), fmt

    def _padding(self, reach: Sequence[int]) -> ops.Padding:
        if self.rng.random() < 0.5:
            return ((0, 0),) * len(reach)
        if self.rng.random() < 0.5:
            return tuple((r // 2, r - r // 2) for r in reach)
        return tuple((int(self.rng.integers(0, r + 2)), int(self.rng.integers(0, r + 2))) for r in reach)

    def _window(self) -> tuple[tuple[int, ...], tuple[int, ...], ops.Padding]:
        rng = self.rng
        kernel = tuple(
            int(min(n, k)) for n, k in zip(self.tensor.shape[1:], rng.integers(1, 4, 2), strict=False)
        )
        stride = tuple(int(k) if rng.random() < 0.6 else int(rng.integers(1, 4)) for k in kernel)
        padding: ops.Padding = ((0, 0),) * len(kernel)
        if rng.random() < 0.3:
            padding = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in kernel)
        return kernel, stride, padding
