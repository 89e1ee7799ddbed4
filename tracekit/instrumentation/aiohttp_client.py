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
    HttpClientSettings,
    destination_of,
    record_exception,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse, ClientSession

    Call = Callable[..., Awaitable[Any]]

__all__ = ["AiohttpClientInstrumentor"]

_VERSIONS = {(1, 0): "1.0", (1, 1): "1.1"}  # all that aiohttp speaks
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
        # begin(), _begin(), before() and what is around connect(), under a session's _request()
        # and ours.
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, inside=7)
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
        def before(_connector: Any, req: ClientRequest, timeout: Any) -> Attempt | None:
            exchange = current_exchange()
            if exchange is None or exchange.closed:
                return None
            return self._begin(exchange, req, timeout)

        told = {"self": 0, "req": 1, "timeout": 3}
        return around(original, told, before, _connected, _note, owners=owners, awaits=True)

    def _begin(self, exchange: Exchange, req: ClientRequest, timeout: Any) -> Attempt | None:
        try:
            if exchange.attempt is not None:
                _give_up(exchange.attempt)
            url = str(req.url)
            # A session has one object for all of its requests.
            limits = self._limits if timeout is self._timeout else self._read_timeout(timeout)
            return self._steps.begin(
                exchange, req, req.method, url, destination_of(url), req.headers, limits
            )
        except Exception:
            report("what is known of a request")
            return None

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
        if "opentelemetry.instrumentation.aiohttp_client" in sys.modules and _is_shared(session):
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


def _connected(attempt: Attempt, connection: Any, *_told: object) -> None:
    attempt.peer = _peer(connection)
    attempt.handed_over_ns = time.perf_counter_ns()


def _start(original: Call, owners: Sequence[object]) -> Call:
    return around(original, {"self": 0}, _awaiting, _complete, _note, owners=owners, awaits=True)


def _awaiting(_response: ClientResponse) -> Attempt | None:
    exchange = current_exchange()
    attempt = None if exchange is None else exchange.attempt
    # Without a connection yet, this is the answer of a proxy that is asked for one.
    if attempt is None or not (attempt.under_way and attempt.handed_over_ns):
        return None
    return attempt


def _complete(attempt: Attempt, _started: Any, response: ClientResponse) -> None:
    try:
        version: Any = response.version
        status, text = response.status, _VERSIONS.get(version, "")
    except Exception:  # a response class of somebody's own
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    if status < 400 and attempt.steps.is_terse:
        attempt.succeed_plainly(response, status, text, attempt.peer)
        return
    attempt.succeed(response, status, text)
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
    return None if attempt is None else (attempt, time.perf_counter_ns())


def _waited(step: tuple[Attempt, int], *_outcome: object) -> None:
    attempt, began = step
    attempt.pool_wait_ns += time.perf_counter_ns() - began


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
