"""Number formats: what a code means, and what a cast to the format does."""

from qfx.formats.fixed import FixedPoint, smallest_format
from qfx.formats.rounding import OVERFLOW, ROUNDING, cast_codes

__all__ = ["OVERFLOW", "ROUNDING", "FixedPoint", "cast_codes", "smallest_format"]
