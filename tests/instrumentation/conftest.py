"""A provider whose ended spans can be read, instrumentors that are taken off, and a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Tracer

from backends.where import NotThereError
from database_servers import (
    DatabaseServer,
    find_mariadb,
    find_postgresql,
    mariadb_server,
    postgres_server,
)
from mongo_server import MongoServer, mongo_server
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.propagators._composite import CompositePropagator
from tracekit.propagators.baggage import BaggagePropagator
from tracekit.propagators.tracecontext import TraceContextPropagator


class Spans:
    """Spans that have ended, in the order of their ends.

    The one place that knows which provider the tests of instrumentations run on.
    """

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self.provider.get_tracer("program")

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def watched(self) -> list[ReadableSpan]:
        """What instrumentations made, without the program's own spans, in order of start."""
        mine = [span for span in self.ended if _scope(span) != "program"]
        return sorted(mine, key=lambda span: span.start_time or 0)

    def one(self) -> ReadableSpan:
        """Return the only span that an instrumentation made."""
        (span,) = self.watched
        return span

    def clear(self) -> None:
        self._exporter.clear()


def _scope(span: ReadableSpan) -> str:
    return "" if span.instrumentation_scope is None else span.instrumentation_scope.name


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


@pytest.fixture(autouse=True)
def no_global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the global provider that an earlier test may have left: the API sets it only once.

    FastAPI traces by itself as soon as there is one, and log records tell its service.
    """
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)


@pytest.fixture(params=["of OpenTelemetry", "of tracekit"])
def any_textmap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the global propagator be the API's own, or ours, which is asked in fewer steps."""
    members = [TraceContextPropagator(), BaggagePropagator()]
    if request.param == "of tracekit":
        monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", CompositePropagator(members))


Instrument = Callable[..., LibraryInstrumentor]


@pytest.fixture
def instrument(spans: Spans) -> Iterator[Instrument]:
    """Return what instruments with a class of instrumentor; undone after the test."""
    made: list[LibraryInstrumentor] = []

    def instrument(plugin: type[LibraryInstrumentor], **options: Any) -> LibraryInstrumentor:
        instrumentor = plugin()
        made.append(instrumentor)
        options.setdefault("tracer_provider", spans.provider)
        instrumentor.instrument(**options)
        return instrumentor

    yield instrument
    for instrumentor in reversed(made):
        instrumentor.uninstrument()


class Received(NamedTuple):
    """A request as it came off the wire; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]


OUTSIDE = "api.example.com"


class LoopbackServer(ThreadingHTTPServer):
    """A real HTTP server on a free port, whose paths say how it answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.received: list[Received] = []
        self.arrived = threading.Event()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def other_host(self) -> str:
        """The same server, by another name."""
        return f"http://localhost:{self.server_port}"

    @property
    def outside(self) -> str:
        """The same server as a third party's, for whoever asks for the fixture `outside_name`."""
        return f"http://{OUTSIDE}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: clients of these tests go away on purpose."""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def do_GET(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        self.rfile.read(size)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(Received(self.command, self.path, headers))
        self.server.arrived.set()
        # "A server MUST accept the absolute-form in requests": RFC 9112, 3.2.2
        path = urlsplit(self.path).path
        kind, _, rest = path.strip("/").partition("/")
        getattr(self, f"answer_{kind}", self.answer_ok)(rest)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PURGE = do_GET

    def answer_ok(self, _: str) -> None:
        self._send(200, b"ok")

    def answer_status(self, status: str) -> None:
        self._send(int(status), b"" if status == "204" else b"no")

    def answer_redirect(self, times: str) -> None:
        left = int(times or 1) - 1
        self._send(302, b"", Location=f"/redirect/{left}" if left else "/ok")

    def answer_elsewhere(self, _: str) -> None:
        self._send(302, b"", Location=f"{self.server.other_host}/ok")

    def answer_outside(self, _: str) -> None:
        self._send(302, b"", Location=f"{self.server.outside}/ok")

    def answer_flaky(self, times: str) -> None:
        """Fail as often as the path says, then succeed."""
        seen = sum(request.path == self.path for request in self.server.received)
        self._send(503 if seen <= int(times) else 200, b"")

    def answer_slow(self, _: str) -> None:
        self.server.release.wait(10)
        self._send(200, b"late")

    def answer_chunks(self, count: str) -> None:
        """Send the first chunk at once and the others when released."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(int(count)):
            if number:
                self.server.release.wait(10)
            self.wfile.write(b"4\r\ndata\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def answer_broken(self, _: str) -> None:
        """Announce more than is sent, and go."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"part")
        self.close_connection = True

    def answer_dropped(self, _: str) -> None:
        self.close_connection = True

    def answer_challenge(self, _: str) -> None:
        if "authorization" in self.headers:
            self._send(200, b"in")
        else:
            self._send(401, b"", **{"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})

    def answer_headers(self, size: str) -> None:
        self._send(200, b"ok", **{"X-Long": "x" * int(size), "X-Id": "7", "Set-Cookie": "c=1"})

    def answer_decided(self, kind: str) -> None:
        """Answer as a callee does that has decided about the trace: ``kept``, ``open``, ...

        ``foreign`` is one that samples at the head, ``other`` one of another trace, ``garbage``
        one that sends what is none of it.
        """
        _, trace_id, span_id, _ = self.headers["traceparent"].split("-")
        trace_id = "e" * 32 if kind == "other" else trace_id
        flags = "00" if kind == "open" else "01"
        headers = {"TraceResponse": f"00-{trace_id}-{span_id}-{flags}"}
        if kind == "garbage":
            headers["TraceResponse"] = "00-zz-\xe9-0"
        if kind not in ("open", "foreign"):
            headers["Tracekit-Kept"] = "1"
        self._send(200, b"ok", **headers)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def outside_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a public name lead to this machine."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return look_up("127.0.0.1" if name == OUTSIDE else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    """A PostgreSQL server for all tests that ask for one."""
    programs = find_postgresql()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: .ci/system-packages does it")
    with postgres_server(programs) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[DatabaseServer]:
    """A MariaDB server for all tests that ask for one."""
    programs = find_mariadb()
    if programs is None:
        pytest.skip("MariaDB is not installed: .ci/system-packages does it")
    with mariadb_server(programs) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A server of MongoDB's protocol for all tests that ask for one."""
    try:
        with mongo_server(tmp_path_factory.mktemp("mongodb")) as server:
            yield server
    except NotThereError as why:
        pytest.skip(str(why))
