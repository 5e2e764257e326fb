"""Where the memories of a design are kept, as its summary and ``design.json`` report it."""

from __future__ import annotations

from collections.abc import Iterable

from qfx.rtl.design import Kernel, Memory, Stream
from qfx.rtl.estimate import memory as cost_of

#: Parameters whose memory ``ROM_STYLE`` speaks of; for others the synthesis tool decides.
_STYLED = ("WEIGHT_FILE", "SCALE_FILE", "OFFSET_FILE")


def place(kernel: Kernel, parameter: str) -> str:
    """Where a kernel's memory is: ``"wires"`` (a single word), ``"lut"``, ``"block"`` or ``"stream"``
    (outside the design, streamed in for every frame).

    The design asks for it by ``ROM_STYLE``; where that is ``"auto"``, the size decides as in the estimate.
    """
    memory = kernel.memories[parameter]
    if parameter not in kernel.parameters:
        return "stream"
    if memory.depth == 1:
        return "wires"
    style = str(kernel.parameters.get("ROM_STYLE", "auto")) if parameter in _STYLED else "auto"
    return "block" if cost_of(memory.depth, memory.bits, rom=True, style=style).bram18 else "lut"


def describe(kernels: Iterable[Kernel]) -> str:
    """The memories of weights among some kernels: where, words and bits of a word."""
    found = [
        f"{place(kernel, 'WEIGHT_FILE')} {_shape(kernel.memories['WEIGHT_FILE'])}"
        for kernel in kernels
        if "WEIGHT_FILE" in kernel.memories
    ]
    return ", ".join(found)


def _shape(memory: Memory) -> str:
    return f"{memory.depth}x{memory.bits}"


def stream_file(memory: Memory) -> str:
    """Name of the binary file of weights that are streamed in."""
    return f"{memory.file.removesuffix('.mem')}.bin"


def stream_image(stream: Stream, memory: Memory) -> bytes:
    """Weights of one pass as a DMA engine sends them: ``tdata`` of beat after beat, lowest byte first, padded
    to whole bytes as the port is.
    """
    assert memory.words is not None
    size = -(-stream.bits // 8)
    return b"".join(word.to_bytes(size, "little") for word in memory.words)
