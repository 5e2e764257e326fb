"""Weights from outside: a stream for each layer, exact under stalls, chosen where memory is short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import Net, inputs

import qfx.rtl
import qfx.sim
from qfx import FixedPoint, QfxError
from qfx.graph import Graph
from qfx.rtl.fold import choose
from qfx.rtl.lower import lower
from qfx.sim.axi_check import TESTS, check_axi
from qfx.sim.verilator import SimulationError

W4 = FixedPoint(4, 3)


def network() -> Graph:
    """A convolution, whose weights come again for every pixel, and two linear layers, one with a bias."""
    n = Net((2, 4, 4), FixedPoint(4, 2), 1)
    x = n.cast(n.relu(n.conv(n.x, 4, (3, 3), W4, W4, padding=1, path="conv")), 4, 1, False)
    x = n.cast(n.linear(n.reshape(x, 64), 10, W4, W4, path="hidden"), 4, -1)
    return n.build(n.cast(n.linear(x, 6, FixedPoint(3, 2), path="out"), 8, 2))


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> qfx.rtl.Design:
    weights = {"conv": "stream", "hidden": "stream", "out": "stream"}
    fold = {"conv": {"pe": 2, "simd": 6}, "hidden": {"pe": 5, "simd": 2}, "out": {"pe": 1, "simd": 5}}
    return qfx.rtl.generate(
        network(), tmp_path_factory.mktemp("streamed") / "rtl", fold=fold, weights=weights
    )


@pytest.mark.parametrize(
    "stalls",
    [None, qfx.sim.Stalls(0, 0, weights=0.6), qfx.sim.Stalls(0.3, 0.3, burst=16, weights=0.3, seed=5)],
)
def test_exact_with_stalls(streamed: qfx.rtl.Design, stalls: qfx.sim.Stalls | None) -> None:
    x = inputs(streamed.graph, 6)
    result = qfx.sim.run(streamed, x, stalls=stalls, tap=True)
    np.testing.assert_array_equal(result.codes, streamed.graph.run_codes(x))
    trace = streamed.graph.trace(x)
    for stream in result.streams:
        np.testing.assert_array_equal(stream.codes, trace[stream.node])
    if stalls is None:
        assert (result.latency, result.interval) == (streamed.latency, streamed.interval)
    else:
        assert result.interval > streamed.interval


def test_reset_begins_with_the_first_weight(streamed: qfx.rtl.Design) -> None:
    x = inputs(streamed.graph, 3)
    result = qfx.sim.run(streamed, x, reset_after=streamed.latency + 37)
    np.testing.assert_array_equal(result.codes, streamed.graph.run_codes(x))


def test_cocotbext_axi_brings_the_weights(streamed: qfx.rtl.Design) -> None:
    """An implementation of AXI4-Stream that is not ours, at all ports, also after a reset."""
    x = inputs(streamed.graph, 2)
    assert check_axi(streamed, x).passed == TESTS
    assert streamed.directory is not None
    assert check_axi(qfx.rtl.load(streamed.directory), x).passed == TESTS


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("image", r"back_to_back: frame 0: byte \d+ is"),
        ("too_many", "back_to_back: the design did not take all weights of its frames"),
        ("too_few", "back_to_back: frame 1: not complete after"),
    ],
)
def test_cocotbext_axi_finds_faults_of_the_weights(
    streamed: qfx.rtl.Design, fault: str, message: str
) -> None:
    (kernel,) = (k for k in streamed.kernels if k.inputs[1:] == ("n5_hidden_weights",))
    memory = kernel.memories["WEIGHT_FILE"]
    assert memory.words is not None
    if fault == "image":
        wrong = replace(memory, words=memory.words[::-1])
        other = replace(kernel, memories={**kernel.memories, "WEIGHT_FILE": wrong})
        design = replace(streamed, kernels=tuple(other if k is kernel else k for k in streamed.kernels))
    else:
        factor = {"too_many": (2, 1), "too_few": (1, 2)}[fault]
        conv = "n1_conv_weights"
        streams = (
            replace(s, beats=s.beats * factor[0] // factor[1]) if s.name == conv else s
            for s in streamed.streams
        )
        design = replace(streamed, streams=tuple(streams))
    with pytest.raises(SimulationError, match=message):
        check_axi(design, inputs(streamed.graph, 2))


def test_image_is_the_matrix_in_the_order_of_the_document(streamed: qfx.rtl.Design) -> None:
    assert streamed.directory is not None
    names = {stream.name: (stream, memory) for stream, memory in streamed.weight_streams}
    assert list(names) == ["n1_conv_weights", "n5_hidden_weights", "n7_out_weights"]
    stream, memory = names["n5_hidden_weights"]
    pe, simd = 5, 2
    assert (stream.width, stream.lanes, stream.beats) == (4, pe * simd, 10 * 64 // (pe * simd))
    # Pixels of the picture are flattened channel by channel in the graph, but come pixel by pixel.
    weight = streamed.graph["n5_hidden"].op.weight.reshape(10, 4, 16).transpose(0, 2, 1).reshape(10, 64)
    expected = b""
    for fold in range(10 // pe):
        for step in range(64 // simd):
            tile = weight[fold * pe : (fold + 1) * pe, step * simd : (step + 1) * simd]
            word = sum((int(w) & 15) << 4 * i for i, w in enumerate(tile.reshape(-1)))
            expected += word.to_bytes(5, "little")
    assert (streamed.directory / "n5_hidden_weights.bin").read_bytes() == expected
    conv, memory = names["n1_conv_weights"]
    assert conv.beats == 16 * memory.depth  # a pass for every pixel
    top = (streamed.directory / "qfx_top.v").read_text()
    assert "input  wire [39:0] s_axis_n5_hidden_weights_tdata" in top
    assert {k.module for k in streamed.kernels} >= {"qfx_matvec_stream"}
    assert not any(k.module == "qfx_matvec" for k in streamed.kernels)
    assert "stream 64x40" in streamed.summary()


def test_loads_and_finds_a_changed_image(tmp_path: Path) -> None:
    design = qfx.rtl.generate(network(), tmp_path / "rtl", weights={"out": "stream"})
    loaded = qfx.rtl.load(tmp_path / "rtl")
    assert [s for s, _ in loaded.weight_streams] == [s for s, _ in design.weight_streams]
    assert loaded.summary() == design.summary()
    image = tmp_path / "rtl" / "n7_out_weights.bin"
    image.write_bytes(image.read_bytes()[::-1])
    with pytest.raises(QfxError, match="differs from what was generated"):
        qfx.rtl.load(tmp_path / "rtl")


def classifier() -> Graph:
    n = Net((64,), FixedPoint(4, 2), 2)
    x = n.cast(n.linear(n.x, 64, W4, path="hidden"), 4, 0)
    return n.build(n.linear(x, 16, W4, path="classifier"))


def test_streams_where_the_budget_is_too_small() -> None:
    graph = classifier()
    program = lower(graph)

    def places(budget: dict[str, float]) -> list[str]:
        folding = choose(graph, program, budget=budget)
        assert all(v <= budget.get(k, v) for k, v in vars(folding.resources).items())
        return [folding.folds[name].memory for name in ("n1_hidden", "n3_classifier")]

    # 16 and 4 Kbit of weights: inside where they fit, else the largest first outside.
    assert places({"lut": 800, "bram18": 2}) == ["block", "lut"]
    assert places({"lut": 9000, "bram18": 0}) == ["lut", "lut"]
    assert places({"lut": 500, "bram18": 1}) == ["block", "lut"]
    assert places({"lut": 500, "bram18": 0}) == ["stream", "lut"]
    assert places({"lut": 250, "bram18": 0}) == ["stream", "stream"]
    design = qfx.rtl.plan(graph, budget={"lut": 500, "bram18": 0})
    assert design.estimate["lut"] <= 500 and design.estimate["bram18"] == 0
    assert [s.name for s, _ in design.weight_streams] == ["n1_hidden_weights"]
    assert "stream 1024x" in design.summary()
    assert all(stream.bits <= 128 for stream, _ in design.weight_streams)


def test_streams_are_wide_only_by_hand() -> None:
    design = qfx.rtl.plan(classifier(), weights={"hidden": "stream"}, interval=128)
    ((stream, _),) = design.weight_streams
    assert stream.bits <= 128 and design.interval == 128
    fold = {"hidden": {"pe": 64, "simd": 1}}
    ((stream, _),) = qfx.rtl.plan(classifier(), weights={"hidden": "stream"}, fold=fold).weight_streams
    assert stream.bits == 256
    with pytest.raises(QfxError, match="needs 128 cycles per frame with 128 bits of weights per cycle"):
        qfx.rtl.plan(classifier(), weights={"hidden": "stream"}, interval=100)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"hidden": "ddr"}, "found 'ddr'; supported: lut, block, stream"),
        ({"nowhere": "stream"}, "no layer 'nowhere'"),
        ({"n2_cast": "block"}, "keeps no weights in a memory"),
    ],
)
def test_bad_places_are_refused(weights: dict[str, str], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.rtl.plan(classifier(), weights=weights)


def test_depthwise_weights_stay_inside() -> None:
    n = Net((4, 4, 4), FixedPoint(4, 2), 1)
    graph = n.build(n.conv(n.x, 4, (3, 3), W4, groups=4, path="dw"))
    with pytest.raises(QfxError, match="depthwise layer's weights cannot be streamed"):
        qfx.rtl.plan(graph, weights={"dw": "stream"})
    assert qfx.rtl.plan(graph, weights={"dw": "block"}).kernels
