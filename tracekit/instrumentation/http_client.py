"""http.client: one CLIENT span for each request, whatever library of the standard one makes it.

Every synchronous library that is not watched by itself ends up here: urllib, xmlrpc, httplib2.
Below one that is, this is silent.

Three seams:

- ``HTTPConnection.endheaders`` connects and sends. The lines of the request's head lie in the
  connection's buffer by then, where trace headers are added to them.
- ``HTTPConnection.getresponse`` returns when the headers are read, which ends the span.
- ``OpenerDirector.open`` is a call of the program to urllib. It follows redirects and answers
  challenges by calling itself, and the exception that goes on to the program is its own.

The span is current while the request is sent and not until its answer: in between the program
runs, and nothing further down could have spans.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.propagators.textmap import Setter

from tracekit.instrumentation._around import around
from tracekit.instrumentation._http import Headers
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import (
    Destination,
    HttpClientSettings,
    destination_of,
    is_kept,
    limits_of,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._url import default_port
from tracekit.instrumentation._urllib3 import VERSIONS, fail, give_up, peer_of

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

__all__ = ["HttpClientInstrumentor", "HttpClientRequest"]

# The attempt that waits for its answer, in the instance dictionary of a connection, and the one
# that ends with the body, in that of a response.
_WAITING = "_tracekit_attempt"


class HeaderLines:
    """The headers in the buffer of a connection whose request is not sent yet, as a carrier."""

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def items(self) -> Iterator[tuple[str, str]]:
        for line in self.connection._buffer[1:]:
            name, colon, value = line.partition(b":")
            if colon:
                yield name.decode("latin-1"), value.strip().decode("latin-1")

    def __setitem__(self, name: str, value: str) -> None:
        self.pop(name)
        self.connection.putheader(name, value)

    def pop(self, name: str, default: None = None) -> None:
        start, buffer = name.lower().encode("latin-1") + b":", self.connection._buffer
        if start in b"\n".join(buffer).lower():
            buffer[:] = [line for line in buffer if line[: len(start)].lower() != start]


class _LineSetter(Setter[HeaderLines]):
    """Writes a trace header, as ``putheader`` would that looks for what none of ours has."""

    def set(self, carrier: HeaderLines, key: str, value: str) -> None:
        line = f"{key}: {value}".encode("latin-1")
        if b"\n" in line or b"\r" in line:
            carrier[key] = value
            return
        buffer = carrier.connection._buffer
        if line[: len(key) + 1].lower() in b"\n".join(buffer).lower():
            carrier.pop(key)
        buffer.append(line)


class HttpClientRequest(NamedTuple):
    """What hooks get to see of a request; http.client has no object for it."""

    method: str
    url: str
    headers: HeaderLines
    connection: HTTPConnection


class _Opening(Exchange):
    """An exchange that a call to urllib opened."""

    __slots__ = ()


class HttpClientInstrumentor(ReplacingInstrumentor):
    """Watch http.client and urllib. Options are those of :meth:`HttpClientSettings.read`; hooks
    get an :class:`HttpClientRequest` and an ``http.client.HTTPResponse``."""

    name = "http_client"
    contrib = ("urllib",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        # begin(), _begin(), before() and what is around endheaders().
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, _LineSetter(), 5)

    def patches(self) -> Sequence[Replacing]:
        client = "http.client"
        bodies = (
            Replacing(client, "HTTPResponse._close_conn", _close_conn),
            Replacing(client, "HTTPResponse.close", _close_response),
        )
        return (
            Replacing("urllib.request", "OpenerDirector.open", self._open),
            Replacing(client, "HTTPConnection.endheaders", self._endheaders),
            Replacing(client, "HTTPConnection.getresponse", _getresponse),
            Replacing(client, "HTTPConnection.close", _close_connection),
            *(bodies if self._steps.settings.ends_at_body else ()),
        )

    def _endheaders(
        self, original: Callable[..., None], owners: Sequence[object]
    ) -> Callable[..., None]:
        def before(connection: HTTPConnection) -> Attempt | None:
            exchange = current_exchange()
            if exchange is None or type(exchange) is _Opening or not exchange.speaks():
                return self._begin(exchange, connection)
            return None

        return around(original, {"self": 0}, before, _sent, _fail, owners=owners)

    def _open(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        def open_(opener: Any, *args: Any, **kwargs: Any) -> Any:
            exchange = current_exchange()
            # A redirect or an answered challenge, from inside the call that it belongs to.
            is_resend = (
                type(exchange) is _Opening and not exchange.closed and exchange.owner is opener
            )
            if is_resend or not owners:
                return original(opener, *args, **kwargs)
            exchange = _Opening(opener)
            # urllib is nine frames deep by the time that the request is sent.
            self._steps.locate(exchange, 2)
            try:
                return original(opener, *args, **kwargs)
            except BaseException as error:
                attempt = exchange.attempt
                if attempt is not None and attempt.noted is not None:
                    fail(attempt, error)
                raise
            finally:
                exchange.close()

        return open_

    def _begin(self, exchange: Exchange | None, connection: HTTPConnection) -> Attempt | None:
        own = None
        try:
            buffer: Any = connection._buffer  # type: ignore[attr-defined]
            if not buffer:
                return None
            if connection._tunnel_host:  # type: ignore[attr-defined]
                host, port = connection._tunnel_host, connection._tunnel_port  # type: ignore[attr-defined]
            else:
                host, port = connection.host, connection.port
            method, url, destination = _target((buffer[0], host, port, connection.default_port))
            lines, steps = HeaderLines(connection), self._steps
            native = None
            if steps.shows_requests:
                native = HttpClientRequest(method, url, lines, connection)
            if exchange is None or type(exchange) is not _Opening or exchange.closed:
                exchange = own = Exchange(connection)
            elif exchange.attempt is not None:
                give_up(exchange.attempt)
            limit: Any = connection.timeout
            if limit is _DEFAULT_TIMEOUT:
                limit = socket.getdefaulttimeout()
            timeouts = limits_of(limit)
            attempt = steps.begin(exchange, native, method, url, destination, lines, timeouts)
            if attempt is not None:
                # What is at the other end, where no proxy is.
                peer = destination.peer
                if peer is not None and peer[0] == connection.host and peer[1] == connection.port:
                    attempt.peer = peer
            return attempt
        except Exception:
            report("what is known of a request")
            return None
        finally:
            if own is not None:
                own.close()


class _Targets(dict[tuple[bytes, str, int, int], tuple[str, str, Destination]]):
    """What was found out about requests by their first line, and the connection's own origin."""

    def __missing__(self, sent: tuple[bytes, str, int, int]) -> tuple[str, str, Destination]:
        line, host, port, default = sent
        method, url, _ = line.decode("latin-1").split(" ", 2)
        # Otherwise it is the whole URL, as a proxy is sent it.
        if url.startswith("/"):
            url = _origin(default, host, port) + url
        found = method, url, destination_of(url)
        if is_kept(url):
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[sent] = found
        return found


# What the timeout of a connection is that was given none.
_DEFAULT_TIMEOUT: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
_MOST_KEPT = 512
_target = _Targets().__getitem__


@functools.lru_cache(maxsize=256)
def _origin(default: int, host: str, port: int) -> str:
    scheme = "https" if default == 443 else "http"
    if ":" in host and not host.startswith("["):  # IPv6
        host = f"[{host}]"
    return f"{scheme}://{host}" if port == default_port(scheme) else f"{scheme}://{host}:{port}"


def _sent(attempt: Attempt, _result: None, connection: HTTPConnection) -> None:
    attempt.leave()
    if len(attempt.peer) == 0:
        attempt.peer = peer_of(connection)
    vars(connection)[_WAITING] = attempt


def _fail(attempt: Attempt, error: BaseException) -> None:
    """Record an exception, or leave that to urllib, which makes its own of it or tries again."""
    if type(attempt.exchange) is _Opening:
        attempt.noted, attempt.noted_at = error, time.time_ns()
        attempt.leave()
    else:
        attempt.fail(error)


def _getresponse(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def getresponse(connection: HTTPConnection) -> HTTPResponse:
        attempt = vars(connection).pop(_WAITING, None)
        if attempt is None:
            return original(connection)  # type: ignore[no-any-return]
        try:
            response = original(connection)
        except BaseException as error:
            _fail(attempt, error)
            raise
        status, version = response.status, VERSIONS.get(response.version, "")
        if status < 400 and attempt.steps.is_terse:
            attempt.succeed_plainly(response, status, version, attempt.peer)
            return response  # type: ignore[no-any-return]
        attempt.succeed(response, status, version)
        if attempt.steps.settings.ends_at_body:
            _await_body(attempt, response)
        return response  # type: ignore[no-any-return]

    return getresponse


def _close_connection(
    original: Callable[..., Any], _owners: Sequence[object]
) -> Callable[..., Any]:
    def close(connection: HTTPConnection) -> None:
        attempt = vars(connection).pop(_WAITING, None)
        if attempt is not None:  # nobody asked for the answer
            attempt.end()
        return original(connection)  # type: ignore[no-any-return]

    return close


def _headers_of(message: Any) -> Headers:
    return message.headers.items()  # type: ignore[no-any-return]


@quiet
def _await_body(attempt: Attempt, response: HTTPResponse) -> None:
    if response.isclosed():  # an empty body
        attempt.end()
    else:
        vars(response)[_WAITING] = attempt


def _close_conn(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def close_conn(response: HTTPResponse) -> None:
        attempt = vars(response).pop(_WAITING, None)
        if attempt is not None:
            _end_body(attempt)
        return original(response)  # type: ignore[no-any-return]

    return close_conn


@quiet
def _end_body(attempt: Attempt) -> None:
    """End a span whose body is read, or breaks off; the program may be handling another error."""
    error = sys.exc_info()[1]
    if error is not None and type(error).__module__ == "http.client":
        attempt.fail_body(error)
    attempt.end()


def _close_response(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def close(response: HTTPResponse) -> None:
        attempt = vars(response).pop(_WAITING, None)
        if attempt is not None:
            attempt.abandon_body()
        return original(response)  # type: ignore[no-any-return]

    return close


plugin: type[LibraryInstrumentor] = HttpClientInstrumentor
