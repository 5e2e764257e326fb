"""Block formats: neighbours share a power-of-two scale that is chosen from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import QfxError
from qfx.formats.base import Format
from qfx.formats.fixed import FixedPoint
from qfx.formats.minifloat import Minifloat, bit_length
from qfx.formats.rounding import shift_round
from qfx.formats.scaled import checked_integer, is_torch, real_numbers, refuse_nan, to_numpy

if TYPE_CHECKING:
    import torch

MAX_EXPONENT_BITS = 8
_MAX_ELEMENT_FRAC = 64
_MAX_ELEMENT_BITS = 53  # a double holds every element
_NO_EXPONENT = -(1 << 40)  # the exponent of 0: below any other


@dataclass(frozen=True)
class Block(Format):
    """Numbers of a small format, in blocks that share a power-of-two scale.

    A block is ``size`` neighbours along axis 1: the channels of a data tensor ``(samples, channels, ...)``
    at one place, or the inputs of one output channel at one kernel place in a weight tensor
    ``(out, in, ...)``; the axis that a dot product sums over. The last block may be shorter.

    A cast gives each block the scale ``2**s`` with ``s = floor(log2(max |x|)) - emax``, ``emax`` the
    exponent of the element format's largest number, and ``s`` clamped to what ``exponent_bits`` hold; each
    element is then ``x / 2**s`` cast to the element format, saturating, times ``2**s``. A block of zeros
    stays zero. With an unsigned element, numbers below zero count as zero.

    Args:
        element: a :class:`qfx.FixedPoint` with one explicit ``frac``, or a :class:`qfx.Minifloat` with one
            bias; with saturation.
        size: numbers in a block. ``None``: all of a sample, or of an output channel, is one block.
        exponent_bits: 2 to 8; ``s`` lies in ``-(2**(n-1) - 1) .. 2**(n-1) - 1``, for 8 bits -127..127 as in
            E8M0.

    There is no binary point to learn: :attr:`frac` is 0 and :attr:`has_point` false. A cast's result stays on
    the grid of its operand (:meth:`result_points`), so networks with block formats are computed in
    integers like all others.

    Source: OCP Microscaling Formats (MX) 1.0, sections 5 and 6.3.
    """

    element: FixedPoint | Minifloat
    size: int | None = 32
    exponent_bits: int = 8

    def __post_init__(self) -> None:
        e = self.element
        if not isinstance(e, FixedPoint | Minifloat):
            raise QfxError(f"Block: the element must be a FixedPoint or a Minifloat, found {e!r}")
        if e.frac is None or e.per_channel:
            raise QfxError(
                f"Block: the element {e} needs one explicit binary point (frac= or bias=): it says where the "
                "scale stands to the integers of a block, for example FixedPoint(8, 6)"
            )
        if e.overflow not in ("SAT", "SAT_SYM"):
            raise QfxError(f"Block: the element {e} must saturate; use overflow SAT or SAT_SYM")
        if e.integer_max < 1:
            raise QfxError(f"Block: the element {e} has no number above 0; use more bits")
        if abs(e.max_frac) > _MAX_ELEMENT_FRAC or e.integer_max.bit_length() > _MAX_ELEMENT_BITS:
            raise QfxError(
                f"Block: the element {e} spans {e.integer_max.bit_length()} bits with binary point "
                f"{e.max_frac}; supported are {_MAX_ELEMENT_BITS} bits and points up to {_MAX_ELEMENT_FRAC}"
            )
        if self.size is not None:
            object.__setattr__(self, "size", checked_integer("Block", "size", self.size, 1, 1 << 31))
        bits = checked_integer("Block", "exponent_bits", self.exponent_bits, 2, MAX_EXPONENT_BITS)
        object.__setattr__(self, "exponent_bits", bits)

    # -- shape of the format -----------------------------------------------------------------------------

    @property
    def width(self) -> int:  # type: ignore[override]
        """Bits of an element; the scale of each block takes ``exponent_bits`` more."""
        return self.element.width

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """Whether there are numbers below zero."""
        return self.element.signed

    @property
    def frac(self) -> int:
        """0: reals are cast as they are."""
        return 0

    @property
    def learned(self) -> bool:
        """There is nothing to learn."""
        return False

    @property
    def has_point(self) -> bool:
        """False: the scale comes from the data."""
        return False

    def with_frac(self, frac: int | Sequence[int] | None) -> Block:
        """This format: it has no binary point."""
        return self

    @property
    def emax(self) -> int:
        """Exponent of the largest element: ``floor(log2(element.max))``."""
        return self.element.integer_max.bit_length() - 1 - self.element.max_frac

    @property
    def exponent_max(self) -> int:
        """The largest exponent of a scale; ``-exponent_max`` is the smallest."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def min(self) -> float:
        """The smallest number, with the largest scale."""
        return float(np.ldexp(self.element.min, self.exponent_max))

    @property
    def max(self) -> float:
        """The largest number, with the largest scale."""
        return float(np.ldexp(self.element.max, self.exponent_max))

    @property
    def integer_min(self) -> int:
        """See :attr:`integer_max`."""
        self._refuse_integers()
        raise AssertionError

    @property
    def integer_max(self) -> int:
        """A block format has no grid of its own, and so no integers.

        Raises:
            QfxError: always.
        """
        self._refuse_integers()
        raise AssertionError

    def _refuse_integers(self) -> None:
        raise QfxError(
            f"{self}: a block format has no grid of its own; use min and max for its range, or "
            "integers_and_points() for the integers of an array"
        )

    @property
    def pass_range(self) -> tuple[float, float]:
        """Everything: the scale follows the data, and what saturates is less than one step beyond."""
        return -float("inf"), float("inf")

    # -- casts -------------------------------------------------------------------------------------------

    def round_scaled(self, scaled: torch.Tensor) -> torch.Tensor:
        """See :meth:`Format.round_scaled`; ``scaled`` are the real numbers themselves (``frac`` is 0), and
        so is the result.

        Infinities count as the largest finite number of the dtype. NaN stays NaN; what becomes of the rest
        of its block is not specified. The result is exact, also in float32.
        """
        import torch

        self._check_axes(scaled.ndim)
        top = torch.finfo(scaled.dtype).max
        x = scaled.clamp(-top if self.signed else 0.0, top)
        blocks = self._torch_blocks(x)
        largest = blocks.abs().amax(dim=_axes(blocks.ndim, self.size), keepdim=True)
        exponent = torch.frexp(largest).exponent - 1  # of 0: -1, but any scale will do
        s = (exponent - self.emax).clamp_(-self.exponent_max, self.exponent_max)
        # In two steps: one power of two alone may leave the exponent range of the dtype.
        down = self.element.max_frac - s
        first = down >> 1
        steps = [_powers_of_two(n, x.dtype) for n in (first, down - first)]
        units = blocks * steps[0] * steps[1]
        if self.element.rounding == "TRN":
            # Where scaling underflows, truncation still needs to see a number below zero.
            units = torch.where((units == 0) & (blocks < 0), -(2.0**-100), units)
        y = self.element.round_scaled(units)
        # Dividing is multiplying by the inverse power of two: exact, as the result has few bits.
        y = y.div_(steps[0]).div_(steps[1])
        return self._torch_unblocked(y, x)

    def cast_integers(self, codes: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Format.cast_integers`."""
        self._check_axes(codes.ndim)
        if not codes.size:
            return codes.copy()
        if not self.signed:
            codes = np.maximum(codes, 0)
        place = (1, -1, *(1,) * (codes.ndim - 2))
        p = np.asarray(points, dtype=np.int64).reshape(place)
        r = np.asarray(self.result_points(points), dtype=np.int64).reshape(place)
        lengths = bit_length(codes)
        exponents = np.where(lengths > 0, lengths - 1 - p, _NO_EXPONENT)
        s = np.clip(self._spread(exponents) - self.emax, -self.exponent_max, self.exponent_max)
        return self._cast_with_scale(codes, lengths, p, r, s)

    def _cast_with_scale(
        self, codes: np.ndarray, lengths: np.ndarray, p: np.ndarray, r: np.ndarray, s: np.ndarray
    ) -> np.ndarray:
        """Elements cast with the scales ``2**s``, which broadcast against ``codes`` as all others do.

        In units of the operand: bits below the grid of the element, or beyond its significand, are rounded
        away; then the largest element limits.
        """
        e = self.element
        drop = np.maximum(p + s - e.max_frac, 0)
        if isinstance(e, Minifloat) and e.exponent_bits:
            drop = np.maximum(drop, lengths - (e.mantissa_bits + 1))
        drop, up = drop.astype(codes.dtype), (r - p).astype(codes.dtype)
        if codes.dtype != object:
            # Codes below 2**61 in magnitude are nearest to 0 at this shift and at any larger one.
            drop = np.minimum(drop, 62)
        if isinstance(e, Minifloat):
            rounded = e.rounded(codes, drop, lengths - 1 - (p + s - e.max_frac))
        else:
            rounded = shift_round(codes, drop, e.rounding)[0]
        rounded = (rounded << drop) << up
        shift = s - e.max_frac + r
        return np.minimum(
            np.maximum(rounded, -_limit(-e.integer_min, shift, codes)),
            _limit(e.integer_max, shift, codes),
        )

    def result_points(self, points: tuple[int, ...]) -> tuple[int, ...]:
        """The operand's binary points: the result of a cast lies on the grid of its operand.

        In units of the scale, let the operand lie on a grid ``2**g``, and the element be on a grid
        ``2**-f`` with the largest number ``2**(emax + 1) - 2**z`` (that all element formats have such a
        number is what makes this work).

        * A number that is not saturated is either kept, and then it is on the operand's grid, or rounded to
          a multiple of a power of two that does not divide it, which is then above ``2**g``: a multiple
          of ``2**g``.
        * A number that is saturated is above ``2**(emax + 1) - 2**z`` and, unless the exponent of the scale
          was clamped, below ``2**(emax + 1)``. There is no multiple of ``2**z`` between the two, so
          ``g < z``, and the largest number, a multiple of ``2**z``, is on the operand's grid.

        When ``exponent_bits`` are too few and the scale is clamped to ``2**exponent_max``, numbers beyond
        it become the largest number of the format, a multiple of ``2**(exponent_max + z)``: channels with
        a coarser grid than that have this binary point in the result.
        """
        top = self.element.integer_max
        z = (top & -top).bit_length() - 1 - self.element.max_frac
        return tuple(max(p, -(self.exponent_max + z)) for p in points)

    def units(self, points: tuple[int, ...]) -> tuple[int, ...]:
        """Zeros: :meth:`round_scaled` takes the real numbers."""
        return (0,) * len(points)

    def cast_interval(
        self, low: np.ndarray, high: np.ndarray, points: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Format.cast_interval`.

        With a given scale a cast is monotonic, so the ends of a channel's interval are cast with every scale
        that its block can have then: from the exponent of the end itself (or of the smallest magnitude of a
        neighbour whose interval excludes 0) to the largest exponent of the end and of the neighbours'
        intervals. Smaller scales cannot give more: numbers of a smaller exponent stay below the
        power of two that the end itself reaches.
        """
        if not self.signed:
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        p = np.asarray(points, dtype=np.int64)
        r = np.asarray(self.result_points(points), dtype=np.int64)
        ends = np.stack([low, high]).astype(object)
        lengths = bit_length(ends)
        exponents = np.where(lengths > 0, lengths - 1 - p, _NO_EXPONENT)
        excludes_zero = (ends[0] > 0) | (ends[1] < 0)
        least = np.where(excludes_zero, exponents.min(axis=0), _NO_EXPONENT)
        first = np.maximum(exponents, self._spread(least[None])[0])
        last = np.maximum(exponents, self._largest_of_neighbours(exponents.max(axis=0)))
        best = None
        if (last > _NO_EXPONENT).any():
            lowest = -self.exponent_max + self.emax
            start = max(int(first[first > _NO_EXPONENT].min()), lowest)
            stop = min(int(last.max()), self.exponent_max + self.emax)
            for exponent in range(min(start, stop), stop + 1):
                # Outside its own range of exponents an end repeats the nearest one that can occur.
                e = np.clip(exponent, first, np.maximum(first, last))
                s = np.clip(e - self.emax, -self.exponent_max, self.exponent_max)
                result = self._cast_with_scale(ends, lengths, p, r, s)
                if best is None:
                    best = result
                else:
                    best = np.stack([np.minimum(best[0], result[0]), np.maximum(best[1], result[1])])
        if best is None:
            best = ends * 0
        return best[0], best[1]

    def members(self, integers: np.ndarray) -> np.ndarray:
        """Whether the block of each integer has a common scale with which all of it are elements.

        Args:
            integers: shape ``(samples or output channels, channels, ...)``, in any unit: only the ratios of
                the numbers of a block count. Whether ``exponent_bits`` hold the scale depends on the unit
                and is not looked at.
        """
        self._check_axes(integers.ndim)
        e = self.element
        values = integers.astype(object)
        nonzero = values != 0
        trailing = np.where(nonzero, bit_length(values & -values) - 1, -_NO_EXPONENT)
        # The largest scale that divides a block gives its elements the widest range.
        s = -self._spread(-trailing)
        s = np.where(s == -_NO_EXPONENT, 0, s).astype(object)
        inside = (values >= (e.integer_min << s)) & (values <= (e.integer_max << s))
        if isinstance(e, Minifloat) and e.exponent_bits:
            inside &= ~nonzero | (bit_length(values) - trailing <= e.mantissa_bits + 1)
        return self._spread((~inside.astype(bool)).astype(np.int64)) == 0

    # -- the values --------------------------------------------------------------------------------------

    def quantize(self, x: Any, axis: int = 0) -> Any:
        """The numbers that ``x`` is cast to.

        Args:
            x: numpy array or torch tensor with at least two axes; blocks run along axis 1.
            axis: has no influence: there is no binary point per channel.

        Returns:
            the kind and shape of ``x``, float64. NaN stays NaN and does not count for its block; infinities
            saturate. No gradient.
        """
        if is_torch(x):
            import torch

            return torch.from_numpy(self.quantize(to_numpy(x))).to(x.device)
        wide, s = self._scales(np.asarray(x))
        return np.ldexp(self.element.quantize(_divided(wide, s)), s)

    def encode(self, x: Any, axis: int = 0) -> tuple[Any, Any]:
        """The codes of the elements and the exponents of the scales.

        Args:
            x: numpy array or torch tensor with at least two axes, no NaN.
            axis: has no influence.

        Returns:
            (codes, exponents): element codes, int64 of the shape of ``x``; the exponents ``s``, int64, with
            one entry per block along axis 1 (for ``size=None`` all axes but 0 have one entry). A block of
            zeros has the smallest exponent. The E8M0 code of an exponent is ``s + 127``.

        Raises:
            QfxError: NaN.
        """
        if is_torch(x):
            import torch

            codes, exponents = self.encode(to_numpy(x))
            return torch.from_numpy(codes).to(x.device), torch.from_numpy(exponents).to(x.device)
        array = np.asarray(x)
        refuse_nan(self, real_numbers(self, array))
        wide, s = self._scales(array)
        codes = np.asarray(self.element.encode(_divided(wide, s)))
        if self.size is None:
            return codes, s[(slice(None), *(slice(0, 1),) * (s.ndim - 1))]
        return codes, s[:, :: self.size]

    def decode(self, codes: Any, exponents: Any) -> Any:
        """The numbers of what :meth:`encode` gives: float64 of the kind and shape of ``codes``.

        Raises:
            QfxError: shapes that do not match, an exponent out of range, a code that the element refuses.
        """
        if is_torch(codes):
            import torch

            return torch.from_numpy(self.decode(to_numpy(codes), to_numpy(exponents))).to(codes.device)
        codes, exponents = np.asarray(codes), np.asarray(exponents)
        self._check_axes(codes.ndim)
        count = 1 if self.size is None else -(-codes.shape[1] // self.size)
        rest = (1,) * (codes.ndim - 2) if self.size is None else codes.shape[2:]
        if exponents.shape != (codes.shape[0], count, *rest):
            raise QfxError(
                f"{self}: exponents of shape {exponents.shape} for codes of shape {codes.shape}, expected "
                f"{(codes.shape[0], count, *rest)}"
            )
        if exponents.size and int(np.abs(exponents).max()) > self.exponent_max:
            raise QfxError(f"{self}: scale exponents lie in -{self.exponent_max}..{self.exponent_max}")
        if self.size is not None:
            exponents = np.repeat(exponents, self.size, axis=1)[:, : codes.shape[1]]
        return np.ldexp(self.element.decode(codes), exponents)

    def integers(self, x: Any, axis: int = 0) -> np.ndarray:
        """Refused: see :meth:`integers_and_points`."""
        self._refuse_integers()
        raise AssertionError

    def integers_and_points(self, x: Any) -> tuple[np.ndarray, tuple[int, ...]]:
        """The numbers that a weight tensor is cast to as integers of one grid per output channel.

        Args:
            x: numpy array or torch tensor ``(out, in, ...)``.

        Returns:
            (integers, points): int64 of the same shape, and the largest binary point of each output channel
            that makes them integers, so that output channel ``o`` is ``integers[o] * 2**-points[o]``.

        Raises:
            QfxError: NaN; an output channel whose numbers span more than 62 bits.
        """
        numbers = np.asarray(self.quantize(to_numpy(x) if is_torch(x) else x))
        refuse_nan(self, numbers)
        mantissa, exponent = np.frexp(numbers)
        whole = np.ldexp(mantissa, 53).astype(np.int64)
        trailing = bit_length(whole & -whole) - 1
        rows = (numbers.shape[0], -1)
        # The exponent of the lowest one of each number.
        lowest = np.where(numbers != 0, exponent - 53 + trailing, -_NO_EXPONENT).reshape(rows).min(axis=1)
        highest = np.where(numbers != 0, exponent, _NO_EXPONENT).reshape(rows).max(axis=1)
        lowest = np.where(lowest == -_NO_EXPONENT, 0, lowest)
        wide = np.argwhere(highest - lowest > 62)
        if len(wide):
            o = int(wide[0, 0])
            raise QfxError(
                f"{self}: the blocks of output channel {o} span {int(highest[o] - lowest[o])} bits, and "
                "tensors hold 62; scale the weights, or use elements with fewer exponent bits"
            )
        shape = (-1, *(1,) * (numbers.ndim - 1))
        return np.ldexp(numbers, -lowest.reshape(shape)).astype(np.int64), tuple(int(-e) for e in lowest)

    def __str__(self) -> str:
        where = "all" if self.size is None else str(self.size)
        return f"Block<{self.element} x {where}, scale {self.exponent_bits} bits>"

    # -- helpers -----------------------------------------------------------------------------------------

    def _check_axes(self, ndim: int) -> None:
        if ndim < 2:
            raise QfxError(
                f"{self}: blocks run along axis 1; an array of {ndim} axes has none (biases and scales of "
                "affine need another format)"
            )

    def _scales(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``x`` as finite float64 or NaN, and the exponent of the scale of every element."""
        self._check_axes(x.ndim)
        wide = real_numbers(self, x)
        top = np.finfo(np.float64).max
        wide = np.clip(wide, -top if self.signed else 0.0, top)
        number = np.where(np.isnan(wide), 0.0, wide)
        exponents = np.where(number != 0, np.frexp(number)[1].astype(np.int64) - 1, _NO_EXPONENT)
        s = np.clip(self._spread(exponents) - self.emax, -self.exponent_max, self.exponent_max)
        return wide, s

    def _spread(self, values: np.ndarray) -> np.ndarray:
        """The largest value of each block, at every place of the block."""
        if not values.size:
            return values
        if self.size is None:
            largest = values.max(axis=tuple(range(1, values.ndim)), keepdims=True)
            return np.broadcast_to(largest, values.shape)
        starts = np.arange(0, values.shape[1], self.size)
        largest = np.maximum.reduceat(values, starts, axis=1)
        return np.repeat(largest, self.size, axis=1)[:, : values.shape[1]]

    def _largest_of_neighbours(self, values: np.ndarray) -> np.ndarray:
        """Per channel the largest value of the other channels of its block. When all places of a sample form
        one block, a channel is its own neighbour."""
        if self.size is None:
            return self._spread(values[None])[0]
        starts = np.arange(0, len(values), self.size)
        largest = self._spread(values[None])[0]
        at_top = values == largest
        ties = np.repeat(np.add.reduceat(at_top.astype(np.int64), starts), self.size)[: len(values)] > 1
        second = self._spread(np.where(at_top, _NO_EXPONENT, values)[None])[0]
        return np.where(at_top & ~ties, second, largest)

    def _torch_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, blocks, size, ...)``, padded with zeros."""
        import torch.nn.functional as F

        if self.size is None or self.size >= x.shape[1]:
            return x.unsqueeze(1)
        missing = -x.shape[1] % self.size
        if missing:
            x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
        return x.reshape(x.shape[0], -1, self.size, *x.shape[2:])

    def _torch_unblocked(self, y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return y.flatten(1, 2)[:, : like.shape[1]]


def MXINT8() -> Block:  # noqa: N802
    """OCP MXINT8: blocks of 32 numbers of 8 bits with 6 fraction bits, -127/64 to 127/64.

    The code of -2 is not used, as the specification allows (section 5.3): with it, casting twice could
    differ from casting once.
    """
    return Block(FixedPoint(8, 6, overflow="SAT_SYM"))


def MXFP8(name: str = "e4m3") -> Block:  # noqa: N802
    """OCP MXFP8: blocks of 32 numbers of FP8, ``"e4m3"`` or ``"e5m2"``."""
    return _microscaling("MXFP8", name, {"e4m3": (4, 3, "fn"), "e5m2": (5, 2, "ieee")})


def MXFP6(name: str = "e2m3") -> Block:  # noqa: N802
    """OCP MXFP6: blocks of 32 numbers of FP6, ``"e2m3"`` or ``"e3m2"``."""
    return _microscaling("MXFP6", name, {"e2m3": (2, 3, "none"), "e3m2": (3, 2, "none")})


def MXFP4() -> Block:  # noqa: N802
    """OCP MXFP4: blocks of 32 numbers of E2M1."""
    return _microscaling("MXFP4", "e2m1", {"e2m1": (2, 1, "none")})


def BlockFloatingPoint(mantissa_width: int, size: int = 32, exponent_bits: int = 8) -> Block:  # noqa: N802
    """Block floating point: blocks of ``size`` signed integers of ``mantissa_width`` bits (at least 2, sign
    included) with one exponent; the range is symmetric.

    Source: J. H. Wilkinson, "Rounding Errors in Algebraic Processes", 1963; M. Drumond et al., "Training
        DNNs with hybrid block floating point", arXiv 1804.01526.
    """
    bits = checked_integer("BlockFloatingPoint", "mantissa_width", mantissa_width, 2, 32)
    return Block(FixedPoint(bits, bits - 2, overflow="SAT_SYM"), size, exponent_bits)


def DynamicFixedPoint(width: int) -> Block:  # noqa: N802
    """Signed fixed point of ``width`` bits (at least 2) whose binary point is chosen for each sample at run
    time, from its largest magnitude; in weights, for each output channel. The range is symmetric.

    Source: P. Gysel et al., "Hardware-oriented approximation of convolutional neural networks", arXiv
        1604.03168, where the point is chosen once per layer.
    """
    bits = checked_integer("DynamicFixedPoint", "width", width, 2, 32)
    return Block(FixedPoint(bits, bits - 2, overflow="SAT_SYM"), None)


def _microscaling(family: str, name: str, known: dict[str, tuple[int, int, str]]) -> Block:
    found = known.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise QfxError(f"{family}: unknown element {name!r}; supported: {', '.join(known)}")
    e, m, specials = found
    return Block(Minifloat(e, m, 2 ** (e - 1) - 1, specials=specials))


def _axes(ndim: int, size: int | None) -> tuple[int, ...]:
    """Which axes of ``(n, blocks, size, ...)`` belong to one block."""
    return (2,) if size is not None else tuple(range(1, ndim))


def _powers_of_two(exponents: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``2**n`` built from its bits: ``torch.ldexp`` and ``pow`` need not be exact."""
    import torch

    if dtype == torch.float32:
        return ((exponents.to(torch.int32) + 127) << 23).view(torch.float32)
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


def _divided(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """``x / 2**s``; what underflows keeps its sign and that it is not zero."""
    with np.errstate(under="ignore", over="ignore"):
        y = np.ldexp(x, -s)
    return np.where((y == 0) & (x != 0), np.copysign(2.0**-1000, x), y)


def _limit(integer: int, shift: np.ndarray, like: np.ndarray) -> np.ndarray:
    """``integer * 2**shift`` rounded down. On the int64 route 2**62 is beyond every number."""
    if like.dtype == object:
        up, down = np.maximum(shift, 0).astype(object), np.maximum(-shift, 0).astype(object)
        return (integer << up) >> down
    room = 62 - integer.bit_length()
    small = np.right_shift(integer, np.clip(-shift, 0, 63))
    large = np.left_shift(integer, np.clip(shift, 0, room))
    return np.where(shift > room, 1 << 62, np.where(shift > 0, large, small)).astype(np.int64)
