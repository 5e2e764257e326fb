"""Brevitas models as graphs: equal on every sample, or refused with everything that is in the way."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import brevitas.nn as qnn
import brevitas.quant as bq
import numpy as np
import pytest
import torch
from brevitas.core.function_wrapper import RoundSte
from torch import nn
from torch.nn.functional import cross_entropy

import qfx
from qfx.demo.data import load as load_data
from qfx.errors import QfxError, UnsupportedError
from tests.interop.brevitas_networks import (
    NETWORKS,
    Act,
    Cnn,
    Residual,
    UnsignedAct,
    Weight,
    fp8,
    mlp,
    settled,
    unquantized_bias,
)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(1)


def samples(shape: tuple[int, ...], count: int = 1000) -> torch.Tensor:
    """Numbers inside and outside of the ranges, and half of them on a coarse grid, where ties are."""
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(7)) * 3
    x[::2] = torch.round(x[::2] * 128) / 128
    return x


def outputs(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        result: Any = model(x)
    return np.asarray(getattr(result, "value", result).double())


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_on_every_sample(name: str) -> None:
    make, shape = NETWORKS[name]
    model = settled(make(), shape)
    x = samples(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # everything fits 24 bits
        graph = qfx.from_brevitas(model, x[:8])
    expected = outputs(model, x)
    assert len(np.unique(expected)) >= 8
    np.testing.assert_array_equal(graph.run(x), expected)


def test_what_a_cnn_becomes() -> None:
    model = settled(Cnn(), (1, 8, 8))
    graph = qfx.from_brevitas(model, torch.zeros(1, 1, 8, 8))
    kinds = [node.op.kind for node in graph.nodes]
    assert kinds == [
        "input", "conv", "relu", "cast", "max_pool", "conv", "relu", "cast", "reshape", "linear",
    ]  # fmt: skip
    assert [node.path for node in graph.nodes][:4] == ["input.act_quant", "conv1", "relu1", "relu1.act_quant"]
    cast = graph.nodes[3].op.format
    assert (cast.width, cast.signed, cast.rounding, cast.overflow) == (4, False, "RND_CONV", "SAT")
    assert 2.0**-cast.frac == float(model.relu1.act_quant.scale().detach())
    weight = graph.nodes[1].op
    assert weight.weight_format.overflow == "SAT_SYM" and weight.weight_format.per_channel
    with torch.no_grad():
        expected = model.conv1.quant_weight().value.double().numpy()
    np.testing.assert_array_equal(weight.weight_format.decode(weight.weight), expected)


def test_rounding_modes_and_ranges() -> None:
    graph = qfx.from_brevitas(settled(Residual(), (4, 8, 8)), samples((4, 8, 8), 4))
    by_path = {node.path: node for node in graph.nodes}
    assert by_path["relu1.act_quant"].op.format.rounding == "TRN"
    assert by_path["side.output_quant"].op.format.rounding == "TRN_ZERO"
    assert by_path["add.output_quant"].op.format.overflow == "SAT_SYM"
    assert len(set(by_path["input.act_quant"].tensor.fracs)) > 1  # one scale per channel


def test_the_model_is_not_changed() -> None:
    model = settled(mlp(), (1, 8, 8)).train()
    before = copy.deepcopy(model.state_dict())
    qfx.from_brevitas(model, samples((1, 8, 8), 4))
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_verify_compares_with_the_model() -> None:
    model = settled(Cnn(), (1, 8, 8))
    graph = qfx.from_brevitas(model, samples((1, 8, 8), 4))
    report = qfx.verify(graph, samples((1, 8, 8), 100).numpy(), against=("torch",))
    assert report.ok and report["torch"].samples == 100


# -- beyond 24 bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape", "layer"),
    [(unquantized_bias, (6,), "1 ("), (lambda: Residual(20), (4, 8, 8), "fc ("), (fp8, (6,), "3 (")],
    ids=["unquantized_bias", "wide", "fp8"],
)
def test_where_float32_rounds_the_graph_equals_float64(make: Any, shape: tuple[int, ...], layer: str) -> None:
    model = settled(make(), shape)
    x = samples(shape)
    with pytest.warns(UserWarning, match="float32 may round in these layers") as caught:
        graph = qfx.from_brevitas(model, x[:8])
    assert layer in str(caught[0].message)
    double = copy.deepcopy(model).double()
    np.testing.assert_array_equal(graph.run(x), outputs(double, x.double()))


def test_float32_does_round_there() -> None:
    """The warning is about something real: the float32 model differs from the float64 one."""
    model = settled(Residual(20), (4, 8, 8))
    x = samples((4, 8, 8))
    assert (outputs(model, x) != outputs(copy.deepcopy(model).double(), x.double())).any()


# -- refusals ------------------------------------------------------------------------------------------------


class Ceil(Act):
    float_to_int_impl_type = "ceil"


class Shifted(bq.ShiftedUint8ActPerTensorFixedPoint):
    collect_stats_steps = 3


class Bad(nn.Module):
    """Six things that no graph has, and good layers in between."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(Ceil)
        self.conv = qnn.QuantConv2d(2, 4, 3, weight_quant=bq.Int8WeightPerTensorFloat, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.relu = qnn.QuantReLU(UnsignedAct)
        self.shifted = qnn.QuantIdentity(Shifted)
        self.pool = nn.AvgPool2d(3, 1)
        self.plain = nn.Linear(64, 8)
        self.good = qnn.QuantLinear(8, 8, False, weight_quant=Weight)
        self.sigmoid = qnn.QuantSigmoid(UnsignedAct)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.shifted(self.norm(self.conv(self.input(x)))))
        return self.sigmoid(self.good(self.plain(self.pool(x).flatten(1))))


def test_everything_that_cannot_be_represented_is_listed_at_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        qfx.from_brevitas(settled(Bad(), (2, 8, 8)), samples((2, 8, 8), 4))
    lines = str(caught.value).splitlines()[1:]
    found = {line.split(":")[0].strip(): line for line in lines}
    assert list(found) == [
        "input.act_quant", "conv.weight_quant", "norm", "shifted.act_quant", "pool", "plain", "sigmoid",
    ]  # fmt: skip
    assert len(lines) == 7
    assert "rounding CEIL; supported are ROUND, FLOOR, ROUND_TO_ZERO" in found["input.act_quant"]
    assert "is not a power of two; use one of brevitas.quant.fixed_point" in found["conv.weight_quant"]
    assert "fold it into the layer before" in found["norm"]
    assert "zero point" in found["shifted.act_quant"] and "symmetric" in found["shifted.act_quant"]
    assert "the mean of 9 places is not a binary fraction" in found["pool"]
    assert "use brevitas.nn.QuantConv1d" in found["plain"]
    assert "this layer is not supported" in found["sigmoid"]


class RoundsUp(RoundSte):
    """Says that it is RoundSte, and is not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.floor(x + 0.5)


class Lying(Act):
    float_to_int_impl = RoundsUp


def test_a_quantizer_that_does_something_else_is_found_out() -> None:
    model = settled(nn.Sequential(qnn.QuantIdentity(Lying)), (3,))
    assert model[0].act_quant.rounding_mode == "ROUND"
    with pytest.raises(
        UnsupportedError, match=r"0.act_quant: does not quantize as its attributes say .* becomes"
    ):
        qfx.from_brevitas(model, torch.zeros(2, 3))


def test_the_input_must_be_quantized() -> None:
    model = nn.Sequential(qnn.QuantLinear(3, 2, True, weight_quant=Weight))
    with pytest.raises(UnsupportedError, match="0: works on the model's input before it is quantized"):
        qfx.from_brevitas(model, torch.zeros(1, 3))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = qnn.QuantIdentity(Act, bit_width=8)
        self.two = qnn.QuantIdentity(Act, bit_width=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.two(x)


def test_the_input_has_one_format() -> None:
    with pytest.raises(UnsupportedError, match="two.act_quant quantizes|quantizes the model's input to"):
        qfx.from_brevitas(settled(TwoInputs(), (3,)), torch.zeros(1, 3))


class FromTheData(nn.Module):
    """A scale that is chosen anew in every forward pass: the power of two above the largest number."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, threshold: torch.Tensor | None = None) -> torch.Tensor:
        return torch.exp2(torch.ceil(torch.log2(x.abs().max()))) / 128


class Dynamic(Act):
    scaling_impl = FromTheData


def test_a_scale_that_follows_the_data() -> None:
    model = nn.Sequential(qnn.QuantIdentity(Dynamic)).eval()
    with pytest.raises(UnsupportedError, match="0.act_quant: its scale depends on the data"):
        qfx.from_brevitas(model, torch.rand(4, 3) + 0.5)


def test_bad_arguments() -> None:
    with pytest.raises(QfxError, match="model must be a torch.nn.Module, found str"):
        qfx.from_brevitas("model", torch.zeros(1, 3))  # type: ignore[arg-type]
    model = settled(nn.Sequential(qnn.QuantIdentity(Act)), (3,))
    with pytest.raises(QfxError, match="example_input must be a batch"):
        qfx.from_brevitas(model, torch.zeros(3))
    with pytest.raises(UnsupportedError, match="nothing in the model is quantized"):
        qfx.from_brevitas(nn.Sequential(nn.ReLU()), torch.zeros(1, 3))
    with pytest.raises(QfxError, match=r"fails on example_input of shape \(2, 5\) at 1"):
        qfx.from_brevitas(
            nn.Sequential(qnn.QuantIdentity(Act), qnn.QuantLinear(3, 2, True, weight_quant=Weight)),
            torch.zeros(2, 5),
        )


# -- trained -------------------------------------------------------------------------------------------------


def trained(model: nn.Module, epochs: int) -> nn.Module:
    """A few epochs on scikit-learn's digits."""
    data = load_data("digits")
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize(("make", "accuracy"), [(Cnn, 0.85), (mlp, 0.75)], ids=["cnn", "mlp"])
def test_trained_on_digits(make: Any, accuracy: float) -> None:
    model = trained(make(), 5)
    data = load_data("digits")
    x = torch.from_numpy(np.concatenate([data.test_images, data.train_images]))
    graph = qfx.from_brevitas(model, x[:16])
    result = graph.run(x)
    np.testing.assert_array_equal(result, outputs(model, x))
    assert (result[:360].argmax(1) == data.test_labels).mean() >= accuracy
