"""aiohttp's client: one CLIENT span for each request on a connection, redirects and retries too.

Four seams:

- ``ClientSession._request`` is a call of the program, from which all redirects, retries of a
  connection that was closed meanwhile and client middlewares are served. It is private, but the
  only function that all of ``get``, ``request`` and ``ws_connect`` go through.
- ``BaseConnector.connect`` begins an attempt: every request asks for its connection here.
- ``ClientResponse.start`` returns when the headers are read, which ends it.
- ``BaseConnector._wait_for_available_connection`` is the wait for a place in the pool.

A ``TraceConfig``, the public way, has to be given to each session when that is made, and tells a
whole call from the next but no attempts within.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracekit import semconv
from tracekit._otel_context import attach, detach
from tracekit.instrumentation._around import around
from tracekit.instrumentation._http import Headers, suppressed_http
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
    record_exception,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

    Call = Callable[..., Awaitable[Any]]

__all__ = ["AiohttpClientInstrumentor"]

_CONTRIB = "opentelemetry.instrumentation.aiohttp_client"

_version_of = {(1, 0): "1.0", (1, 1): "1.1"}.get  # all that aiohttp speaks
_MOST_KEPT = 512
_loaded, _now_ns = sys.modules, time.perf_counter_ns
_TIMEOUTS = {
    "total": semconv.TIMEOUT_TOTAL,
    "connect": semconv.TIMEOUT_POOL,  # for a connection, from the pool or a new one
    "sock_connect": semconv.TIMEOUT_CONNECT,
    "sock_read": semconv.TIMEOUT_READ,
}


class AiohttpClientInstrumentor(ReplacingInstrumentor):
    """Watch sessions of aiohttp. Options are those of :meth:`HttpClientSettings.read`; hooks get
    aiohttp's ``ClientRequest`` and ``ClientResponse``."""

    name = "aiohttp_client"
    distributions = ("aiohttp",)
    supported = ">=3.9,<4"
    contrib = ("aiohttp-client",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        # begin(), _begin() and connect(), under a session's _request() and ours.
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, inside=6)
        # What is known of a URL, behind the object itself: as long as it is here, nothing else
        # gets its id.
        self._targets: dict[int, tuple[Any, str, Destination]] = {}
        self._timeout: Any = None
        self._limits: Mapping[str, float] = {}

    def patches(self) -> Sequence[Replacing]:
        connector, response = "aiohttp.connector", "aiohttp.client_reqrep"
        wait = "BaseConnector._wait_for_available_connection"  # since 3.10
        bodies = Replacing(response, "ClientResponse._notify_content", _notify_content)
        return (
            Replacing("aiohttp.client", "ClientSession._request", _request),
            Replacing(connector, "BaseConnector.connect", self._connect),
            Replacing(connector, wait, _watch_wait, optional=True),
            Replacing(response, "ClientResponse.start", _start),
            *((bodies,) if self._steps.settings.ends_at_body else ()),
        )

    def _connect(self, original: Call, owners: Sequence[object]) -> Call:
        begin, tcp = self._begin, sys.modules["aiohttp.connector"].TCPConnector

        async def connect(connector: Any, req: Any, traces: Any, timeout: Any) -> Any:
            exchange = current_exchange() if owners else None
            if exchange is None or exchange.closed:
                return await original(connector, req, traces, timeout)
            attempt = begin(exchange, req, timeout)
            if attempt is None:
                return await original(connector, req, traces, timeout)
            try:
                connection = await original(connector, req, traces, timeout)
            except BaseException as error:
                _note(attempt, error)
                raise
            peer: Sequence[Any] | None = attempt.destination.peer
            # Other connectors go anywhere, whatever the URL says.
            if peer is None or type(connector) is not tcp or req.proxy is not None:
                peer = _peer(connection)
            attempt.peer = peer
            attempt.handed_over_ns = _now_ns()
            return connection

        return connect

    def _begin(self, exchange: Exchange, req: Any, timeout: Any) -> Attempt | None:
        try:
            if exchange.attempt is not None:
                _give_up(exchange.attempt)
            url = req.url
            # yarl has one object for a text that it read before, and writes the text anew.
            found = self._targets.get(id(url))
            text, destination = (
                found[1:] if found is not None and found[0] is url else self._read_url(url)
            )
            # A session has one object for all of its requests.
            limits = self._limits if timeout is self._timeout else self._read_timeout(timeout)
            return self._steps.begin(
                exchange, req, req.method, text, destination, req.headers, limits
            )
        except Exception:
            report("what is known of a request")
            return None

    def _read_url(self, url: Any) -> tuple[str, Destination]:
        text = str(url)
        destination = destination_of(text)
        if is_kept(text):
            if len(self._targets) >= _MOST_KEPT:
                self._targets.clear()
            self._targets[id(url)] = url, text, destination
        return text, destination

    def _read_timeout(self, timeout: Any) -> Mapping[str, float]:
        limits = _timeouts(timeout)
        self._timeout, self._limits = timeout, limits
        return limits


def _headers_of(message: Any) -> Headers:
    return message.headers.items()  # type: ignore[no-any-return]


def _request(original: Call, owners: Sequence[object]) -> Call:
    async def request(session: ClientSession, *args: Any, **kwargs: Any) -> Any:
        if not owners:
            return await original(session, *args, **kwargs)
        exchange = Exchange(session)
        token = None
        if _CONTRIB in _loaded and _is_shared(session):
            token = attach(suppressed_http(exchange.parent))
        try:
            response = await original(session, *args, **kwargs)
        except BaseException as error:
            _fail(exchange, error)
            raise
        else:
            attempt = exchange.attempt
            if attempt is not None and attempt.noted is not None:
                _give_up(attempt)
            return response
        finally:
            if token is not None:
                _restore(token)
            exchange.close()

    return request


def _is_shared(session: ClientSession) -> bool:
    """Tell whether OpenTelemetry's instrumentation, put on after ours, has its hooks in a session.

    They ask the current context whether they may.
    """
    mark = "_is_instrumented_by_opentelemetry"
    return any(hasattr(config, mark) for config in getattr(session, "_trace_configs", ()))


def _restore(token: Any) -> None:
    try:
        detach(token)
    except (ValueError, RuntimeError):  # as in Attempt.leave
        pass


def _fail(exchange: Exchange, error: BaseException) -> None:
    """End the attempt that the call failed with, by the exception that goes on to the program."""
    attempt = exchange.attempt
    if attempt is not None and (attempt.under_way or attempt.noted is not None):
        attempt.fail(error)


def _note(attempt: Attempt, error: BaseException) -> None:
    """Keep what the library may still turn into another exception, or answer by a retry."""
    attempt.noted, attempt.noted_at = error, time.time_ns()
    attempt.leave()


def _give_up(attempt: Attempt) -> None:
    """End an attempt whose exception was kept from the program, by a retry or a middleware."""
    if attempt.noted is None:
        return
    noted, attempt.noted = attempt.noted, None
    record_exception(attempt.span, attempt.url, noted)
    attempt.end(attempt.noted_at)


def _start(original: Call, owners: Sequence[object]) -> Call:
    async def start(response: Any, connection: Any) -> Any:
        exchange = current_exchange() if owners else None
        attempt = None if exchange is None else exchange.attempt
        # Without a connection yet, this is the answer of a proxy that is asked for one.
        if attempt is None or not attempt.under_way or not attempt.handed_over_ns:
            return await original(response, connection)
        try:
            started = await original(response, connection)
        except BaseException as error:
            _note(attempt, error)
            raise
        _complete(attempt, response)
        return started

    return start


def _complete(attempt: Attempt, response: Any) -> None:
    try:
        status, version = response.status, _version_of(response.version, "")
        is_plain = status < 400 and attempt.steps.is_terse
    except Exception:  # a response class of somebody's own
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    if is_plain:
        attempt.succeed_plainly(response, status, version, attempt.peer)
        return
    attempt.succeed(response, status, version)
    if attempt.steps.settings.ends_at_body:
        _await_body(attempt, response)


def _peer(connection: Any) -> Sequence[Any]:
    try:
        transport = connection.transport
        peer = () if transport is None else transport.get_extra_info("peername")
    except Exception:  # a connection of somebody's own
        return ()
    return peer if isinstance(peer, tuple) else ()


def _timeouts(timeout: Any) -> Mapping[str, float]:
    """Return the limits of a ``ClientTimeout``; zero means none there."""
    limits = {attribute: getattr(timeout, name, None) for name, attribute in _TIMEOUTS.items()}
    return {name: s for name, s in limits.items() if isinstance(s, (int, float)) and s}


def _watch_wait(original: Call, owners: Sequence[object]) -> Call:
    """Time the wait for a place in a pool that is used up, on behalf of the attempt that waits."""

    return around(original, {"self": 0}, _wait_begins, _waited, _waited, owners=owners, awaits=True)


def _wait_begins(_connector: Any) -> tuple[Attempt, int] | None:
    exchange = current_exchange()
    attempt = None if exchange is None else exchange.attempt
    return None if attempt is None else (attempt, _now_ns())


def _waited(step: tuple[Attempt, int], *_outcome: object) -> None:
    attempt, began = step
    attempt.pool_wait_ns += _now_ns() - began


# Attempts whose spans end with the body of a response.
_bodies: weakref.WeakKeyDictionary[Any, Attempt] = weakref.WeakKeyDictionary()


@quiet
def _await_body(attempt: Attempt, response: ClientResponse) -> None:
    attempt.native = None  # which leads back to the response
    _bodies[response] = attempt
    weakref.finalize(response, attempt.abandon_body)
    # Called at once for a body that is read or empty.
    response.content.on_eof(attempt.end)


def _notify_content(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    """Be told when a response is closed or released, its body read or not."""

    def notify_content(response: ClientResponse) -> Any:
        attempt = _bodies.pop(response, None)
        if attempt is not None:
            _end_body(attempt, response)
        return original(response)

    return notify_content


@quiet
def _end_body(attempt: Attempt, response: ClientResponse) -> None:
    error = response.content.exception()
    if error is not None:
        attempt.fail_body(error)
    else:
        attempt.abandon_body()


plugin: type[LibraryInstrumentor] = AiohttpClientInstrumentor
