"""Servers in processes of their own, on ports that were free, stopped whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

__all__ = ["fetched", "free_ports", "running", "until"]

START_S, STOP_S = 60.0, 10.0


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in bound]


@contextmanager
def running(
    words: Sequence[object],
    ready_url: str,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, from when it answers at a URL until the block is left.

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
        )
        try:
            if not until(lambda: process.poll() is not None or _answers(ready_url), START_S):
                raise RuntimeError(f"{words[0]} does not answer at {ready_url}\n{_end_of(log)}")
            if process.poll() is not None:
                raise RuntimeError(f"{words[0]} ended with {process.returncode}\n{_end_of(log)}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(is_true: Callable[[], object], timeout_s: float) -> bool:
    """Ask until the answer is yes; False when it never was."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def fetched(url: str) -> requests.Response:
    """GET from a server on this machine, whatever proxies the shell names."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=STOP_S)


def _answers(url: str) -> bool:
    try:
        return fetched(url).status_code < 500
    except requests.RequestException:
        return False


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
