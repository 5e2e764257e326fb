"""The operators of layers that only torch and the interpreter have, drawn at random: against plain integers,
through files, and their intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qfx.errors import QfxError, UnsupportedError
from qfx.formats import FixedPoint
from qfx.graph import OPS, Graph, GraphBuilder, arrays, functions, ops
from qfx.graph.file import load
from qfx.graph.interpreter import Interpreter
from qfx.graph.prune import prune
from qfx.graph.reference import trace_reference
from qfx.sim.draw import draw_graph, draw_input
from tests.graph.test_prune import with_dead_channels

SEEDS = 60
NEW = {
    "table", "piecewise", "inverse_root", "reduce_sum", "reduce_max", "repeat", "slice", "constant", "gather",
    "insert_zeros", "matmul",
}  # fmt: skip


def drawn(seed: int) -> tuple[Graph, np.ndarray]:
    rng = np.random.default_rng([11, seed])
    graph = draw_graph(rng, every_format=seed % 2 == 1, every_layer=True)
    return graph, draw_input(rng, graph, 5)


def test_all_of_them_are_drawn() -> None:
    kinds = {node.op.kind for seed in range(SEEDS) for node in drawn(seed)[0].nodes}
    assert kinds >= NEW
    assert set(OPS) >= NEW


@pytest.mark.parametrize("seed", range(SEEDS))
def test_interpreter_file_and_intervals(seed: int, tmp_path: Path) -> None:
    """Every tensor equals the integers of the specification and stays within its interval and its encoding;
    a saved graph is the same."""
    graph, x = drawn(seed)
    expected = trace_reference(graph, x)
    found = graph.trace(x)
    for node in graph.nodes:
        codes, tensor = expected[node.name], node.tensor
        assert codes.shape == (len(x), *tensor.shape), node.where
        np.testing.assert_array_equal(found[node.name], codes.astype(np.int64), err_msg=node.where)
        rows = np.moveaxis(codes, 1, 0).reshape(tensor.channels, -1)
        assert (rows.min(axis=1) >= tensor.low).all() and (rows.max(axis=1) <= tensor.high).all(), node.where
        if tensor.encoding is not None and tensor.encoding.has_point:
            fmt = tensor.encoding
            scaled = np.ldexp(rows.astype(float), -np.asarray(tensor.fracs)[:, None])
            np.testing.assert_array_equal(fmt.quantize(scaled, axis=0), scaled, err_msg=node.where)
    graph.save(tmp_path / "g.qfx")
    again = load(tmp_path / "g.qfx")
    assert again.summary() == graph.summary()
    np.testing.assert_array_equal(again.run_codes(x), expected[graph.output].astype(np.int64))
    again.save(tmp_path / "again.qfx")
    assert (tmp_path / "again.qfx").read_bytes() == (tmp_path / "g.qfx").read_bytes()


@pytest.mark.parametrize("arithmetic", ["float64", "int64", "object"])
@pytest.mark.parametrize("seed", range(0, SEEDS, 3))
def test_every_arithmetic_gives_the_same(seed: int, arithmetic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow operators are also right where wider arithmetic computes them."""
    import qfx.graph.interpreter as module

    graph, x = drawn(seed)
    expected = graph.run_codes(x)
    order = ["float32", "float64", "int64", "object"]
    cheapest = module.choose_arithmetic
    monkeypatch.setattr(
        module, "choose_arithmetic", lambda bound: max(cheapest(bound), arithmetic, key=order.index)
    )
    slow = Interpreter(graph)
    assert set(slow.arithmetic.values()) <= set(order[order.index(arithmetic) :]) | {"int64"}
    np.testing.assert_array_equal(slow.run_codes(torch.from_numpy(x)), expected)


@pytest.mark.parametrize("seed", range(1, SEEDS, 3))
def test_a_pruned_graph_computes_the_same(seed: int) -> None:
    graph, x = drawn(seed)
    dead = with_dead_channels(np.random.default_rng(seed), graph)
    np.testing.assert_array_equal(prune(dead).run(x), dead.run(x))


def test_the_parallel_architecture_refuses_them_by_path_and_says_what_to_do(tmp_path: Path) -> None:
    import qfx

    builder = GraphBuilder()
    x = builder.add(ops.Input((4,), FixedPoint(3, 1)), path="input")
    entries = np.arange(8, dtype=np.int64)
    y = builder.add(functions.Table(1, FixedPoint(4, 0), -4, None, entries), [x], "net.gelu")
    graph = builder.build(builder.add(arrays.Slice((0,), (2,), (1,)), [y], "net.first"))
    with pytest.raises(UnsupportedError, match="net.gelu .*table"):
        qfx.rtl.generate(graph, tmp_path / "rtl", architecture="parallel")
    assert not (tmp_path / "rtl").exists()


def test_wrong_attributes_are_refused() -> None:
    builder = GraphBuilder()
    x = builder.add(ops.Input((4, 3), FixedPoint(3, (1, 0, 1, 2))))
    fine = FixedPoint(4, 0)
    eight = np.arange(8, dtype=np.int64)
    coefficients = np.ones((4, 2), dtype=np.int64)
    roots = np.ones((16, 1), dtype=np.int64)
    for op, message in (
        (functions.Table(1, fine, -4, None, eight), "finer than the function"),
        (functions.Table(2, fine, -4, None, eight), "beyond the table"),
        (functions.Table(2, FixedPoint(3, 0), -16, None, np.arange(32)), "not a number of"),
        (
            functions.Table(2, FixedPoint(4, (0, 1, 2, 3)), -16, None, np.zeros(32, np.int64)),
            "one binary point",
        ),
        (functions.Table(2, fine, 0, eight, eight), "format with gaps"),
        (functions.Piecewise(2, fine, -16, 2, coefficients, (0,)), "binary points"),
        (functions.Piecewise(2, fine, -16, 2, coefficients, (0, 2)), "must lie in the segments"),
        (functions.InverseRoot(3, 4, 0, roots, 0, 4, 0, 1), "root 1 or 2"),
        (functions.InverseRoot(2, 4, 0, roots, 0, 4, 0, 1), "coefficients of shape"),
        (functions.InverseRoot(1, 4, 0, -roots, 0, 4, 0, 1), "negative values"),
        (functions.InverseRoot(1, 4, 0, roots, 0, 4, -1, 1), "offset -1"),
        (arrays.ReduceSum((1, 0)), "axes"),
        (arrays.ReduceMax((2,)), "axes"),
        (arrays.Repeat((1,)), "times"),
        (arrays.Slice((0, 0), (4, 4), (1, 1)), "slice"),
        (arrays.InsertZeros((0,)), "factors"),
        (arrays.Gather(np.zeros((3, 2), np.int64), fine), "whole numbers"),
    ):
        with pytest.raises(QfxError, match=message):
            builder.add(op, [x])
    with pytest.raises(QfxError, match="matmul"):
        builder.add(arrays.MatMul(), [x, x])
    with pytest.raises(QfxError, match="axes are supported"):
        builder.add(arrays.Constant(np.zeros((1, 1, 1, 1), np.int64), fine))
