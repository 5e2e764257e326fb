"""Where estimates go: folding, and the resource loss of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qfx.cost.estimator import default

if TYPE_CHECKING:
    from qfx.learn import MeasuredCost
    from qfx.rtl.design import Kernel
    from qfx.rtl.estimate import Resources

#: What a DSP block is worth in LUTs: the weight that folding gives it (:mod:`qfx.rtl.estimate`).
DSP_LUTS = 150.0
#: A power of two.
STEP = 1 / 64


def resources(kernel: Kernel) -> Resources:
    """What a kernel adds to a design after the cost table (:meth:`Estimator.share`): what folding goes by.

    In steps of :data:`STEP`, so that sums are exact and equal foldings are equal, in whatever order they are
    added up.
    """
    from qfx.rtl.estimate import Resources

    return Resources(*(round(part / STEP) * STEP for part in default().share(kernel)))


def measured_cost(dsp: float = DSP_LUTS) -> MeasuredCost:
    """Costs for :class:`qfx.ResourceLoss` from the multipliers of the cost table, in LUTs.

    Args:
        dsp: LUTs that a DSP block is worth.

    Returns:
        ``multiplier(constant_bits, operand_bits)`` and ``adder(bits)``. Synthesis measured 2 to 8 bits, the
        sign of the constant included, which effective bits leave out; one bit is a shift with a sign, as
        wide as the operand; an adder is one LUT per bit.
    """
    from qfx.learn import MeasuredCost

    products = default().products
    top = max(a for a, _, _, _ in products)
    table = [[0.0] * (top + 1) for _ in range(top)]
    for constant in range(1, top):
        for operand in range(1, top + 1):
            if operand == 1 or constant == 1:
                table[constant][operand] = float(max(constant, operand))
            else:
                lut, blocks = products[operand, constant + 1, 0, 1]
                table[constant][operand] = lut + dsp * blocks
    return MeasuredCost(table, [float(bits) for bits in range(top + 1)])
