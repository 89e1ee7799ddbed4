"""Servers in processes of their own, on ports that were free, stopped whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["free_port", "free_ports", "listens", "running", "until"]

START_S, STOP_S = 60.0, 10.0


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in bound]


def free_port() -> int:
    return free_ports(1)[0]


@contextmanager
def running(
    words: Sequence[object],
    is_ready: Callable[[], object],
    log: Path,
    env: Mapping[str, str] | None = None,
    *,
    stop: int = signal.SIGTERM,
    user: str | None = None,
    group: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, from when it is ready until the block is left.

    Args:
        is_ready: Asked every few hundredths of a second.
        log: Where it writes to; the folder of that is its own.
        env: Beside the variables that there are.
        stop: What ends it; one that has nothing to keep is killed.
        user, group: Whose it is; this program's by default.

    Raises:
        RuntimeError: It ended, or took longer than a minute; with the end of what it wrote.
    """
    with log.open("wb") as output:
        # A session of its own, so that Ctrl-C comes to this program alone, which then ends it.
        process = subprocess.Popen(
            [str(word) for word in words],
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=group,
        )
    try:
        _await(is_ready, process, log)
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(is_ready: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    def is_settled() -> object:
        return process.poll() is not None or is_ready()

    if not until(is_settled, START_S):
        raise RuntimeError(f"{process.args!r} is not ready:\n{_end_of(log)}")
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def until(is_true: Callable[[], object], timeout_s: float) -> bool:
    """Ask until the answer is yes; False when it never was."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def listens(address: int | str) -> bool:
    """Say whether something listens at a port of loopback, or at a Unix socket."""
    is_path = isinstance(address, str)
    where: Any = address if is_path else ("127.0.0.1", address)
    with socket.socket(socket.AF_UNIX if is_path else socket.AF_INET) as client:
        try:
            client.connect(where)
        except OSError:
            return False
    return True
