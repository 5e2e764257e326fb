"""What a prepared model will cost as hardware, as a number to minimise (docs/widths.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.graph.ebops import check_per, constant_bits, inside
from qfx.learn.model import QuantizedModel
from qfx.nn.affine import QuantAffine
from qfx.nn.bound import Bound
from qfx.nn.elementwise import QuantBinary, QuantLeakyReLU, QuantReLU
from qfx.nn.module import Again, QuantModule
from qfx.nn.pool import QuantAvgPool, QuantMaxPool
from qfx.nn.quantizer import Quantizer
from qfx.nn.shape import QuantReshape, QuantTranspose
from qfx.nn.weighted import QuantConv, QuantWeighted
from qfx.nn.width import ActivationWidthQuantizer, WeightWidthQuantizer


class ResourceModel(Protocol):
    """What one multiplier costs, and one adder."""

    def multiplier(self, constant_bits: torch.Tensor, operand_bits: torch.Tensor) -> torch.Tensor:
        """The cost of multiplications of a constant by a tensor, element by element, with a gradient.

        Args:
            constant_bits: bits of the constants, sign and zeros at either end apart; 0 for a constant 0, for
                which the cost must be 0; any shape.
            operand_bits: bits of the tensor, sign included; broadcasts.
        """
        ...

    def adder(self, bits: torch.Tensor) -> torch.Tensor:
        """The cost of additions that are not part of a layer's sum of products."""
        ...


class EBOPs:
    """Effective bit operations: a multiplier costs the product of its operands' bits, an adder its bits.

    Source: C. Sun et al., arXiv:2405.00645, section III.
    """

    def multiplier(self, constant_bits: torch.Tensor, operand_bits: torch.Tensor) -> torch.Tensor:
        return constant_bits * operand_bits

    def adder(self, bits: torch.Tensor) -> torch.Tensor:
        return bits


class MeasuredCost:
    """Costs from a table of measurements, linear between them, for look-up tables or DSP blocks.

    Args:
        multiplier: ``multiplier[w][a]`` is what a multiplier of ``w`` by ``a`` bits costs, from 0 bits on.
            Beyond the table its last slope goes on.
        adder: ``adder[b]`` likewise.

    Raises:
        QfxError: fewer than two entries along an axis, or a constant 0 that costs something.
    """

    def __init__(self, multiplier: Sequence[Sequence[float]], adder: Sequence[float]) -> None:
        self._multiplier = torch.as_tensor(multiplier, dtype=torch.float32)
        self._adder = torch.as_tensor(adder, dtype=torch.float32)
        if self._multiplier.ndim != 2 or min(*self._multiplier.shape, len(self._adder)) < 2:
            raise QfxError(
                "MeasuredCost: the tables must reach from 0 bits to at least 1 along each axis, found shapes "
                f"{tuple(self._multiplier.shape)} and {tuple(self._adder.shape)}"
            )
        if bool(self._multiplier[0].any()) or bool(self._multiplier[:, 0].any()):
            raise QfxError(
                "MeasuredCost: a multiplier without bits must cost 0: row 0 and column 0 are zeros"
            )

    def multiplier(self, constant_bits: torch.Tensor, operand_bits: torch.Tensor) -> torch.Tensor:
        table = self._multiplier.to(constant_bits.device)
        w, a = torch.broadcast_tensors(constant_bits, operand_bits)
        i, j = _cell(w, table.shape[0]), _cell(a, table.shape[1])
        s, t = w - i, a - j
        near = (1 - t) * table[i, j] + t * table[i, j + 1]
        far = (1 - t) * table[i + 1, j] + t * table[i + 1, j + 1]
        return (1 - s) * near + s * far

    def adder(self, bits: torch.Tensor) -> torch.Tensor:
        table = self._adder.to(bits.device)
        i = _cell(bits, len(table))
        return table[i] + (bits - i) * (table[i + 1] - table[i])


def _cell(bits: torch.Tensor, size: int) -> torch.Tensor:
    return bits.detach().floor().long().clamp(0, size - 2)


class ResourceLoss:
    """The cost of a prepared model as it is now, differentiable in every learned width.

    With :class:`EBOPs` it is what :func:`qfx.ebops` counts on the frozen graph, less what the graph knows and
    a quantizer does not: channels that never change, and intervals narrower than their words. It never counts
    less.

    Args:
        q: a prepared model; calibrated when the loss is called.
        model: what multipliers and adders cost.
        per: as in :func:`qfx.ebops`.

    Raises:
        QfxError: ``per`` is unknown, or ``q`` is not prepared.
    """

    def __init__(self, q: QuantizedModel, model: ResourceModel | None = None, per: str = "kernel") -> None:
        check_per(per)
        if not isinstance(q, QuantizedModel):
            raise QfxError(
                f"resource loss: expected what qfx.prepare returned, found {type(q).__name__} (of a "
                "DistributedDataParallel, give .module)"
            )
        self.q = q
        self.model: ResourceModel = EBOPs() if model is None else model
        self.per = per
        self._bounds: list[Bound] | None = None

    def __call__(self) -> torch.Tensor:
        """A scalar."""
        if self._bounds is None:
            # Shapes never change; the widths of results that are not cast hardly do.
            self._bounds = self.q._qfx_bounds()
        bounds = self._bounds
        total = torch.zeros((), device=next(self.q.parameters()).device)
        bits: list[torch.Tensor] = []
        for index, (step, module) in enumerate(self.q._qfx_items()):
            if isinstance(module, Again):
                module = module.module
            operands = [bits[i] for i in step.inputs]
            shapes = [bounds[i].shape for i in step.inputs]
            bits.append(_result_bits(module, operands, bounds[index]).to(total.device))
            total = total + self._cost(module, operands, shapes, bounds[index].shape)
        return total

    def _cost(
        self,
        module: QuantModule,
        bits: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],
        result: tuple[int, ...],
    ) -> torch.Tensor | float:
        copies = int(np.prod(result[1:])) if self.per == "inference" else 1
        if isinstance(module, QuantWeighted):
            cost = self.model.multiplier(constants(module.weight_quantizer, module.weight), bits[0])
            if isinstance(module, QuantConv) and self.per == "inference":
                kernel = tuple(int(k) for k in module.weight.shape[2:])
                times = inside(shapes[0][1:], kernel, module.stride, module.padding, module.dilation)
                cost = cost * torch.from_numpy(times).to(cost)
            total = cost.sum()
            if module.bias is not None and module.bias_quantizer is not None:
                total = total + copies * self.model.adder(constants(module.bias_quantizer, module.bias)).sum()
            return total
        if isinstance(module, QuantAffine):
            scale, offset = module.terms()
            scales, offsets = (
                constants(module.scale_quantizer, scale),
                constants(module.offset_quantizer, offset),
            )
            each = self.model.multiplier(_alone(scales), bits[0]) + self.model.adder(offsets)
            return copies * each.expand(result[0]).sum()
        if isinstance(module, QuantBinary):
            a, b = bits
            product = module.kind == "mul"
            each = self.model.multiplier(a, b) if product else self.model.adder(torch.maximum(a, b))
            return copies * result[0] * each
        if isinstance(module, QuantLeakyReLU):
            return copies * result[0] * self._scaled(module.slope_code, bits[0])
        if isinstance(module, QuantAvgPool):
            places = int(np.prod(module.kernel))
            scaled = self._scaled(module.scale_code, bits[0] + float(np.ceil(np.log2(places))))
            return copies * result[0] * ((places - 1) * self.model.adder(bits[0]) + scaled)
        return 0.0

    def _scaled(self, code: int, bits: torch.Tensor) -> torch.Tensor:
        factor = torch.tensor(float(constant_bits(np.asarray(code))), device=bits.device)
        return self.model.multiplier(_alone(factor), bits)


def resource_loss(q: QuantizedModel, model: ResourceModel | None = None, per: str = "kernel") -> torch.Tensor:
    """The cost of a prepared model once; in a training loop make a :class:`ResourceLoss` before it."""
    return ResourceLoss(q, model, per)()


def constants(quantizer: Quantizer, values: torch.Tensor) -> torch.Tensor:
    """Bits of constants as :func:`qfx.ebops` counts them, in the dtype and shape of ``values``; with a
    gradient where their widths are learned."""
    if isinstance(quantizer, WeightWidthQuantizer):
        return quantizer.bits(values)
    codes = quantizer.constant(values).codes
    return torch.from_numpy(constant_bits(codes)).to(values)


def _alone(bits: torch.Tensor) -> torch.Tensor:
    """Bits of multipliers whose product is not added to others: a power of two is a mere shift."""
    return torch.where(bits == 1, 0.0, bits)


def _result_bits(module: QuantModule, operands: Sequence[torch.Tensor], bound: Bound) -> torch.Tensor:
    """The bits of a tensor, sign included."""
    if isinstance(module, ActivationWidthQuantizer):
        return module.bits()
    if isinstance(module, Quantizer):
        fmt: Any = module.format
        if fmt.has_point:
            low, high = fmt.integer_min, fmt.integer_max
            return torch.tensor(float(max(high.bit_length(), (-low - 1).bit_length()) + (low < 0)))
    if isinstance(module, QuantMaxPool | QuantReshape | QuantTranspose):
        return operands[0]
    if isinstance(module, QuantReLU) and operands[0].requires_grad:
        return operands[0]
    largest = float(bound.magnitude.max())
    return torch.tensor(float(np.ceil(np.log2(largest + 1.0))) + 1.0)
