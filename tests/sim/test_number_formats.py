"""Networks with activations and weights in formats with gaps: every implementation, every internal stream."""

from __future__ import annotations

import numpy as np
import pytest

import qfx
from qfx.errors import QfxError, UnsupportedError
from qfx.formats import Binary, Block, DynamicFixedPoint, FixedPoint, Format, KHot, Minifloat
from qfx.graph import Graph, GraphBuilder, ops

SAME = ((1, 1), (1, 1))


class Net:
    """A graph builder for small convolutions."""

    def __init__(self, shape: tuple[int, ...], fmt: Format, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder()
        self.x = self.builder.add(ops.Input(shape, fmt))

    def cast(self, x: str, fmt: Format) -> str:
        return self.builder.add(ops.Cast(fmt), [x])

    def conv(self, x: str, out: int, encoding: Format, carrier: FixedPoint) -> str:
        """3x3 with padding, weights in ``encoding``."""
        channels = self.builder.tensor(x).channels
        weight = encoding.quantize(self.rng.normal(0, 1, (out, channels, 3, 3)))
        codes = np.ldexp(weight, carrier.max_frac).astype(np.int64)
        op = ops.Conv(codes, carrier, None, None, (1, 1), SAME, (1, 1), 1, weight_encoding=encoding)
        return self.builder.add(op, [x])


def minifloats() -> Graph:
    """E4M3 in, E2M1 and E2M2 inside, one bias per channel, E3M2 out."""
    n = Net((2, 4, 5), Minifloat(4, 3, specials="fn"), 0)
    x = n.cast(n.conv(n.x, 3, Minifloat(2, 1), FixedPoint(5, 1)), Minifloat(2, 2, (-2, 0, -3)))
    y = n.cast(n.builder.add(ops.Relu(), [x]), Minifloat(2, 1, -2, rounding="RND_ZERO"))
    x = n.builder.add(ops.Add(), [n.cast(x, Minifloat(2, 1, 0, signed=False)), y])
    return n.builder.build(n.cast(n.conv(x, 2, Minifloat(3, 1), FixedPoint(10, 3)), Minifloat(3, 2, 0)))


def digits() -> Graph:
    """K-hot weights and activations, in signed digits and in ones."""
    n = Net((2, 4, 5), FixedPoint(7, 3), 1)
    x = n.cast(n.conv(n.x, 3, KHot(6, 3, 2), FixedPoint(6, 3)), KHot(7, (2, 1, 3), 2))
    x = n.builder.add(ops.MaxPool((2, 2), (1, 1), ((0, 1), (1, 0))), [x])
    x = n.cast(n.conv(x, 3, KHot(4, 1, 1), FixedPoint(4, 1)), KHot(8, 0, 3, "binary"))
    return n.builder.build(n.cast(x, KHot(6, -2, 2)))


def signs() -> Graph:
    """One bit everywhere; the padding of a picture of signs is 0, which is neither."""
    n = Net((2, 4, 5), FixedPoint(5, 2), 2)
    x = n.cast(n.conv(n.cast(n.x, Binary(0)), 4, Binary(0), FixedPoint(2, 0)), Binary(0))
    x = n.cast(n.conv(x, 3, Binary(1), FixedPoint(2, 1)), Binary((2, 0, 1)))
    return n.builder.build(n.conv(x, 2, Binary(0), FixedPoint(2, 0)))


def samples(graph: Graph, count: int) -> np.ndarray:
    """Numbers of the input format, and some between them."""
    rng = np.random.default_rng(3)
    op = graph.input_node.op
    assert isinstance(op, ops.Input)
    x = rng.choice(op.format.values(), (count, *op.shape))
    return x * rng.choice([1, 1, 0.8, 1.5], x.shape)


@pytest.mark.parametrize("make", [minifloats, digits, signs])
def test_every_implementation(make: object, tmp_path: object) -> None:
    """Bit for bit, with stalls, at the outputs and at every tensor that exists inside."""
    assert callable(make)
    graph = make()
    x = samples(graph, 8)
    report = qfx.verify(
        graph, x, ("hls", "rtl"), tap=True, simulations=({}, {"stalls": 0.4}), hls={"optimize": 0}
    )
    assert report.ok, str(report)
    assert all(report[name].layers >= 3 for name in ("hls", "rtl"))
    codes = graph.run_codes(x)
    assert len(np.unique(codes)) > 4, "a network that says nothing"


@pytest.mark.parametrize(
    ("fmt", "why"),
    [
        (DynamicFixedPoint(4), "looks at a whole sample of 9 places"),
        (Block(FixedPoint(4, 2), 4, exponent_bits=2), "use more exponent_bits"),
    ],
)
def test_refusals_name_the_layer(fmt: Block, why: str) -> None:
    """Blocks that would need a buffer of a sample, and scales that run into their limits."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((4, 3, 3), FixedPoint(8, 4)))
    graph = builder.build(builder.add(ops.Cast(fmt), [x], "encoder.act"))
    with pytest.raises(UnsupportedError, match=rf"encoder\.act.*{why}"):
        qfx.rtl.plan(graph)


def test_folds_keep_blocks_whole() -> None:
    """A beat holds whole blocks, whatever the interval; another fold is refused."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((12,), FixedPoint(8, 4)))
    graph = builder.build(builder.add(ops.Cast(Block(FixedPoint(4, 2), 4)), [x], "act"))
    assert qfx.rtl.plan(graph, interval=1000).layers[0].pe == 4
    assert qfx.rtl.plan(graph, interval=1).layers[0].pe == 12
    with pytest.raises(QfxError, match=r"pe=2 must divide 12; supported: 4, 12"):
        qfx.rtl.plan(graph, fold={"act": {"pe": 2}})
