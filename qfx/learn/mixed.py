"""bfloat16 autocast in training: in the products of a layer, and nowhere else.

A layer's sums of products run in bfloat16 when both operands are exact in it, that is, have at most 8
significant bits; every cast, everything element-wise and all wider operands stay in float32. What training
then computes differs from ``eval()`` by the rounding of each sum to 8 significant bits before the cast behind
it, which rounds once more; ``eval()`` and the frozen graph know no autocast.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from qfx.nn.arrays import QuantConstant, QuantMatMul
from qfx.nn.constant import significant_bits
from qfx.nn.module import Again
from qfx.nn.quantizer import Quantizer
from qfx.nn.weighted import QuantConv, QuantLinear

if TYPE_CHECKING:
    from qfx.learn.training import Call

#: Significant bits of bfloat16 (IEEE 754 style, the hidden one included). Its exponent range is that of
#: float32, in which all training computes, so only they matter.
SIGNIFICANT_BITS = 8


def wanted(device: torch.device) -> bool:
    """Whether the caller is inside ``torch.autocast(device, dtype=torch.bfloat16)``."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


def steps(program: list[Call]) -> frozenset[int]:
    """The steps whose products may run in bfloat16, by their index."""
    bits: list[float] = []
    found = set()
    for n, call in enumerate(program):
        module = _first(call.module)
        operands = [bits[i] for i in call.inputs]
        if isinstance(module, QuantLinear | QuantConv):
            if max(*operands, _bits(module.weight_quantizer)) <= SIGNIFICANT_BITS:
                found.add(n)
        elif isinstance(module, QuantMatMul) and max(operands) <= SIGNIFICANT_BITS:
            found.add(n)
        bits.append(_result_bits(module, operands))
    return frozenset(found)


def _first(module: Any) -> Any:
    return module.module if isinstance(module, Again) else module


def _result_bits(module: Any, operands: list[float]) -> float:
    if isinstance(module, Quantizer):
        return _bits(module)
    if isinstance(module, QuantConstant):
        return _bits(module.value_quantizer)
    # What puts the result on no other grid passes on numbers of its operands, or 0.
    return max(operands) if operands and not module.grows else math.inf


def _bits(quantizer: Quantizer) -> float:
    """Significant bits of the numbers that a quantizer makes; learned widths have no end to count to."""
    return significant_bits(quantizer.fmt) if quantizer._plain and not quantizer.bypass else math.inf


def products(module: Any, operands: list[torch.Tensor], **how: Any) -> torch.Tensor:
    """A step's result with its products in bfloat16, as float32."""
    with torch.autocast(operands[0].device.type, dtype=torch.bfloat16):
        result: torch.Tensor = module(*operands, **how)
    return result.float()
