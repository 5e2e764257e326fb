"""Real functions as fixed-point tables and piecewise polynomials, with their maximum error.

:mod:`qfx.approx.real` has the functions, :mod:`qfx.approx.table` and :mod:`qfx.approx.piecewise` approximate
them for codes of one number format, :mod:`qfx.approx.root` approximates ``x**-1`` and ``x**-0.5`` for numbers
of any size. docs/layers.md shows the errors.
"""

from qfx.approx.piecewise import Pieces, pieces
from qfx.approx.real import NAMES, Real
from qfx.approx.root import Roots, roots
from qfx.approx.table import Table, table

__all__ = ["NAMES", "Pieces", "Real", "Roots", "Table", "pieces", "roots", "table"]
