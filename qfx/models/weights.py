"""State dicts from files, as data."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from qfx.errors import QfxError


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill a model from a state dict file (``.pth`` as torch writes it); nothing in the file is executed.

    Args:
        model: receives the weights.
        path: of the file: a state dict, or a dictionary that holds one under ``state_dict`` or ``model``.

    Returns:
        ``model``.

    Raises:
        QfxError: no such file, a file that holds more than tensors, names or shapes that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise QfxError(f"{path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise QfxError(
            f"{path}: not a file of tensors only ({str(error).splitlines()[0]}); save "
            "model.state_dict() with torch.save"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise QfxError(f"{path}: holds {type(found).__name__}, expected a state dict of tensors")
    # What DistributedDataParallel puts in front.
    found = {name.removeprefix("module."): value for name, value in found.items()}
    expected = model.state_dict()
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unknown = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        problems = [
            f"{what}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
            for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
            if names
        ]
        raise QfxError(f"{path}: these weights are not of {type(model).__name__}; {'; '.join(problems)}")
    model.load_state_dict(found, strict=False)
    return model
