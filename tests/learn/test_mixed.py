"""bfloat16 autocast: in the products of narrow layers, in no cast, and never in eval()."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import Config, FixedPoint, Minifloat
from qfx.learn import mixed, training
from tests.learn.networks import images, net, step


def autocast(dtype: torch.dtype = torch.bfloat16, enabled: bool = True) -> torch.autocast:
    return torch.autocast("cpu", dtype=dtype, enabled=enabled)


def mlp(weight: qfx.FixedPoint | qfx.Minifloat, activation: qfx.FixedPoint | qfx.Minifloat) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 6))
    x = torch.randn(64, 12)
    q = qfx.prepare(model, x[:1], Config(weight=weight, activation=activation, input=activation))
    return qfx.calibrate(q, [x]).train()


@pytest.mark.parametrize(
    ("weight", "activation", "half"),
    [
        (FixedPoint(8), FixedPoint(8), True),
        (FixedPoint(4), FixedPoint(8, signed=True, rounding="RND"), True),
        (Minifloat(4, 3), Minifloat(5, 2), True),
        (FixedPoint(9), FixedPoint(8), False),
        (FixedPoint(8), FixedPoint(12), False),
    ],
    ids=str,
)
def test_layers_of_exact_operands_and_no_others(
    weight: FixedPoint, activation: FixedPoint, half: bool
) -> None:
    q = mlp(weight, activation)
    layers = [n for n, c in enumerate(training.calls(q)) if isinstance(c.module, qfx.nn.QuantLinear)]
    assert mixed.steps(training.calls(q)) == (frozenset(layers) if half else frozenset())
    x = torch.randn(16, 12, generator=torch.Generator().manual_seed(1))
    plain = q(x)
    with autocast():
        assert torch.equal(q(x), plain) != half


def test_what_a_layer_computes() -> None:
    """The products of the first layer are those of bfloat16, of operands that are exact in it."""
    q = mlp(FixedPoint(8), FixedPoint(8))
    layer = next(m for m in q.modules() if isinstance(m, qfx.nn.QuantLinear))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    layer.register_forward_hook(lambda m, a, y: seen.append((a[0], y)))
    with autocast():
        q(torch.randn(16, 12))
    x, y = seen[0]
    weight, bias = layer.parameters_exact(None)
    assert bias is not None and torch.equal(weight.bfloat16().float(), weight)
    assert torch.equal(x.bfloat16().float(), x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()))


def test_no_cast_sees_bfloat16() -> None:
    q = net(Config(batch_norm="keep")).train()
    seen = set()
    for quantizer in qfx.quantizers(q).values():
        quantizer.register_forward_hook(
            lambda m, a, y: seen.add((a[0].dtype, y.dtype, torch.is_autocast_enabled("cpu")))
        )
    with autocast():
        y = q(images(8))
    y.sum().backward()
    assert seen == {(torch.float32, torch.float32, False)} and y.dtype == torch.float32
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in q.parameters())


def test_it_learns_and_eval_knows_no_autocast() -> None:
    q = net().train()
    optimizer = torch.optim.Adam(q.parameters(), 2e-3)
    with autocast():
        losses = [step(q, optimizer, seed=1) for _ in range(25)]
    assert losses[-1] < 0.9 * losses[0]
    x = images(20, seed=3)
    q.eval()
    with torch.no_grad():
        plain = q(x)
        with autocast():
            assert torch.equal(q(x), plain)
    assert torch.equal(plain.double(), torch.from_numpy(qfx.freeze(q).run(x)))


def test_float16_stays_off() -> None:
    """Its exponent range is too short for binary points that go anywhere."""
    q = net().train()
    x = images(8)
    plain = q(x)
    with autocast(torch.float16):
        assert torch.equal(q(x), plain)
        assert q(x.half()).dtype == torch.float32


def test_compiled() -> None:
    q = net().train()
    x = images(8)
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    with autocast():
        torch.testing.assert_close(compiled(x), q(x), rtol=0, atol=1e-5)
        compiled(x).sum().backward()
