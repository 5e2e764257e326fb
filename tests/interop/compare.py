"""Whether two graphs are the same: nodes, names, paths, attributes."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from qfx.graph import Graph


def assert_same_graph(found: Graph, expected: Graph) -> None:
    assert [n.name for n in found.nodes] == [n.name for n in expected.nodes]
    assert found.output == expected.output
    for one, two in zip(found.nodes, expected.nodes, strict=True):
        assert (one.op.kind, one.inputs, one.path) == (two.op.kind, two.inputs, two.path), one.name
        for field in dataclasses.fields(two.op):
            a, b = getattr(one.op, field.name), getattr(two.op, field.name)
            if isinstance(b, np.ndarray):
                assert a.dtype == b.dtype, (one.name, field.name)
                np.testing.assert_array_equal(a, b, f"{one.name}.{field.name}")
            else:
                assert a == b, (one.name, field.name, a, b)


def execute(path: Path | str, x: np.ndarray, shapes: str = "error") -> dict[str, np.ndarray]:
    """All tensors of a QONNX file, computed by qonnx; its warnings on shapes that disagree are errors."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(str(path))
    (source,) = [v.name for v in model.graph.input]
    with warnings.catch_warnings():
        warnings.simplefilter(shapes)  # type: ignore[arg-type]
        found: dict[str, np.ndarray] = execute_onnx(model, {source: x.astype(np.float32)}, True)
    return found


def assert_qonnx_computes(path: Path | str, graph: Graph, x: np.ndarray) -> None:
    """Every tensor of the graph, on every sample, as qonnx computes it."""
    found: dict[str, Any] = execute(path, x)
    for name, codes in graph.trace(x.astype(np.float32)).items():
        fracs = np.asarray(graph[name].tensor.fracs).reshape(1, -1, *(1,) * (codes.ndim - 2))
        np.testing.assert_array_equal(
            found[name].astype(np.float64), np.ldexp(codes.astype(np.float64), -fracs), name
        )
