"""Real functions of one number (sigmoid, GELU, exp, ...) and inverse roots, as the graph computes them."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch

from qfx.approx import Pieces, Real, Table, pieces, roots, table
from qfx.approx.piecewise import MAX_BITS
from qfx.approx.table import MAX_ENTRIES
from qfx.errors import QfxError
from qfx.formats.fixed import FixedPoint
from qfx.graph import functions
from qfx.graph.functions import members_between
from qfx.graph.graph import GraphBuilder
from qfx.graph.kernels import InverseRootKernel, polynomial_sum
from qfx.nn.bound import Bound
from qfx.nn.module import Exact, QuantModule

#: Bits of a table's entries, sign included: as many as float32 holds. The cast behind rounds once more, to
#: far fewer.
ENTRY_BITS = 24
#: Fraction bits that entries keep however large the function becomes ...
_LEAST_FRAC = 17
#: ... and values beyond this power of two that are larger than twice any argument saturate: at poles and in
#: exponentials.
_MOST_INTEGER_BITS = 14
_FINITE = 2.0**40
#: Bits that the result of polynomials has beyond the operand's.
_EXTRA_BITS = 3


class QuantFunction(QuantModule):
    """``table`` or ``piecewise`` of docs/graph.md.

    In training the real function is computed, with its own derivative. In ``eval()`` every code of the
    operand looks up an entry of :data:`ENTRY_BITS` bits or more, up to 2**14 codes; wider operands take
    polynomials of degree 2. The cast behind is part of the table once frozen (:func:`qfx.freeze`).

    Args:
        function: what is computed.
        nonnegative: whether the operand is never below 0.
    """

    grows: ClassVar[bool] = True

    def __init__(self, function: Real, nonnegative: bool = False) -> None:
        super().__init__()
        self.function = function
        self.nonnegative = nonnegative
        self._domain: tuple[int, int, int] | None = None
        self._members: tuple[int, ...] | None = None

    # -- the approximation for an operand --------------------------------------------------------------------

    def _take(self, x: Bound) -> None:
        """Learn what codes there can be."""
        frac = int(x.fracs.max())
        high = math.ceil(float(x.scaled(np.full_like(x.fracs, frac)).max()))
        low = 0 if self.nonnegative else -high
        self._domain, self._members = (frac, low, high), None
        if high - low < MAX_ENTRIES:
            return
        e = x.encoding
        if e is not None and e.has_point and not e.per_channel and hasattr(e, "values"):
            if e.width <= MAX_ENTRIES.bit_length() - 1:
                self._members = tuple(members_between(e, frac, low, high))
                return
        if high - low >= 1 << (MAX_BITS + 1):
            raise QfxError(
                f"{self.function}: the operand can have {high - low + 1} codes; tables have {MAX_ENTRIES} "
                f"entries at most, and polynomials take operands of {MAX_BITS} bits: use a narrower "
                "activation format in front of it"
            )

    def approximation(self) -> Table | Pieces:
        """Entries or polynomials for the operand that :meth:`bound` was asked about last."""
        if self._domain is None:
            raise QfxError(f"{self.function}: the operand's format is not known yet; calibrate and freeze")
        frac, low, high = self._domain
        codes: range | tuple[int, ...] = range(low, high + 1) if self._members is None else self._members
        if len(codes) <= MAX_ENTRIES + 1:
            fmt = entry_format(self.function, np.asarray(codes) * 2.0**-frac, ENTRY_BITS)
            return table(self.function, frac, codes, fmt)
        bits = min(ENTRY_BITS, (high - low).bit_length() + _EXTRA_BITS)
        fmt = entry_format(self.function, np.arange(low, high + 1) * 2.0**-frac, bits)
        return pieces(self.function, frac, low, high, fmt)

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if exact is None:
            y = self.function.torch(x)
            # At a pole the cast behind saturates, but its gradient would be 0 times infinity.
            return y.clamp(-_FINITE, _FINITE) if self.training else y
        with torch.no_grad():
            y = self._exact(x.double()).to(exact.dtype)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return y
        real = self.function.torch(x).clamp(-_FINITE, _FINITE).to(exact.dtype)
        # Exact: a finite number minus itself is 0.
        return y + (real - real.detach())

    def _exact(self, x: torch.Tensor) -> torch.Tensor:
        """float64 values on the grid of the entries."""
        made = self.approximation()
        codes = x * 2.0**made.frac
        if isinstance(made, Pieces):
            coefficients = torch.from_numpy(made.coefficients.astype(np.float64)).to(x.device)
            top, fmt = max(made.fracs), made.format
            factors = [2.0 ** (top - f) for f in made.fracs]
            total = polynomial_sum(codes - made.first, made.shift, coefficients, factors)
            return fmt.round_scaled(total * 2.0 ** (fmt.max_frac - top)) * 2.0**-fmt.max_frac
        values = torch.from_numpy(made.values).to(x.device)
        if self._members is None:
            return values[(codes - int(made.inputs[0])).long()]
        inputs = torch.from_numpy(made.inputs.astype(np.float64)).to(x.device)
        return values[torch.searchsorted(inputs, codes.contiguous())]

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        self._take(x)
        made = self.approximation()
        if isinstance(made, Table):
            largest = int(np.abs(made.entries).max())
        else:
            largest = max(made.format.integer_max, -made.format.integer_min)
        n = x.shape[0]
        return Bound(x.shape, np.full(n, made.format.max_frac), np.full(n, float(largest)))

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        made, x = self.approximation(), builder.tensor(inputs[0])
        documentation = {"function": str(self.function), "max_error": made.max_error}
        if isinstance(made, Pieces):
            op: functions.Table | functions.Piecewise = functions.Piecewise(
                made.frac, made.format, made.first, made.shift, made.coefficients, made.fracs,
                **documentation,  # type: ignore[arg-type]
            )  # fmt: skip
            return builder.add(op, inputs, path)
        # Only what the intervals of the graph, which know more, let occur.
        shifts = [made.frac - f for f in x.fracs]
        low = min(int(v) << s for v, s in zip(x.low, shifts, strict=True))
        high = max(int(v) << s for v, s in zip(x.high, shifts, strict=True))
        kept = (made.inputs >= low) & (made.inputs <= high)
        codes = np.ascontiguousarray(made.inputs[kept])
        listed = self._members is not None
        op = functions.Table(
            made.frac, made.format, 0 if listed else int(codes[0]), codes if listed else None,
            np.ascontiguousarray(made.entries[kept]),
            **documentation,  # type: ignore[arg-type]
        )  # fmt: skip
        return builder.add(op, inputs, path)

    def extra_repr(self) -> str:
        return str(self.function)


def entry_format(function: Real, x: np.ndarray, bits: int) -> FixedPoint:
    """The format of entries for these arguments: ``bits`` bits where the values are moderate, more where
    they are large."""
    values = np.abs(function.float64(x))
    values = values[np.isfinite(values)]
    integer_bits = math.frexp(float(values.max()))[1] if values.size and values.max() > 0 else 0
    reach = math.frexp(float(np.abs(x).max()))[1] + 1 if x.size else 0
    integer_bits = min(integer_bits, max(_MOST_INTEGER_BITS, reach))
    frac = bits - 1 - integer_bits
    width = bits
    if frac < _LEAST_FRAC and bits == ENTRY_BITS:
        width, frac = bits + _LEAST_FRAC - frac, _LEAST_FRAC
    return FixedPoint(width, frac)


class QuantInverseRoot(QuantModule):
    """``inverse_root`` of docs/graph.md: ``factor * (max(x + offset, least))**(-1/root)``.

    Args:
        root: 1 or 2.
        bits: leading bits of the operand that are looked at, beyond the first; the relative error is about
            ``2**-(bits + 1)``.
        factor: a positive number.
        offset: a number that is not negative, rounded to the operand's grid, but not to 0.
        least: a positive number, or 0 for the smallest step of the operand's grid.
    """

    grows: ClassVar[bool] = True

    def __init__(
        self, root: int, bits: int, factor: float = 1.0, offset: float = 0.0, least: float = 0.0
    ) -> None:
        super().__init__()
        self.root, self.bits, self.factor, self.offset, self.least = root, bits, factor, offset, least
        self.made = roots(root, factor, bits, bits + 2 - math.frexp(factor)[1])
        self._point: tuple[int, int] | None = None

    def _constants(self, point: int) -> tuple[int, int]:
        """Offset and least code on a grid."""
        offset = max(1, round(math.ldexp(self.offset, point))) if self.offset > 0 else 0
        return offset, max(1, round(math.ldexp(self.least, point)))

    def _real(self, x: torch.Tensor) -> torch.Tensor:
        x = (x + self.offset).clamp(min=max(self.least, 1e-30))
        return self.factor / (x if self.root == 1 else x.sqrt())

    def forward(self, x: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:  # type: ignore[override]
        if exact is None:
            return self._real(x)
        assert self._point is not None  # bound() comes first
        point, largest = self._point
        made = self.made
        offset, least = self._constants(point)
        with torch.no_grad():
            kernel = InverseRootKernel(
                self.root, self.bits, made.shift, made.coefficients, made.guard, torch.float64
            )
            codes = (x.double() * 2.0**point + offset).clamp_(min=least)
            y = kernel(codes, point, largest) * 2.0 ** -self._result_frac(point, largest)
            y = y.to(exact.dtype)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return y
        real = self._real(x).to(exact.dtype)
        return y + (real - real.detach())

    def _exponent(self, code: int, point: int) -> int:
        e = code.bit_length() - 1
        return e - (e - point) % self.root

    def _result_frac(self, point: int, largest: int) -> int:
        return self.made.frac - (point - largest) // self.root

    def bound(self, *operands: Bound) -> Bound:
        (x,) = operands
        point = int(x.fracs.max())
        offset, least = self._constants(point)
        code = math.ceil(float(x.scaled(np.full_like(x.fracs, point)).max()) * (1 + 1e-6)) + offset
        largest = self._exponent(max(code, least), point)
        self._point = (point, largest)
        steps = (largest - self._exponent(max(offset, least), point)) // self.root
        top = float(np.abs(self.made.coefficients).sum(axis=1).max()) * 2.0**steps
        n = x.shape[0]
        return Bound(
            x.shape,
            np.full(n, self._result_frac(point, largest)),
            np.full(n, top * 2.0**-self.made.guard + 1.0),
        )

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        made = self.made
        offset, least = self._constants(max(builder.tensor(inputs[0]).fracs))
        name = f"{self.factor:g} / {'x' if self.root == 1 else 'sqrt(x)'}"
        op = functions.InverseRoot(
            made.root, made.bits, made.shift, made.coefficients, made.guard, made.frac, offset, least,
            function=name, max_error=made.max_error,
        )  # fmt: skip
        return builder.add(op, inputs, path)

    def extra_repr(self) -> str:
        return f"root={self.root}, bits={self.bits}, factor={self.factor:g}, offset={self.offset:g}"
