"""Number formats: what a code means, and what a cast to the format does."""

from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint, smallest_format
from qfx.formats.minifloat import Minifloat
from qfx.formats.rounding import OVERFLOW, ROUNDING, cast_codes

__all__ = ["OVERFLOW", "ROUNDING", "FixedPoint", "Format", "Minifloat", "cast_codes", "smallest_format"]
