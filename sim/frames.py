"""Codes of a tensor as beats of a stream, and beats as lines of hexadecimal text (docs/kernels.md,
"Streams").

A beat carries consecutive channels of one pixel, or several whole pixels, element 0 in the lowest bits;
pixels go row by row, channels run fastest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_VALUES = np.full(256, 255, dtype=np.uint8)
_VALUES[_DIGITS] = np.arange(16, dtype=np.uint8)
_VALUES[np.frombuffer(b"ABCDEF", dtype=np.uint8)] = np.arange(10, 16, dtype=np.uint8)
_CHUNK_BITS = 1 << 26  # bounds the memory of the bit-by-bit forms


def to_beats(codes: np.ndarray, lanes: int) -> np.ndarray:
    """Codes ``(samples, channels, *space)`` in stream order: int64 ``(samples, beats, lanes)``.

    A beat holds a part of the channels of a pixel, or (in the parallel architecture) several whole pixels.
    """
    samples, channels = codes.shape[:2]
    size = codes[0].size
    if channels % lanes and (lanes % channels or size % lanes):
        raise ValueError(
            f"{lanes} elements per beat do not divide {channels} channels, nor a frame of {size}"
        )
    pixels = codes.reshape(samples, channels, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(pixels, dtype=np.int64).reshape(samples, -1, lanes)


def from_beats(beats: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The inverse of :func:`to_beats`: ``(samples, beats, lanes)`` to ``(samples, *shape)``, axis 0 of
    ``shape`` the channels."""
    samples, channels = len(beats), shape[0]
    pixels = beats.reshape(samples, -1, channels)
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(samples, *shape)


def to_hex(beats: np.ndarray, width: int, bits: int) -> bytes:
    """One line of ``ceil(bits / 4)`` digits per beat.

    Args:
        beats: int64 ``(beats, lanes)``, each element a code of ``width`` bits, two's complement when
        negative. width: bits of an element, 1 to 63. bits: bits of a beat, at least ``lanes * width``; those
        above are zero.
    """
    count, lanes = beats.shape
    digits = -(-bits // 4)
    if lanes * width > bits:
        raise ValueError(f"{lanes} elements of {width} bits do not fit into {bits}")
    lines = np.empty((count, digits + 1), dtype=np.uint8)
    lines[:, digits] = ord("\n")
    step = max(1, _CHUNK_BITS // (digits * 4))
    for start in range(0, count, step):
        part = beats[start : start + step].astype(np.uint64)
        plane = np.zeros((len(part), digits * 4), dtype=np.uint8)
        for bit in range(width):
            plane[:, bit : lanes * width : width] = (part >> np.uint64(bit)) & np.uint64(1)
        nibbles = plane.reshape(len(part), digits, 4) @ np.array([1, 2, 4, 8], dtype=np.uint8)
        lines[start : start + step, :digits] = _DIGITS[nibbles[:, ::-1]]
    return lines.tobytes()


def from_hex(text: np.ndarray, width: int, lanes: int, signed: bool) -> np.ndarray:
    """The inverse of :func:`to_hex`.

    Args:
        text: uint8 ``(beats, digits)``, the characters of each beat, highest digit first.
        width: bits of an element, 1 to 63.

    Returns:
        int64 ``(beats, lanes)``.
    """
    count, digits = text.shape
    if digits * 4 < lanes * width:
        raise ValueError(f"{digits} digits hold no {lanes} elements of {width} bits")
    out = np.empty((count, lanes), dtype=np.int64)
    step = max(1, _CHUNK_BITS // (digits * 4))
    for start in range(0, count, step):
        nibbles = _VALUES[text[start : start + step, ::-1]]
        if (nibbles == 255).any():
            raise ValueError("a beat holds characters that are no hexadecimal digits (unknown bits?)")
        plane = (nibbles[:, :, None] >> np.arange(4, dtype=np.uint8)) & 1
        plane = plane.reshape(len(nibbles), -1)[:, : lanes * width]
        total = np.zeros((len(nibbles), lanes), dtype=np.int64)
        for bit in range(width):
            weight = -(1 << bit) if signed and bit == width - 1 else 1 << bit
            total += plane[:, bit::width].astype(np.int64) * weight
        out[start : start + step] = total
    return out


def read_lines(path: Path, length: int) -> np.ndarray:
    """The lines of a file of equally long lines: uint8 ``(lines, length)``; a last line that was cut short is
    left out."""
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    count = len(data) // (length + 1)
    lines = data[: count * (length + 1)].reshape(count, length + 1)
    if count and (lines[:, length] != ord("\n")).any():
        raise ValueError(f"{path}: lines differ in length; expected {length} characters")
    return lines[:, :length]
