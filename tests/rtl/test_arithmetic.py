"""Matrices that multiply in the formats of their weights and elements: chosen, coded, exact in simulation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from rtl_networks import W4, Net, inputs

import qfx.rtl
import qfx.sim
from qfx import MXFP4, MXFP8, MXINT8, BlockFloatingPoint, FixedPoint, QfxError
from qfx.formats import Binary, Block, Format, KHot, Minifloat
from qfx.formats.base import Format as AnyFormat
from qfx.graph import Graph, ops
from qfx.graph.tensor import full_range, integers
from qfx.rtl.arithmetic import (
    DECODED,
    DIGITS,
    FLOAT,
    INTEGER,
    LUT_DECODED,
    LUT_INTEGER,
    XNOR,
    FloatCode,
    block_scales,
    choose,
)
from qfx.sim import Stalls


def weights(n: Net, shape: tuple[int, ...], fmt: AnyFormat, width: int) -> tuple[np.ndarray, FixedPoint]:
    """Random numbers of a format as codes of the fixed-point format that holds them."""
    frac = max(fmt.fracs(shape[0]))
    values = np.asarray(n.rng.choice(fmt.with_frac(frac).values(), shape))
    return (values * 2.0**frac).astype(np.int64), FixedPoint(width, frac)


def linear(n: Net, x: str, out: int, fmt: Format, width: int, path: str) -> str:
    codes, held = weights(n, (out, n.channels(x)), fmt, width)
    return n.add(ops.Linear(codes, held, None, None, weight_encoding=fmt), x, path=path)


def conv(n: Net, x: str, out: int, fmt: Format, width: int, path: str, padding: int = 0) -> str:
    codes, held = weights(n, (out, n.channels(x), 3, 3), fmt, width)
    pads = ((padding, padding),) * 2
    op = ops.Conv(codes, held, None, None, (1, 1), pads, (1, 1), 1, weight_encoding=fmt)
    return n.add(op, x, path=path)


def shifted() -> Graph:
    """K-hot weights of one to three digits, ternary ones, powers of two."""
    n = Net((2, 5, 5), FixedPoint(6, 3), 20)
    x = n.cast(n.relu(conv(n, n.x, 4, KHot(8, 5, 2), 8, "two", 1)), 5, 1, False)
    x = n.cast(conv(n, x, 3, KHot(2, 0, 1), 2, "ternary", 1), 6, 1)
    x = n.cast(n.relu(linear(n, n.reshape(x, 75), 6, KHot(8, 7, 1), 8, "power")), 8, 2, False)
    x = n.cast(linear(n, x, 8, KHot(9, 8, 3, "binary"), 9, "three"), 8, 2)
    return n.build(linear(n, x, 3, KHot(5, 4, 2), 5, "last"))


def signs() -> Graph:
    """One bit by one bit, around it zeros (which one bit does not hold), and one bit by integers."""
    n = Net((2, 6, 6), FixedPoint(6, 3), 21)
    x = n.format(conv(n, n.x, 4, Binary(0), 2, "front"), Binary(1))
    x = n.format(conv(n, x, 6, Binary(0), 2, "xnor"), Binary(0))
    x = n.format(conv(n, x, 4, Binary(2), 2, "padded", 1), Binary(-1))
    return n.build(linear(n, n.reshape(x, 16), 5, Binary(0), 2, "vector"))


def floats() -> Graph:
    """Minifloats by minifloats, with points per channel; by integers; a stream that two layers read."""
    e4m3, e5m2, e2m1 = Minifloat(4, 3, specials="fn"), Minifloat(5, 2, specials="ieee"), Minifloat(2, 1)
    n = Net((2, 5, 5), FixedPoint(8, 3), 22)
    x = n.format(n.conv(n.x, 4, (3, 3), W4, path="front"), e4m3.with_frac((9, 8, 10, 9)))
    x = n.format(conv(n, x, 4, e4m3, 19, "conv", 1), e5m2)
    x = n.reshape(x, 36)
    y = n.format(n.relu(linear(n, x, 6, Minifloat(3, 2), 10, "wide")), e2m1.with_frac(-6))
    z = n.cast(linear(n, x, 6, e2m1, 5, "narrow"), 9, 0)
    y = n.cast(linear(n, y, 6, e2m1, 5, "small"), 9, 0)
    return n.build(linear(n, n.add(ops.Add(), y, z), 3, e4m3, 19, "mixed"))


def block_weights(
    n: Net, out: int, inputs: int, fmt: Block, kernel: tuple[int, ...] = ()
) -> tuple[np.ndarray, FixedPoint]:
    """Random numbers cast to a block format, with largest numbers that differ from block to block."""
    size = fmt.size or inputs
    spread = n.rng.integers(-4, 1, (out, -(-inputs // size), *(1 for _ in kernel)))
    drawn = n.rng.normal(size=(out, inputs, *kernel)) * 2.0 ** np.repeat(spread, size, axis=1)[:, :inputs]
    numbers, points = fmt.integers_and_points(drawn)
    frac = max(points)
    up = (frac - np.array(points)).reshape(-1, *(1 for _ in drawn.shape[1:]))
    codes = numbers << up
    return codes, FixedPoint(int(abs(codes).max()).bit_length() + 1, frac)


def block_linear(n: Net, x: str, out: int, fmt: Block, path: str) -> str:
    codes, held = block_weights(n, out, n.channels(x), fmt)
    return n.add(ops.Linear(codes, held, None, None, weight_encoding=fmt), x, path=path)


def block_conv(n: Net, x: str, out: int, fmt: Block, path: str, padding: int = 0, groups: int = 1) -> str:
    codes, held = block_weights(n, out, n.channels(x) // groups, fmt, (3, 3))
    pads = ((padding, padding),) * 2
    op = ops.Conv(codes, held, None, None, (1, 1), pads, (1, 1), groups, weight_encoding=fmt)
    return n.add(op, x, path=path)


def blocks() -> Graph:
    """Minifloat and fixed-point elements; blocks shorter and longer than what a step takes, and cut short at
    the end; weights of a flattened image, whose blocks the order of the stream tears apart; activations with
    a sign and without, and in blocks."""
    n = Net((12, 5, 5), FixedPoint(6, 3), 24)
    x = n.cast(n.relu(block_conv(n, n.x, 8, Block(Minifloat(2, 1), 4), "quarters", 1)), 6, 0, False)
    x = n.cast(block_conv(n, x, 8, BlockFloatingPoint(3, 4), "groups", groups=2), 6, 0)
    x = n.cast(n.relu(block_conv(n, x, 16, MXFP4(), "window")), 7, 0, False)
    x = n.cast(block_linear(n, n.reshape(x, 16), 40, MXINT8(), "whole"), 8, 0)
    x = n.format(block_linear(n, x, 12, Block(Minifloat(3, 2), 16), "short"), MXFP4())
    x = n.cast(n.relu(block_linear(n, x, 8, MXFP8(), "wide")), 8, 0, False)
    return n.build(block_linear(n, x, 3, MXFP8("e5m2"), "last"))


def flattened() -> Graph:
    n = Net((4, 3, 3), FixedPoint(6, 3), 25)
    x = n.cast(n.relu(block_conv(n, n.x, 4, MXFP4(), "conv", 1)), 6, 0, False)
    return n.build(block_linear(n, n.reshape(x, 36), 5, MXFP4(), "torn"))


NETWORKS: dict[str, Callable[[], Graph]] = {
    f.__name__: f for f in (shifted, signs, floats, blocks, flattened)
}


def kinds(design: qfx.rtl.Design) -> dict[str, int]:
    """KIND of each matrix by module path."""
    return {
        design.graph[kernel.node].path: kernel.number("KIND")
        for kernel in design.kernels
        if kernel.module == "qfx_matvec"
    }


@pytest.mark.parametrize(
    ("name", "multipliers"),
    [("shifted", "shift"), ("signs", "auto"), ("floats", "auto"), ("blocks", "lut"), ("flattened", "auto")],
)
def test_bits_and_cycles(name: str, multipliers: str, tmp_path: Path) -> None:
    graph = NETWORKS[name]()
    x = inputs(graph, 5)
    design = qfx.rtl.generate(graph, tmp_path / "rtl", multipliers=multipliers)
    expected = graph.trace(x)
    result = qfx.sim.run(design, x, tap=True)
    for stream in result.streams:
        np.testing.assert_array_equal(stream.codes, expected[stream.node], err_msg=stream.name)
    np.testing.assert_array_equal(result.codes, expected[graph.output])
    assert (result.latency, result.interval) == (design.latency, design.interval)
    stalled = qfx.sim.run(design, x, stalls=Stalls(0.3, 0.5, 4, seed=6))
    np.testing.assert_array_equal(stalled.codes, expected[graph.output])


@pytest.mark.slow
@pytest.mark.parametrize("interval", [400, 3000])
@pytest.mark.parametrize("multipliers", ["auto", "lut", "shift"])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_foldings(name: str, multipliers: str, interval: int, tmp_path: Path) -> None:
    graph = NETWORKS[name]()
    x = inputs(graph, 4, seed=1)
    design = qfx.rtl.generate(graph, tmp_path / "rtl", multipliers=multipliers, interval=interval)
    result = qfx.sim.run(design, x)
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    assert (result.latency, result.interval) == (design.latency, design.interval)


def test_what_is_chosen() -> None:
    shift = kinds(qfx.rtl.plan(shifted(), multipliers="shift"))
    assert set(shift.values()) == {DIGITS}
    one_bit = kinds(qfx.rtl.plan(signs()))
    assert one_bit == {"front": DIGITS, "xnor": XNOR, "padded": DIGITS, "vector": XNOR}
    auto = kinds(qfx.rtl.plan(floats()))
    assert auto["conv"] == auto["wide"] == FLOAT
    assert auto["front"] == LUT_INTEGER  # small enough for look-up tables in any case
    narrow = qfx.rtl.plan(floats())
    # E5M2 travels in 8 bits in place of 34, made once for the two layers that read it.
    codes = [kernel for kernel in narrow.kernels if kernel.module == "qfx_encode_minifloat"]
    assert len({kernel.inputs for kernel in codes}) == len(codes)
    (wide,) = [k for k in narrow.kernels if k.module == "qfx_matvec" and narrow.graph[k.node].path == "wide"]
    assert wide.number("A_WIDTH") == 8


def matrix(design: qfx.rtl.Design, path: str) -> qfx.rtl.Kernel:
    """The matrix of a layer."""
    (found,) = [
        k for k in design.kernels if k.module.startswith("qfx_matvec") and design.graph[k.node].path == path
    ]
    return found


def vector() -> Graph:
    n = Net((64,), FixedPoint(8, 3), 26)
    return n.build(block_linear(n, n.x, 8, MXFP4(), "fc"))


def test_blocks_are_codes_and_scales() -> None:
    """MXFP4: four bits of a weight and, for 32 of them, the bits of a shift."""
    graph = vector()
    weight = graph["n1_fc"].op.weight.astype(np.int64)
    for pe, simd, block, hold in ((2, 16, 16, 2), (1, 32, 32, 1), (2, 64, 32, 1), (8, 4, 4, 8)):
        kernel = matrix(qfx.rtl.plan(graph, fold={"fc": {"pe": pe, "simd": simd}}, multipliers="lut"), "fc")
        n = kernel.number
        assert (n("KIND"), n("W_WIDTH"), n("BLOCK"), n("HOLD")) == (LUT_DECODED, 4, block, hold)
        codes, scales = kernel.memories["WEIGHT_FILE"], kernel.memories["SCALES_FILE"]
        assert codes.depth * codes.bits == 4 * weight.size
        assert scales.depth * scales.bits == n("SCALE_WIDTH") * weight.size // 32
        # The numbers again, from the words alone.
        fmt = Minifloat(2, 1)
        assert codes.words is not None and scales.words is not None
        for step, word in enumerate(codes.words):
            tile, first = divmod(step, 64 // simd)
            of_step = scales.words[step // hold]
            for lane in range(pe * simd):
                element = fmt.decode(np.array([word >> 4 * lane & 15]))[0] * 2**fmt.frac
                at = lane // block if hold == 1 else lane // simd
                scale = of_step >> n("SCALE_WIDTH") * at & ((1 << n("SCALE_WIDTH")) - 1)
                found = int(element) << scale << n("SHIFT")
                assert found == weight[tile * pe + lane // simd, first * simd + lane % simd]


def test_integers_where_blocks_are_torn() -> None:
    """The order in which a flattened image comes puts weights of different blocks next to each other: a
    shifter for each weight costs more than the bits that it saves."""
    for simd in (1, 4, 36):
        design = qfx.rtl.plan(flattened(), fold={"torn": {"pe": 5, "simd": simd}}, multipliers="lut")
        torn = matrix(design, "torn")
        assert (torn.number("KIND"), torn.number("BLOCK")) == (LUT_INTEGER, 0)
        assert "SCALES_FILE" not in torn.memories
        assert matrix(design, "conv").number("BLOCK") == 4


@pytest.mark.parametrize(
    ("simd", "place"),
    [(1, "lut"), (6, "lut"), (32, "lut"), (4, "stream"), pytest.param(64, "stream", marks=pytest.mark.slow)],
)
def test_foldings_of_blocks(simd: int, place: str, tmp_path: Path) -> None:
    n = Net((192,), FixedPoint(8, 3), 27)
    graph = n.build(block_linear(n, n.x, 6, MXFP4(), "fc"))
    design = qfx.rtl.generate(
        graph,
        tmp_path / "rtl",
        fold={"fc": {"pe": 2, "simd": simd}},
        weights={"fc": place},
        multipliers="lut",
    )
    x = inputs(graph, 5)
    result = qfx.sim.run(design, x, stalls=Stalls(0.2, 0.3, 4, weights=0.2, seed=7))
    np.testing.assert_array_equal(result.codes, graph.run_codes(x))
    if place == "stream":
        assert matrix(design, "fc").number("W_WIDTH") == 4
    assert qfx.rtl.load(tmp_path / "rtl").summary() == design.summary()


def test_kinds_of_blocks() -> None:
    lut = kinds(qfx.rtl.plan(blocks(), multipliers="lut"))
    assert lut["quarters"] == lut["window"] == LUT_DECODED and lut["whole"] == LUT_INTEGER
    auto = kinds(qfx.rtl.plan(blocks()))
    assert auto["whole"] == INTEGER  # eight bits by seven: worth a DSP block
    assert auto["window"] in (DECODED, LUT_DECODED, FLOAT)
    assert qfx.rtl.plan(blocks(), multipliers="lut").estimate["dsp"] == 0


@pytest.mark.parametrize("fmt", [MXFP4(), MXINT8(), Block(Minifloat(3, 2), 8), BlockFloatingPoint(4, 16)])
def test_scales_are_found_again(fmt: Block) -> None:
    """From the integers: the format's blocks or longer runs, and the smallest largest scale."""
    n = Net((1,), FixedPoint(8, 3), 28)
    codes, _ = block_weights(n, 6, 64, fmt)
    weight = integers(codes).reshape(1, 6, 64)
    low, high = -fmt.element.integer_min, fmt.element.integer_max
    found = block_scales(weight, low, high)
    assert found is not None
    run, scales = found
    assert run % (fmt.size or 64) == 0 or run >= 64
    elements = weight >> integers(np.repeat(scales, run, axis=2))
    np.testing.assert_array_equal(elements << integers(np.repeat(scales, run, axis=2)), weight)
    assert -low <= elements.min() and elements.max() <= high
    top = int(scales.max())
    assert top == 0 or any(
        int(abs(tile).max()) >> top - 1 > min(low, high) for tile in weight.reshape(-1, run)
    )


def test_scales_of_what_fits_nowhere() -> None:
    assert block_scales(integers([[[1, 5]]]), 3, 3) is None
    assert block_scales(integers([[[1, 1 << 61]]]), 3, 3) is None
    run, scales = block_scales(integers([[[4, 8, 0, 0, 1, 2]]]), 2, 2) or (0, np.zeros(1))
    assert (run, scales.tolist()) == (3, [[[2, 0]]])


def test_without_dsp_blocks() -> None:
    for name, network in NETWORKS.items():
        design = qfx.rtl.plan(network(), multipliers="lut")
        assert design.estimate["dsp"] == 0, name
    n = Net((16,), FixedPoint(8, 3), 23)
    graph = n.build(n.linear(n.x, 8, FixedPoint(8, 6), path="fc"))
    assert kinds(qfx.rtl.plan(graph)) == {"fc": INTEGER}
    assert kinds(qfx.rtl.plan(graph, multipliers="lut")) == {"fc": LUT_INTEGER}


def test_refused() -> None:
    with pytest.raises(QfxError, match="multipliers='dsp': must be one of auto, lut, shift"):
        qfx.rtl.plan(shifted(), multipliers="dsp")


@pytest.mark.parametrize(
    ("exponent", "mantissa", "signed"), [(2, 1, True), (3, 0, True), (4, 3, False), (1, 4, True)]
)
def test_float_codes(exponent: int, mantissa: int, signed: bool) -> None:
    """Against the format of the same shape."""
    code = FloatCode(exponent, mantissa, signed)
    fmt = Minifloat(exponent, mantissa, signed=signed)
    numbers = np.unique(fmt.values())
    held = integers(np.round(numbers * 2.0**fmt.frac).astype(np.int64))
    np.testing.assert_array_equal(code.encode(held), fmt.encode(numbers))
    assert code.width == fmt.width


@pytest.mark.parametrize(
    ("width", "k"), [(2, 1), (4, 1), (5, 2), (8, 1), (8, 2), (8, 3), (9, 4), (12, 2), (14, 5)]
)
def test_digit_codes(width: int, k: int) -> None:
    """Every number of a K-hot format, decoded by the words of docs/kernels.md."""
    fmt = KHot(width, 0, k)
    numbers = integers(np.unique(fmt.values()).astype(np.int64))
    x = full_range((len(numbers),), FixedPoint(8, 0))
    how = choose(x, 8, True, numbers.reshape(1, 1, -1), fmt, False, "shift")
    p = how.parameters
    assert p["KIND"] == DIGITS and p["DIGITS"] <= k
    fine_bits, place_bits = p["FINE"].bit_length() - 1, p["PLACES"].bit_length()
    slot = 1 + fine_bits + place_bits
    assert how.width == slot * p["DIGITS"]
    for number, word in zip(numbers.tolist(), how.codes.reshape(-1).tolist(), strict=True):
        total = 0
        for j in range(p["DIGITS"]):
            digit = word >> (slot * j) & ((1 << slot) - 1)
            place = digit >> (1 + fine_bits)
            assert place or not digit
            shift = (place - 1) * p["FINE"] + (digit >> 1 & (p["FINE"] - 1))
            if place:
                total += -(1 << (2 * j + shift)) if digit & 1 else 1 << (2 * j + shift)
        assert total == number


@pytest.mark.parametrize("magnitudes", [(1,), (1, 0)])
def test_ones_need_one_bit_or_two(magnitudes: tuple[int, ...]) -> None:
    numbers = integers([s * m for s, m in product((1, -1), magnitudes)]).reshape(1, 1, -1)
    x = full_range((numbers.size,), FixedPoint(8, 0))
    how = choose(x, 8, True, numbers, None, False)
    assert (how.parameters["KIND"], how.width) == (DIGITS, len(magnitudes))
