"""What tracing adds to one request, served or sent.

Three worker processes do the same requests: bare, with OpenTelemetry's contrib instrumentation
on opentelemetry-sdk, and with ``tracekit.instrument()`` on tracekit. They take turns, and what
tracing adds is the difference of the medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from benchmarks.fresh import ROOT
from benchmarks.harness import Effort, Figures, row
from benchmarks.placement import on_one_core

__all__ = ["Worker", "added", "loopback"]

SIDES = ("bare", "opentelemetry", "tracekit")
# A batch of spans, as a program exports them. At the end of 150 gRPC calls a flush was 250 µs, in
# two threads that find caches cold: 1.6 of the 21 that a call cost.
REQUESTS = 512
ROUNDS_OF_A_PROCESS = 2
# Rounds that do not count. In its second and third a bare process was seen to take up to a third
# longer than from then on, and a traced one not: tracing seemed to cost less than it does.
WARM_UP = 3
# glibc hands the end of its heap back to the kernel, and asks for it again: at each read of
# asyncio's, which takes 256 KiB for it. Whether it does hangs on what happens to lie behind, and
# costs 40 µs, more than what is measured. https://man7.org/linux/man-pages/man3/mallopt.3.html
_KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 28), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}


class Worker:
    """A process that does requests, or answers them, when it is told to."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = " ".join(arguments)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, **_KEEPS_MEMORY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, count: int) -> Any:
        """Do so many requests; return what was measured of one."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._arguments} ended; its error is above")
        return json.loads(line)

    def stop(self) -> None:
        self._process.communicate(timeout=30)


@contextmanager
def _workers(subject: str, port: int, module: str) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = []
        for side in SIDES:
            worker = Worker(module, subject, side, str(port))
            stack.callback(worker.stop)
            workers.append(worker)
        yield workers


def added(
    subject: str,
    effort: Effort,
    server: AbstractContextManager[int] | None = None,
    module: str = "benchmarks.http_worker",
    requests: int = REQUESTS,
) -> Figures:
    """Have three workers take turns with a subject of theirs; return what tracing adds.

    Args:
        server: Runs what they ask, and says at which port.
        requests: Of a round, whose spans are flushed at its end: so many that this is little.
    """
    with on_one_core(), server or nullcontext(0) as port:
        rounds, spans = _measured(subject, effort, port, module, effort.items(requests))
    return _figures(rounds, spans)


def _measured(
    subject: str, effort: Effort, port: int, module: str, count: int
) -> tuple[list[list[float]], list[float]]:
    """Return what each side took in each round, and how many spans a request has."""
    rounds: list[list[float]] = []
    spans: list[float] = []
    # One process differs from the next, doing the same, by nearly as much as tracing adds; its
    # own rounds differ little.
    left = effort.rounds
    while left > 0:
        with _workers(subject, port, module) as workers:
            for _ in range(WARM_UP):
                spans = [worker.ask(count)["spans"] for worker in workers]
            rounds += _rounds(workers, min(left, ROUNDS_OF_A_PROCESS), count)
        left -= ROUNDS_OF_A_PROCESS
    return rounds, spans


def _rounds(workers: Sequence[Worker], rounds: int, count: int) -> Iterator[list[float]]:
    for number in range(rounds):
        # Whoever begins differs from round to round.
        turn = [(number + place) % len(workers) for place in range(len(workers))]
        costs = {place: workers[place].ask(count)["cpu_us"] for place in turn}
        yield [costs[place] for place in range(len(workers))]


def _figures(rounds: Sequence[Sequence[float]], spans: Sequence[float]) -> Figures:
    bare, theirs, ours = (statistics.median(found) for found in zip(*rounds, strict=True))
    return Figures(
        theirs - bare,
        ours - bare,
        (ours - bare) / (theirs - bare),
        note=f"bare {bare:.0f} µs; spans: theirs {spans[1]:g}, ours {spans[2]:g}",
    )


@contextmanager
def loopback() -> Iterator[int]:
    """Run a server in a process of its own; give its port."""
    server = Worker("benchmarks.loopback")
    try:
        yield server.read()
    finally:
        server.stop()


def _added_on_loopback(subject: str, effort: Effort) -> Figures:
    return added(subject, effort, loopback())


@row("http.flask", "added to a request: Flask, WSGI in process", must=0.25, aim=0.12)
def flask_request(effort: Effort) -> Figures:
    return added("flask", effort)


@row("http.django", "added to a request: Django, WSGI in process", must=0.25, aim=0.12)
def django_request(effort: Effort) -> Figures:
    return added("django", effort)


@row("http.fastapi", "added to a request: FastAPI, ASGI in process", must=0.25, aim=0.12)
def fastapi_request(effort: Effort) -> Figures:
    return added("fastapi", effort)


@row("http.starlette", "added to a request: Starlette, ASGI in process", must=0.25, aim=0.12)
def starlette_request(effort: Effort) -> Figures:
    return added("starlette", effort)


@row("http.aiohttp_server", "added to a request: aiohttp server, no socket", must=0.25, aim=0.12)
def aiohttp_request(effort: Effort) -> Figures:
    return added("aiohttp_server", effort)


@row("http.wsgi", "added to a request: WSGI application in a middleware", must=0.25, aim=0.12)
def wsgi_request(effort: Effort) -> Figures:
    return added("wsgi", effort)


@row("http.asgi", "added to a request: ASGI application in a middleware", must=0.25, aim=0.12)
def asgi_request(effort: Effort) -> Figures:
    return added("asgi", effort)


@row("http.requests", "added to a call: requests.get, loopback", must=0.25, aim=0.12)
def requests_call(effort: Effort) -> Figures:
    return _added_on_loopback("requests", effort)


@row("http.httpx", "added to a call: httpx.Client.get, loopback", must=0.25, aim=0.12)
def httpx_call(effort: Effort) -> Figures:
    return _added_on_loopback("httpx", effort)


@row("http.httpx_async", "added to a call: httpx.AsyncClient.get, loopback", must=0.25, aim=0.12)
def httpx_async_call(effort: Effort) -> Figures:
    return _added_on_loopback("httpx_async", effort)


@row("http.urllib3", "added to a call: urllib3 PoolManager, loopback", must=0.25, aim=0.12)
def urllib3_call(effort: Effort) -> Figures:
    return _added_on_loopback("urllib3", effort)


@row("http.urllib", "added to a call: urllib.request.urlopen, loopback", must=0.25, aim=0.12)
def urllib_call(effort: Effort) -> Figures:
    return _added_on_loopback("urllib", effort)


@row("http.aiohttp_client", "added to a call: aiohttp session.get, loopback", must=0.25, aim=0.12)
def aiohttp_call(effort: Effort) -> Figures:
    return _added_on_loopback("aiohttp_client", effort)
