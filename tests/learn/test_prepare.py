"""prepare: what it refuses and how it says so, where casts stand, what overrides do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import Config, FixedPoint, QfxError, UnsupportedError


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor], **children: nn.Module) -> None:
        super().__init__()
        self._function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(self, x)


def kinds(q: nn.Module) -> list[str]:
    return [node.op.kind for node in qfx.freeze(q).nodes]


def ready(model: nn.Module, x: torch.Tensor, config: Config | None = None) -> nn.Module:
    return qfx.calibrate(qfx.prepare(model, x, config), [x])


IMAGE = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
FLAT = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

# -- refusals ------------------------------------------------------------------------------------------------


def test_everything_unsupported_is_listed_at_once_with_path_and_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.Hardshrink(), nn.Conv2d(4, 4, 1, padding_mode="reflect", padding=1)
            )
            self.head = nn.LogSoftmax(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.features(x)
            a, b = y.topk(2, dim=1)
            y = torch.atan2(torch.cat([a, a], 1), y)
            y = F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
            return self.head(y.cumsum(1).mean((2, 3)))

    with pytest.raises(UnsupportedError) as error:
        qfx.prepare(Net(), IMAGE)
    text = str(error.value)
    lines = text.splitlines()[1:]
    assert len(lines) == 7, text
    for expected in (
        "features.1 (test_prepare.py:",
        "Hardshrink",
        "use ReLU",
        "features.2 (",
        "Conv2d",
        "padding_mode",
        "Tensor.topk",
        "torch.atan2",
        "reflect",
        "count_include_pad",
        "Tensor.cumsum",
        "head (test_prepare.py:",
        "LogSoftmax",
        "cross_entropy",
    ):
        assert expected in text, (expected, text)
    first = Net.forward.__code__.co_firstlineno
    assert f"test_prepare.py:{first + 2}" in text, "the line of topk"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: x.reshape(x.shape[0] * 2, -1), "batch"),
        (lambda m, x: x.flatten(), "batch"),
        (lambda m, x: x.permute(1, 0, 2, 3), "batch axis must stay in front"),
        (lambda m, x: x.mean(), "give dim"),
        (lambda m, x: x.mean((1, 2, 3)), "no axes besides the batch"),
        (lambda m, x: torch.cat([x, x], 0), "batch"),
        (lambda m, x: x[:, torch.tensor([1, 0])], "as indices"),
        (lambda m, x: torch.add(x, x, alpha=2), "alpha"),
        (lambda m, x: torch.div(x, x, rounding_mode="floor"), "rounding_mode"),
        (lambda m, x: x // 2, "floordiv"),
        (lambda m, x: x**3, "powers"),
        (lambda m, x: F.adaptive_avg_pool2d(x, 4), "divides the input size"),
        (lambda m, x: F.max_pool2d(x, 2, dilation=2), "dilation"),
        (lambda m, x: x.view(x.shape[0], 2, 3, 2, 6), "axes besides the batch"),
        (lambda m, x: torch.matmul(x, torch.ones(2, 6, 6)), "takes a matrix"),
        (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), "nearest"),
        (lambda m, x: x.softmax(0), "mix samples"),
        (lambda m, x: torch.max(x, 1)[1], "not computed"),
        (lambda m, x: x[:1], "batch"),
        (lambda m, x: x if x.sum() > 0 else -x, "trace"),
        (lambda m, x: (x, x), "one tensor"),
        (lambda m, x: {"a": x}, "one tensor"),
        (lambda m, x: torch.zeros(3), "one tensor|does not depend"),
        (lambda m, x: x, "computes nothing"),
    ],
)
def test_refused_operations(function: Callable[..., torch.Tensor], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        qfx.prepare(Lambda(function), IMAGE)


def test_two_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(UnsupportedError, match="2 inputs"):
        qfx.prepare(Two(), IMAGE)


def test_an_input_of_the_wrong_shape() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(QfxError, match=r"example_input of shape .*1\b.*mat1"):
        qfx.prepare(model, torch.randn(2, 2, 5, 5))
    with pytest.raises(QfxError, match="samples"):
        qfx.prepare(model, torch.randn(72))
    q = ready(model, IMAGE)
    for wrong in (torch.randn(4, 2, 6, 5), torch.randn(2, 6, 6), [1.0]):
        with pytest.raises(QfxError, match=r"expected a tensor of shape \(samples, 2, 6, 6\)"):
            q(wrong)
    q.eval()
    with pytest.raises(QfxError, match="NaN"):
        q(torch.full_like(IMAGE, torch.nan))


def test_nan_in_weights() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    q = ready(model, IMAGE)
    with torch.no_grad():
        q.get_submodule("1").weight[0, 0] = torch.nan
    with pytest.raises(QfxError, match="^1: the weight holds NaN"):
        qfx.freeze(q)
    with pytest.raises(QfxError, match="^1: the weight holds NaN"):
        qfx.calibrate(q, [IMAGE])
    with torch.no_grad():
        model[1].bias[0] = torch.inf
    with pytest.raises(QfxError, match="^1: the bias holds NaN"):
        qfx.prepare(model, IMAGE)


def test_calibration_sets() -> None:
    q = qfx.prepare(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), IMAGE)
    for empty in ([], iter(()), [IMAGE[:0]]):
        with pytest.raises(QfxError, match="calibration set is empty"):
            qfx.calibrate(q, empty)
    with pytest.raises(QfxError, match="one tensor"):
        qfx.calibrate(q, IMAGE)
    with pytest.raises(QfxError, match="NaN"):
        qfx.calibrate(q, [torch.full_like(IMAGE, torch.nan)])
    with pytest.raises(QfxError, match="calibrate"):
        q(IMAGE)
    with pytest.raises(QfxError, match="calibrate"):
        qfx.freeze(q)
    # What a data loader gives, a generator included.
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGE, torch.zeros(4)), batch_size=3)
    qfx.calibrate(q, (batch for batch in loader))
    assert q.training and q(IMAGE).shape == (4, 3)


def test_accumulators_that_float64_does_not_hold() -> None:
    """torch refuses to guess; the graph computes them."""
    config = Config(weight=FixedPoint(26), activation=FixedPoint(28), input=FixedPoint(28), output="exact")
    q = ready(nn.Linear(6, 3), FLAT, config)
    with pytest.raises(QfxError, match="linear: the result can reach .* float64 result holds"):
        q.eval()(FLAT)
    assert qfx.freeze(q).run(FLAT).shape == (4, 3)
    with pytest.raises(QfxError, match="linear"):
        qfx.freeze(ready(nn.Linear(6, 3), FLAT, Config(weight=FixedPoint(40), input=FixedPoint(40))))


# -- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 4}, "weight must be a number format"),
        ({"output": "float"}, "output must be"),
        ({"batch_norm": "drop"}, '"fold" or "keep"'),
        ({"overrides": {"a": {"wieght": FixedPoint(4)}}}, "unknown key 'wieght'"),
        ({"overrides": {"a": {"weight": 4}}}, "must be a number format"),
        ({"overrides": {"a": {"per_channel": 1}}}, "True or False"),
        ({"overrides": {"a": 4}}, "must be a dictionary"),
    ],
)
def test_config_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(QfxError, match=message):
        Config(**arguments)


def test_config_is_a_value() -> None:
    overrides = {"a": {"weight": FixedPoint(4)}}
    config = Config(overrides=overrides)
    overrides["a"]["weight"] = FixedPoint(5)
    assert config.override("weight", ["a"]) == FixedPoint(4)
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    with pytest.raises(AttributeError):
        config.weight = FixedPoint(3)  # type: ignore[misc]


def test_overrides() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(12, 2),
    )
    config = Config(
        weight=FixedPoint(4),
        activation=FixedPoint(4),
        overrides={
            "*": {"bias": FixedPoint(9)},
            "2.*": {"weight": FixedPoint(7), "activation": FixedPoint(6, 2)},
            "2.0": {"per_channel": True},
            "4": {"activation": FixedPoint(12, 5, rounding="TRN")},
        },
    )
    q = ready(model, IMAGE, config)
    found = qfx.quantizers(q)
    assert found["0.weight_quantizer"].fmt.width == 4 and found["2.0.weight_quantizer"].fmt.width == 7
    assert found["2.0.weight_quantizer"].channels == 3 and found["0.weight_quantizer"].channels == 1
    assert found["1.output"].format.signed is False
    # Formats of overrides are taken as they stand.
    assert found["2.1.output"].format == FixedPoint(6, 2) and found["2.1.output"].frozen
    assert found["4.output"].format == FixedPoint(12, 5, rounding="TRN")
    assert {found[f"{n}.bias_quantizer"].fmt.width for n in ("0", "2.0", "4")} == {9}
    with pytest.raises(QfxError, match=r"'3.\*', 'fc' match no module.*'2.0'"):
        qfx.prepare(model, IMAGE, Config(overrides={"3.*": {}, "fc": {"weight": FixedPoint(3)}, "4": {}}))


def test_unsigned_where_nothing_is_negative() -> None:
    def function(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = m.conv(x).relu()
        b = F.max_pool2d(a, 2)
        c = F.avg_pool2d(a, 2)
        d = torch.cat([b, c + b], 1)
        return (d.clamp(-1, 1) * d).mean((2, 3)) - 1

    model = Lambda(function, conv=nn.Conv2d(2, 3, 1))
    signed = {n: m.fmt.signed for n, m in qfx.quantizers(ready(model, IMAGE)).items() if "quantizer" not in n}
    assert signed == {
        "input": True,
        "relu.output": False,
        "avg_pool2d.output": False,
        "add.output": False,
        "cat.output": False,
        "clamp.output": False,
        "mul.output": False,
        "mean.output": False,
        "sub.output": True,
    }
    for config in (Config(unsigned=False), Config(activation=FixedPoint(6, overflow="WRAP_SM"))):
        assert all(
            m.fmt.signed for m in qfx.quantizers(ready(model, IMAGE, config)).values() if m.fmt.width > 1
        )


def test_output_formats() -> None:
    model = nn.Linear(6, 3)
    assert kinds(ready(model, FLAT, Config(activation=FixedPoint(4)))) == ["input", "linear", "cast"]
    assert (
        qfx.freeze(ready(model, FLAT, Config(activation=FixedPoint(4)))).output_node.tensor.format.width == 8
    )
    fmt = FixedPoint(5, 2, rounding="TRN", overflow="WRAP")
    assert qfx.freeze(ready(model, FLAT, Config(activation=fmt))).output_node.tensor.format == fmt
    assert kinds(ready(model, FLAT, Config(output="exact"))) == ["input", "linear"]
    pooled = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    assert kinds(ready(pooled, IMAGE, Config(output=FixedPoint(3))))[-2:] == ["max_pool", "cast"]


# -- structure -----------------------------------------------------------------------------------------------


def test_casts_stand_behind_fused_activations_and_nowhere_else() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 3, 1),
        nn.MaxPool2d(2),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(3, 2),
    )
    assert kinds(ready(model.eval(), IMAGE)) == [
        "input",
        "conv",
        "relu",
        "cast",
        "max_pool",
        "conv",
        "max_pool",
        "relu",  # the cast behind ends below 6
        "cast",
        "reshape",
        "linear",
        "cast",
    ]
    kept = kinds(ready(model.eval(), IMAGE, Config(batch_norm="keep")))
    assert kept[:5] == ["input", "conv", "affine", "relu", "cast"]


def test_a_result_that_two_read_is_cast_before_both() -> None:
    def forked(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        return F.relu(y) + y

    assert kinds(ready(Lambda(forked, conv=nn.Conv2d(2, 2, 1)), IMAGE)) == [
        "input",
        "conv",
        "cast",
        "relu",
        "add",
        "cast",
    ]


def test_what_does_nothing_is_gone() -> None:
    model = Lambda(
        lambda m, x: (
            m.a(F.dropout(m.conv(x.contiguous()).view(-1, 2, 6, 6), training=m.training))
            .clone()
            .flatten(2)
            .reshape(-1, 2, 36)
        ),
        a=nn.Identity(),
        conv=nn.Conv2d(2, 2, 1),
    )
    assert kinds(ready(model.train(), IMAGE)) == ["input", "conv", "cast", "reshape"]


@pytest.mark.parametrize("window", [2, 3])
def test_the_constant_of_average_pooling(window: int) -> None:
    """A power of two is a shift; anything else gets four bits more than the result."""
    q = ready(nn.AvgPool2d(window), IMAGE, Config(activation=FixedPoint(6)))
    (op,) = (node.op for node in qfx.freeze(q).nodes if node.op.kind == "avg_pool")
    if window == 2:
        assert (op.scale_code, op.scale_frac) == (1, 2)
    else:
        assert op.scale_code == round(2**op.scale_frac / 9)
        assert 9 <= op.scale_code.bit_length() <= 10


def test_batch_norm_folds_only_where_it_may() -> None:
    def twice(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.bn2(m.conv(F.relu(m.bn1(m.conv(x)))))

    shared = Lambda(twice, conv=nn.Conv2d(2, 2, 1), bn1=nn.BatchNorm2d(2), bn2=nn.BatchNorm2d(2)).eval()
    assert kinds(ready(shared, IMAGE)).count("affine") == 2

    def read_elsewhere(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        return m.bn(y) + y

    forked = Lambda(read_elsewhere, conv=nn.Conv2d(2, 2, 1), bn=nn.BatchNorm2d(2)).eval()
    assert kinds(ready(forked, IMAGE)).count("affine") == 1
    no_statistics = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(UnsupportedError, match="track_running_stats"):
        qfx.prepare(no_statistics, IMAGE)


def test_a_kept_batch_norm_trains_as_in_torch() -> None:
    """In wide formats: same result, same gradients, same running statistics as torch's BatchNorm in training
    mode.
    """
    for momentum in (0.1, None):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(2, momentum=momentum)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.7, 1.9]))
            norm.bias.copy_(torch.tensor([0.4, -1.1]))
        wide = FixedPoint(22)
        q = ready(norm, IMAGE, Config(wide, wide, wide, wide, wide, wide)).train()
        for _ in range(3):
            x = torch.randn(8, 2, 6, 6).clamp(-2, 2) * 0.8 + 0.2
            y, expected = q(x), norm.train()(x)
            torch.testing.assert_close(y, expected, atol=1e-3, rtol=1e-3)
            q.zero_grad()
            norm.zero_grad()
            weight = torch.randn_like(y)
            (y * weight).sum().backward()
            (expected * weight).sum().backward()
            inner = q.get_submodule("batchnorm2d")
            torch.testing.assert_close(inner.weight.grad, norm.weight.grad, atol=1e-2, rtol=1e-3)
            torch.testing.assert_close(inner.bias.grad, norm.bias.grad, atol=1e-2, rtol=1e-3)
            torch.testing.assert_close(inner.running_mean, norm.running_mean)
            torch.testing.assert_close(inner.running_var, norm.running_var)
    q = ready(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(72)), IMAGE).train()
    with pytest.raises(QfxError, match="^1: .*more than one value"):
        q(IMAGE[:1])


def test_the_training_mode_is_kept() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout())
    assert qfx.prepare(model.train(), FLAT).training and model.training and model[1].training
    assert not qfx.prepare(model.eval(), FLAT).training


def test_frozen_parameters_stay_frozen_and_tied_ones_tied() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    q = ready(model, FLAT)
    first, second = q.get_submodule("0"), q.get_submodule("2")
    assert first.weight is second.weight and first.weight is not model[0].weight
    assert not first.bias.requires_grad and second.bias.requires_grad


def test_a_module_called_twice_stays_one() -> None:
    """One weight, one set of statistics, also after a conversion; two casts, two nodes, two hooks."""

    def twice(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.bn(m.fc(m.bn(m.fc(x)).relu()))

    model = Lambda(twice, fc=nn.Linear(6, 6), bn=nn.BatchNorm1d(6))
    q = ready(model.train(), FLAT, Config(batch_norm="keep")).double().train()
    q(FLAT.double())
    first, again = q.get_submodule("bn"), q.get_submodule("bn_1")
    assert again.module is first and int(first.num_batches_tracked) == 2
    assert sum(p is q.get_submodule("fc").weight for p in q.parameters()) == 1
    g = qfx.freeze(q)
    np.testing.assert_array_equal(q(FLAT).detach().double().numpy(), g.run(FLAT))
    targets = list(g.torch_taps.values())
    assert {"fc", "fc_1", "bn", "bn_1"} <= set(targets) and len(targets) == len(set(targets))
    calls: list[str] = []
    for name in ("fc", "fc_1"):
        q.get_submodule(name).register_forward_hook(lambda m, a, y, name=name: calls.append(name))
    q(FLAT)
    assert calls == ["fc", "fc_1"]


def test_one_weight_used_in_two_ways() -> None:
    """Calls that differ in more than the operand are layers of their own that share the parameter."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 2, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(F.conv2d(x, self.weight, padding=1), self.weight, stride=2)

    q = ready(Net(), IMAGE, Config(weight=FixedPoint(16), activation=FixedPoint(18)))
    assert q.get_submodule("conv2d").weight is q.get_submodule("conv2d_1").weight
    assert q(IMAGE).shape == (4, 2, 2, 2)
    np.testing.assert_array_equal(q.eval()(IMAGE).detach().double().numpy(), qfx.freeze(q).run(IMAGE))


def test_state_dict_names_are_the_model_s() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    q = qfx.prepare(model, IMAGE)
    assert set(model.state_dict()) <= set(q.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(q.state_dict()[name], value)


def test_prepare_twice_is_refused() -> None:
    q = ready(nn.Linear(6, 3), FLAT)
    with pytest.raises(QfxError, match="prepared already"):
        qfx.prepare(q, FLAT)
    for wrong in (nn.Linear(6, 3), None):
        for call in (qfx.freeze, lambda m: qfx.calibrate(m, [FLAT])):
            with pytest.raises(QfxError, match="what qfx.prepare returned"):
                call(wrong)
    with pytest.raises(QfxError, match=r"qfx\.Config"):
        qfx.prepare(nn.Linear(6, 3), FLAT, FixedPoint(4))  # type: ignore[arg-type]


def test_integer_images() -> None:
    """uint8 input is cast from its exact value."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    x = torch.randint(0, 256, (4, 2, 6, 6), dtype=torch.uint8)
    q = ready(model, x, Config(input=FixedPoint(8, 0, signed=False)))
    g = qfx.freeze(q)
    np.testing.assert_array_equal(q(x).detach().double().numpy(), g.run(x))
    np.testing.assert_array_equal(g.trace(x)["n0_input"], x.numpy())


class TestPadding:
    """Zero padding in front of a convolution becomes part of it."""

    @pytest.mark.parametrize(
        "pad",
        [
            nn.ZeroPad2d((0, 1, 2, 3)),
            nn.ConstantPad2d(1, 0.0),
            nn.Sequential(nn.ZeroPad2d(1), nn.ZeroPad2d(2)),
        ],
    )
    def test_joins_the_convolution(self, pad: nn.Module) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(pad, nn.Identity(), nn.Conv2d(2, 3, 3, padding=(0, 1)), nn.ReLU())
        x = torch.randn(3, 2, 5, 6)
        q = qfx.prepare(model, x, qfx.Config(weight=FixedPoint(16), activation=FixedPoint(16)))
        qfx.calibrate(q, [x])
        graph = qfx.freeze(q)
        with torch.no_grad():
            assert (q(x).double().numpy() == graph.run(x)).all()
            assert torch.allclose(q(x).double(), model(x).double(), atol=1e-2)
        assert [n.op.kind for n in graph.nodes] == ["input", "conv", "relu", "cast"]

    def test_in_front_of_anything_else_is_refused(self) -> None:
        with pytest.raises(qfx.UnsupportedError, match="padding is supported in front of convolutions only"):
            qfx.prepare(nn.Sequential(nn.ZeroPad2d(1), nn.ReLU()), torch.zeros(1, 2, 4, 4))
        with pytest.raises(qfx.UnsupportedError, match="only padding with zeros"):
            qfx.prepare(nn.Sequential(nn.ConstantPad2d(1, 2.0), nn.Conv2d(2, 2, 3)), torch.zeros(1, 2, 4, 4))
