"""Gradients of every format and estimator: the documented formulas, and what they approximate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import Binary, Block, Config, FixedPoint, KHot, Minifloat, QfxError
from qfx.formats import Format
from qfx.nn import ESTIMATORS, Quantizer
from qfx.nn.estimators import RANDOM, neighbours
from qfx.nn.functional import LN2, cast
from qfx.nn.observer import best_frac

GAPS = {
    "E2M1": Minifloat(2, 1),
    "E3M2": Minifloat(3, 2),
    "unsigned": Minifloat(3, 2, signed=False),
    "E4M3": Minifloat(4, 3, specials="fn"),
    "E5M2": Minifloat(5, 2, specials="ieee"),
    "E6M3": Minifloat(6, 3),
    "K1": KHot(8, k=1),
    "K2": KHot(8, k=2),
    "K2 binary": KHot(6, k=2, digits="binary", signed=False),
    "binary": Binary(),
}
ALL = {"fixed": FixedPoint(4), "truncated": FixedPoint(4, rounding="TRN"), **GAPS}


def learned(fmt: Format, frac: int, estimator: str = "clipped", rms: float | None = None) -> Quantizer:
    quantizer = Quantizer(fmt, estimator=estimator)
    quantizer.set(frac, rms)
    return quantizer


def numbers(fmt: Format, frac: int, count: int = 400) -> torch.Tensor:
    """Numbers of every size that a format knows, some below its finest and some beyond its largest."""
    generator = torch.Generator().manual_seed(3)
    top = math.log2(max(2, fmt.integer_max)) + 1.5
    sizes = torch.exp2(torch.rand(count, generator=generator, dtype=torch.float64) * (top + 2) - 2)
    signs = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    return (sizes * signs * 2.0**-frac).float()


def regions(fmt: Format, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where numbers are clipped, and where they lie among the dense ones."""
    low, high = fmt.pass_range
    inside = (scaled > low) & (scaled < high)
    return ~inside, inside & (scaled.abs() < fmt.dense_below)


# -- the point -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", GAPS.values(), ids=list(GAPS))
def test_the_gradient_is_the_documented_one(fmt: Format) -> None:
    """Straight through inside the range; for the point ln2 * (x - y) among the dense numbers, -ln2 * y of
    clipped ones, nothing from those between."""
    quantizer = learned(fmt, 3, rms=0.5)
    x = numbers(fmt, 3).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = quantizer(x)
    (y * weight).sum().backward()
    x0, y0 = x.detach().double(), y.detach().double()
    clipped, dense = regions(fmt, x0 * 8)
    assert 5 < int(clipped.sum()) < 395
    assert x.grad is not None and torch.equal(x.grad, torch.where(clipped, 0.0, weight))
    slope = torch.where(clipped, -y0, torch.where(dense, x0 - y0, 0.0))
    if isinstance(fmt, Binary):
        slope = -y0
    expected = LN2 * (weight.double() * slope).sum() * float(quantizer.gain(400))
    assert quantizer.shift.grad is not None
    assert float(quantizer.shift.grad) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("fmt", GAPS.values(), ids=list(GAPS))
def test_the_gradient_of_clipped_numbers_is_the_true_derivative(fmt: Format) -> None:
    """Against a finite difference over a continuous point."""
    quantizer = learned(fmt, 1, rms=1.0)
    x = torch.tensor([3.0 * fmt.integer_max])
    quantizer(x).sum().backward()
    x, step = x.double(), 1e-4
    difference = (cast(x, 2.0 ** (1 + step), fmt) - cast(x, 2.0 ** (1 - step), fmt)) / (2 * step)
    assert quantizer.shift.grad is not None
    found = float(quantizer.shift.grad) / float(quantizer.gain(1))
    assert found == pytest.approx(float(difference), rel=1e-4)


@pytest.mark.parametrize("name", [n for n in GAPS if n not in ("K2", "K2 binary", "binary")])
def test_between_the_dense_and_the_clipped_a_move_changes_nothing(name: str) -> None:
    """Why there is no gradient: the same numbers are there before and after."""
    fmt = GAPS[name]
    x = numbers(fmt, 0).double()
    least = max(fmt.dense_below, 4.0)
    between = x[(x.abs() >= least) & (x.abs() < float(fmt.integer_max) / 2)]
    assert len(between) > 30 or fmt.integer_max < 32
    assert torch.equal(cast(between, 1.0, fmt), cast(between, 2.0, fmt))


@pytest.mark.parametrize("name", ["E3M2", "E4M3", "K2", "fixed"])
def test_among_dense_numbers_the_gradient_follows_the_squared_error(name: str) -> None:
    """Many numbers at once: the sum of the documented gradients is the derivative of their squared error with
    respect to a continuous point."""
    fmt = FixedPoint(6) if name == "fixed" else ALL[name]
    # No number reaches the end of the dense range.
    spread = min(fmt.dense_below, fmt.integer_max) / 5
    x = spread * torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = cast(x, 1.0, fmt)
    gradient = float((2 * (y - x) * LN2 * (x - y)).sum())

    def error(point: float) -> float:
        return float((cast(x, 2.0**point, fmt) - x).square().sum())

    difference = (error(0.25) - error(-0.25)) / 0.5
    assert gradient == pytest.approx(difference, rel=0.05)


@pytest.mark.parametrize("offset", [-2, -1, 1])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("fmt", GAPS.values(), ids=list(GAPS))
def test_learning_ends_where_the_error_is_small(fmt: Format, optimizer: str, offset: int) -> None:
    """From some bits away, at the learning rates that fixed point takes."""
    x = torch.randn(2000, generator=torch.Generator().manual_seed(1))
    x = x if fmt.signed else x.abs()
    best = best_frac(fmt, x.double())
    assert best is not None

    def error(frac: int) -> float:
        return float((cast(x.double(), 2.0**frac, fmt) - x).square().mean())

    quantizer = learned(fmt, best + offset, rms=float(x.square().mean().sqrt()))
    update = (
        torch.optim.SGD(quantizer.parameters(), lr=0.1)
        if optimizer == "SGD"
        else torch.optim.Adam(quantizer.parameters(), lr=1e-2)
    )
    before = error(best + offset)
    for _ in range(300):
        update.zero_grad()
        (100 * (quantizer(x) - x).square().mean()).backward()
        update.step()
    assert isinstance(quantizer.frac, int)
    assert error(quantizer.frac) <= 1.6 * error(best)
    assert error(quantizer.frac) <= before * 1.01


# -- estimators ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ALL.values(), ids=list(ALL))
def test_neighbours(fmt: Format) -> None:
    """The numbers of the format on both sides, for every number in the range."""
    table = fmt.with_frac(0).values()
    x = numbers(fmt, 0)
    x = x[(x >= float(fmt.integer_min)) & (x < float(fmt.integer_max))]
    low, step = neighbours(fmt, x)
    assert bool((low <= x).all()) and bool((x < low + step).all())
    index = np.searchsorted(table, x.double().numpy(), side="right")
    np.testing.assert_array_equal(low.double().numpy(), table[index - 1])
    np.testing.assert_array_equal((low + step).double().numpy(), table[index])


@pytest.mark.parametrize("fmt", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_estimators_cast_alike_outside_of_training(fmt: Format, estimator: str) -> None:
    x = numbers(fmt, 3).requires_grad_()
    quantizer = learned(fmt, 3, estimator, rms=0.5).eval()
    assert torch.equal(quantizer(x), learned(fmt, 3, rms=0.5)(x))
    quantizer(x).sum().backward()
    assert torch.isfinite(quantizer.shift.grad).all() and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("fmt", ALL.values(), ids=list(ALL))
def test_straight_through_has_no_mask(fmt: Format) -> None:
    x = numbers(fmt, 3).requires_grad_()
    quantizer, masked = learned(fmt, 3, "straight_through", rms=0.5), learned(fmt, 3, rms=0.5)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (quantizer(x) * weight).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, weight)
    (masked(x) * weight).sum().backward()
    torch.testing.assert_close(quantizer.shift.grad, masked.shift.grad)


def staircase(fmt: Format, v: torch.Tensor) -> torch.Tensor:
    """The soft staircase of docs/estimators.md."""
    low, step = neighbours(fmt, v)
    k = math.log(2 / 0.2 - 1)
    return low + step * (torch.tanh(k * ((v - low) / step - 0.5)) / 0.8 + 1) / 2


@pytest.mark.parametrize("name", [n for n in ALL if n != "truncated"])
def test_soft_is_the_derivative_of_the_soft_staircase(name: str) -> None:
    fmt = ALL[name]
    quantizer = learned(fmt, 3, "soft", rms=0.5)
    x = numbers(fmt, 3).requires_grad_()
    y = quantizer(x)
    assert torch.equal(y, cast(x.detach(), 8.0, fmt))
    y.sum().backward()
    v = x.detach().double() * 8
    low, step = neighbours(fmt, v)
    d = 1e-5
    inner = (
        (v > low + 2 * d * step) & (v < low + (1 - 2 * d) * step) & (v.abs() < float(fmt.integer_max) * 0.99)
    )
    inner &= ~regions(fmt, v)[0]
    difference = (staircase(fmt, v + d * step) - staircase(fmt, v - d * step)) / (2 * d * step)
    assert int(inner.sum()) > 50 and x.grad is not None
    torch.testing.assert_close(x.grad.double()[inner], difference[inner], rtol=1e-3, atol=1e-3)


def test_soft_follows_truncation() -> None:
    """The steps of floor are at the integers: there the slope is largest."""
    quantizer = learned(FixedPoint(8, rounding="TRN"), 0, "soft")
    x = torch.tensor([2.0, 2.25, 2.5, 2.75, 3.0]).requires_grad_()
    quantizer(x).sum().backward()
    assert x.grad is not None and int(x.grad.argmin()) == 2 and float(x.grad[0]) == float(x.grad.max())


@pytest.mark.parametrize("fmt", ALL.values(), ids=list(ALL))
def test_stochastic_rounding_gives_both_neighbours_without_bias(fmt: Format) -> None:
    quantizer = learned(fmt, 3, "stochastic", rms=0.5)
    x = numbers(fmt, 3, 40)
    x = x[~regions(fmt, x * 8)[0] & (x.abs() * 8 < float(fmt.integer_max))].double()
    if not fmt.signed:
        x = x.abs()
    low, step = neighbours(fmt, x * 8)
    torch.manual_seed(0)
    with torch.enable_grad():
        draws = torch.stack([quantizer(x).detach() * 8 for _ in range(1000)])
    # floor of a truncating format: half a step below, as its rounding is on average.
    mean = x * 8 - (0.5 * step if getattr(fmt, "rounding", "") == "TRN" else 0.0)
    members = (draws == low) | (draws == low + step) | (draws == low - step)
    assert bool(members.all())
    off = (draws.mean(0) - mean).abs() / step
    assert float(off.max()) < 0.08


@pytest.mark.parametrize("estimator", ["noise", "gaussian"])
@pytest.mark.parametrize("fmt", ALL.values(), ids=list(ALL))
def test_noise_has_the_size_of_a_rounding_error(fmt: Format, estimator: str) -> None:
    quantizer = learned(fmt, 3, estimator, rms=0.5)
    x = numbers(fmt, 3, 60)
    x = x[~regions(fmt, x * 8)[0] & (x.abs() * 8 < float(fmt.integer_max))].double()
    x = x[(x * 8 > float(fmt.integer_min) + 1) & (x.abs() * 8 < 0.5 * float(fmt.integer_max))]
    torch.manual_seed(0)
    low, step = neighbours(fmt, x * 8)
    draws = torch.stack([quantizer(x.clone().requires_grad_()).detach() * 8 for _ in range(800)])
    # Noise is clipped to the range; only where it stays inside it has its full size.
    spare = (x * 8 - float(fmt.integer_min) > 4 * step) & (float(fmt.integer_max) - x * 8 > 4 * step)
    shift = 0.5 * step if getattr(fmt, "rounding", "") == "TRN" else 0.0
    error = (draws - (x * 8 - shift)) / step
    assert bool((draws <= float(fmt.integer_max)).all() and (draws >= float(fmt.integer_min)).all())
    if estimator == "noise":
        assert float(error[:, spare].abs().max() if spare.any() else 0.5) <= 0.5 + 1e-6
    if spare.any():
        assert float(error[:, spare].mean(0).abs().max()) < 0.08
        torch.testing.assert_close(
            error[:, spare].std(0), torch.full((int(spare.sum()),), 12.0**-0.5).double(), rtol=0.15, atol=0
        )


@pytest.mark.parametrize("estimator", RANDOM)
def test_the_gradient_of_random_estimators(estimator: str) -> None:
    """With the drawn y in the place of the rounded one."""
    fmt = FixedPoint(4)
    quantizer = learned(fmt, 3, estimator)
    x = numbers(fmt, 3).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = quantizer(x)
    (y * weight).sum().backward()
    clipped, _ = regions(fmt, x.detach() * 8)
    assert x.grad is not None and torch.equal(x.grad, torch.where(clipped, 0.0, weight))
    slope = torch.where(clipped, -y, x - y).detach()
    expected = LN2 * float((weight * slope).sum()) * float(quantizer.gain(400))
    assert float(quantizer.shift.grad) == pytest.approx(expected, rel=1e-4)
    assert not torch.equal(y, cast(x.detach(), 8.0, fmt))


# -- in networks ---------------------------------------------------------------------------------------------


def network(config: Config) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model.train()(x)
    return qfx.calibrate(qfx.prepare(model, x[:2], config), [x]).train(), x


@pytest.mark.parametrize("estimator", RANDOM)
def test_draws_come_from_the_generator_of_torch(estimator: str) -> None:
    """The same seed gives the same training; another gives another; eval() draws nothing."""

    def outputs(seed: int) -> torch.Tensor:
        q, x = network(Config(FixedPoint(3), FixedPoint(3), estimator=estimator))
        torch.manual_seed(seed)
        return q(x).detach()

    assert torch.equal(outputs(1), outputs(1)) and not torch.equal(outputs(1), outputs(2))
    q, x = network(Config(FixedPoint(3), FixedPoint(3), estimator=estimator))
    state = torch.get_rng_state()
    y = q.eval()(x)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(y.detach().double().numpy(), qfx.freeze(q).run(x))


def test_overrides_choose_estimators_by_module() -> None:
    config = Config(
        FixedPoint(3),
        FixedPoint(3),
        batch_norm="keep",
        estimator="soft",
        overrides={"0": {"estimator": "noise"}, "2": {"estimator": "stochastic"}},
    )
    q, _ = network(config)
    found = {name: m.estimator for name, m in qfx.quantizers(q).items()}
    assert found["0.weight_quantizer"] == found["0.bias_quantizer"] == "noise"
    assert found["2.output"] == "stochastic"
    assert found["input"] == found["1.scale_quantizer"] == found["3.weight_quantizer"] == "soft"


def test_estimators_that_need_neighbours_refuse_blocks_by_name() -> None:
    q, x = network(Config(Block(FixedPoint(4, 2)), estimator="noise"))
    with pytest.raises(QfxError, match=r"^0: Block.*'clipped' and 'straight_through'"):
        q(x)


def test_unknown_estimators_are_refused() -> None:
    with pytest.raises(QfxError, match="estimator must be one of 'clipped'.*found 'ste'"):
        Quantizer(FixedPoint(4), estimator="ste")
