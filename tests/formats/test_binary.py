"""Binary numbers: signs, XNOR and popcount."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qfx
from qfx.errors import QfxError
from qfx.formats import Binary, FixedPoint
from qfx.graph import GraphBuilder, ops


def test_signs() -> None:
    x = np.array([3.0, 1e-320, 0.0, -0.0, -1e-320, -0.5, np.inf, -np.inf])
    signs = [1, 1, 1, 1, -1, -1, 1, -1]
    for frac in (0, 3, -2, 200, -200):
        fmt = Binary(frac)
        np.testing.assert_array_equal(fmt.quantize(x), np.array(signs) * 2.0**-frac)
        np.testing.assert_array_equal(fmt.encode(x), [1, 1, 1, 1, 0, 0, 1, 0])
        np.testing.assert_array_equal(fmt.decode(fmt.encode(torch.tensor(x))).numpy(), fmt.quantize(x))
    for dtype in (torch.float32, torch.float64):
        rounded = Binary(0).round_scaled(torch.tensor(x, dtype=dtype))
        assert rounded.dtype == dtype
        # 1e-320 is zero in float32.
        expected = [1, 1, 1, 1, 1 if dtype == torch.float32 else -1, -1, 1, -1]
        assert rounded.tolist() == expected
    assert torch.isnan(Binary(0).round_scaled(torch.tensor([float("nan")]))).all()


def test_facts() -> None:
    fmt = Binary(1)
    assert (fmt.width, fmt.signed, fmt.min, fmt.max, fmt.pass_range) == (1, True, -0.5, 0.5, (-1, 1))
    np.testing.assert_array_equal(fmt.values(), [-0.5, 0.5])
    assert qfx.Binary().learned and qfx.Binary().with_frac((1, 2)).per_channel
    assert fmt.members(np.array([-2, -1, 0, 1, 2])).tolist() == [False, True, False, True, False]
    assert (str(fmt), str(Binary()), str(Binary((1, 3)))) == (
        "Binary<frac 1>",
        "Binary<frac ?>",
        "Binary<frac 1..3>",
    )


def test_result_is_on_its_own_grid_whatever_the_operand() -> None:
    fmt = Binary((2, -3))
    for points in ((-20, -20), (2, -3), (30, 30)):
        cast = fmt.cast_integers(np.array([[5, 0], [-7, -1]]), points)
        assert fmt.result_points(points) == (2, -3) and cast.tolist() == [[1, 1], [-1, -1]]
    with pytest.raises(QfxError, match="2 binary points for 3 channels"):
        fmt.cast_integers(np.ones((1, 3), dtype=np.int64), (0, 0, 0))


def test_dot_product_by_xnor_and_popcount() -> None:
    """The layer of the integer graph against counted bits, with padding masked."""
    rng = np.random.default_rng(0)
    weights, fmt = rng.normal(size=(4, 3, 3, 3)), Binary(0)
    builder = GraphBuilder()
    name = builder.add(ops.Input((3, 5, 5), FixedPoint(6, 2)))
    name = builder.add(ops.Cast(fmt), (name,))
    tensor = builder.tensor(name)
    assert tensor.encoding == fmt and (tensor.format.width, tensor.format.signed) == (2, True)
    carrier = FixedPoint(2, 0)
    conv = ops.Conv(
        fmt.integers(weights), carrier, None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, weight_encoding=fmt
    )
    graph = builder.build(builder.add(conv, (name,)))
    x = FixedPoint(6, 2).quantize(rng.normal(size=(6, 3, 5, 5)))

    bits, weight_bits = fmt.encode(x), fmt.encode(weights)
    valid = np.pad(np.ones((5, 5), dtype=bool), 1)
    padded = np.pad(bits, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for sample, channel, i, j in np.ndindex(6, 4, 5, 5):
        inside = np.broadcast_to(valid[i : i + 3, j : j + 3], (3, 3, 3))
        same = ~(padded[sample, :, i : i + 3, j : j + 3] ^ weight_bits[channel]) & 1
        expected = 2 * int(same[inside].sum()) - int(inside.sum())
        assert graph.run(x[sample : sample + 1])[0, channel, i, j] == expected


def test_relu_and_pooling_keep_the_encoding_only_where_it_stays_true() -> None:
    builder = GraphBuilder()
    name = builder.add(ops.Input((2, 4), FixedPoint(6, 2)))
    name = builder.add(ops.Cast(Binary(0)), (name,))
    pooled = builder.add(ops.MaxPool((2,), (2,), ((0, 0),)), (name,))
    assert builder.tensor(pooled).encoding == Binary(0)
    # ReLU makes zeros, which are not binary.
    assert builder.tensor(builder.add(ops.Relu(), (name,))).encoding is None


@pytest.mark.parametrize(
    "codes", [np.array([2]), np.array([-1]), np.array([1.0]), torch.tensor([0.5]), torch.tensor([2])]
)
def test_bad_codes_are_refused(codes: object) -> None:
    with pytest.raises(QfxError, match="Binary<frac 0>: codes are"):
        Binary(0).decode(codes)


def test_nan_and_open_points_are_refused() -> None:
    with pytest.raises(QfxError, match=r"NaN at index \(1,\) has no code"):
        Binary(0).encode([0.0, float("nan")])
    with pytest.raises(QfxError, match="binary point is not set yet"):
        Binary().quantize([1.0])
    with pytest.raises(QfxError, match="Binary: frac 257 is outside"):
        Binary(257)
