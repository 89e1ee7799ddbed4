"""httpx: one CLIENT span for each request through a transport, sync and async.

The seam is ``_send_single_request`` of both clients: what follows redirects and runs an
authentication flow calls it once for each request, with any transport, mounted, mocked or the
user's own, on clients made before as well. It is private, but has been there under this name in
every version supported. Patching ``HTTPTransport`` instead would miss all other transports;
``send``, which is public, covers redirects and challenges in one call and only counts them here.
"""

from __future__ import annotations

import functools
import os
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import wrapt

from tracekit import semconv
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
    watch_pool_wait,
    watch_pool_wait_async,
)
from tracekit.instrumentation._http_client_attributes import (
    HttpClientSettings,
    ReceivedResponse,
    SentRequest,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet
from tracekit.instrumentation._url import Origin, default_port

if TYPE_CHECKING:
    from httpx import AsyncClient, Client, Request, Response

__all__ = ["HttpxInstrumentor"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]

_VERSIONS = {b"HTTP/1.0": "1.0", b"HTTP/1.1": "1.1", b"HTTP/2": "2", b"HTTP/3": "3"}
_PHASES = ("connect", "read", "write", "pool")
_TIMEOUTS = (
    semconv.TIMEOUT_CONNECT,
    semconv.TIMEOUT_READ,
    semconv.TIMEOUT_WRITE,
    semconv.TIMEOUT_POOL,
)


class HttpxInstrumentor(LibraryInstrumentor):
    """Watch httpx. Options are those of :meth:`HttpClientSettings.read`; hooks are plain
    functions for both clients and get httpx's own request and response."""

    name = "httpx"
    distributions = ("httpx",)
    supported = ">=0.23,<1"
    contrib = ("httpx",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        self._steps = HttpClientSteps(self.tracer, settings)

    def patches(self) -> Sequence[Patch]:
        client, pool = "httpx._client", "connection_pool"
        return (
            Patch(client, "Client.send", self._send),
            Patch(client, "AsyncClient.send", self._send_async),
            Patch(client, "Client._send_single_request", self._request),
            Patch(client, "AsyncClient._send_single_request", self._request_async),
            Patch(
                f"httpcore._sync.{pool}",
                "PoolRequest.wait_for_connection",
                watch_pool_wait,
                optional=True,
            ),
            Patch(
                f"httpcore._async.{pool}",
                "AsyncPoolRequest.wait_for_connection",
                watch_pool_wait_async,
                optional=True,
            ),
        )

    def _send(
        self, wrapped: Callable[..., Response], client: Client, args: Args, kwargs: Kwargs
    ) -> Response:
        exchange = Exchange(client)
        try:
            return wrapped(*args, **kwargs)
        finally:
            exchange.close()

    async def _send_async(
        self,
        wrapped: Callable[..., Awaitable[Response]],
        client: AsyncClient,
        args: Args,
        kwargs: Kwargs,
    ) -> Response:
        exchange = Exchange(client)
        try:
            return await wrapped(*args, **kwargs)
        finally:
            exchange.close()

    def _request(
        self, wrapped: Callable[..., Response], client: Client, args: Args, kwargs: Kwargs
    ) -> Response:
        attempt = self._begin(client, args, kwargs)
        if attempt is None:
            return wrapped(*args, **kwargs)
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            attempt.fail(error)
            raise
        _complete(attempt, response)
        return response

    async def _request_async(
        self,
        wrapped: Callable[..., Awaitable[Response]],
        client: AsyncClient,
        args: Args,
        kwargs: Kwargs,
    ) -> Response:
        attempt = self._begin(client, args, kwargs)
        if attempt is None:
            return await wrapped(*args, **kwargs)
        try:
            response = await wrapped(*args, **kwargs)
        except BaseException as error:
            attempt.fail(error)
            raise
        _complete(attempt, response)
        return response

    @quiet
    def _begin(self, client: Client | AsyncClient, args: Args, kwargs: Kwargs) -> Attempt | None:
        exchange = current_exchange.get()
        if exchange is None or exchange.owner is not client:
            return None  # not under send(): a private call of somebody's own
        request: Request = args[0] if args else kwargs["request"]
        url, headers = request.url, request.headers
        scheme, port = url.scheme, url.port
        sent = SentRequest(
            request.method,
            str(url),
            Origin(scheme, url.host, default_port(scheme) if port is None else port),
            headers,
            headers.multi_items,
            _timeouts(request),
            request,
        )
        attempt = self._steps.begin(exchange, sent)
        if attempt is not None and _is_watched_below(client, request):
            attempt.silence()
        return attempt


def _is_watched_below(client: Client | AsyncClient, request: Request) -> bool:
    """Tell whether OpenTelemetry's instrumentation, put on after ours, watches the transport.

    Only the two transports of httpx itself: another may serve the request in this process.
    """
    if "opentelemetry.instrumentation.httpx" not in sys.modules:
        return False
    httpx = sys.modules["httpx"]
    transport = client._transport_for_url(request.url)
    return isinstance(transport, (httpx.HTTPTransport, httpx.AsyncHTTPTransport))


def _timeouts(request: Request) -> Mapping[str, float]:
    timeout = request.extensions.get("timeout")
    return _timeout_attributes(*map(timeout.get, _PHASES)) if timeout else {}


@functools.lru_cache(maxsize=64)
def _timeout_attributes(*limits: float | None) -> Mapping[str, float]:
    return {name: s for name, s in zip(_TIMEOUTS, limits, strict=True) if s is not None}


def _complete(attempt: Attempt, response: Response) -> None:
    received = _received(response)
    if received is None:
        attempt.leave()
        attempt.end()
        return
    attempt.succeed(received)
    if attempt.steps.settings.ends_at_body:
        _await_body(attempt, response)


@quiet
def _received(response: Response) -> ReceivedResponse:
    extensions = response.extensions
    return ReceivedResponse(
        response.status_code,
        _VERSIONS.get(extensions.get("http_version", b""), ""),
        _peer(extensions.get("network_stream")),
        response.headers.multi_items,
        response,
    )


def _peer(stream: Any) -> Sequence[Any]:
    try:
        peer = () if stream is None else stream.get_extra_info("server_addr")
    except Exception:  # the connection is closed, or a transport's own stream lacks the method
        return ()
    return peer if isinstance(peer, tuple) else ()


@quiet
def _await_body(attempt: Attempt, response: Response) -> None:
    watched: Any = _WatchedStream(response.stream, attempt)
    response.stream = watched
    weakref.finalize(watched, attempt.abandon_body)


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


plugin: type[LibraryInstrumentor] = HttpxInstrumentor
