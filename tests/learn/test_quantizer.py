"""The quantizer alone: exact values, the stated gradient, and that learning finds good positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qfx import FixedPoint, QfxError
from qfx.formats import OVERFLOW, ROUNDING
from qfx.nn import InputQuantizer, Quantizer
from qfx.nn.functional import LN2, cast
from qfx.nn.observer import Observer, best_frac


@st.composite
def formats(draw: st.DrawFn, max_width: int = 24) -> FixedPoint:
    signed = draw(st.booleans())
    overflow = draw(st.sampled_from(OVERFLOW if signed else OVERFLOW[:-1]))
    width = draw(st.integers(2 if signed and overflow == "SAT_SYM" else 1, max_width))
    frac = draw(st.integers(-12, width + 12))
    return FixedPoint(width, frac, signed, draw(st.sampled_from(ROUNDING)), overflow)


def awkward(fmt: FixedPoint, dtype: torch.dtype) -> torch.Tensor:
    """Ties, their neighbours, both ends and beyond, tiny numbers of both signs."""
    codes = np.concatenate(
        [np.arange(-5, 6), [fmt.code_min, fmt.code_max, 2**fmt.width, 3 * 2**fmt.width, -(2**fmt.width)]]
    )
    offsets = np.array([-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75])
    grid = np.ldexp((codes[:, None] + offsets[None]).reshape(-1), -fmt.frac)
    x = torch.from_numpy(grid).to(dtype)
    x = torch.cat(
        [
            x,
            torch.nextafter(x, torch.tensor(math.inf, dtype=dtype)),
            torch.nextafter(x, torch.tensor(-math.inf, dtype=dtype)),
        ]
    )
    x = torch.cat([x, torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e9, -1e9], dtype=dtype)])
    return x[(x == 0) | (x.abs() > 1e-35)]


@given(formats())
def test_cast_equals_the_format_in_float32(fmt: FixedPoint) -> None:
    x = awkward(fmt, torch.float32)
    expected = fmt.quantize(x.double())
    assert torch.equal(cast(x, 2.0**fmt.frac, fmt).double(), expected)


@given(formats(max_width=40))
def test_cast_equals_the_format_in_float64(fmt: FixedPoint) -> None:
    x = awkward(fmt, torch.float64)
    assert torch.equal(cast(x, 2.0**fmt.frac, fmt), fmt.quantize(x))


@given(formats(max_width=40), st.lists(st.floats(allow_nan=False), min_size=1, max_size=20), st.booleans())
def test_an_input_of_any_size_is_cast_exactly(fmt: FixedPoint, numbers: list[float], single: bool) -> None:
    """Infinities, numbers that overflow or underflow when scaled: in eval() the input is cast from its exact
    value.
    """
    from qfx.nn import Bound, Exact, exact_dtype

    x = torch.tensor(numbers, dtype=torch.float32 if single else torch.float64).reshape(-1, 1)
    quantizer = InputQuantizer(fmt, (1,))
    dtype = exact_dtype("input", Bound.of_format((1,), fmt))
    assert torch.equal(quantizer(x, exact=Exact(dtype)).double(), fmt.quantize(x.double()))


@pytest.mark.parametrize("axis", [0, 1])
def test_one_binary_point_per_channel(axis: int) -> None:
    fmt = FixedPoint(5, (0, 3, 7), rounding="RND")
    x = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    quantizer = Quantizer(fmt, axis=axis)
    assert torch.equal(quantizer(x), fmt.quantize(x, axis=axis))
    assert quantizer.format == fmt


# -- the gradient --------------------------------------------------------------------------------------------


def learned(fmt: FixedPoint, frac: int, channels: int = 1, axis: int = 0) -> Quantizer:
    quantizer = Quantizer(fmt, channels, axis)
    quantizer.set(frac)
    return quantizer


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("overflow", OVERFLOW)
def test_the_gradient_is_the_documented_one(rounding: str, overflow: str) -> None:
    """Element by element from the formula: straight through inside the range, 0 outside; ln2*(x-y) and -ln2*y
    for the point.
    """
    fmt = FixedPoint(4, rounding=rounding, overflow=overflow)
    quantizer = learned(fmt, 2)
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(200, generator=generator) * 2).requires_grad_()
    weight = torch.randn(200, generator=generator)
    y = quantizer(x)
    (y * weight).sum().backward()
    inside = (x.detach() * 4 > fmt.code_min - 0.5) & (x.detach() * 4 < fmt.code_max + 0.5)
    assert 0 < int((~inside).sum()) < 200
    assert x.grad is not None and torch.equal(x.grad, torch.where(inside, weight, 0.0))
    slope = LN2 * torch.where(inside, x.detach() - y.detach(), -y.detach())
    expected = (weight * slope).sum() * quantizer.gain(200)
    assert quantizer.shift.grad is not None
    torch.testing.assert_close(
        quantizer.shift.grad, expected, rtol=1e-4, atol=1e-4 * abs(float(expected)) + 1e-6
    )


def test_the_gradient_of_a_clipped_number_is_the_true_derivative() -> None:
    """Outside the range nothing is rounded, so the formula must agree with a finite difference over the
    continuous binary point.
    """
    fmt = FixedPoint(4)
    quantizer = learned(fmt, 2)
    x = torch.tensor([50.0])
    quantizer(x).sum().backward()
    step = 1e-4
    difference = (fmt.code_max * 2.0 ** -(2 + step) - fmt.code_max * 2.0 ** -(2 - step)) / (2 * step)
    assert quantizer.shift.grad is not None
    assert float(quantizer.shift.grad) / float(quantizer.gain(1)) == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("signed", [True, False])
def test_one_bit_learns(signed: bool) -> None:
    quantizer = learned(FixedPoint(1, signed=signed), 0)
    x = torch.linspace(-3, 3, 50)
    y = quantizer(x)
    assert set(y.tolist()) == ({-1.0, 0.0} if signed else {0.0, 1.0})
    (y - x).square().sum().backward()
    assert quantizer.shift.grad is not None and 0 < abs(float(quantizer.shift.grad)) < math.inf


def test_channels_learn_on_their_own() -> None:
    fmt = FixedPoint(4)
    together = learned(fmt, 2, channels=3, axis=1)
    x = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(2))
    together(x).square().sum().backward()
    assert together.shift.grad is not None
    for channel in range(3):
        alone = learned(fmt, 2, axis=1)
        alone(x[:, channel]).square().sum().backward()
        torch.testing.assert_close(together.shift.grad[channel], alone.shift.grad)


def test_a_frozen_quantizer_asks_for_no_gradient() -> None:
    quantizer = Quantizer(FixedPoint(8, 4))
    assert not quantizer(torch.randn(5)).requires_grad
    assert not any(p.requires_grad for p in quantizer.parameters())
    learned_one = learned(FixedPoint(8), 4)
    assert learned_one(torch.randn(5)).requires_grad
    assert not learned_one.freeze()(torch.randn(5)).requires_grad
    assert learned_one.frac == 4


@pytest.mark.parametrize("offset", [-3, -1, 2])
@pytest.mark.parametrize(
    ("width", "optimizer"),
    [
        *(pytest.param(w, lambda p: torch.optim.SGD(p, lr=0.1), id=f"{w}-sgd") for w in (2, 3, 4)),
        *(
            pytest.param(w, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), id=f"{w}-momentum")
            for w in (2, 3, 4)
        ),
        *(pytest.param(w, lambda p: torch.optim.Adam(p, lr=1e-2), id=f"{w}-adam") for w in (2, 4, 8, 12)),
        *(
            pytest.param(w, lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=1e-2), id=f"{w}-adamw")
            for w in (2, 4, 8, 12)
        ),
    ],
)
def test_learning_finds_the_best_position(width: int, offset: int, optimizer) -> None:  # type: ignore[no-untyped-def]
    """From some bits away, ordinary learning rates bring the binary point to where the squared error is
    smallest, or next to it.
    """
    x = torch.randn(2000, generator=torch.Generator().manual_seed(width))
    fmt = FixedPoint(width)
    best = best_frac(fmt, x.double())
    assert best is not None
    quantizer = learned(fmt, best + offset)
    update = optimizer(quantizer.parameters())
    for _ in range(400):
        update.zero_grad()
        (100 * (quantizer(x) - x).square().mean()).backward()
        update.step()
    assert isinstance(quantizer.frac, int) and abs(quantizer.frac - best) <= 1


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_wild_step_is_taken_back(width: int, sign: int) -> None:
    """A step of many bits in either direction, and the point returns: its gradient neither vanishes out there
    nor grows with the distance.
    """
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    fmt = FixedPoint(width)
    best = best_frac(fmt, x.double())
    assert best is not None
    quantizer = learned(fmt, best)
    with torch.no_grad():
        quantizer.shift += sign * 1.5
    assert abs(float(quantizer.point) - best) == 12
    update = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    for _ in range(1000):
        update.zero_grad()
        (200 * (quantizer(x) - x).square().mean()).backward()
        update.step()
    assert abs(float(quantizer.point) - best) < 3


# -- calibration ---------------------------------------------------------------------------------------------


@given(
    formats(max_width=12).filter(lambda f: f.overflow in ("SAT", "SAT_SYM") and f.width > 1),
    st.integers(-6, 6),
    st.integers(0, 2**16),
)
def test_the_best_position_is_the_best_of_all(fmt: FixedPoint, exponent: int, seed: int) -> None:
    """No position nearby has a smaller squared error (of one bit, or where numbers beyond the range become
    others, the error has no valley and the search is only over the usual range).
    """
    x = np.random.default_rng(seed).standard_normal(200) * 2.0**exponent
    found = best_frac(fmt, torch.from_numpy(x))
    assert found is not None

    def error(frac: int) -> float:
        return float(np.square(fmt.with_frac(frac).quantize(x) - x).sum())

    assert error(found) <= min(error(found + d) for d in (-2, -1, 1, 2)) * (1 + 1e-12)


def test_of_equal_positions_the_smallest() -> None:
    assert best_frac(FixedPoint(8), torch.tensor([1.0, -3.0, 5.0], dtype=torch.float64)) == 0
    assert best_frac(FixedPoint(8), torch.tensor([0.5, 8.0], dtype=torch.float64)) == 1
    assert best_frac(FixedPoint(8), torch.zeros(3, dtype=torch.float64)) is None
    assert best_frac(FixedPoint(8), torch.tensor([0.3]).double(), limit=1) == 1


def test_error_and_not_maximum() -> None:
    """One outlier among many: the maximum alone would waste four bits on it."""
    x = torch.cat(
        [torch.randn(10_000, generator=torch.Generator().manual_seed(0)), torch.tensor([56.0])]
    ).double()
    assert best_frac(FixedPoint(4), x) == 1
    assert best_frac(FixedPoint(4), torch.tensor([56.0]).double()) == -3


def test_an_observer_keeps_a_fair_sample() -> None:
    observer = Observer(2)
    for batch in range(30):
        observer.see(
            torch.full((1000, 2, 7), float(batch)) * torch.tensor([1.0, -1.0]).reshape(1, 2, 1), axis=1
        )
    samples = observer.samples
    assert samples.shape[0] == 2 and samples.shape[1] < 2 * 65536
    assert float(samples[0].mean()) == pytest.approx(14.5, abs=1.0) and float(
        samples[1].mean()
    ) == pytest.approx(-14.5, abs=1.0)
    assert float(samples[0].max()) == 29.0


def test_use_before_calibration_is_refused() -> None:
    with pytest.raises(QfxError, match="calibrate"):
        Quantizer(FixedPoint(8))(torch.randn(3))
    with pytest.raises(QfxError, match="3 binary points for 4 channels"):
        Quantizer(FixedPoint(8, (1, 2, 3)), channels=4)
