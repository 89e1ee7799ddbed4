"""Servers that are asked over HTTP."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

import servers
from servers import STOP_S, free_ports, until

__all__ = ["fetched", "free_ports", "running", "until"]


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
    with servers.running(words, lambda: _answers(ready_url), log, env) as process:
        yield process


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
