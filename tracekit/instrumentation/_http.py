"""What HTTP clients and servers have in common: methods, headers, exclusions, suppression."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from tracekit import semconv
from tracekit._otel_context import OnlySpan
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._traceresponse import AUTO, mode_of

__all__ = [
    "HeaderCapture",
    "HttpSettings",
    "error_type",
    "is_cancellation",
    "is_suppressed",
    "message_of",
    "record_failure",
    "suppressed_http",
    "truncated",
]

# Known are the methods of RFC 9110, RFC 5789 (PATCH) and RFC 10008 (QUERY), as the conventions
# define it: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
KNOWN_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
)

# What opentelemetry.instrumentation.utils sets; the API has private names for the first two.
_SUPPRESS = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
_SUPPRESS_PLAIN = "suppress_instrumentation"
_SUPPRESS_HTTP = getattr(
    otel_context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation"
)

_SUPPRESSIONS = frozenset((_SUPPRESS, _SUPPRESS_PLAIN, _SUPPRESS_HTTP))

Side = Literal["CLIENT", "SERVER"]
Headers = Iterable[tuple["str | bytes", "str | bytes"]]
Self = TypeVar("Self", bound="HttpSettings")

_LONGEST_VALUE = 4096
_LONGEST_URL = 8192  # of which an exclusion is searched in
_MOST_VALUES = 128
_MARK = "…"
_HEADER_REDACTED = "[REDACTED]"


@dataclass(frozen=True)
class HeaderCapture:
    """Which headers become attributes, and which of those without their values.

    An entry is a header's name or a regular expression that matches the whole name, in any case.
    Captured by a pattern, the headers that carry credentials are redacted; whoever wants their
    values names them in full.
    """

    prefix: str
    names: frozenset[str]
    pattern: re.Pattern[str] | None
    sanitized: re.Pattern[str] | None

    def attributes(self, headers: Headers) -> dict[str, list[str]]:
        """Return the attributes of the headers that are asked for, each a list of values."""
        found: dict[str, list[str]] = {}
        for raw_name, raw_value in headers:
            name = _text(raw_name).lower()
            named = name in self.names
            if not named and (self.pattern is None or not self.pattern.fullmatch(name)):
                continue
            values = found.setdefault(self.prefix + name, [])
            if len(values) < _MOST_VALUES:
                values.append(self._value(name, raw_value, named))
        return found

    def _value(self, name: str, value: str | bytes, named: bool) -> str:
        if self.sanitized is not None and self.sanitized.search(name):
            return _HEADER_REDACTED
        if not named and name in _CREDENTIAL_HEADERS:
            return _HEADER_REDACTED
        return truncated(_text(value[: _LONGEST_VALUE + 1]), _LONGEST_VALUE)


_CREDENTIAL_HEADERS = frozenset(
    (
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "x-csrf-token",
        "x-xsrf-token",
    )
)


@dataclass(frozen=True)
class HttpSettings:
    """What was configured for one HTTP library, read once when it is instrumented."""

    known_methods: frozenset[str] = KNOWN_METHODS
    excluded_urls: re.Pattern[str] | None = None
    request_headers: HeaderCapture | None = None
    response_headers: HeaderCapture | None = None
    writes_old_names: bool = False
    traceresponse: str = AUTO

    @classmethod
    def from_environment(
        cls: type[Self],
        library: str,
        environ: Mapping[str, str],
        side: Side = "CLIENT",
        *,
        excluded_urls: str | Sequence[str] | None = None,
        capture_request_headers: str | Sequence[str] | None = None,
        capture_response_headers: str | Sequence[str] | None = None,
        sanitize_headers: str | Sequence[str] | None = None,
        known_methods: str | Sequence[str] | None = None,
        traceresponse: str | None = None,
        **more: Any,
    ) -> Self:
        """Read ``OTEL_*`` for `library`; an argument that is not None takes the variable's place.

        Lists are given as a sequence or separated by commas.

        Raises:
            InvalidValueError: a regular expression that is none, a mode that there is not.
            TypeError: an option that there is not.
        """
        excluded = excluded_urls
        if excluded is None:
            excluded = environ.get(
                f"OTEL_PYTHON_{library.upper()}_EXCLUDED_URLS",
                environ.get("OTEL_PYTHON_EXCLUDED_URLS"),
            )
        headers = f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{side}"
        sanitized = _list(
            sanitize_headers, environ, "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"
        )
        methods = _list(known_methods, environ, "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS")
        return cls(
            known_methods=frozenset(methods) or KNOWN_METHODS,
            excluded_urls=_any_of(_split(excluded), "excluded URL"),
            request_headers=_capture(
                semconv.HTTP_REQUEST_HEADER,
                _list(capture_request_headers, environ, f"{headers}_REQUEST"),
                sanitized,
            ),
            response_headers=_capture(
                semconv.HTTP_RESPONSE_HEADER,
                _list(capture_response_headers, environ, f"{headers}_RESPONSE"),
                sanitized,
            ),
            traceresponse=mode_of(traceresponse, environ),
            writes_old_names="http/dup" in _split(environ.get("OTEL_SEMCONV_STABILITY_OPT_IN")),
            **more,
        )

    def is_excluded(self, url: str) -> bool:
        return self.excluded_urls is not None and bool(
            self.excluded_urls.search(url[:_LONGEST_URL])
        )

    def method(self, method: str) -> tuple[str, str | None]:
        """Return the method to record, and the original where that is another.

        https://opentelemetry.io/docs/specs/semconv/http/http-spans/#common-attributes
        """
        if method in self.known_methods:
            return method, None
        original = truncated(method, 64)
        upper = original.upper()
        return (upper if upper in self.known_methods else semconv.METHOD_OTHER), original


def is_suppressed(context: Context) -> bool:
    """Tell whether HTTP spans are switched off in this context, by us or by anybody."""
    # Looking into a context of a span only would fill it; for others one call says no.
    if type(context) is OnlySpan or _SUPPRESSIONS.isdisjoint(context):
        return False
    return any(context.get(key) for key in _SUPPRESSIONS)


def suppressed_http(context: Context) -> Context:
    """Return a context in which HTTP libraries further down make no spans of their own."""
    return otel_context.set_value(_SUPPRESS_HTTP, True, context)


def error_type(exception: BaseException) -> str:
    """Name an exception's class with its module; builtins go without."""
    cls = type(exception)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def is_cancellation(exception: BaseException) -> bool:
    """Tell control flow from failure: the caller stopped waiting, nothing went wrong.

    asyncio's and trio's cancellation, GeneratorExit, KeyboardInterrupt and SystemExit are no
    Exception; neither is gevent's Timeout, which is a failure.
    """
    return not isinstance(exception, Exception) and type(exception).__name__ != "Timeout"


@quiet
def record_failure(span: Span, exception: BaseException) -> None:
    """Mark a span as failed by an exception that goes on to the program."""
    span.set_attribute(semconv.ERROR_TYPE, error_type(exception))
    span.record_exception(exception)
    span.set_status(Status(StatusCode.ERROR, message_of(exception)))


def truncated(text: str, longest: int) -> str:
    """Cut `text` to `longest` characters, the last of which then is an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + _MARK


def message_of(exception: BaseException) -> str:
    try:
        return truncated(str(exception), _LONGEST_VALUE)
    except Exception:  # a __str__ of the program's that raises
        return type(exception).__name__


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _list(given: str | Sequence[str] | None, environ: Mapping[str, str], name: str) -> list[str]:
    return _split(environ.get(name) if given is None else given)


def _split(value: str | Sequence[str] | None) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else (value or ())
    return [part.strip() for part in parts if part.strip()]


def _any_of(patterns: Sequence[str], what: str, flags: int = 0) -> re.Pattern[str] | None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidValueError(what, pattern, f"a regular expression ({error})") from error
    return re.compile("|".join(f"(?:{p})" for p in patterns), flags) if patterns else None


def _capture(prefix: str, entries: Sequence[str], sanitized: Sequence[str]) -> HeaderCapture | None:
    if not entries:
        return None
    names = {entry.lower() for entry in entries if re.fullmatch(r"[\w-]+", entry)}
    patterns = [_name_pattern(entry) for entry in entries if entry.lower() not in names]
    return HeaderCapture(
        prefix,
        frozenset(names),
        _any_of(patterns, "captured header", re.IGNORECASE),
        _any_of(sanitized, "sanitized header", re.IGNORECASE),
    )


def _name_pattern(entry: str) -> str:
    # `x-*` and `*` are what people write; as regular expressions they mean nothing useful.
    if re.fullmatch(r"\*|[\w-]+\*", entry):
        return fnmatch.translate(entry)
    return entry
