"""Constants of a QONNX file: numbers, and the format that quantizers in front of them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.interop.dyadic import codes_at, constant, per_channel_constant
from qfx.interop.problems import Refused

#: Constants without a quantizer must be numbers of so few bits.
PLAIN_BITS = 24


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the input.

    Attributes:
        values: float64, or int64 for shapes and the like.
        format: of a quantized constant; ``None`` for plain numbers.
        axis: where the channels of ``format`` are, when it has one binary point per channel.
        encoding: number format with gaps that the values obey, or ``None``.
    """

    values: np.ndarray
    format: FixedPoint | None = None
    axis: int = 0
    encoding: Format | None = None

    def number(self, what: str) -> float:
        """The only number."""
        if self.values.size != 1:
            raise Refused(f"{what} must be one number, found shape {self.values.shape}")
        return float(self.values.reshape(()))

    def integers(self, what: str) -> list[int]:
        """A list of integers: a shape, or axes."""
        if self.values.dtype != np.int64 or self.values.ndim > 1 or self.values.size > 8:
            raise Refused(
                f"{what} must be a short list of integers, found {self.values.dtype} {self.values.shape}"
            )
        return [int(v) for v in self.values.reshape(-1)]

    def transposed(self, axes: Sequence[int]) -> Constant:
        """With its axes permuted."""
        if sorted(axes) != list(range(self.values.ndim)):
            raise Refused(f"axes {list(axes)} are not a permutation of the axes of shape {self.values.shape}")
        axis = list(axes).index(self.axis) if self.values.ndim else 0
        return replace(self, values=self.values.transpose(axes), axis=axis)

    def reshaped(self, shape: Sequence[int]) -> Constant:
        """With another shape; not when it has a binary point per channel."""
        if self.format is not None and self.format.per_channel:
            raise Refused("reshapes a constant that is quantized per channel")
        try:
            return replace(self, values=self.values.reshape(tuple(shape)))
        except ValueError as error:
            raise Refused(str(error)) from error

    def codes(self) -> tuple[np.ndarray, FixedPoint]:
        """Codes (int64, channels first) and their format.

        Raises:
            Refused: plain numbers of too many bits, or channels elsewhere.
        """
        if self.values.dtype != np.float64 or not self.values.size:
            raise Refused(f"expected numbers, found {self.values.dtype} of shape {self.values.shape}")
        if self.format is None:
            try:
                return constant(self.values, PLAIN_BITS)
            except Refused as refusal:
                raise Refused(f"is not quantized: {refusal}; put a Quant node behind it") from refusal
        if self.format.per_channel and self.axis != 0:
            raise Refused(
                f"is quantized along axis {self.axis}; supported is the axis of the output channels"
            )
        return codes_at(self.values, self.format.frac), self.format  # type: ignore[arg-type]

    def bias_codes(self, least: tuple[int, ...]) -> tuple[np.ndarray, FixedPoint]:
        """As :meth:`codes` for one value per output channel; plain numbers get a binary point each that makes
        them exact, at least ``least``."""
        if self.format is None:
            return per_channel_constant(np.asarray(self.values, dtype=np.float64), least)
        return self.codes()

    def per_channel(self, rank: int, channels: int) -> Constant:
        """As operand of arithmetic with a tensor of ``rank`` axes, batch included: shape ``(channels,)`` or
        ``(1,)``.

        Raises:
            Refused: it differs within a channel.
        """
        shape = (1,) * (rank - self.values.ndim) + self.values.shape
        if (
            len(shape) != rank
            or any(s != 1 for a, s in enumerate(shape) if a != 1)
            or shape[1] not in (1, channels)
        ):
            raise Refused(
                f"a constant of shape {self.values.shape} with a tensor of {channels} channels; one "
                "number, or one per channel is supported"
            )
        fmt = self.format
        return Constant(np.asarray(self.values, np.float64).reshape(shape[1]), fmt, 0, self.encoding)
