"""What of a span's attributes and events is worth a few words beside its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from tracekit.exporters._anyvalue import exact

__all__ = ["failure", "summary"]

MAX_OWN_ATTRIBUTES = 3
MAX_VALUE = 60

# Namespaces that describe the surroundings; what the user wrote is never in one of them.
_SURROUNDINGS = (
    "client.",
    "cloud.",
    "code.",
    "db.",
    "enduser.",
    "error.",
    "exception.",
    "faas.",
    "host.",
    "http.",
    "messaging.",
    "net.",
    "network.",
    "os.",
    "otel.",
    "peer.",
    "process.",
    "rpc.",
    "server.",
    "telemetry.",
    "thread.",
    "tracekit.",
    "url.",
    "user_agent.",
)

Attributes = Mapping[str, Any]


def summary(name: str, attributes: Attributes) -> str:
    """Return the key facts of a span, most telling first, without those its name has already."""
    try:
        facts = [fact(attributes) for fact in _FACTS]
        facts = [fact for fact in facts if fact and fact not in name]
        return "  ".join(facts + _own(attributes))
    except Exception:
        return ""


def failure(span: Any, description: str | None) -> str:
    """Return what went wrong in a span: its last exception, else its status, else its kind."""
    try:
        return _exception(span) or description or _first(span.attributes, "error.type") or "error"
    except Exception:
        return "error"


def _exception(span: Any) -> str:
    for event in reversed(span.events):
        kind = _first(event.attributes or {}, "exception.type")
        if event.name == "exception" and kind:
            message = _first(event.attributes, "exception.message")
            return f"{kind}: {message}" if message else kind
    return ""


def _first(attributes: Attributes, *keys: str) -> str:
    for key in keys:
        if (value := attributes.get(key)) is not None:
            return _brief(value)
    return ""


def _brief(value: object) -> str:
    found = exact(value)
    words = found if isinstance(found, str) else repr(found)
    return words if len(words) <= 4 * MAX_VALUE else f"{words[: 4 * MAX_VALUE]}"


def _http_status(attributes: Attributes) -> str:
    return _first(attributes, "http.response.status_code", "http.status_code")


def _http_target(attributes: Attributes) -> str:
    """Return where a request went; a route in the span's name says that better."""
    if _first(attributes, "http.route"):
        return ""
    if url := _first(attributes, "url.full", "http.url"):
        parts = urlsplit(url)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    return _first(attributes, "url.path", "http.target")


def _resend(attributes: Attributes) -> str:
    count = _first(attributes, "http.request.resend_count")
    return f"resend {count}" if count else ""


def _query(attributes: Attributes) -> str:
    found = _first(attributes, "db.query.text", "db.statement", "db.query.summary")
    return " ".join(found.split())


def _destination(attributes: Attributes) -> str:
    return _first(attributes, "messaging.destination.name", "rpc.service")


def _rpc_status(attributes: Attributes) -> str:
    code = _first(attributes, "rpc.response.status_code", "rpc.grpc.status_code")
    return f"status {code}" if code else ""


_FACTS: tuple[Callable[[Attributes], str], ...] = (
    _http_target,
    _http_status,
    _resend,
    _query,
    _destination,
    _rpc_status,
)


def _own(attributes: Attributes) -> list[str]:
    """Return the first attributes that the program's author gave, as ``key=value``."""
    keys = (key for key in attributes if not str(key).startswith(_SURROUNDINGS))
    return [f"{key}={_clipped(attributes[key])}" for key in islice(keys, MAX_OWN_ATTRIBUTES)]


def _clipped(value: object) -> str:
    words = _brief(value)
    return words if len(words) <= MAX_VALUE else f"{words[:MAX_VALUE]}…"
