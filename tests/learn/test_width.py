"""Quantizers of learned width: values, gradients, what the graph gets, and errors."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import Config, FixedPoint, QfxError
from qfx.formats.rounding import ROUNDING
from qfx.graph.ebops import constant_bits
from qfx.nn.quantizer import BITS_PER_UNIT
from qfx.nn.width import HEADROOM, ActivationWidthQuantizer, WeightWidthQuantizer, power_of_two

LN2 = math.log(2.0)


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def quantizer(values: torch.Tensor, granularity: str, rounding: str = "RND_CONV") -> WeightWidthQuantizer:
    """One whose fraction bits differ from group to group: from far too few to plenty."""
    result = WeightWidthQuantizer(FixedPoint(6, rounding=rounding), values.shape, granularity)
    result.set(4)
    with torch.no_grad():
        noise = torch.randn(result.shift.shape, generator=torch.Generator().manual_seed(1))
        result.shift.copy_(noise * 3 / BITS_PER_UNIT)
    return result


# -- weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", sorted(ROUNDING))
@pytest.mark.parametrize("granularity", ["tensor", "channel", "weight"])
def test_every_weight_is_rounded_to_its_own_grid(granularity: str, rounding: str) -> None:
    """Against FixedPoint with plenty of integer bits, one weight at a time."""
    w = weights(5, 3, 2)
    q = quantizer(w, granularity, rounding)
    y = q(w).detach()
    fraction = q.fraction_bits().broadcast_to(w.shape)
    assert len(set(fraction.flatten().tolist())) == 1 if granularity == "tensor" else True
    for value, f, found in zip(w.flatten(), fraction.flatten(), y.flatten(), strict=True):
        fmt = FixedPoint(40, int(f), rounding=rounding)
        assert float(found) == float(fmt.quantize(np.float64(value)))


@pytest.mark.parametrize("granularity", ["tensor", "channel", "weight"])
def test_the_gradient_is_that_of_straight_through_rounding(granularity: str) -> None:
    """Against autograd on the same function with rounding written as adding a constant."""
    w = weights(4, 3).requires_grad_()
    q = quantizer(w.detach(), granularity)
    g = weights(4, 3, seed=2)
    (q(w) * g).sum().backward()
    f = (q.start + BITS_PER_UNIT * q.shift.detach()).round().requires_grad_()
    v = w.detach().clone().requires_grad_()
    scaled = v * torch.exp2(f)
    y = (scaled + (scaled.round() - scaled).detach()) * torch.exp2(-f)
    (y * g).sum().backward()
    assert f.grad is not None and q.shift.grad is not None
    torch.testing.assert_close(q.shift.grad, BITS_PER_UNIT * f.grad)
    torch.testing.assert_close(w.grad, v.grad)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "weight"])
def test_bits_are_those_that_the_graph_counts(granularity: str) -> None:
    w = weights(6, 50)
    q = quantizer(w, granularity)
    bits = q.bits(w)
    codes = q.constant(w).codes
    np.testing.assert_array_equal(bits.detach().numpy(), constant_bits(codes))
    assert (bits == 0).any() and (codes[(bits == 0).numpy()] == 0).all()
    bits.sum().backward()
    alive = (bits > 0).float().sum_to_size(q.shift.shape)
    torch.testing.assert_close(q.shift.grad, BITS_PER_UNIT * alive)


def test_constants_take_the_narrowest_format() -> None:
    """All weights are codes of the format; one bit less would not hold them, nor would a coarser grid."""
    per_channel = 0
    for seed in range(20):
        sizes = torch.tensor([1.0, 0.125, 4.0, 0.5]) if seed % 2 else torch.ones(4)
        w = weights(4, 6, seed=seed) * sizes[:, None]
        q = quantizer(w, "weight" if seed % 2 else "tensor")
        c = q.constant(w)
        np.testing.assert_array_equal(c.format.decode(c.codes), q(w).detach().numpy())
        assert c.codes.min() >= c.format.code_min and c.codes.max() <= c.format.code_max
        smaller = FixedPoint(c.format.width - 1, 0, c.format.signed)
        assert c.codes.min() < smaller.code_min or c.codes.max() > smaller.code_max
        assert (c.codes % 2 != 0).any()
        if c.format.per_channel:
            per_channel += 1
            common = np.round(q(w).detach().numpy() * 2.0 ** max(c.format.frac))
            assert np.abs(common).max() > c.format.code_max
    assert 0 < per_channel < 20


def test_fraction_bits_stop_at_the_headroom_and_come_back() -> None:
    w = weights(3, 3)
    q = quantizer(w, "tensor")
    with torch.no_grad():
        q.shift.fill_(100.0)
    assert q.frac == 4 + HEADROOM
    with torch.no_grad():
        q.shift.fill_(-100.0)
    assert q.frac == -96 and not q(w).any() and not q.constant(w).codes.any()


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-110, 111)
    for dtype in (torch.float32, torch.float64):
        np.testing.assert_array_equal(
            power_of_two(exponents, dtype).double().numpy(), np.ldexp(1.0, exponents.numpy())
        )


# -- activations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fmt", [FixedPoint(5), FixedPoint(5, signed=False), FixedPoint(5, overflow="SAT_SYM")]
)
def test_an_activation_is_cast_to_its_format(fmt: FixedPoint) -> None:
    q = ActivationWidthQuantizer(fmt)
    q.set(2)
    x = weights(400) * 20
    for f, i in ((0.0, 0.0), (0.2, 0.1), (-0.3, 0.4), (0.1, -0.3), (-0.6, -0.9)):
        with torch.no_grad():
            q.shift.fill_(f)
            q.reach_shift.fill_(i)
        expected = FixedPoint(q.format.width, q.frac, fmt.signed, fmt.rounding, fmt.overflow)
        assert q.format == expected
        assert q.format.width - fmt.signed == max(1, q.integer_bits + q.frac)
        np.testing.assert_array_equal(q(x).detach(), expected.quantize(x))
        assert q.bits().item() == q.format.width


def test_the_gradient_of_an_activation() -> None:
    """Inside, that of straight-through rounding with respect to f; outside, the end of the range moves with
    i."""
    q = ActivationWidthQuantizer(FixedPoint(4))
    q.set(1)
    x = (weights(300) * 12).requires_grad_()
    g = weights(300, seed=3)
    y = q(x)
    (y * g).sum().backward()
    low, high = q.format.min - 0.25, q.format.max + 0.25
    inside = (x > low) & (x < high)
    assert 50 < int(inside.sum()) < 250
    assert q.shift.grad is not None and q.reach_shift.grad is not None
    slope = torch.where(inside, LN2 * (x - y), 0.0)
    torch.testing.assert_close(q.shift.grad, BITS_PER_UNIT * (slope * g).sum())
    torch.testing.assert_close(
        q.reach_shift.grad, BITS_PER_UNIT * (torch.where(inside, 0.0, LN2 * y) * g).sum()
    )
    torch.testing.assert_close(x.grad, torch.where(inside, g, 0.0))


def test_a_width_has_a_derivative_until_it_is_least() -> None:
    q = ActivationWidthQuantizer(FixedPoint(4, signed=False))
    q.set(1)
    q.bits().backward()
    assert q.shift.grad == q.reach_shift.grad == BITS_PER_UNIT
    with torch.no_grad():
        q.shift.fill_(-2.0)
    assert q.bits().item() == q.format.width == 1 and not q.bits().requires_grad


# -- in a model ----------------------------------------------------------------------------------------------


EVERYTHING = {"weight": "weight", "bias": "weight", "activation": "tensor", "input": "tensor"}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.LeakyReLU(0.25),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


def images(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def prepared(learn_width: dict[str, str], per_channel: bool = False) -> qfx.learn.QuantizedModel:
    config = Config(
        weight=FixedPoint(5), activation=FixedPoint(5), bias=FixedPoint(9), learn_width=learn_width,
        per_channel=per_channel,
    )  # fmt: skip
    return qfx.calibrate(qfx.prepare(model(), images(2), config), [images(128)])


def train(q: qfx.learn.QuantizedModel, beta: float, steps: int = 30) -> None:
    resource = qfx.ResourceLoss(q)
    optimizer = torch.optim.Adam(qfx.parameter_groups(q, lr=5e-3))
    q.train()
    for step in range(steps):
        x = images(32, seed=step)
        target = x.mean(dim=(1, 2, 3)).gt(0).long() + x[:, 0, 0, 0].gt(1).long()
        optimizer.zero_grad()
        (nn.functional.cross_entropy(q(x), target) + beta * resource()).backward()
        optimizer.step()


@pytest.mark.parametrize(
    "learn_width",
    [
        {"weight": "tensor", "activation": "tensor"},
        {"weight": "channel", "bias": "tensor"},
        {"weight": "weight"},
        {"activation": "tensor", "input": "tensor"},
        EVERYTHING,
    ],
    ids=str,
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_torch_and_the_graph_agree(learn_width: dict[str, str], per_channel: bool) -> None:
    """After training under pressure: eval() equals the frozen graph on every bit, pruned or not, and so does
    what was loaded or copied."""
    q = prepared(learn_width, per_channel)
    before = qfx.ebops(qfx.freeze(q))
    train(q, 1e-4)
    x = 2 * images(65, seed=99)
    graph = qfx.freeze(q)
    assert qfx.ebops(graph) < before
    expected = graph.run(x)
    np.testing.assert_array_equal(qfx.freeze(q, prune=False).run(x), expected)
    np.testing.assert_array_equal(q(x).detach().double(), expected)
    assert qfx.verify(graph, x, against=("torch",), tap=True).ok
    fresh = prepared(learn_width, per_channel)
    fresh.load_state_dict(q.state_dict())
    np.testing.assert_array_equal(fresh.eval()(x).detach().double(), expected)
    np.testing.assert_array_equal(copy.deepcopy(q)(x).detach().double(), expected)


def test_pruned_weights_and_channels_leave_the_graph() -> None:
    q = prepared(EVERYTHING)
    train(q, 3e-3, steps=60)
    graph, whole = qfx.freeze(q), qfx.freeze(q, prune=False)
    sizes = [
        sum(n.op.weight.size for n in g.nodes if n.op.kind in ("linear", "conv")) for g in (graph, whole)
    ]
    assert sizes[0] < sizes[1] / 2
    assert any(w.pruned > 0 for w in qfx.widths(q))
    x = images(50, seed=5)
    np.testing.assert_array_equal(graph.run(x), whole.run(x))
    # Taps of nodes that lost channels are gone, the others hold.
    assert 0 < len(graph.torch_taps) < len(whole.torch_taps)
    assert qfx.verify(graph, x, against=("torch",), tap=True).ok


def test_frozen_widths_stay() -> None:
    q = prepared(EVERYTHING)
    train(q, 1e-4, steps=10)
    formats = {name: (m.frac, m.point.tolist()) for name, m in qfx.quantizers(q).items()}
    y = q.eval()(images(9))
    qfx.freeze_points(q)
    assert torch.equal(q.eval()(images(9)), y)
    for name, m in qfx.quantizers(q).items():
        assert m.frac == formats[name][0]
        assert not any(p.requires_grad for p in m.parameters())
    groups = qfx.parameter_groups(q)
    assert [g["name"] for g in groups] == ["weights"]
    moved = {
        n: m.fraction_bits() for n, m in qfx.quantizers(q).items() if isinstance(m, WeightWidthQuantizer)
    }
    train(q, 1e-2, steps=3)
    for name, bits in moved.items():
        assert torch.equal(q.get_submodule(name).fraction_bits(), bits)


def test_widths_and_weights_are_groups_of_their_own() -> None:
    q = prepared(EVERYTHING)
    first, second = qfx.parameter_groups(q, lr=1.0, point_lr=2.0, weight_decay=0.1)
    names = {id(p): n for n, p in q.named_parameters()}
    assert all(names[id(p)].endswith(("weight", "bias")) for p in first["params"])
    assert all(names[id(p)].endswith("shift") for p in second["params"])
    assert len(first["params"]) + len(second["params"]) == len(names)
    assert (second["lr"], second["weight_decay"]) == (2.0, 0.0)


def test_what_keeps_its_width() -> None:
    """Overrides with a binary point or an empty learn_width, formats that are not fixed point, the output."""
    config = Config(
        weight=FixedPoint(5),
        activation=FixedPoint(5),
        learn_width=EVERYTHING,
        bias=FixedPoint(9),
        overrides={
            "0": {"weight": FixedPoint(4, 3)},
            "1": {"activation": qfx.Minifloat(3, 2)},
            "6": {"learn_width": {"weight": "tensor"}},
            "7": {"learn_width": {}},
        },
    )
    q = qfx.prepare(model(), images(2), pickle.loads(pickle.dumps(config)))
    kinds = {n: type(m).__name__.removesuffix("Quantizer") for n, m in qfx.quantizers(q).items()}
    assert kinds == {
        "input": "InputWidth",
        "0.weight_quantizer": "", "0.bias_quantizer": "WeightWidth", "1.output": "",
        "2.weight_quantizer": "WeightWidth", "2.bias_quantizer": "WeightWidth", "3.output": "ActivationWidth",
        "6.weight_quantizer": "WeightWidth", "6.bias_quantizer": "", "7.output": "",
        "8.weight_quantizer": "WeightWidth", "8.bias_quantizer": "WeightWidth", "8.output": "",
    }  # fmt: skip
    assert q.get_submodule("6.weight_quantizer").granularity == "tensor"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learn_width": {"weight": "row"}}, "'tensor', 'channel', 'weight', found 'row'"),
        ({"learn_width": {"weights": "weight"}}, "unknown key 'weights'"),
        ({"learn_width": "weight"}, "must be a dictionary"),
        ({"learn_width": {"activation": "channel"}}, "must be one of 'tensor'"),
        ({"weight": qfx.Minifloat(4, 3), "learn_width": EVERYTHING}, "must be a qfx.FixedPoint"),
        ({"weight": FixedPoint(6, 3), "learn_width": {"weight": "weight"}}, "leave frac open"),
        ({"learn_width": {"bias": "weight"}}, "at most 16 bits"),
        ({"learn_width": {"weight": "weight"}, "weight": FixedPoint(20)}, "at most 16 bits"),
        ({"learn_width": {"weight": "weight"}, "estimator": "soft"}, "estimator"),
        ({"learn_width": {}, "overrides": {"0": {"learn_width": {"x": "weight"}}}}, "overrides.*'x'"),
        ({"activation": FixedPoint(6, overflow="WRAP"), "learn_width": {"activation": "tensor"}}, "SAT_SYM"),
        ({"weight": FixedPoint(6, signed=False), "learn_width": {"weight": "weight"}}, "signed=True"),
        ({"learn_width": {"weight": "weight"}, "overrides": {"0": {"estimator": "soft"}}}, "clipped"),
    ],
)
def test_what_cannot_be_learned_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(QfxError, match=message):
        qfx.prepare(model(), images(2), Config(**{"bias": FixedPoint(18), **arguments}))  # type: ignore[arg-type]


def test_a_model_that_is_not_calibrated_says_so() -> None:
    q = qfx.prepare(model(), images(2), Config(learn_width={"activation": "tensor"}))
    with pytest.raises(QfxError, match="qfx.calibrate"):
        q(images(2))
    fresh = WeightWidthQuantizer(FixedPoint(4), (2, 2))
    with pytest.raises(QfxError, match="qfx.calibrate"):
        fresh(weights(2, 2))
    assert fresh.frac is None and "learned width per weight" in repr(fresh)


def test_a_diverged_width_says_so() -> None:
    q = quantizer(weights(2, 2), "weight")
    with torch.no_grad():
        q.shift[0, 1] = math.nan
    with pytest.raises(QfxError, match="diverged"):
        q(weights(2, 2))
