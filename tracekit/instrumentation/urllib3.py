"""urllib3: one CLIENT span for each request on a connection, redirects and retries included.

Three seams:

- ``PoolManager.urlopen`` is a call of the program. It follows redirects by calling itself.
- ``HTTPConnectionPool.urlopen`` is one attempt, with its wait for a connection. It calls itself
  for each retry, and for redirects when a program uses a pool without a manager: the attempt
  before ends there, so that attempts are siblings.
- ``HTTPConnectionPool._make_request`` sees what came of an attempt that urllib3 keeps to itself.

A library on top that is watched by itself speaks for its requests; those of requests and botocore
that are not are named for them here.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tracekit._otel_context import current_context
from tracekit.instrumentation._http import Headers, is_suppressed
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import (
    HttpClientSettings,
    destination_of,
    limits_of,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._url import default_port
from tracekit.instrumentation._urllib3 import (
    attempt_patches,
    await_body,
    body_patches,
    fail,
    give_up,
    version_of,
    without_other_spellings,
)

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool, PoolManager

__all__ = ["Urllib3Instrumentor", "Urllib3Request"]

Urlopen = Callable[..., Any]

# Libraries on urllib3, by the module of what they hand to it.
_CALLERS = {"requests.structures": "requests", "botocore.awsrequest": "botocore"}


# begin(), _begin() and urlopen().
_INSIDE = 4


class Urllib3Request(NamedTuple):
    """What hooks get to see of a request; urllib3 has no object for it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any
    pool: HTTPConnectionPool


class _Call(Exchange):
    """An exchange that was opened here, and the pool of its last attempt."""

    __slots__ = ("pool",)

    pool: Any


class Urllib3Instrumentor(ReplacingInstrumentor):
    """Watch urllib3. Options are those of :meth:`HttpClientSettings.read`; hooks get a
    :class:`Urllib3Request` and urllib3's own response."""

    name = "urllib3"
    distributions = ("urllib3",)
    supported = ">=1.26,<3"
    contrib = ("urllib3",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        self._settings = settings
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, inside=_INSIDE)
        self._callers = {
            name: HttpClientSteps(self.tracer_of(name), settings, _headers_of, inside=_INSIDE)
            for name in _CALLERS.values()
        }

    def patches(self) -> Sequence[Replacing]:
        pool = "urllib3.connectionpool"
        return (
            Replacing("urllib3.poolmanager", "PoolManager.urlopen", _manager_urlopen),
            Replacing(pool, "HTTPConnectionPool.urlopen", self._pool_urlopen),
            *attempt_patches(),
            *(body_patches() if self._settings.ends_at_body else ()),
        )

    def _pool_urlopen(self, original: Urlopen, owners: Sequence[object]) -> Urlopen:
        def urlopen(
            pool: HTTPConnectionPool,
            method: str,
            url: str,
            body: Any = None,
            headers: Any = None,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            exchange = current_exchange()
            if not owners or (exchange is not None and _is_spoken_for(exchange)):
                return original(pool, method, url, body, headers, *args, **kwargs)
            own = None
            if type(exchange) is not _Call or _is_nested(exchange, pool):
                exchange = own = _Call(pool)
            timeout = args[3] if len(args) > 3 else kwargs.get("timeout", pool.timeout)
            attempt = self._begin(exchange, pool, method, url, body, headers, timeout)
            try:
                if attempt is None:
                    return original(pool, method, url, body, headers, *args, **kwargs)
                response = original(pool, method, url, body, attempt.carrier, *args, **kwargs)
                if not attempt.is_over:
                    _complete(attempt, response)
                return response
            except BaseException as error:
                if attempt is not None and not attempt.is_over:
                    _fail(attempt, error)
                raise
            finally:
                if own is not None:
                    own.close()

        return urlopen

    def _begin(
        self,
        exchange: _Call,
        pool: HTTPConnectionPool,
        method: str,
        url: str,
        body: Any,
        headers: Any,
        timeout: Any,
    ) -> Attempt | None:
        try:
            if exchange.attempt is not None:
                give_up(exchange.attempt)
            exchange.pool = pool
            # Somebody in between: OpenTelemetry's instrumentation, put on after ours.
            around = current_context()
            if around is not exchange.parent and is_suppressed(around):
                return None
            full = url if "://" in url else _origin(pool.scheme, pool.host, pool.port) + url
            headers = pool.headers if headers is None else headers
            # The mapping is the caller's, or the pool's.
            carrier = headers.copy()
            steps = self._steps_for(pool, headers)
            native = None
            if steps.shows_requests:
                native = Urllib3Request(method, full, carrier, body, pool)
            attempt = steps.begin(
                exchange,
                native,
                method,
                full,
                destination_of(full),
                carrier,
                limits_of(timeout),
            )
        except Exception:
            report("what is known of a request")
            return None
        if attempt is None:
            return None
        attempt.handed_over_ns = time.perf_counter_ns()
        if type(carrier) is dict:
            without_other_spellings(carrier)
        return attempt

    def _steps_for(self, pool: HTTPConnectionPool, headers: Any) -> HttpClientSteps:
        caller = _CALLERS.get(type(headers).__module__) or _CALLERS.get(type(pool).__module__)
        return self._steps if caller is None else self._callers[caller]


def _is_spoken_for(exchange: Exchange) -> bool:
    return type(exchange) is not _Call and exchange.speaks()


def _is_nested(exchange: _Call, caller: object) -> bool:
    """Tell a call of its own from the next attempt, or redirect, of the call that is under way."""
    if exchange.closed:
        return True
    attempt = exchange.attempt
    if attempt is None or not attempt.under_way or attempt.noted is not None:
        return False
    # What fails before the request is sent, at a proxy, is seen by nobody but tried again.
    return caller is not exchange.pool


@functools.lru_cache(maxsize=256)
def _origin(scheme: str | None, host: str, port: int | None) -> str:
    scheme = scheme or "http"
    if ":" in host:  # IPv6, which pools keep without its brackets
        host = f"[{host}]"
    if port in (None, default_port(scheme)):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def _headers_of(message: Any) -> Headers:
    return message.headers.items()  # type: ignore[no-any-return]


def _fail(attempt: Attempt, error: BaseException) -> None:
    if type(error).__name__ == "EmptyPoolError" and attempt.noted is None:
        attempt.pool_wait_ns = time.perf_counter_ns() - attempt.handed_over_ns
    fail(attempt, error)


def _complete(attempt: Attempt, response: Any) -> None:
    try:
        status, version = response.status, version_of(response)
    except Exception:  # a connection's own idea of a response
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    attempt.succeed(response, status, version)
    if attempt.steps.settings.ends_at_body:
        await_body(attempt, response)


def _manager_urlopen(original: Urlopen, owners: Sequence[object]) -> Urlopen:
    def urlopen(manager: PoolManager, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        exchange = current_exchange()
        if (
            not owners
            or (exchange is not None and _is_spoken_for(exchange))
            # A redirect, from inside the call that it belongs to.
            or (type(exchange) is _Call and not _is_nested(exchange, manager))
        ):
            return original(manager, method, url, *args, **kwargs)
        exchange = _Call(manager)
        try:
            return original(manager, method, url, *args, **kwargs)
        finally:
            exchange.close()

    return urlopen


plugin: type[LibraryInstrumentor] = Urllib3Instrumentor
