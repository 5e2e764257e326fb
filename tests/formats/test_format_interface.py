"""What every format promises to the graph and the quantizers (qfx/formats/base.py), one class for all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import qfx
from qfx.errors import QfxError
from qfx.formats import Block, FixedPoint, Format, KHot, Minifloat, smallest_format
from qfx.formats.data import from_data, to_data
from qfx.formats.rounding import OVERFLOW, ROUNDING
from qfx.graph import GraphBuilder, ops
from qfx.graph.interpreter import Interpreter
from qfx.graph.reference import trace_reference

CHANNELS = 4

FORMATS: list[Format] = [
    *(FixedPoint(5, 2, rounding=mode) for mode in ROUNDING),
    *(FixedPoint(5, 2, overflow=mode) for mode in OVERFLOW),
    FixedPoint(4, (-1, 0, 2, 5), signed=False),
    FixedPoint(20, 3),
    *(Minifloat(3, 2, rounding=mode) for mode in ROUNDING),
    Minifloat(2, 1),
    Minifloat(0, 3, 1),
    Minifloat(3, 0),
    Minifloat(3, 0, (3, 2, 5, 0)),
    Minifloat(2, 0, rounding="RND"),
    Minifloat(4, 3, specials="fn"),
    Minifloat(5, 2, specials="ieee"),
    Minifloat(2, 2, signed=False),
    Minifloat(3, 2, (2, 4, 3, -1)),
    Minifloat(8, 7, 127, specials="ieee"),
    KHot(6, 2, k=1),
    KHot(7, 1, k=2),
    KHot(7, 1, k=2, digits="binary"),
    KHot(6, -1, k=3, signed=False),
    KHot(5, (2, 0, -3, 4), k=2),
    KHot(24, 8, k=2),
    KHot(8, 0, k=8),
    qfx.PowerOfTwo(9, 4),
    qfx.Ternary(1),
    qfx.Binary(0),
    qfx.Binary((3, -2, 0, 1)),
    qfx.MXINT8(),
    qfx.MXFP8("e4m3"),
    qfx.MXFP8("e5m2"),
    qfx.MXFP6("e2m3"),
    qfx.MXFP6("e3m2"),
    qfx.MXFP4(),
    qfx.DynamicFixedPoint(5),
    qfx.BlockFloatingPoint(4, size=3, exponent_bits=4),
    qfx.BlockFloatingPoint(32, size=2),
    Block(Minifloat(5, 10, 15, specials="ieee"), 3),
    *(Block(FixedPoint(4, 2, rounding=mode, overflow="SAT_SYM"), 2) for mode in ROUNDING),
    *(Block(Minifloat(2, 2, rounding=mode), 3) for mode in ROUNDING),
    Block(FixedPoint(4, 3, signed=False), 3),
    Block(Minifloat(3, 1, signed=False), None, 2),
    Block(Minifloat(3, 0), 2),
]


def grid(fmt: Format) -> tuple[int, ...]:
    """The binary points of the finest numbers; block formats have none, any will do."""
    return fmt.fracs(CHANNELS) if fmt.has_point else (3,) * CHANNELS


def hard_codes(fmt: Format, points: tuple[int, ...], seed: int, bits: int = 22) -> np.ndarray:
    """Numbers of the format, midpoints between them, their neighbours, and random numbers of every size, as
    codes ``(samples, channels)`` with binary points ``points``."""
    rng = np.random.default_rng(seed)
    columns = []
    for point, frac in zip(points, grid(fmt), strict=True):
        numbers = np.arange(-40, 41)
        if fmt.has_point and not fmt.per_channel and fmt.width <= 9:
            numbers = np.ldexp(fmt.values(), frac)
        doubled = np.concatenate((2 * numbers, np.sort(numbers)[1:] + np.sort(numbers)[:-1]))
        exact = np.ldexp(doubled, point - frac - 1)
        around = np.concatenate([np.floor(exact) + d for d in (-1, 0, 1)])
        spread = np.rint(rng.standard_normal(300) * 2.0 ** rng.uniform(0, bits - 3, 300))
        column = np.concatenate((around, spread))
        columns.append(column[np.abs(column) < 1 << bits])
    longest = max(len(c) for c in columns)
    # Block formats look at neighbours: mix them.
    mixed = [rng.permutation(np.resize(c, longest)) for c in columns]
    return np.stack(mixed, axis=1).astype(np.int64)


def points_around(fmt: Format) -> list[tuple[int, ...]]:
    """Operands on the grid of the format, on finer and coarser ones, and one per channel."""
    finest = grid(fmt)
    shifts = ((0,) * 4, (1,) * 4, (3,) * 4, (-2,) * 4, (-2, 0, 1, 3))
    return [tuple(f + s for f, s in zip(finest, shift, strict=True)) for shift in shifts]


def reals(codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
    """Exact: codes are below 2**53."""
    shape = (1, -1, *(1,) * (codes.ndim - 2))
    return np.ldexp(codes.astype(np.float64), -np.asarray(points).reshape(shape))


def on_grid(fmt: Format, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
    """Integers in units of ``2**-frac``."""
    fracs = fmt.fracs(CHANNELS) if fmt.has_point else (max(points),) * CHANNELS
    shifts = np.asarray([f - p for f, p in zip(fracs, points, strict=True)], dtype=object)
    assert (shifts >= 0).all()
    return codes.astype(object) << shifts


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
class TestEveryFormat:
    def test_all_ways_to_cast_agree(self, fmt: Format) -> None:
        for seed, points in enumerate(points_around(fmt)):
            codes = hard_codes(fmt, points, seed)
            x = reals(codes, points)
            expected = fmt.quantize(x, axis=1)
            results = fmt.result_points(points)
            cast = fmt.cast_integers(codes, points)
            assert cast.dtype == np.int64 and cast.shape == codes.shape
            np.testing.assert_array_equal(reals(cast, results), expected)
            wide = fmt.cast_integers(codes.astype(object), points)
            assert wide.dtype == object and (wide == cast).all()
            units = np.asarray(fmt.units(points))
            for dtype in (torch.float64, torch.float32):
                if dtype == torch.float32 and fmt.has_point and fmt.integer_max >= 1 << 60:
                    continue  # beyond the exponents of float32
                scaled = torch.from_numpy(np.ldexp(x, units)).to(dtype)
                rounded = fmt.round_scaled(scaled)
                assert rounded.dtype == dtype
                np.testing.assert_array_equal(np.ldexp(rounded.double().numpy(), -units), expected)

    def test_beyond_every_bound(self, fmt: Format) -> None:
        huge = np.array([np.inf, -np.inf, 1e300, -1e300, 1e-300, -1e-300, 0.0, -0.0])
        x = np.stack([huge] * CHANNELS, axis=1)
        expected = fmt.quantize(x, axis=1)
        assert np.isfinite(expected).all()
        units = np.asarray(fmt.units((0,) * CHANNELS))
        with np.errstate(over="ignore"):
            scaled = torch.from_numpy(x * 2.0**units)
        rounded = fmt.round_scaled(scaled)
        np.testing.assert_array_equal(np.ldexp(rounded.numpy(), -units), expected)

    def test_with_axes_behind_the_channels(self, fmt: Format) -> None:
        points = points_around(fmt)[-1]
        codes = hard_codes(fmt, points, 7)[:24]
        flat = codes.reshape(3, 4, 2, CHANNELS)  # places first
        images = np.moveaxis(flat, -1, 1)
        cast = fmt.cast_integers(np.ascontiguousarray(images), points)
        x = reals(images, points)
        np.testing.assert_array_equal(reals(cast, fmt.result_points(points)), fmt.quantize(x, axis=1))
        if not isinstance(fmt, Block) or fmt.size is not None:
            # Each place is cast by itself; a block over all of a sample is the exception.
            places = fmt.cast_integers(flat.reshape(-1, CHANNELS), points).reshape(flat.shape)
            np.testing.assert_array_equal(np.moveaxis(cast, 1, -1), places)

    def test_results_are_members_and_casting_twice_changes_nothing(self, fmt: Format) -> None:
        for seed, points in enumerate(points_around(fmt)):
            codes = hard_codes(fmt, points, seed)
            results = fmt.result_points(points)
            cast = fmt.cast_integers(codes, points)
            assert fmt.members(on_grid(fmt, cast, results)).all()
            assert fmt.result_points(results) == results
            np.testing.assert_array_equal(fmt.cast_integers(cast, results), cast)
            x = reals(cast, results)
            np.testing.assert_array_equal(fmt.quantize(x, axis=1), x)

    def test_interval(self, fmt: Format) -> None:
        rng = np.random.default_rng(3)
        monotone = not isinstance(fmt, Block) and not (
            isinstance(fmt, FixedPoint) and fmt.overflow not in ("SAT", "SAT_SYM")
        )
        for points in points_around(fmt):
            middle = rng.integers(-60, 60, CHANNELS)
            low, high = middle - rng.integers(0, 25, CHANNELS), middle + rng.integers(0, 25, CHANNELS)
            least, most = fmt.cast_interval(low.astype(object), high.astype(object), points)
            draws = rng.integers(low, high + 1, (4000, CHANNELS))
            draws[:2] = low, high
            cast = fmt.cast_integers(draws, points)
            assert (cast >= least).all() and (cast <= most).all()
            if monotone:
                assert (cast.min(axis=0) == least).all() and (cast.max(axis=0) == most).all()

    def test_as_plain_data(self, fmt: Format) -> None:
        data = json.loads(json.dumps(to_data(fmt)))
        assert from_data(data) == fmt and hash(from_data(data)) == hash(fmt)

    def test_values(self, fmt: Format) -> None:
        if not fmt.has_point or fmt.per_channel:
            with pytest.raises((QfxError, AttributeError)):
                fmt.values()  # type: ignore[attr-defined]
            return
        values = fmt.values()  # type: ignore[attr-defined]
        assert values.dtype == np.float64 and (np.diff(values) > 0).all()
        np.testing.assert_array_equal(fmt.quantize(values), values)
        if not (isinstance(fmt, FixedPoint) and fmt.overflow == "SAT_SYM"):
            assert values[0] == fmt.min and values[-1] == fmt.max  # type: ignore[attr-defined]
        if fmt.integer_max < 1 << 12:
            every = np.arange(fmt.integer_min - 3, fmt.integer_max + 4)
            members = every[fmt.members(every)]
            known = np.ldexp(values, fmt.frac)  # type: ignore[attr-defined]
            # SAT_SYM never gives the lowest code, but a constant may have it.
            extra = [fmt.integer_min - 1] if isinstance(fmt, FixedPoint) and fmt.overflow == "SAT_SYM" else []
            np.testing.assert_array_equal(members, [*extra, *known])
            gap = fmt.dense_below
            inside = every[(np.abs(every) < gap) & (every >= fmt.integer_min) & (every <= fmt.integer_max)]
            assert fmt.members(inside).all()

    def test_codes(self, fmt: Format) -> None:
        x = reals(hard_codes(fmt, (5,) * 4, 1), (5,) * 4)
        expected = fmt.quantize(x, axis=1)
        if isinstance(fmt, Block):
            np.testing.assert_array_equal(fmt.decode(*fmt.encode(x)), expected)
            codes, exponents = fmt.encode(torch.from_numpy(x))
            np.testing.assert_array_equal(fmt.decode(codes, exponents).numpy(), expected)
            return
        codes = fmt.encode(x, axis=1)  # type: ignore[attr-defined]
        assert codes.dtype == np.int64
        np.testing.assert_array_equal(fmt.decode(codes, axis=1), expected)  # type: ignore[attr-defined]
        in_torch = fmt.encode(torch.from_numpy(x), axis=1)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(in_torch.numpy(), codes)
        np.testing.assert_array_equal(fmt.decode(in_torch, axis=1).numpy(), expected)  # type: ignore[attr-defined]

    def test_nan_and_dtypes(self, fmt: Format) -> None:
        x = np.full((2, CHANNELS), 0.75)
        x[1, 2] = np.nan
        y = fmt.quantize(x, axis=1)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
        with pytest.raises(QfxError, match="NaN at index"):
            specials = isinstance(fmt, Minifloat) and fmt.specials != "none"
            fmt.integers(x, axis=1) if specials else fmt.encode(x, axis=1)  # type: ignore[attr-defined]
        whole = np.array([[3, -1, 0, 2]])
        np.testing.assert_array_equal(fmt.quantize(whole, axis=1), fmt.quantize(whole.astype(float), axis=1))
        in_torch = fmt.quantize(torch.tensor([[3.0, -1.0, 0.0, 2.0]]), axis=1)
        np.testing.assert_array_equal(in_torch.double().numpy(), fmt.quantize(whole, axis=1))
        with pytest.raises(QfxError, match="cannot"):
            fmt.quantize(np.array([["a"] * CHANNELS]), axis=1)
        assert fmt.quantize(np.zeros((0, CHANNELS)), axis=1).shape == (0, CHANNELS)

    def test_in_a_graph(self, fmt: Format, tmp_path) -> None:  # type: ignore[no-untyped-def]
        """A cast in the middle of a graph, in floating point, in integers, saved and read."""
        rng = np.random.default_rng(5)
        for wide, points in ((9, grid(fmt)), (9, points_around(fmt)[-1]), (30, points_around(fmt)[2])):
            builder = GraphBuilder()
            name = builder.add(ops.Input((CHANNELS, 3), FixedPoint(wide, points)))
            name = builder.add(ops.Cast(fmt), (name,))
            assert isinstance(fmt, FixedPoint) or builder.tensor(name).encoding == fmt
            weight = FixedPoint(5, (1, 2))
            codes = rng.integers(-16, 16, (2, CHANNELS, 2))
            conv = ops.Conv(codes, weight, None, None, (1,), ((1, 0),), (1,), 1)
            name = builder.add(ops.Relu(), (builder.add(conv, (name,)),))
            graph = builder.build(name)
            x = reals(rng.integers(-(1 << (wide - 1)), 1 << (wide - 1), (30, CHANNELS, 3)), points)
            reference = trace_reference(graph, x)
            interpreter = Interpreter(graph)
            for node, found in interpreter.trace(x).items():
                np.testing.assert_array_equal(found, reference[node].astype(np.int64))
            path = tmp_path / "graph.qfx"
            graph.save(path)
            np.testing.assert_array_equal(qfx.load(path).run(x), graph.run(x))
            for node in graph.nodes:
                codes = reference[node.name].astype(object)
                ends = [
                    e.reshape(1, -1, *(1,) * (codes.ndim - 2)) for e in (node.tensor.low, node.tensor.high)
                ]
                assert (codes >= ends[0]).all() and (codes <= ends[1]).all()

    def test_as_the_input_of_a_graph(self, fmt: Format) -> None:
        x = reals(hard_codes(fmt, (4,) * CHANNELS, 2), (4,) * CHANNELS)
        if not fmt.has_point:
            with pytest.raises(QfxError, match="takes its scale from the data"):
                GraphBuilder().add(ops.Input((CHANNELS,), fmt))
            return
        if fmt.integer_max >= 1 << 62:
            with pytest.raises(QfxError, match="62"):
                GraphBuilder().add(ops.Input((CHANNELS,), fmt))
            return
        builder = GraphBuilder()
        name = builder.add(ops.Input((CHANNELS,), fmt))
        graph = builder.build(builder.add(ops.Relu(), (name,)))
        expected = np.maximum(fmt.quantize(x, axis=1), 0)
        np.testing.assert_array_equal(graph.run(x), expected)
        np.testing.assert_array_equal(
            graph.run(x.astype(np.float32)), np.maximum(fmt.quantize(x.astype(np.float32), axis=1), 0)
        )
        assert (trace_reference(graph, x)[graph.output] == graph.trace(x)[graph.output]).all()

    def test_as_weights_of_a_graph(self, fmt: Format) -> None:
        """Encoded weights of `linear`, checked when the graph is built; the product is exact."""
        rng = np.random.default_rng(6)
        weights = rng.standard_normal((CHANNELS, 9))
        if isinstance(fmt, Block):
            integers, points = fmt.integers_and_points(weights)
        elif fmt.integer_max >= 1 << 62:
            return
        else:
            integers, points = fmt.integers(weights, axis=0), fmt.fracs(CHANNELS)
        carrier = smallest_format(int(integers.min()), int(integers.max()), points)
        builder = GraphBuilder()
        name = builder.add(ops.Input((9,), FixedPoint(6, 2)))
        linear = ops.Linear(integers, carrier, None, None, weight_encoding=fmt)
        graph = builder.build(builder.add(linear, (name,)))
        x = FixedPoint(6, 2).quantize(rng.standard_normal((20, 9)) * 4)
        # Far below 53 bits: float64 is exact in any order.
        np.testing.assert_array_equal(graph.run(x), x @ fmt.quantize(weights).T)


def test_bad_data_is_refused() -> None:
    good = to_data(qfx.MXFP4())
    for change in (
        {"kind": "other"},
        {"element": 3},
        {"element": good},
        {"size": 0},
        {"size": 1.5},
        {"exponent_bits": None},
        {"extra": 1},
    ):
        with pytest.raises((QfxError, ValueError)):
            from_data({**good, **change})
    khot = to_data(KHot(8, 2, k=2))
    for change in (
        {"k": 0},
        {"k": "2"},
        {"digits": 1},
        {"frac": None},
        {"frac": "1"},
        {"signed": 1},
        {"width": True},
    ):
        with pytest.raises((QfxError, ValueError)):
            from_data({**khot, **change})
    with pytest.raises((QfxError, ValueError)):
        from_data({"kind": "binary", "frac": [0.5]})
