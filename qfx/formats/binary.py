"""Binary numbers: -1 and 1, in one bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats.scaled import ScaledFormat, checked_frac, is_torch, to_numpy

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Binary(ScaledFormat):
    """-1 and 1, times ``2**-frac``.

    A number of 0 or more (minus zero too) is cast to 1, any other to -1. The code of 1 is 1 and that of -1
    is 0: the product of two numbers is the XNOR of their codes, and a dot product of ``n`` pairs is
    ``2 * popcount(xnor) - n``.

    Args:
        frac: position of the binary point, -256 to 256; one integer, or a sequence with one per channel.
            ``None`` in a :class:`qfx.Config` means: calibrated from data, then learned.

    Source: M. Courbariaux et al., "Binarized neural networks", arXiv 1602.02830, equation 1; M. Rastegari
        et al., "XNOR-Net", arXiv 1603.05279.
    """

    frac: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frac", checked_frac("Binary", self.frac))

    @property
    def width(self) -> int:  # type: ignore[override]
        """1 bit."""
        return 1

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """There is a number below zero."""
        return True

    def with_frac(self, frac: int | Sequence[int] | None) -> Binary:
        """This format with another binary point; ``None`` leaves it open."""
        return replace(self, frac=frac)  # type: ignore[arg-type]

    @property
    def integer_min(self) -> int:
        """-1"""
        return -1

    @property
    def integer_max(self) -> int:
        """1"""
        return 1

    @property
    def dense_below(self) -> float:
        """0: zero is not a number of the format."""
        return 0.0

    @property
    def pass_range(self) -> tuple[float, float]:
        """The straight-through estimator passes gradients where ``|x| <= 1`` (arXiv 1602.02830, equation
        4)."""
        return -1.0, 1.0

    def round_scaled(self, scaled: torch.Tensor) -> torch.Tensor:
        """See :meth:`Format.round_scaled`. NaN stays NaN."""
        import torch

        sign = (scaled >= 0).to(scaled.dtype).mul_(2.0).sub_(1.0)
        return torch.where(scaled.isnan(), scaled, sign)

    def cast_integers(self, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Format.cast_integers`."""
        self.fracs(len(points))
        return np.where(codes >= 0, 1, -1).astype(codes.dtype)

    def members(self, integers: np.ndarray) -> np.ndarray:
        """-1 and 1."""
        return np.asarray(np.abs(integers) == 1, dtype=bool)

    def encode(self, x: Any, axis: int = 0) -> Any:
        """1 where the numbers ``x`` are 0 or more, 0 elsewhere: int64 of the same kind and shape.

        Args:
            x: number, numpy array or torch tensor of any shape, of a floating or integer dtype.
            axis: where the channels are; has no influence.

        Raises:
            QfxError: NaN.
        """
        if is_torch(x):
            import torch

            return torch.from_numpy(self.encode(to_numpy(x), axis)).to(x.device)
        return (self._encoded_integers(x, axis) + 1) >> 1

    def decode(self, codes: Any, axis: int = 0) -> Any:
        """The numbers that codes 0 and 1 stand for: float64 of the same kind (numpy or torch) and shape.

        Args:
            codes: integers of any shape.
            axis: where the channels are, when there is one binary point per channel.

        Raises:
            QfxError: codes other than 0 and 1.
        """
        if is_torch(codes):
            import torch

            if codes.dtype.is_floating_point or codes.dtype.is_complex:
                raise QfxError(f"{self}: codes are integers, found {codes.dtype}")
            return torch.from_numpy(np.asarray(self.decode(to_numpy(codes), axis))).to(codes.device)
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iub" or ((codes != 0) & (codes != 1)).any():
            raise QfxError(f"{self}: codes are 0 and 1")
        return np.ldexp(2.0 * codes - 1.0, -self._shaped_fracs(codes.ndim, axis))

    def __str__(self) -> str:
        if isinstance(self.frac, tuple):
            return f"Binary<frac {min(self.frac)}..{max(self.frac)}>"
        return f"Binary<frac {'?' if self.frac is None else self.frac}>"

    def _all_integers(self) -> np.ndarray:
        return np.array([-1, 1], dtype=np.int64)

    def _project(self, scaled: np.ndarray) -> np.ndarray:
        return np.where(scaled >= 0, 1.0, -1.0)
