"""Two processes work on one study in PostgreSQL; one of them is killed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="needs optuna: pip install 'qfx[search]'")
pytest.importorskip("psycopg", reason="needs psycopg: pip install 'qfx[search]'")

from tests.sweep.test_runner import check_all, lines, start, wait_for


def _program(name: str) -> str | None:
    """A program of the PostgreSQL server, which Debian keeps off PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, places)))


pytestmark = pytest.mark.skipif(
    not (_program("initdb") and _program("postgres")),
    reason="no PostgreSQL server (Debian, Ubuntu: apt-get install -y postgresql)",
)


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database; the server runs as an ordinary user, as it insists to."""
    user = "nobody" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="qfx-postgresql-"))
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, initdb, postgres = str(folder / "data"), _program("initdb"), _program("postgres")
    assert initdb and postgres
    common = {"cwd": folder, "user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run([initdb, "-D", data, "-U", "qfx", "--auth=trust", "--no-sync"], check=True, **common)  # type: ignore[call-overload]
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
    server = subprocess.Popen([postgres, "-D", data, *options], **common)  # type: ignore[call-overload]
    try:
        _wait(port, server)
        yield f"postgresql://qfx@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    import time

    import psycopg

    for _ in range(300):
        assert server.poll() is None, server.stderr and server.stderr.read().decode(errors="replace")
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="qfx", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")


@pytest.mark.slow
def test_two_workers_on_one_study_in_postgresql(tmp_path: Path, database: str) -> None:
    import optuna

    from qfx.sweep.storage import connect

    first, second = start(tmp_path, database), start(tmp_path, database)
    wait_for(tmp_path, 30, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    third = start(tmp_path, database)
    assert [second.wait(200), third.wait(200)] == [0, 0]
    check_all(tmp_path, database, 1)
    trials = optuna.load_study(study_name="sweep", storage=connect(database)).trials
    finished = [t for t in trials if t.state.name == "COMPLETE"]
    assert len(finished) == 200 and len({t.user_attrs["qfx:owner"]["pid"] for t in finished}) >= 2
    assert sum(n for line, n in lines(tmp_path).items() if line.startswith("end")) in (200, 201)
