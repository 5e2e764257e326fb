"""Folding: targets are met at least cost, boards are respected, wishes are checked."""

from __future__ import annotations

import dataclasses

import pytest
from rtl_networks import NETWORKS, Net

import qfx.rtl
from qfx import FixedPoint, QfxError, boards
from qfx.graph import Graph, ops
from qfx.rtl import estimate
from qfx.rtl.build import Fold, conversion, divisors, frame_steps, stage_kernels
from qfx.rtl.fold import candidates, choose
from qfx.rtl.lower import lower
from qfx.rtl.stages import MatVec


def mlp() -> Graph:
    n = Net((16,), FixedPoint(6, 3), 1)
    weight = FixedPoint(4, 3)
    x = n.cast(n.relu(n.linear(n.x, 32, weight, path="hidden")), 6, 2, False)
    return n.build(n.linear(x, 10, weight, path="out"))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_stage_exceeds_the_target(name: str) -> None:
    program = lower(NETWORKS[name]())
    slowest = max(frame_steps(s, min(candidates(s, 1 << 40), key=lambda f: f.pe)) for s in program.stages)
    cheaper = None
    for interval in (None, slowest, 4 * slowest):
        folding = choose(NETWORKS[name](), program, interval=interval)
        for stage in program.stages:
            assert frame_steps(stage, folding.folds[stage.output.name]) <= folding.target
        if cheaper is not None and interval is not None:
            assert folding.resources.weight <= cheaper
        cheaper = folding.resources.weight


def test_cheapest_of_all_foldings_of_a_matrix() -> None:
    """The candidates leave out no folding that would be cheaper, converters set aside."""
    (stage,) = [s for s in lower(mlp()).stages if isinstance(s, MatVec) and s.node == "n1_hidden"]
    for target in (1, 4, 16, 37, 128, 512):
        every = [Fold(pe, simd) for pe in divisors(32) for simd in divisors(16)]
        cost = {
            fold: estimate.total(stage_kernels(stage, fold)).weight
            for fold in every
            if frame_steps(stage, fold) <= target
        }
        best = min(cost.values())
        found = min(estimate.total(stage_kernels(stage, fold)).weight for fold in candidates(stage, target))
        assert found == best


def test_default_gives_the_largest_layer_about_64_multipliers() -> None:
    design = qfx.rtl.plan(mlp())
    assert {layer.path: layer.pe * layer.simd for layer in design.layers if layer.simd} == {
        "hidden": 64,
        "out": 40,
    }
    assert design.interval == design.target == 8


def test_interval_out_of_reach_is_refused_with_the_layer() -> None:
    graph = NETWORKS["residual_cnn"]()
    with pytest.raises(QfxError, match=r"stem .*needs 576 cycles.*give interval=576 or more"):
        qfx.rtl.plan(graph, interval=575)
    assert qfx.rtl.plan(graph, interval=576).interval == 576
    n = Net((1, 3, 5), FixedPoint(4, 2))
    with pytest.raises(QfxError, match="15 pixels"):
        qfx.rtl.plan(n.build(n.relu(n.x)), interval=14)


@pytest.mark.parametrize("interval", [0, -3, 2.5, True, "7"])
def test_interval_must_be_a_number_of_cycles(interval: object) -> None:
    with pytest.raises(QfxError, match="number of cycles"):
        qfx.rtl.plan(mlp(), interval=interval)  # type: ignore[arg-type]


def test_board_gets_the_fastest_that_fits() -> None:
    graph = mlp()
    board = boards.get("ulx3s")
    design = qfx.rtl.plan(graph, board=board)
    assert design.board == "ulx3s"
    assert design.target == 1  # 832 products of 6 by 4 bits fit

    def with_luts(luts: int) -> boards.Board:
        return dataclasses.replace(board, resources=dataclasses.replace(board.resources, lut=luts))

    tight = with_luts(6000)
    small = qfx.rtl.plan(graph, board=tight)
    assert small.target > 1
    assert estimate.total(small.kernels).lut < 1.2 * 0.7 * 6000  # FIFOs come on top
    # One cycle less would not have fitted.
    program = lower(graph)
    assert choose(graph, program, interval=small.target - 1).resources.lut > 0.7 * 6000
    with pytest.raises(QfxError, match=r"board ulx3s: the network does not fit even when fully folded"):
        qfx.rtl.plan(graph, board=with_luts(100))
    with pytest.raises(QfxError, match=r"board ulx3s: interval=1 needs about"):
        qfx.rtl.plan(graph, board=tight, interval=1)


def test_fold_by_path_or_node_name() -> None:
    for key in ("hidden", "n1_hidden"):
        design = qfx.rtl.plan(mlp(), fold={key: {"pe": 8, "simd": 4}})
        assert {layer.path: (layer.pe, layer.simd) for layer in design.layers}["hidden"] == (8, 4)
        # 32/8 * 16/4 steps; the other layer keeps up.
        assert design.interval == 16
    design = qfx.rtl.plan(mlp(), fold={"hidden": {"pe": 1}})
    assert design.interval == 512


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ({"nowhere": {"pe": 1}}, r"no layer 'nowhere'; layers: n1_hidden \(hidden\)"),
        ({"hidden": {"pe": 5}}, r"pe=5 must divide 32; supported: 1, 2, 4, 8, 16, 32"),
        ({"hidden": {"simd": 0}}, r"simd=0 must divide 16"),
        ({"hidden": {"pe": True}}, r"pe=True must divide 32"),
        ({"hidden": {"lanes": 2}}, r"found keys \['lanes'\]; supported: pe and simd"),
        ({"n2_relu": {"simd": 2}}, r"supported: pe \(elements per beat\)"),
        ({"hidden": {}}, r"found keys \[\]"),
    ],
)
def test_bad_folds_are_refused(fold: dict[str, dict[str, int]], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.rtl.plan(mlp(), fold=fold)


def test_ambiguous_path_is_refused() -> None:
    n = Net((4,), FixedPoint(6, 3))
    weight = FixedPoint(4, 3)
    x = n.linear(n.cast(n.linear(n.x, 4, weight, path="same"), 6, 3), 4, weight, path="same")
    with pytest.raises(QfxError, match="'same' names 2 layers; give one of the node names n1_same, n3_same"):
        qfx.rtl.plan(n.build(x), fold={"same": {"pe": 1, "simd": 1}})


@pytest.mark.parametrize(
    ("before", "after", "target", "path"),
    [
        (2, 6, 1, ()),
        (6, 2, 1, ()),
        (3, 3, 1, ()),
        (4, 6, 100, (2,)),  # through the common divisor: 24/2 beats are fast enough
        (4, 6, 11, (12,)),  # through the common multiple
    ],
)
def test_conversion_between_widths(before: int, after: int, target: int, path: tuple[int, ...]) -> None:
    assert conversion(before, after, 24, target) == path


def test_window_that_needs_no_window_kernel() -> None:
    """1x1 convolutions, global pooling with all channels in a beat, and kernels as large as the image."""
    n = Net((4, 4, 4), FixedPoint(4, 2), 3)
    x = n.cast(n.conv(n.x, 4, (1, 1), FixedPoint(4, 3)), 4, 1)
    pooled = n.cast(n.pool(x, "avg", 4, 4, 0, 1, 4), 4, 1)
    whole = n.cast(n.conv(x, 4, (4, 4), FixedPoint(4, 3)), 4, 1)
    design = qfx.rtl.plan(n.build(n.add(ops.Add(), pooled, whole)), interval=16)
    assert not [k for k in design.kernels if k.module == "qfx_window"]
