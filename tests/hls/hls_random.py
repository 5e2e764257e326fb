"""Random graphs of every operator and format, and inputs that reach ties, both ends and saturation."""

from __future__ import annotations

import numpy as np

from qfx.errors import QfxError
from qfx.formats.fixed import FixedPoint
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph import Graph, GraphBuilder, ops

Rng = np.random.Generator


def random_format(
    rng: Rng, channels: int, around: int = 4, most: int = 10, per_channel: float = 0.3
) -> FixedPoint:
    """A format near binary point ``around``, sometimes with one per channel."""
    signed = bool(rng.integers(2))
    overflow = str(rng.choice(OVERFLOW))
    if overflow == "WRAP_SM" and not signed:
        overflow = "WRAP"
    width = int(rng.integers(2 if signed else 1, most + 1))
    frac: int | tuple[int, ...] = around + int(rng.integers(-3, 4))
    if rng.random() < per_channel:
        frac = tuple(int(f) for f in around + rng.integers(-3, 4, channels))
    return FixedPoint(width, frac, signed, str(rng.choice(ROUNDING)), overflow)


def random_codes(rng: Rng, fmt: FixedPoint, shape: tuple[int, ...]) -> np.ndarray:
    low = -(1 << (fmt.width - 1)) if fmt.signed else 0
    return rng.integers(low, fmt.code_max + 1, shape, dtype=np.int64)


def edge_inputs(rng: Rng, graph: Graph, samples: int) -> np.ndarray:
    """Real inputs: on the grid, half-way between, just beside, far out, and infinite."""
    tensor = graph.input_node.tensor
    fmt = tensor.format
    shape = (samples, *tensor.shape)
    low, high = (-(1 << (fmt.width - 1)) if fmt.signed else 0), fmt.code_max
    codes = rng.integers(low, high + 1, shape).astype(np.float64)
    ends = rng.choice([low, high, 0, low + 1, high - 1], shape)
    codes = np.where(rng.random(shape) < 0.15, ends, codes)
    codes += rng.choice([0, 0, 0, 0.5, -0.5, 0.25, 0.75, 2.0**-20], shape)
    codes *= np.where(rng.random(shape) < 0.05, 3.0, 1.0)
    codes = np.where(rng.random(shape) < 0.01, np.inf * rng.choice([-1, 1], shape), codes)
    frac = np.asarray(tensor.fracs).reshape(1, -1, *(1,) * (len(tensor.shape) - 1))
    return np.ldexp(codes, -frac)


class RandomGraph:
    """Grows a graph operator by operator from the tensors that exist."""

    def __init__(self, rng: Rng, steps: int = 8) -> None:
        self.rng = rng
        self.builder = GraphBuilder()
        channels = int(rng.integers(1, 5))
        shape = [
            (channels * 3,),
            (channels, int(rng.integers(4, 9))),
            (channels, *(int(n) for n in rng.integers(4, 8, 2))),
        ][rng.integers(3)]
        fmt = random_format(rng, shape[0])
        if fmt.per_channel and rng.random() < 0.5:
            fmt = fmt.with_frac(fmt.max_frac)
        self.live = [self.builder.add(ops.Input(shape, fmt))]
        self.unused = set(self.live)
        for _ in range(steps):
            self.step()

    def graph(self) -> Graph:
        """The graph, with the last tensor as its output."""
        return self.builder.build(self.live[-1])

    def step(self) -> None:
        rng = self.rng
        name = self.live[-1] if rng.random() < 0.9 else str(rng.choice(self.live))
        tensor = self.builder.tensor(name)
        if tensor.format.width > 20:
            self.try_add(self.cast(name), [name])
            return
        rank = len(tensor.shape)
        choices = [
            "cast",
            "cast",
            "relu",
            "affine",
            "add",
            "sub",
            "mul",
            "leaky_relu",
            "clip",
            "concat",
            "reshape",
            "transpose",
        ]
        choices += ["conv"] * 5 + ["max_pool", "avg_pool"] * 2 if rank > 1 else ["linear"] * 4
        getattr(self, f"add_{rng.choice(choices)}")(name)

    def try_add(self, op: ops.Op, inputs: list[str]) -> None:
        try:
            made = self.builder.add(op, inputs)
        except QfxError:
            return  # too wide, or it does not fit: another step will
        self.live.append(made)

    def around(self, name: str) -> int:
        """A binary point that keeps a useful part of a tensor's range."""
        tensor = self.builder.tensor(name)
        bits = max(1, tensor.magnitude.bit_length())
        return tensor.format.max_frac - max(0, bits - 6)

    def cast(self, name: str) -> ops.Cast:
        tensor = self.builder.tensor(name)
        return ops.Cast(random_format(self.rng, tensor.channels, self.around(name)))

    def add_cast(self, name: str) -> None:
        self.try_add(self.cast(name), [name])

    def weights(self, out: int, shape: tuple[int, ...], frac: int) -> dict[str, object]:
        rng = self.rng
        weight = random_format(rng, out, 3, 6)
        bias = random_format(rng, out, 3 + frac, 8)
        biased = rng.random() < 0.7
        return {
            "weight": random_codes(rng, weight, (out, *shape)),
            "weight_format": weight,
            "bias": random_codes(rng, bias, (out,)) if biased else None,
            "bias_format": bias if biased else None,
        }

    def add_linear(self, name: str) -> None:
        tensor = self.builder.tensor(name)
        weights = self.weights(int(self.rng.integers(1, 9)), (tensor.channels,), tensor.format.max_frac)
        self.try_add(ops.Linear(**weights), [name])  # type: ignore[arg-type]

    def window(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
        rng = self.rng
        kernel = tuple(int(k) for k in rng.integers(1, 4, rank))
        stride = tuple(int(s) for s in rng.integers(1, 4, rank))
        padding = tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (rank, 2)))
        return kernel, stride, padding if rng.random() < 0.6 else ((0, 0),) * rank

    def add_conv(self, name: str) -> None:
        rng = self.rng
        tensor = self.builder.tensor(name)
        rank = len(tensor.shape) - 1
        kernel, stride, padding = self.window(rank)
        if rng.random() < 0.2:
            kernel = (1,) * rank
        divisors = [d for d in range(1, tensor.channels + 1) if tensor.channels % d == 0]
        groups = int(rng.choice(divisors)) if rng.random() < 0.4 else 1
        out = groups * int(rng.integers(1, 4))
        dilation = tuple(int(d) for d in rng.integers(1, 3, rank)) if rng.random() < 0.3 else (1,) * rank
        weights = self.weights(out, (tensor.channels // groups, *kernel), tensor.format.max_frac)
        op = ops.Conv(**weights, stride=stride, padding=padding, dilation=dilation, groups=groups)  # type: ignore[arg-type]
        self.try_add(op, [name])

    def add_affine(self, name: str) -> None:
        rng = self.rng
        tensor = self.builder.tensor(name)
        n = tensor.channels if rng.random() < 0.7 else 1
        scale, offset = random_format(rng, n, 3, 6), random_format(rng, n, 3 + tensor.format.max_frac, 8)
        self.try_add(
            ops.Affine(random_codes(rng, scale, (n,)), scale, random_codes(rng, offset, (n,)), offset), [name]
        )

    def partner(self, name: str) -> str:
        shape = self.builder.tensor(name).shape
        return str(self.rng.choice([n for n in self.live if self.builder.tensor(n).shape == shape]))

    def add_add(self, name: str) -> None:
        self.try_add(ops.Add(), [name, self.partner(name)])

    def add_sub(self, name: str) -> None:
        self.try_add(ops.Sub(), [name, self.partner(name)])

    def add_mul(self, name: str) -> None:
        self.try_add(ops.Mul(), [name, self.partner(name)])

    def add_relu(self, name: str) -> None:
        self.try_add(ops.Relu(), [name])

    def add_leaky_relu(self, name: str) -> None:
        self.try_add(ops.LeakyRelu(int(self.rng.integers(-6, 7)), int(self.rng.integers(0, 5))), [name])

    def add_clip(self, name: str) -> None:
        low, high = sorted(int(v) for v in self.rng.integers(-20, 21, 2))
        which = self.rng.integers(3)
        frac = self.around(name) + int(self.rng.integers(-2, 3))
        self.try_add(ops.Clip(None if which == 0 else low, None if which == 1 else high, frac), [name])

    def add_max_pool(self, name: str) -> None:
        rank = len(self.builder.tensor(name).shape) - 1
        kernel, stride, padding = self.window(rank)
        if self.rng.random() < 0.5:
            kernel, stride, padding = (2,) * rank, (2,) * rank, ((0, 0),) * rank
        self.try_add(ops.MaxPool(kernel, stride, padding), [name])

    def add_avg_pool(self, name: str) -> None:
        shape = self.builder.tensor(name).shape
        kernel, stride, padding = self.window(len(shape) - 1)
        if self.rng.random() < 0.3:
            kernel, padding = shape[1:], ((0, 0),) * (len(shape) - 1)
        self.try_add(
            ops.AvgPool(
                kernel, stride, padding, int(self.rng.integers(1, 200)), int(self.rng.integers(0, 11))
            ),
            [name],
        )

    def add_concat(self, name: str) -> None:
        shape = self.builder.tensor(name).shape
        names = [n for n in self.live if self.builder.tensor(n).shape[1:] == shape[1:]]
        self.try_add(ops.Concat(), [str(n) for n in self.rng.choice(names, int(self.rng.integers(2, 4)))])

    def add_reshape(self, name: str) -> None:
        size = self.builder.tensor(name).size
        shapes = [(size,)]
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        a = int(self.rng.choice(divisors))
        shapes.append((a, size // a))
        b = int(self.rng.choice([d for d in divisors if (size // a) % d == 0]))
        shapes.append((a, b, size // a // b))
        shape = shapes[0] if self.rng.random() < 0.6 else shapes[self.rng.integers(3)]
        self.try_add(ops.Reshape(shape), [name])

    def add_transpose(self, name: str) -> None:
        rank = len(self.builder.tensor(name).shape)
        self.try_add(ops.Transpose(tuple(int(a) for a in self.rng.permutation(rank))), [name])
