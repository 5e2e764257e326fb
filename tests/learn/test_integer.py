"""Sums beyond the 53 bits of float64 stay exact in eval()."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import Config, FixedPoint, KHot, Minifloat, QfxError
from qfx.learn import QuantizedModel
from qfx.nn.integer import IntegerStep

E5M2 = Minifloat(5, 2, bias=15, specials="ieee")
WIDE_FIXED = Config(
    FixedPoint(26),
    FixedPoint(26),
    FixedPoint(24),
    bias=FixedPoint(40),
    scale=FixedPoint(5),
    batch_norm="keep",
)


class Everything(nn.Module):
    """Wide sums before every kind of operator that can follow them without a cast in between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.leaky_relu(self.norm(self.conv2(x)), 0.125).flatten(1)
        return self.fc2(F.hardtanh(self.fc1(x), -3.0, 3.0))


def spread(generator: torch.Generator, *shape: int, low: int, high: int) -> torch.Tensor:
    """Numbers whose exponents are spread evenly: every bit of a wide format counts."""
    exponents = torch.randint(low, high, shape, generator=generator).double()
    return (torch.randn(shape, generator=generator).double() * torch.exp2(exponents)).float()


def wide(config: Config, low: int = -16, high: int = 4) -> tuple[QuantizedModel, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Everything()
    with torch.no_grad():
        for parameter in (model.conv1.weight, model.conv2.weight, model.fc1.weight, model.fc2.weight):
            parameter.copy_(spread(generator, *parameter.shape, low=low, high=high))
    x = spread(generator, 40, 2, 8, 8, low=low, high=high + 2)
    model.train()(x)
    return qfx.calibrate(qfx.prepare(model, x[:2], config), [x]).eval(), x


def widest(q: QuantizedModel) -> int:
    return max(node.tensor.format.width for node in qfx.freeze(q).nodes)


@pytest.mark.parametrize(
    "config",
    [
        Config(E5M2, E5M2, E5M2),
        Config(E5M2, E5M2, E5M2, batch_norm="keep", scale=FixedPoint(4), bias=FixedPoint(30, 26)),
        WIDE_FIXED,
        Config(FixedPoint(30, 24), FixedPoint(30, 20, rounding="TRN", overflow="WRAP"), FixedPoint(26, 20)),
        Config(KHot(36, 30, k=2), KHot(30, 14, k=2), KHot(24, 16, k=3)),
        Config(FixedPoint(28), FixedPoint(28), FixedPoint(24), output=FixedPoint(50)),
    ],
    ids=["E5M2", "kept", "fixed", "wrapping", "K-hot", "wide output"],
)
def test_wide_sums_are_exact(config: Config) -> None:
    q, x = wide(config)
    g = qfx.freeze(q)
    assert 53 < widest(q) <= 62
    assert any(isinstance(how, IntegerStep) for how in q._qfx_make_plan())
    expected = g.run(x)
    with torch.no_grad():
        np.testing.assert_array_equal(q(x).double().numpy(), expected)
    # With a gradient the same values.
    y = q(x)
    np.testing.assert_array_equal(y.detach().double().numpy(), expected)
    assert y.requires_grad


@pytest.mark.parametrize("convolution", [False, True])
def test_a_small_term_among_large_ones(convolution: bool) -> None:
    """2**26 + 2**26 + 2**-30 - 2**27, in every order of the terms: in float64 the small one is often lost."""
    x = torch.tensor([[1024.0, 1024.0, 1024.0, 2.0**-15]])
    terms = torch.tensor([65536.0, 65536.0, -131072.0, 2.0**-15])
    orders = torch.tensor(list(itertools.permutations(range(4))))
    # The input of a term is that of its weight: the last one goes with the small weight.
    x = torch.cat([x[:, order] for order in orders])
    layer: nn.Module = nn.Linear(4, len(orders), bias=False)
    if convolution:
        layer, x = nn.Conv1d(1, len(orders), 4, bias=False), x.unsqueeze(1)
    with torch.no_grad():
        layer.weight.copy_(terms[orders].reshape(layer.weight.shape))
        same = torch.arange(len(orders))
        inexact = layer.double()(x.double()).reshape(len(orders), -1)[same, same]
        assert (inexact != 2.0**-30).any()
        layer.float()
    fmt = Minifloat(5, 2, bias=14)
    q = qfx.prepare(
        nn.Sequential(layer), x, Config(weight=fmt, input=FixedPoint(27, 15), output=FixedPoint(8, 30))
    ).eval()
    assert (q(x).reshape(len(orders), -1)[same, same] == 2.0**-30).all()
    np.testing.assert_array_equal(q(x).detach().double().numpy(), qfx.freeze(q).run(x))


def test_casts_behind_wide_sums_have_hooks() -> None:
    """Taps see every tensor that float64 holds behind a wide one."""
    q, x = wide(Config(E5M2, E5M2, E5M2))
    g = qfx.freeze(q)
    seen: dict[str, torch.Tensor] = {}
    for name, target in g.torch_taps.items():
        q.get_submodule(target).register_forward_hook(
            lambda m, a, y, name=name: seen.__setitem__(name, y.detach())
        )
    with torch.no_grad():
        q(x)
    trace = g.trace(x)
    casts = [node.name for node in g.nodes if node.op.kind == "cast"]
    assert set(casts) <= set(seen) and len(casts) >= 3
    for name, values in seen.items():
        fracs = np.asarray(g[name].tensor.fracs).reshape(-1, *(1,) * (values.ndim - 2))
        np.testing.assert_array_equal(
            values.double().numpy(), np.ldexp(trace[name].astype(float), -fracs), err_msg=name
        )
    assert qfx.verify(g, x, against=("torch",), tap=True).ok


def test_the_gradient_is_that_of_the_float_computation() -> None:
    """In eval() with a gradient: the values come from integers, the gradient from the same network in floats,
    which a narrower accumulator of the same values confirms."""
    q, x = wide(WIDE_FIXED)
    q(x).square().mean().backward()
    found = {n: p.grad.clone() for n, p in q.named_parameters() if p.grad is not None and "weight" in n[-6:]}
    assert len(found) >= 5
    q.zero_grad()
    from qfx.nn.module import Exact

    plan = [Exact(torch.float64) if isinstance(how, IntegerStep) else how for how in q._qfx_make_plan()]
    q._qfx_execute(x, plan).square().mean().backward()
    for name, grad in found.items():
        torch.testing.assert_close(q.get_parameter(name).grad, grad, rtol=1e-4, atol=1e-7)


def test_a_result_that_float64_cannot_hold_is_refused() -> None:
    q, x = wide(Config(FixedPoint(29), FixedPoint(28), FixedPoint(24), output="exact"))
    with pytest.raises(QfxError, match=r"fc2: .*2\*\*53.*output="):
        q(x)


def test_sums_beyond_62_bits_are_refused_with_the_module() -> None:
    q, x = wide(Config(FixedPoint(34), FixedPoint(34), FixedPoint(30)))
    with pytest.raises(QfxError, match=r"^conv1.*62 is the most"):
        q(x)
