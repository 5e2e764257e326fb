"""`python -m qfx.cli`: the `qfx` program where its script is not on PATH."""

from qfx.cli.app import main

main()
