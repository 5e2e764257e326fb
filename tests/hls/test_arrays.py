"""Functions and operators on whole arrays in C simulation, arrays and streams, against the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_networks import ARRAY_NETWORKS
from hls_exact import assert_exact
from hls_random import edge_inputs

import qfx.hls
from qfx.errors import UnsupportedError
from qfx.formats import FixedPoint
from qfx.graph import GraphBuilder, arrays, ops

FEW = {("per_channel", "stream")}


@pytest.mark.parametrize(
    ("name", "io"),
    [
        pytest.param(name, io, marks=() if (name, io) in FEW else pytest.mark.slow)
        for name in ARRAY_NETWORKS
        for io in ("parallel", "stream")
    ],
)
def test_c_simulation(name: str, io: str, tmp_path: Path) -> None:
    graph = ARRAY_NETWORKS[name]()
    assert_exact(graph, tmp_path / "project", io, edge_inputs(np.random.default_rng(7), graph, 40))


def test_what_does_not_depend_on_the_input_is_refused(tmp_path: Path) -> None:
    builder = GraphBuilder()
    builder.add(ops.Input((3,), FixedPoint(4, 2)), path="input")
    x = builder.add(arrays.Constant(np.array([1, 2, 3]), FixedPoint(4, 2)), (), "table")
    graph = builder.build(builder.add(arrays.Repeat((2,)), [x], "table"))
    with pytest.raises(UnsupportedError, match="does not depend on the input"):
        qfx.hls.convert(graph, tmp_path / "project")
