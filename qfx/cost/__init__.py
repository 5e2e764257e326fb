"""What hardware costs: :func:`measure` synthesises a kernel or a design, :func:`estimate` estimates a
design."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qfx.cost.kernel import Kernel
from qfx.cost.measure import measure
from qfx.cost.result import Cost, InstanceCost

if TYPE_CHECKING:
    from qfx.cost.estimator import Estimate, estimate
    from qfx.cost.folding import measured_cost, resources

__all__ = ["Cost", "Estimate", "InstanceCost", "Kernel", "estimate", "measure", "measured_cost", "resources"]

# The estimator needs the kernels of qfx.rtl, whose estimates may in turn come from here: looked up on first
# use.
_LATER = {
    "Estimate": "qfx.cost.estimator",
    "estimate": "qfx.cost.estimator",
    "measured_cost": "qfx.cost.folding",
    "resources": "qfx.cost.folding",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'qfx.cost' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value
