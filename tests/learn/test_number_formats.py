"""Every number format through training, saving and freezing, layer by layer exact."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qfx
from qfx import Binary, Block, Config, FixedPoint, KHot, Minifloat, QfxError
from qfx.formats import ROUNDING, BlockFloatingPoint, DynamicFixedPoint, Format, Ternary
from qfx.learn.config import without_sign
from qfx.learn.model import QuantizedModel
from tests.learn.base import NetworkTest

E4M3 = Minifloat(4, 3, specials="fn")
E5M2 = Minifloat(5, 2, specials="ieee")
CONFIGS = {
    "E2M1": Config(Minifloat(2, 1), Minifloat(2, 1), batch_norm="keep", scale=Minifloat(3, 2)),
    "E4M3": Config(E4M3, E4M3),
    "E3M2 per channel": Config(Minifloat(3, 2), Minifloat(3, 2), input=Minifloat(3, 4), per_channel=True),
    "truncated": Config(
        Minifloat(2, 3, rounding="TRN"), Minifloat(3, 2, rounding="TRN_ZERO"), Minifloat(2, 2, rounding="RND")
    ),
    "frozen": Config(Minifloat(3, 2, bias=5), Minifloat(4, 2, bias=6), Minifloat(3, 4, bias=2)),
    "no subnormals": Config(Minifloat(8, 0), Minifloat(4, 0)),
    "no exponent": Config(Minifloat(0, 4), Minifloat(0, 5)),
    "E5M2 weights": Config(E5M2, FixedPoint(4)),
    "E5M2 activations": Config(FixedPoint(4), E5M2, batch_norm="keep"),
    "E8M7 weights": Config(Minifloat(8, 7), FixedPoint(8)),
    "bfloat16 activations": Config(FixedPoint(4), Minifloat(8, 7, bias=127)),
    "K-hot": Config(KHot(8, k=2), KHot(8, k=2), batch_norm="keep", scale=KHot(8, k=1)),
    "K-hot per channel": Config(
        KHot(5, k=1), KHot(6, k=3, digits="binary"), input=KHot(8, k=4), per_channel=True
    ),
    "ternary": Config(Ternary(), FixedPoint(4)),
    "binary weights": Config(Binary(), FixedPoint(4), per_channel=True),
    "blocks": Config(Block(Minifloat(2, 1, bias=1), 2), Block(FixedPoint(5, 3), 3)),
    "block weights": Config(BlockFloatingPoint(4, 4), E4M3, batch_norm="keep"),
    "dynamic": Config(DynamicFixedPoint(5), DynamicFixedPoint(5)),
}


class FormatTest(NetworkTest):
    """A network in every format."""

    @pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
    def test_from_training_to_the_graph(self, config: Config) -> None:
        self.trained_and_frozen(config)

    @pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
    def test_every_tap_is_its_node(self, config: Config) -> None:
        self.tapped(config)


class TestMLP(FormatTest):
    shape = (6,)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 3)
        )


class _Residual(nn.Module):
    """Convolutions with padding, groups and pooling, a shortcut, a signed and an unsigned activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.max_pool2d(self.depthwise(x) + x, 2)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class TestResidual(FormatTest):
    shape = (2, 4, 4)

    def model(self) -> nn.Module:
        return _Residual()


# -- drawn formats -------------------------------------------------------------------------------------------


@st.composite
def minifloats(draw: st.DrawFn, exponent_bits: int = 5) -> Minifloat:
    specials = draw(st.sampled_from(["none", "fn", "ieee"]))
    e = draw(st.integers(0 if specials == "none" else 1, exponent_bits))
    m = draw(st.integers(1 if e < 2 else 0 if specials != "ieee" else 1, 4))
    bias = draw(st.integers(-4, 12))
    return Minifloat(e, m, bias, draw(st.booleans()), specials, draw(st.sampled_from(ROUNDING)))


@st.composite
def k_hots(draw: st.DrawFn) -> KHot:
    signed = draw(st.booleans())
    width = draw(st.integers(2, 12))
    digits = draw(st.sampled_from(["csd", "binary"]))
    return KHot(width, draw(st.integers(-4, 12)), draw(st.integers(1, 4)), digits, signed)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    element = draw(st.one_of(minifloats(2), st.builds(FixedPoint, st.integers(2, 6), st.integers(0, 6))))
    return Block(element, draw(st.sampled_from([None, 1, 2, 3, 32])), draw(st.integers(2, 4)))


POINTED = st.one_of(minifloats(), k_hots(), st.builds(Binary, st.integers(-4, 8)))
FORMATS = st.one_of(POINTED, blocks())


@settings(max_examples=60)
@given(FORMATS, FORMATS, POINTED, POINTED, FORMATS, st.integers(0, 2**16))
def test_any_formats_at_all(
    weight: Format, activation: Format, first: Format, scale: Format, output: Format, seed: int
) -> None:
    """Random frozen formats everywhere, on numbers around and beyond their ranges: torch equals the graph,
    whatever width the sums have."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            exponent = torch.randint(-8, 4, parameter.shape, generator=generator)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * torch.exp2(exponent))
    x = torch.randn(20, 2, 4, generator=generator, dtype=torch.float64)
    x *= 2.0 ** torch.randint(-10, 10, x.shape, generator=generator)
    x[0, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    config = Config(
        weight, activation, first, FixedPoint(12, 4), scale, output, batch_norm="keep", unsigned=False
    )
    q = qfx.prepare(model, x[:2].float(), config).eval()
    try:
        # Everything is given but the grid that block formats take their scales from.
        g = qfx.freeze(qfx.calibrate(q, [x.nan_to_num(0.0, 0.0, 0.0).float()]))
    except QfxError as error:
        assert "62 is the most" in str(error) or "62" in str(error) and "span" in str(error), error
        return
    with torch.no_grad():
        np.testing.assert_array_equal(q(x).double().numpy(), g.run(x))
        np.testing.assert_array_equal(q(x.float()).double().numpy(), g.run(x.float()))


# -- binarized networks --------------------------------------------------------------------------------------


class Binarized(nn.Module):
    """Binary weights and activations; BatchNorm and shortcuts stay. The activation function is the cast."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.norm3 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.conv1(x))
        y = self.norm2(self.conv2(x))
        y = self.norm3(self.conv3(y)) + x
        return self.fc(torch.flatten(F.max_pool2d(y, 2), 1))


def binarized(scale: Format, shortcut: Format) -> Config:
    return Config(
        weight=Binary(),
        activation=Binary(),
        input=FixedPoint(8, 8, signed=False),
        scale=scale,
        batch_norm="keep",
        overrides={"add": {"activation": shortcut}, "fc": {"weight": FixedPoint(4)}},
    )


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    data, labels = datasets.load_digits(return_X_y=True)
    return torch.as_tensor(data / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.as_tensor(labels)


@pytest.mark.parametrize(
    ("scale", "shortcut"),
    [(FixedPoint(6), FixedPoint(4)), (KHot(6, k=2), KHot(6, k=2)), (FixedPoint(6), Binary())],
    ids=["fixed", "K-hot", "binary shortcut"],
)
def test_a_binarized_network_learns_and_is_exact(scale: Format, shortcut: Format) -> None:
    """Signs with a straight-through gradient, BatchNorm with a cheap multiplier, a shortcut of a few bits."""
    x, y = digits()
    torch.manual_seed(0)
    model = Binarized()
    model.train()(x[:512])
    q = qfx.calibrate(qfx.prepare(model, x[:2], binarized(scale, shortcut)), [x[:512]]).train()
    optimizer = torch.optim.Adam(q.parameters(), 5e-3)
    for _ in range(4):
        for batch in torch.randperm(1344).split(64):
            optimizer.zero_grad()
            F.cross_entropy(q(x[batch]), y[batch]).backward()
            optimizer.step()
    g = qfx.freeze(q)
    test = x[1344:]
    with torch.no_grad():
        out = q(test)
    np.testing.assert_array_equal(out.double().numpy(), g.run(test))
    assert float((out.argmax(1) == y[1344:]).double().mean()) > 0.75
    # Zero padding stays code 0, which is no number of the format.
    convolutions = [n for n in g.nodes if n.op.kind == "conv"]
    assert [isinstance(n.op.weight_encoding, Binary) for n in convolutions] == [True] * 3
    assert set(np.unique(convolutions[1].op.weight)) == {-1, 1}
    assert isinstance(g[convolutions[1].inputs[0]].tensor.encoding, Binary)


def test_binary_behind_relu_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(QfxError, match=r"^1: its result is never negative.*leave this one out"):
        qfx.prepare(model, torch.zeros(1, 4), Config(activation=Binary()))


# -- configuration -------------------------------------------------------------------------------------------


def test_input_and_output_default_to_eight_bit_fixed_point() -> None:
    config = Config(activation=Minifloat(2, 1))
    assert config.input_format == config.output_format == FixedPoint(8)
    assert Config(activation=FixedPoint(4)).input_format == FixedPoint(8)
    assert Config(activation=FixedPoint(12)).output_format == FixedPoint(12)


def test_without_sign() -> None:
    assert without_sign(FixedPoint(4)) == FixedPoint(4, signed=False)
    assert without_sign(FixedPoint(4, overflow="WRAP_SM")) == FixedPoint(4, overflow="WRAP_SM")
    assert without_sign(Minifloat(3, 2)) == Minifloat(3, 2, signed=False)
    assert without_sign(Minifloat(3, 2)).width == 5 and without_sign(Minifloat(3, 2)).learned
    assert without_sign(Minifloat(3, 2, bias=4)) == Minifloat(3, 2, bias=4, signed=False)
    assert not without_sign(Minifloat(3, 2, bias=4)).learned
    assert without_sign(E4M3) == E4M3
    unsigned = without_sign(KHot(8, k=2))
    assert unsigned == KHot(7, k=2, signed=False)
    assert unsigned.integer_max == KHot(8, k=2).integer_max
    for fmt in (Binary(), Block(FixedPoint(4, 2))):
        assert without_sign(fmt) == fmt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias": Minifloat(4, 3)}, "bias must be a qfx.FixedPoint.*exact sum"),
        ({"overrides": {"a": {"bias": KHot(8, k=1)}}}, "must be a qfx.FixedPoint"),
        ({"input": Block(FixedPoint(4, 2))}, "input: .*no tensor of the network yet"),
        ({"scale": Block(FixedPoint(4, 2))}, "scale: .*one number per channel"),
        ({"weight": Minifloat(4, 3, specials="fn", overflow="INF")}, 'use overflow="SAT"'),
        ({"estimator": "magic"}, "estimator must be one of 'clipped'"),
        ({"overrides": {"a": {"estimator": "magic"}}}, "estimator.* must be one of"),
    ],
)
def test_config_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(QfxError, match=message):
        Config(**arguments)


# -- wide formats --------------------------------------------------------------------------------------------


def prepared(config: Config, scale: float = 1.0) -> tuple[QuantizedModel, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    x = scale * torch.randn(64, 5)
    return qfx.calibrate(qfx.prepare(model, x[:1], config), [x]), x


def test_weights_that_span_too_much_are_refused_by_name() -> None:
    q, _ = prepared(Config(weight=Minifloat(8, 7, bias=127)))
    with torch.no_grad():
        q.get_submodule("2").weight[0, 0] = 1e-30
        q.get_submodule("2").weight[1, 0] = 1e3
    with pytest.raises(QfxError, match=r"2: the numbers of E8M7.*span \d+ bits.*fewer exponent bits"):
        qfx.freeze(q)


def test_a_wide_input_is_refused_by_freeze() -> None:
    q, _ = prepared(Config(input=Minifloat(8, 7, bias=127)))
    with pytest.raises(QfxError, match="input.*62"):
        qfx.freeze(q)


def test_only_the_weights_that_occur_decide_about_their_integers() -> None:
    """E8M7 numbers reach over 260 bits; the integers of some weights have as few as these need."""
    q, _ = prepared(Config(weight=Minifloat(8, 7, bias=127), per_channel=False))
    layer = q.get_submodule("0")
    with torch.no_grad():
        layer.weight.fill_(0.75)
        layer.weight[0, 0] = -4.0
    linear = next(n.op for n in qfx.freeze(q).nodes if n.op.kind == "linear")
    assert linear.weight_format == FixedPoint(5, 2)
    assert linear.weight[0, 0] == -16 and linear.weight[1, 1] == 3
    assert linear.weight_encoding == Minifloat(8, 7, bias=127)


def test_channels_have_their_own_grid_when_the_format_does() -> None:
    q, _ = prepared(Config(weight=Minifloat(3, 2), per_channel=True))
    layer = q.get_submodule("0")
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([1.0, 4.0, 16.0, 64.0, 256.0, 0.0]).reshape(-1, 1))
    layer.calibrate_weight()
    linear = next(n.op for n in qfx.freeze(q).nodes if n.op.kind == "linear")
    assert len(set(linear.weight_format.fracs(6))) > 3
    assert linear.weight_format.width <= 2 + 2**3
    quantized = layer.weight_quantizer.quantized(layer.weight).detach().double().numpy()
    np.testing.assert_array_equal(linear.weight_format.decode(linear.weight), quantized)


def test_state_dict_keeps_what_calibration_saw() -> None:
    config = Config(weight=E4M3, activation=KHot(6, k=2))
    q, x = prepared(config)
    state = q.state_dict()
    weight = q.get_submodule("0").weight.detach()
    assert float(state["0.weight_quantizer.rms"]) == pytest.approx(float(weight.square().mean().sqrt()))
    assert "0.bias_quantizer.rms" not in state
    other = qfx.prepare(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), x[:1], config)
    other.load_state_dict(copy.deepcopy(state))
    for name, quantizer in qfx.quantizers(q).items():
        twin = qfx.quantizers(other)[name]
        assert twin.format == quantizer.format
        if quantizer.gaps:
            assert torch.equal(twin.gain(10.0), quantizer.gain(10.0))
