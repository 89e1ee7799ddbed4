"""requests: one CLIENT span for each request that is sent, redirects and retries included.

Four seams, because no single one sees everything:

- ``Session.send`` is where a call of the program begins, whatever adapter serves it (mocks too),
  and where redirects come back in, from inside the first call.
- ``dispatch_hook`` runs right after the adapter has answered: headers are read, the span ends
  before hooks and redirects run, so that these are siblings and not children.
- ``HTTPAdapter.send`` is called directly by authentication hooks that answer a challenge.
- urllib3 retries below the adapter, unseen by all of these.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracekit import semconv
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import (
    HttpClientSettings,
    ReceivedResponse,
    SentRequest,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet
from tracekit.instrumentation._url import origin_of
from tracekit.instrumentation._urllib3 import (
    attempt_patches,
    await_body,
    body_patches,
    hand_over,
    peer_of,
    version_of,
)

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session
    from requests.adapters import HTTPAdapter

__all__ = ["RequestsInstrumentor"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class RequestsInstrumentor(LibraryInstrumentor):
    """Watch requests. Options are those of :meth:`HttpClientSettings.read`."""

    name = "requests"
    distributions = ("requests",)
    supported = ">=2.22,<3"
    contrib = ("requests",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        self._steps = HttpClientSteps(self.tracer, settings)

    def patches(self) -> Sequence[Patch]:
        return (
            Patch("requests.sessions", "Session.send", self._session_send),
            Patch("requests.sessions", "dispatch_hook", _dispatch_hook, optional=True),
            Patch("requests.adapters", "HTTPAdapter.send", self._adapter_send),
            *attempt_patches(),
            *(body_patches() if self._steps.settings.ends_at_body else ()),
        )

    def _session_send(
        self, wrapped: Callable[..., Response], session: Session, args: Args, kwargs: Kwargs
    ) -> Response:
        exchange = current_exchange.get()
        if exchange is not None and _is_redirect(exchange, session, kwargs):
            return self._attempt(exchange, wrapped, args, kwargs)
        exchange = Exchange(session)
        try:
            return self._attempt(exchange, wrapped, args, kwargs)
        finally:
            exchange.close()

    def _adapter_send(
        self, wrapped: Callable[..., Response], adapter: HTTPAdapter, args: Args, kwargs: Kwargs
    ) -> Response:
        exchange = current_exchange.get()
        if exchange is None or exchange.closed:
            return self._exchange_of_adapter(wrapped, adapter, args, kwargs)
        if exchange.in_hooks:
            return self._attempt(exchange, wrapped, args, kwargs)
        if exchange.attempt is not None and exchange.attempt.under_way:
            hand_over(exchange.attempt)
        return wrapped(*args, **kwargs)

    def _exchange_of_adapter(
        self, wrapped: Callable[..., Response], adapter: HTTPAdapter, args: Args, kwargs: Kwargs
    ) -> Response:
        exchange = Exchange(adapter)
        try:
            return self._attempt(exchange, wrapped, args, kwargs)
        finally:
            exchange.close()

    def _attempt(
        self, exchange: Exchange, wrapped: Callable[..., Response], args: Args, kwargs: Kwargs
    ) -> Response:
        attempt = self._begin(exchange, args, kwargs)
        if attempt is None:
            return wrapped(*args, **kwargs)
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            # A retry inside has put another attempt in this one's place.
            _current(exchange, attempt).fail(error)
            raise
        attempt = _current(exchange, attempt)
        if attempt.under_way:
            _complete(attempt, response)
        if self._steps.settings.ends_at_body and getattr(response, "_content_consumed", False):
            attempt.end()
        return response

    @quiet
    def _begin(self, exchange: Exchange, args: Args, kwargs: Kwargs) -> Attempt | None:
        request: PreparedRequest = args[0] if args else kwargs["request"]
        url = request.url
        if not isinstance(url, str):
            return None
        headers: Any = request.headers
        if headers is None:
            headers = sys.modules["requests.structures"].CaseInsensitiveDict()
            request.headers = headers
        sent = SentRequest(
            request.method or "",
            url,
            origin_of(url),
            headers,
            headers.items,
            _timeouts(kwargs.get("timeout")),
            request,
        )
        return self._steps.begin(exchange, sent)


def _is_redirect(exchange: Exchange, session: Session, kwargs: Kwargs) -> bool:
    """Tell a redirect, sent from inside the call that it belongs to, from a call of its own.

    A hook that makes a request, and an adapter that needs a token first, make calls of their own.
    """
    return (
        exchange.owner is session
        and kwargs.get("allow_redirects") is False
        and not (exchange.closed or exchange.in_hooks)
        and (exchange.attempt is None or not exchange.attempt.under_way)
    )


def _current(exchange: Exchange, attempt: Attempt) -> Attempt:
    """Return the attempt that took the place of `attempt`, which urllib3 retried; else itself."""
    last = exchange.attempt
    return last if last is not None and last.request.native is attempt.request.native else attempt


def _dispatch_hook(wrapped: Callable[..., Any], _: None, args: Args, kwargs: Kwargs) -> Any:
    exchange = current_exchange.get()
    attempt = None if exchange is None else exchange.attempt
    if exchange is None or attempt is None or not attempt.under_way:
        return wrapped(*args, **kwargs)
    _complete(attempt, args[2] if len(args) > 2 else kwargs.get("hook_data"))
    exchange.in_hooks = True
    try:
        return wrapped(*args, **kwargs)
    finally:
        exchange.in_hooks = False


def _complete(attempt: Attempt, response: Any) -> None:
    """Record the response of an attempt whose headers are read."""
    received = _received(attempt, response)
    if received is None:  # an adapter's own idea of a response
        attempt.leave()
        attempt.end()
        return
    attempt.succeed(received)
    if attempt.steps.settings.ends_at_body:
        await_body(attempt, response.raw)


@quiet
def _received(attempt: Attempt, response: Any) -> ReceivedResponse:
    return ReceivedResponse(
        response.status_code,
        version_of(response.raw),
        peer_of(attempt.connection),
        response.headers.items,
        response,
    )


def _timeouts(timeout: Any) -> Mapping[str, float]:
    """Return the limits of a number, a pair, or an object of urllib3."""
    if timeout is None:
        return {}
    if isinstance(timeout, (int, float)):
        return {semconv.TIMEOUT_CONNECT: timeout, semconv.TIMEOUT_READ: timeout}
    limits: dict[str, Any]
    if isinstance(timeout, tuple):
        limits = dict(zip((semconv.TIMEOUT_CONNECT, semconv.TIMEOUT_READ), timeout, strict=False))
    else:
        limits = {
            semconv.TIMEOUT_CONNECT: getattr(timeout, "_connect", None),
            semconv.TIMEOUT_READ: getattr(timeout, "_read", None),
            semconv.TIMEOUT_TOTAL: getattr(timeout, "total", None),
        }
    return {name: limit for name, limit in limits.items() if isinstance(limit, (int, float))}


plugin: type[LibraryInstrumentor] = RequestsInstrumentor
