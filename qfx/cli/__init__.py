"""The command line: `qfx …`, thin shells over the calls of the library."""

from qfx.cli.app import app, main

__all__ = ["app", "main"]
