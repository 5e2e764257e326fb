"""What is counted in the memories of kernels."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from qfx.cost import Kernel as Source
from qfx.cost import contents, measure
from qfx.rtl import emit
from qfx.rtl.design import Kernel, Memory


def test_columns_by_hand() -> None:
    # Two words: every column is a constant, the address bit, or its complement.
    assert contents.columns([0b01, 0b10], 2) == (0, 2, 2)
    # Functions of two address bits: a & b, a | b, the complement of a & b, and a & b once more.
    assert contents.columns([0b0100, 0b0110, 0b0110, 0b1011], 4) == (2, 4, 3)
    assert contents.columns([7, 7, 7], 3) == (0, 0, 0)
    # 70 words: two look-up tables to a bit, of which the second is constant here.
    assert contents.columns([0, 1] * 32 + [1] * 6, 1) == (1, 1, 1)
    # Equal columns are one.
    assert contents.columns([0b11, 0b00] * 20, 2) == (1, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "bits", "luts"), [(432, 12, 118), (1000, 5, 116), (2000, 6, 266), (4800, 12, 1255)]
)
def test_a_rom_of_many_words_takes_what_is_counted(depth: int, bits: int, luts: int, tmp_path: Path) -> None:
    """The figures that ``SELECT_FIRST`` and ``SELECT`` come from; Yosys 0.70."""
    rng = np.random.default_rng(0)
    words = [int(rng.integers(0, 2**bits)) for _ in range(depth)]
    data = tmp_path / "words.mem"
    data.write_text("\n".join(f"{word:x}" for word in words) + "\n")
    parameters = {"DEPTH": depth, "WIDTH": bits, "ADDR": (depth - 1).bit_length(), "FILE": data.name}
    found = measure(Source("qfx_rom", emit.sources(("qfx_rom",)), parameters, [data])).lut
    assert found == luts
    assert abs(contents.columns(words, bits)[0] / found - 1) < 0.15


@pytest.mark.parametrize(
    ("depth", "bits"), [(2, 20), (3, 20), (4, 20), (6, 40), (12, 30), (40, 30), (300, 10)]
)
def test_random_words_have_what_is_expected(depth: int, bits: int) -> None:
    rng = random.Random(1)
    found = [contents.columns([rng.getrandbits(bits) for _ in range(depth)], bits) for _ in range(200)]
    expected = contents.expected(depth, bits)
    lut, live, distinct = (sum(values) / len(found) for values in zip(*found, strict=True))
    assert lut == pytest.approx(expected["lut"], rel=0.03, abs=0.1)
    assert live == pytest.approx(expected["live"] * bits, rel=0.03)
    assert distinct == pytest.approx(expected["ff"], rel=0.03)


def test_memories_of_a_kernel() -> None:
    parameters = {
        "W_WIDTH": 4,
        "W_SIGNED": 1,
        "WEIGHT_FILE": "w",
        "BIAS_FILE": "b",
        "ROM_STYLE": "distributed",
    }
    constant = Memory("w", 12, 1, (0x0F7,))  # 7 = 8 - 1, -1, 0
    bias = Memory("b", 3, 4, (0, 1, 1, 1))
    kernel = Kernel("k", "qfx_matvec", parameters, (), (), "", {"WEIGHT_FILE": constant, "BIAS_FILE": bias})
    found = contents.of(kernel)
    assert found == {
        "weight_digits": 3.0, "weight_nonzero": 2.0, "bias_lut": 1.0, "bias_ff": 1.0,
        "bias_live": pytest.approx(1 / 3),
    }  # fmt: skip
    # Unknown while a folding is weighed, and no look-up tables in block RAM.
    unknown = Kernel("k", "qfx_matvec", parameters, (), (), "", {"WEIGHT_FILE": Memory("w", 12, 9)})
    assert contents.of(unknown) == {}
    deep = Memory("w", 12, 2, (1, 2))
    block = Kernel("k", "qfx_matvec", {**parameters, "ROM_STYLE": "block"}, (), (), "", {"WEIGHT_FILE": deep})
    assert contents.of(block) == {}


@pytest.mark.parametrize(("number", "count"), [(0, 0), (1, 1), (-1, 1), (7, 2), (11, 3), (0x5555, 8)])
def test_digits(number: int, count: int) -> None:
    assert contents.digits(number) == count
