"""When floating-point arithmetic is exact, and how to keep torch from making it inexact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    TF32 or bfloat16, and cuDNN may pick
    Winograd or FFT convolutions; none of these is exact on integers. Autocast would do the same. All are
    restored on the way out.
    """
    backends: Any = torch.backends
    places = [backends.mkldnn.conv, backends.mkldnn.matmul, backends.cuda.matmul, backends.cudnn.conv]
    before = [place.fp32_precision for place in places]
    cudnn = torch.backends.cudnn.enabled
    try:
        for place in places:
            place.fp32_precision = "ieee"
        torch.backends.cudnn.enabled = False
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
