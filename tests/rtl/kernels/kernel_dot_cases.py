"""`qfx_matvec` and `qfx_depthwise` with weights and elements in other codes than integers.

Each code is given by the number it stands for, written down here from docs/kernels.md; nothing is shared with
the generator, which has encoders of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product as combinations

import numpy as np
from kernel_cases import Case, _case, clog2
from kernel_golden import code_range, pack_beats
from kernel_models import StepModel, takes_and_makes


@dataclass(frozen=True)
class Arithmetic:
    """A KIND: its parameters, the registers of `qfx_dot`, and the codes of both sides with their numbers."""

    parameters: dict[str, int]
    registers: Callable[[int], int]
    a: dict[int, int]
    w: dict[int, int]
    multiply: Callable[[int, int], int] = field(default=lambda x, y: x * y)

    @property
    def reach(self) -> int:
        return max(abs(v) for v in self.a.values()) * max(abs(v) for v in self.w.values())


def integers(width: int, signed: bool) -> dict[int, int]:
    low, high = code_range(width, signed)
    return {v & ((1 << width) - 1): v for v in range(low, high + 1)}


def booth(a: tuple[int, bool], w: tuple[int, bool]) -> Arithmetic:
    parameters = {"A_WIDTH": a[0], "A_SIGNED": int(a[1]), "W_WIDTH": w[0], "W_SIGNED": int(w[1]), "KIND": 1}
    return Arithmetic(parameters, lambda n: 1 + clog2(n), integers(*a), integers(*w))


def khot(a: tuple[int, bool], digits: int, fine: int, places: int, zero: bool = True) -> Arithmetic:
    """Every combination of digits, neighbours too: the kernel adds whatever it is told."""
    fine_bits, place_bits = clog2(fine), clog2(places + 1) if zero else 0
    width = 1 + fine_bits + place_bits
    one: dict[int, int] = {0: 0} if zero else {}
    for sign, s in combinations((0, 1), range(fine * places)):
        code = sign | (s % fine) << 1
        if zero:
            code |= (s // fine + 1) << (1 + fine_bits)
        one[code] = (-1) ** sign << s if not sign else -(1 << s)
    weights = {}
    for codes in combinations(one, repeat=digits):
        word = sum(code << (width * k) for k, code in enumerate(codes))
        weights[word] = sum(one[code] << (2 * k) for k, code in enumerate(codes))
    parameters = {
        "A_WIDTH": a[0], "A_SIGNED": int(a[1]), "W_WIDTH": digits * width, "W_SIGNED": 1, "KIND": 2,
        "DIGITS": digits, "FINE": fine, "PLACES": places, "ZERO": int(zero),
    }  # fmt: skip

    def registers(n: int) -> int:
        return (fine > 1) + 1 + clog2(-(-n // 4)) + clog2(digits)

    return Arithmetic(parameters, registers, integers(*a), weights)


def floats(exponent: int, mantissa: int, signed: bool) -> dict[int, int]:
    numbers = {}
    for sign, e, m in combinations(range(1 + signed), range(1 << exponent), range(1 << mantissa)):
        code = (sign << exponent | e) << mantissa | m
        magnitude = m if e == 0 else (m + (1 << mantissa)) << (e - 1)
        numbers[code] = -magnitude if sign else magnitude
    return numbers


def minifloat(a: tuple[int, int, bool], w: tuple[int, int, bool]) -> Arithmetic:
    parameters = {
        "A_WIDTH": sum(a), "A_SIGNED": int(a[2]), "W_WIDTH": sum(w), "W_SIGNED": int(w[2]), "KIND": 3,
        "A_EXP": a[0], "W_EXP": w[0],
    }  # fmt: skip
    staged = a[0] + a[1] + w[0] + w[1] > 6
    return Arithmetic(parameters, lambda n: 2 + staged + clog2(-(-n // 4)), floats(*a), floats(*w))


def xnor() -> Arithmetic:
    parameters = {"A_WIDTH": 1, "A_SIGNED": 0, "W_WIDTH": 1, "W_SIGNED": 0, "KIND": 4}
    bits = {0: 0, 1: 1}
    return Arithmetic(parameters, lambda n: 1 + clog2(-(-n // 3)), bits, bits, lambda x, y: int(x == y))


def decoded(a: tuple[int, bool], w: tuple[int, int, bool], tables: bool) -> Arithmetic:
    """Integers by minifloat codes."""
    parameters = {
        "A_WIDTH": a[0], "A_SIGNED": int(a[1]), "W_WIDTH": sum(w), "W_SIGNED": int(w[2]),
        "KIND": 6 if tables else 5, "W_EXP": w[0],
    }  # fmt: skip
    return Arithmetic(parameters, lambda n: 1 + clog2(n), integers(*a), floats(*w))


def matvec(
    simd: int, pe: int, sf: int, nf: int, groups: int, how: Arithmetic, shift: int = 0, bias: bool = True,
    spare: int = 2, block: int = 0, hold: int = 1, scale: int = 1,
) -> Case:  # fmt: skip
    """`spare`: bits of the accumulator beyond what the largest sum needs; less than 0 makes sums wrap.
    `block`: so many weights of a step share a scale of `scale` bits, which stands for `hold` steps."""
    rng = np.random.default_rng([simd, pe, sf, nf, groups, *how.parameters.values()])
    codes = rng.choice(list(how.w), (groups, nf * pe, sf * simd)).astype(object)
    top = (1 << scale) - 1 if block else 0
    acc = max(1, (how.reach * sf * simd << shift + top).bit_length() + spare)
    # (group, fold, word, output, block of the step): powers of two
    scales = rng.integers(0, top + 1, (groups, nf, sf // hold, pe, simd // (block or simd))).astype(object)
    powers = np.ones_like(codes)
    for g, output, column in np.ndindex(codes.shape):
        step, lane = divmod(column, simd)
        if block:
            powers[g, output, column] = 1 << int(
                scales[g, output // pe, step // hold, output % pe, lane // block]
            )
    offsets = np.zeros((groups, nf * pe), object)
    if bias:
        offsets += rng.integers(0, 1 << min(acc, 60), offsets.shape).astype(object)
    rounds = max(1, 12 // (sf * nf * groups))
    elements = list(how.a)

    def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
        x = rng.choice(elements, (rounds, groups, sf * simd)).astype(object)
        out: list[int] = []
        for pixel in x:
            for g in range(groups):
                y = np.array(
                    [
                        sum(
                            how.multiply(how.a[c], how.w[w]) * power
                            for c, w, power in zip(pixel[g], row, by, strict=True)
                        )
                        for row, by in zip(codes[g], powers[g], strict=True)
                    ],
                    dtype=object,
                )
                out += pack_beats(y * 2**shift + offsets[g], pe, acc)
        return [pack_beats(x, simd, how.parameters["A_WIDTH"])], out

    bits = how.parameters["W_WIDTH"]
    tiles = codes.reshape(groups, nf, pe, sf, simd).transpose(0, 1, 3, 2, 4).reshape(-1, pe * simd)
    files = {"WEIGHT_FILE": (pe * simd * bits, pack_beats(tiles, pe * simd, bits))}
    if bias:
        files["BIAS_FILE"] = (pe * acc, pack_beats(offsets, pe, acc))
    parameters: dict[str, int | str] = {
        "SIMD": simd, "PE": pe, "SF": sf, "NF": nf, "GROUPS": groups, **how.parameters, "ACC_WIDTH": acc,
        "SHIFT": shift, "HAS_BIAS": int(bias),
    }  # fmt: skip
    if block:
        parameters |= {"BLOCK": block, "HOLD": hold, "SCALE_WIDTH": scale}
        lanes = pe * simd // block
        files["SCALES_FILE"] = (lanes * scale, pack_beats(scales, lanes, scale))
    sequence = takes_and_makes(
        (f == 0, s == sf - 1) for _ in range(groups) for f in range(nf) for s in range(sf)
    )
    latency = 2 + (how.registers(block) + 1 + clog2(simd // block) if block else how.registers(simd))
    return _case(
        "qfx_matvec", parameters, [simd * how.parameters["A_WIDTH"]], pe * acc,
        lambda: StepModel(latency, sequence), frame, rounds * groups * sf * nf, files=files,
    )  # fmt: skip


def matvec_cases() -> list[Case]:
    s8, u8, s4, u4 = (8, True), (8, False), (4, True), (4, False)
    return [
        matvec(3, 2, 2, 2, 1, booth(u8, s8)),
        matvec(1, 1, 4, 1, 1, booth((5, True), (3, False)), bias=False),
        matvec(4, 1, 2, 1, 1, booth((1, False), (6, True)), shift=2),
        # one digit: a power of two, a sign with zero, a sign
        matvec(8, 2, 2, 2, 1, khot(u8, 1, 4, 2)),
        matvec(5, 1, 3, 1, 1, khot(s8, 1, 4, 3), shift=1),
        matvec(4, 2, 2, 1, 2, khot(s4, 1, 1, 1)),
        matvec(9, 1, 1, 3, 1, khot(s4, 1, 1, 1, zero=False), bias=False),
        matvec(1, 1, 2, 2, 1, khot((1, False), 1, 1, 1, zero=False)),
        # several: three places (inverted in front of the adder), two, four
        matvec(6, 2, 2, 2, 1, khot(u8, 2, 2, 3)),
        matvec(1, 3, 3, 1, 1, khot(s8, 2, 2, 3), bias=False),
        matvec(17, 1, 1, 2, 1, khot(s4, 2, 2, 3), shift=1),
        matvec(2, 1, 2, 2, 1, khot(u4, 3, 2, 2)),
        matvec(3, 1, 2, 1, 1, khot(s8, 4, 1, 2)),
        matvec(2, 2, 1, 2, 1, khot((3, True), 2, 4, 4), spare=-3),
        # minifloats: below and above six bits, mixed, without mantissa, unsigned, a short accumulator
        matvec(2, 2, 2, 2, 1, minifloat((2, 1, True), (2, 1, True))),
        matvec(5, 1, 2, 1, 1, minifloat((4, 3, True), (4, 3, True))),
        matvec(1, 2, 3, 2, 1, minifloat((5, 2, True), (5, 2, True)), bias=False),
        matvec(3, 1, 1, 2, 2, minifloat((4, 3, False), (2, 1, True)), shift=3),
        matvec(9, 1, 2, 1, 1, minifloat((3, 0, True), (1, 3, False)), spare=-5),
        matvec(4, 1, 2, 1, 1, minifloat((6, 5, True), (3, 2, True))),
        # one bit each
        matvec(1, 1, 3, 1, 1, xnor()),
        matvec(8, 2, 2, 2, 1, xnor(), shift=1),
        matvec(27, 1, 2, 2, 1, xnor(), bias=False),
        # integers by minifloat codes
        matvec(3, 2, 2, 2, 1, decoded(u8, (2, 1, True), tables=True)),
        matvec(2, 1, 3, 1, 1, decoded((5, True), (3, 2, True), tables=False), shift=1),
        matvec(1, 1, 2, 2, 1, decoded(s4, (2, 0, False), tables=True), bias=False),
        # scales: one for several steps, for a step, for parts of a step, a single word; sums that wrap
        matvec(4, 2, 4, 3, 1, decoded(u8, (2, 1, True), tables=True), block=4, hold=2, scale=2),
        matvec(8, 1, 3, 2, 1, decoded(s8, (2, 1, True), tables=False), block=8, scale=3, bias=False),
        matvec(6, 2, 2, 2, 2, booth(s4, s8), block=2, scale=2),
        matvec(1, 1, 12, 2, 1, booth(u4, s4), block=1, hold=3, scale=4),
        matvec(4, 3, 1, 1, 1, booth(u4, s4), block=2, scale=1, shift=2),
        matvec(8, 1, 2, 2, 1, minifloat((1, 7, False), (4, 3, True)), block=4, scale=3),
        matvec(2, 1, 6, 1, 1, minifloat((2, 1, True), (2, 1, True)), block=2, hold=6, scale=5, spare=-4),
        matvec(6, 1, 2, 1, 1, khot(s4, 2, 2, 3), block=3, scale=2),
        matvec(4, 1, 2, 2, 1, xnor(), block=4, scale=2),
    ]


def depthwise(p: int, k: int, groups: int, how: Arithmetic, shift: int = 0, bias: bool = True) -> Case:
    rng = np.random.default_rng([p, k, groups, *how.parameters.values()])
    codes = rng.choice(list(how.w), (groups, k, p)).astype(object)
    acc = (how.reach * k << shift).bit_length() + 2
    offsets = np.zeros((groups, p), object)
    if bias:
        offsets += rng.integers(0, 1 << min(acc, 60), offsets.shape).astype(object)
    rounds = max(1, 12 // (k * groups))
    elements = list(how.a)
    multiply = np.vectorize(lambda x, w: how.multiply(how.a[x], how.w[w]), otypes=[object])

    def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
        x = rng.choice(elements, (rounds, groups, k, p)).astype(object)
        y = multiply(x, codes[None]).sum(axis=2) * 2**shift + offsets
        return [pack_beats(x, p, how.parameters["A_WIDTH"])], pack_beats(y, p, acc)

    bits = how.parameters["W_WIDTH"]
    files = {"WEIGHT_FILE": (p * bits, pack_beats(codes, p, bits))}
    if bias:
        files["BIAS_FILE"] = (p * acc, pack_beats(offsets, p, acc))
    parameters: dict[str, int | str] = {
        "P": p, "K": k, "GROUPS": groups, **how.parameters, "ACC_WIDTH": acc, "SHIFT": shift,
        "HAS_BIAS": int(bias),
    }  # fmt: skip
    sequence = takes_and_makes((True, i == k - 1) for _ in range(groups) for i in range(k))
    latency = 2 + how.registers(1)
    return _case(
        "qfx_depthwise", parameters, [p * how.parameters["A_WIDTH"]], p * acc,
        lambda: StepModel(latency, sequence), frame, rounds * groups * k, files=files,
    )  # fmt: skip


def depthwise_cases() -> list[Case]:
    return [
        depthwise(2, 3, 2, booth((8, False), (8, True))),
        depthwise(1, 4, 3, khot((8, False), 1, 4, 2), shift=1),
        depthwise(3, 2, 1, khot((5, True), 2, 2, 3)),
        depthwise(2, 9, 2, khot((4, True), 1, 1, 1, zero=False), bias=False),
        depthwise(2, 2, 3, minifloat((4, 3, True), (2, 1, True))),
        depthwise(1, 3, 2, minifloat((2, 1, True), (2, 1, True))),
        depthwise(4, 3, 2, xnor(), shift=1),
    ]


def encode_minifloat_cases() -> list[Case]:
    def make(p: int, width: int, signed: bool, exponent: int, mantissa: int) -> Case:
        numbers = floats(exponent, mantissa, signed)
        low, high = code_range(width, signed)
        # Minus zero is a code that no integer gives.
        codes = {v: c for c, v in sorted(numbers.items(), reverse=True) if low <= v <= high}
        # Every number at once, in an order of its own for each frame.
        beats = -(-len(codes) // p)

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            values = np.resize(rng.permutation(np.array(list(codes), dtype=object)), beats * p)
            expected = [codes[v] for v in values]
            return [pack_beats(values, p, width)], pack_beats(np.array(expected, dtype=object), p, bits)

        bits = int(signed) + exponent + mantissa
        parameters: dict[str, int | str] = {
            "P": p, "IN_WIDTH": width, "IN_SIGNED": int(signed), "EXP": exponent, "MAN": mantissa,
        }  # fmt: skip
        return _case(
            "qfx_encode_minifloat", parameters, [p * width], p * bits,
            lambda: StepModel(2, takes_and_makes([(True, True)])), frame, beats,
        )  # fmt: skip

    return [
        make(1, 5, True, 2, 1), make(3, 10, True, 3, 3), make(2, 19, True, 4, 3), make(1, 4, False, 2, 1),
        make(2, 8, False, 3, 0), make(1, 34, True, 5, 2), make(1, 6, True, 1, 4), make(1, 3, True, 2, 1),
        make(2, 1, False, 1, 2),
    ]  # fmt: skip


def decode_float_cases() -> list[Case]:
    def make(p: int, signed: bool, exponent: int, mantissa: int, width: int) -> Case:
        bits = int(signed) + exponent + mantissa
        low, high = code_range(width, signed)
        # Minus zero among them, which nothing makes.
        numbers = {c: v for c, v in floats(exponent, mantissa, signed).items() if low <= v <= high}
        beats = -(-len(numbers) // p)

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            codes = np.resize(rng.permutation(np.array(list(numbers), dtype=object)), beats * p)
            expected = np.array([numbers[c] for c in codes], dtype=object)
            return [pack_beats(codes, p, bits)], pack_beats(expected, p, width)

        parameters: dict[str, int | str] = {
            "P": p, "EXP": exponent, "MAN": mantissa, "SIGNED": int(signed), "OUT_WIDTH": width,
        }  # fmt: skip
        return _case(
            "qfx_decode_float", parameters, [p * bits], p * width,
            lambda: StepModel(2, takes_and_makes([(True, True)])), frame, beats,
        )  # fmt: skip

    return [
        make(1, True, 2, 1, 5), make(3, True, 3, 3, 11), make(2, True, 4, 3, 19), make(1, False, 2, 1, 4),
        make(2, False, 3, 0, 7), make(1, True, 5, 2, 34), make(1, True, 1, 4, 6), make(2, True, 4, 3, 15),
        make(2, False, 1, 2, 3), make(1, True, 3, 0, 12),
    ]  # fmt: skip


def encode_binary_cases() -> list[Case]:
    def make(p: int, width: int) -> Case:
        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            bits = rng.integers(0, 2, (9, p)).astype(object)
            return [pack_beats(2 * bits - 1, p, width)], pack_beats(bits, p, 1)

        parameters: dict[str, int | str] = {"P": p, "IN_WIDTH": width}
        return _case(
            "qfx_encode_binary", parameters, [p * width], p,
            lambda: StepModel(1, takes_and_makes([(True, True)])), frame, 9,
        )  # fmt: skip

    return [make(1, 2), make(5, 2), make(2, 4)]
