"""Five services, one slow checkout: start them, buy something, see where the time went.

    make demo          or          python examples/slow_checkout/run.py

Everything runs on this machine, in processes that are stopped at the end. The spans go to a
SQLite file in a temporary folder; with ``--to jaeger,zipkin`` also there, where ``make backends``
starts such servers.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import requests
from opentelemetry.trace import SpanKind, StatusCode

from tracekit.model import SpanRecord
from tracekit.store.reader import StoreReader

HERE = Path(__file__).parent
SERVICES = ("gateway", "auth", "orders", "payment", "fraud")
START_S = 30.0
STOP_S = 5.0

CARTS = (
    {"user": "ada", "items": 1, "amount": 20},
    {"user": "ben", "items": 2, "amount": 45},
    {"user": "cleo", "items": 3, "amount": 950},
)


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description="Find out what made a checkout slow.")
    parser.add_argument("--to", metavar="NAMES", help="send the spans there too: jaeger,zipkin")
    to = parser.parse_args().to
    store = Path(tempfile.mkdtemp(prefix="tracekit-demo-")) / "traces.db"
    with services(store, environment(store, to)) as urls:
        print(f"Running: {', '.join(SERVICES)}.\n")
        for cart in CARTS:
            buy(urls["gateway"], cart)
        # Asked while they run: a span is in the store about a second after it ended.
        trace = slowest_trace(store)
    show(store, trace)
    print(f"\n{conclusion(trace)}\n")
    print(f"Look again:  {tracekit_command()} show --store {store}")
    print(f"All traces:  {tracekit_command()} ls --store {store}")


def buy(gateway: str, cart: Mapping[str, object]) -> None:
    began = time.monotonic()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{gateway}/checkout", json=cart, timeout=20)
    answer.raise_for_status()
    took = time.monotonic() - began
    print(
        f"  {cart['user']:<5} pays {cart['amount']:>4}   {took:5.2f} s   {answer.json()['payment']}"
    )


# What the traces say -------------------------------------------------------------------------


def slowest_trace(store: Path) -> list[SpanRecord]:
    """Wait until the slow checkout is in the store with the spans of all five services."""
    deadline = time.monotonic() + 10
    with StoreReader(store) as reader:
        while True:
            (slowest,) = reader.traces(1, order="slowest") or [None]
            if slowest and len(slowest.services) == len(SERVICES) and slowest.has_root:
                return reader.trace(slowest.trace_id)
            if time.monotonic() > deadline:
                raise SystemExit(f"no trace of all five services arrived in {store}")
            time.sleep(0.1)


def show(store: Path, trace: list[SpanRecord]) -> None:
    print()
    trace_id = f"{trace[0].context.trace_id:032x}"
    command = [sys.executable, "-m", "tracekit", "show", trace_id, "--store", str(store)]
    subprocess.run(command, check=True)


def conclusion(trace: list[SpanRecord]) -> str:
    """Say who waited for whom: the client span that failed last, and the server below it."""
    (root,) = [span for span in trace if span.parent is None]
    failed = [
        span
        for span in trace
        if span.kind is SpanKind.CLIENT and span.status.status_code is StatusCode.ERROR
    ]
    call = max(failed, key=lambda span: span.duration_ns or 0)
    below = [span for span in trace if span.parent and span.parent.span_id == call.context.span_id]
    waited, whole = (call.duration_ns or 0) / 1e9, (root.duration_ns or 0) / 1e9
    return (
        f"The checkout took {whole:.2f} s and should take {whole - waited:.2f} s: {service(call)} "
        f"waited {waited:.2f} s for {service(below[0])} until it timed out "
        f"({call.attributes.get('error.type')})."
    )


def service(span: SpanRecord) -> str:
    return str(span.resource.attributes["service.name"])


def tracekit_command() -> str:
    beside = Path(sys.executable).with_name("tracekit")
    return os.path.relpath(beside) if beside.exists() else "tracekit"


# Starting and stopping -----------------------------------------------------------------------


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


@contextmanager
def services(store: Path, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start every service on a port of its own, and stop all of them whatever happens."""
    ports = free_ports()
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    env = {**env, **{f"{name.upper()}_URL": url for name, url in urls.items()}}
    with ExitStack() as stack:
        log = stack.enter_context((store.parent / "services.log").open("a+"))
        started = {
            name: stack.enter_context(running(name, port, env, log)) for name, port in ports.items()
        }
        for name, process in started.items():
            wait_until_ready(name, process, ports[name], log)
        yield urls


def free_ports() -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in SERVICES]
        ports = [bound.getsockname()[1] for bound in sockets]
    return dict(zip(SERVICES, ports, strict=True))


@contextmanager
def running(
    name: str, port: int, env: Mapping[str, str], log: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own, so that Ctrl-C comes to this program alone, which then ends the others.
    process = subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), str(port)],
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


def stop_as_on_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop_as_on_ctrl_c)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
