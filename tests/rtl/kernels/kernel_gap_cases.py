"""Parameter points of the casts to formats with gaps: every code of words of 5 to 11 bits, and wide words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from kernel_cases import Case, Frames, every_beat
from kernel_gaps import to_binary, to_block, to_khot, to_minifloat
from kernel_golden import ROUNDINGS, code_range, pack, pack_beats, random_codes
from kernel_models import StepModel

Format = tuple[int, bool]


def minifloat_cases() -> list[Case]:
    def make(
        p: int, x: Format, shift: int, precision: int, rounding: str, limit: int | None = None,
        signed: bool = True,
    ) -> Case:  # fmt: skip
        def function(v: int) -> int:
            return to_minifloat(v, shift, precision, limit, signed, rounding)

        parameters = {"SHIFT": shift, "PRECISION": precision, "ROUNDING": ROUNDINGS.index(rounding)}
        return _cast("qfx_cast_minifloat", p, x, parameters, limit, function, 3)

    modes = [make(1 + i % 3, (8, True), 1, 3, rounding, 28) for i, rounding in enumerate(ROUNDINGS)]
    return modes + [
        *(make(1, (7, True), 0, 1 + i % 2, rounding) for i, rounding in enumerate(ROUNDINGS)),
        make(2, (7, False), 2, 2, "RND_CONV", 12), make(1, (9, True), 3, 4, "RND", 30, signed=False),
        make(1, (6, True), -2, 3, "RND_CONV", 96), make(3, (5, False), -1, 2, "TRN_ZERO"),
        # all bits are below the lowest one of the result, or just not all
        make(1, (5, True), 9, 2, "TRN"), make(1, (5, True), 5, 2, "RND_INF"), make(1, (4, True), 4, 1, "RND"),
        # more significant bits than there are; none but the leading one; words of one bit
        make(2, (6, True), 2, 12, "RND_ZERO", 5), make(1, (8, True), 0, 1, "RND_CONV", 64),
        make(1, (9, True), 1, 1, "RND_CONV"), make(1, (8, False), 2, 1, "RND_CONV", 16),
        make(1, (1, True), 0, 1, "RND_CONV"), make(1, (1, False), 1, 1, "RND_CONV"),
        make(1, (24, True), 5, 4, "RND_CONV", 0xF << 12), make(2, (40, True), 7, 3, "RND_MIN_INF"),
        make(1, (33, False), -3, 11, "RND_CONV", 0x7FF << 22),
    ]  # fmt: skip


def khot_cases() -> list[Case]:
    def make(
        p: int, x: Format, shift: int, k: int, csd: bool, limit: int | None = None, signed: bool = True
    ) -> Case:
        bits = x[0] + max(-shift, 0) + 2

        def function(v: int) -> int:
            return to_khot(v, shift, k, csd, limit, signed, bits)

        parameters = {"SHIFT": shift, "K": k, "CSD": int(csd)}
        latency = k + 5 if csd else k + 2
        return _cast("qfx_cast_khot", p, x, parameters, limit, function, latency)

    return [
        *(make(1, (9, True), 0, k, csd) for k in (1, 2, 3, 4) for csd in (True, False)),
        *(make(1, (8, True), 2, k, csd, 24) for k in (1, 2, 3) for csd in (True, False)),
        make(2, (9, True), 1, 2, True, 127), make(3, (7, False), 0, 2, True),
        make(1, (7, False), 1, 2, False), make(1, (11, True), 0, 3, True),
        make(1, (9, True), 1, 2, True, 63, signed=False),
        make(1, (6, True), -2, 2, True, 96), make(2, (6, True), -1, 2, False, 48),
        make(1, (5, True), 9, 2, True), make(1, (5, True), 5, 2, True), make(1, (5, True), 4, 1, False),
        make(1, (4, True), 0, 6, True), make(1, (1, True), 0, 1, True), make(1, (1, False), 1, 1, False),
        make(1, (2, True), 2, 2, True),
    ]  # fmt: skip


def block_cases() -> list[Case]:
    def make(
        p: int, x: Format, size: int, largest: int, precision: int, rounding: str = "RND_CONV",
        signed: bool = True, symmetric: bool = True,
    ) -> Case:  # fmt: skip
        top = largest.bit_length()
        out = (x[0], x[1] and signed)
        count = 128 // p

        def beat(codes: list[int]) -> int:
            blocks = [codes[i : i + size] for i in range(0, p, size)]
            return pack(
                (
                    y
                    for b in blocks
                    for y in to_block(b, top, largest, precision, signed, symmetric, rounding)
                ),
                x[0],
            )

        def frames(seed: int, n: int) -> Frames:
            rng = np.random.default_rng(seed)
            inputs: list[int] = []
            expected: list[int] = []
            for _ in range(n):
                codes = random_codes(rng, (count, p), *x)
                # Blocks of small numbers too, of zeros, and of one number and zeros.
                codes = codes >> rng.integers(0, x[0] + 1, (count, 1)).astype(object)
                kept = rng.random(codes.shape) < rng.random((count, 1))
                codes = codes * kept.astype(int).astype(object)
                inputs += pack_beats(codes, p, x[0])
                expected += [beat([int(v) for v in row]) for row in codes]
            return [inputs], expected

        def model() -> StepModel:
            return StepModel(5, [((0,), True)])

        parameters: dict[str, int | str] = {
            "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), "SIZE": size, "TOP": top,
            "PRECISION": precision, "OUT_WIDTH": out[0], "OUT_SIGNED": int(out[1]),
            "ROUNDING": ROUNDINGS.index(rounding), "SATURATE": 1 if symmetric else 2, "LARGEST": largest,
        }  # fmt: skip
        return every_beat("qfx_cast_block", parameters, p * x[0], p * out[0], model, frames, count)

    s, u = (8, True), (6, False)
    return [
        # E2M1, E4M3 (one number less at the top), E3M0, 8-bit and 4-bit integers
        *(make(4, s, 4, 12, 2, rounding) for rounding in ROUNDINGS), make(4, (20, True), 2, 0b1110 << 14, 4),
        make(2, (7, True), 2, 1 << 6, 1), make(2, (9, True), 2, 1 << 2, 1), make(4, (12, True), 4, 127, 0),
        *(make(3, (9, True), 2, 7, 0, rounding, symmetric=False) for rounding in ROUNDINGS),
        # blocks that leave a rest, of one number, larger than the beat; unsigned on either side; more bits
        # than there are
        make(5, s, 3, 12, 2), make(3, (6, True), 1, 7, 0), make(2, (6, True), 2, 6, 2, signed=False),
        make(4, u, 2, 12, 2), make(2, (4, True), 2, 127, 0), make(1, (1, True), 1, 12, 2),
        make(2, u, 2, 31, 0, "TRN"),
    ]  # fmt: skip


def binary_cases() -> list[Case]:
    def make(p: int, x: Format, out: int) -> Case:
        parameters: dict[str, int | str] = {
            "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), "OUT_WIDTH": out,
        }  # fmt: skip
        return _every_code("qfx_cast_binary", parameters, p, x, out, to_binary, 1)

    return [make(1, (5, True), 2), make(3, (4, True), 2), make(2, (3, False), 1), make(1, (1, True), 2)]


def _cast(
    kernel: str, p: int, x: Format, parameters: dict[str, int], limit: int | None,
    function: Callable[[int], int], latency: int,
) -> Case:  # fmt: skip
    """The narrowest result that holds what comes out, as the generator would have it."""
    ends = [function(end) for end in code_range(*x)]
    signed = min(ends) < 0
    width = max(1, max(ends).bit_length() + signed, (-min(ends) - 1).bit_length() + 1 if signed else 0)
    values: dict[str, int | str] = {
        "P": p, "IN_WIDTH": x[0], "IN_SIGNED": int(x[1]), **parameters,
        "OUT_WIDTH": width, "OUT_SIGNED": int(signed),
    }  # fmt: skip
    # In the order of the module, and no limit where there is none to reach.
    if "ROUNDING" in values:
        values["ROUNDING"] = values.pop("ROUNDING")
    values |= {"SATURATE": int(limit is not None), "LIMIT": limit or 0}
    return _every_code(kernel, values, p, x, width, function, latency)


def _every_code(
    kernel: str, parameters: dict[str, int | str], p: int, x: Format, out: int,
    function: Callable[[int], int], latency: int,
) -> Case:  # fmt: skip
    """Frames that hold every code of a narrow word once, in random order; of a wide one its ends, ties, and
    random codes."""
    low, high = code_range(*x)
    if x[0] <= 11:
        base = np.arange(low, high + 1, dtype=object)
    else:
        points = {n << i for n in (1, 3, 0b1011) for i in range(x[0])}
        near = {s * n + d for n in points for s in (1, -1) for d in (-1, 0, 1)} | {low, high, 0}
        base = np.array(sorted(n for n in near if low <= n <= high), dtype=object)
    count = -(-len(base) // p)

    def frames(seed: int, n: int) -> Frames:
        rng = np.random.default_rng(seed)
        inputs: list[int] = []
        expected: list[int] = []
        for _ in range(n):
            spare = random_codes(rng, (count * p - len(base),), *x)
            codes = rng.permutation(np.concatenate([base, spare])).reshape(count, p)
            inputs += pack_beats(codes, p, x[0])
            expected += [pack((function(int(v)) for v in row), out) for row in codes]
        return [inputs], expected

    def model() -> StepModel:
        return StepModel(latency, [((0,), True)])

    return every_beat(kernel, parameters, p * x[0], p * out, model, frames, count)
