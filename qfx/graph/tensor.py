"""What is known of a tensor of the graph: shape, format, and the interval of codes that can occur."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint, smallest_format

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph.

    Attributes:
        shape: without the batch axis; axis 0 is the channel axis.
        format: width, signedness and binary point(s) of the codes.
        low, high: per channel, the smallest and largest code that can occur; ``object`` arrays of Python
            integers, shape ``(channels,)``.
        encoding: the number format that every code obeys besides lying in its interval (a code times
            ``2**-frac`` is one of its numbers); ``None`` for plain integers. Hardware may store and move
            the fewer bits of the encoding.
    """

    shape: Shape
    format: FixedPoint
    low: np.ndarray
    high: np.ndarray
    encoding: Format | None = None

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Elements of one sample."""
        return int(np.prod(self.shape))

    @property
    def fracs(self) -> tuple[int, ...]:
        """The binary point of every channel."""
        return self.format.fracs(self.channels)

    @property
    def magnitude(self) -> int:
        """The largest absolute value of any code that can occur."""
        return max(abs(int(self.low.min())), abs(int(self.high.max())))


def one_or_many(fracs: tuple[int, ...]) -> int | tuple[int, ...]:
    """A single binary point when all channels share it."""
    return fracs[0] if len(set(fracs)) == 1 else tuple(int(f) for f in fracs)


def exact_tensor(shape: Shape, fracs: tuple[int, ...] | int, low: np.ndarray, high: np.ndarray) -> Tensor:
    """The tensor of an exact operator: the narrowest format that holds the intervals."""
    frac = fracs if isinstance(fracs, int) else one_or_many(fracs)
    return Tensor(shape, smallest_format(int(low.min()), int(high.max()), frac), low, high)


def full_range(shape: Shape, fmt: Format) -> Tensor:
    """A tensor that can hold any number of a format."""
    if not shape or any(not isinstance(s, int) or s < 1 for s in shape) or len(shape) > 3:
        raise QfxError(
            f"shape {shape}: supported are (features,), (channels, length) and (channels, "
            "height, width), all at least 1"
        )
    fracs = fmt.fracs(shape[0])
    low, high = (integers([bound] * shape[0]) for bound in (fmt.integer_min, fmt.integer_max))
    if isinstance(fmt, FixedPoint):
        return Tensor(shape, fmt, low, high)
    return replace(exact_tensor(shape, fracs, low, high), encoding=fmt)


def integers(values: object) -> np.ndarray:
    """An ``object`` array of Python integers: intervals never overflow."""
    array = np.asarray(values)
    out = np.empty(array.shape, dtype=object)
    flat = [int(v) for v in array.reshape(-1)]
    out.reshape(-1)[:] = flat
    return out
