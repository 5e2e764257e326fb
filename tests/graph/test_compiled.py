"""Compiled programs against the plain integers and against the same plan called from Python."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from qfx.errors import QfxError
from qfx.formats import OVERFLOW, ROUNDING, FixedPoint, Minifloat
from qfx.graph import Graph, GraphBuilder, ops
from qfx.graph.compiled import EXTENSION, Kind, Pointwise
from qfx.graph.interpreter import Interpreter
from qfx.graph.reference import trace_reference

ROOT = Path(__file__).resolve().parents[2]
needs_library = pytest.mark.skipif(not EXTENSION.status()[0], reason=f"not compiled: {EXTENSION.status()[1]}")

SHAPES = [(3, 9, 7), (20, 6, 6), (4, 11)]


def point(rng: np.random.Generator, channels: int) -> int | tuple[int, ...]:
    frac = int(rng.integers(-1, 4))
    return tuple(int(f) for f in frac + rng.integers(0, 3, channels)) if rng.integers(2) else frac


def cast(rng: np.random.Generator, channels: int, width: int, signed: bool = True) -> ops.Cast:
    overflow = str(rng.choice(["SAT", "SAT_SYM"]))
    return ops.Cast(FixedPoint(width, point(rng, channels), signed, str(rng.choice(ROUNDING)), overflow))


def convolution(
    rng: np.random.Generator, shape: tuple[int, ...], out: int, width: int, groups: int
) -> ops.Conv:
    """A kernel of size 3 that keeps the spatial size."""
    rank = len(shape) - 1
    fmt = FixedPoint(width, point(rng, out))
    codes = rng.integers(fmt.code_min, fmt.code_max + 1, (out, shape[0] // groups, *(3,) * rank))
    bias = FixedPoint(width + 4, point(rng, out))
    bias_codes = rng.integers(bias.code_min, bias.code_max + 1, out)
    same = ((1, 1),) * rank
    return ops.Conv(codes, fmt, bias_codes, bias, (1,) * rank, same, (1,) * rank, groups)


def residual_network(seed: int, shape: tuple[int, ...], width: int) -> Graph:
    """What networks consist of: conv, clip or relu, cast, pool; casts in front of a sum; a sum, relu, cast;
    the mean; a linear layer. Tensors that are used twice are some that a careless program would overwrite."""
    rng = np.random.default_rng(seed)
    channels, rank = shape[0], len(shape) - 1
    overflow = str(rng.choice(OVERFLOW)) if seed % 3 == 0 else "SAT"
    build = GraphBuilder()
    fmt = FixedPoint(width, point(rng, channels), True, str(rng.choice(ROUNDING)), overflow)
    x = build.add(ops.Input(shape, fmt))
    y = build.add(convolution(rng, shape, channels, width, 1), [x])
    y = build.add(ops.Clip(-3, 6, 0) if rng.integers(2) else ops.Relu(), [y])
    y = build.add(cast(rng, channels, width), [y])
    groups = channels if rng.integers(2) else 1
    a = build.add(
        cast(rng, channels, width), [build.add(convolution(rng, shape, channels, width, groups), [y])]
    )
    b = build.add(cast(rng, channels, width), [build.add(convolution(rng, shape, channels, width, 1), [y])])
    pairs = [(a, y), (y, a), (a, b), (b, b)]
    left, right = pairs[seed % len(pairs)]
    total = build.add(ops.Sub() if rng.integers(3) == 0 else ops.Add(), [left, right])
    total = build.add(cast(rng, channels, width), [build.add(ops.Relu(), [total])])
    joined = build.add(ops.Concat(), [total, y, x])
    joined = build.add(cast(rng, 3 * channels, width), [joined])
    wide = (3 * channels, *shape[1:])
    y = build.add(convolution(rng, wide, channels, width, 1), [joined])
    y = build.add(cast(rng, channels, width, signed=False), [y])
    pad = tuple((int(rng.integers(2)), int(rng.integers(2))) for _ in range(rank))
    y = build.add(ops.MaxPool((3,) * rank, (2,) * rank, pad), [y])
    scale = FixedPoint(4, 1)
    slope, move = rng.integers(-8, 8, channels), rng.integers(-8, 8, 1)
    y = build.add(cast(rng, channels, width), [build.add(ops.Affine(slope, scale, move, scale), [y])])
    y = build.add(cast(rng, channels, width), [build.add(ops.LeakyRelu(-3, 3), [y])])
    y = build.add(cast(rng, channels, width), [build.add(ops.Mul(), [y, y])])
    kernel = build.tensor(y).shape[1:]
    y = build.add(ops.AvgPool(kernel, kernel, ((0, 0),) * rank, 3, 4), [y])
    y = build.add(ops.Cast(FixedPoint(width, 1)), [y])
    y = build.add(ops.Reshape((channels,)), [y])
    codes = rng.integers(-4, 4, (5, channels))
    y = build.add(ops.Linear(codes, FixedPoint(3, 2), None, None), [y])
    return build.build(build.add(cast(rng, 5, width), [y]))


def inputs(graph: Graph, seed: int, samples: int = 4) -> np.ndarray:
    """Ties, places between codes, values beyond the range, infinities."""
    rng = np.random.default_rng(seed)
    tensor = graph.input_node.tensor
    lsb = np.ldexp(1.0, -np.asarray(tensor.fracs)).reshape(-1, *(1,) * (len(tensor.shape) - 1))
    spread = 1 << (tensor.format.width + 1)
    x = rng.integers(-2 * spread, 2 * spread, (samples, *tensor.shape)) / 4 * lsb
    x.reshape(-1)[:2] = [np.inf, -np.inf]
    return x


@needs_library
@pytest.mark.parametrize("width, arithmetic", [(4, "float32"), (15, "float64")])
@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_plain_integers(shape, width, arithmetic):
    whole = 0
    for seed in range(12):
        graph = residual_network(seed, shape, width)
        assert arithmetic in graph.interpreter.arithmetic.values()
        x = inputs(graph, seed)
        expected = trace_reference(graph, x)[graph.output].astype(np.int64)
        found = graph.run_codes(x)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(graph.run_codes(x.astype(np.float32)), expected)
        np.testing.assert_array_equal(graph.run_codes(torch.from_numpy(x)[:, :, ..., :]), expected)
        np.testing.assert_array_equal(graph.run(x), graph.output_node.tensor.format.decode(expected, 1))
        assert not np.signbit(graph.run(x)[expected == 0]).any()
        plain = Interpreter(graph, compiled=False)
        assert plain.programs == 0 and graph.interpreter.programs == 1
        np.testing.assert_array_equal(plain.run_codes(x), expected)
        np.testing.assert_array_equal(plain.run(x), graph.run(x))
        whole += graph.interpreter._whole is not None
    # The others have an input whose cast is done in Python.
    assert 4 <= whole < 12


def chain(*operators: ops.Op, shape: tuple[int, ...] = (3, 8, 8)) -> Graph:
    build = GraphBuilder()
    last = build.add(ops.Input(shape, FixedPoint(6, 2)))
    for op in operators:
        last = build.add(op, [last])
    return build.build(last)


def small_convolution(shape: tuple[int, ...] = (3, 8, 8)) -> ops.Conv:
    return convolution(np.random.default_rng(1), shape, shape[0], 4, 1)


@needs_library
@pytest.mark.parametrize("width", [5, 16])
@pytest.mark.parametrize("out", [1, 7, 16, 17, 33, 48, 70])
def test_convolutions_of_every_size(out, width):
    """Full and partial tiles and groups of channels, strides, paddings that differ on every side."""
    rng = np.random.default_rng(out)
    for kernel, stride, padding in [
        ((3, 3), (1, 1), ((1, 1), (1, 1))),
        ((1, 1), (1, 2), ((0, 0), (0, 0))),
        ((2, 5), (2, 1), ((0, 2), (3, 1))),
        ((7, 9), (1, 1), ((0, 0), (0, 0))),
    ]:
        fmt = FixedPoint(width, tuple(int(f) for f in rng.integers(0, 3, out)))
        codes = rng.integers(fmt.code_min, fmt.code_max + 1, (out, 3, *kernel))
        conv = ops.Conv(codes, fmt, codes[:, 0, 0, 0], fmt, stride, padding, (1, 1), 1)
        graph = chain(conv, cast(rng, out, 6), shape=(3, 7, 9))
        x = inputs(graph, out, 2)
        expected = trace_reference(graph, x)[graph.output].astype(np.int64)
        np.testing.assert_array_equal(graph.run_codes(x), expected)
        assert graph.interpreter.programs == 1


@needs_library
def test_steps_that_are_not_compiled_divide_the_plan():
    gaps = ops.Cast(Minifloat(3, 2, bias=4))
    graph = chain(small_convolution(), gaps, small_convolution(), ops.Relu(), ops.Cast(FixedPoint(5, 1)))
    assert [type(s).__name__ for s in graph.interpreter._stages] == ["Program", "Step", "Program"]
    x = inputs(graph, 0)
    expected = trace_reference(graph, x)[graph.output].astype(np.int64)
    np.testing.assert_array_equal(graph.run_codes(x), expected)


@needs_library
@pytest.mark.parametrize("overflow", ["SAT_ZERO", "WRAP", "WRAP_SM"])
def test_casts_that_wrap_stay_integers(overflow):
    wrapping = ops.Cast(FixedPoint(4, 1, overflow=overflow))
    graph = chain(small_convolution(), wrapping, small_convolution(), ops.Cast(FixedPoint(5, 1)))
    assert "int64" in graph.interpreter.arithmetic.values() and graph.interpreter.programs == 2
    x = inputs(graph, 0)
    expected = trace_reference(graph, x)[graph.output].astype(np.int64)
    np.testing.assert_array_equal(graph.run_codes(x), expected)


@needs_library
@pytest.mark.parametrize("samples", [0, 1, 7, 50])
def test_batches_of_every_size(samples, monkeypatch):
    monkeypatch.setattr("qfx.graph.interpreter.CHUNK_ELEMENTS", 7 * 3 * 64)
    graph = chain(small_convolution(), ops.Relu(), ops.Cast(FixedPoint(4, 0)))
    x = inputs(graph, 0, 50)[:samples]
    expected = trace_reference(graph, x)[graph.output].astype(np.int64)
    np.testing.assert_array_equal(graph.run_codes(x), expected)
    assert graph.run(x).shape == (samples, 3, 8, 8) and graph.run(x).dtype == np.float64


@needs_library
def test_the_operand_is_not_written_to():
    graph = chain(ops.Relu(), ops.Cast(FixedPoint(3, 0)))
    minifloat = chain(ops.Cast(Minifloat(3, 2, bias=4)), ops.Relu(), ops.Cast(FixedPoint(3, 0)))
    for g in (graph, minifloat):
        x = torch.from_numpy(inputs(g, 0)).float()
        before = x.clone()
        first = g.run(x)
        assert torch.equal(x, before)
        np.testing.assert_array_equal(g.run(x), first)


@needs_library
def test_nan_is_found_in_any_chunk(monkeypatch):
    monkeypatch.setattr("qfx.graph.interpreter.CHUNK_ELEMENTS", 3 * 64)
    graph = chain(small_convolution(), ops.Cast(FixedPoint(4, 0)))
    for dtype in (np.float32, np.float64):
        x = np.zeros((5, 3, 8, 8), dtype=dtype)
        x[3, 1, 2, 4] = np.nan
        with pytest.raises(QfxError, match="sample 3 holds NaN"):
            graph.run(x)


@needs_library
def test_threads_share_a_program():
    graph = residual_network(1, SHAPES[1], 4)
    batches = [inputs(graph, seed, 8) for seed in range(6)]
    expected = [graph.run_codes(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, one in zip(pool.map(graph.run_codes, batches), expected, strict=True):
                np.testing.assert_array_equal(found, one)


@needs_library
def test_a_used_graph_can_be_copied():
    graph = chain(small_convolution(), ops.Cast(FixedPoint(4, 0)))
    x = inputs(graph, 0)
    expected = graph.run(x)
    np.testing.assert_array_equal(copy.deepcopy(graph).run(x), expected)


@pytest.mark.parametrize("rounding", ROUNDING)
def test_joined_operators_are_the_two_in_turn(rounding):
    """relu or clip, then a cast, over all codes: the claim of ``Pointwise.then``."""
    codes = np.arange(-300, 301).astype(np.float64)
    grid = np.arange(-3, 4)
    for low, high in [(-np.inf, np.inf), (0.0, np.inf), (-20.0, 37.0), (5.0, 5.0)]:
        for factor in 2.0**grid:
            one = Pointwise(Kind.SUM, low=np.array([low]), high=np.array([high]))
            two = Pointwise(
                Kind.SCALE, np.array([factor]), low=np.array([-8.0]), high=np.array([7.0]),
                rounding=ROUNDING.index(rounding),
            )  # fmt: skip
            both = one.then(two)
            assert both is not None and both.fa == factor
            in_turn = two.finish(one.finish(codes) * factor)
            np.testing.assert_array_equal(both.finish(codes * factor), in_turn)


def test_what_is_not_a_power_of_two_stays_apart():
    """Three times a number may need more bits than the number; only its sum was shown to fit."""
    one = Pointwise(Kind.SUM)
    assert one.then(Pointwise(Kind.SCALE, np.array([3.0]))) is None
    assert one.then(Pointwise(Kind.SCALE, np.array([2.0]), offset=np.array([1.0]))) is None


# -- without a compiler
# ------------------------------------------------------------------------------


RUN = """
import numpy as np, qfx
from qfx.graph import GraphBuilder, ops
build = GraphBuilder()
x = build.add(ops.Input((4,), qfx.FixedPoint(4, 0)))
y = build.add(ops.Linear(np.arange(-6, 6).reshape(3, 4), qfx.FixedPoint(4, 0), None, None), [x])
graph = build.build(build.add(ops.Cast(qfx.FixedPoint(6, -1)), [y]))
for _ in range(2):
    print(graph.run(np.arange(8.0).reshape(2, 4)).tolist(), graph.interpreter.programs)
"""


def run_python(**environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_without_a_compiler_results_are_the_same(tmp_path: Path) -> None:
    done = run_python(PATH=str(tmp_path), CXX="", QFX_CACHE=str(tmp_path / "cache"))
    assert done.stderr.count("graphs run step by step in Python") == 1 and "no C++ compiler" in done.stderr
    off = run_python(QFX_FUSED="0")
    assert off.stderr == "" and off.stdout == done.stdout and off.stdout.splitlines()[0].endswith(" 0")
    if EXTENSION.status()[0]:
        on = run_python()
        assert on.stdout == off.stdout.replace("]] 0", "]] 1")
