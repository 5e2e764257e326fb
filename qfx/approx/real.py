"""Real functions of one number: for torch with gradients, and exact to any precision as the yardstick."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import torch
import torch.nn.functional as F

from qfx.errors import QfxError

#: Decimal digits of :meth:`Real.exact` where the value is irrational.
DIGITS = 40

Tensor = torch.Tensor
# A rational value, an irrational one to DIGITS digits, or an infinity.
Number = Any


@dataclass(frozen=True)
class Definition:
    """One function.

    Attributes:
        torch: of a tensor and the parameters; its gradient is that of the real function, finite everywhere.
        exact: the same of a ``Fraction``; a ``Fraction`` or an mpmath number, plus or minus ``mpmath.inf``.
        nonnegative: whether no value is below 0.
        parameters: names and defaults of what comes behind the argument.
    """

    torch: Callable[..., Tensor]
    exact: Callable[..., Number]
    nonnegative: bool = False
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Real:
    """A real function by its name and its parameters.

    Args:
        name: one of :data:`NAMES`.
        parameters: beyond the argument, as the function of torch has them: ``alpha`` of ``elu``; ``beta`` and
            ``threshold`` of ``softplus``. Defaults are torch's.

    Raises:
        QfxError: an unknown name, or parameters that are not finite numbers.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _DEFINITIONS:
            raise QfxError(f"unknown function {self.name!r}; supported: {', '.join(NAMES)}")
        wanted = self.definition.parameters
        given = tuple(float(p) for p in self.parameters)
        if len(given) > len(wanted) or not all(math.isfinite(p) for p in given):
            names = ", ".join(name for name, _ in wanted) or "none"
            raise QfxError(f"{self.name}: parameters {self.parameters}; supported: {names}, finite")
        object.__setattr__(self, "parameters", (*given, *(value for _, value in wanted[len(given) :])))

    @property
    def definition(self) -> Definition:
        """What it computes."""
        return _DEFINITIONS[self.name]

    @property
    def steep(self) -> bool:
        """Whether it has a pole or an infinite slope, near which polynomials are far off."""
        return self.name in ("log", "sqrt", "rsqrt", "reciprocal")

    @property
    def nonnegative(self) -> bool:
        """Whether no value is below 0."""
        return self.definition.nonnegative

    def torch(self, x: Tensor) -> Tensor:
        """The values in the dtype of ``x``, with gradients. Poles give infinities."""
        return self.definition.torch(x, *self.parameters)

    def float64(self, x: np.ndarray) -> np.ndarray:
        """The values, float64, a few units in the last place wrong at most; no gradient."""
        with torch.no_grad():
            return self.torch(torch.from_numpy(np.asarray(x, dtype=np.float64))).numpy()

    def exact(self, x: Fraction) -> Number:
        """The value of a rational number: a ``Fraction``, or an mpmath number of :data:`DIGITS` digits."""
        with mpmath.workdps(DIGITS):
            return self.definition.exact(x, *(Fraction(p) for p in self.parameters))

    def odd(self, x: float) -> float:
        """The value rounded to odd in 53 bits: a later rounding to fewer bits is then as good as one of the
        exact value, ties included (S. Boldo and G. Melquiond, "When double rounding is odd", 2005).

        Args:
            x: a finite number.
        """
        value = self.exact(Fraction(x))
        if isinstance(value, mpmath.mpf) and not mpmath.isfinite(value):
            return float(value)
        exact = value if isinstance(value, Fraction) else _fraction(value)
        nearest = float(exact)
        if Fraction(nearest) == exact:
            return nearest
        below = nearest if Fraction(nearest) < exact else math.nextafter(nearest, -math.inf)
        above = math.nextafter(below, math.inf)
        return above if _even(below) else below

    def __str__(self) -> str:
        return self.name + (f"({', '.join(f'{p:g}' for p in self.parameters)})" if self.parameters else "")


def _even(x: float) -> bool:
    """Whether the last bit of the 53-bit significand is 0."""
    significand, _ = math.frexp(x)
    return int(math.ldexp(significand, 53)) % 2 == 0


def _fraction(x: mpmath.mpf) -> Fraction:
    sign, mantissa, exponent, _ = x._mpf_
    value = Fraction(int(mantissa)) * (Fraction(2) ** exponent)
    return -value if sign else value


def _mp(x: Fraction) -> mpmath.mpf:
    return mpmath.mpf(x.numerator) / x.denominator


def _of_mp(function: Callable[..., Number]) -> Callable[..., Number]:
    """A function of mpmath numbers as one of fractions."""
    return lambda x, *parameters: function(_mp(x), *(_mp(p) for p in parameters))


# -- definitions that torch does not have as they are needed here --------------------------------------------


def _reciprocal(x: Tensor) -> Tensor:
    # The gradient of a pole is infinite, and 0 * infinity no number: poles get none.
    safe = torch.where(x == 0, torch.ones_like(x), x)
    return torch.where(x == 0, torch.full_like(x, math.inf), 1.0 / safe)


def _rsqrt(x: Tensor) -> Tensor:
    safe = torch.where(x <= 0, torch.ones_like(x), x)
    return torch.where(x <= 0, torch.full_like(x, math.inf), 1.0 / safe.sqrt())


def _sqrt(x: Tensor) -> Tensor:
    safe = torch.where(x <= 0, torch.ones_like(x), x)
    return torch.where(x <= 0, torch.zeros_like(x), safe.sqrt())


def _log(x: Tensor) -> Tensor:
    safe = torch.where(x <= 0, torch.ones_like(x), x)
    return torch.where(x <= 0, torch.full_like(x, -math.inf), safe.log())


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _elu(x: Tensor, alpha: float) -> Tensor:
    return F.elu(x, alpha)


def _celu(x: Tensor, alpha: float) -> Tensor:
    return F.celu(x, alpha)


def _softplus(x: Tensor, beta: float, threshold: float) -> Tensor:
    return F.softplus(x, beta, threshold)


def _normal(x: mpmath.mpf) -> mpmath.mpf:
    """The distribution function of the normal distribution, without cancellation below 0."""
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _exact_gelu_tanh(x: mpmath.mpf) -> mpmath.mpf:
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x / (1 + mpmath.exp(-2 * inner))


def _exact_softplus(x: Fraction, beta: Fraction, threshold: Fraction) -> Number:
    if x * beta > threshold:
        return x
    b = _mp(beta)
    return mpmath.log1p(mpmath.exp(_mp(x) * b)) / b


def _exact_mish(x: mpmath.mpf) -> mpmath.mpf:
    e = mpmath.exp(x)
    return x * e * (e + 2) / (e * (e + 2) + 2)


def _selu_constants() -> tuple[mpmath.mpf, mpmath.mpf]:
    return mpmath.mpf(1.6732632423543772848170429916717), mpmath.mpf(1.0507009873554804934193349852946)


def _exact_selu(x: mpmath.mpf) -> mpmath.mpf:
    alpha, scale = _selu_constants()
    return scale * x if x > 0 else scale * alpha * mpmath.expm1(x)


def _sigmoid(x: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-x))


def _exact_hardsigmoid(x: Fraction) -> Fraction:
    return min(max(x / 6 + Fraction(1, 2), Fraction(0)), Fraction(1))


_ALPHA = (("alpha", 1.0),)
_DEFINITIONS: dict[str, Definition] = {
    "sigmoid": Definition(torch.sigmoid, _of_mp(_sigmoid), nonnegative=True),
    "tanh": Definition(torch.tanh, _of_mp(mpmath.tanh)),
    "gelu": Definition(F.gelu, _of_mp(lambda x: x * _normal(x))),
    "gelu_tanh": Definition(_gelu_tanh, _of_mp(_exact_gelu_tanh)),
    "silu": Definition(F.silu, _of_mp(lambda x: x * _sigmoid(x))),
    "mish": Definition(F.mish, _of_mp(_exact_mish)),
    "softsign": Definition(F.softsign, lambda x: x / (1 + abs(x))),
    "softplus": Definition(
        _softplus, _exact_softplus, nonnegative=True, parameters=(("beta", 1.0), ("threshold", 20.0))
    ),
    "logsigmoid": Definition(F.logsigmoid, _of_mp(lambda x: -mpmath.log1p(mpmath.exp(-x)))),
    "hardsigmoid": Definition(F.hardsigmoid, _exact_hardsigmoid, nonnegative=True),
    "hardswish": Definition(F.hardswish, lambda x: x * _exact_hardsigmoid(x)),
    "elu": Definition(
        _elu, lambda x, alpha: x if x > 0 else _mp(alpha) * mpmath.expm1(_mp(x)), parameters=_ALPHA
    ),
    "celu": Definition(
        _celu, lambda x, alpha: x if x > 0 else _mp(alpha) * mpmath.expm1(_mp(x / alpha)), parameters=_ALPHA
    ),
    "selu": Definition(F.selu, _of_mp(_exact_selu)),
    "abs": Definition(torch.abs, abs, nonnegative=True),
    "exp": Definition(torch.exp, _of_mp(mpmath.exp), nonnegative=True),
    "exp_negative": Definition(lambda x: torch.exp(-x), _of_mp(lambda x: mpmath.exp(-x)), nonnegative=True),
    "log": Definition(_log, lambda x: mpmath.log(_mp(x)) if x > 0 else -mpmath.inf),
    "sqrt": Definition(_sqrt, lambda x: mpmath.sqrt(_mp(x)) if x > 0 else Fraction(0), nonnegative=True),
    "rsqrt": Definition(
        _rsqrt,
        lambda x: 1 / mpmath.sqrt(_mp(x)) if x > 0 else mpmath.inf,
        nonnegative=True,
    ),
    "reciprocal": Definition(_reciprocal, lambda x: 1 / x if x else mpmath.inf),
    "erf": Definition(torch.erf, _of_mp(mpmath.erf)),
    "sin": Definition(torch.sin, _of_mp(mpmath.sin)),
    "cos": Definition(torch.cos, _of_mp(mpmath.cos)),
}
#: The functions that there are.
NAMES = tuple(_DEFINITIONS)
