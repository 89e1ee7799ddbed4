"""A receiver of OTLP over HTTP on the loopback interface: it decodes and keeps every request."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Receiver", "receiving"]


class Receiver:
    """What has arrived so far; ``endpoint`` is the URL to which traces are posted."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.endpoint = f"{self.base}/v1/traces"
        self.requests: list[ExportTraceServiceRequest] = []
        self.arrived = threading.Condition()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()

    def joined(self) -> ExportTraceServiceRequest:
        """Return all requests as one, in the order in which they arrived."""
        whole = ExportTraceServiceRequest()
        for request in self.requests:
            whole.MergeFrom(request)
        return whole

    def spans(self) -> list[Span]:
        return [
            span
            for resource_spans in self.joined().resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]

    def wait_for_spans(self, number: int, timeout_s: float = 20.0) -> list[Span]:
        with self.arrived:
            self.arrived.wait_for(lambda: len(self.spans()) >= number, timeout_s)
        return self.spans()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listen on a free port for as long as the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Requests) as server:
        server.daemon_threads = True
        server.receiver = receiver = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        encoding = self.headers.get("Content-Encoding", "")
        body = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding, bytes)(body)
        if self.path == "/v1/traces":
            self.server.receiver.take(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet: standard error is the test's."""
