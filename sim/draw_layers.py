"""Random uses of functions and of operators on whole arrays: tables, polynomials, reductions, products of
tensors, look-ups (docs/layers.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qfx.approx import NAMES, Real, pieces, roots, table
from qfx.errors import QfxError
from qfx.formats import FixedPoint, Format
from qfx.graph import arrays, functions, ops
from qfx.graph.functions import members_between
from qfx.graph.tensor import Tensor
from qfx.sim.draw import Drawer, Sizes
from qfx.sim.draw_formats import draw_gapped

Rng = np.random.Generator

_TABLE_BITS = 12


class LayerDrawer(Drawer):
    """Draws these operators besides the others."""

    def __init__(self, rng: Rng, sizes: Sizes, every_format: bool) -> None:
        super().__init__(rng, sizes, every_format)

    def more_choices(self) -> dict[Callable[[], None], float]:
        """See :meth:`Drawer.more_choices`."""
        choices: dict[Callable[[], None], float] = {
            self.table: 3,
            self.piecewise: 1.5,
            self.inverse_root: 1,
            self.reduce: 1.5,
            self.repeat: 1,
            self.slice: 1,
            self.constant: 1,
            self.gather: 0.7,
        }
        if len(self.tensor.shape) > 1:
            choices |= {self.insert_zeros: 1, self.matmul: 2}
        return choices

    # -- functions -------------------------------------------------------------------------------------------

    def table(self) -> None:
        """A function, or arbitrary entries; for numbers of a format with gaps sometimes by a list."""
        rng = self.rng
        self._narrow(_TABLE_BITS)
        x = self.tensor
        fmt, frac = self._result_format(), x.format.max_frac + int(rng.integers(0, 3))
        low, high = _range(x, frac)
        first, inputs = low - int(rng.integers(0, 3)), None
        codes = range(first, high + 1 + int(rng.integers(0, 3)))
        e = x.encoding
        if e is not None and e.has_point and not e.per_channel and (high - low > 5000 or rng.random() < 0.5):
            members = members_between(e, frac, low, high)
            inputs = np.asarray(members, dtype=np.int64)
        listed = codes if inputs is None else tuple(int(c) for c in inputs)
        if len(listed) > 1 << (_TABLE_BITS + 2):
            return
        function, error = "", None
        if rng.random() < 0.6:
            made = table(Real(str(rng.choice(NAMES))), frac, listed, fmt)
            entries, function, error = made.entries, str(made.function), made.max_error
        else:
            entries = fmt.integers(rng.uniform(*_reach(fmt), len(listed)))
        op = functions.Table(
            frac, fmt, 0 if inputs is not None else first, inputs, np.array(entries),
            function=function, max_error=error,
        )  # fmt: skip
        self.add(op, self.current)

    def piecewise(self) -> None:
        rng = self.rng
        self._narrow(16)
        x = self.tensor
        fmt, frac = self._result_format(), x.format.max_frac + int(rng.integers(0, 2))
        low, high = _range(x, frac)
        if high - low >= 1 << 18:
            return
        if rng.random() < 0.5:
            p = pieces(Real(str(rng.choice(NAMES))), frac, low, high, fmt, int(rng.integers(0, 3)))
            op = functions.Piecewise(
                frac, fmt, p.first, p.shift, p.coefficients, p.fracs,
                function=str(p.function), max_error=p.max_error,
            )  # fmt: skip
        else:
            shift = int(rng.integers(0, max(1, (high - low).bit_length())))
            segments = ((high - low) >> shift) + 1
            degree = int(rng.integers(0, 3))
            fracs = tuple(int(f) for f in fmt.max_frac + rng.integers(-1, 6, degree + 1))
            coefficients = rng.integers(-200, 200, (segments, degree + 1))
            op = functions.Piecewise(frac, fmt, low, shift, coefficients, fracs)
        self.add(op, self.current)

    def inverse_root(self) -> None:
        rng = self.rng
        bits = int(rng.integers(1, 9)) if rng.random() < 0.7 else int(rng.integers(11, 15))
        made = roots(int(rng.integers(1, 3)), float(rng.choice([1.0, 0.3, 2.5])), bits, bits + 2)
        op = functions.InverseRoot(
            made.root, made.bits, made.shift, made.coefficients, made.guard, made.frac,
            int(rng.choice([0, 0, 1, 7])), int(rng.choice([1, 1, 2, 5])),
            function="random", max_error=made.max_error,
        )  # fmt: skip
        self.add(op, self.current)

    def _narrow(self, width: int) -> None:
        """Cast when the operand has too many codes for a table."""
        x = self.tensor
        if x.encoding is None or not x.encoding.has_point:
            low, high = _range(x, x.format.max_frac)
            if high - low >= 1 << width:
                self.cast_to(width)

    def cast_to(self, width: int) -> None:
        """Cast to fixed point of some width at most."""
        x = self.tensor
        w = int(self.rng.integers(2, width - 1))
        needed = max(1, x.magnitude.bit_length()) - x.format.max_frac
        self.add(ops.Cast(FixedPoint(w, w - 1 - needed)), self.current)

    def _result_format(self) -> Format:
        rng = self.rng
        if self.every_format and rng.random() < 0.3:
            gapped = draw_gapped(rng, 2, 1)
            if gapped.has_point and gapped.integer_max.bit_length() <= 40:
                return gapped
        width = int(rng.integers(2, 12))
        overflow = str(rng.choice(["SAT", "SAT", "WRAP", "SAT_ZERO"]))
        signed = bool(rng.random() < 0.7)
        return FixedPoint(width, int(rng.integers(-1, width + 2)), signed, "RND_CONV", overflow)

    # -- arrays ----------------------------------------------------------------------------------------------

    def reduce(self) -> None:
        """Over some axes; sometimes subtracted from what it was, as softmax and LayerNorm do."""
        rng, x = self.rng, self.tensor
        axes = tuple(int(a) for a in range(len(x.shape)) if rng.random() < 0.5) or (len(x.shape) - 1,)
        before = self.current
        kind = [arrays.ReduceSum, arrays.ReduceMax][int(rng.integers(2))]
        if self.add(kind(axes), before) and rng.random() < 0.5:
            times = tuple(n if a in axes else 1 for a, n in enumerate(x.shape))
            if self.add(arrays.Repeat(times), self.current):
                pair = (before, self.current) if rng.random() < 0.5 else (self.current, before)
                self.add([ops.Add, ops.Sub, ops.Mul][int(rng.integers(3))](), *pair)

    def repeat(self) -> None:
        times = tuple(int(t) for t in self.rng.choice([1, 1, 2, 3], len(self.tensor.shape)))
        self.add(arrays.Repeat(times), self.current)

    def slice(self) -> None:
        rng = self.rng
        starts = tuple(int(rng.integers(0, n)) for n in self.tensor.shape)
        stops = tuple(int(rng.integers(a + 1, n + 1)) for a, n in zip(starts, self.tensor.shape, strict=True))
        self.add(
            arrays.Slice(starts, stops, tuple(int(s) for s in rng.choice([1, 1, 2], len(stops)))),
            self.current,
        )

    def constant(self) -> None:
        """A constant tensor that is joined with the current one."""
        rng, x = self.rng, self.tensor
        codes, fmt, encoding = self._weight(x.shape)
        main = self.current
        try:
            made = self.builder.add(arrays.Constant(codes, fmt, encoding=encoding), [], path="constant")
        except QfxError:
            return
        kind = [ops.Add, ops.Sub, ops.Mul, ops.Concat][int(rng.integers(4))]
        pair = (main, made) if rng.random() < 0.5 else (made, main)
        self.add(kind(), *pair)

    def gather(self) -> None:
        """Rows of a table by whole numbers, some of them beyond the table."""
        rng = self.rng
        if len(self.tensor.shape) > 2:
            return
        main = self.current
        bits = int(rng.integers(1, 5))
        self.add(ops.Cast(FixedPoint(bits, 0, bool(rng.random() < 0.3 and bits > 1), "TRN", "SAT")), main)
        row = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(0, 4 - len(self.tensor.shape)))))
        codes, fmt, encoding = self._weight((int(rng.integers(1, 20)), *row))
        if fmt.per_channel or (encoding is not None and not encoding.has_point):
            return
        self.add(arrays.Gather(codes, fmt, encoding=encoding), self.current)

    def insert_zeros(self) -> None:
        rank = len(self.tensor.shape) - 1
        factors = tuple(int(f) for f in self.rng.integers(1, 4, rank))
        if self.add(arrays.InsertZeros(factors), self.current):
            self.conv()

    def matmul(self) -> None:
        """With an earlier tensor that fits, or with its own transpose."""
        rng, x, main = self.rng, self.tensor, self.current
        others = [
            n
            for n in self.known
            if len(self.builder.tensor(n).shape) == len(x.shape)
            and self.builder.tensor(n).shape[-2] == x.shape[-1]
            and self.builder.tensor(n).shape[:-2] == x.shape[:-2]
        ]
        if others and rng.random() < 0.6:
            self.add(arrays.MatMul(), main, str(rng.choice(others)))
            return
        rank = len(x.shape)
        axes = (*range(rank - 2), rank - 1, rank - 2)
        if self.add(ops.Transpose(axes), main):
            pair = (main, self.current) if rng.random() < 0.5 else (self.current, main)
            self.add(arrays.MatMul(), *pair)


def _range(x: Tensor, frac: int) -> tuple[int, int]:
    """The codes of a tensor with another, finer binary point."""
    shifts = ops.to_frac(x, frac)
    return int((x.low << shifts).min()), int((x.high << shifts).max())


def _reach(fmt: Format) -> tuple[float, float]:
    unit = 2.0**-fmt.max_frac
    return fmt.integer_min * unit * 1.1, fmt.integer_max * unit * 1.1
