"""Running an example of several services: each its own process on loopback, one store for all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tracekit.errors import StoreError
from tracekit.model import SpanRecord
from tracekit.store.reader import StoreReader

START_S = 30.0
STOP_S = 5.0


def new_store(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"tracekit-{name}-")) / "traces.db"


def wait_for_trace(store: Path, names: Sequence[str]) -> list[SpanRecord]:
    """Wait until the slowest trace is there with spans of all services, and return it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if found := _whole_trace(store, names):
            return found
        time.sleep(0.1)
    raise SystemExit(f"no trace of all {len(names)} services arrived in {store}")


def _whole_trace(store: Path, names: Sequence[str]) -> list[SpanRecord]:
    with StoreReader(store) as reader:
        try:
            (slowest,) = reader.traces(1, order="slowest") or [None]
        except StoreError:  # nobody has written yet
            return []
        if slowest and len(slowest.services) == len(names) and slowest.has_root:
            return reader.trace(slowest.trace_id)
    return []


def tracekit(*words: str, store: Path) -> None:
    """Run a command on the store, as a reader would type it."""
    command = [sys.executable, "-m", "tracekit", *words, "--store", str(store)]
    subprocess.run(command, check=True)


def command_name() -> str:
    beside = Path(sys.executable).with_name("tracekit")
    return os.path.relpath(beside) if beside.exists() else "tracekit"


def run(main: Callable[[], None]) -> None:
    """Run an example; Ctrl-C and SIGTERM stop the services too."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_as_on_ctrl_c)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")


def _stop_as_on_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def services(
    folder: Path, names: Sequence[str], store: Path, *, to: str | None = None
) -> Iterator[dict[str, str]]:
    """Start every service, a file of the folder, on a port of its own; stop all at the end.

    Each finds the others in the environment, such as ``ORDERS_URL``.

    Args:
        to: Names of exporters that get the spans too, with commas.
    """
    ports = free_ports(names)
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    env = environment(store, to) | {f"{name.upper()}_URL": url for name, url in urls.items()}
    with ExitStack() as stack:
        log = stack.enter_context((store.parent / "services.log").open("a+"))
        started = {
            name: stack.enter_context(running(folder / f"{name}.py", port, env, log))
            for name, port in ports.items()
        }
        for name, process in started.items():
            wait_until_ready(name, process, ports[name], log)
        yield urls


def environment(store: Path, to: str | None) -> dict[str, str]:
    """Return the variables of a service."""
    # What this shell says about tracing, or about proxies, is not meant for the example: but for
    # where the destinations are that were named.
    foreign = ("OTEL_", "TRACEKIT_", "TRACEPARENT", "TRACESTATE", "BAGGAGE")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) or (to and name.endswith("_ENDPOINT"))
    }
    env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "TRACEKIT_STORE": str(store)}
    return env | {"OTEL_TRACES_EXPORTER": f"store,{to}"} if to else env


def free_ports(names: Sequence[str]) -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        ports = [bound.getsockname()[1] for bound in sockets]
    return dict(zip(names, ports, strict=True))


@contextmanager
def running(
    path: Path, port: int, env: Mapping[str, str], log: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own, so that Ctrl-C comes to this program alone, which then ends the others.
    process = subprocess.Popen(
        [sys.executable, str(path), str(port)],
        env=dict(env),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(name: str, process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    log.seek(0)
    raise SystemExit(f"{name} did not start; the services said:\n{log.read()}")
