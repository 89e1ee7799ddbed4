"""A redis-server of the operating system's, on a free port and in a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import free_port, listens, running

__all__ = ["PROGRAM", "needs_redis", "redis_server"]

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")

needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")


@contextlib.contextmanager
def redis_server(folder: Path, *arguments: str) -> Iterator[int]:
    """Run a server that keeps nothing, and yield its port."""
    port = free_port()
    options = {"port": port, "dir": folder, "save": "", "appendonly": "no", "bind": "127.0.0.1"}
    command = [PROGRAM, *(word for k, v in options.items() for word in (f"--{k}", v)), *arguments]
    with running(command, lambda: listens(port), folder / "redis.log"):
        yield port
