"""Multiply-accumulate with weights of few digits and with blocks that carry scales, in simulation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qfx.cost.kernel import Kernel
from qfx.cost.mac import khot_kernel, mx_kernel
from qfx.errors import QfxError
from qfx.formats import MXFP4, Block, FixedPoint, KHot, Minifloat
from qfx.sim import verilator

HERE = Path(__file__).parent
LONGEST = 20
RUNS = ({"stalls": 0.0}, {"stalls": 0.5}, {"stalls": 0.3, "reset_after": 101})


def simulate(
    kernel: Kernel,
    dots: Sequence[Sequence[int]],
    tdata: list[int],
    tuser: list[int],
    latency: int,
    tmp_path: Path,
    runs: Sequence[dict[str, Any]] = RUNS,
) -> None:
    """Dot products, each a list of beats, through the kernel."""
    built = verilator.build(kernel.paths, kernel.top, parameters=kernel.parameters)
    for number, run in enumerate(runs):
        case = {
            "data": [beat for beats in dots for beat in beats],
            "last": [int(i == len(beats) - 1) for beats in dots for i in range(len(beats))],
            "tdata": tdata,
            "tuser": tuser,
            "latency": latency,
            "seed": number,
            "reset_after": 0,
            **run,
        }
        place = tmp_path / f"run{number}"
        place.mkdir()
        (place / "case.json").write_text(json.dumps(case))
        env = {"QFX_MAC_CASE": str(place / "case.json")}
        verilator.run(built, "bench_mac", test_dir=place, python_path=[HERE], env=env)


def digit_codes(kernel: Kernel) -> dict[int, int]:
    """Every code of a weight with its number, by the words of docs/kernels.md."""
    fine, places = int(kernel.parameters["FINE"]), int(kernel.parameters["PLACES"])
    fine_bits = fine.bit_length() - 1
    width = 1 + fine_bits + places.bit_length()
    digits = {0: 0}
    for sign, shift in product((0, 1), range(fine * places)):
        code = sign | shift % fine << 1 | (shift // fine + 1) << (1 + fine_bits)
        digits[code] = -(1 << shift) if sign else 1 << shift
    return {
        sum(code << (width * k) for k, code in enumerate(codes)): sum(
            digits[code] << (2 * k) for k, code in enumerate(codes)
        )
        for codes in product(digits, repeat=int(kernel.parameters["K"]))
    }


KHOT = [
    (FixedPoint(8, 0), KHot(8, 0, 1)),
    (FixedPoint(8, 0), KHot(8, 0, 2)),
    (FixedPoint(8, 0), KHot(8, 0, 3)),
    (FixedPoint(4, 0, signed=False), KHot(2, 0, 1)),
    (FixedPoint(5, 0, signed=False), KHot(5, 0, 2, "binary")),
    (FixedPoint(6, 0), KHot(8, 0, 4)),
]


@pytest.mark.parametrize(("a", "b"), KHOT, ids=str)
@pytest.mark.parametrize("cast", [False, True], ids=["sum", "cast"])
def test_weights_of_few_digits(a: FixedPoint, b: KHot, cast: bool, tmp_path: Path) -> None:
    kernel = khot_kernel(a, b, LONGEST, cast=cast)
    weights = digit_codes(kernel)
    # The number of a K-hot format that is furthest out, in the accumulator as many times as it is made for.
    far = min(weights, key=weights.__getitem__)
    rng = np.random.default_rng(3)
    low, high = a.code_min, a.code_max
    codes = list(weights)
    dots = [[(x, w)] for x in (low, -1 if a.signed else 1, 0, high) for w in codes[:600]]
    for length in rng.integers(1, LONGEST + 1, 60):
        dots.append(
            [(int(rng.integers(low, high + 1)), codes[rng.integers(len(codes))]) for _ in range(length)]
        )
    inside = [w for w in codes if abs(weights[w]) <= b.integer_max]
    most = max(inside, key=weights.__getitem__)
    dots += [[(x, most)] * LONGEST for x in (low, high)] + [[(low, far)]]
    sums = [sum(x * weights[w] for x, w in pairs) for pairs in dots]
    if cast:
        out = FixedPoint(a.width, 0, a.signed)
        results = [int(out.encode(total / 2 ** (b.width - 1))) % (1 << a.width) for total in sums]
    else:
        results = [total % (1 << int(kernel.parameters["ACC_WIDTH"])) for total in sums]
    beats = [[w << a.width | x % (1 << a.width) for x, w in pairs] for pairs in dots]
    latency = 2 + (int(kernel.parameters["K"]) > 1) + cast
    simulate(kernel, beats, results, [0] * len(sums), latency, tmp_path)


@pytest.mark.parametrize(
    "fmt",
    [MXFP4(), Block(Minifloat(2, 3, 1), 32), Block(Minifloat(4, 3, 7), 8)],
    ids=["MXFP4", "E2M3 x 32", "E4M3 x 8"],
)
def test_blocks(fmt: Block, tmp_path: Path) -> None:
    """Every pair of elements, full blocks, every scale, NaN among them; element values by the format."""
    element, size = fmt.element, fmt.size
    assert isinstance(element, Minifloat) and isinstance(element.frac, int) and size is not None
    kernel = mx_kernel(fmt)
    numbers = [int(v * 2**element.frac) for v in element.decode(np.arange(1 << element.width))]
    rng = np.random.default_rng(4)
    count = len(numbers)
    blocks = [[(x, y)] for x in range(count) for y in range(count)][:4096]
    blocks += [rng.integers(0, count, (size, 2)).tolist() for _ in range(80)]
    top, bottom = int(np.argmax(numbers)), int(np.argmin(numbers))
    blocks += [[(top, top)] * size, [(top, bottom)] * size]
    scales = rng.integers(0, 256, (len(blocks), 2)).tolist()
    scales[:4] = [[255, 0], [3, 255], [0, 0], [254, 254]]
    beats, tdata, tuser = [], [], []
    for block, (a, b) in zip(blocks, scales, strict=True):
        beats.append([((b << 8 | a) << element.width | y) << element.width | x for x, y in block])
        total = sum(numbers[x] * numbers[y] for x, y in block)
        width = int(kernel.parameters["ACC_WIDTH"])
        tdata.append(((a + b - 254) % 1024) << width | total % (1 << width))
        tuser.append(int(255 in (a, b)))
    latency = 2 if 2 * (element.exponent_bits + element.mantissa_bits) <= 6 else 3
    simulate(kernel, beats, tdata, tuser, latency, tmp_path)


def test_refused() -> None:
    with pytest.raises(QfxError, match="up to 4 digits"):
        khot_kernel(FixedPoint(8, 0), KHot(12, 0, 6))
    with pytest.raises(QfxError, match="more than 6 places for one digit"):
        khot_kernel(FixedPoint(8, 0), KHot(16, 0, 2))
    with pytest.raises(QfxError, match="blocks of signed minifloats"):
        mx_kernel(Block(FixedPoint(8, 6), 32))
