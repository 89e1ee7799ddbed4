"""Spans captured in memory, libraries that are watched, and a server to call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import tracekit
from http_servers import Spans
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor
from tracekit.testing import capture_spans


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    with capture_spans() as exporter:
        yield exporter


@pytest.fixture
def ended() -> Spans:
    """Return ended spans that can be waited for; a client is often done before the server."""
    ended = Spans()
    tracekit.configure(exporters="none", processors=[SimpleSpanProcessor(ended)])
    return ended


@pytest.fixture
def watch() -> Callable[..., None]:
    """Return ``tracekit.instrument``; what it put on is taken off with every test."""
    return tracekit.instrument


class _Chunks(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for turn in range(3):
            if turn:
                self.server.shutdown_requested.wait(0.05)  # type: ignore[attr-defined]
            self.wfile.write(b"5\r\nchunk\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def slow_chunks() -> Iterator[str]:
    """Serve a body in three parts over a tenth of a second."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Chunks)
    server.shutdown_requested = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()
