"""Running one row: the program traced and untraced at once, then the next one; and the sums."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.backends import backends
from benchmarks.faults.program import made_in
from benchmarks.faults.rows import Row
from benchmarks.faults.server import FaultServer
from benchmarks.fresh import ROOT

__all__ = ["AS_TEST", "FULL", "QUICK", "Pace", "Result", "run_row"]

_COLLECTOR_SETTINGS = """
receivers:
  otlp: {{ protocols: {{ http: {{ endpoint: "127.0.0.1:{port}" }} }} }}
exporters:
  otlphttp:
    endpoint: "http://127.0.0.1:{behind}"
    compression: none
    sending_queue: {{ enabled: false }}
    retry_on_failure: {{ enabled: false }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [otlphttp] }}
"""
"""It answers when the server behind it has answered, so that what it took is counted there."""


@dataclass(frozen=True)
class Pace:
    """How long things take.

    Attributes:
        share: Of the time that a row gives its program, but ``most_s`` at most.
        timeout_s: Of the exporter, for a batch with all its retries.
        compares: Whether the untraced program runs beside the traced one.
        delay_ms: How long a span waits for others.
    """

    share: float
    most_s: float
    timeout_s: float
    compares: bool = True
    delay_ms: int = 1000


FULL = Pace(1.0, 3600.0, 10.0)
QUICK = Pace(1 / 3, 5.0, 1.0)
AS_TEST = Pace(0.1, 0.8, 0.4, compares=False, delay_ms=100)


@dataclass
class Result:
    """What became of the spans of one row."""

    made: int = 0
    received: int = 0
    duplicates: int = 0
    spooled: int = 0
    recovered: int = 0
    waiting: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    p99: float = 0.0
    exit_s: float = 0.0

    @property
    def adds_up(self) -> bool:
        return self.made == self.received + sum(self.lost.values()) + self.waiting


class Run:
    """One row while it runs, in a folder of its own."""

    def __init__(self, row: Row, pace: Pace, folder: Path) -> None:
        self.row, self.pace, self.folder = row, pace, folder
        self.seconds = min(row.seconds * pace.share, pace.most_s)
        self.server = FaultServer()
        self.server.late_s = 1.2 * pace.timeout_s
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "XDG_STATE_HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "OTEL_BSP_SCHEDULE_DELAY": str(pace.delay_ms),
            "OTEL_EXPORTER_OTLP_TIMEOUT": str(int(pace.timeout_s * 1000)),
        }
        self.names_flag = folder / "names-resolve"
        if row.tls:
            self._trust_nobody()

    def _trust_nobody(self) -> None:
        import ssl

        import trustme

        trusted, other = trustme.CA(), trustme.CA()
        trusted.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        self.environment["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(self.folder / "ca.pem")
        self.contexts = []
        for authority in (other, trusted):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost").configure_cert(context)
            self.contexts.append(context)
        self.server.tls = self.contexts[0]
        self.url = f"https://localhost:{self.server.port}"

    # What fails ----------------------------------------------------------------------------

    def break_it(self) -> None:
        if self.row.fault is not None:
            self.server.break_with(self.row.fault)
        if self.row.refuses:
            self.server.refuse()
        if dict(self.row.only).get("loses_names"):
            self.url = f"http://collector.invalid:{self.server.port}"

    def mend_it(self) -> None:
        if self.row.tls:
            self.server.tls = self.contexts[1]
        self.names_flag.touch()
        self.server.heal()

    # Who runs ------------------------------------------------------------------------------

    def plan(self, name: str, traced: bool, **more: Any) -> dict[str, Any]:
        only = dict(self.row.only)
        if only.pop("loses_names", False):
            more.setdefault("names_flag", str(self.names_flag))
        return {
            "name": name,
            "folder": str(self.folder),
            "traced": traced,
            "seconds": self.seconds,
            "end": self.row.end,
            "children": self.row.children,
            **only,
            **more,
        }

    def start(self, plan: dict[str, Any]) -> subprocess.Popen[bytes]:
        environment = {**self.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": self.url}
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.faults.program"]
        log = (self.folder / f"log-{plan['name']}").open("wb")
        with log:
            return subprocess.Popen(
                [*words, json.dumps(plan)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def report(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"report-{name}").read_text())
        return found

    def run_program(self) -> tuple[float, float]:
        """Run the program beside the untraced one; return the ratio of p99, and its exit's time."""
        if self.row.children == "gunicorn":
            return 0.0, self.run_gunicorn()
        traced = self.start(self.plan("traced", True))
        plain = self.start(self.plan("untraced", False)) if self.pace.compares else None
        if self.row.middle:
            timer = threading.Timer(self.seconds * self.row.middle, self.mend_it)
            timer.start()
        traced.wait(self.seconds + 60)
        ended_at = time.monotonic()
        told = self.report("traced")
        exit_s = ended_at - told["ends_at"]
        if plain is None or self.row.children:
            return 0.0, exit_s
        plain.wait(self.seconds + 60)
        return _p99(told["latencies"]) / _p99(self.report("untraced")["latencies"]), exit_s

    def run_gunicorn(self) -> float:
        import requests

        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        environment = {
            **self.environment,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "FAULTS_PLAN": json.dumps(self.plan("gunicorn", True)),
        }
        words = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--workers", "2"]
        words += ["--bind", f"127.0.0.1:{port}", "--log-level", "error"]
        with (self.folder / "log-gunicorn").open("wb") as log:
            process = subprocess.Popen(
                [*words, "benchmarks.faults.program:app"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        with requests.Session() as session:
            session.trust_env = False
            ends_at = time.monotonic() + self.seconds
            while time.monotonic() < ends_at:
                try:
                    session.get(f"http://127.0.0.1:{port}/", timeout=10)
                except requests.ConnectionError:
                    time.sleep(0.05)  # it is still starting
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        return time.monotonic() - began

    def run_next(self) -> None:
        """Run a process that comes later, until nothing waits any more or half a minute is over."""
        before = len(self.server.ids)
        process = self.start(
            self.plan("next", True, seconds=60, idles=True, disk_bytes=None, step_s=0, end="")
        )
        ends_at = time.monotonic() + 30
        try:
            while time.monotonic() < ends_at:
                if not self.waiting() and len(self.server.ids) > before:
                    return
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait(30)

    # The sums ------------------------------------------------------------------------------

    def waiting(self) -> int:
        from tracekit.store.spool import Spool

        return sum(row.spans for row in Spool(self.folder / "tracekit" / "spool.db").waiting())

    def result(self, ratio: float, exit_s: float) -> Result:
        from tracekit.cli._fate import fate_of
        from tracekit.ledger_file import read_all

        found = Result(p99=ratio, exit_s=exit_s, waiting=self.waiting())
        found.made = made_in(self.folder)
        found.received, found.duplicates = len(self.server.ids), self.server.duplicates
        for ledger in read_all(self.folder / "tracekit" / "ledger"):
            fate = fate_of(ledger)
            found.spooled += fate.spooled
            found.recovered += fate.recovered
            found.lost += fate.lost + fate.lost_from_spool
        if self.row.end == "sigkill":
            # Nobody was left to count these: they were in memory.
            known = found.received + sum(found.lost.values()) + found.waiting
            found.lost["killed"] = max(0, found.made - known)
        found.lost = +found.lost
        return found


@contextmanager
def _collector(run: Run) -> Iterator[None]:
    """Put a Collector in front of the server; it is killed, and later started again."""
    program = _collector_program()
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = int(reserved.getsockname()[1])
    settings = run.folder / "collector.yaml"
    settings.write_text(_COLLECTOR_SETTINGS.format(port=port, behind=run.server.port))
    run.url = f"http://127.0.0.1:{port}"
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (run.folder / "log-collector").open("ab") as log:
            words = [program, "--config", str(settings)]
            running.append(subprocess.Popen(words, stdout=log, stderr=log))

    def kill() -> None:
        running[-1].kill()
        running[-1].wait()

    start()
    _until_connected(port)
    timers = [
        threading.Timer(run.seconds * share, act) for share, act in ((0.25, kill), (0.6, start))
    ]
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        kill()


def _collector_program() -> str:
    where = backends("where")
    try:
        return str(where.program("collector", "otelcol"))
    except where.NotThereError as error:
        raise FileNotFoundError(str(error)) from None


def _until_connected(port: int) -> None:
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the Collector does not listen")


def _p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


def run_row(row: Row, pace: Pace = FULL) -> Result:
    """Run one row and return what became of its spans.

    Raises:
        FileNotFoundError: It needs a Collector, and there is none.
    """
    with tempfile.TemporaryDirectory(prefix="faults-") as name, ExitStack() as stack:
        run = Run(row, pace, Path(name))
        stack.callback(run.server.close)
        if row.collector:
            stack.enter_context(_collector(run))
        run.break_it()
        ratio, exit_s = run.run_program()
        run.mend_it()
        run.run_next()
        return run.result(ratio, exit_s)
