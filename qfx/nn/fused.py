"""The fused quantizer: a cast and its gradient in one pass each, compiled from C++ (docs/training.md).

It computes what :class:`qfx.nn.functional.FakeQuantize` computes: forward on every bit, backward the same
formula. For backward it keeps one byte per number, or two where the binary point is learned, instead of ``x``
and ``y``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.formats.minifloat import Minifloat
from qfx.formats.rounding import ROUNDING
from qfx.nn import fused_build
from qfx.nn.estimators import RANDOM

if TYPE_CHECKING:
    from qfx.nn.quantizer import Quantizer

#: Codes of fixed point, and half a step beyond them, are float32 numbers up to this width.
FIXED_BITS = 23
#: Minifloats whose finest grid is further below their largest number than this leave it to torch.
MINIFLOAT_SPAN = 62
_ALL = -1  # in place of the bits of the significand: every integer in range is a number of the format

Arguments = tuple[int, int, float, float, float, float, float]


def arguments(fmt: Format) -> Arguments | None:
    """A format as the compiled operators take it: rounding mode, bits of the significand, ends of the range,
    ends of what passes a gradient, end of what is dense. ``None`` for those that torch operators compute."""
    mantissa = _ALL
    if isinstance(fmt, FixedPoint):
        if fmt.overflow not in ("SAT", "SAT_SYM") or fmt.integer_max.bit_length() > FIXED_BITS - 1:
            return None
    elif isinstance(fmt, Minifloat):
        if fmt.overflow != "SAT" or fmt.integer_max.bit_length() > MINIFLOAT_SPAN:
            return None
        mantissa = fmt.mantissa_bits if fmt.exponent_bits else _ALL
    else:
        return None
    low, high = fmt.pass_range
    return (
        ROUNDING.index(fmt.rounding), mantissa, float(fmt.integer_min), float(fmt.integer_max), low, high,
        fmt.dense_below,
    )  # fmt: skip


def takes(q: Quantizer, x: torch.Tensor) -> bool:
    """Whether the compiled operators compute the cast of ``x`` in training."""
    return (
        q.fused_arguments is not None
        and x.dtype is torch.float32
        and x.is_cpu
        and (q.estimator == "clipped" or (q.estimator in RANDOM and not q.training))
        and fused_build.load() is None
    )


def cast(q: Quantizer, x: torch.Tensor, relu: bool = False) -> torch.Tensor | None:
    """The cast of a quantizer with its gradients; ``None`` when torch operators have to compute it.

    Args:
        x: float32, on a CPU; :func:`takes` has said yes.
        relu: cast ``max(x, 0)``.
    """
    assert q.fused_arguments is not None
    try:
        return torch.ops.qfx.cast(  # type: ignore[no-any-return]
            x, q.start, q.shift, q.rms if q.gaps else None, q.axis, *q.fused_arguments, *q.learned_range,
            q.frozen, relu,
        )  # fmt: skip
    except RuntimeError as error:
        # No binary point, or one that float32 cannot be scaled by: the torch operators, or the message of the
        # quantizer.
        if not str(error).startswith("qfx:"):
            raise
        return None


def describe() -> dict[str, Any]:
    """How casts of float32 tensors on this machine are computed, for reports of measurements."""
    ok, where = fused_build.status()
    return {"fused": ok, "where": where, "threads": torch.get_num_threads()}
