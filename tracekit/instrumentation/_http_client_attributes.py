"""What the span of an HTTP client says: settings, what libraries tell, and the attributes.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.trace import Span, Status, StatusCode

from tracekit import semconv
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._http import (
    Headers,
    HttpSettings,
    error_type,
    message_of,
    record_failure,
)
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._url import HostList, Origin, redact_text, redact_url

__all__ = [
    "HttpClientSettings",
    "ReceivedResponse",
    "SentRequest",
    "record_exception",
    "request_attributes",
    "response_attributes",
]

RequestHook = Callable[[Span, Any], None]
ResponseHook = Callable[[Span, Any, Any], None]


class SentRequest(NamedTuple):
    """What an instrumentation knows of a request before it is sent.

    Attributes:
        url: Absolute, as it is, secrets included.
        carrier: Where trace headers are written; None when the library has no place for them.
        headers: Read only when request headers are captured.
        timeouts: Configured limits in seconds by attribute name.
        native: The library's own request, for hooks.
    """

    method: str
    url: str
    origin: Origin
    carrier: Any
    headers: Callable[[], Headers]
    timeouts: Mapping[str, float]
    native: Any


class ReceivedResponse(NamedTuple):
    """What an instrumentation knows once the headers of a response are read.

    Attributes:
        version: ``1.1``, ``2``; empty when unknown.
        peer: Address and port at the other end of the socket; empty when unknown.
        headers: Read only when response headers are captured.
        native: The library's own response, for hooks.
    """

    status: int
    version: str
    peer: Sequence[Any]
    headers: Callable[[], Headers]
    native: Any


@dataclass(frozen=True)
class HttpClientSettings(HttpSettings):
    """What was configured for an HTTP client library."""

    propagation_hosts: HostList | None = None
    ends_at_body: bool = False
    request_hook: RequestHook | None = None
    response_hook: ResponseHook | None = None

    @classmethod
    def read(
        cls,
        library: str,
        environ: Mapping[str, str],
        *,
        propagation_hosts: str | Sequence[str] | None = None,
        span_ends: str | None = None,
        **options: Any,
    ) -> HttpClientSettings:
        """Read the environment, overridden by options.

        Args:
            propagation_hosts: Globs of hosts that trace headers are sent to, in place of
                ``TRACEKIT_PROPAGATION_HOSTS``; every host by default, none for an empty list.
            span_ends: ``headers`` or ``body``, in place of ``TRACEKIT_HTTP_CLIENT_SPAN_ENDS``.
            options: Those of :meth:`HttpSettings.from_environment`, ``request_hook(span,
                request)`` and ``response_hook(span, request, response)``.
        """
        hosts = propagation_hosts
        if hosts is None:
            hosts = environ.get("TRACEKIT_PROPAGATION_HOSTS") or None
        if isinstance(hosts, str):
            hosts = [host for host in hosts.split(",") if host.strip()]
        ends = span_ends or environ.get("TRACEKIT_HTTP_CLIENT_SPAN_ENDS") or "headers"
        if ends not in ("headers", "body"):
            raise InvalidValueError("TRACEKIT_HTTP_CLIENT_SPAN_ENDS", ends, "headers or body")
        return cls.from_environment(
            library,
            environ,
            propagation_hosts=None if hosts is None else HostList(hosts),
            ends_at_body=ends == "body",
            **options,
        )


def request_attributes(
    request: SentRequest, method: str, settings: HttpClientSettings
) -> dict[str, Any]:
    """Return what is known at the start, for samplers too; the method is the recorded one."""
    _, host, port = request.origin
    attributes: dict[str, Any] = {
        semconv.HTTP_REQUEST_METHOD: method,
        semconv.SERVER_ADDRESS: host,
        semconv.URL_FULL: redact_url(request.url),
    }
    if port is not None:
        attributes[semconv.SERVER_PORT] = port
    if request.timeouts:
        attributes.update(request.timeouts)
    if settings.request_headers is not None:
        attributes.update(settings.request_headers.attributes(request.headers()))
    if settings.writes_old_names:
        attributes.update(_old_request_attributes(attributes, request.origin))
    return attributes


def response_attributes(response: ReceivedResponse, settings: HttpClientSettings) -> dict[str, Any]:
    """Return what the head of a response adds."""
    status, version, peer, headers, _ = response
    attributes: dict[str, Any] = {semconv.HTTP_RESPONSE_STATUS_CODE: status}
    if version:
        attributes[semconv.NETWORK_PROTOCOL_VERSION] = version
    if peer:
        attributes[semconv.NETWORK_PEER_ADDRESS] = peer[0]
        attributes[semconv.NETWORK_PEER_PORT] = peer[1]
    if status >= 400:
        attributes[semconv.ERROR_TYPE] = str(status)
    if settings.response_headers is not None:
        attributes.update(settings.response_headers.attributes(headers()))
    if settings.writes_old_names:
        attributes[semconv.OLD_HTTP_STATUS_CODE] = status
        if version:
            attributes[semconv.OLD_HTTP_FLAVOR] = version
    return attributes


def record_exception(span: Span, request: SentRequest, exception: BaseException) -> None:
    """Mark a span as failed, unless the caller stopped waiting on purpose. Never raises."""
    if _is_cancellation(exception):
        return
    if _has_secrets(request.url):
        _record_redacted(span, exception)
    else:
        record_failure(span, exception)


def _old_request_attributes(new: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    old = {
        semconv.OLD_HTTP_METHOD: new[semconv.HTTP_REQUEST_METHOD],
        semconv.OLD_HTTP_URL: new[semconv.URL_FULL],
        semconv.OLD_HTTP_SCHEME: origin.scheme,
        semconv.OLD_NET_PEER_NAME: origin.host,
    }
    if origin.port is not None:
        old[semconv.OLD_NET_PEER_PORT] = origin.port
    return old


def _is_cancellation(exception: BaseException) -> bool:
    """Tell control flow from failure: the caller stopped waiting, nothing went wrong.

    asyncio's and trio's cancellation, GeneratorExit, KeyboardInterrupt and SystemExit are no
    Exception; neither is gevent's Timeout, which is a failure.
    """
    return not isinstance(exception, Exception) and type(exception).__name__ != "Timeout"


def _has_secrets(url: str) -> bool:
    return ("?" in url or "@" in url or "#" in url) and redact_url(url) != url


@quiet
def _record_redacted(span: Span, exception: BaseException) -> None:
    """Record an exception whose message may quote a URL with secrets, as most of them do."""
    message = redact_text(message_of(exception))
    trace = redact_text("".join(traceback.format_exception(exception)))
    span.set_attribute(semconv.ERROR_TYPE, error_type(exception))
    span.record_exception(
        exception,
        {semconv.EXCEPTION_MESSAGE: message, semconv.EXCEPTION_STACKTRACE: trace},
    )
    span.set_status(Status(StatusCode.ERROR, message))
