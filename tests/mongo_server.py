"""FerretDB, a server of MongoDB's protocol, in a folder and on a port of its own.

Its tables are SQLite's. It wants a name and a password, as a server of MongoDB does in production.
https://docs.ferretdb.io/v1.24/configuration/flags/
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backends.running import free_ports, running
from backends.where import program

__all__ = ["MongoServer", "mongo_server"]

USER = "shop"
PASSWORD = "a password"


class MongoServer(NamedTuple):
    """Where a server is."""

    port: int
    process: subprocess.Popen[bytes]

    def where(self) -> dict[str, Any]:
        """Return what a client is told, to be let in."""
        return {"host": "127.0.0.1", "port": self.port, "username": USER, "password": PASSWORD}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it answer nothing for a while; connections stay."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)  # it may take a moment
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def mongo_server(folder: Path) -> Iterator[MongoServer]:
    """Run a server that keeps its data in a folder.

    Raises:
        NotThereError: It was not fetched, or could not be.
    """
    binary = program("ferretdb", "ferretdb")
    port, debug_port = free_ports(2)
    (folder / "data").mkdir()
    options = {
        "handler": "sqlite",
        "sqlite-url": "file:data/?_pragma=synchronous(off)",
        "state-dir": ".",
        "listen-addr": f"127.0.0.1:{port}",
        "debug-addr": f"127.0.0.1:{debug_port}",
        "log-level": "ERROR",
        "telemetry": "disable",
        # Without it everybody is let in, and there are no users.
        "test-enable-new-auth": "true",
        "setup-database": "admin",
        "setup-username": USER,
        "setup-password": PASSWORD,
    }
    words = [binary, *(f"--{name}={value}" for name, value in options.items())]
    ready_url = f"http://127.0.0.1:{debug_port}/debug/readyz"
    with running(words, ready_url, folder / "ferretdb.log") as process:
        yield MongoServer(port, process)
