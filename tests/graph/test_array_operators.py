"""The operators of layers that only torch and the interpreter have, drawn at random: against plain integers,
through files, and their intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qfx.graph import OPS, Graph
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
