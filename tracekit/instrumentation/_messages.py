"""What goes with a message: the context of who made it, and the span of who works it off.

A message is worked off below the span that sent it, in the same trace, or in a trace of its own
with a link to that span. OpenTelemetry recommends links, because a batch has many creators; one
message has one, and a trace that ends where a job begins is what people complain of.
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/#trace-structure
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Link, get_current_span

from tracekit._otel_context import NO_CONTEXT
from tracekit._otel_propagate import TEXTMAP
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._patch import report

__all__ = ["Origin", "correlation_of", "headers_for", "links_to", "origin_of", "write_headers"]


class Origin(NamedTuple):
    """Where the span that works a message off belongs: below `parent`, or beside `links`."""

    parent: Context
    links: Sequence[Link]


def correlation_of(variable: str, environ: Mapping[str, str], option: str | None = None) -> str:
    """Return ``parent`` (the default) or ``link``.

    Raises:
        InvalidValueError: Something else was asked for.
    """
    asked = option if option is not None else environ.get(variable) or "parent"
    if asked not in ("parent", "link"):
        raise InvalidValueError(f"correlation ({variable})", asked, "parent or link")
    return asked


def headers_for(context: Context) -> dict[str, str]:
    """Return what the configured propagators say of a context, as far as they do not fail."""
    headers: dict[str, str] = {}
    write_headers(headers, context)
    return headers


def write_headers(headers: Any, context: Context) -> None:
    """Put what the configured propagators say of a context into headers, till one of them fails."""
    try:
        TEXTMAP._HTTP_TEXT_FORMAT.inject(headers, context)
    except Exception:
        report("the injection of trace headers")


def origin_of(headers: Mapping[str, str], correlation: str = "parent") -> Origin:
    """Return where the work on a message with these headers belongs."""
    try:
        sent = TEXTMAP._HTTP_TEXT_FORMAT.extract(headers, NO_CONTEXT)
    except Exception:
        report("the reading of trace headers")
        return Origin(NO_CONTEXT, ())
    if correlation == "link":
        return Origin(NO_CONTEXT, links_to([sent]))
    return Origin(sent, ())


def links_to(senders: Iterable[Context]) -> Sequence[Link]:
    """Return a link to the span of each context that has one."""
    found = (get_current_span(context).get_span_context() for context in senders)
    return tuple(Link(span_context) for span_context in found if span_context.is_valid)
