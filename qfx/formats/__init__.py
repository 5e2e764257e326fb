"""Number formats: what a code means, and what a cast to the format does."""

from qfx.formats.base import Format
from qfx.formats.binary import Binary
from qfx.formats.block import (
    MXFP4,
    MXFP6,
    MXFP8,
    MXINT8,
    Block,
    BlockFloatingPoint,
    DynamicFixedPoint,
)
from qfx.formats.fixed import FixedPoint, smallest_format
from qfx.formats.khot import KHot, PowerOfTwo, Ternary
from qfx.formats.minifloat import Minifloat
from qfx.formats.rounding import OVERFLOW, ROUNDING, cast_codes

__all__ = [
    "MXFP4",
    "MXFP6",
    "MXFP8",
    "MXINT8",
    "OVERFLOW",
    "ROUNDING",
    "Binary",
    "Block",
    "BlockFloatingPoint",
    "DynamicFixedPoint",
    "FixedPoint",
    "Format",
    "KHot",
    "Minifloat",
    "PowerOfTwo",
    "Ternary",
    "cast_codes",
    "smallest_format",
]
