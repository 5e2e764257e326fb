"""Operators whose sums no float type holds: evaluated in 64-bit integers, at the speed of float64 products.

Sums of products of two wide formats (OCP E5M2 times E5M2 takes 57 bits and more) leave float64's 53 bits. The
factors are split so that every partial product sum is an integer below 2**53, which float64 computes exactly
in any order; the parts are put together in int64. All other operators, a cast above all, take the integers
as docs/graph.md defines them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qfx.exact import FLOAT64_BOUND
from qfx.graph import ops
from qfx.graph.graph import Node
from qfx.graph.interpreter import choose_arithmetic, partial_sum_bound
from qfx.graph.reference import evaluate
from qfx.graph.tensor import Tensor
from qfx.nn.module import Exact, QuantModule

_MOST_PIECES = 6


@dataclass
class Wide:
    """A tensor whose codes no float type holds.

    Attributes:
        codes: int64, ``(samples, *shape)``.
        approximate: float64 values with a gradient, or ``None`` when no gradient is wanted.
    """

    codes: torch.Tensor
    approximate: torch.Tensor | None


class IntegerStep:
    """One operator of a prepared model in integers.

    Args:
        node: what the operator is in the graph.
        operands: the graph's tensors that it takes.
    """

    def __init__(self, node: Node, operands: Sequence[Tensor]) -> None:
        self.node = node
        self.operands = tuple(operands)
        self._arithmetic = choose_arithmetic(partial_sum_bound(node, operands))
        #: Whether the result is a :class:`Wide`.
        self.wide = node.tensor.magnitude >= FLOAT64_BOUND
        self._pieces = _Pieces(node.op, operands[0]) if isinstance(node.op, ops.Weighted) else None

    def __call__(self, module: QuantModule, values: Sequence[torch.Tensor | Wide]) -> torch.Tensor | Wide:
        """The result for operands in order: float tensors on their grids, or wide ones."""
        approximate = None
        if torch.is_grad_enabled():
            floats = [v.approximate if isinstance(v, Wide) else v.double() for v in values]
            approximate = module.forward(*floats, exact=Exact(torch.float64))  # type: ignore[arg-type]
        with torch.no_grad():
            codes = [_codes(v, t) for v, t in zip(values, self.operands, strict=True)]
            result = self._evaluate(module, codes)
        if self.wide:
            return Wide(result, approximate)
        y = result.double() / _scale(self.node.tensor, result)
        if approximate is not None:
            y = _Instead.apply(approximate, y)
        # Called for its hooks: the result is there already.
        return module(y, exact=Exact(torch.float64, (y,))) if isinstance(self.node.op, ops.Cast) else y

    def _evaluate(self, module: QuantModule, codes: list[torch.Tensor]) -> torch.Tensor:
        if self._pieces is not None:
            return self._pieces.product(module, codes[0])
        integers: list[Any] = [c.cpu().numpy() for c in codes]
        if self._arithmetic == "object":
            integers = [c.astype(object) for c in integers]
        result = evaluate(self.node, self.operands, integers)
        return torch.from_numpy(result.astype(np.int64)).to(codes[0].device)


class _Pieces:
    """A product with constant weights, split into partial products that float64 holds.

    Numbers are split by magnitude and keep their sign: ``x = x0 + 2**a * x1 + ...`` and
    ``w = w0 + 2**b * w1 + ...`` with all parts of a number of its sign.
    """

    def __init__(self, op: ops.Weighted, x: Tensor) -> None:
        weight, self._bias, _ = ops.weighted_integers(op, x)
        out = op.out_channels
        largest = int(np.abs(weight).max())
        for total in range(1, _MOST_PIECES * _MOST_PIECES + 1):
            for parts in (p for p in range(1, total + 1) if total % p == 0):
                self.x_bits = -(-x.magnitude.bit_length() // parts)
                self.w_bits = max(1, -(-largest.bit_length() // (total // parts)))
                pieces = _split(weight, self.w_bits, total // parts)
                rows = max(int(np.abs(p).reshape(out, -1).sum(axis=1).max()) for p in pieces)
                if rows << self.x_bits < FLOAT64_BOUND:
                    self.x_parts = parts
                    self.weights = [torch.from_numpy(p.astype(np.float64)) for p in pieces]
                    return
        raise AssertionError("62-bit sums split into pieces of a few bits")

    def product(self, module: QuantModule, codes: torch.Tensor) -> torch.Tensor:
        """int64 codes of the result; wrapping sums of int64 are right because the result fits."""
        step, rest = 1 << self.x_bits, codes
        result: torch.Tensor | None = None
        for i in range(self.x_parts):
            last = i == self.x_parts - 1
            part = rest if last else torch.fmod(rest, step)
            rest = (rest - part) // step
            for j, weight in enumerate(self.weights):
                exact = Exact(torch.float64, (weight.to(codes.device),))
                term = module.forward(part.double(), exact=exact).to(torch.int64)
                term = term << (i * self.x_bits + j * self.w_bits)
                result = term if result is None else result + term
        assert result is not None
        if self._bias is None:
            return result
        bias = torch.from_numpy(self._bias.astype(np.int64)).to(codes.device)
        return result + bias.reshape(1, -1, *(1,) * (result.ndim - 2))


def _split(weight: np.ndarray, bits: int, parts: int) -> list[np.ndarray]:
    """Python integers as sums of ``parts`` pieces of ``bits`` bits, the lowest first, each with its sign."""
    magnitude, sign = np.abs(weight), np.where(weight < 0, -1, 1).astype(object)
    return [((magnitude >> (bits * j)) & ((1 << bits) - 1)) * sign for j in range(parts)]


def _codes(value: torch.Tensor | Wide, tensor: Tensor) -> torch.Tensor:
    if isinstance(value, Wide):
        return value.codes
    x = value.detach().double()
    return (x * _scale(tensor, x)).to(torch.int64)


def _scale(tensor: Tensor, like: torch.Tensor) -> torch.Tensor:
    """``2**frac`` of every channel, float64."""
    shape = (1, -1, *(1,) * (like.ndim - 2))
    return torch.from_numpy(np.ldexp(1.0, np.asarray(tensor.fracs))).to(like.device).reshape(shape)


class _Instead(torch.autograd.Function):
    """The exact value, with the gradient of the approximate one."""

    @staticmethod
    def forward(ctx: Any, approximate: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0], None
