"""What goes with a message: the context of who made it, and the span of who works it off.

A message is worked off below the span that sent it, in the same trace, or in a trace of its own
with a link to that span. OpenTelemetry recommends links, because a batch has many creators; one
message has one, and a trace that ends where a job begins is what people complain of.
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/#trace-structure
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Link, get_current_span

from tracekit._otel_context import NO_CONTEXT
from tracekit._otel_propagate import TEXTMAP
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._patch import report

__all__ = [
    "Origin",
    "Reading",
    "correlation_of",
    "headers_for",
    "links_to",
    "lone_sender_of",
    "origin_of",
    "reading",
    "sender_of",
    "write_headers",
]

_ContextOf = Callable[[str], "Context | None"]

_TRACEPARENT = "traceparent"


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


class Reading:
    """What a propagator says of headers: asked once, because it makes a set each time.

    Attributes:
        names: Of all headers that it writes.
        reads: The names of all that it reads; None where it does not say.
    """

    __slots__ = ("context_of", "names", "others", "reads", "textmap")

    def __init__(self, textmap: Any) -> None:
        self.textmap = textmap
        self.names = frozenset(textmap.fields)
        reads = getattr(textmap, "reads", None)
        self.reads = None if reads is None else frozenset(reads)
        says = reads is not None and _TRACEPARENT in self.names
        # What it makes of a traceparent, where there is none of the others.
        self.context_of: _ContextOf | None = getattr(textmap, "context_of", None) if says else None
        self.others = (self.reads or self.names) - {_TRACEPARENT}


_last: Reading | None = None


def reading() -> Reading:
    """Return what the configured propagator says."""
    global _last
    last, textmap = _last, TEXTMAP._HTTP_TEXT_FORMAT
    if last is None or last.textmap is not textmap:
        _last = last = Reading(textmap)
    return last


def lone_sender_of(headers: dict[str, Any], beside: Any = None) -> Context | None:
    """Return the context of a sender who says a traceparent and nothing else, as most do.

    None where that is not known, and :func:`sender_of` finds out.

    Args:
        headers: Of any names and types.
        beside: More of them, in which there may be none that is read.

    Cost: two frames, the propagator's included, where that takes four.
    """
    known, header = reading(), headers.get(_TRACEPARENT)
    if type(header) is not str or known.context_of is None:
        return None
    others = known.others
    if not headers.keys().isdisjoint(others):
        return None
    if beside is not None and not (type(beside) is dict and beside.keys().isdisjoint(others)):
        return None
    return known.context_of(header)


def sender_of(headers: Mapping[str, str]) -> Context:
    """Return the context of whoever sent a message with these headers."""
    try:
        sent: Context = TEXTMAP._HTTP_TEXT_FORMAT.extract(headers, NO_CONTEXT)
    except Exception:
        report("the reading of trace headers")
        return NO_CONTEXT
    return sent


def origin_of(headers: Mapping[str, str], correlation: str = "parent") -> Origin:
    """Return where the work on a message with these headers belongs."""
    sent = sender_of(headers)
    if correlation == "link":
        return Origin(NO_CONTEXT, links_to([sent]))
    return Origin(sent, ())


def links_to(senders: Iterable[Context]) -> Sequence[Link]:
    """Return a link to the span of each context that has one."""
    found = (get_current_span(context).get_span_context() for context in senders)
    return tuple(Link(span_context) for span_context in found if span_context.is_valid)
