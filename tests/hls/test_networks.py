"""Whole networks in C simulation: a residual CNN, and networks drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hls_exact import assert_exact, conv, weights
from hls_random import RandomGraph, edge_inputs

from qfx.formats.fixed import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops

IO = pytest.mark.parametrize("io", ["parallel", "stream"])


def residual_cnn(rng: np.random.Generator) -> Graph:
    """Strided convolutions, two shortcuts (one an addition, one a concatenation), depthwise, pools, dense."""
    builder = GraphBuilder()

    def cast(name: str, fmt: FixedPoint) -> str:
        return builder.add(ops.Cast(fmt), [name], f"{builder.tensor(name).shape}")

    signed = FixedPoint(5, 2, True, "RND_CONV", "SAT")
    points = FixedPoint(4, (1, 2, 3, 2), False, "RND", "SAT")
    same = ((1, 1), (1, 1))
    x = builder.add(ops.Input((2, 8, 8), FixedPoint(8, 6)), path="input")
    x = builder.add(conv(rng, 4, 2, (3, 3), padding=same, fmt=FixedPoint(4, (3, 2, 4, 3))), [x], "stem.conv")
    x = cast(builder.add(ops.Relu(), [x], "stem.relu"), points)
    y = cast(builder.add(conv(rng, 4, 4, (3, 3), padding=same), [x], "block.conv1"), signed)
    y = builder.add(ops.LeakyRelu(1, 3), [y], "block.act")
    y = cast(builder.add(conv(rng, 4, 4, (3, 3), padding=same, groups=4), [y], "block.depthwise"), signed)
    x = cast(builder.add(ops.Add(), [x, y], "block.add"), FixedPoint(6, 2))
    x = builder.add(ops.Clip(0, 6, 0), [x], "block.relu6")
    a = cast(builder.add(conv(rng, 4, 4, (1, 1), stride=(2, 2)), [x], "down.conv"), signed)
    b = builder.add(ops.MaxPool((3, 3), (2, 2), same), [x], "down.pool")
    x = builder.add(ops.Concat(), [a, b], "down.concat")
    scale, offset = rng.integers(-8, 8, 8), rng.integers(-16, 16, 8)
    x = cast(builder.add(ops.Affine(scale, FixedPoint(4, 3), offset, FixedPoint(5, 3)), [x], "norm"), signed)
    c = builder.add(ops.AvgPool((4, 4), (4, 4), ((0, 0), (0, 0)), 1, 4), [x], "head.average")
    c = builder.add(ops.Reshape((8,)), [cast(c, signed)], "head.flatten")
    d = builder.add(ops.Reshape((128,)), [x], "head.flatten2")
    d = builder.add(ops.Linear(**weights(rng, (8, 128))), [d], "head.fc1")  # type: ignore[arg-type]
    d = builder.add(ops.Mul(), [c, cast(d, signed)], "head.gate")
    d = builder.add(ops.Linear(**weights(rng, (5, 8))), [cast(d, signed)], "head.fc2")  # type: ignore[arg-type]
    return builder.build(cast(d, FixedPoint(8, 2)))


@IO
def test_residual_cnn(io: str, tmp_path: Path) -> None:
    graph = residual_cnn(np.random.default_rng(4))
    x = edge_inputs(np.random.default_rng(5), graph, 100)
    project = assert_exact(graph, tmp_path / "project", io, x)
    assert len(np.unique(graph.run_codes(x))) > 20  # the network does not just saturate
    assert project.summary().count("hls4ml") > 10


@IO
def test_residual_cnn_with_shared_multipliers(io: str, tmp_path: Path) -> None:
    graph = residual_cnn(np.random.default_rng(6))
    x = edge_inputs(np.random.default_rng(7), graph, 40)
    assert_exact(graph, tmp_path / "project", io, x, strategy="Resource", reuse_factor=4)


def random_network(seed: int, steps: int) -> tuple[Graph, np.ndarray]:
    """A network of about ``steps`` operators, and inputs at its input format's edges."""
    rng = np.random.default_rng(seed)
    graph = RandomGraph(rng, steps).graph()
    return graph, edge_inputs(rng, graph, 50)


@IO
@pytest.mark.parametrize("seed", range(4))
def test_random_networks(io: str, seed: int, tmp_path: Path) -> None:
    graph, x = random_network(seed, 14)
    assert_exact(graph, tmp_path / "project", io, x)


@pytest.mark.slow
@IO
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_more_random_networks(io: str, seed: int, tmp_path: Path) -> None:
    graph, x = random_network(seed, 20)
    assert_exact(graph, tmp_path / "project", io, x)
