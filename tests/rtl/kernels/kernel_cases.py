"""Parameter points of every kernel, with random frames and golden results, written from docs/kernels.md.

Used on both sides: pytest builds the wrapper from it, the cocotb bench draws stimuli from it. So everything
random comes from seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, log2

import numpy as np
from kernel_golden import OVERFLOWS, ROUNDINGS, cast, code_range, pack, pack_beats, random_codes
from kernel_models import FifoModel, ForkModel, Model, ReorderModel, StepModel, WindowModel, takes_and_makes

Frames = tuple[list[list[int]], list[int]]


@dataclass
class Case:
    """One instance of a kernel. `frames(seed, n)` gives the beats of each input and of the output; `interval`
    is the number of cycles per frame without stalls,
    checked where `full_rate`; `ahead`: frames that may begin
    before their input, with padding; `files` maps a parameter to the words of its memory."""

    name: str
    kernel: str
    parameters: dict[str, int | str]
    input_bits: tuple[int, ...]
    output_bits: int
    model: Callable[[], Model]
    frames: Callable[[int, int], Frames]
    interval: int
    files: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    count: int = 3
    outputs: int = 1
    full_rate: bool = True
    ahead: int = 1


def clog2(n: int) -> int:
    """ceil(log2(n)) for small n."""
    return ceil(log2(n)) if n > 1 else 0


def _case(
    kernel: str,
    parameters: dict[str, int | str],
    input_bits: Sequence[int],
    output_bits: int,
    model: Callable[[], Model],
    frame: Callable[[np.random.Generator], tuple[list[list[int]], list[int]]],
    interval: int,
    **more: object,
) -> Case:
    """A case whose frames are independent of each other: `frame` makes one."""

    def frames(seed: int, n: int) -> Frames:
        rng = np.random.default_rng(seed)
        inputs: list[list[int]] = [[] for _ in input_bits]
        expected: list[int] = []
        for _ in range(n):
            beats, out = frame(rng)
            for stream, new in zip(inputs, beats, strict=True):
                stream.extend(new)
            expected.extend(out)
        return inputs, expected

    name = kernel + "(" + ", ".join(f"{k}={v}" for k, v in parameters.items()) + ")"
    bits = tuple(input_bits)
    return Case(name, kernel, parameters, bits, output_bits, model, frames, interval, **more)  # type: ignore[arg-type]


def every_beat(
    kernel: str, parameters: dict[str, int | str], input_bits: int, output_bits: int,
    model: Callable[[], Model], frames: Callable[[int, int], Frames], beats: int,
) -> Case:  # fmt: skip
    """A case of one input, a beat in and a beat out per cycle, whose frames follow from one another."""
    name = kernel + "(" + ", ".join(f"{k}={v}" for k, v in parameters.items()) + ")"
    return Case(name, kernel, parameters, (input_bits,), output_bits, model, frames, beats, count=1)


def _draw(
    rng: np.random.Generator, n: int, width: int, signed: bool, lanes: int
) -> tuple[np.ndarray, list[int]]:
    """`n` beats of `lanes` random codes: the codes, shape (n, lanes), and the beats."""
    codes = random_codes(rng, (n, lanes), width, signed)
    return codes, pack_beats(codes, lanes, width)


# ---- buffers and stream plumbing


def fifo_cases() -> list[Case]:
    def make(width: int, depth: int, style: int) -> Case:
        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            _, beats = _draw(rng, 20, width, False, 1)
            return [beats], beats

        slow = style == 1 and depth == 2  # two beats per three cycles
        case = _case(
            "qfx_fifo",
            {"WIDTH": width, "DEPTH": depth, "STYLE": style},
            [width],
            width,
            lambda: FifoModel(depth, 1 + style),
            frame,
            30 if slow else 20,
        )
        return case

    return [
        make(*p) for p in ((8, 2, 0), (1, 3, 0), (13, 16, 0), (5, 33, 0), (8, 2, 1), (9, 3, 1), (70, 64, 1))
    ]


def fork_cases() -> list[Case]:
    def make(width: int, n: int) -> Case:
        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            _, beats = _draw(rng, 20, width, False, 1)
            return [beats], beats

        return _case(
            "qfx_fork", {"WIDTH": width, "N": n}, [width], width, lambda: ForkModel(n), frame, 20, outputs=n
        )

    return [make(8, 2), make(3, 1), make(11, 3)]


def resize_cases(kernel: str) -> list[Case]:
    def make(width: int, narrow: int, wide: int) -> Case:
        ratio = wide // narrow
        up = kernel == "qfx_upsize"
        count = 12 * ratio

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            codes = random_codes(rng, (count * narrow,), width, False)
            small, large = pack_beats(codes, narrow, width), pack_beats(codes, wide, width)
            return ([small], large) if up else ([large], small)

        if up:
            sequence = takes_and_makes((True, i == ratio - 1) for i in range(ratio))
        else:
            sequence = takes_and_makes((i == 0, True) for i in range(ratio))
        bits = (narrow * width, wide * width) if up else (wide * width, narrow * width)
        parameters: dict[str, int | str] = {
            "WIDTH": width,
            "IN": narrow if up else wide,
            "OUT": wide if up else narrow,
        }
        return _case(kernel, parameters, [bits[0]], bits[1], lambda: StepModel(1, sequence), frame, count)

    return [make(*p) for p in ((8, 1, 4), (3, 2, 6), (5, 3, 3), (1, 1, 8), (4, 1, 2), (7, 1, 5))]


def concat_cases() -> list[Case]:
    def make(width: int, beats0: int, beats1: int) -> Case:
        pixels = 6

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            _, x0 = _draw(rng, pixels * beats0, width, False, 1)
            _, x1 = _draw(rng, pixels * beats1, width, False, 1)
            out: list[int] = []
            for i in range(pixels):
                out += x0[i * beats0 : (i + 1) * beats0] + x1[i * beats1 : (i + 1) * beats1]
            return [x0, x1], out

        sequence = [((0,), True)] * beats0 + [((1,), True)] * beats1
        return _case(
            "qfx_concat", {"WIDTH": width, "BEATS0": beats0, "BEATS1": beats1}, [width, width], width,
            lambda: StepModel(1, sequence, inputs=2), frame, pixels * (beats0 + beats1),
        )  # fmt: skip

    return [make(8, 1, 1), make(4, 3, 1), make(9, 1, 4), make(5, 2, 5)]


def reorder_cases() -> list[Case]:
    def make(width: int, length: int, seed: int, style: str) -> Case:
        address = [int(a) for a in np.random.default_rng(seed).permutation(length)]

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            _, beats = _draw(rng, length, width, False, 1)
            return [beats], [beats[a] for a in address]

        bits = max(1, clog2(length))
        return _case(
            "qfx_reorder", {"WIDTH": width, "LENGTH": length, "RAM_STYLE": style}, [width], width,
            lambda: ReorderModel(length), frame, max(length, 2) if length == 1 else length,
            files={"ADDRESS_FILE": (bits, address)},
        )  # fmt: skip

    return [
        make(8, 16, 1, "auto"),
        make(5, 13, 2, "block"),
        make(12, 36, 3, "distributed"),
        make(4, 2, 4, "auto"),
    ]


# ---- windows


def window_cases() -> list[Case]:
    def make(
        width: int, beats: int, groups: int, image: tuple[int, int], kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int], before: tuple[int, int], after: tuple[int, int], extra: int,
        value: int = 0,
        style: str = "auto", rate: bool = True,
    ) -> Case:  # fmt: skip
        out = [
            (n + b + a - d * (k - 1) - 1) // s + 1
            for n, b, a, d, k, s in zip(image, before, after, dilation, kernel, stride, strict=True)
        ]
        span = ((kernel[0] - 1) * dilation[0] * image[1] + (kernel[1] - 1) * dilation[1] + 1) * beats
        parameters: dict[str, int | str] = {
            "WIDTH": width, "BEATS": beats, "GROUPS": groups, "IN_H": image[0], "IN_W": image[1],
            "OUT_H": out[0],
            "OUT_W": out[1], "KERNEL_H": kernel[0], "KERNEL_W": kernel[1], "STRIDE_H": stride[0],
            "STRIDE_W": stride[1], "DILATION_H": dilation[0], "DILATION_W": dilation[1], "PAD_TOP": before[0],
            "PAD_LEFT": before[1], "PAD_VALUE": value, "DEPTH": span + extra, "RAM_STYLE": style,
        }  # fmt: skip
        group = beats // groups

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            x, stream = _draw(rng, image[0] * image[1] * beats, width, False, 1)
            x = x.reshape(image[0], image[1], beats)
            # The padded image, then plain slicing: independent of the kernel's way of walking.
            big = np.full(
                (image[0] + before[0] + after[0] + 1, image[1] + before[1] + after[1] + 1, beats),
                value,
                dtype=object,
            )
            big[before[0] : before[0] + image[0], before[1] : before[1] + image[1]] = x
            result: list[int] = []
            for oy in range(out[0]):
                for ox in range(out[1]):
                    rows = slice(
                        oy * stride[0], oy * stride[0] + (kernel[0] - 1) * dilation[0] + 1, dilation[0]
                    )
                    cols = slice(
                        ox * stride[1], ox * stride[1] + (kernel[1] - 1) * dilation[1] + 1, dilation[1]
                    )
                    patch = big[rows, cols].reshape(*kernel, groups, group)
                    result += [int(v) for v in patch.transpose(2, 0, 1, 3).reshape(-1)]
            return [stream], result

        steps = out[0] * out[1] * kernel[0] * kernel[1] * beats
        return _case(
            "qfx_window", parameters, [width], width, lambda: WindowModel(parameters), frame,
            max(steps, image[0] * image[1] * beats), full_rate=rate,
            ahead=1 + (before[0] * image[1] + before[1]) // (image[0] * image[1]),
        )  # fmt: skip

    def draw(seed: int) -> Case:
        """Any shape whatever; the buffer as small as it may be or a little larger."""
        rng = np.random.default_rng(seed)

        def pair(low: int, high: int) -> tuple[int, int]:
            return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))

        while True:
            groups, group = pair(1, 3)
            image, kernel, stride, dilation = pair(1, 6), pair(1, 4), pair(1, 4), pair(1, 3)
            before, after = pair(0, 4), pair(0, 4)
            fits = all(
                n + b + a > d * (k - 1)
                for n, b, a, d, k in zip(image, before, after, dilation, kernel, strict=True)
            )
            if fits and np.prod(image) * np.prod(kernel) * groups * group < 400:
                break
        extra = int(rng.integers(0, 3)) * int(rng.integers(0, image[1] * groups * group + 2))
        style = ("auto", "block", "distributed")[seed % 3]
        return make(
            int(rng.integers(1, 9)), groups * group, groups, image, kernel, stride, dilation, before, after,
            extra,
            value=seed % 2, style=style, rate=False,
        )  # fmt: skip

    one = (1, 1)
    return [
        # 3x3, padding 1: the usual convolution; buffer with room, then the smallest one
        make(8, 2, 1, (5, 6), (3, 3), one, one, one, one, 12),
        make(8, 1, 1, (4, 4), (3, 3), one, one, one, one, 0),
        # pooling: every beat its own group, stride = kernel, rows left over at the end
        make(6, 2, 2, (5, 7), (2, 2), (2, 2), one, (0, 0), (0, 0), 28, style="distributed"),
        make(6, 3, 3, (6, 6), (3, 3), (2, 2), one, one, (0, 0), 36, value=0x20, style="block"),
        # one dimension
        make(5, 3, 1, (1, 9), (1, 3), (1, 2), (1, 2), (0, 2), (0, 2), 6),
        make(4, 1, 1, (1, 12), (1, 4), one, one, (0, 3), (0, 0), 1),
        # dilation, asymmetric kernel and padding, groups of two beats
        make(7, 4, 2, (6, 5), (2, 3), (1, 2), (2, 1), (2, 0), (1, 1), 20),
        # 1x1, with and without stride (pixels and rows that nobody wants)
        make(8, 2, 1, (3, 4), one, one, one, (0, 0), (0, 0), 2),
        make(8, 1, 1, (5, 7), one, (3, 3), one, (0, 0), (0, 0), 7),
        make(3, 1, 1, (1, 1), one, one, one, (0, 0), (0, 0), 1),
        # kernel = image (global pooling); kernel larger than the image
        make(8, 2, 2, (3, 3), (3, 3), one, one, (0, 0), (0, 0), 18),
        make(8, 1, 1, (2, 2), (4, 5), one, one, (2, 2), (2, 2), 4),
        # padding wider than the kernel: windows of nothing but padding
        make(8, 1, 1, (2, 3), one, one, one, (2, 2), (3, 2), 3),
        make(8, 2, 1, (3, 2), (2, 2), one, one, (3, 3), (3, 4), 4),
        make(4, 1, 1, (2, 2), (2, 1), (2, 1), (5, 1), (3, 0), (4, 2), 2),
        # stride longer than the kernel and than the image
        make(8, 1, 1, (4, 4), (2, 2), (3, 3), one, one, one, 12),
        make(8, 2, 1, (2, 3), one, (4, 4), one, (0, 0), (0, 0), 6),
        *(draw(seed) for seed in range(30)),
    ]


# ---- multiply-accumulate


def matvec_cases() -> list[Case]:
    def make(
        simd: int, pe: int, sf: int, nf: int, groups: int, a: tuple[int, bool], w: tuple[int, bool],
        shift: int = 0,
        bias: bool = True, style: str = "auto",
    ) -> Case:  # fmt: skip
        rng = np.random.default_rng([simd, pe, sf, nf, groups, *map(int, a), *map(int, w)])
        weights = random_codes(rng, (groups, nf * pe, sf * simd), *w)
        reach = max(abs(v) for v in code_range(*a)) * max(abs(v) for v in code_range(*w)) * sf * simd
        acc = (reach << shift).bit_length() + 2
        offsets = (
            random_codes(rng, (groups, nf * pe), acc - 1, True)
            if bias
            else np.zeros((groups, nf * pe), object)
        )
        rounds = max(1, 12 // (sf * nf * groups))

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            x, stream = _draw(rng, rounds * groups * sf, *a, simd)
            x = x.reshape(rounds, groups, sf * simd)
            out: list[int] = []
            for pixel in x:
                for g in range(groups):
                    y = (weights[g].dot(pixel[g]) * 2**shift) + offsets[g]
                    out += pack_beats(y, pe, acc)
            return [stream], out

        word = [
            pack(weights[g, f * pe : (f + 1) * pe, s * simd : (s + 1) * simd].reshape(-1), w[0])
            for g in range(groups) for f in range(nf) for s in range(sf)
        ]  # fmt: skip
        files = {"WEIGHT_FILE": (pe * simd * w[0], word)}
        if bias:
            files["BIAS_FILE"] = (pe * acc, pack_beats(offsets, pe, acc))
        parameters: dict[str, int | str] = {
            "SIMD": simd, "PE": pe, "SF": sf, "NF": nf, "GROUPS": groups, "A_WIDTH": a[0],
            "A_SIGNED": int(a[1]),
            "W_WIDTH": w[0], "W_SIGNED": int(w[1]), "ACC_WIDTH": acc, "SHIFT": shift, "HAS_BIAS": int(bias),
            "RAM_STYLE": style, "ROM_STYLE": style,
        }  # fmt: skip
        sequence = takes_and_makes(
            (f == 0, s == sf - 1) for _ in range(groups) for f in range(nf) for s in range(sf)
        )
        return _case(
            "qfx_matvec", parameters, [simd * a[0]], pe * acc, lambda: StepModel(3 + clog2(simd), sequence),
            frame,
            rounds * groups * sf * nf, files=files,
        )  # fmt: skip

    import kernel_dot_cases  # which needs this module

    s4, u4 = (4, True), (4, False)
    return [
        make(1, 1, 1, 1, 1, u4, s4),
        make(1, 1, 4, 1, 1, s4, s4, bias=False),
        make(1, 1, 1, 5, 1, u4, s4, shift=2),
        make(1, 1, 3, 4, 1, s4, u4),
        make(2, 3, 1, 1, 1, u4, u4),
        make(3, 2, 2, 3, 1, u4, s4, shift=1),
        make(4, 1, 5, 2, 2, s4, s4, style="distributed"),
        make(5, 4, 2, 1, 3, (8, True), (3, True), bias=False),
        make(8, 2, 3, 2, 1, (1, False), (2, True), style="block"),
        make(7, 1, 1, 2, 4, (3, False), (1, True)),
        make(9, 2, 2, 2, 1, (2, True), (1, False), shift=3),
        make(2, 1, 7, 3, 1, (16, True), (12, True)),
        make(16, 1, 1, 1, 2, (1, True), (1, True)),
        make(2, 2, 9, 5, 1, u4, s4, style="distributed"),  # more than 32 words: qfx_rom
        *kernel_dot_cases.matvec_cases(),
    ]


def matvec_stream_cases() -> list[Case]:
    """`qfx_matvec` with its weights as the second stream."""

    def make(
        simd: int, pe: int, sf: int, nf: int, groups: int, a: tuple[int, bool], w: tuple[int, bool],
        bias: bool = True,
    ) -> Case:  # fmt: skip
        rng = np.random.default_rng([simd, pe, sf, nf, groups])
        reach = max(abs(v) for v in code_range(*a)) * max(abs(v) for v in code_range(*w)) * sf * simd
        acc = reach.bit_length() + 2
        offsets = random_codes(rng, (groups, nf * pe), acc - 1, True)
        rounds = max(1, 12 // (sf * nf * groups))

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            x, elements = _draw(rng, rounds * groups * sf, *a, simd)
            pixels = x.reshape(rounds, groups, sf * simd)
            # Nothing says that two rounds have the same weights.
            weights = random_codes(rng, (rounds, groups, nf, pe, sf, simd), *w)
            words = np.moveaxis(weights, 3, 4).reshape(-1, pe * simd)
            out: list[int] = []
            for r in range(rounds):
                for g in range(groups):
                    y = weights[r, g].reshape(nf * pe, sf * simd).dot(pixels[r, g])
                    out += pack_beats(y + offsets[g] if bias else y, pe, acc)
            return [elements, [pack(word, w[0]) for word in words]], out

        parameters: dict[str, int | str] = {
            "SIMD": simd, "PE": pe, "SF": sf, "NF": nf, "GROUPS": groups, "A_WIDTH": a[0],
            "A_SIGNED": int(a[1]),
            "W_WIDTH": w[0], "W_SIGNED": int(w[1]), "ACC_WIDTH": acc, "HAS_BIAS": int(bias),
        }  # fmt: skip
        steps = [(f, s) for _ in range(groups) for f in range(nf) for s in range(sf)]
        sequence = [((0, 1) if f == 0 else (1,), s == sf - 1) for f, s in steps]
        files = {"BIAS_FILE": (pe * acc, pack_beats(offsets, pe, acc))} if bias else {}
        return _case(
            "qfx_matvec_stream", parameters, [simd * a[0], pe * simd * w[0]], pe * acc,
            lambda: StepModel(3 + clog2(simd), sequence, inputs=2), frame,
            rounds * groups * sf * nf, files=files,
        )  # fmt: skip

    s4, u4 = (4, True), (4, False)
    return [
        make(1, 1, 1, 1, 1, u4, s4),
        make(1, 1, 1, 5, 1, u4, s4),
        make(2, 3, 4, 1, 1, s4, s4, bias=False),
        make(4, 2, 3, 4, 1, u4, (3, True)),
        make(3, 1, 2, 2, 2, (8, True), s4),
    ]


def depthwise_cases(kernel: str) -> list[Case]:
    def make(
        p: int,
        k: int,
        groups: int,
        a: tuple[int, bool],
        w: tuple[int, bool],
        shift: int = 0,
        bias: bool = True,
        style: str = "auto",
    ) -> Case:
        rng = np.random.default_rng([p, k, groups, *map(int, a), *map(int, w)])
        weights = random_codes(rng, (groups, k, p), *w)
        reach = max(abs(v) for v in code_range(*a)) * max(abs(v) for v in code_range(*w)) * k
        acc = (reach << shift).bit_length() + 2
        offsets = random_codes(rng, (groups, p), acc - 1, True) if bias else np.zeros((groups, p), object)
        rounds = max(1, 12 // (k * groups))

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            x, stream = _draw(rng, rounds * groups * k, *a, p)
            x = x.reshape(rounds, groups, k, p)
            y = (x * weights).sum(axis=2) * 2**shift + offsets
            return [stream], pack_beats(y, p, acc)

        affine = kernel == "qfx_affine"
        names = ("SCALE_FILE", "OFFSET_FILE") if affine else ("WEIGHT_FILE", "BIAS_FILE")
        files = {names[0]: (p * w[0], pack_beats(weights, p, w[0]))}
        if bias:
            files[names[1]] = (p * acc, pack_beats(offsets, p, acc))
        parameters: dict[str, int | str]
        if affine:
            parameters = {
                "P": p, "BEATS": groups, "IN_WIDTH": a[0], "IN_SIGNED": int(a[1]), "SCALE_WIDTH": w[0],
                "SCALE_SIGNED": int(w[1]), "OUT_WIDTH": acc, "SHIFT": shift, "HAS_OFFSET": int(bias),
            }  # fmt: skip
        else:
            parameters = {
                "P": p, "K": k, "GROUPS": groups, "A_WIDTH": a[0], "A_SIGNED": int(a[1]), "W_WIDTH": w[0],
                "W_SIGNED": int(w[1]), "ACC_WIDTH": acc, "SHIFT": shift, "HAS_BIAS": int(bias),
            }  # fmt: skip
        parameters["ROM_STYLE"] = style
        sequence = takes_and_makes((True, i == k - 1) for _ in range(groups) for i in range(k))
        return _case(
            kernel, parameters, [p * a[0]], p * acc, lambda: StepModel(3, sequence), frame,
            rounds * groups * k,
            files=files,
        )  # fmt: skip

    s5, u4 = (5, True), (4, False)
    if kernel == "qfx_affine":
        return [
            make(1, 1, 1, s5, s5), make(2, 1, 3, u4, s5, shift=2), make(4, 1, 2, s5, u4, bias=False),
            make(3, 1, 1, u4, u4), make(1, 1, 5, (1, False), (1, True), shift=1),
        ]  # fmt: skip
    return [
        make(1, 1, 1, s5, s5), make(1, 9, 1, u4, s5), make(2, 4, 3, s5, u4, shift=2), make(4, 3, 2, u4, u4,
        bias=False),
        make(3, 2, 4, (1, True), (2, True)), make(1, 9, 5, (8, True), (8, True), shift=1, bias=False),
        make(2, 9, 4, u4, s5, style="distributed"),  # more than 32 words: qfx_rom
    ]  # fmt: skip


# ---- pooling and element-wise


def pool_of_codes_case(p: int, k: int, width: int) -> Case:
    """Codes with the sign in the top bit; all of them, minus zero aside, in an order of its own per frame."""
    codes = [c for c in range(1 << width) if c != 1 << (width - 1)]
    rounds = -(-len(codes) // (k * p)) + 1

    def number(code: int) -> int:
        return -(code & (1 << width - 1) - 1) if code >> width - 1 else code

    def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
        x = np.resize(rng.permutation(np.array(codes, dtype=object)), (rounds, k, p))
        y = [[max(x[r, :, lane], key=number) for lane in range(p)] for r in range(rounds)]
        return [pack_beats(x.reshape(-1), p, width)], pack_beats(np.array(y, dtype=object), p, width)

    parameters: dict[str, int | str] = {
        "P": p, "K": k, "MODE": 2, "IN_WIDTH": width, "IN_SIGNED": 1, "OUT_WIDTH": width,
        "SCALE_WIDTH": 2, "SCALE": 1,
    }  # fmt: skip
    sequence = takes_and_makes((True, i == k - 1) for i in range(k))
    return _case(
        "qfx_pool", parameters, [p * width], p * width, lambda: StepModel(1, sequence), frame, rounds * k
    )


def pool_cases() -> list[Case]:
    def make(
        p: int, k: int, mode: int, x_format: tuple[int, bool], scale: tuple[int, int] = (2, 1), extra: int = 0
    ) -> Case:
        width, signed = x_format
        low, high = code_range(width, signed)
        if mode == 0:
            out = width + extra
        else:
            ends = [v * k * scale[1] for v in (low, high)]
            out = max(abs(v) for v in ends).bit_length() + 1 + extra
        rounds = max(2, 12 // k)

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            x, stream = _draw(rng, rounds * k, width, signed, p)
            x = x.reshape(rounds, k, p)
            y = x.max(axis=1) if mode == 0 else x.sum(axis=1) * scale[1]
            return [stream], pack_beats(y, p, out)

        parameters: dict[str, int | str] = {
            "P": p, "K": k, "MODE": mode, "IN_WIDTH": width, "IN_SIGNED": int(signed), "OUT_WIDTH": out,
            "SCALE_WIDTH": scale[0], "SCALE": scale[1] & ((1 << scale[0]) - 1),
        }  # fmt: skip
        sequence = takes_and_makes((True, i == k - 1) for i in range(k))
        latency = 2 if mode == 1 and scale[1] != 1 else 1
        return _case(
            "qfx_pool",
            parameters,
            [p * width],
            p * out,
            lambda: StepModel(latency, sequence),
            frame,
            rounds * k,
        )

    return [
        make(1, 4, 0, (8, True)), make(3, 9, 0, (4, False)), make(2, 1, 0, (5, True)), make(2, 2, 0, (1,
        True)),
        make(1, 3, 0, (1, False), extra=2), make(2, 4, 0, (3, True), extra=3),
        make(1, 4, 1, (8, True)), make(2, 16, 1, (4, False)), make(2, 1, 1, (5, True), extra=2),
        make(2, 9, 1, (6, True), (8, 57)), make(1, 7, 1, (4, False), (6, -19)), make(1, 1, 1, (3, False), (3,
        -4)),
        pool_of_codes_case(1, 4, 5), pool_of_codes_case(2, 9, 8), pool_of_codes_case(3, 1, 3),
    ]  # fmt: skip


def _elementwise(
    kernel: str, parameters: dict[str, int | str], x_format: tuple[int, bool], p: int, out: int,
    function: Callable[[int, int], int], latency: int = 1, beats: int = 1,
    files: dict[str, tuple[int, list[int]]] | None = None,
) -> Case:  # fmt: skip
    """One beat in, one out: `function(code, channel)`."""
    count = beats * max(1, 24 // beats)

    def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
        x, stream = _draw(rng, count, *x_format, p)
        y = [
            pack((function(int(v), (i % beats) * p + lane) for lane, v in enumerate(row)), out)
            for i, row in enumerate(x)
        ]
        return [stream], y

    sequence = takes_and_makes([(True, True)])
    return _case(
        kernel, parameters, [p * x_format[0]], p * out, lambda: StepModel(latency, sequence), frame, count,
        files=files or {},
    )  # fmt: skip


def relu_cases() -> list[Case]:
    def make(p: int, width: int, signed: bool, out: int) -> Case:
        parameters: dict[str, int | str] = {
            "P": p,
            "IN_WIDTH": width,
            "IN_SIGNED": int(signed),
            "OUT_WIDTH": out,
        }
        return _elementwise("qfx_relu", parameters, (width, signed), p, out, lambda v, _: max(v, 0))

    return [
        make(1, 8, True, 7),
        make(3, 5, True, 5),
        make(2, 4, False, 4),
        make(2, 1, True, 1),
        make(1, 6, True, 9),
    ]


def leaky_cases() -> list[Case]:
    def make(p: int, width: int, signed: bool, slope_frac: int, slope_width: int, slope: int) -> Case:
        low, high = code_range(width, signed)
        out = max(abs(low * slope), high << slope_frac, 1).bit_length() + 1
        parameters: dict[str, int | str] = {
            "P": p, "IN_WIDTH": width, "IN_SIGNED": int(signed), "OUT_WIDTH": out, "SLOPE_FRAC": slope_frac,
            "SLOPE_WIDTH": slope_width, "SLOPE": slope & ((1 << slope_width) - 1),
        }  # fmt: skip

        def function(v: int, _: int) -> int:
            return v * 2**slope_frac if v >= 0 else v * slope

        return _elementwise("qfx_leaky_relu", parameters, (width, signed), p, out, function)

    return [
        make(2, 6, True, 3, 2, 1), make(1, 8, True, 8, 7, 26), make(3, 4, True, 0, 3, -3), make(1, 5, False,
        2, 2, 1),
        make(1, 1, True, 4, 4, 5),
    ]  # fmt: skip


def clip_cases() -> list[Case]:
    def make(
        p: int, width: int, signed: bool, shift: int, bound: int, low: int | None, high: int | None, out: int,
        beats: int = 0,
    ) -> Case:  # fmt: skip
        rng = np.random.default_rng([p, width, shift, bound, beats])
        channels = p * max(beats, 1)
        lows, highs = [low] * channels, [high] * channels
        files: dict[str, tuple[int, list[int]]] = {}
        if beats:
            if low is not None:
                lows = [int(v) for v in random_codes(rng, (channels,), bound, True)]
                files["LOW_FILE"] = (p * bound, pack_beats(np.array(lows, object), p, bound))
            if high is not None:
                highs = [int(v) for v in random_codes(rng, (channels,), bound, True)]
                files["HIGH_FILE"] = (p * bound, pack_beats(np.array(highs, object), p, bound))
        mask = (1 << bound) - 1
        parameters: dict[str, int | str] = {
            "P": p, "IN_WIDTH": width, "IN_SIGNED": int(signed), "OUT_WIDTH": out, "SHIFT": shift,
            "BOUND_WIDTH": bound, "HAS_LOW": int(low is not None), "LOW": (low or 0) & mask,
            "HAS_HIGH": int(high is not None), "HIGH": (high or 0) & mask, "PER_CHANNEL": int(beats > 0),
            "BEATS": max(beats, 1),
        }  # fmt: skip

        def function(v: int, channel: int) -> int:
            v <<= shift
            lower, upper = lows[channel], highs[channel]
            if lower is not None:
                v = max(v, lower)
            return v if upper is None else min(v, upper)

        return _elementwise(
            "qfx_clip", parameters, (width, signed), p, out, function, beats=max(beats, 1), files=files
        )

    return [
        make(2, 8, True, 0, 8, 0, 96, 7), make(1, 6, True, 2, 6, -20, None, 9), make(3, 4, False, 0, 8, None,
        6, 3),
        make(1, 5, True, 0, 10, -300, 200, 5), make(1, 5, True, 1, 4, 5, -5, 6), make(1, 4, True, 0, 2, None,
        None, 4),
        make(2, 6, True, 1, 8, 0, 0, 10, beats=3), make(1, 7, False, 0, 6, None, 0, 8, beats=4),
        make(3, 5, True, 0, 7, 0, None, 7, beats=1),
    ]  # fmt: skip


def cast_stream_cases() -> list[Case]:
    def make(
        p: int, x: tuple[int, bool], shift: int, y: tuple[int, bool], rounding: str, overflow: str,
        beats: int = 0,
        align_max: int = 1,
    ) -> Case:  # fmt: skip
        rng = np.random.default_rng([p, x[0], beats, align_max])
        align = [int(a) for a in rng.integers(0, align_max + 1, p * beats)] if beats else [0] * p
        if beats:
            align[0], align[-1] = 0, align_max
        parameters: dict[str, int | str] = {
            "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), "SHIFT": shift, "OUT_WIDTH": y[0],
            "OUT_SIGNED": int(y[1]), "ROUNDING": ROUNDINGS.index(rounding),
            "OVERFLOW": OVERFLOWS.index(overflow),
            "PER_CHANNEL": int(beats > 0), "BEATS": max(beats, 1), "ALIGN_MAX": align_max,
        }  # fmt: skip
        bits = clog2(align_max + 1)
        files = {"ALIGN_FILE": (p * bits, pack_beats(np.array(align, object), p, bits))} if beats else {}

        def function(v: int, channel: int) -> int:
            return cast(v, shift - align[channel], *y, rounding, overflow)

        return _elementwise(
            "qfx_cast_stream", parameters, x, p, y[0], function, 2 if beats else 1, max(beats, 1), files
        )

    return [
        make(2, (8, True), 3, (4, True), "RND_CONV", "SAT"), make(1, (6, False), -2, (9, False), "TRN",
        "WRAP"),
        make(3, (10, True), 5, (4, False), "RND", "SAT"),
        make(2, (8, True), 4, (4, True), "RND_CONV", "SAT", 3, 5), make(1, (5, False), 2, (5, False),
        "RND_ZERO", "WRAP", 4, 1),
        make(4, (7, True), 6, (6, True), "TRN_ZERO", "WRAP_SM", 1, 7), make(2, (4, True), 0, (8, True),
        "TRN", "WRAP", 2, 4),
        make(1, (6, True), -1, (12, True), "RND_INF", "SAT_SYM", 5, 3),
    ]  # fmt: skip


def binary_cases() -> list[Case]:
    def make(
        p: int, mode: int, x0: tuple[int, bool], x1: tuple[int, bool], shift0: int = 0, shift1: int = 0
    ) -> Case:
        reach = [max(abs(v) for v in code_range(*f)) << s for f, s in ((x0, shift0), (x1, shift1))]
        out = (reach[0] * reach[1] if mode == 2 else sum(reach)).bit_length() + 1
        count = 24

        def frame(rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
            a, stream0 = _draw(rng, count, *x0, p)
            b, stream1 = _draw(rng, count, *x1, p)
            a, b = a * 2**shift0, b * 2**shift1
            y = (a + b, a - b, a * b)[mode]
            return [stream0, stream1], pack_beats(y, p, out)

        parameters: dict[str, int | str] = {
            "P": p, "WIDTH0": x0[0], "SIGNED0": int(x0[1]), "SHIFT0": shift0, "WIDTH1": x1[0],
            "SIGNED1": int(x1[1]),
            "SHIFT1": shift1, "MODE": mode, "OUT_WIDTH": out,
        }  # fmt: skip
        sequence = [((0, 1), True)]
        return _case(
            "qfx_binary", parameters, [p * x0[0], p * x1[0]], p * out,
            lambda: StepModel(2 if mode == 2 else 1, sequence, inputs=2), frame, count,
        )  # fmt: skip

    s, u = (5, True), (4, False)
    return [
        make(2, 0, s, s), make(1, 0, s, u, 0, 3), make(3, 1, u, u, 2, 0), make(1, 1, u, s), make(2, 2, s, u,
        1, 2),
        make(1, 2, s, s), make(1, 2, u, u), make(2, 0, (1, True), (1, False)), make(1, 2, (1, True), (1,
        True)),
    ]  # fmt: skip


def _gaps(name: str) -> list[Case]:
    import kernel_gap_cases  # which needs this module

    return {
        "qfx_cast_minifloat": kernel_gap_cases.minifloat_cases,
        "qfx_cast_khot": kernel_gap_cases.khot_cases,
        "qfx_cast_binary": kernel_gap_cases.binary_cases,
        "qfx_cast_block": kernel_gap_cases.block_cases,
    }[name]()


def _arrays(name: str) -> list[Case]:
    import kernel_array_cases  # which needs this module

    return kernel_array_cases.SWEEPS[name]()


def _codes(function: str) -> list[Case]:
    import kernel_dot_cases  # which needs this module

    made: list[Case] = getattr(kernel_dot_cases, function)()
    return made


KERNELS: dict[str, Callable[[], list[Case]]] = {
    "qfx_fifo": fifo_cases,
    "qfx_fork": fork_cases,
    "qfx_upsize": lambda: resize_cases("qfx_upsize"),
    "qfx_downsize": lambda: resize_cases("qfx_downsize"),
    "qfx_window": window_cases,
    "qfx_matvec": matvec_cases,
    "qfx_matvec_stream": matvec_stream_cases,
    "qfx_encode_minifloat": lambda: _codes("encode_minifloat_cases"),
    "qfx_decode_float": lambda: _codes("decode_float_cases"),
    "qfx_encode_binary": lambda: _codes("encode_binary_cases"),
    "qfx_depthwise": lambda: [*depthwise_cases("qfx_depthwise"), *_codes("depthwise_cases")],
    "qfx_affine": lambda: depthwise_cases("qfx_affine"),
    "qfx_pool": pool_cases,
    "qfx_cast_stream": cast_stream_cases,
    "qfx_cast_minifloat": lambda: _gaps("qfx_cast_minifloat"),
    "qfx_cast_khot": lambda: _gaps("qfx_cast_khot"),
    "qfx_cast_binary": lambda: _gaps("qfx_cast_binary"),
    "qfx_cast_block": lambda: _gaps("qfx_cast_block"),
    "qfx_relu": relu_cases,
    "qfx_leaky_relu": leaky_cases,
    "qfx_clip": clip_cases,
    "qfx_binary": binary_cases,
    "qfx_concat": lambda: [*concat_cases(), *_arrays("qfx_concat")],
    "qfx_reorder": reorder_cases,
    **{
        name: partial(_arrays, name)
        for name in (
            "qfx_table", "qfx_piecewise", "qfx_inverse_root", "qfx_slice", "qfx_repeat", "qfx_insert_zeros",
            "qfx_reduce", "qfx_constant", "qfx_gather", "qfx_matmul",
        )
    },
}  # fmt: skip


def cases(kernel: str) -> list[Case]:
    """All parameter points of a kernel."""
    return KERNELS[kernel]()
