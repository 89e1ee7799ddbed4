"""What the span of an HTTP client says: settings, what libraries tell, and the attributes.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Span, Status, StatusCode

from tracekit import semconv
from tracekit._url_secrets import redact_text, redact_url
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._caller import Caller, Line, caller_from
from tracekit.instrumentation._http import (
    HttpSettings,
    error_type,
    is_cancellation,
    message_of,
    record_failure,
)
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._propagation import ANY_HOST, PropagationHosts, hosts_of
from tracekit.instrumentation._url import Origin, origin_of

__all__ = [
    "Destination",
    "HttpClientSettings",
    "Place",
    "described",
    "destination_of",
    "is_kept",
    "limits_kept",
    "limits_of",
    "old_request_attributes",
    "old_response_attributes",
    "record_exception",
]

SERVER_ADDRESS = semconv.SERVER_ADDRESS
SERVER_PORT = semconv.SERVER_PORT
URL_FULL = semconv.URL_FULL

Place = Line
RequestHook = Callable[[Span, Any], None]
ResponseHook = Callable[[Span, Any, Any], None]


@dataclass(frozen=True)
class HttpClientSettings(HttpSettings):
    """What was configured for an HTTP client library."""

    hosts: PropagationHosts = ANY_HOST
    ends_at_body: bool = False
    request_hook: RequestHook | None = None
    response_hook: ResponseHook | None = None
    caller: Caller | None = None

    @functools.cached_property
    def adds_to_requests(self) -> bool:
        """Whether requests have other attributes than those that all have."""
        return self.request_headers is not None or self.writes_old_names

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether requests are all watched, propagated, and told of alike."""
        return not (
            self.adds_to_requests
            or self.excluded_urls is not None
            or self.hosts.lists_hosts
            or self.request_hook is not None
        )

    @functools.cached_property
    def shows_requests(self) -> bool:
        """Whether a hook or a captured header needs the library's own request."""
        return not (
            self.request_headers is None
            and self.request_hook is None
            and self.response_hook is None
        )

    @functools.cached_property
    def is_terse(self) -> bool:
        """Whether the head of a response is all that is recorded of it."""
        return not (self.adds_to_responses or self.ends_at_body or self.response_hook is not None)

    @functools.cached_property
    def adds_to_responses(self) -> bool:
        """Whether responses have other attributes than those that all have."""
        return self.response_headers is not None or self.writes_old_names

    @classmethod
    def read(
        cls,
        library: str,
        environ: Mapping[str, str],
        *,
        propagation_hosts: str | Sequence[str] | None = None,
        span_ends: str | None = None,
        code_location: bool | None = None,
        **options: Any,
    ) -> HttpClientSettings:
        """Read the environment, overridden by options.

        Args:
            propagation_hosts: Globs of hosts that trace headers are sent to, in place of
                ``TRACEKIT_PROPAGATION_HOSTS``; none for an empty list. By default every host
                gets trace headers, and those inside baggage too.
            span_ends: ``headers`` or ``body``, in place of ``TRACEKIT_HTTP_CLIENT_SPAN_ENDS``.
            code_location: Name the program's line that called, in place of
                ``TRACEKIT_CODE_LOCATION``; it is named unless one of them says false.
            options: Those of :meth:`HttpSettings.from_environment`, ``request_hook(span,
                request)`` and ``response_hook(span, request, response)``.
        """
        ends = span_ends or environ.get("TRACEKIT_HTTP_CLIENT_SPAN_ENDS") or "headers"
        if ends not in ("headers", "body"):
            named = "span_ends (TRACEKIT_HTTP_CLIENT_SPAN_ENDS)"
            raise InvalidValueError(named, ends, "headers or body")
        return cls.from_environment(
            library,
            environ,
            hosts=hosts_of(propagation_hosts, environ),
            ends_at_body=ends == "body",
            caller=caller_from(environ, code_location),
            **options,
        )


class Destination:
    """Where a request goes, and the attributes that say so.

    Attributes:
        peer: Address and port where the URL names an address; asking the socket takes 3 µs. None
            where it names a host. Behind a proxy it is not the peer of the connection.
        told: What :meth:`told_of` returned last for each method, behind what it was asked with; and
            before that, by all of it.
    """

    __slots__ = ("attributes", "origin", "peer", "told")

    def __init__(self, origin: Origin, attributes: Mapping[str, Any]) -> None:
        self.origin = origin
        self.attributes = attributes
        self.peer = _peer_at(origin)
        self.told: dict[Any, tuple[Mapping[str, float], Place | None, Mapping[str, Any]]] = {}

    def told_of(
        self, method: str, timeouts: Mapping[str, float], place: Place | None
    ) -> Mapping[str, Any]:
        """Return the attributes of a request that goes here, the same mapping for the same.

        Args:
            method: A known one, or what stands for all others.
            timeouts: Compared by identity: those of an earlier call, kept, are found again.
            place: Whence it comes, from a :class:`Caller`; compared in the same way.
        """
        told = self.told.get(method)
        if told is not None and told[0] is timeouts and told[1] is place:
            return told[2]
        # Several lines of the program may take turns. What is kept has both, so nothing else gets
        # their ids.
        asked = (method, id(timeouts), id(place))
        told = self.told.get(asked)
        if told is None:
            if len(self.told) >= _MOST_TOLD:
                self.told.clear()
            told = self.told[asked] = timeouts, place, self._described(method, timeouts, place)
        self.told[method] = told
        return told[2]

    def _described(
        self, method: str, timeouts: Mapping[str, float], place: Place | None
    ) -> Mapping[str, Any]:
        attributes = {semconv.HTTP_REQUEST_METHOD: method, **self.attributes, **timeouts}
        if place is not None:
            attributes.update(place)
        _make_room(attributes)
        return attributes


# Where four more entries, which is what most responses add, would not fit into the table of a
# dictionary of so many (of 5, of 10 or of 21): what fills the table, so that it becomes larger.
_MOST_TOLD = 16
_FILLERS = {
    length: dict.fromkeys(map(str, range(fills - length)))
    for length, fills in {4: 6, 5: 6, 7: 11, 8: 11, 9: 11, 10: 11}.items()
}


def _make_room(attributes: dict[str, Any]) -> None:
    """Let each span, which has a copy, add what there is to say of a response without growing it.

    A dictionary that grows is made anew. A copy is as big as what it is made of, entries that
    were taken out included, as long as those are no more than a third.
    """
    fillers = _FILLERS.get(len(attributes))
    if fillers is not None:
        attributes.update(fillers)
        for name in fillers:
            del attributes[name]


_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)


def _peer_at(origin: Origin) -> tuple[str, int] | None:
    # Of IPv6, which can be written in many ways, the socket has the usual one.
    return (origin.host, origin.port) if origin.port and _IPV4.fullmatch(origin.host) else None


_LONGEST_KEPT = 256
_MOST_KEPT = 512
_MAY_HAVE_SECRETS = re.compile("[?@#]")


class _Destinations(dict[str, Destination]):
    """What was found out about URLs; asked for one that is not there, it reads that."""

    def __missing__(self, url: str) -> Destination:
        found = described(url, origin_of(url))
        if is_kept(url):
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[url] = found
        return found


destination_of: Callable[[str], Destination] = _Destinations().__getitem__
"""Returns where an absolute URL leads; one lookup, in C, for most URLs that were seen before."""


def is_kept(url: str) -> bool:
    """Tell whether what was read from a URL may be kept for the next call.

    A query differs from call to call, and like userinfo may be a secret, which is not kept.
    """
    return len(url) <= _LONGEST_KEPT and not _MAY_HAVE_SECRETS.search(url)


def described(url: str, origin: Origin) -> Destination:
    """Return the attributes of a URL whose origin is known."""
    attributes: dict[str, Any] = {SERVER_ADDRESS: origin.host, URL_FULL: redact_url(url)}
    if origin.port is not None:
        attributes[SERVER_PORT] = origin.port
    return Destination(origin, attributes)


class _Limits(dict[Any, Mapping[str, float]]):
    """What was configured, by the number or pair that a program gave for it.

    Asked for another, it reads that; of urllib3's objects, which may be changed, it keeps none.
    """

    def __missing__(self, timeout: Any) -> Mapping[str, float]:
        if isinstance(timeout, tuple):
            found = _limits(*timeout[:2])
        elif timeout is None or isinstance(timeout, (int, float)):
            found = _limits(timeout, timeout)
        else:
            return _limits(
                getattr(timeout, "_connect", None),
                getattr(timeout, "_read", None),
                getattr(timeout, "total", None),
            )
        if len(self) >= _MOST_KEPT:
            self.clear()
        self[timeout] = found
        return found


limits_kept: Callable[[Any], Mapping[str, float]] = _Limits().__getitem__
"""Does what :func:`limits_of` does, in one lookup; TypeError for a list."""


def limits_of(timeout: Any) -> Mapping[str, float]:
    """Return the configured limits of a number of seconds, a pair, or a Timeout of urllib3.

    The same mapping for the same limits, as :meth:`Destination.told_of` wants it.
    """
    try:
        return limits_kept(timeout)
    except TypeError:  # a list, which the library will refuse
        return _limits()


@functools.lru_cache(maxsize=64)
def _limits(*limits: Any) -> Mapping[str, float]:
    # urllib3 has a mark for its default, which is no number.
    names = (semconv.TIMEOUT_CONNECT, semconv.TIMEOUT_READ, semconv.TIMEOUT_TOTAL)
    return {
        name: limit
        for name, limit in zip(names, limits, strict=False)
        if isinstance(limit, (int, float))
    }


def old_request_attributes(new: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """Return the same under the names that conventions had before they were stable."""
    old = {
        semconv.OLD_HTTP_METHOD: new[semconv.HTTP_REQUEST_METHOD],
        semconv.OLD_HTTP_URL: new[URL_FULL],
        semconv.OLD_HTTP_SCHEME: origin.scheme,
        semconv.OLD_NET_PEER_NAME: origin.host,
    }
    if origin.port is not None:
        old[semconv.OLD_NET_PEER_PORT] = origin.port
    return old


def old_response_attributes(status: int, version: str) -> dict[str, Any]:
    """Return the same under the names that conventions had before they were stable."""
    old: dict[str, Any] = {semconv.OLD_HTTP_STATUS_CODE: status}
    if version:
        old[semconv.OLD_HTTP_FLAVOR] = version
    return old


def record_exception(span: Span, url: str, exception: BaseException) -> None:
    """Mark a span as failed, unless the caller stopped waiting on purpose. Never raises."""
    if is_cancellation(exception):
        return
    if _has_secrets(url):
        _record_redacted(span, exception)
    else:
        record_failure(span, exception)


def _has_secrets(url: str) -> bool:
    return _MAY_HAVE_SECRETS.search(url) is not None and redact_url(url) != url


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
