"""When floating-point arithmetic is exact, how to keep torch from making it inexact, and exact rounding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

#: Integers below these bounds are exact in each dtype, so sums of them are exact in any order while partial
# sums stay below.
FLOAT32_BOUND = 1 << 24
FLOAT64_BOUND = 1 << 53


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within: float32 means IEEE float32 in matrix products and convolutions, on every backend.

    ``torch.set_float32_matmul_precision`` and the ``fp32_precision`` flags let backends round operands to
    TF32 or bfloat16, and cuDNN may pick Winograd or FFT convolutions; none of these is exact on integers.
    Autocast would do the same. On CPUs, NNPACK (which torch takes when oneDNN is switched off) computes by
    Winograd and FFT too, and an environment variable lets oneDNN round to bfloat16. All flags are restored
    on the way out.
    """
    changes = _changes()
    before = [(set_, get()) for get, set_, _ in changes]
    try:
        for _, set_, value in changes:
            set_(value)
        # Entering torch.autocast costs as much as a small network; most callers have it off anyway.
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                yield
        else:
            yield
    finally:
        for set_, value in before:
            set_(value)


def _changes() -> list[tuple[Callable[[], Any], Callable[[Any], Any], Any]]:
    """What must be set, as (getter, setter, value). Reading is cheap; a setting that is harmless already is
    left alone, since setting them all costs as much as a small layer."""
    backends: Any = torch.backends
    places = [backends.mkldnn.conv, backends.mkldnn.matmul]
    changes: list[tuple[Callable[[], Any], Callable[[Any], Any], Any]] = []
    if torch.cuda.is_available():
        places += [backends.cuda.matmul, backends.cudnn.conv]
        changes.append((torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled, False))
    for place in places:
        if place.fp32_precision not in ("none", "ieee"):
            get, set_ = partial(getattr, place, "fp32_precision"), partial(setattr, place, "fp32_precision")
            changes.append((get, set_, "ieee"))
    if torch._C._get_nnpack_enabled():
        changes.append((torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled, False))
    if _onednn_may_round():
        changes.append((torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, False))
    return changes


def _onednn_may_round() -> bool:
    """Whether the environment lets oneDNN compute float32 in a narrower type, which torch cannot override."""
    names = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
    return any(os.environ.get(name, "STRICT").upper() != "STRICT" for name in names)


def round_(x: torch.Tensor, rounding: str) -> torch.Tensor:
    """Round to integers in place, exactly, in the dtype of ``x``.

    ``x + 0.5`` is not exact next to 0.5 and above the mantissa, and neither is the distance to the floor of
    small negative numbers. The distance to the nearest integer always is, and it tells ties: +0.5 where the
    tie went down, -0.5 where it went up.
    """
    if rounding == "RND_CONV":
        return x.round_()
    if rounding == "TRN":
        return x.floor_()
    if rounding == "TRN_ZERO":
        return x.trunc_()
    nearest = x.round()
    rest = x - nearest
    if rounding == "RND":
        return nearest.add_(rest == 0.5)
    if rounding == "RND_MIN_INF":
        return nearest.sub_((rest == -0.5).to(x.dtype))
    if rounding == "RND_ZERO":
        return nearest.add_((rest == 0.5) & (x < 0)).sub_(((rest == -0.5) & (x > 0)).to(x.dtype))
    assert rounding == "RND_INF"
    return nearest.add_((rest == 0.5) & (x > 0)).sub_(((rest == -0.5) & (x < 0)).to(x.dtype))
