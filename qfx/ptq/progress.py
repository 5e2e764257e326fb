"""A bar for what takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

#: A bar appears when the work takes longer than this, in seconds.
PATIENCE = 2.0


def shown(items: Sequence[T], label: str, progress: bool) -> Iterator[T]:
    """The items in turn, with a bar on a terminal once they take more than :data:`PATIENCE` seconds."""
    if not progress or not label:
        yield from items
        return
    from rich.progress import Progress

    started = time.monotonic()
    bar: Progress | None = None
    try:
        for done, item in enumerate(items):
            yield item
            if bar is None and time.monotonic() - started > PATIENCE:
                bar = Progress(transient=True)
                bar.start()
                task = bar.add_task(label, total=len(items), completed=done)
            if bar is not None:
                bar.update(task, completed=done + 1)
    finally:
        if bar is not None:
            bar.stop()
