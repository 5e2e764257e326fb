"""Stages of the operators on whole arrays and of functions: each knows its own folds, steps and kernel.

A stage of these is one kernel. What its beats may hold follows from the order in which elements pass, written
as a few nested loops over the frame, outermost first (docs/kernels.md, qfx_slice to qfx_gather).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import ClassVar

import numpy as np

from qfx.rtl.design import Kernel, Memory, Parameter
from qfx.rtl.stages import Stage


@dataclass(frozen=True, eq=False)
class FoldedStage(Stage):
    """A stage of one kernel that knows how it can be folded.

    A fold is a pair: ``pe``, elements of an output beat, and ``simd``, elements that go into one of them per
    step; ``None`` where the kernel has no such choice.
    """

    #: Takes its beats in bursts, or waits for one input while another one comes: FIFOs stand in front of it.
    buffered: ClassVar[bool] = False

    @property
    def products(self) -> int:
        """Multiplications of a frame."""
        return 0

    @property
    def bursts(self) -> bool:
        """Whether it makes nothing for long and then several beats in a row, so that a FIFO behind it helps
        where they go on more slowly.
        """
        return False

    def folds(self) -> Iterator[tuple[int, int | None]]:
        """All folds, the least parallel first."""
        raise NotImplementedError

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        """Elements of a beat of each input."""
        raise NotImplementedError

    def steps(self, pe: int, simd: int | None) -> int:
        """Steps per frame, or beats of an input where there are more."""
        raise NotImplementedError

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        """The kernel, without name and streams; with ``words`` its memories are filled."""
        raise NotImplementedError


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _kernel(
    stage: Stage, module: str, parameters: Mapping[str, Parameter], memories: Mapping[str, Memory]
) -> Kernel:
    files = {parameter: memory.file for parameter, memory in memories.items()}
    return Kernel("", module, {**parameters, **files}, (), (), stage.node, memories)


def _memory(stage: Stage, what: str, rows: np.ndarray, bits: int) -> Memory:
    return Memory.of_rows(f"{stage.output.name}_{what}.mem", rows, bits)


@dataclass(frozen=True, eq=False)
class Lanewise(FoldedStage):
    """Every element by itself, with a memory that all lanes read: ``qfx_table``, ``qfx_piecewise``,
    ``qfx_inverse_root``.

    Attributes:
        module: the kernel.
        parameters: all but ``P``.
        contents: parameter that names a file -> (``object`` integers ``(words, elements of a word)``, bits of
            an element).
    """

    module: str
    parameters: Mapping[str, Parameter]
    contents: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)

    def folds(self) -> Iterator[tuple[int, int | None]]:
        return ((pe, None) for pe in _divisors(self.output.channels))

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return (pe,)

    def steps(self, pe: int, simd: int | None) -> int:
        return self.output.size // pe

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        memories = {
            name: _memory(self, name.removesuffix("_FILE").lower(), rows, bits)
            for name, (rows, bits) in (self.contents.items() if words else ())
        }
        return _kernel(self, self.module, {"P": pe, **self.parameters}, memories)


@dataclass(frozen=True, eq=False)
class Slice(FoldedStage):
    """Elements ``start, start + step, ...`` along each of three loops.

    Attributes:
        sizes, starts, strides, counts: of the loops, in elements.
    """

    sizes: tuple[int, int, int]
    starts: tuple[int, int, int]
    strides: tuple[int, int, int]
    counts: tuple[int, int, int]

    @property
    def bursts(self) -> bool:
        return True

    def folds(self) -> Iterator[tuple[int, int | None]]:
        whole = self.strides[2] == 1
        limit = gcd(self.sizes[2], self.starts[2], self.counts[2]) if whole else 1
        return ((pe, None) for pe in _divisors(gcd(limit, self.output.channels)))

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return (pe,)

    def steps(self, pe: int, simd: int | None) -> int:
        return self.inputs[0].size // pe

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        parameters: dict[str, Parameter] = {"WIDTH": pe * self.output.width}
        loops = zip("ABC", (1, 1, pe), self.sizes, self.starts, self.strides, self.counts, strict=True)
        for name, lanes, size, start, stride, count in loops:
            parameters |= {name: size // lanes, f"{name}_START": start // lanes}
            parameters |= {f"{name}_STEP": stride, f"{name}_COUNT": count // lanes}
        return _kernel(self, "qfx_slice", parameters, {})


@dataclass(frozen=True, eq=False)
class Repeat(FoldedStage):
    """Every block of ``block`` elements ``times`` times in a row."""

    buffered: ClassVar[bool] = True
    block: int
    times: int

    def folds(self) -> Iterator[tuple[int, int | None]]:
        for pe in _divisors(self.output.channels):
            spreads = self.block == 1 and (self.times % pe == 0 or pe % self.times == 0)
            if spreads or self.block % pe == 0:
                yield pe, None

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return (pe if self.block > 1 else max(1, pe // self.times),)

    def steps(self, pe: int, simd: int | None) -> int:
        return self.output.size // pe

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        (lanes,) = self.lanes(pe, simd)
        spread = pe // lanes
        parameters: dict[str, Parameter] = {
            "P": lanes,
            "WIDTH": self.output.width,
            "SPREAD": spread,
            "BLOCK": self.block // lanes if self.block > 1 else 1,
            "TIMES": self.times // spread,
            "RAM_STYLE": "auto",
        }
        return _kernel(self, "qfx_repeat", parameters, {})


@dataclass(frozen=True, eq=False)
class InsertZeros(FoldedStage):
    """``factors[a] - 1`` zeros between neighbouring pixels of a picture of ``size``, in rows and columns."""

    buffered: ClassVar[bool] = True
    size: tuple[int, int]
    factors: tuple[int, int]

    def folds(self) -> Iterator[tuple[int, int | None]]:
        return ((pe, None) for pe in _divisors(self.output.channels))

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return (pe,)

    def steps(self, pe: int, simd: int | None) -> int:
        return self.output.size // pe

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        parameters: dict[str, Parameter] = {
            "WIDTH": pe * self.output.width,
            "IN_H": self.size[0],
            "IN_W": self.size[1],
            "BEATS": self.output.channels // pe,
            "FACTOR_H": self.factors[0],
            "FACTOR_W": self.factors[1],
        }
        return _kernel(self, "qfx_insert_zeros", parameters, {})


@dataclass(frozen=True, eq=False)
class Reduce(FoldedStage):
    """Sum or maximum over the middle one of three loops.

    Attributes:
        axis: elements that become one.
        inner: elements inside the axis.
        mode: 0 maximum, 1 sum.
    """

    axis: int
    inner: int
    mode: int

    @property
    def bursts(self) -> bool:
        return self.inner > 1

    def folds(self) -> Iterator[tuple[int, int | None]]:
        if self.inner > 1:
            yield from ((pe, None) for pe in _divisors(gcd(self.inner, self.output.channels)))
            return
        yield from ((1, simd) for simd in _divisors(self.axis))
        yield from ((pe, self.axis) for pe in _divisors(self.output.channels)[1:])

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return (pe * (simd or 1),)

    def steps(self, pe: int, simd: int | None) -> int:
        return self.inputs[0].size // (pe * (simd or 1))

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        x, simd = self.inputs[0], simd or 1
        parameters: dict[str, Parameter] = {
            "P": pe,
            "SIMD": simd,
            "N": self.axis // simd,
            "INNER": self.inner // pe if self.inner > 1 else 1,
            "MODE": self.mode,
            "IN_WIDTH": x.width,
            "IN_SIGNED": int(x.signed),
            "OUT_WIDTH": self.output.width,
            "RAM_STYLE": "auto",
        }
        return _kernel(self, "qfx_reduce", parameters, {})


@dataclass(frozen=True, eq=False)
class Constant(FoldedStage):
    """The same frame for every sample: ``codes``, ``object`` integers ``(size,)`` in stream order."""

    codes: np.ndarray

    def folds(self) -> Iterator[tuple[int, int | None]]:
        return ((pe, None) for pe in _divisors(self.output.channels))

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return ()

    def steps(self, pe: int, simd: int | None) -> int:
        return self.output.size // pe

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        width = self.output.width
        parameters: dict[str, Parameter] = {
            "WIDTH": pe * width,
            "BEATS": self.output.size // pe,
            "DATA_FILE": "",
            "ROM_STYLE": "auto",
        }
        rows = self.codes.reshape(-1, pe)
        memories = {"DATA_FILE": _memory(self, "data", rows, width)} if words else {}
        return _kernel(self, "qfx_constant", parameters, memories)


@dataclass(frozen=True, eq=False)
class Gather(FoldedStage):
    """For every code a row of ``table``, ``object`` integers ``(rows, elements)``."""

    buffered: ClassVar[bool] = True
    table: np.ndarray

    def folds(self) -> Iterator[tuple[int, int | None]]:
        return ((pe, None) for pe in _divisors(gcd(self.table.shape[1], self.output.channels)))

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        return (1,)

    def steps(self, pe: int, simd: int | None) -> int:
        return self.output.size // pe

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        x, width = self.inputs[0], self.output.width
        parameters: dict[str, Parameter] = {
            "IN_WIDTH": x.width,
            "IN_SIGNED": int(x.signed),
            "ROWS": self.table.shape[0],
            "BEATS": self.table.shape[1] // pe,
            "P": pe,
            "WIDTH": width,
            "TABLE_FILE": "",
            "ROM_STYLE": "auto",
        }
        rows = self.table.reshape(-1, pe)
        memories = {"TABLE_FILE": _memory(self, "table", rows, width)} if words else {}
        return _kernel(self, "qfx_gather", parameters, memories)


@dataclass(frozen=True, eq=False)
class MatMul(FoldedStage):
    """``batch`` products of ``rows`` by ``inner`` and ``inner`` by ``columns`` elements.

    The first operand comes row by row; the second column by column, or row by row when ``by_row``.
    """

    buffered: ClassVar[bool] = True
    batch: int
    rows: int
    inner: int
    columns: int
    by_row: bool

    @property
    def products(self) -> int:
        return self.batch * self.rows * self.inner * self.columns

    def folds(self) -> Iterator[tuple[int, int | None]]:
        for simd in _divisors(self.inner):
            for pe in _divisors(gcd(self.columns, self.output.channels)):
                yield pe, simd

    def lanes(self, pe: int, simd: int | None) -> tuple[int, ...]:
        assert simd is not None
        return simd, pe if self.by_row else simd

    def steps(self, pe: int, simd: int | None) -> int:
        assert simd is not None
        work = self.batch * self.rows * (self.columns // pe) * (self.inner // simd)
        return max(work, self.inputs[1].size // self.lanes(pe, simd)[1])

    def kernel(self, pe: int, simd: int | None, words: bool) -> Kernel:
        assert simd is not None
        a, b = self.inputs
        parameters: dict[str, Parameter] = {
            "SIMD": simd,
            "PE": pe,
            "SF": self.inner // simd,
            "NF": self.columns // pe,
            "ROWS": self.rows,
            "B_LAYOUT": int(self.by_row),
            "A_WIDTH": a.width,
            "A_SIGNED": int(a.signed),
            "B_WIDTH": b.width,
            "B_SIGNED": int(b.signed),
            "OUT_WIDTH": self.output.width,
            "RAM_STYLE": "auto",
        }
        return _kernel(self, "qfx_matmul", parameters, {})
