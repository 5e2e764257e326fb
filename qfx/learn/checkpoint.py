"""Checkpoints from which training goes on as if it had never stopped."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qfx.errors import QfxError
from qfx.learn.groups import quantizers

_VERSION = 1


def save_checkpoint(
    path: str | os.PathLike[str],
    q: torch.nn.Module,
    parts: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write everything that training needs to go on: weights and binary points, which quantizers are frozen,
    the parts given, and the state of all random generators.

    The file appears at once or not at all: a process that is killed while writing leaves the former one. It
    is a plain ``torch.save`` of tensors, numbers and strings.

    Args:
        path: of the file; an existing one is replaced.
        q: a prepared model (of DistributedDataParallel, ``.module``).
        parts: what else has a state, by name: optimizers, schedulers (``state_dict``), generators
            (``get_state``).
        extra: numbers, strings, tensors, and lists and dictionaries of them: an epoch, a place in the data.

    Raises:
        QfxError: a part without a state.
    """
    document = {
        "version": _VERSION,
        "model": q.state_dict(),
        "quantizers": {name: [str(m.fmt), m.frozen] for name, m in quantizers(q).items()},
        "parts": {name: _state("save_checkpoint", name, part) for name, part in (parts or {}).items()},
        "random": _random_state(),
        "extra": dict(extra or {}),
    }
    path = Path(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_checkpoint(
    path: str | os.PathLike[str], q: torch.nn.Module, parts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Put a model, its optimizer and all random generators where :func:`save_checkpoint` found them.

    Args:
        path: of the file; nothing in it is executed (``weights_only=True``).
        q: the same model, prepared with the same formats. It need not be calibrated.
        parts: made for ``q`` in the same way, under the same names.

    Returns:
        ``extra``.

    Raises:
        QfxError: not a checkpoint, another model, other formats, other parts.
    """
    document = _read(path)
    ours = quantizers(q)
    theirs = document["quantizers"]
    for name, module in ours.items():
        if name not in theirs:
            raise QfxError(f"{path}: has no quantizer {name}; prepare the model that was saved")
        if theirs[name][0] != str(module.fmt):
            raise QfxError(
                f"{path}: {name} casts to {theirs[name][0]}, here to {module.fmt}; use the same config"
            )
        if module.frozen and not theirs[name][1]:
            raise QfxError(
                f"{path}: {name} is frozen here and learned there; leave its binary point open in the "
                "config, and do not call freeze_points before loading"
            )
    given = dict(parts or {})
    if given.keys() != document["parts"].keys():
        raise QfxError(
            f"{path}: holds the parts {', '.join(document['parts']) or 'none'}, asked for were "
            f"{', '.join(given) or 'none'}; give the same ones"
        )
    try:
        q.load_state_dict(document["model"])
    except RuntimeError as error:
        raise QfxError(f"{path}: does not fit this model: {error}") from error
    for name, module in ours.items():
        if theirs[name][1] and not module.frozen:
            module.freeze()
    for name, part in given.items():
        if hasattr(part, "load_state_dict"):
            part.load_state_dict(document["parts"][name])
        else:
            part.set_state(document["parts"][name])
    _set_random_state(document["random"])
    return dict(document["extra"])


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        document = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise QfxError(f"{path}: is not a checkpoint, or is damaged: {reason}") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION or "quantizers" not in document:
        raise QfxError(f"{path}: is not a checkpoint of qfx.learn.save_checkpoint")
    return document


def _state(where: str, name: str, part: Any) -> Any:
    if hasattr(part, "state_dict"):
        return part.state_dict()
    if hasattr(part, "get_state"):
        return part.get_state()
    raise QfxError(f"{where}: {name} has neither state_dict nor get_state; put its numbers into extra")


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
