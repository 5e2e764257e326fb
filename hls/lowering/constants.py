"""Constants of a layer as hls4ml's values, or as integers of a kernel."""

from __future__ import annotations

import numpy as np

from qfx.errors import UnsupportedError
from qfx.formats.fixed import FixedPoint
from qfx.hls.carriers import CType, integer_width
from qfx.hls.kernels import INDEX, Struct

#: hls4ml's weight files hold doubles.
_EXACT_DOUBLE = 53
#: Tables up to this long are written into the configuration struct, longer ones into weight files.
_SMALL_TABLE = 64


def zeros(n: int) -> np.ndarray:
    """``n`` zeros as Python integers."""
    return np.zeros(n, dtype=object)


def values(codes: np.ndarray, fmt: FixedPoint) -> tuple[np.ndarray, CType]:
    """The values of codes with one binary point, and their C++ type: that of the format."""
    if max(abs(int(codes.min())), abs(int(codes.max()))) > 1 << _EXACT_DOUBLE:
        raise UnsupportedError(f"a constant of {fmt} needs more than {_EXACT_DOUBLE} bits")
    return np.ldexp(codes.astype(np.float64), -fmt.max_frac), CType(fmt.width, fmt.max_frac, fmt.signed)


def values_on_grid(codes: np.ndarray, frac: int) -> tuple[np.ndarray, CType]:
    """The values of integers with binary point ``frac``, and the narrowest C++ type that holds them."""
    entries = [int(c) for c in codes.reshape(-1)]
    trailing = min(((c & -c).bit_length() - 1 for c in entries if c), default=0)
    low, high = min(entries) >> trailing, max(entries) >> trailing
    if max(-low, high) > 1 << _EXACT_DOUBLE:
        raise UnsupportedError(
            f"a constant, aligned to the accumulator, needs more than {_EXACT_DOUBLE} bits"
        )
    signed = low < 0
    width = max(1, integer_width(low, high) - (not signed))
    small = np.array([c >> trailing for c in entries], dtype=np.float64).reshape(codes.shape)
    return np.ldexp(small, trailing - frac), CType(width, frac - trailing, signed)


def kernel_constants(struct: Struct, name: str, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Give a kernel's struct the member function ``name``; return what must go to hls4ml's weight files."""
    check_bits(name, codes)
    exact = max(abs(int(codes.min())), abs(int(codes.max()))) <= 1 << _EXACT_DOUBLE
    if codes.size <= _SMALL_TABLE or not exact:
        struct.table(name, codes)
        return {}
    struct.array(name, f"{name[0]}{INDEX}", f"{name}{INDEX}_t")
    return {name: codes}


def check_bits(name: str, codes: np.ndarray) -> None:
    """C++ literals have 64 bits."""
    if any(int(c).bit_length() > 63 for c in codes.reshape(-1)):
        raise UnsupportedError(
            f"a constant ({name}), aligned to the result, needs more than 64 bits; bring the binary points "
            "of operand, constant and offset closer together"
        )
