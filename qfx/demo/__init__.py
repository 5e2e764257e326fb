"""The demo: ``qfx demo``, ``make demo``."""

from qfx.demo.run import run

__all__ = ["run"]
