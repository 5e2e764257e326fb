"""What hardware costs, measured with open synthesis: :func:`measure` on a kernel or a generated design."""

from qfx.cost.kernel import Kernel
from qfx.cost.measure import measure
from qfx.cost.result import Cost, InstanceCost

__all__ = ["Cost", "InstanceCost", "Kernel", "measure"]
