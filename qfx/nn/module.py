"""The base class of everything that a prepared model is made of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch

from qfx.graph.graph import GraphBuilder
from qfx.nn.bound import Bound


class Exact(NamedTuple):
    """How one operator is evaluated so that it equals the integers: a dtype, and constants ready in it."""

    dtype: torch.dtype
    constants: tuple[torch.Tensor, ...] = ()


class QuantModule(torch.nn.Module):
    """One operator of a prepared model, which becomes one node of the graph.

    ``forward(*operands)`` is the training computation; ``forward(*operands, exact=...)`` gives the same
    values without rounding error.
    """

    #: Whether the result is on a grid that the operands did not have, so that a cast must follow.
    grows: ClassVar[bool] = False

    def bound(self, *operands: Bound) -> Bound:
        """The result's grid and largest code, partial sums included."""
        raise NotImplementedError

    def constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """What ``forward`` would otherwise compute in every call, detached; given back to it in ``exact``."""
        return ()

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        """Append this operator to a graph and return the node's name."""
        raise NotImplementedError

    def forward(self, *operands: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:
        raise NotImplementedError

    def check(self, path: str) -> None:
        """Refuse parameters that have no codes (NaN); ``path`` names the module in the message."""

    def calibrate_weight(self) -> None:
        """Put the binary points of constants where the squared error is smallest."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class Again(QuantModule):
    """Another call of a module that is called more than once.

    It shares all parameters, quantizers and buffers, and is a module of its own for hooks and for the graph.
    """

    def __init__(self, module: QuantModule) -> None:
        super().__init__()
        self.module = module
        self.grows = module.grows  # type: ignore[misc]

    def bound(self, *operands: Bound) -> Bound:
        return self.module.bound(*operands)

    def constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        return self.module.constants(dtype)

    def emit(self, builder: GraphBuilder, inputs: tuple[str, ...], path: str) -> str:
        return self.module.emit(builder, inputs, path)

    def forward(self, *operands: torch.Tensor, exact: Exact | None = None) -> torch.Tensor:
        # Not self.module(...): its hooks are those of the first call.
        return self.module.forward(*operands, exact=exact)


def float32(x: torch.Tensor) -> AbstractContextManager[Any]:
    """A context without autocast for what is computed of ``x``."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def to(x: torch.Tensor, exact: Exact | None) -> torch.Tensor:
    """An operand in the dtype of the computation."""
    return x if exact is None else x.to(exact.dtype)
