"""The fuzzer on functions, norms, attention and operators on whole arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from qfx.errors import QfxError
from qfx.graph import GraphBuilder
from qfx.graph.functions import Table
from qfx.sim import draw_torch, draw_torch_layers, fuzz
from qfx.sim.case import check


def test_torch_against_the_graph_on_a_few_networks(tmp_path: Path) -> None:
    report = fuzz.run(24, seed=21, against=("torch",), jobs=1, out_dir=tmp_path, progress=False)
    assert report["mismatches"] == 0 and report["failures"] == []
    assert {"table", "reduce_sum", "repeat", "matmul"} <= set(report["operators"])


@pytest.mark.slow
def test_torch_against_the_graph_on_many_networks(tmp_path: Path) -> None:
    report = fuzz.run(500, seed=22, against=("torch",), jobs=1, out_dir=tmp_path, progress=False)
    assert report["mismatches"] == 0, report["failures"]


def test_every_layer_is_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = set()
    for _ in range(150):
        drawn |= {step["op"] for step in draw_torch.draw_module(rng, every_layer=True)["steps"]}
    assert drawn >= draw_torch_layers.KINDS


def test_only_basic_layers_unless_asked_for() -> None:
    for index in range(0, 30, 2):
        case = fuzz.draw(3, index)
        assert not draw_torch_layers.KINDS & {step["op"] for step in case.module["steps"]}


def test_a_wrong_entry_of_a_table_is_found() -> None:
    """One LSB, in the entry that a sample looks up."""
    for index in range(0, 200, 2):
        try:
            case = fuzz.draw(21, index, every_layer=True)
        except QfxError:
            continue
        tables = [n for n in case.graph.nodes if isinstance(n.op, Table) and n.op.inputs is None]
        if not tables or case.graph.output != tables[-1].name:
            continue
        node = tables[-1]
        codes = case.graph.trace(case.x)
        entries = node.op.table.copy()
        used = codes[node.inputs[0]].reshape(-1)[0] << (node.op.frac - case.graph.operands(node)[0].fracs[0])
        place = int(used) - node.op.first
        entries[place] += 1 if entries[place] < node.op.format.integer_max else -1
        builder = GraphBuilder()
        for other in case.graph.nodes:
            op = dataclasses.replace(node.op, table=entries) if other is node else other.op
            builder.add(op, other.inputs, other.path, other.name)
        outcome = check(case.replace(graph=builder.build(case.graph.output)), ("torch",))
        assert "torch" in outcome.failed and node.name in outcome.failed["torch"]
        return
    raise AssertionError("no network ends with a table")
