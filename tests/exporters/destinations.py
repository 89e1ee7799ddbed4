"""Servers on loopback for exporters: well-behaved ones with a script, and hostile ones by hand."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracekit.exporters._retry import RetryPolicy

PATIENCE_S = 10

SOON = RetryPolicy(
    first_delay_s=0.01, max_delay_s=0.05, failures_to_open=1000, first_pause_s=0.2, max_pause_s=0.4
)
"""A policy that does what the default does, a hundred times faster, and never opens the breaker."""


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    client: Any

    @property
    def body(self) -> bytes:
        is_gzip = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.raw) if is_gzip else self.raw

    def request(self) -> ExportTraceServiceRequest:
        return ExportTraceServiceRequest.FromString(self.body)

    def span_names(self) -> list[str]:
        return span_names(self.request())


def span_names(request: ExportTraceServiceRequest) -> list[str]:
    return [
        span.name
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


OK = Reply()
Answering = Callable[[Received], Reply]


class Destination:
    """An HTTP server that answers by a script: the last entry stands for all that follow.

    Attributes:
        documents: What it answers to a GET, by path; nothing else is found.
        asked: The paths of which somebody wanted a document.
    """

    def __init__(self, *script: Reply | Answering, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.documents: dict[str, Reply] = {}
        self.asked: list[str] = []
        self.script: list[Reply | Answering] = list(script) or [OK]
        self._lock = threading.Lock()
        destination = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = PATIENCE_S

            def do_POST(self) -> None:
                destination._answer(self)

            do_PUT = do_POST

            def do_GET(self) -> None:
                destination.asked.append(self.path)
                send(self, destination.documents.get(self.path, Reply(404)))

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *arguments: None  # a client that gave up
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if tls else "http"
        self.port = self._server.server_port
        self.url = f"{scheme}://{'localhost' if tls else '127.0.0.1'}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def __enter__(self) -> Destination:
        self._thread.start()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE_S)
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        received = Received(handler.command, handler.path, headers, raw, handler.client_address)
        with self._lock:
            self.received.append(received)
            entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        send(handler, entry(received) if callable(entry) else entry)

    def span_names(self) -> list[str]:
        """Return the names of all spans of the OTLP requests that came so far."""
        return [name for received in self.received for name in received.span_names()]


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    if "content-length" not in {name.lower() for name in reply.headers}:
        handler.send_header("Content-Length", str(len(reply.body)))
    handler.end_headers()
    handler.wfile.write(reply.body)


@contextlib.contextmanager
def raw_destination(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept connections and let `serve` do with them what it likes; yield a URL."""
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def guarded(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.settimeout(PATIENCE_S)
                connections.append(connection)
                threads.append(threading.Thread(target=guarded, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            acceptor.join(PATIENCE_S)
            for thread in threads:
                thread.join(PATIENCE_S)


def read_request(connection: socket.socket) -> bytes:
    """Read one HTTP request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(body) < size:
        body += connection.recv(65536)
    return body


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Yield a URL where every connection is refused."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"
