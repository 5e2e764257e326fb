"""The C++ types in which tensors of the graph travel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qfx.formats.fixed import FixedPoint
from qfx.graph.tensor import Tensor

#: Binary points beyond this travel as plain integers: ``ap_fixed<8,-90>`` helps nobody who reads the C++.
MAX_POINT = 64


@dataclass(frozen=True)
class CType:
    """An ``ap_fixed`` / ``ap_ufixed`` type: ``width`` bits, ``frac`` of them behind the binary point."""

    width: int
    frac: int
    signed: bool
    rounding: str = "TRN"
    overflow: str = "WRAP"

    def __str__(self) -> str:
        modes = (
            ""
            if (self.rounding, self.overflow) == ("TRN", "WRAP")
            else f",AP_{self.rounding},AP_{self.overflow}"
        )
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width},{self.width - self.frac}{modes}>"

    @property
    def plain(self) -> CType:
        """The same words without rounding and overflow modes."""
        return replace(self, rounding="TRN", overflow="WRAP")


def carries_values(tensor: Tensor) -> bool:
    """Whether the C++ type of a tensor has its binary point; else the words are codes, typed as integers.

    One C++ type cannot have a binary point per channel: such tensors travel as their codes, and the kernels
    know the points.
    """
    return not tensor.format.per_channel and abs(tensor.format.max_frac) <= MAX_POINT


def carrier(tensor: Tensor) -> CType:
    """The type in which a tensor travels; its bits are the code, whichever way it is typed."""
    fmt = tensor.format
    return CType(fmt.width, fmt.max_frac if carries_values(tensor) else 0, fmt.signed)


def casting(fmt: FixedPoint) -> CType:
    """The type whose assignment performs the cast to ``fmt`` (one binary point, not ``WRAP_SM``)."""
    return CType(fmt.width, fmt.max_frac, fmt.signed, fmt.rounding, fmt.overflow)


def integer_width(low: int, high: int) -> int:
    """Bits of the signed integer type that holds ``low .. high``."""
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1
