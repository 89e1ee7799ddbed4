"""Real PostgreSQL and MariaDB servers, each in a folder of its own, on free ports of loopback.

Both refuse to be run by root, who gives them to ``nobody``.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from servers import free_port, listens, running

__all__ = ["DatabaseServer", "find_mariadb", "find_postgresql", "mariadb_server", "postgres_server"]

_SMALL = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=4M",
    "--innodb-flush-method=nosync",
)
USER = "shop"
DATABASE = "shop"


class DatabaseServer(NamedTuple):
    """Where a server is; there is no password."""

    port: int
    folder: Path
    """Holds its Unix socket."""
    user: str = USER
    database: str = DATABASE
    host: str = "127.0.0.1"

    @property
    def socket(self) -> str:
        return str(self.folder / "mysqld.sock")


def find_postgresql() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps off PATH."""
    found = shutil.which("initdb") or next(
        iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None
    )
    return Path(found).resolve().parent if found else None


def find_mariadb() -> tuple[str, str] | None:
    """Return MariaDB's server and the program that makes its first tables."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    server, install = (shutil.which(n, path=path) for n in ("mariadbd", "mariadb-install-db"))
    return (server, install) if server and install else None


@contextmanager
def postgres_server(programs: Path) -> Iterator[DatabaseServer]:
    with _folder() as folder:
        data = folder / "data"
        # fmt: off
        _run(programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync", folder=folder)
        # fmt: on
        port = free_port()
        settings = ("fsync=off", "full_page_writes=off", "max_connections=60")
        command = [programs / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", port]
        command += [word for setting in settings for word in ("-c", setting)]
        # It takes connections a moment before it takes commands.
        asked = [str(programs / "pg_isready"), "-q", "-h", str(folder), "-p", str(port)]
        with _running(command, folder, lambda: subprocess.run(asked, check=False).returncode == 0):
            _run(
                programs / "createdb", "-h", folder, "-p", port, "-U", USER, DATABASE, folder=folder
            )
            yield DatabaseServer(port, folder)


@contextmanager
def mariadb_server(programs: tuple[str, str]) -> Iterator[DatabaseServer]:
    server, install = programs
    with _folder() as folder:
        data, port = folder / "data", free_port()
        data.mkdir()
        _give(data)
        # fmt: off
        _run(install, "--no-defaults", f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal", *_SMALL, folder=folder)
        # fmt: on
        first = folder / "first.sql"
        first.write_text(
            f"CREATE DATABASE {DATABASE};\n"
            f"CREATE USER {USER}@'127.0.0.1';\nGRANT ALL ON *.* TO {USER}@'127.0.0.1';\n"
            f"CREATE USER {USER}@'localhost';\nGRANT ALL ON *.* TO {USER}@'localhost';\n"
        )
        at = DatabaseServer(port, folder)
        command = [server, "--no-defaults", f"--datadir={data}", f"--socket={at.socket}"]
        command += [f"--port={port}", "--bind-address=127.0.0.1", f"--init-file={first}"]
        command += ["--innodb-flush-log-at-trx-commit=0", *_SMALL]
        command += ["--skip-name-resolve", "--max-allowed-packet=64M"]
        with _running(command, folder, lambda: listens(at.socket)):
            yield at


@contextmanager
def _folder() -> Iterator[Path]:
    # Not below pytest's own folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="tracekit-db-"))
    _give(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", "nogroup")


def _as_nobody() -> dict[str, Any]:
    return {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


def _run(*command: object, folder: Path) -> None:
    subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
        **_as_nobody(),
    )


@contextmanager
def _running(command: list[Any], folder: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    # Nothing in it is worth a farewell.
    log = folder / "log"
    with running(command, is_ready, log, stop=signal.SIGKILL, **_as_nobody()):
        yield
