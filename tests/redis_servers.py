"""A redis-server of the operating system's, on a free port and in a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["free_port", "redis_server"]

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")

needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def redis_server(folder: Path, *arguments: str) -> Iterator[int]:
    """Run a server that keeps nothing, and yield its port."""
    port = free_port()
    options = {"port": port, "dir": folder, "save": "", "appendonly": "no", "bind": "127.0.0.1"}
    command = [str(PROGRAM), *(word for k, v in options.items() for word in (f"--{k}", str(v)))]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    try:
        await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when something listens there; ask again every few milliseconds."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen")
