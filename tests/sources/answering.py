"""A server on loopback that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

__all__ = ["Answers", "Asked", "answering"]


class Asked(NamedTuple):
    method: str
    path: str
    params: dict[str, str]
    authorization: str


class Said(NamedTuple):
    """An answer; ``more`` is how many bytes it promises and does not send."""

    body: bytes = b"{}"
    status: int = 200
    kind: str = "application/json"
    more: int = 0


Answers = Callable[[Asked], Said]


class Loopback(NamedTuple):
    url: str
    asked: list[Asked]


@contextmanager
def answering(answers: Answers) -> Iterator[Loopback]:
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            params = {key: values[0] for key, values in parse_qs(parts.query).items()}
            authorization = self.headers.get("Authorization", "")
            asked.append(Asked(self.command, parts.path, params, authorization))
            said = answers(asked[-1])
            self.send_response(said.status)
            self.send_header("Content-Type", said.kind)
            self.send_header("Content-Length", str(len(said.body) + said.more))
            if 300 <= said.status < 400:
                self.send_header("Location", "http://127.0.0.1:1/login")
            self.end_headers()
            # Who asked may have left, having waited or read enough.
            with suppress(OSError):
                self.wfile.write(said.body)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Loopback(f"http://127.0.0.1:{server.server_address[1]}", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
