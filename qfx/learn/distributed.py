"""What sharded training needs besides torch: binary points have no axes that could be sharded."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed

from qfx.learn.groups import quantizers


def points(q: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters of all quantizers, each once: binary points, and learned widths. Give them to
    ``fully_shard(..., ignored_params=set(points(q)))``; every process then has all of them."""
    found = {id(p): p for m in quantizers(q).values() for p in m.parameters(recurse=False)}
    return list(found.values())


def average_points(q: torch.nn.Module, group: Any = None) -> None:
    """Average the gradients of binary points and widths over processes: after ``backward()``, before clipping
    and the optimizer's step. All of them travel in one message.

    Not for DistributedDataParallel, which does so itself.

    Args:
        q: the model, its other parameters sharded.
        group: a process group; all processes when not given.
    """
    gradients = [p.grad for p in points(q) if p.grad is not None]
    if not gradients:
        return
    together = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(together, group=group)
    together /= torch.distributed.get_world_size(group)
    for gradient, part in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.reshape(gradient.shape))
