"""A requests session whose exchanges end by a deadline, however slowly the other side speaks.

A socket's timeout starts anew with every byte that arrives, so a server that drips one byte a
second could hold a thread for hours. Here each read and each piece written gets only the time
that is left of the whole exchange.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

__all__ = ["new_session", "set_deadline"]

_PIECE = 64 * 1024

_exchange = threading.local()
"""When the exchange of this thread must have ended; a thread has one at a time."""


def set_deadline(timeout_s: float) -> None:
    """Give the next exchange of this thread so much time."""
    _exchange.ends_at = time.monotonic() + timeout_s


def _left_s() -> float:
    left: float = _exchange.ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _DeadlineReader(io.RawIOBase):
    """The reading side of a socket, with the time that is left as timeout of each read."""

    def __init__(self, raw: Any, connection: socket.socket) -> None:
        self._raw, self._connection = raw, connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_left_s())
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        # The raw reader of the socket is kept: it counts as a user of the socket, so that a
        # connection closed early ("Connection: close") can still be read to its end.
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock))


class _DeadlineConnection:
    """Mixed into urllib3's connection classes, in front of them."""

    sock: Any
    response_class = _DeadlineResponse

    def send(self, data: Any) -> None:
        send: Any = super().send  # type: ignore[misc]
        if self.sock is None or not isinstance(data, bytes):
            send(data)  # the first call connects, under the connect timeout
            return
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self.sock.settimeout(_left_s())
            send(view[start : start + _PIECE])


def _unix_connection(path: str) -> type:
    class UnixConnection(_DeadlineConnection):
        def _new_conn(self) -> socket.socket:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(_left_s())
                connection.connect(path)
            except OSError:
                connection.close()
                raise
            return connection

    return UnixConnection


def _bind(manager: Any, mixin: type) -> None:
    """Let a urllib3 pool manager make connections that know the deadline."""
    classes = {}
    for scheme, pool in manager.pool_classes_by_scheme.items():
        base = pool.ConnectionCls
        if not issubclass(base, _DeadlineConnection):
            connection = type(base.__name__, (mixin, base), {})
            pool = type(pool.__name__, (pool,), {"ConnectionCls": connection})  # noqa: PLW2901
        classes[scheme] = pool
    manager.pool_classes_by_scheme = classes


def new_session(unix_socket: str | None = None) -> requests.Session:
    """Return a session for one thread; ``requests`` is imported here and nowhere earlier.

    Args:
        unix_socket: Path of a socket to connect to, whatever host the URLs name.
    """
    import requests
    from requests.adapters import HTTPAdapter

    mixin = _unix_connection(unix_socket) if unix_socket else _DeadlineConnection

    class DeadlineAdapter(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options)
            _bind(self.poolmanager, mixin)

        def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **options)
            _bind(manager, mixin)
            return manager

    session = requests.Session()
    session.mount("http://", DeadlineAdapter(pool_connections=1, pool_maxsize=1))
    session.mount("https://", DeadlineAdapter(pool_connections=1, pool_maxsize=1))
    session.auth = _as_it_is  # without any, a ~/.netrc would replace our Authorization header
    if unix_socket:
        session.trust_env = False  # no proxy leads to a socket of this machine
    return session


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
