"""Tables and polynomials against mpmath at every input: the entries, and the errors that they state."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from qfx.approx import NAMES, Real, pieces, roots, table
from qfx.approx.piecewise import evaluate, largest_sum
from qfx.approx.root import evaluate as evaluate_root
from qfx.approx.table import ERROR_STEPS
from qfx.errors import QfxError
from qfx.formats import FixedPoint, Format, Minifloat

# Definitions of our own, from textbooks, at 60 digits.
mp = mpmath.mp.clone()
mp.dps = 60


def _cdf(x):
    return mp.mpf(1) / 2 * mp.erfc(-x / mp.sqrt(2))


def _logistic(x):
    return 1 / (1 + mp.exp(-x))


ORACLE = {
    "sigmoid": _logistic,
    "tanh": lambda x: (mp.exp(x) - mp.exp(-x)) / (mp.exp(x) + mp.exp(-x)),
    "gelu": lambda x: x * _cdf(x),
    "gelu_tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))),
    "silu": lambda x: x * _logistic(x),
    "mish": lambda x: x * mp.tanh(mp.log(1 + mp.exp(x))),
    "softsign": lambda x: x / (1 + abs(x)),
    "softplus": lambda x: x if x > 20 else mp.log(1 + mp.exp(x)),
    "logsigmoid": lambda x: mp.log(_logistic(x)),
    "hardsigmoid": lambda x: min(max((x + 3) / 6, 0), 1),
    "hardswish": lambda x: x * min(max((x + 3) / 6, 0), 1),
    "elu": lambda x: x if x > 0 else mp.exp(x) - 1,
    "celu": lambda x: x if x > 0 else mp.exp(x) - 1,
    "selu": lambda x: mp.mpf(1.0507009873554804934193349852946) * (
        x if x > 0 else mp.mpf(1.6732632423543772848170429916717) * (mp.exp(x) - 1)
    ),
    "abs": abs,
    "exp": mp.exp,
    "exp_negative": lambda x: mp.exp(-x),
    "log": lambda x: mp.log(x) if x > 0 else -mp.inf,
    "sqrt": lambda x: mp.sqrt(x) if x > 0 else mp.mpf(0),
    "rsqrt": lambda x: 1 / mp.sqrt(x) if x > 0 else mp.inf,
    "reciprocal": lambda x: 1 / x if x else mp.inf,
    "erf": mp.erf,
    "sin": mp.sin,
    "cos": mp.cos,
}  # fmt: skip


def limited(name: str, code: int, frac: int, fmt: Format):
    """The real function at a code in LSBs of a format, within its range."""
    value = ORACLE[name](mp.mpf(code) * mp.mpf(2) ** -frac) * mp.mpf(2) ** fmt.max_frac
    return min(max(value, fmt.integer_min), fmt.integer_max)


def nearest(value) -> int:
    """Rounded to the nearest integer, ties to even."""
    floor = int(mp.floor(value))
    rest = value - floor
    return floor + (rest > 0.5 or (rest == 0.5 and floor % 2 == 1))


def result_format(name: str, width: int) -> FixedPoint:
    unsigned = Real(name).nonnegative
    bits = {"exp": 5, "exp_negative": 5, "reciprocal": 4, "rsqrt": 3, "softplus": 4, "abs": 4}
    integer_bits = bits.get(name, 2)
    return FixedPoint(width, width - integer_bits, signed=not unsigned)


def test_every_function_has_an_oracle() -> None:
    assert set(ORACLE) == set(NAMES)


@pytest.mark.parametrize("frac, width", [(4, 8), (7, 6), (5, 12)])
@pytest.mark.parametrize("name", NAMES)
def test_tables_are_correctly_rounded_and_their_error_is_the_one_stated(name, frac, width) -> None:
    fmt = result_format(name, width)
    made = table(Real(name), frac, range(-128, 128), fmt)
    exact = [limited(name, int(code), frac, fmt) for code in made.inputs]
    # Ties of rational functions: a hair of the oracle's rounding must not decide.
    for entry, value in zip(made.entries.tolist(), exact, strict=True):
        assert entry == nearest(value) or abs(value - mp.floor(value) - 0.5) < mp.mpf(10) ** -50
    error = max(abs(e - v) for e, v in zip(made.entries.tolist(), exact, strict=True)) * ERROR_STEPS
    assert error <= made.max_error <= error + 2


@pytest.mark.parametrize("rounding", ["TRN", "TRN_ZERO", "RND", "RND_MIN_INF"])
def test_other_modes(rounding) -> None:
    fmt = FixedPoint(7, 6, rounding=rounding)
    made = table(Real("tanh"), 4, range(-40, 40), fmt)
    for code, entry in zip(made.inputs.tolist(), made.entries.tolist(), strict=True):
        value = limited("tanh", code, 4, fmt)
        down = rounding == "TRN" or (rounding == "TRN_ZERO" and value > 0)
        expected = mp.floor(value) if down else mp.ceil(value) if rounding == "TRN_ZERO" else mp.nint(value)
        assert entry == min(int(expected), 63), code
    assert made.max_error <= (ERROR_STEPS if "TRN" in rounding else ERROR_STEPS // 2 + 1)


def test_exact_ties_round_to_even() -> None:
    """hardswish(0.75) = 0.46875 lies halfway between two numbers with 4 fraction bits."""
    made = table(Real("hardswish"), 2, range(-16, 16), FixedPoint(8, 4))
    assert ORACLE["hardswish"](mp.mpf(3) / 4) * 16 == 7.5
    assert dict(zip(made.inputs.tolist(), made.entries.tolist(), strict=True))[3] == 8
    assert made.max_error == ERROR_STEPS // 2 + 1


def test_tables_of_minifloats() -> None:
    e4m3 = Minifloat(4, 3)
    codes = tuple(sorted({int(v) for v in np.ldexp(e4m3.values(), e4m3.max_frac)}))
    made = table(Real("gelu"), e4m3.max_frac, codes, e4m3)
    values = e4m3.values()
    for code, entry in zip(made.inputs.tolist(), made.values.tolist(), strict=True):
        exact = ORACLE["gelu"](mp.mpf(code) * mp.mpf(2) ** -e4m3.max_frac)
        assert entry in values
        assert abs(entry - exact) == min(abs(v - exact) for v in values)


def check_pieces(name: str, frac: int, low: int, high: int, fmt: FixedPoint, degree: int = 2) -> None:
    made = pieces(Real(name), frac, low, high, fmt, degree)
    codes = np.arange(low, high + 1)
    assert largest_sum(made.shift, made.coefficients, made.fracs) < 2**61
    exact_sum = evaluate(codes.astype(object), made.first, made.shift, made.coefficients, made.fracs)
    results = fmt.cast_integers(exact_sum[None, None], (max(made.fracs),))[0, 0]
    error = mp.mpf(0)
    for code, result in zip(codes.tolist(), results.tolist(), strict=True):
        error = max(error, abs(result - limited(name, code, frac, fmt)))
    assert error * ERROR_STEPS <= made.max_error <= error * ERROR_STEPS + 2


@pytest.mark.parametrize("name", NAMES)
def test_polynomials_state_their_error(name) -> None:
    check_pieces(name, 7, -(1 << 9), (1 << 9) - 1, result_format(name, 14))


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_polynomials_of_every_degree(degree) -> None:
    check_pieces("sigmoid", 9, -3001, 1777, FixedPoint(12, 12, signed=False), degree)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_wide_polynomials_state_their_error(name) -> None:
    check_pieces(name, 13, -(1 << 16), (1 << 16) - 1, result_format(name, 18))


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "silu", "exp", "softplus", "erf", "elu"])
def test_polynomials_of_16_bits_are_within_an_lsb(name) -> None:
    made = pieces(Real(name), 12, -(1 << 15), (1 << 15) - 1, result_format(name, 16))
    assert made.max_error <= ERROR_STEPS
    assert len(made.coefficients) <= 256


@pytest.mark.parametrize("bits", [1, 5, 8, 9, 11])
@pytest.mark.parametrize("root, factor", [(1, 1.0), (2, 1.0), (2, 2.8284271247461903)])
def test_roots_state_their_error(root, factor, bits) -> None:
    """Relative, over all real numbers: at both ends of every step, where it is largest."""
    made = roots(root, factor, bits, bits + 3)
    places = np.arange(((1 << root) - 1) << bits)
    values = evaluate_root(places, made.shift, made.coefficients, made.guard).tolist()
    worst = mp.mpf(0)
    step = mp.mpf(2) ** -bits
    for place, value in zip(places.tolist(), values, strict=True):
        for end in (0, 1):
            exact = mp.mpf(factor) * (1 + (place + end) * step) ** (-mp.mpf(1) / root)
            worst = max(worst, abs(value * mp.mpf(2) ** -made.frac / exact - 1))
    assert worst * 2**32 <= made.max_error <= worst * 2**32 + 4


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_everywhere(name) -> None:
    x = torch.arange(-128, 128).double().div(16).requires_grad_()
    y = Real(name).torch(x)
    y.masked_fill(torch.isinf(y), 0.0).sum().backward()
    assert torch.isfinite(x.grad).all()
    # And they are the real derivative, seen with differences, away from kinks.
    at = torch.tensor([0.7, 1.9, 3.3], dtype=torch.float64, requires_grad=True)
    Real(name).torch(at).sum().backward()
    for place, slope in zip(at.tolist(), at.grad.tolist(), strict=True):
        assert slope == pytest.approx(float(mp.diff(ORACLE[name], mp.mpf(place))), abs=1e-8)


def test_rounding_to_odd() -> None:
    """Never on an even neighbour of an irrational value, always exact where the value is a double."""
    for x in (0.5, 1.25, -3.0):
        value = Real("exp").odd(x)
        assert int(math.ldexp(math.frexp(value)[0], 53)) % 2 == 1
        assert abs(mp.mpf(value) - mp.exp(x)) < mp.exp(x) * mp.mpf(2) ** -52
    assert Real("hardswish").odd(3.0) == 3.0
    assert Real("reciprocal").odd(0.0) == math.inf
    assert Real("reciprocal").exact(Fraction(3)) == Fraction(1, 3)


def test_parameters() -> None:
    assert str(Real("elu")) == "elu(1)" and str(Real("softplus", (2.0,))) == "softplus(2, 20)"
    x = torch.linspace(-4, 30, 50, dtype=torch.float64)
    torch.testing.assert_close(
        Real("softplus", (2.0, 10.0)).torch(x), torch.nn.functional.softplus(x, 2.0, 10.0)
    )
    for value in x.tolist():
        exact = Real("softplus", (2.0, 10.0)).exact(Fraction(value))
        assert float(exact) == pytest.approx(
            float(torch.nn.functional.softplus(torch.tensor(value).double(), 2.0, 10.0))
        )
        assert float(Real("celu", (0.5,)).exact(Fraction(value))) == pytest.approx(
            float(torch.celu(torch.tensor(value).double(), 0.5))
        )
    for name, parameters in (("gelu", (1.0,)), ("elu", (math.inf,)), ("nothing", ())):
        with pytest.raises(QfxError):
            Real(name, parameters)
