"""Converting, compiling and comparing; many small branches in one design, because a build takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import qfx.hls
from qfx.formats.fixed import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops

WEIGHT, BIAS = FixedPoint(4, 2), FixedPoint(6, 4)
Padding = tuple[tuple[int, int], ...]


def assert_exact(graph: Graph, folder: Path, io: str, x: np.ndarray, **options: object) -> qfx.hls.Project:
    """C simulation equals the interpreter on every bit: the outputs, and every tensor that the design has."""
    project = qfx.hls.convert(graph, folder, io=io, **options).compile(optimize=0)  # type: ignore[arg-type]
    expected = graph.trace(x)
    for name, codes in project.trace(x).items():
        different = np.argwhere(codes != expected[name])
        assert different.size == 0, (
            f"{graph[name].where}: {len(different)} of {codes.size} codes differ, first at {different[0]}: "
            f"{codes[tuple(different[0])]}, expected {expected[name][tuple(different[0])]}\n"
            f"{project.summary()}"
        )
    values = project.predict(x)
    assert values.dtype == np.float64
    assert np.array_equal(values, graph.run(x))
    return project


class Branches:
    """One input, many branches, each flattened, all joined into one output."""

    def __init__(self, shape: tuple[int, ...], fmt: FixedPoint) -> None:
        self.builder = GraphBuilder()
        self.input = self.builder.add(ops.Input(shape, fmt))
        self.ends: list[str] = []

    def add(self, *operators: ops.Op, start: str | None = None, path: str = "") -> str:
        """A chain of operators of one operand, from the input or from ``start``; its end joins the output."""
        name = start or self.input
        for op in operators:
            name = self.builder.add(op, [name], path)
        self.end(name)
        return name

    def node(self, op: ops.Op, *operands: str) -> str:
        """An operator that does not end a branch."""
        return self.builder.add(op, operands)

    def end(self, name: str) -> None:
        """Make a tensor part of the output; the trace compares what the cast here drops."""
        tensor = self.builder.tensor(name)
        if tensor.format.per_channel or tensor.format.width > 12 or not 0 <= tensor.format.max_frac <= 8:
            name = self.builder.add(ops.Cast(FixedPoint(12, 4, rounding="TRN", overflow="WRAP")), [name])
        size = tensor.size
        self.ends.append(name if len(tensor.shape) == 1 else self.builder.add(ops.Reshape((size,)), [name]))

    def graph(self) -> Graph:
        """The graph of all branches."""
        output = self.ends[0] if len(self.ends) == 1 else self.builder.add(ops.Concat(), self.ends)
        return self.builder.build(output)


def weights(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    fmt: FixedPoint = WEIGHT,
    bias: FixedPoint | None = BIAS,
) -> dict[str, object]:
    """Random attributes of ``linear`` and ``conv``."""
    low = -(1 << (fmt.width - 1)) if fmt.signed else 0
    return {
        "weight": rng.integers(low, fmt.code_max + 1, shape),
        "weight_format": fmt,
        "bias": None if bias is None else rng.integers(bias.code_min, bias.code_max + 1, shape[0]),
        "bias_format": bias,
    }


def conv(
    rng: np.random.Generator,
    out: int,
    channels: int,
    kernel: tuple[int, ...],
    *,
    stride: tuple[int, ...] | None = None,
    padding: Padding | None = None,
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    fmt: FixedPoint = WEIGHT,
    bias: FixedPoint | None = BIAS,
) -> ops.Conv:
    """A convolution with random weights."""
    rank = len(kernel)
    return ops.Conv(
        **weights(rng, (out, channels // groups, *kernel), fmt, bias),  # type: ignore[arg-type]
        stride=stride or (1,) * rank,
        padding=padding or ((0, 0),) * rank,
        dilation=dilation or (1,) * rank,
        groups=groups,
    )
