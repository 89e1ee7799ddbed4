"""Programs under `tracekit run`, real servers among them, and the spans that they left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

RUN = [sys.executable, "-m", "tracekit", "run"]
START_S, STOP_S = 30, 20


class Server:
    """A server on a socket that was listening before it started: no request is ever refused."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> str:
        answer = requests.get(self.url + path, timeout=START_S)
        assert answer.status_code == 200, answer.text
        return answer.text

    def get_until_answered_by(self, workers: int) -> dict[int, str]:
        """Send numbered requests, some at once, until so many processes have answered.

        The first one may answer hundreds before the last one has started.

        Returns:
            The process id that answered, by number of the request.
        """
        answers: dict[int, str] = {}
        until = time.monotonic() + START_S
        with ThreadPoolExecutor(8) as pool:
            while len(set(answers.values())) < workers and time.monotonic() < until:
                numbers = range(len(answers), len(answers) + 16)
                answers.update(zip(numbers, pool.map(self._numbered, numbers), strict=True))
        assert len(set(answers.values())) >= workers
        return answers

    def _numbered(self, number: int) -> str:
        return self.get(f"/work?n={number}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the server to end, as a process supervisor does; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@contextmanager
def serving(words: Sequence[str], store: Path, folder: Path, *options: str) -> Iterator[Server]:
    """Start a server under `tracekit run`; ``{fd}`` among the words is its listening socket."""
    output = folder / "output.txt"
    with socket.create_server(("127.0.0.1", 0)) as listening, output.open("w") as stream:
        words = [word.format(fd=listening.fileno()) for word in words]
        process = subprocess.Popen(
            [*RUN, "--store", str(store), *options, *words],
            cwd=folder,
            pass_fds=[listening.fileno()],
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        port = listening.getsockname()[1]
    # The socket is the server's alone now: when it dies, requests fail instead of waiting.
    try:
        yield Server(process, port)
    except BaseException:
        sys.stderr.write(output.read_text())
        raise
    finally:
        end_session(process)


def end_session(process: subprocess.Popen[str]) -> None:
    """Kill whatever is left of a process and of those it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(STOP_S)


def run(
    *words: str, env: dict[str, str] | None = None, cwd: Path | None = None, timeout_s: int = 60
) -> subprocess.CompletedProcess[str]:
    """Run `tracekit run WORDS` to its end."""
    return subprocess.run(
        [*RUN, *words],
        env=os.environ | (env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def spans_of(store: Path) -> list[Any]:
    """Return every span that a store holds."""
    from tracekit.store.reader import StoreReader

    with StoreReader(store) as reader:
        return reader.spans(limit=1_000_000)
