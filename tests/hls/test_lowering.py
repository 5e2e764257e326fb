"""What the lowering decides, without a compiler: which layer, which types, what is fused, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from qfx.errors import UnsupportedError
from qfx.formats.fixed import FixedPoint
from qfx.graph import Graph, GraphBuilder, ops
from qfx.hls.kernels import headers, literal
from qfx.hls.layers import LayerSpec
from qfx.hls.lowering import lower

WEIGHT, BIAS = FixedPoint(4, 2), FixedPoint(6, 4)


def chain(fmt: FixedPoint, shape: tuple[int, ...], *operators: ops.Op) -> Graph:
    builder = GraphBuilder()
    name = builder.add(ops.Input(shape, fmt))
    for op in operators:
        name = builder.add(op, [name], f"module.{op.kind}")
    return builder.build(name)


def linear(out: int, size: int, fmt: FixedPoint = WEIGHT, bias: FixedPoint | None = BIAS) -> ops.Linear:
    codes = np.arange(out * size).reshape(out, size) % 5
    return ops.Linear(codes, fmt, None if bias is None else np.arange(out), bias)


def conv(kernel: tuple[int, ...], stride: tuple[int, ...], groups: int = 1, dilation: int = 1) -> ops.Conv:
    weight = np.ones((2, 2 // groups, *kernel), dtype=np.int64)
    rank = len(kernel)
    return ops.Conv(weight, WEIGHT, None, None, stride, ((1, 0),) * rank, (dilation,) * rank, groups)


def kinds(layers: list[LayerSpec]) -> list[str]:
    return [layer.attributes.get("function", layer.class_name) for layer in layers]


def test_types_are_those_of_the_graph() -> None:
    """Weights and bias keep their formats; the accumulator follows from the actual weights."""
    graph = chain(FixedPoint(8, 5), (3,), linear(2, 3), ops.Cast(FixedPoint(6, 2, False, "RND", "SAT_ZERO")))
    _, dense = lower(graph, "parallel")
    assert dense.class_name == "Dense"
    assert [node.op.kind for node in dense.nodes] == ["linear", "cast"]
    assert {role: str(t) for role, t in dense.types.items()} == {
        "result": "ap_ufixed<6,4,AP_RND,AP_SAT_ZERO>",
        "weight": "ap_fixed<4,2>",
        "bias": "ap_fixed<6,2>",
        # |sum| <= (3 + 4) * 128 codes of frac 7, and the bias of 1 * 2**-4: 11 bits with sign
        "accum": "ap_fixed<11,4>",
    }
    exact = graph.nodes[1].tensor
    assert (exact.format.width, exact.format.max_frac) == (11, 7)


def test_weights_per_channel_keep_the_accumulator_narrow() -> None:
    """Binary points per channel travel as integers: the spread of the points costs no accumulator bits."""
    graph = chain(FixedPoint(8, 5), (3,), linear(2, 3, FixedPoint(4, (1, 9)), None))
    _, dense = lower(graph, "parallel")
    assert dense.types["accum"].frac == 0
    assert dense.types["accum"].width == graph.nodes[1].tensor.format.width
    assert dense.types["weight"].frac == -5  # times the input's 5 fraction bits: integers
    assert dense.types["weight"].width <= 4


@pytest.mark.parametrize(
    ("fmt", "fused"),
    [
        (FixedPoint(4, 2), True),
        (FixedPoint(4, -2, False, "TRN_ZERO", "SAT_SYM"), True),
        (FixedPoint(4, (1, 2)), False),
        (FixedPoint(4, 2, True, "RND", "WRAP_SM"), False),
        (FixedPoint(4, 60), False),
        (FixedPoint(4, -9), False),
    ],
)
def test_a_cast_is_fused_where_the_result_type_can_do_it(fmt: FixedPoint, fused: bool) -> None:
    graph = chain(FixedPoint(8, 5), (2,), linear(2, 2), ops.Cast(fmt))
    layers = lower(graph, "parallel")
    assert kinds(layers) == ["InputLayer", "Dense"] + ([] if fused else ["qfx::pointwise, qfx::op_cast"])


def test_a_tensor_with_two_readers_is_not_cast_in_place() -> None:
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(8, 5)))
    relu = builder.add(ops.Relu(), [x])
    cast = builder.add(ops.Cast(FixedPoint(4, 2)), [relu])
    layers = lower(builder.build(builder.add(ops.Add(), [relu, cast])), "parallel")
    assert kinds(layers) == ["InputLayer", "Activation", "qfx::pointwise, qfx::op_cast", "Merge"]
    assert [str(layer.types["result"]) for layer in layers] == [
        "ap_fixed<8,3>", "ap_ufixed<7,2>", "ap_fixed<4,2>", "ap_ufixed<8,3>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "io", "expected"),
    [
        (conv((3, 3), (1, 1)), "parallel", ["Conv2D"]),
        (conv((3, 3), (2, 1)), "stream", ["ZeroPadding2D", "Conv2D"]),
        (conv((1, 3), (2, 1)), "parallel", ["Conv2D"]),
        (conv((1, 3), (2, 1)), "stream", ["qfx::sliding, qfx::op_conv"]),
        (conv((3, 3), (1, 1), dilation=2), "parallel", ["qfx::sliding, qfx::op_conv"]),
        (conv((3, 3), (1, 1), groups=2), "stream", ["qfx::sliding, qfx::op_conv"]),
        (ops.MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), "stream", ["MaxPooling2D"]),
        (ops.MaxPool((2, 2), (1, 1), ((0, 0), (0, 0))), "stream", ["qfx::sliding, qfx::op_max"]),
        (ops.MaxPool((2, 2), (2, 2), ((1, 0), (0, 0))), "parallel", ["qfx::sliding, qfx::op_max"]),
        (
            ops.AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), 1, 2),
            "parallel",
            ["qfx::sliding, qfx::op_scaled_sum"],
        ),
        (ops.Relu(), "stream", ["Activation"]),
        (ops.LeakyRelu(1, 3), "stream", ["qfx::pointwise, qfx::op_leaky_relu"]),
        (ops.Clip(0, 6, 0), "stream", ["qfx::pointwise, qfx::op_clip"]),
    ],
)
def test_hls4mls_layer_where_it_is_exact(op: ops.Op, io: str, expected: list[str]) -> None:
    layers = lower(chain(FixedPoint(8, 5), (2, 6, 6), op), io)
    assert kinds(layers)[1:] == expected


def test_flattening_costs_nothing_before_a_dense_layer() -> None:
    """Memory is channels-last; the columns of the weights are permuted instead of the tensor."""
    op = linear(1, 12)
    graph = chain(FixedPoint(8, 5), (2, 3, 2), ops.Reshape((12,)), op)
    for io in ("parallel", "stream"):
        layers = lower(graph, io)
        assert kinds(layers) == ["InputLayer", "Reshape", "Dense"]
        columns = op.weight.reshape(2, 3, 2).transpose(1, 2, 0).reshape(-1) / 4.0
        assert np.array_equal(layers[-1].attributes["weight_data"][:, 0], columns)


def test_a_stream_has_one_reader_each() -> None:
    """Ten readers: seven from one copier, of which the last feeds the next."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(4, 1)))
    ends = [builder.add(ops.Cast(FixedPoint(4, f)), [x]) for f in range(10)]
    layers = lower(builder.build(builder.add(ops.Concat(), ends)), "stream")
    copiers = [layer for layer in layers if layer.class_name == "Clone"]
    assert [len(layer.outputs) for layer in copiers] == [7, 4]
    reads = [name for layer in layers for name in layer.inputs]
    made = [name for layer in layers for name in layer.outputs]
    assert len(reads) == len(set(reads))
    assert set(reads) < set(made) and set(made) - set(reads) == {layers[-1].name}


def test_all_problems_are_named_at_once() -> None:
    """What cannot be done: constants beyond 64 bits after alignment."""
    builder = GraphBuilder()
    x = builder.add(ops.Input((2,), FixedPoint(1, 0, False)))
    zero = builder.add(ops.Mul(), [x, builder.add(ops.Clip(0, 0, 0), [x], "a.clip")])
    far = FixedPoint(2, 200)
    first = builder.add(ops.Affine(np.array([1]), FixedPoint(2, 0), np.array([0]), far), [zero], "block.0.bn")
    second = builder.add(
        ops.Affine(np.array([1]), FixedPoint(2, 0), np.array([0]), far), [zero], "block.1.bn"
    )
    graph = builder.build(builder.add(ops.Add(), [first, second]))
    with pytest.raises(UnsupportedError, match="2 of 6 nodes") as caught:
        lower(graph, "parallel")
    assert "block.0.bn" in str(caught.value) and "block.1.bn" in str(caught.value)


def test_literals() -> None:
    assert literal(-(1 << 63)) == "(-9223372036854775807LL - 1)"
    assert literal((1 << 63) - 1) == "9223372036854775807LL"
    assert literal(-5) == "-5"
    with pytest.raises(ValueError):
        literal(1 << 63)


def test_headers_travel_with_the_package() -> None:
    names = {path.name for path in headers()}
    ours = "arrays blocks cast concat functions gaps pointwise reorder trace window"
    assert names == {f"qfx_{name}.h" for name in ours.split()}
