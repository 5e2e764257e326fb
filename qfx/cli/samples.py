"""Samples to run a network on when the user has none at hand, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qfx.errors import QfxError

if TYPE_CHECKING:
    from qfx.graph import Graph


def samples(graph: Graph, count: int, seed: int, path: Path | None = None) -> np.ndarray:
    """Input samples, float64, shape `(samples, *input shape)`.

    Args:
        graph: the network.
        count: how many samples; from a file, the first ones.
        seed: of the random ones, which are spread over the range of the input format and an eighth of it
            beyond either end, half of them moved to a multiple of half a step: saturation and ties occur.
        path: a `.npy` file of real numbers instead of random ones.

    Raises:
        QfxError: the file cannot be read, or holds something else.
    """
    if count < 1:
        raise QfxError(f"{count} samples: at least 1 is needed")
    return _random(graph, count, seed) if path is None else _read(graph, count, path)


def _random(graph: Graph, count: int, seed: int) -> np.ndarray:
    tensor = graph.input_node.tensor
    low, high = tensor.format.code_min, tensor.format.code_max
    margin = (high - low + 1) / 8
    rng = np.random.default_rng(seed)
    codes = rng.uniform(low - margin, high + margin, (count, *tensor.shape))
    codes = np.where(rng.random(codes.shape) < 0.5, np.round(codes * 2) / 2, codes)
    step = np.array([2.0**-frac for frac in tensor.fracs])
    return codes * step.reshape(-1, *(1,) * (len(tensor.shape) - 1))


def _read(graph: Graph, count: int, path: Path) -> np.ndarray:
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise QfxError(f"{path}: not a .npy file of numbers ({error}); write one with numpy.save") from error
    shape = graph.input_node.tensor.shape
    expected = f"real numbers of shape (samples, {', '.join(map(str, shape))})"
    if not isinstance(data, np.ndarray):
        raise QfxError(f"{path}: an archive of arrays; expected one array, {expected}")
    if data.dtype.kind not in "fiu" or data.shape[1:] != shape or len(data) == 0:
        raise QfxError(f"{path}: {data.dtype}, shape {data.shape}; expected {expected}")
    return data[:count].astype(np.float64)
