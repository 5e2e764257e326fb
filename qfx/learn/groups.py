"""The quantizers of a prepared model, and parameter groups for optimizers."""

from __future__ import annotations

from typing import Any

import torch

from qfx.nn.quantizer import Quantizer


def quantizers(q: torch.nn.Module) -> dict[str, Quantizer]:
    """Every quantizer of a prepared model by its name, in order."""
    return {name: module for name, module in q.named_modules() if isinstance(module, Quantizer)}


def parameter_groups(
    q: torch.nn.Module,
    *,
    lr: float | None = None,
    point_lr: float | None = None,
    weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Two groups for any torch optimizer: weights (and everything else) first, then binary points and widths.

    Args:
        q: a prepared model.
        lr: learning rate of the weights; the optimizer's own when not given.
        point_lr: learning rate of the binary points and widths; ``lr`` when not given.
        weight_decay: of the weights; binary points get none.
    """
    # All that a quantizer itself has: where its numbers begin and end.
    own = [p for m in quantizers(q).values() for p in m.parameters(recurse=False)]
    points = [p for p in own if p.requires_grad]
    known = {id(p) for p in own}
    weights = [p for p in q.parameters() if id(p) not in known]
    first: dict[str, Any] = {"params": weights, "name": "weights"}
    second: dict[str, Any] = {"params": points, "name": "points", "weight_decay": 0.0}
    if lr is not None:
        first["lr"] = lr
    if point_lr is not None or lr is not None:
        second["lr"] = point_lr if point_lr is not None else lr
    if weight_decay is not None:
        first["weight_decay"] = weight_decay
    return [group for group in (first, second) if group["params"]]


def freeze_points(q: torch.nn.Module) -> None:
    """Stop learning binary points and widths, where they are now, and go on with the weights: for the last
    epochs."""
    for module in quantizers(q).values():
        module.freeze()
