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


def arguments(fmt: Format, axis: int, fracs: tuple[int, int]) -> torch.Tensor | None:
    """A format as the compiled operators take it: 10 numbers, float64. ``None`` for formats that torch
    operators compute.

    Args:
        axis: of the channels.
        fracs: smallest and largest binary point; a frozen one beyond is left to torch.
    """
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
    numbers = (
        axis, ROUNDING.index(fmt.rounding), mantissa, fmt.integer_min, fmt.integer_max, *fmt.pass_range,
        fmt.dense_below, *fracs,
    )  # fmt: skip
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")


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
    # Not by attribute, which torch looks up in three places; this runs in every cast.
    try:
        rms = q._buffers["rms"] if q.gaps else None
        return torch.ops.qfx.cast(
            x, q._buffers["start"], q._parameters["shift"], rms, q.fused_arguments, q.frozen, relu
        )
    except RuntimeError as error:
        # No binary point, or one that float32 cannot be scaled by: the torch operators, or the message of the
        # quantizer.
        if not str(error).startswith("qfx:"):
            raise
        return None


def cast_all(quantizers: list[Quantizer], xs: list[torch.Tensor]) -> list[torch.Tensor] | None:
    """Several casts as one node of the graph of gradients, which pays for small tensors; ``None`` as in
    :func:`cast`. :func:`takes` has said yes to each, and none of the formats has gaps."""
    try:
        return torch.ops.qfx.cast_all(
            xs, [q._buffers["start"] for q in quantizers], [q._parameters["shift"] for q in quantizers],
            [q.fused_arguments for q in quantizers], [q.frozen for q in quantizers],
        )  # fmt: skip
    except RuntimeError as error:
        if not str(error).startswith("qfx:"):
            raise
        return None


def describe() -> dict[str, Any]:
    """How casts of float32 tensors on this machine are computed, for reports of measurements."""
    ok, where = fused_build.status()
    return {"fused": ok, "library": where.rpartition("/")[2]}
