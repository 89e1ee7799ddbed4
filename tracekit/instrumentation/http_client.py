"""http.client: one CLIENT span for each request, whatever library of the standard one makes it.

Every synchronous library that is not watched by itself ends up here: urllib, xmlrpc, httplib2.
Below one that is, this is silent.

Three seams:

- ``HTTPConnection.endheaders`` connects and sends. The lines of the request's head lie in the
  connection's buffer by then, where trace headers are added to them.
- ``HTTPConnection.getresponse`` returns when the headers are read, which ends the span.
- ``OpenerDirector.open`` is a call of the program to urllib. It follows redirects and answers
  challenges by calling itself, and the exception that goes on to the program is its own.

The span is current while the request is sent. On a connection of the program's own it is not until
the answer: in between the program runs, and nothing further down could have spans.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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

# The attribute of a connection that is the attempt which waits for its answer; and of a response
# that is the one which ends with the body. Read by getattr(), since most have none, and set to None
# instead of deleted: CPython has a short way for that, and none through vars().
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


def _write(connection: Any, headers: Mapping[str, str]) -> None:
    """Write trace headers as ``putheader`` would, which looks for what none of ours has."""
    buffer = connection._buffer
    # As text: CPython tries whether bytes are a number before it looks for them in others, and
    # makes an exception that says they are none.
    there = b"\n".join(buffer).decode("latin-1").lower()
    try:
        for name, value in headers.items():
            line = f"{name}: {value}"
            if "\n" in line or "\r" in line or name.lower() in there:
                HeaderLines(connection)[name] = value
            else:
                buffer.append(line.encode("latin-1"))
    except Exception:
        report("the injection of trace headers")


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
        # begin(), _begin(), endheaders() and who calls that.
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, inside=4)

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
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        begin = self._begin

        def endheaders(
            connection: Any, message_body: Any = None, *, encode_chunked: bool = False
        ) -> Any:
            attempt = None
            if owners:
                exchange = current_exchange()
                if exchange is None or type(exchange) is _Opening or not exchange.speaks():
                    attempt = begin(exchange, connection)
            if attempt is None:
                return original(connection, message_body, encode_chunked=encode_chunked)
            try:
                if message_body is None:  # which is not encoded
                    result = original(connection)
                else:
                    result = original(connection, message_body, encode_chunked=encode_chunked)
            except BaseException as error:
                _fail(attempt, error)
                raise
            if type(attempt.exchange) is not _Opening:
                attempt.leave()
            if len(attempt.peer) == 0:
                attempt.peer = peer_of(connection)
            connection._tracekit_attempt = attempt
            return result

        return endheaders

    def _open(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        def open_(
            opener: Any, fullurl: Any, data: Any = None, timeout: Any = _DEFAULT_TIMEOUT
        ) -> Any:
            exchange = current_exchange()
            # A redirect or an answered challenge, from inside the call that it belongs to.
            is_resend = (
                type(exchange) is _Opening and not exchange.closed and exchange.owner is opener
            )
            if is_resend or not owners:
                return original(opener, fullurl, data, timeout)
            exchange = _Opening(opener)
            try:
                return original(opener, fullurl, data, timeout)
            except BaseException as error:
                attempt = exchange.attempt
                if attempt is not None and attempt.noted is not None:
                    fail(attempt, error)
                raise
            finally:
                attempt = exchange.attempt
                if attempt is not None and attempt.under_way:  # nobody asked for the answer
                    attempt.leave()
                exchange.close()

        return open_

    def _begin(self, exchange: Exchange | None, connection: Any) -> Attempt | None:
        own = None
        try:
            buffer = connection._buffer
            if not buffer:
                return None
            if connection._tunnel_host:
                host, port = connection._tunnel_host, connection._tunnel_port
            else:
                host, port = connection.host, connection.port
            method, url, destination = _target((buffer[0], host, port, connection.default_port))
            steps, native = self._steps, None
            if steps.shows_requests:
                native = HttpClientRequest(method, url, HeaderLines(connection), connection)
            if exchange is None or type(exchange) is not _Opening or exchange.closed:
                exchange = own = Exchange(connection)
            elif exchange.attempt is not None:
                give_up(exchange.attempt)
            limit = connection.timeout
            if limit is _DEFAULT_TIMEOUT:
                limit = socket.getdefaulttimeout()
            headers: dict[str, str] = {}
            attempt = steps.begin(
                exchange, native, method, url, destination, headers, limits_of(limit)
            )
            if attempt is not None:
                _write(connection, headers)
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
_version_of = VERSIONS.get


@functools.lru_cache(maxsize=256)
def _origin(default: int, host: str, port: int) -> str:
    scheme = "https" if default == 443 else "http"
    if ":" in host and not host.startswith("["):  # IPv6
        host = f"[{host}]"
    return f"{scheme}://{host}" if port == default_port(scheme) else f"{scheme}://{host}:{port}"


def _fail(attempt: Attempt, error: BaseException) -> None:
    """Record an exception, or leave that to urllib, which makes its own of it or tries again."""
    if type(attempt.exchange) is _Opening:
        attempt.noted, attempt.noted_at = error, time.time_ns()
        attempt.leave()
    else:
        attempt.fail(error)


def _getresponse(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def getresponse(connection: Any) -> Any:
        attempt = getattr(connection, _WAITING, None)
        if attempt is None:
            return original(connection)
        connection._tracekit_attempt = None
        try:
            response = original(connection)
        except BaseException as error:
            _fail(attempt, error)
            raise
        try:
            status, version = response.status, _version_of(response.version, "")
            is_plain = status < 400 and attempt.steps.is_terse
        except Exception:  # a response class of somebody's own
            report("the reading of a response")
            attempt.leave()
            attempt.end()
            return response
        if is_plain:
            attempt.succeed_plainly(response, status, version, attempt.peer)
            return response
        attempt.succeed(response, status, version)
        if attempt.steps.settings.ends_at_body:
            _await_body(attempt, response)
        return response

    return getresponse


def _close_connection(
    original: Callable[..., Any], _owners: Sequence[object]
) -> Callable[..., Any]:
    def close(connection: Any) -> Any:
        attempt = getattr(connection, _WAITING, None)
        if attempt is not None:  # nobody asked for the answer
            connection._tracekit_attempt = None
            attempt.end()
        return original(connection)

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
