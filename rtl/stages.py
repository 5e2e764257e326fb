"""Graph nodes as stages of hardware, before folding.

A *stage* is one operation on streams with everything decided but its parallelism; a *value* is what travels
between stages. Folding (:mod:`qfx.rtl.fold`) chooses the parallelism of each stage, :mod:`qfx.rtl.build`
turns stages into kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Value:
    """What travels on the streams between two stages.

    Two values of one name are one stream that is read in two ways: a reshape, or a cast that changes no code.

    Attributes:
        name: of the stream, safe as an identifier.
        node: the graph node whose tensor this is, or ``None`` when it is only an operand on its way (aligned
            to another binary point).
        pixels, channels: of a frame; beats do not cross pixels.
        width, signed: of an element.
        order: row-major index in the tensor's shape of the element at each stream position, ``(pixels *
            channels,)``.
        fracs: binary point of each channel of the stream, ``(channels,)``.
    """

    name: str
    node: str | None
    pixels: int
    channels: int
    width: int
    signed: bool
    order: np.ndarray = field(repr=False)
    fracs: tuple[int, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """Elements of a frame."""
        return self.pixels * self.channels


@dataclass(frozen=True, eq=False)
class Stage:
    """Base of all stages: the graph node it belongs to, and the values it takes and makes."""

    node: str
    inputs: tuple[Value, ...]
    output: Value


@dataclass(frozen=True)
class Geometry:
    """A sliding window; one-dimensional data has one row."""

    in_h: int
    in_w: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def pixels(self) -> int:
        return self.out_h * self.out_w

    @property
    def is_identity(self) -> bool:
        """Every window is one pixel, each pixel in turn: no window kernel is needed."""
        same = (self.in_h, self.in_w) == (self.out_h, self.out_w)
        return (
            same
            and self.taps == 1
            and self.stride_h == self.stride_w == 1
            and self.pad_top == self.pad_left == 0
        )

    @property
    def is_padded(self) -> bool:
        """Whether a window reaches beyond the image."""
        bottom = (self.out_h - 1) * self.stride_h + (self.kernel_h - 1) * self.dilation_h - self.pad_top
        right = (self.out_w - 1) * self.stride_w + (self.kernel_w - 1) * self.dilation_w - self.pad_left
        return self.pad_top > 0 or self.pad_left > 0 or bottom >= self.in_h or right >= self.in_w

    @property
    def is_whole(self) -> bool:
        """One window that is the whole image in order."""
        return (
            self.pixels == 1
            and (self.kernel_h, self.kernel_w) == (self.in_h, self.in_w)
            and (self.dilation_h == 1 or self.kernel_h == 1)
            and (self.dilation_w == 1 or self.kernel_w == 1)
            and self.pad_top == self.pad_left == 0
        )


@dataclass(frozen=True, eq=False)
class MatVec(Stage):
    """``linear`` and ``conv`` with dense groups.

    Attributes:
        weight: ``object`` integers ``(groups, outputs of a group, elements of a group's window)``, in stream
            order (tap, channel), without ``shift``.
        bias: ``object`` integers ``(channels,)`` on the result's binary point, or ``None``.
        shift: trailing zero bits that all weights share on the result's binary point.
        window: ``None`` where each pixel is a window.
        arithmetic: parameters of ``qfx_dot``; ``weight`` holds the codes that they ask for, ``weight_width``
            bits each, and the input's elements are in theirs.
        integers: the weights as integers, as ``weight`` would have them without codes, where the elements of
            the input are integers; otherwise ``None``.
        scales: shifts that neighbouring weights share, ``int64`` ``(groups, outputs, columns // run)``, or
            ``None``: a weight is its code's number shifted left by the scale of its ``run`` columns.
        otherwise: the same matrix without scales, for folds in which that is cheaper; it takes the same
            elements.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    weight_width: int
    weight_signed: bool
    shift: int
    window: Geometry | None
    arithmetic: Mapping[str, int]
    integers: np.ndarray | None = None
    scales: np.ndarray | None = None
    otherwise: MatVec | None = None

    @property
    def run(self) -> int:
        """Columns that share a scale."""
        assert self.scales is not None
        return self.columns // int(self.scales.shape[2])

    @property
    def groups(self) -> int:
        return int(self.weight.shape[0])

    @property
    def rows(self) -> int:
        """Outputs of a group."""
        return int(self.weight.shape[1])

    @property
    def columns(self) -> int:
        """Inputs of a group: taps times channels."""
        return int(self.weight.shape[2])

    @property
    def rounds(self) -> int:
        """Output pixels."""
        return self.output.pixels


@dataclass(frozen=True, eq=False)
class Depthwise(Stage):
    """``conv`` with one channel in and one out per group. ``weight``: ``(taps, channels)``; all as in
    :class:`MatVec`.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    weight_width: int
    weight_signed: bool
    shift: int
    window: Geometry
    arithmetic: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Pool(Stage):
    """``max_pool`` (``scale`` is ``None``) and ``avg_pool``; ``codes``: elements come and go as codes."""

    window: Geometry
    scale: int | None
    codes: bool = False


@dataclass(frozen=True, eq=False)
class Elementwise(Stage):
    """One beat in, one beat out.

    Attributes:
        module: the kernel.
        parameters: those that do not depend on the fold.
        tables: per-channel constants: parameter that names the file -> (``object`` integers ``(channels,)``
            in stream order, bits of each).
        group: channels that have to be in one beat: a beat holds whole groups of a pixel.
    """

    module: str
    parameters: Mapping[str, int | str]
    tables: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    group: int = 1


@dataclass(frozen=True, eq=False)
class Decode(Elementwise):
    """Codes to integers; ``ahead``: on the way to a join, whose FIFO stands in front of this stage and so
    holds codes.
    """

    ahead: bool = False


@dataclass(frozen=True, eq=False)
class Binary(Stage):
    """``add``, ``sub``, ``mul``; ``mode`` as in ``qfx_binary``; ``shifts``: left shifts of the operands;
    ``direct``: operands that have their FIFO in front of a :class:`Decode`.
    """

    mode: int
    shifts: tuple[int, int]
    direct: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Concat(Stage):
    """The channels of operand 0, then those of operand 1; both have the result's element format.

    ``waits``: operand 0 depends on no input, so its beats are there before the frame is; they pass when the
    frame's are there.
    """

    waits: bool = False


@dataclass(frozen=True, eq=False)
class Reorder(Stage):
    """A permutation of a whole frame: output position ``i`` is input position ``address[i]``; whole blocks of
    ``block`` elements move.
    """

    address: np.ndarray
    block: int


@dataclass(frozen=True, eq=False)
class Program:
    """The stages of a graph in topological order.

    Attributes:
        stages: in topological order.
        input, output: the values at the ends.
        notes: per graph node that became no hardware, why.
    """

    stages: tuple[Stage, ...]
    input: Value
    output: Value
    notes: Mapping[str, str]

    def consumers(self, value: Value) -> list[tuple[Stage, int]]:
        """The stages that take a stream, with the number of the operand."""
        return [
            (stage, i) for stage in self.stages for i, v in enumerate(stage.inputs) if v.name == value.name
        ]
