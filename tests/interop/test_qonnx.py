"""QONNX files: run by qonnx with the interpreter's results on every tensor, read back as the same graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import qfx
from qfx import FixedPoint, Minifloat
from qfx.errors import QfxError, UnsupportedError
from qfx.formats.binary import Binary
from qfx.graph import Graph, arrays, ops
from qfx.graph.graph import GraphBuilder
from qfx.sim.draw import draw_graph, draw_input
from tests.interop.brevitas_networks import NETWORKS, Act, Weight, fp8, settled
from tests.interop.compare import assert_qonnx_computes, assert_same_graph, execute

DOMAIN = "qonnx.custom_op.general"


def round_trip(graph: Graph, x: np.ndarray, path: Path) -> None:
    qfx.to_qonnx(graph, path, batch=len(x))
    onnx.checker.check_model(str(path), full_check=True)
    assert_same_graph(qfx.from_qonnx(path), graph)
    assert_qonnx_computes(path, graph, x)


# -- from brevitas -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_brevitas_to_graph_to_qonnx_and_back(name: str, tmp_path: Path) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = settled(make(), shape)
    x = torch.randn(64, *shape) * 2
    graph = qfx.from_brevitas(model, x[:4])
    round_trip(graph, x.numpy(), tmp_path / "net.onnx")


#: torch's exporter takes seconds; what differs between these networks is mostly in the first two. brevitas
#: itself cannot export the minifloats of the last one.
EXPORTED = [name for name in NETWORKS if name != "minifloats"]


@pytest.mark.parametrize("name", EXPORTED)
def test_files_that_brevitas_exports(name: str, tmp_path: Path) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = settled(make(), shape)
    x = torch.randn(32, *shape) * 2
    file = tmp_path / "brevitas.onnx"
    export_qonnx(model, args=x, export_path=str(file), verbose=False)
    graph = qfx.from_qonnx(file)
    with torch.no_grad():
        expected: Any = model(x)
    np.testing.assert_array_equal(graph.run(x), np.asarray(getattr(expected, "value", expected).double()))
    names = {node.name for node in onnx.load(str(file)).graph.node}
    assert {node.path for node in graph.nodes} <= names
    round_trip(graph, x.numpy(), tmp_path / "again.onnx")


def test_minifloats_that_brevitas_exports(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = settled(fp8(), (6,))
    x = torch.randn(200, 6) * 2
    file = tmp_path / "brevitas.onnx"
    export_qonnx(model, args=x, export_path=str(file), verbose=False)
    with pytest.warns(UserWarning, match="float32"):
        found, graph = qfx.from_qonnx(file), qfx.from_brevitas(model, x[:4])
    assert [n.op.kind for n in found.nodes] == [n.op.kind for n in graph.nodes]
    assert found.input_node.op.format == graph.input_node.op.format
    np.testing.assert_array_equal(found.run(x), graph.run(x))


# -- every operator ------------------------------------------------------------------------------------------


def build(shape: tuple[int, ...], fmt: Any, *steps: Any) -> Graph:
    """A chain of operators; a callable gets the builder and the last name and returns the next name."""
    builder = GraphBuilder()
    last = builder.add(ops.Input(shape, fmt), (), "x")
    for number, step in enumerate(steps):
        if isinstance(step, ops.Op):
            last = builder.add(step, (last,), f"layer {number}" if number % 2 else "")
        else:
            last = step(builder, last)
    return builder.build(last)


def codes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def fork(kind: Callable[[], ops.Op]) -> Callable[[GraphBuilder, str], str]:
    def step(builder: GraphBuilder, last: str) -> str:
        other = builder.add(ops.Cast(FixedPoint(4, 1, rounding="TRN")), (last,), "other")
        return builder.add(kind(), (last, other), "join")

    return step


I8 = FixedPoint(8, 4)
OPERATORS: dict[str, Graph] = {
    "leaky_relu": build((3,), I8, ops.LeakyRelu(2, 4)),
    "negative slope": build((3, 2, 2), I8, ops.LeakyRelu(-3, 0)),
    "clip": build((3, 2, 2), I8, ops.Clip(-40, 96, 5)),
    "clip below": build((3,), I8, ops.Clip(-1, None, 0)),
    "clip above": build((3,), I8, ops.Clip(None, 24, 2)),
    "affine one": build(
        (3, 4), I8, ops.Affine(codes(-5), FixedPoint(4, 2), codes(0), FixedPoint(1, 0, False))
    ),
    "affine channels": build(
        (2, 3, 2), I8,
        ops.Affine(codes(3, -1), FixedPoint(3, (1, 2)), codes(7, 0), FixedPoint(4, 6, False, "RND", "WRAP")),
    ),
    "add": build((2, 3), I8, fork(ops.Add)),
    "sub": build((2, 3), I8, fork(ops.Sub)),
    "mul": build((2, 3), I8, fork(ops.Mul)),
    "concat": build((2, 3), I8, fork(ops.Concat)),
    "square": build((2,), I8, lambda b, last: b.add(ops.Mul(), (last, last), "square")),
    "max_pool": build((2, 5, 6), I8, ops.MaxPool((3, 2), (2, 1), ((1, 0), (0, 1)))),
    "avg_pool of 4": build((2, 5, 6), I8, ops.AvgPool((2, 2), (1, 2), ((1, 0), (0, 1)), 1, 2)),
    "avg_pool of 9": build((2, 6, 6), I8, ops.AvgPool((3, 3), (3, 3), ((0, 0), (0, 0)), 57, 9)),
    "sum": build((2, 8), I8, ops.AvgPool((4,), (4,), ((0, 0),), 1, 0)),
    "reshape": build(
        (2, 3, 4), FixedPoint(5, (2, 3)), ops.Reshape((2, 12)), ops.Reshape((24,)), ops.Reshape((4, 6))
    ),
    "same shape": build((6,), I8, ops.Reshape((6,))),
    "transpose": build((2, 3, 4), I8, ops.Transpose((2, 0, 1)), ops.Transpose((1, 0, 2))),
    "one signed bit": build(
        (4,), FixedPoint(1, 0, True, "TRN"), ops.Cast(FixedPoint(1, 0, True, "RND_ZERO"))
    ),
    "one signed bit per channel": build((4,), I8, ops.Cast(FixedPoint(1, (1, 2, 1, 0), True, "RND_CONV"))),
    "one unsigned bit": build((4,), FixedPoint(1, 1, False)),
    "one channel with a binary point": build((1, 4), FixedPoint(6, (2,)), ops.Cast(FixedPoint(3, (0,)))),
    "equal binary points": build((2, 4), FixedPoint(6, (2, 2)), ops.Relu()),
    "far binary points": build(
        (2,), FixedPoint(8, 70), ops.Cast(FixedPoint(4, 73)), ops.Cast(FixedPoint(4, 60))
    ),
    "depthwise ones": build(
        (2, 4, 4), I8,
        ops.Conv(
            np.ones((2, 1, 2, 2), np.int64), FixedPoint(2, 0), None, None, (1, 1), ((0, 0),) * 2, (1, 1), 2
        ),
        ops.Affine(codes(3), FixedPoint(3, 1), codes(0), FixedPoint(1, 0)),
    ),
    "code that SAT_SYM never gives": build(
        (2,), I8, ops.Linear(codes(-4, 3).reshape(1, 2), FixedPoint(3, 1, overflow="SAT_SYM"), None, None)
    ),
    "minifloat": build((3, 2), Minifloat(3, 2), ops.Cast(Minifloat(2, 1, 3)), ops.Cast(FixedPoint(3, 0))),
    "minifloat per channel": build(
        (2, 2), Minifloat(2, 3, (1, -2)), ops.Cast(Minifloat(4, 3, 7, specials="fn"))
    ),
    "ieee": build((2,), Minifloat(4, 2, specials="ieee")),
    "reduce_sum": build((2, 3, 4), FixedPoint(6, (1, 3)), arrays.ReduceSum((2,)), arrays.ReduceSum((0, 1))),
    "reduce_max": build((2, 3, 4), FixedPoint(6, (1, 3)), arrays.ReduceMax((1,)), arrays.ReduceMax((0, 2))),
    "repeat": build((2, 3, 4), FixedPoint(6, (1, 3)), arrays.Repeat((1, 3, 2)), arrays.Repeat((3, 1, 1))),
    "slice": build((4, 9), I8, arrays.Slice((1, 2), (4, 9), (2, 3))),
    "matmul": build(
        (3, 4), I8,
        lambda b, last: b.add(
            arrays.MatMul(), (last, b.add(ops.Transpose((1, 0)), (last,), "transposed")), "product"
        ),
    ),
    "binary": build((2, 3), Binary(1), ops.Cast(Binary((0, 3)))),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str, tmp_path: Path) -> None:
    graph = OPERATORS[name]
    x = np.clip(draw_input(np.random.default_rng(0), graph, 64), -1e15, 1e15).astype(np.float32)
    round_trip(graph, x, tmp_path / "net.onnx")


@pytest.mark.parametrize("rounding", ["RND_CONV", "TRN", "TRN_ZERO", "RND_INF", "RND_ZERO"])
@pytest.mark.parametrize("overflow", ["SAT", "SAT_SYM"])
@pytest.mark.parametrize("signed", [True, False])
def test_every_mode_that_qonnx_has(rounding: str, overflow: str, signed: bool, tmp_path: Path) -> None:
    graph = build((1,), FixedPoint(12, 6), ops.Cast(FixedPoint(5, 2, signed, rounding, overflow)))
    x = np.arange(-2100, 2100)[:, None] / 64  # every code, and beyond both ends
    round_trip(graph, x.astype(np.float32), tmp_path / "net.onnx")
    if rounding != "RND_INF":
        graph = build((1,), FixedPoint(5, 2, signed, rounding, overflow))
        round_trip(graph, x.astype(np.float32), tmp_path / "net.onnx")


@pytest.mark.parametrize("rounding", ["RND_CONV", "TRN", "TRN_ZERO", "RND_ZERO"])
def test_real_numbers_next_to_ties(rounding: str, tmp_path: Path) -> None:
    ties = np.arange(-40, 40, dtype=np.float32) / 8
    x = np.concatenate([np.nextafter(ties, np.float32(d)) for d in (-9, 9)] + [ties])[:, None]
    x = np.where(np.abs(x) < 1e-30, 0, x)  # subnormal numbers are no part of it
    round_trip(build((1,), FixedPoint(5, 2, True, rounding)), x, tmp_path / "net.onnx")


def test_qonnx_rounds_half_up_in_float32(tmp_path: Path) -> None:
    """Why RND_INF of real numbers is refused: one half is added in float32."""
    below = np.nextafter(np.float32(0.5), np.float32(0)).reshape(1, 1)
    file = tmp_path / "net.onnx"
    nodes = [quant("x", "y", rounding_mode="HALF_UP", scale="one")]
    onnx.save(model(nodes, {**BASE, "one": 1.0}, (1, 1)), str(file))
    graph = qfx.from_qonnx(file)
    assert graph.run(below) == 0.0
    with pytest.raises(UnsupportedError, match="RND_INF of real numbers is not exact"):
        qfx.to_qonnx(graph, file)
    wide = build((1,), FixedPoint(25, 0), ops.Cast(FixedPoint(4, -25, rounding="RND_INF")))
    with pytest.raises(UnsupportedError, match="RND_INF of more than 23 bits"):
        qfx.to_qonnx(wide, file, allow_inexact=True)


def test_modes_that_make_no_difference_travel_along(tmp_path: Path) -> None:
    """Modes that qonnx does not have are kept where nothing is rounded and nothing overflows."""
    fmt = FixedPoint(8, 5, True, "RND_MIN_INF", "WRAP_SM")
    graph = build((2,), FixedPoint(6, 4), ops.Cast(fmt))
    x = np.arange(-40, 40, dtype=np.float32).reshape(40, 2) / 8
    round_trip(graph, x, tmp_path / "net.onnx")
    assert qfx.from_qonnx(tmp_path / "net.onnx").nodes[1].op.format == fmt


def sayable(graph: Graph) -> Graph:
    """The graph with modes that QONNX has in place of others."""
    builder = GraphBuilder()
    for node in graph.nodes:
        op: Any = node.op
        if isinstance(op, ops.Cast | ops.Input) and isinstance(op.format, FixedPoint):
            known = {"RND": "RND_INF", "RND_MIN_INF": "RND_ZERO"}
            rounding = known.get(op.format.rounding, op.format.rounding)
            if isinstance(op, ops.Input) and rounding == "RND_INF":
                rounding = "RND_ZERO"
            overflow = op.format.overflow if op.format.overflow == "SAT_SYM" else "SAT"
            op = dataclasses.replace(
                op, format=dataclasses.replace(op.format, rounding=rounding, overflow=overflow)
            )
        builder.add(op, node.inputs, node.path, node.name)
    return builder.build(graph.output)


def drawn(seeds: range, every_format: bool, path: Path) -> tuple[int, int]:
    """Round trips of random graphs: how many were exact in float32, and how many took more bits."""
    exact = wide = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        try:
            graph = sayable(draw_graph(rng, every_format=every_format))
        except QfxError:
            continue  # with saturation in place of wrapping a later tensor became too wide
        x = np.clip(draw_input(rng, graph, 8), -1e30, 1e30).astype(np.float32)
        try:
            round_trip(graph, x, path)
            exact += 1
        except UnsupportedError as error:
            lines = str(error).splitlines()[1:]
            if all("qonnx computes in float32" in line for line in lines):
                with pytest.warns(UserWarning, match="float32, in which qonnx computes, may round"):
                    qfx.to_qonnx(graph, path, allow_inexact=True)
                with pytest.warns(UserWarning, match="may round"):
                    assert_same_graph(qfx.from_qonnx(path), graph)
                wide += 1
    return exact, wide


@pytest.mark.parametrize("every_format", [False, True], ids=["fixed", "every_format"])
def test_drawn_graphs(every_format: bool, tmp_path: Path) -> None:
    exact, wide = drawn(range(40), every_format, tmp_path / "net.onnx")
    assert exact >= 10 and wide >= 1


@pytest.mark.slow
def test_many_drawn_graphs(tmp_path: Path) -> None:
    exact, wide = drawn(range(1000, 1600), True, tmp_path / "net.onnx")
    assert exact >= 200 and wide >= 30


# -- refusals of the export ----------------------------------------------------------------------------------


def test_what_qonnx_cannot_say_is_listed_at_once(tmp_path: Path) -> None:
    graph = build(
        (2,),
        FixedPoint(8, 4, True, "RND"),
        ops.Cast(FixedPoint(4, 2, True, "TRN", "WRAP")),
        ops.Cast(FixedPoint(8, 2)),
        ops.Cast(FixedPoint(3, 1, True, "RND_MIN_INF", "SAT_ZERO")),
        ops.Cast(qfx.KHot(3, 1, 1)),
    )
    file = tmp_path / "net.onnx"
    with pytest.raises(UnsupportedError) as caught:
        qfx.to_qonnx(graph, file)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 4
    assert "x (n0_x, input): rounding RND has no name in QONNX" in lines[0]
    assert "n1_cast, cast" in lines[1].replace("(", "") or "n1" in lines[1]
    assert "overflow WRAP cannot be said in QONNX" in lines[1]
    assert "rounding RND_MIN_INF" in lines[2]
    assert "cannot be said in QONNX, which has fixed point, minifloats and signs" in lines[3]
    assert not file.exists()


def test_more_than_24_bits(tmp_path: Path) -> None:
    weight = np.full((1, 64), 2**14 - 1, dtype=np.int64)
    graph = build((64,), FixedPoint(12, 0), ops.Linear(weight, FixedPoint(15, 0), None, None))
    file = tmp_path / "net.onnx"
    with pytest.raises(
        UnsupportedError, match="its partial sums take 31 bits, and qonnx computes in float32"
    ):
        qfx.to_qonnx(graph, file)
    with pytest.warns(UserWarning, match="31 bits"):
        qfx.to_qonnx(graph, file, batch=200, allow_inexact=True)
    with pytest.warns(UserWarning, match="where the graph is exact"):
        assert_same_graph(qfx.from_qonnx(file), graph)
    x = np.random.default_rng(0).integers(-2048, 2048, (200, 64)).astype(np.float32)
    found = execute(file, x)[graph.output].astype(np.float64)
    assert (found != graph.run(x)).any()  # float32 does round here


def test_bad_arguments(tmp_path: Path) -> None:
    graph = OPERATORS["clip"]
    with pytest.raises(QfxError, match="batch must be a positive integer, found 0"):
        qfx.to_qonnx(graph, tmp_path / "net.onnx", batch=0)
    with pytest.raises(QfxError, match="create the folder first"):
        qfx.to_qonnx(graph, tmp_path / "missing" / "net.onnx")


# -- files from elsewhere ------------------------------------------------------------------------------------


def model(
    nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...] = (4, 6), output: str = "y"
) -> onnx.ModelProto:
    """An ONNX model with input ``x``."""
    initializers = [
        numpy_helper.from_array(
            np.asarray(v, dtype=np.float32 if np.asarray(v).dtype.kind == "f" else np.int64), k
        )
        for k, v in constants.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 16), helper.make_opsetid(DOMAIN, 2)]
    )


def quant(x: str, y: str, scale: str = "s", bits: str = "b", kind: str = "Quant", **attributes: Any) -> Any:
    settings = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    return helper.make_node(kind, [x, scale, "z", bits], [y], name=f"q_{y}", domain=DOMAIN, **settings)


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [output], name=f"the {kind}", **attributes)


BASE: dict[str, Any] = {"s": 0.25, "z": 0.0, "b": 6.0}
WEIGHT = np.array([[0.5, -0.25, 1.0], [0.25, 0.75, -1.0]] * 3)
EIGHT = np.float32(8.0)

#: Spellings that to_qonnx does not use, each with the operators that it becomes.
FOREIGN: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "matmul and add": (
        model(
            [quant("x", "a"), quant("w", "v"), node("MatMul", ["a", "v"], "m"), node("Add", ["m", "c"], "y")],
            {**BASE, "w": WEIGHT, "c": np.array([0.125, -0.5, 0.0625])},
        ),
        ["input", "linear"],
    ),
    "transposed weights": (
        model(
            [
                quant("x", "a"), quant("w", "v", scale="sw"), node("Transpose", ["v"], "t", perm=[1, 0]),
                node("Gemm", ["a", "t"], "y", transB=0),
            ],
            {**BASE, "w": WEIGHT.T, "sw": np.array([[0.25], [0.5], [0.25]])},
        ),
        ["input", "linear"],
    ),
    "plain integer weights": (
        model([quant("x", "a"), node("Gemm", ["a", "w"], "y")], {**BASE, "w": WEIGHT * 4}),
        ["input", "linear"],
    ),
    "constants and arithmetic": (
        model(
            [
                quant("x", "a", kind="IntQuant"), node("Mul", ["h", "a"], "c"), node("Sub", ["c", "h"], "d"),
                node("Div", ["d", "two"], "e"), node("Add", ["e", "a"], "y"),
            ],
            {**BASE, "h": np.array([0.5] * 5 + [-1.5]), "two": 2.0},
        ),
        ["input", "affine", "affine", "affine", "add"],
    ),
    "activations": (
        model(
            [
                quant("x", "a"), node("LeakyRelu", ["a"], "c", alpha=0.125), node("Clip", ["c", "h"], "d"),
                node("Max", ["d", "zero"], "e"), node("Min", ["e", "two"], "f"), node("Identity", ["f"], "g"),
                node("Dropout", ["g"], "y"),
            ],
            {**BASE, "h": -0.5, "two": 2.0, "zero": 0.0},
        ),
        ["input", "leaky_relu", "clip", "relu", "clip"],
    ),
    "shapes computed": (
        model(
            [
                node("Reshape", ["x", "target"], "r"), quant("r", "a"), node("Shape", ["a"], "sh"),
                node("Gather", ["sh", "first"], "n"), node("Unsqueeze", ["n", "ax"], "u"),
                node("Concat", ["u", "rest"], "t", axis=0), node("Reshape", ["a", "t"], "g"),
                node("Unsqueeze", ["g", "behind"], "k"), node("Squeeze", ["k", "behind"], "y"),
            ],
            {
                **BASE, "target": np.array([0, 3, 2]), "first": np.array(0), "ax": np.array([0]),
                "rest": np.array([-1]), "behind": np.array([2]),
            },
        ),
        ["input", "reshape", "reshape", "reshape", "reshape"],
    ),
    "means": (
        model(
            [
                quant("x", "a"), node("ReduceMean", ["a"], "m", axes=[2, 3], keepdims=0),
                node("GlobalAveragePool", ["a"], "p"), node("Flatten", ["p"], "f"),
                node("Add", ["m", "f"], "y"),
            ],
            BASE,
            (4, 2, 4, 8),
        ),
        ["input", "avg_pool", "reshape", "avg_pool", "reshape", "add"],
    ),
    "parts and sizes": (
        model(
            [
                quant("x", "a"), node("Slice", ["a", "from", "to", "ax"], "c"),
                node("Resize", ["c", "", "", "sizes"], "d", mode="nearest", nearest_mode="floor",
                     coordinate_transformation_mode="asymmetric"),
                node("ReduceSum", ["d", "last"], "e"), node("ReduceMax", ["e"], "y", axes=[1]),
            ],
            {
                **BASE, "from": np.array([-3, 0]), "to": np.array([1000, -1]), "ax": np.array([2, -1]),
                "sizes": np.array([4, 2, 6, 7]), "last": np.array([-1]),
            },
            (4, 2, 4, 8),
        ),
        ["input", "slice", "repeat", "reduce_sum", "reduce_max"],
    ),
    "batch norm of binary fractions": (
        model(
            [quant("x", "a"), node("BatchNormalization", ["a", "g", "h", "m", "v"], "y", epsilon=0.25)],
            {**BASE, "g": np.array([1.5, 2.0]), "h": np.array([0.5, 0.0]), "m": np.array([1.0, -2.0]),
             "v": np.array([3.75, 15.75])},
            (4, 2, 3),
        ),
        ["input", "affine"],
    ),
    "trunc": (
        model(
            [
                quant("x", "a"),
                helper.make_node(
                    "Trunc", ["a", "s", "z", "b", "so", "bo"], ["y"], name="t", domain=DOMAIN,
                    rounding_mode="FLOOR", signed=1, narrow=1,
                ),
            ],
            {**BASE, "so": 1.0, "bo": 3.0},
        ),
        ["input", "cast"],
    ),
    "signs": (
        model(
            [
                quant("x", "a"), helper.make_node("BipolarQuant", ["a", "s"], ["p"], name="p", domain=DOMAIN),
                quant("w", "v", bits="one"), node("MatMul", ["p", "v"], "m"), quant("m", "y", bits="one"),
            ],
            {**BASE, "w": WEIGHT, "one": 1.0},
        ),
        ["input", "cast", "linear", "cast"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_files_from_elsewhere(name: str, tmp_path: Path) -> None:
    """Equal to what qonnx computes."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    proto, kinds = FOREIGN[name]
    file = tmp_path / "net.onnx"
    onnx.save(proto, str(file))
    graph = qfx.from_qonnx(file)
    assert [n.op.kind for n in graph.nodes] == kinds
    ModelWrapper(str(file)).transform(InferShapes()).save(str(tmp_path / "shapes.onnx"))
    shape = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim)
    for seed in range(8):
        x = np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)
        # qonnx does not follow sums about shapes when it infers shapes, and says so when it runs.
        found = execute(tmp_path / "shapes.onnx", x, "ignore" if name == "shapes computed" else "error")
        np.testing.assert_array_equal(found["y"], graph.run(x))


def test_an_open_batch_axis(tmp_path: Path) -> None:
    proto = model(
        [quant("x", "a"), node("Reshape", ["a", "t"], "y")], {**BASE, "t": np.array([-1, 3, 2])}, ("batch", 6)
    )
    onnx.save(proto, str(tmp_path / "net.onnx"))
    assert qfx.from_qonnx(tmp_path / "net.onnx").run(np.ones((5, 6))).shape == (5, 3, 2)


#: What is refused: nodes, constants, and what the message says.
REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "scale": ([quant("x", "y")], {"s": 0.3}, r"scale 0\.3\d* is not a power of two"),
    "negative scale": ([quant("x", "y")], {"s": -0.5}, "scale -0.5 is not a power of two"),
    "zero point": ([quant("x", "y")], {"z": 3.0}, "zero point 3"),
    "width": ([quant("x", "y")], {"b": 2.5}, "bit width 2.5"),
    "wide": ([quant("x", "y")], {"b": 1e9}, "bit width 1e"),
    "rounding": ([quant("x", "y", rounding_mode="CEIL")], {}, "rounding mode 'CEIL'"),
    "narrow": ([quant("x", "y", signed=0, narrow=1)], {}, "unsigned narrow range, 0 to 62"),
    "flag": ([quant("x", "y", signed=2)], {}, "attribute signed must be 0 or 1"),
    "attribute type": ([quant("x", "y", signed=1.5)], {}, "attribute signed must be an integer"),
    "attribute": ([quant("x", "y", alpha=1.5)], {}, "attribute alpha is not supported"),
    "scale axis": ([quant("x", "y")], {"s": np.array([[0.5], [0.25], [1], [2]])}, "runs along axis 0"),
    "scale shape": ([quant("x", "y")], {"s": np.array([0.5, 0.25])}, r"scales of shape \(2,\)"),
    "no quantizer": ([node("Relu", ["x"], "r"), node("Add", ["r", "x"], "y")], {}, "before it is quantized"),
    "operator": ([quant("x", "a"), node("Sigmoid", ["a"], "y")], {}, "Sigmoid: this operator is not"),
    "domain": (
        [quant("x", "a"), helper.make_node("Quant", ["a"], ["y"], domain="evil")], {}, "of 'evil' is not"
    ),
    "weights": (
        [quant("x", "a"), node("Gemm", ["a", "w"], "y")], {"w": WEIGHT / 3}, "is not quantized: constant"
    ),
    "weight shape": ([quant("x", "a"), node("Gemm", ["a", "w"], "y")], {"w": WEIGHT.T}, "do not match"),
    "bias shape": (
        [quant("x", "a"), node("Gemm", ["a", "w", "c"], "y")], {"w": WEIGHT, "c": np.ones(5)}, "bias of"
    ),
    "batch": ([quant("x", "a"), node("Reshape", ["a", "t"], "y")], {"t": np.array([6, 4])}, "must stay"),
    "huge shape": (
        [quant("x", "a"), node("Reshape", ["a", "t"], "y")], {"t": np.array([4, 1 << 40])}, "must stay"
    ),
    "hint": (
        [quant("x", "y")], {"hint": 1}, "metadata qfx.format",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    nodes, constants, message = REFUSED[name]
    constants = dict(constants)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    if constants.pop("hint", None):
        fmt = (
            '{"kind": "fixed", "width": 6, "frac": 2, "signed": true, "rounding": "RND", "overflow": "WRAP"}'
        )
        nodes[0].metadata_props.add(key="qfx.format", value=fmt)
    onnx.save(model(nodes, {**BASE, **constants}), str(tmp_path / "net.onnx"))
    with pytest.raises(UnsupportedError, match=message):
        qfx.from_qonnx(tmp_path / "net.onnx")


def test_everything_is_listed_at_once(tmp_path: Path) -> None:
    proto = model(
        [
            quant("x", "a", rounding_mode="UP"), quant("w", "v"), node("MatMul", ["a", "v"], "m"),
            quant("m", "k", scale="odd"), node("Softmax", ["k"], "y"),
        ],
        {**BASE, "w": WEIGHT, "odd": 0.1},
    )  # fmt: skip
    onnx.save(proto, str(tmp_path / "net.onnx"))
    with pytest.raises(UnsupportedError) as caught:
        qfx.from_qonnx(tmp_path / "net.onnx")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["q_a", "the Softmax"]
    assert "'UP'" in lines[0]


class Small(nn.Module):
    """Layers whose export is small and has a bit of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(Act)
        self.conv = qnn.QuantConv2d(1, 2, 3, weight_quant=Weight, bias=False)
        self.fc = qnn.QuantLinear(2, 2, False, weight_quant=Weight, output_quant=Act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(self.input(x))).flatten(1))


def test_damaged_files(tmp_path: Path) -> None:
    """Whatever is done to a file: it is read as some graph or refused, with an error of ours."""
    torch.manual_seed(0)
    graph = qfx.from_brevitas(settled(Small(), (1, 3, 3)), torch.zeros(1, 1, 3, 3))
    file = tmp_path / "net.onnx"
    qfx.to_qonnx(graph, file)
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for trial in range(400):
        damaged = bytearray(data)
        if trial % 4 == 0:
            damaged = damaged[: int(rng.integers(len(data)))]
        for place in rng.integers(0, max(len(damaged), 1), int(rng.integers(1, 6))):
            if damaged:
                damaged[place] = int(rng.integers(256))
        file.write_bytes(bytes(damaged))
        try:
            qfx.from_qonnx(file)
            outcomes["read"] += 1
        except QfxError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100


def broken(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    proto = onnx.ModelProto.FromString(FOREIGN["plain integer weights"][0].SerializeToString())
    change(proto)
    return proto


def external(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[-1]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


STRUCTURE: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "external data": (external, "lies in another file"),
    "short data": (lambda p: p.graph.initializer[-1].dims.__setitem__(0, 5), "bytes for shape|fit"),
    "huge dims": (lambda p: p.graph.initializer[-1].dims.__setitem__(0, 1 << 50), "has shape"),
    "string data": (lambda p: setattr(p.graph.initializer[-1], "data_type", 8), "has element type 8"),
    "nan": (
        lambda p: p.graph.initializer[-1].CopyFrom(
            numpy_helper.from_array(np.full((6, 3), np.nan, np.float32), "w")
        ),
        "not numbers",
    ),
    "two inputs": (lambda p: p.graph.input.append(helper.make_tensor_value_info("q", 1, (1,))), "2 inputs"),
    "no shape": (
        lambda p: p.graph.input[0].type.tensor_type.ClearField("shape"),
        "supported are float32 tensors",
    ),
    "integer input": (lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 7), "element type 7"),
    "order": (lambda p: p.graph.node.reverse(), "which nothing before it makes"),
    "twice": (lambda p: p.graph.node.append(p.graph.node[-1]), "no result of its own"),
    "no output": (lambda p: setattr(p.graph.output[0], "name", "q"), "no node makes the output 'q'"),
    "functions": (lambda p: p.functions.add(name="f", domain="d"), "functions"),
    "no nodes": (lambda p: p.graph.ClearField("node"), "0 nodes"),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name: str, tmp_path: Path) -> None:
    change, message = STRUCTURE[name]
    (tmp_path / "net.onnx").write_bytes(broken(change).SerializeToString())
    with pytest.raises(QfxError, match=message):
        qfx.from_qonnx(tmp_path / "net.onnx")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(QfxError, match="no such file"):
        qfx.from_qonnx(tmp_path / "net.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(QfxError, match=r"text\.onnx"):
        qfx.from_qonnx(tmp_path / "text.onnx")
