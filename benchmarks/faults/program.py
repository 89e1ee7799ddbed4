"""The program to which things happen: it serves requests, traced or not, and ends as it is told.

``python -m benchmarks.faults.program PLAN``, where the plan is JSON; under gunicorn it is the
application, and the plan is in ``FAULTS_PLAN``. The spans that it makes are counted in files that
are mapped into memory, one for each thread, so that no death loses the count.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

__all__ = ["main", "made_in"]

SPANS_A_REQUEST = 3
_WAIT_S, _WORK = 0.01, 3000


class Program:
    """Requests, their spans and their latencies."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.latencies: list[float] = []
        self._folder = Path(plan["folder"])
        self._wait_s = plan.get("wait_s", _WAIT_S)
        self._of_thread = threading.local()
        self.tracing: Any = None
        if plan["traced"]:
            import tracekit

            self.tracing = tracekit
            tracekit.configure("faults", exporters="otlp")

    def span(self, name: str) -> Any:
        if self.tracing is None:
            return nullcontext()
        return self.tracing.span(name, order=7, path="/checkout", cached=False)

    def request(self) -> None:
        began = time.perf_counter()
        with self.span("GET /checkout"):
            with self.span("query"):
                time.sleep(self._wait_s)
            with self.span("render"):
                sum(range(_WORK))
        self.latencies.append(time.perf_counter() - began)
        if self.tracing is not None:
            self._count(SPANS_A_REQUEST)

    def _count(self, spans: int) -> None:
        key = (os.getpid(), threading.get_native_id())
        if getattr(self._of_thread, "key", None) != key:
            path = self._folder / f"made-{key[0]}-{key[1]}-{time.perf_counter_ns()}"
            path.write_bytes(bytes(8))
            with path.open("r+b") as file:
                self._of_thread.count = mmap.mmap(file.fileno(), 8)
            self._of_thread.key = key
        (before,) = struct.unpack("q", self._of_thread.count[:8])
        self._of_thread.count[:8] = struct.pack("q", before + spans)

    def serve(self, seconds: float, threads: int = 2) -> None:
        ends_at = time.perf_counter() + seconds

        def work() -> None:
            while time.perf_counter() < ends_at:
                self.request()

        started = [threading.Thread(target=work) for _ in range(threads - 1)]
        for thread in started:
            thread.start()
        work()
        for thread in started:
            thread.join()

    def report(self) -> None:
        """Say how it went, as the last thing that happens before the end."""
        told = {"latencies": self.latencies, "ends_at": time.monotonic()}
        (self._folder / f"report-{self.plan['name']}").write_text(json.dumps(told))


def made_in(folder: Path) -> int:
    """Return how many spans the programs of a folder have made."""
    return sum(struct.unpack("q", path.read_bytes())[0] for path in folder.glob("made-*"))


# What happens while it runs ----------------------------------------------------------------


def _step_clock(after_s: float, by_s: float) -> None:
    """Set the wall clock that this process sees, as somebody with the right to do so would."""
    stepped_at = time.monotonic() + after_s
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        return by_s if time.monotonic() >= stepped_at else 0.0

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


def _lose_names(flag: Path) -> None:
    """Resolve no name but while a file is there."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        if not flag.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1" if host == "collector.invalid" else host, *arguments, **named)

    socket.getaddrinfo = getaddrinfo


def _fill_disk(size_bytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def _in_children(program: Program, kind: str, seconds: float) -> None:
    if kind == "fork":
        pids = []
        for _ in range(2):
            pid = os.fork()
            if not pid:
                program.serve(seconds)
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        return
    import multiprocessing

    global _program
    _program = program
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pool.map(_serve_in_pool, [seconds, seconds], chunksize=1)


_program: Program | None = None


def _serve_in_pool(seconds: float) -> None:
    assert _program is not None
    _program.serve(seconds)


def _end(kind: str) -> None:
    if kind == "os._exit":
        os._exit(0)
    if kind.startswith("sig"):
        number = signal.SIGKILL if kind == "sigkill" else signal.SIGTERM
        os.kill(os.getpid(), number)
        time.sleep(60)
    if kind == "exception":
        raise RuntimeError("nobody caught this")


def _leave(*_: object) -> None:
    raise SystemExit(0)


def main(plan: dict[str, Any]) -> None:
    # What is patched is patched before anything of ours is imported, as a clock that is set is.
    if plan.get("step_s"):
        _step_clock(plan["seconds"] / 2, plan["step_s"])
    if plan.get("names_flag"):
        _lose_names(Path(plan["names_flag"]))
    if plan.get("disk_bytes"):
        _fill_disk(plan["disk_bytes"])
    if plan["end"] == "sigterm with a handler":
        signal.signal(signal.SIGTERM, _leave)
    program = Program(plan)
    if plan.get("idles"):
        program.request()
        time.sleep(plan["seconds"])
        return
    program.serve(plan["seconds"] if not plan.get("children") else 0.2)
    if plan.get("children"):
        _in_children(program, plan["children"], plan["seconds"])
    program.report()
    _end(plan["end"])


# Under gunicorn ----------------------------------------------------------------------------


def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
    global _program
    if _program is None:
        _program = Program(json.loads(os.environ["FAULTS_PLAN"]))
    _program.request()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
