"""Activations in formats with gaps: every code through every kind of cast, and networks of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hls_exact import Branches, assert_exact, conv

import qfx.hls
from qfx.errors import UnsupportedError
from qfx.formats import Binary, Block, DynamicFixedPoint, FixedPoint, Format, KHot, Minifloat
from qfx.formats.rounding import ROUNDING
from qfx.graph import GraphBuilder, ops

# Grids coarser than the operand's, the same, finer; ranges that saturate and that do not; every rounding.
FORMATS: list[Format] = [
    *(Minifloat(3, 2, 3 - i, rounding=mode, signed=i != 2) for i, mode in enumerate(ROUNDING)),
    *(Minifloat(2, 1, i, specials="fn", rounding=mode) for i, mode in enumerate(ROUNDING)),
    *(Minifloat(3, 0, bias) for bias in (-1, 2, 3, 4)),
    *(Minifloat(0, 3, bias, rounding="RND_INF") for bias in (0, 2)),
    Minifloat(8, 7, 127, specials="ieee"),
    *(
        KHot(6, frac, k, digits)
        for frac, k in ((1, 2), (3, 1), (5, 2), (2, 3))
        for digits in ("csd", "binary")
    ),
    KHot(7, (3, 1), 2, signed=False),
    KHot(12, 6, 9),
    Binary(0),
    Binary((3, -2)),
]


def every_code(width: int) -> np.ndarray:
    """All codes of two channels, not in step."""
    codes = np.arange(-(1 << (width - 1)), 1 << (width - 1))
    return np.stack([codes, np.roll(codes, 77)], axis=1)


def test_casts_of_every_code(tmp_path: Path) -> None:
    """From words of 8 bits, as a layer of its own and at the end of another kernel."""
    branches = Branches((2,), FixedPoint(8, 3))
    for i, fmt in enumerate(FORMATS):
        if i % 2:
            branches.add(ops.Cast(fmt))
        else:
            branches.add(ops.LeakyRelu(-3, 1), ops.Cast(fmt))
    assert_exact(branches.graph(), tmp_path / "project", "parallel", every_code(8) / 8)


def test_binary_points_per_channel(tmp_path: Path) -> None:
    """Of the operand, of the format, of both; the result has what is left of them."""
    branches = Branches((2,), FixedPoint(7, (1, 6)))
    for i, fmt in enumerate(FORMATS[::2]):
        branches.add(
            ops.Cast(fmt if i % 2 or fmt.per_channel else fmt.with_frac((fmt.max_frac, fmt.max_frac - 4)))
        )
    assert_exact(branches.graph(), tmp_path / "project", "stream", every_code(7) / 2.0 ** np.array([1, 6]))


@pytest.mark.parametrize(("io", "backend"), [("parallel", "Vivado"), ("stream", "Vitis")])
def test_network(io: str, backend: str, tmp_path: Path) -> None:
    """hls4ml's layers and ours in front of the casts; weights in such formats; signs, padded with zeros."""
    rng = np.random.default_rng(5)
    branches = Branches((2, 5, 4), Minifloat(3, 2, 3))
    same = ((1, 1), (1, 1))
    dense = conv(rng, 3, 2, (3, 3), padding=same)
    x = branches.node(dense, branches.input)
    signs = branches.node(ops.Cast(Binary((1, 0, 2))), x)
    branches.add(conv(rng, 2, 3, (3, 3), padding=same), ops.Cast(KHot(5, 0, 2)), start=signs)
    branches.add(
        conv(rng, 3, 3, (2, 2), dilation=(1, 2), groups=3), ops.Cast(Minifloat(2, 2, 0)), start=signs
    )
    branches.add(
        ops.AvgPool((2, 2), (1, 1), ((0, 0), (0, 0)), 5, 4), ops.Cast(Minifloat(3, 1, (1, 2, 0))), start=x
    )
    few = KHot(5, 2, 2)
    weight = few.integers(rng.normal(0, 2, (4, 3, 1, 1)))
    hot = ops.Conv(
        weight, FixedPoint(5, 2), None, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, weight_encoding=few
    )
    branches.add(ops.MaxPool((3, 3), (1, 1), same), ops.Cast(few), hot, ops.Relu(), ops.Cast(few), start=x)
    graph = branches.graph()
    numbers = Minifloat(3, 2, 3).values()
    assert_exact(graph, tmp_path / "project", io, rng.choice(numbers, (30, 2, 5, 4)), backend=backend)


@pytest.mark.parametrize("io", ["parallel", "stream"])
def test_blocks(io: str, tmp_path: Path) -> None:
    """Of all channels, of some, with a rest; points per channel; every kind of element; a flattened one."""
    branches = Branches((5, 2, 2), FixedPoint(9, 4))
    points = branches.node(ops.Cast(FixedPoint(8, (4, 1, 3, 5, 2))), branches.input)
    elements: list[FixedPoint | Minifloat] = [
        *(Minifloat(2, 1, i - 2, rounding=mode) for i, mode in enumerate(ROUNDING)),
        Minifloat(4, 3, 7, specials="fn"),
        Minifloat(3, 0, 3),
        Minifloat(0, 3, 0),
        Minifloat(2, 2, 1, signed=False),
        *(FixedPoint(4, 2, rounding=mode) for mode in ROUNDING[:3]),
        FixedPoint(5, 7, overflow="SAT_SYM"),
        FixedPoint(3, 0, False, "RND"),
    ]
    for i, element in enumerate(elements):
        start = points if i % 3 == 2 else branches.input
        branches.add(ops.Cast(Block(element, (2, 5, 32, 1)[i % 4])), start=start)
    flat = branches.node(ops.Reshape((20,)), points)
    branches.add(ops.Cast(DynamicFixedPoint(5)), start=flat)
    rng = np.random.default_rng(4)
    x = rng.integers(-256, 256, (40, 5, 2, 2)) / 16 * rng.choice([1, 0.1, 0.01, 0], (40, 1, 2, 2))
    assert_exact(branches.graph(), tmp_path / "project", io, x)


def test_blocks_that_are_refused(tmp_path: Path) -> None:
    """By the path of the layer, with what to do instead."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((4, 3, 3), FixedPoint(8, 4)))
    whole = builder.add(ops.Cast(DynamicFixedPoint(4)), [x], "encoder.act")
    graph = builder.build(
        builder.add(ops.Cast(Block(FixedPoint(4, 2), 4, exponent_bits=2)), [whole], "head.act")
    )
    with pytest.raises(UnsupportedError) as error:
        qfx.hls.convert(graph, tmp_path / "project")
    assert "encoder.act" in str(error.value) and "a whole sample of 9 places" in str(error.value)
    assert "head.act" in str(error.value) and "use more exponent_bits" in str(error.value)


def test_points_too_far_apart_are_refused(tmp_path: Path) -> None:
    """A limit beyond C++ literals: one channel saturates far above another channel's grid."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(8, (0, -120))))
    wide = Minifloat(7, 2, 63)
    graph = builder.build(builder.add(ops.Cast(wide), [x], "act"))
    with pytest.raises(UnsupportedError, match=r"act.*constants in HLS C\+\+ have 63"):
        qfx.hls.convert(graph, tmp_path / "project")
