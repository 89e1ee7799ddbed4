"""httpx and httpx2: one CLIENT span for each request through a transport, sync and async.

httpx2 is httpx carried on by others, under its own name: the same classes and the same methods.

The seam is ``_send_single_request`` of both clients: what follows redirects and runs an
authentication flow calls it once for each request, with any transport, mounted, mocked or the
user's own, on clients made before as well. It is private, but has been there under this name in
every version supported of both. Patching ``HTTPTransport`` instead would miss all other transports;
``send``, which is public, covers redirects and challenges in one call and only counts them here.
"""

from __future__ import annotations

import operator
import os
import sys
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry.propagators.textmap import Setter

from tracekit import semconv
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
    described,
    destination_of,
    is_kept,
)
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._url import Origin, default_port

if TYPE_CHECKING:
    from httpx import URL, AsyncClient, Client, Request, Response

__all__ = ["HttpxApiInstrumentor"]

_VERSIONS = {b"HTTP/1.0": "1.0", b"HTTP/1.1": "1.1", b"HTTP/2": "2", b"HTTP/3": "3"}
_POOLS = ("ConnectionPool", "AsyncConnectionPool")  # not those that go through a proxy
_PHASES = ("connect", "read", "write", "pool")
_TIMEOUTS = (
    semconv.TIMEOUT_CONNECT,
    semconv.TIMEOUT_READ,
    semconv.TIMEOUT_WRITE,
    semconv.TIMEOUT_POOL,
)


class HttpxApiInstrumentor(ReplacingInstrumentor):
    """Watch a package that has httpx's interface, called as the instrumentation is.

    Options are those of :meth:`HttpClientSettings.read`; hooks are plain functions for both
    clients and get the package's own request and response.
    """

    core: str
    """The package below, which has the connections."""

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        # begin(), _begin() and what is around _send_single_request(), under three of the client's
        # own and what is around the outermost, send().
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, _RequestHeaders(), 8)

    def patches(self) -> Sequence[Replacing]:
        client, locks = f"{self.name}._client", f"{self.core}._synchronization"
        return (
            Replacing(client, "Client.send", _send),
            Replacing(client, "AsyncClient.send", _send_async),
            Replacing(client, "Client._send_single_request", self._request),
            Replacing(client, "AsyncClient._send_single_request", self._request_async),
            # A request waits for these only when all connections of the pool are in use.
            Replacing(locks, "Event.wait", _watch_wait, optional=True),
            Replacing(locks, "AsyncEvent.wait", _watch_wait_async, optional=True),
        )

    def _request(
        self, original: Callable[..., Any], owners: Sequence[object], awaits: bool = False
    ) -> Callable[..., Any]:
        told = {"self": 0, "request": 1}
        return around(
            original,
            told,
            self._begin,
            _complete,
            Attempt.fail,
            owners=owners,
            awaits=awaits,
        )

    def _request_async(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        return self._request(original, owners, awaits=True)

    def _begin(self, client: Client | AsyncClient, request: Request) -> Attempt | None:
        exchange = current_exchange()
        if exchange is None or exchange.owner is not client:
            return None  # not under send(): a private call of somebody's own
        try:
            address = request.url
            try:  # 3 µs less than its text, which httpx joins anew whenever it is asked for
                url, goes_to = _kept[address._uri_reference]
            except (AttributeError, KeyError, TypeError):
                url, goes_to = _whereto(address)
            try:
                limits = _kept_limits[tuple(request.extensions["timeout"].items())]
            except (AttributeError, KeyError, TypeError):
                limits = _limits_of(request)
            method, headers = request.method, request.headers
            attempt = self._steps.begin(exchange, request, method, url, goes_to, headers, limits)
        except Exception:
            report("what is known of a request")
            return None
        if attempt is not None and "opentelemetry.instrumentation.httpx" in sys.modules:
            _silence(attempt, client, request, sys.modules[self.name])
        return attempt

    def _put_all_on(self, module: ModuleType, name: str) -> str | None:
        # `httpx2.alias_httpx()` has the program's `import httpx` find httpx2.
        if module.__name__ != name:
            return f"{name} is {module.__name__} here"
        return super()._put_all_on(module, name)


_MOST_KEPT = 512
_kept: dict[Any, tuple[str, Destination]] = {}


def _whereto(url: URL) -> tuple[str, Destination]:
    """Return a URL's text and where it leads, from now on by the parts that httpx keeps of it."""
    found, parts = _read(url), getattr(url, "_uri_reference", None)
    if isinstance(parts, tuple) and is_kept(found[0]):
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[parts] = found
    return found


def _read(url: URL) -> tuple[str, Destination]:
    text = str(url)
    return text, _decoded(text, url) if "xn--" in text else destination_of(text)


def _decoded(text: str, url: URL) -> Destination:
    # What is sent is ASCII; the host's name is what people read.
    scheme, host, port = url.scheme, url.host, url.port
    port = default_port(scheme) if port is None else port
    return described(text, Origin(scheme, host, port))


def _headers_of(message: Any) -> Headers:
    return message.headers.multi_items()  # type: ignore[no-any-return]


_lower_name = operator.itemgetter(1)


class _RequestHeaders(Setter[Any]):
    """Writes a trace header to those of a request.

    ``Headers.__setitem__`` looks through all of them in a generator. What it would append is
    appended here, where its list is what it has been in every version supported.
    """

    def set(self, carrier: Any, key: str, value: str) -> None:
        try:
            name, raw = key.encode("ascii"), carrier._list
            lower = name.lower()
            if len(raw[0]) == 3 and lower not in map(_lower_name, raw):
                raw.append((name, lower, value.encode("ascii")))
                return
        except (AttributeError, LookupError, TypeError, UnicodeError):
            pass  # somebody's own headers
        carrier[key] = value


def _send(
    original: Callable[..., Any], owners: Sequence[object], awaits: bool = False
) -> Callable[..., Any]:
    close = Exchange.close
    return around(original, {"self": 0}, Exchange, close, close, owners=owners, awaits=awaits)


def _send_async(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    return _send(original, owners, awaits=True)


@quiet
def _silence(
    attempt: Attempt, client: Client | AsyncClient, request: Request, httpx: ModuleType
) -> None:
    """Silence OpenTelemetry's instrumentation, put on after ours, which watches the transport.

    Only the two transports of httpx itself: another may serve the request in this process.
    """
    transport = client._transport_for_url(request.url)
    if isinstance(transport, (httpx.HTTPTransport, httpx.AsyncHTTPTransport)):
        attempt.silence()


_NO_TIMEOUTS: Mapping[str, float] = {}
_kept_limits: dict[Any, Mapping[str, float]] = {}


def _limits_of(request: Request) -> Mapping[str, float]:
    """Return the limits of a request, the same mapping from now on for the same."""
    timeout = request.extensions.get("timeout")
    if not timeout:
        return _NO_TIMEOUTS
    phases = zip(_TIMEOUTS, map(timeout.get, _PHASES), strict=True)
    limits = {name: s for name, s in phases if s is not None}
    if len(_kept_limits) >= _MOST_KEPT:
        _kept_limits.clear()
    return _kept_limits.setdefault(tuple(timeout.items()), limits)


def _complete(
    attempt: Attempt, response: Response, client: Client | AsyncClient, _request: Request
) -> None:
    try:
        extensions = response.extensions
        status = response.status_code
        version = _VERSIONS.get(extensions.get("http_version", b""), "")
        is_plain = status < 400 and attempt.steps.is_terse
        peer: Sequence[Any] | None = None
        stream = extensions.get("network_stream")
        if stream is not None:
            peer = attempt.destination.peer
            if peer is None or not _is_direct(client):
                peer = _peer(stream)
    except Exception:  # a transport's own idea of a response
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    if is_plain:
        attempt.succeed_plainly(response, status, version, peer)
        return
    attempt.peer = peer or ()
    attempt.succeed(response, status, version)
    if attempt.steps.settings.ends_at_body:
        _await_body(attempt, response)


def _is_direct(client: Any) -> bool:
    """Tell whether connections lead to where URLs say: to no proxy, and no socket file."""
    try:
        pool = client._transport._pool
        return not client._mounts and type(pool).__name__ in _POOLS and pool._uds is None
    except AttributeError:  # a transport's own
        return False


def _peer(stream: Any) -> Sequence[Any]:
    try:
        peer = stream.get_extra_info("server_addr")
    except Exception:  # the connection is closed, or a transport's own stream lacks the method
        return ()
    return peer if isinstance(peer, tuple) else ()


@quiet
def _await_body(attempt: Attempt, response: Response) -> None:
    watched: Any = _WatchedStream(response.stream, attempt)
    response.stream = watched
    weakref.finalize(watched, attempt.abandon_body)


def _watch_wait(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    """Time a library's wait for a free connection, on behalf of the attempt that waits."""

    def wait(event: Any, timeout: float | None = None) -> Any:
        began = time.perf_counter_ns()
        try:
            return original(event, timeout)
        finally:
            if owners:
                _add_pool_wait(time.perf_counter_ns() - began)

    return wait


def _watch_wait_async(
    original: Callable[..., Awaitable[Any]], owners: Sequence[object]
) -> Callable[..., Awaitable[Any]]:
    """Do what :func:`_watch_wait` does, for a coroutine."""

    async def wait(event: Any, timeout: float | None = None) -> Any:
        began = time.perf_counter_ns()
        try:
            return await original(event, timeout)
        finally:
            if owners:
                _add_pool_wait(time.perf_counter_ns() - began)

    return wait


def _add_pool_wait(duration_ns: int) -> None:
    exchange = current_exchange()
    if exchange is not None and exchange.attempt is not None:
        exchange.attempt.pool_wait_ns += duration_ns


class _WatchedStream(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """The body of a response, which ends the span when it is read, closed or fails."""

    def __init__(self, stream: Any, attempt: Attempt) -> None:
        super().__init__(stream)
        self._self_attempt = attempt

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.__wrapped__
        except Exception as error:
            self._self_attempt.fail_body(error)
            raise
        self._self_attempt.end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.__wrapped__:
                yield chunk
        except Exception as error:
            self._self_attempt.fail_body(error)
            raise
        self._self_attempt.end()

    def close(self) -> None:
        self._self_attempt.abandon_body()
        self.__wrapped__.close()

    async def aclose(self) -> None:
        self._self_attempt.abandon_body()
        await self.__wrapped__.aclose()
