"""Parameter points of the kernels for functions and for operators on whole arrays.

Golden results are written from docs/graph.md and docs/kernels.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from kernel_cases import Case, _case, _draw, clog2
from kernel_golden import code_range, pack, pack_beats, random_codes
from kernel_models import BufferModel, Signals, StepModel, takes_and_makes

Parameters = dict[str, int | str]


def _one_to_one(
    kernel: str,
    parameters: Parameters,
    x_format: tuple[int, bool],
    p: int,
    out: int,
    function: Callable[[int], int],
    latency: int,
    files: dict[str, tuple[int, list[int]]],
    codes: Sequence[int] | None = None,
) -> Case:
    """One beat in, one out; elements are any code, or drawn from ``codes``."""
    count = 30

    def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
        if codes is None:
            x, stream = _draw(rng, count, *x_format, p)
        else:
            x = np.array([int(rng.choice(list(codes))) for _ in range(count * p)], object).reshape(count, p)
            stream = pack_beats(x, p, x_format[0])
        return [stream], [pack((function(int(v)) for v in row), out) for row in x]

    sequence = takes_and_makes([(True, True)])
    return _case(
        kernel, parameters, [p * x_format[0]], p * out, lambda: StepModel(latency, sequence), frame, count,
        files=files,
    )  # fmt: skip


# ---- functions


def table_cases() -> list[Case]:
    def make(p: int, x: tuple[int, bool], low: int, high: int, out: int, precision: int = 0) -> Case:
        rng = np.random.default_rng([p, out, high])
        if precision:
            # All numbers of so many significant bits, in ascending order: 0, 1, 2, ...
            numbers = [m << e for e in range(high) for m in range(1 << precision)]
            magnitudes = sorted({n for n in numbers if n <= code_range(*x)[1]})
            half = 1 << clog2(len(magnitudes))
            places = {n: i for i, n in enumerate(magnitudes)}
            if x[1]:
                places |= {-n: half + i for i, n in enumerate(magnitudes) if n}
            depth, first = half * (2 if x[1] else 1), 0
        else:
            places = {c: c - low for c in range(low, high + 1)}
            depth, first = high - low + 1, low % (1 << max(1, clog2(high - low + 1)))
        words = [int(w) for w in rng.integers(0, 1 << out, depth)]
        parameters: Parameters = {
            "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), "PRECISION": precision, "FIRST": first,
            "DEPTH": depth, "OUT_WIDTH": out,
        }  # fmt: skip
        return _one_to_one(
            "qfx_table", parameters, x, p, out, lambda c: words[places[c]], 3 if precision else 2,
            {"TABLE_FILE": (out, words)}, sorted(places),
        )  # fmt: skip

    return [
        make(1, (8, True), -128, 127, 8), make(2, (4, False), 0, 15, 3), make(3, (6, True), -9, 20, 5),
        make(1, (5, True), 3, 3, 4), make(5, (7, False), 60, 101, 1), make(1, (1, True), -1, 0, 7),
        make(2, (12, True), -5, 6, 4), make(2, (19, True), 0, 16, 6, precision=4),
        make(1, (9, False), 0, 6, 5, precision=3), make(3, (12, True), 0, 12, 4, precision=1),
    ]  # fmt: skip


def piecewise_cases() -> list[Case]:
    def make(
        p: int, x: tuple[int, bool], low: int, segments: int, shift: int, degree: int, bits: int,
        left: tuple[int, int, int],
    ) -> Case:  # fmt: skip
        rng = np.random.default_rng([p, segments, shift, degree])
        coefficients = random_codes(rng, (segments, degree + 1), bits, True)
        ends = code_range(*x)
        codes = [c for c in range(low, low + (segments << shift)) if ends[0] <= c <= ends[1]]

        def function(c: int) -> int:
            s, t = (c - low) >> shift, (c - low) & ((1 << shift) - 1)
            return sum(int(v) * t**k << left[k] for k, v in enumerate(coefficients[s]))

        out = max(abs(function(c)) for c in codes).bit_length() + 1
        parameters: Parameters = {
            "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]),
            "FIRST": low % (1 << (max(1, clog2(segments)) + shift)), "SHIFT": shift, "SEGMENTS": segments,
            "DEGREE": degree, "C_WIDTH": bits, "LEFT0": left[0], "LEFT1": left[1], "LEFT2": left[2],
            "OUT_WIDTH": out,
        }  # fmt: skip
        words = [pack(row, bits) for row in coefficients]
        return _one_to_one(
            "qfx_piecewise", parameters, x, p, out, function, 4,
            {"COEFFICIENT_FILE": ((degree + 1) * bits, words)}, codes,
        )  # fmt: skip

    return [
        make(1, (8, True), -128, 16, 4, 2, 9, (3, 2, 0)), make(2, (6, False), 0, 8, 3, 1, 5, (0, 1, 0)),
        make(1, (5, True), -16, 32, 0, 2, 6, (0, 0, 4)), make(3, (7, True), -50, 3, 5, 0, 8, (2, 0, 0)),
        make(1, (4, False), 0, 1, 4, 2, 3, (5, 0, 0)), make(2, (10, True), -500, 7, 7, 2, 12, (0, 5, 1)),
    ]  # fmt: skip


def inverse_root_cases() -> list[Case]:
    def make(
        p: int, x: tuple[int, bool], root: int, point: int, bits: int, shift: int, degree: int, guard: int,
        offset: int = 0,
        least: int = 1,
    ) -> Case:  # fmt: skip
        rng = np.random.default_rng([root, bits, shift, degree])
        segments = ((1 << root) - 1) << (bits - shift)
        coefficients = np.column_stack(
            [rng.integers(100, 200, segments), rng.integers(-99 >> shift, 1, segments)][: degree + 1]
        )

        def exponent(c: int) -> int:
            e = c.bit_length() - 1
            return e - (e - point) % root

        top = exponent(max(code_range(*x)[1] + offset, least))

        def function(code: int) -> int:
            c = max(code + offset, least)
            e = exponent(c)
            m = (c << (bits + 1) >> (e + 1)) - (1 << bits)
            s, t = m >> shift, m & ((1 << shift) - 1)
            v = sum(int(k) * t**d for d, k in enumerate(coefficients[s])) >> guard
            return v << ((top - e) // root)

        known = [*code_range(*x), offset, least, code_range(*x)[0] + offset, code_range(*x)[1] + offset]
        wide = max(abs(v) for v in known).bit_length() + 1
        width = 1 + int(np.abs(coefficients).max()).bit_length()
        out = (
            200 >> guard << ((top - exponent(max(code_range(*x)[0] + offset, least))) // root)
        ).bit_length()
        parameters: Parameters = {
            "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), "WIDE": wide, "OFFSET": offset % (1 << wide),
            "LEAST": least, "ROOT": root, "PARITY": point % 2, "TOP": top, "BITS": bits, "SHIFT": shift,
            "SEGMENTS": segments, "DEGREE": degree, "C_WIDTH": width, "GUARD": guard, "OUT_WIDTH": out,
        }  # fmt: skip
        words = [pack(row, width) for row in coefficients]
        return _one_to_one(
            "qfx_inverse_root", parameters, x, p, out, function, 7,
            {"COEFFICIENT_FILE": ((degree + 1) * width, words)},
        )  # fmt: skip

    return [
        make(1, (8, False), 2, 4, 5, 2, 1, 2), make(2, (8, False), 2, 3, 4, 3, 1, 0),
        make(1, (12, True), 1, 0, 6, 3, 1, 1, 5, 2), make(2, (5, False), 1, 2, 3, 0, 0, 0),
        make(1, (4, False), 2, 1, 8, 5, 1, 3, 0, 3), make(1, (16, True), 2, -5, 4, 1, 1, 2, -3, 1),
        make(1, (1, False), 2, 1, 3, 1, 1, 0),
    ]  # fmt: skip


# ---- moves


def slice_cases() -> list[Case]:
    def make(width: int, *loops: tuple[int, int, int, int]) -> Case:
        sizes = tuple(loop[0] for loop in loops)
        cut = tuple(slice(start, start + step * count, step) for _, start, step, count in loops)
        index = np.arange(int(np.prod(sizes))).reshape(sizes)[cut].reshape(-1)

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            _, beats = _draw(rng, int(np.prod(sizes)), width, False, 1)
            return [beats], [beats[i] for i in index]

        parameters: Parameters = {"WIDTH": width}
        for name, values in zip("ABC", loops, strict=True):
            parameters |= dict(
                zip((name, *(f"{name}_{w}" for w in ("START", "STEP", "COUNT"))), values, strict=True)
            )
        kept = set(index.tolist())
        sequence = takes_and_makes((True, i in kept) for i in range(int(np.prod(sizes))))
        return _case(
            "qfx_slice", parameters, [width], width, lambda: StepModel(1, sequence), frame,
            int(np.prod(sizes)),
        )  # fmt: skip

    return [
        make(8, (1, 0, 1, 1), (1, 0, 1, 1), (6, 1, 1, 3)), make(3, (3, 1, 1, 2), (4, 0, 2, 2), (5, 2, 3, 1)),
        make(5, (4, 3, 1, 1), (3, 0, 1, 3), (2, 0, 1, 2)), make(1, (2, 0, 1, 2), (7, 0, 3, 3), (1, 0, 1, 1)),
        make(4, (5, 0, 2, 2), (2, 1, 1, 1), (4, 0, 1, 1)),
    ]  # fmt: skip


def repeat_cases() -> list[Case]:
    def make(p: int, width: int, spread: int, block: int, times: int) -> Case:
        blocks = max(2, 12 // block)

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            codes, beats = _draw(rng, blocks * block, width, False, p)
            wide = pack_beats(np.repeat(codes, spread, axis=1), p * spread, width)
            out = [b for i in range(blocks) for b in wide[i * block : (i + 1) * block] * times]
            return [beats], out

        parameters: Parameters = {"P": p, "WIDTH": width, "SPREAD": spread, "BLOCK": block, "TIMES": times}
        sequence = takes_and_makes((t == 0, True) for t in range(times) for _ in range(block))
        return _case(
            "qfx_repeat", parameters, [p * width], p * spread * width, lambda: StepModel(1, sequence), frame,
            blocks * block * times,
        )  # fmt: skip

    return [
        make(1, 8, 1, 1, 3), make(2, 5, 1, 4, 2), make(1, 6, 4, 1, 1), make(3, 4, 2, 1, 2),
        make(2, 3, 1, 5, 3), make(1, 7, 3, 2, 4),
    ]  # fmt: skip


def insert_zeros_cases() -> list[Case]:
    def make(width: int, height: int, columns: int, beats: int, factor_h: int, factor_w: int) -> Case:
        out_h, out_w = (height - 1) * factor_h + 1, (columns - 1) * factor_w + 1

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            _, stream = _draw(rng, height * columns * beats, width, False, 1)
            out = np.zeros((out_h, out_w, beats), dtype=object)
            out[::factor_h, ::factor_w] = np.array(stream, object).reshape(height, columns, beats)
            return [stream], [int(v) for v in out.reshape(-1)]

        sequence = takes_and_makes(
            (y % factor_h == 0 and x % factor_w == 0, True)
            for y in range(out_h)
            for x in range(out_w)
            for _ in range(beats)
        )
        parameters: Parameters = {
            "WIDTH": width, "IN_H": height, "IN_W": columns, "BEATS": beats, "FACTOR_H": factor_h,
            "FACTOR_W": factor_w,
        }  # fmt: skip
        return _case(
            "qfx_insert_zeros", parameters, [width], width, lambda: StepModel(1, sequence), frame,
            len(sequence),
        )  # fmt: skip

    return [make(8, 1, 5, 1, 1, 2), make(4, 3, 4, 2, 2, 3), make(6, 4, 1, 3, 3, 2), make(5, 2, 2, 1, 1, 1)]


def reduce_cases() -> list[Case]:
    def make(p: int, simd: int, n: int, inner: int, mode: int, x: tuple[int, bool], out: int) -> Case:
        outer = 3

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            codes, beats = _draw(rng, outer * n * inner, *x, p * simd)
            # (outer, n, inner, p, simd): the axis is n and simd
            parts = codes.reshape(outer, n, inner, p, simd).transpose(0, 2, 3, 1, 4).reshape(-1, n * simd)
            results = [sum(row) if mode else max(row) for row in parts.tolist()]
            return [beats], pack_beats(np.array(results, object), p, out)

        parameters: Parameters = {
            "P": p, "SIMD": simd, "N": n, "INNER": inner, "MODE": mode, "IN_WIDTH": x[0],
            "IN_SIGNED": int(x[1]), "OUT_WIDTH": out,
        }  # fmt: skip
        sequence = takes_and_makes((True, i == n - 1) for i in range(n) for _ in range(inner))
        return _case(
            "qfx_reduce", parameters, [p * simd * x[0]], p * out,
            lambda: StepModel(2 + clog2(simd), sequence), frame, outer * n * inner,
        )  # fmt: skip

    s, u = (6, True), (5, False)
    return [
        make(1, 1, 5, 1, 1, s, 9), make(1, 1, 4, 1, 0, s, 6), make(2, 1, 3, 4, 1, u, 7),
        make(3, 1, 4, 2, 0, u, 5), make(1, 4, 3, 1, 1, u, 9), make(1, 5, 2, 1, 0, s, 6),
        make(2, 3, 1, 1, 1, s, 8), make(1, 7, 1, 1, 0, u, 5), make(1, 1, 1, 3, 1, s, 6),
        make(1, 1, 6, 5, 0, s, 8), make(1, 6, 2, 1, 1, s, 5),
    ]  # fmt: skip


# ---- sources and products


def constant_cases() -> list[Case]:
    def make(width: int, beats: int) -> Case:
        words = [int(w) for w in np.random.default_rng([width, beats]).integers(0, 1 << width, beats)]

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            return [], words

        return _case(
            "qfx_constant", {"WIDTH": width, "BEATS": beats}, [], width,
            lambda: StepModel(1, [((), True)], inputs=0), frame, beats, files={"DATA_FILE": (width, words)},
        )  # fmt: skip

    return [make(8, 6), make(3, 1), make(20, 16)]


def gather_cases() -> list[Case]:
    def make(x: tuple[int, bool], rows: int, beats: int, p: int, width: int) -> Case:
        table = random_codes(np.random.default_rng([rows, beats, p]), (rows, beats * p), width, False)
        words = [pack(row, width) for row in table.reshape(-1, p)]
        codes = 8

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            drawn, stream = _draw(rng, codes, *x, 1)
            chosen = [min(max(int(c), 0), rows - 1) for c in drawn.reshape(-1)]
            return [stream], [words[c * beats + b] for c in chosen for b in range(beats)]

        parameters: Parameters = {
            "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), "ROWS": rows, "BEATS": beats, "P": p, "WIDTH": width,
        }  # fmt: skip
        sequence = takes_and_makes((b == 0, True) for b in range(beats))
        return _case(
            "qfx_gather", parameters, [x[0]], p * width, lambda: StepModel(2, sequence), frame, codes * beats,
            files={"TABLE_FILE": (p * width, words)},
        )  # fmt: skip

    return [
        make((4, False), 16, 3, 1, 8), make((5, True), 11, 2, 2, 5), make((3, False), 5, 1, 3, 4),
        make((8, True), 1, 4, 1, 6), make((2, False), 9, 5, 1, 3), make((1, True), 1, 1, 1, 2),
    ]  # fmt: skip


class MatMulModel(BufferModel):
    """qfx_matmul: steps that take the first input, and a double buffer behind the second."""

    def __init__(self, latency: int, folds: int, beats_of_row: int, rows: int, load: int) -> None:
        steps = takes_and_makes(
            (nf == 0, sf == beats_of_row - 1)
            for _ in range(rows)
            for nf in range(folds)
            for sf in range(beats_of_row)
        )
        self.load, self.written, self.finished = load, 0, 0
        super().__init__(latency, steps, inputs=2)

    @property
    def full(self) -> int:
        return self.written // self.load - self.finished

    def accepts(self) -> bool:
        return self.full < 2

    def condition(self) -> bool:
        return self.full > 0

    def fired(self) -> None:
        self.finished += self.step == len(self.sequence) - 1

    def fires(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> bool:
        takes, _ = self.sequence[self.step]
        return self.enabled(tready) and self.condition() and (not takes or tvalid[0])

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        takes, _ = self.sequence[self.step]
        below = StepModel.signals(self, tvalid, tready)
        first = self.enabled(tready) and self.condition() and bool(takes)
        return Signals((first, self.accepts()), below.tvalid, below.beat)

    def clock(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> None:
        write = tvalid[1] and self.accepts()
        StepModel.clock(self, tvalid, tready)
        self.written += write


def matmul_cases() -> list[Case]:
    def make(
        rows: int, inner: int, columns: int, pe: int, simd: int, by_row: bool, a: tuple[int, bool],
        b: tuple[int, bool],
    ) -> Case:  # fmt: skip
        peak = inner * max(abs(v) for v in code_range(*a)) * max(abs(v) for v in code_range(*b))
        out = peak.bit_length() + 1

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            left = random_codes(rng, (rows, inner), *a)
            right = random_codes(rng, (inner, columns), *b)
            second = right if by_row else right.T
            streams = [
                pack_beats(left, simd, a[0]),
                pack_beats(np.ascontiguousarray(second), pe if by_row else simd, b[0]),
            ]
            return streams, pack_beats(left @ right, pe, out)

        parameters: Parameters = {
            "SIMD": simd, "PE": pe, "SF": inner // simd, "NF": columns // pe, "ROWS": rows,
            "B_LAYOUT": int(by_row), "A_WIDTH": a[0], "A_SIGNED": int(a[1]), "B_WIDTH": b[0],
            "B_SIGNED": int(b[1]), "OUT_WIDTH": out,
        }  # fmt: skip
        lanes = pe if by_row else simd
        load, steps = inner * columns // lanes, rows * (columns // pe) * (inner // simd)
        return _case(
            "qfx_matmul", parameters, [simd * a[0], lanes * b[0]], pe * out,
            lambda: MatMulModel(3 + clog2(simd), columns // pe, inner // simd, rows, load), frame,
            max(steps, load), full_rate=True,
        )  # fmt: skip

    s, u = (4, True), (3, False)
    return [
        make(3, 4, 2, 1, 1, False, s, s), make(2, 6, 4, 2, 3, False, s, u), make(5, 4, 6, 3, 2, True, u, s),
        make(3, 4, 4, 4, 4, True, s, s), make(4, 3, 5, 5, 1, True, u, u),
        make(4, 6, 2, 1, 6, False, (8, True), s), make(1, 5, 3, 1, 1, True, s, s),
        make(2, 1, 4, 2, 1, False, s, s), make(3, 8, 1, 1, 4, True, s, (1, True)),
        make(2, 6, 6, 2, 2, True, s, s),
    ]  # fmt: skip


class WaitingConcatModel(StepModel):
    """qfx_concat with WAIT: steps that take from stream 0 wait for a beat of stream 1."""

    def signals(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> Signals:
        below = super().signals(tvalid, tready)
        return Signals((below.tready[0] and tvalid[1], below.tready[1]), below.tvalid, below.beat)

    def fires(self, tvalid: Sequence[bool], tready: Sequence[bool]) -> bool:
        return super().fires(tvalid, tready) and tvalid[1]


def concat_cases() -> list[Case]:
    def make(width: int, beats0: int, beats1: int) -> Case:
        pixels = 5

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            (_, x0), (_, x1) = (_draw(rng, pixels * n, width, False, 1) for n in (beats0, beats1))
            parts = np.array(x0).reshape(pixels, beats0), np.array(x1).reshape(pixels, beats1)
            return [x0, x1], np.hstack(parts).reshape(-1).tolist()

        sequence = [((0,), True)] * beats0 + [((1,), True)] * beats1
        return _case(
            "qfx_concat", {"WIDTH": width, "BEATS0": beats0, "BEATS1": beats1, "WAIT": 1}, [width, width],
            width, lambda: WaitingConcatModel(1, sequence, inputs=2), frame, pixels * (beats0 + beats1),
        )  # fmt: skip

    return [make(8, 1, 1), make(5, 3, 2)]


SWEEPS: dict[str, Callable[[], list[Case]]] = {
    "qfx_table": table_cases,
    "qfx_piecewise": piecewise_cases,
    "qfx_inverse_root": inverse_root_cases,
    "qfx_slice": slice_cases,
    "qfx_repeat": repeat_cases,
    "qfx_insert_zeros": insert_zeros_cases,
    "qfx_reduce": reduce_cases,
    "qfx_constant": constant_cases,
    "qfx_gather": gather_cases,
    "qfx_matmul": matmul_cases,
    "qfx_concat": concat_cases,
}
