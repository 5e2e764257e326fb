"""Where trials are kept: a journal file, SQLite, or any database that Optuna reaches through SQLAlchemy."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qfx.errors import MissingToolError, QfxError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal._file import BaseJournalFileLock

_ATTEMPTS = 6
_SQLITE = (".db", ".sqlite", ".sqlite3")


def optuna() -> Any:
    """The package.

    Raises:
        MissingToolError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingToolError("sweep: optuna is not installed; pip install 'qfx[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def connect(where: str | Path) -> BaseStorage:
    """The storage at a place.

    Args:
        where: a URL (``postgresql://user@host/database``, ``mysql://…``, ``sqlite:///file.db``), or a file:
            SQLite when it ends in ``.db``, ``.sqlite`` or ``.sqlite3``, otherwise a journal, to which
            processes append.

    Raises:
        QfxError: the place cannot be used.
    """
    storages = optuna().storages
    text = str(where)
    if "://" not in text:
        path = Path(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in _SQLITE:
            return _journal(path)
        text = f"sqlite:///{path.resolve()}"
    if text.startswith("postgresql://") and importlib.util.find_spec("psycopg2") is None:
        text = text.replace("postgresql://", "postgresql+psycopg://", 1)
    # A process that waits its turn at SQLite is not an error.
    engine = {"connect_args": {"timeout": 60}} if text.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in range(_ATTEMPTS):
        try:
            # With Optuna's cache: finished trials do not change and are read once.
            return storages.get_storage(storages.RDBStorage(text, engine_kwargs=engine))
        except ImportError as error:
            raise MissingToolError(f"sweep: the driver for {_hidden(text)} is missing: {error}") from error
        except Exception as error:
            # Of several processes that find an empty database all make the tables, and all but one fail.
            if attempt + 1 == _ATTEMPTS or not _is_of_database(error):
                raise QfxError(f"sweep: storage {_hidden(text)} cannot be used: {error}") from error
            time.sleep(random.uniform(0.2, 1.0))
    raise AssertionError


def _is_of_database(error: Exception) -> bool:
    import optuna.exceptions
    import sqlalchemy.exc

    return isinstance(error, sqlalchemy.exc.DBAPIError | optuna.exceptions.StorageInternalError)


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_lock(path)))
    except (OSError, ValueError, KeyError) as error:
        raise QfxError(f"sweep: journal {path} cannot be used: {error}") from error


def _lock(journal: Path) -> BaseJournalFileLock:
    # Optuna asks for the two methods only; deriving from its class would need it installed to import this.
    return cast("BaseJournalFileLock", _FileLock(journal))


class _FileLock:
    """Exclusive access to a journal, by the kernel: a killed process leaves no lock behind.

    A process killed while it wrote may leave half a line. Whoever gets the lock next takes it away, so that
    its own line does not continue it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._handle: int | None = None

    def acquire(self) -> bool:
        handle = os.open(f"{self._journal}.lock", os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        _repair(self._journal)
        return True

    def release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)  # releases the lock


def _repair(journal: Path) -> None:
    """Cut an unfinished line off the end of a journal."""
    with open(journal, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def _hidden(url: str) -> str:
    """A URL without its password."""
    head, separator, tail = url.rpartition("@")
    if not separator:
        return url
    scheme, _, login = head.partition("://")
    return f"{scheme}://{login.partition(':')[0]}@{tail}"
