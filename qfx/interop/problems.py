"""Everything that a model holds and the graph cannot represent, told at once."""

from __future__ import annotations

from qfx.errors import UnsupportedError


class Refused(Exception):
    """Why one thing cannot be taken, and what to do about it; the reader of the model adds where it is."""


class Problems:
    """Collects what is refused; :meth:`check` raises it as one error."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._lines: dict[str, None] = {}

    def add(self, place: str, text: object) -> None:
        """Something at ``place`` (module path, node name) is refused. The same line is told once."""
        self._lines[f"  {place}: {text}"] = None

    def __len__(self) -> int:
        return len(self._lines)

    def check(self) -> None:
        """Raise what was collected.

        Raises:
            UnsupportedError: with one line for each problem.
        """
        if self._lines:
            raise UnsupportedError(f"{self.title}\n" + "\n".join(self._lines))
