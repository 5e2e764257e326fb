"""Every reader beyond those of operations.py; importing this makes them known."""

from qfx.learn import (
    read_arrays,
    read_attention,
    read_functions,
    read_normalisation,
    read_recurrent,
)

__all__ = ["read_arrays", "read_attention", "read_functions", "read_normalisation", "read_recurrent"]
