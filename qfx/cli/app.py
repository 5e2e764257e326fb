"""The `qfx` program: its commands, and what happens when one fails."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qfx.cli import check, convert, cost_table, demo, fuzz, machine, ptq, report, sweep
from qfx.cli.console import print_error
from qfx.errors import QfxError

USER_ERROR = 2
"""Exit status after a `QfxError`, as after a wrong option."""


class QfxGroup(TyperGroup):
    """Shows a `QfxError` as one message; `--debug`, wherever it stands, lets the traceback through."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--debug" in args:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except QfxError as error:
            if ctx.params.get("debug"):
                raise
            print_error(str(error))
            raise typer.Exit(USER_ERROR) from None


app = typer.Typer(
    name="qfx",
    cls=QfxGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fixed-point networks learned in PyTorch, computed bit for bit on FPGAs.",
)


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def options(debug: Debug = False) -> None:
    """Options of all commands."""


for module in (machine, demo, convert, check, fuzz, ptq, sweep, report, cost_table):
    module.register(app)


def main() -> None:
    """Entry point of the `qfx` program."""
    app()
