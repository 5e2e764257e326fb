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
        seed: of the random ones, drawn so that ties, saturation and infinities occur.
        path: a `.npy` file of real numbers instead of random ones.

    Raises:
        QfxError: the file cannot be read, or holds something else.
    """
    if count < 1:
        raise QfxError(f"{count} samples: at least 1 is needed")
    if path is not None:
        return _read(graph, count, path)
    from qfx.sim.draw import draw_input

    return draw_input(np.random.default_rng(seed), graph, count)


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
