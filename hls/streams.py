"""What streams need beyond arrays: one reader each, and beats of the right size."""

from __future__ import annotations

import numpy as np

from qfx.hls.kernels import Struct
from qfx.hls.layers import LayerSpec

#: hls4ml's ``clone_stream`` makes at most this many copies.
_MAX_COPIES = 7


def stream_layers(layers: list[LayerSpec]) -> list[LayerSpec]:
    """The layers with beats regrouped where shapes change, and a copy for every reader of a stream."""
    readers: dict[str, list[tuple[LayerSpec, int]]] = {}
    shapes = {layer.name: layer.shape for layer in layers}
    for layer in layers:
        for i, name in enumerate(layer.inputs):
            readers.setdefault(name, []).append((layer, i))
    for layer in layers:
        if layer.class_name == "Reshape":
            _repack(layer, shapes[layer.inputs[0]], readers.get(layer.name, []))
    done: list[LayerSpec] = []
    for layer in layers:
        done += [layer, *_forks(layer, readers.get(layer.name, []))]
    return done


def _repack(layer: LayerSpec, before: tuple[int, ...], readers: list[tuple[LayerSpec, int]]) -> None:
    """Regroup the beats, unless the reader is hls4ml's dense layer, which gathers them itself."""
    if len(layer.shape) == 1 and len(readers) == 1 and readers[0][0].class_name == "Dense":
        return
    if before[-1] % layer.shape[-1] == 0 or layer.shape[-1] % before[-1] == 0:
        layer.class_name = "Repack"
        return
    struct = Struct()
    size = int(np.prod(layer.shape))
    struct.constants(n_in=size)
    struct.table("source", np.arange(size), "unsigned", rom=True)
    layer.class_name = "QfxKernel"
    layer.attributes = {"function": "qfx::reorder", "header": "qfx_reorder.h", "struct": struct.text()}


def _forks(layer: LayerSpec, readers: list[tuple[LayerSpec, int]]) -> list[LayerSpec]:
    """Layers that copy a stream for its readers (layer, operand); the last of many copies feeds the next."""
    forks: list[LayerSpec] = []
    source = layer.name
    while len(readers) > 1:
        chained = len(readers) > _MAX_COPIES
        served = readers[: _MAX_COPIES - 1] if chained else readers
        readers = readers[len(served) :]
        name = f"fork{len(forks)}_{layer.name}"
        copies = [f"{name}_{i}" for i in range(len(served) + chained)]
        types = {"result": layer.types["result"].plain}
        forks.append(
            LayerSpec(name, "Clone", [source], layer.shape, types, {"size": layer.size}, outputs=copies)
        )
        for (reader, operand), copy in zip(served, copies, strict=False):
            reader.inputs[operand] = copy
        source = copies[-1]
    return forks
