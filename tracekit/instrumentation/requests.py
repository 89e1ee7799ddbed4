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

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tracekit.instrumentation._around import around
from tracekit.instrumentation._http import Headers
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import (
    HttpClientSettings,
    destination_of,
    limits_kept,
    limits_of,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._urllib3 import (
    CONTRIB,
    attempt_patches,
    await_body,
    body_patches,
    fail,
    hand_over,
    loaded,
    now_ns,
    version_of,
)

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session
    from requests.adapters import HTTPAdapter

    Send = Callable[..., Response]

__all__ = ["RequestsInstrumentor"]

_ADAPTERS_PARAMETERS = ("self", "request", "stream", "timeout", "verify", "cert", "proxies")


class RequestsInstrumentor(ReplacingInstrumentor):
    """Watch requests. Options are those of :meth:`HttpClientSettings.read`."""

    name = "requests"
    distributions = ("requests",)
    supported = ">=2.22,<3"
    contrib = ("requests",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        # begin() and send(); around an adapter that is called directly there are more.
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of, inside=3)

    def patches(self) -> Sequence[Replacing]:
        return (
            Replacing("requests.sessions", "Session.send", self._session_send),
            Replacing("requests.sessions", "dispatch_hook", _dispatch_hook, optional=True),
            Replacing("requests.adapters", "HTTPAdapter.send", self._adapter_send),
            *attempt_patches(),
            *(body_patches() if self._steps.settings.ends_at_body else ()),
        )

    def _session_send(self, original: Send, owners: Sequence[object]) -> Send:
        self._steps.packed = sys.modules["requests.structures"].CaseInsensitiveDict
        begin = self._steps.begin

        def send(session: Session, request: PreparedRequest, **kwargs: Any) -> Response:
            if not owners:
                return original(session, request, **kwargs)
            exchange, own, attempt = current_exchange(), None, None
            if exchange is None or not _is_redirect(exchange, session, kwargs):
                exchange = own = Exchange(session)
            timeout = kwargs.get("timeout")
            try:
                # _begin() without its frame, for what a session has prepared.
                try:
                    url, headers = request.url, request.headers
                    if type(url) is str and headers is not None:
                        method, whereto = request.method or "", destination_of(url)
                        limits = limits_kept(timeout)
                        attempt = begin(exchange, request, method, url, whereto, headers, limits)
                    else:
                        attempt = self._begin(exchange, request, timeout)
                except Exception:  # such as limits that the library will refuse
                    attempt = self._begin(exchange, request, timeout)
                response = original(session, request, **kwargs)
                if attempt is not None and not attempt.is_over:
                    _finish(attempt, response)
                return response
            except BaseException as error:
                if attempt is not None:
                    fail(_current(attempt), error)
                raise
            finally:
                if own is not None:
                    own.close()

        return send

    def _adapter_send(self, original: Send, owners: Sequence[object]) -> Send:
        def before(adapter: HTTPAdapter, request: PreparedRequest, timeout: Any) -> _Direct | None:
            exchange = current_exchange()
            if exchange is not None and not (exchange.in_hooks or exchange.closed):
                if exchange.attempt is not None:
                    hand_over(exchange.attempt)
                return None
            own = None
            if exchange is None or not exchange.in_hooks:
                exchange = own = Exchange(adapter)
            return _Direct(self._begin(exchange, request, timeout), own)

        told = {"self": 0, "request": 1, "timeout": 3}
        watched: Send = around(
            original, told, before, _direct_answered, _direct_failed, owners=owners
        )
        if tuple(inspect.signature(original).parameters) != _ADAPTERS_PARAMETERS:
            return watched

        # The same for nearly all requests, in one frame: those that a session sends.
        def send(
            self: HTTPAdapter,
            request: PreparedRequest,
            stream: bool = False,
            timeout: Any = None,
            verify: Any = True,
            cert: Any = None,
            proxies: Any = None,
        ) -> Response:
            exchange = current_exchange()
            attempt = None if exchange is None else exchange.attempt
            if attempt is None or not attempt.under_way or CONTRIB in loaded:
                return watched(self, request, stream, timeout, verify, cert, proxies)
            attempt.handed_over_ns = now_ns()
            return original(self, request, stream, timeout, verify, cert, proxies)

        return send

    def _begin(self, exchange: Exchange, request: PreparedRequest, timeout: Any) -> Attempt | None:
        try:
            url = request.url
            if not isinstance(url, str):
                return None
            headers: Any = request.headers
            if headers is None:
                headers = sys.modules["requests.structures"].CaseInsensitiveDict()
                request.headers = headers
            return self._steps.begin(
                exchange,
                request,
                request.method or "",
                url,
                destination_of(url),
                headers,
                limits_of(timeout),
            )
        except Exception:
            report("what is known of a request")
            return None


def _finish(attempt: Attempt, response: Response) -> None:
    """Record what came of an attempt that had not ended when the headers were read."""
    attempt = _current(attempt)
    if attempt.under_way:
        _complete(attempt, response)
    if attempt.steps.settings.ends_at_body and getattr(response, "_content_consumed", False):
        attempt.end()


class _Direct(NamedTuple):
    """What a direct call of an adapter sends, and the exchange that was opened for it."""

    attempt: Attempt | None
    own: Exchange | None


def _direct_answered(direct: _Direct, response: Response, *_told: object) -> None:
    if direct.attempt is not None and not direct.attempt.is_over:
        _finish(direct.attempt, response)
    if direct.own is not None:
        direct.own.close()


def _direct_failed(direct: _Direct, error: BaseException) -> None:
    if direct.attempt is not None:
        fail(_current(direct.attempt), error)
    if direct.own is not None:
        direct.own.close()


def _headers_of(message: Any) -> Headers:
    return message.headers.items()  # type: ignore[no-any-return]


def _is_redirect(exchange: Exchange, session: Session, kwargs: Mapping[str, Any]) -> bool:
    """Tell a redirect, sent from inside the call that it belongs to, from a call of its own.

    A hook that makes a request, and an adapter that needs a token first, make calls of their own.
    """
    return (
        exchange.owner is session
        and kwargs.get("allow_redirects") is False
        and not (exchange.closed or exchange.in_hooks)
        and (exchange.attempt is None or not exchange.attempt.under_way)
    )


def _current(attempt: Attempt) -> Attempt:
    """Return the attempt that took the place of `attempt`, which urllib3 retried; else itself."""
    last = attempt.exchange.attempt
    if last is attempt or last is None:
        return attempt
    return last if last.native is attempt.native else attempt


def _dispatch_hook(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    # Without hooks the library's own does nothing, which needs no call of it.
    is_librarys_own = original.__module__ == "requests.hooks"

    def dispatch_hook(key: Any, hooks: Any, hook_data: Any, **kwargs: Any) -> Any:
        exchange = current_exchange()
        attempt = None if exchange is None else exchange.attempt
        if attempt is None:
            return original(key, hooks, hook_data, **kwargs)
        if attempt.under_way:
            _complete(attempt, hook_data)
        elif attempt.noted is None:
            return original(key, hooks, hook_data, **kwargs)
        attempt.noted = None
        if is_librarys_own and (hooks is None or not hooks.get(key)):
            return hook_data
        attempt.exchange.in_hooks = True
        try:
            return original(key, hooks, hook_data, **kwargs)
        finally:
            attempt.exchange.in_hooks = False

    return dispatch_hook


def _complete(attempt: Attempt, response: Any) -> None:
    """Record the response of an attempt whose headers are read."""
    try:
        status, version = response.status_code, version_of(response.raw)
    except Exception:  # an adapter's own idea of a response
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    attempt.succeed(response, status, version)
    if attempt.steps.settings.ends_at_body:
        await_body(attempt, response.raw)


plugin: type[LibraryInstrumentor] = RequestsInstrumentor
