"""Packing of codes into beats, against a packing of Python integers written down from docs/kernels.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfx.sim import frames


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, int, int, bool]:
    """Codes ``(samples, channels, *space)``, elements per beat, bits per element, signedness."""
    lanes = draw(st.integers(1, 4))
    space = draw(st.lists(st.integers(1, 4), max_size=2))
    shape = (draw(st.integers(1, 3)), lanes * draw(st.integers(1, 3)), *space)
    width = draw(st.integers(1, 40))
    signed = draw(st.booleans())
    low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True), lanes, width, signed


@given(tensors(), st.integers(0, 9))
def test_beats_are_packed_as_the_contract_says(
    drawn: tuple[np.ndarray, int, int, bool], padding: int
) -> None:
    codes, lanes, width, signed = drawn
    channels, pixels = codes.shape[1], codes.reshape(*codes.shape[:2], -1).shape[2]
    bits = lanes * width + padding
    expected = []
    for sample in codes.reshape(len(codes), channels, pixels):
        for pixel in range(pixels):
            for first in range(0, channels, lanes):
                word = 0
                for lane in range(lanes):
                    word |= (int(sample[first + lane, pixel]) % 2**width) << (lane * width)
                expected.append(f"{word:0{-(-bits // 4)}x}\n")
    beats = frames.to_beats(codes, lanes)
    text = frames.to_hex(beats.reshape(-1, lanes), width, bits)
    assert text.decode() == "".join(expected)

    lines = np.frombuffer(text, dtype=np.uint8).reshape(len(expected), -1)[:, :-1]
    back = frames.from_hex(lines, width, lanes, signed)
    assert np.array_equal(frames.from_beats(back.reshape(beats.shape), codes.shape[1:]), codes)


def test_unknown_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown bits"):
        frames.from_hex(np.frombuffer(b"0x", dtype=np.uint8).reshape(1, 2), 8, 1, False)


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("0a\n0b\n0")
    assert frames.read_lines(path, 2).tobytes() == b"0a0b"
    path.write_text("0a\n0bc\n0")
    with pytest.raises(ValueError, match="differ in length"):
        frames.read_lines(path, 2)
