"""A server on 127.0.0.1 that takes OTLP over HTTP, in each of the ways in which servers fail."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["FaultServer", "Fault", "faults"]

_PATIENCE_S = 60.0


@dataclass
class Exchange:
    """One request on its connection; a fault says what becomes of it."""

    connection: Any
    body: bytes
    server: FaultServer

    def keep(self, most: int | None = None) -> int:
        """Take the spans, or the first ``most`` of them; return how many were left out."""
        return self.server.keep(self.body, most)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def hold(self, seconds: float = _PATIENCE_S) -> None:
        """Wait, until the fault is over at the latest."""
        self.server.healed.wait(seconds)


Fault = Callable[[Exchange], None]


class FaultServer:
    """Count spans by id: one that comes twice is received once, and counted as a duplicate.

    Attributes:
        fault: What happens to requests; None to take them.
        refuses: Whether connections are refused.
        tls: What each connection is wrapped with.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.tls: ssl.SSLContext | None = None
        self.healed = threading.Event()
        self.ids: set[bytes] = set()
        self.duplicates = 0
        self.late_s = 12.0
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listening: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port = int(reserved.getsockname()[1])
        self.listen()

    def listen(self) -> None:
        if self._listening is None:
            self._listening = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections, and reset those that there are."""
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def break_with(self, fault: Fault) -> None:
        self.healed.clear()
        self.fault = fault

    def heal(self) -> None:
        """Take whatever comes from now on."""
        self.fault = None
        self.healed.set()
        self.listen()

    def close(self) -> None:
        self.healed.set()
        self.refuse()

    def keep(self, body: bytes, most: int | None = None) -> int:
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            span.trace_id + span.span_id
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        kept = spans if most is None else spans[:most]
        with self._lock:
            self.duplicates += len(kept) - len({*kept} - self.ids)
            self.ids.update(kept)
        return len(spans) - len(kept)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        self._connections.add(raw)
        raw.settimeout(_PATIENCE_S)
        with contextlib.suppress(OSError, ValueError, EOFError), raw:
            connection: Any = raw
            if self.tls is not None:
                connection = self.tls.wrap_socket(raw, server_side=True)
            with connection:
                for body in _bodies(connection):
                    self._exchange(Exchange(connection, body, self))
        self._connections.discard(raw)

    def _exchange(self, exchange: Exchange) -> None:
        fault = self.fault
        if fault is None:
            exchange.keep()
            exchange.answer(200)
        else:
            fault(exchange)


def _bodies(connection: Any) -> Iterator[bytes]:
    """Yield the bodies of the requests of one connection."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            data += _more(connection)
        head, _, data = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(data) < size:
            data += _more(connection)
        yield data[:size]
        data = data[size:]


def _more(connection: Any) -> bytes:
    received: bytes = connection.recv(1 << 20)
    if not received:
        raise EOFError
    return received


class faults:  # noqa: N801  (a name for a group of functions, read as faults.black_hole)
    """What a server may do with a request."""

    @staticmethod
    def black_hole(exchange: Exchange) -> None:
        exchange.hold()
        raise EOFError

    @staticmethod
    def slow_drip(exchange: Exchange) -> None:
        for char in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
            exchange.connection.sendall(bytes([char]))
            if exchange.server.healed.wait(0.3):
                raise EOFError

    @staticmethod
    def throttled(exchange: Exchange) -> None:
        exchange.answer(429, b"slow down", Retry_After="1")

    @staticmethod
    def unavailable(exchange: Exchange) -> None:
        exchange.answer(503, b"down for maintenance")

    @staticmethod
    def too_large(exchange: Exchange) -> None:
        if len(exchange.body) > 20_000:
            exchange.answer(413, b"too large")
        else:
            exchange.keep()
            exchange.answer(200)

    @staticmethod
    def bad_request(exchange: Exchange) -> None:
        exchange.answer(400, b"no such tenant")

    @staticmethod
    def partial_success(exchange: Exchange) -> None:
        left_out = exchange.keep(most=5)
        told = {"rejectedSpans": str(left_out), "errorMessage": "over your quota"}
        answer = json.dumps({"partialSuccess": told}).encode()
        exchange.answer(200, answer, Content_Type="application/json")

    @staticmethod
    def reset(exchange: Exchange) -> None:
        """Take the spans, and reset the connection in the middle of the answer's head."""
        exchange.keep()
        exchange.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        linger = struct.pack("ii", 1, 0)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise EOFError

    @staticmethod
    def garbage(exchange: Exchange) -> None:
        exchange.connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n" * 10)
        raise EOFError

    @staticmethod
    def redirect(exchange: Exchange) -> None:
        exchange.answer(307, Location="http://127.0.0.1:9/elsewhere")

    @staticmethod
    def gigabyte(exchange: Exchange) -> None:
        head = f"HTTP/1.1 500 X\r\nContent-Length: {10**9}\r\n\r\n"
        exchange.connection.sendall(head.encode())
        for _ in range(10**9 // 65536):
            exchange.connection.sendall(b"x" * 65536)

    @staticmethod
    def slow(exchange: Exchange) -> None:
        exchange.keep()
        exchange.hold(0.2)
        exchange.answer(200)

    @staticmethod
    def late(exchange: Exchange) -> None:
        """Take the spans, and answer when the client has given up."""
        exchange.keep()
        exchange.hold(float(exchange.server.late_s))
        time.sleep(0.05)
        exchange.answer(200)
