"""What an encoder reads of a span, by the cheapest way that the kind of span allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracekit.exporters._anyvalue import MAX_ITEMS, attribute_key, exact, replaced
from tracekit.interfaces import ReadableSpan
from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord

__all__ = [
    "Fields",
    "Identity",
    "UnreadableSpanError",
    "fields_of",
    "identity_of",
    "plain_attributes",
    "readable",
    "refuse_beyond_64_bits",
    "remote_flags",
    "salvage",
]

T = TypeVar("T")

Identity = tuple[int, int, int, bool, int, str, int, "str | None"]
"""trace id, span id, parent's span id (0: none), whether the parent is remote, trace flags,
tracestate header, status code (0, 1, 2), status description."""

_PLAIN_NAMES = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "parent_is_remote",
    "trace_flags",
    "trace_state_header",
    "status_code",
    "status_description",
)
_read_plain: Callable[[Any], Identity] = attrgetter(*_PLAIN_NAMES)

Fields = tuple[Any, ...]
"""An Identity, then name, kind, start, end, attributes, events, links, the numbers of dropped
attributes, events and links, resource and instrumentation scope."""

_COMMON_NAMES = (
    "name",
    "kind",
    "start_time",
    "end_time",
    "attributes",
    "events",
    "links",
    "dropped_attributes",
    "dropped_events",
    "dropped_links",
    "resource",
    "instrumentation_scope",
)
_read_common: Callable[[Any], Fields] = attrgetter(*_COMMON_NAMES)
_read_plain_fields: Callable[[Any], Fields] = attrgetter(*_PLAIN_NAMES, *_COMMON_NAMES)

_MAX_KINDS_OF_SPAN = 64
_Readers = tuple[Callable[[Any], Identity], Callable[[Any], Fields]]
_readers: dict[type, _Readers] = {}


class UnreadableSpanError(Exception):
    """A span has no ids that could be written, so nothing of it can be."""


def identity_of(span: ReadableSpan) -> Identity:
    """Read who the span is and how it ended.

    A span that offers the plain names (ours, while live) is spared building SpanContext and
    Status objects, about a microsecond each; every other is read by the common protocol.
    """
    readers = _readers.get(type(span)) or _choose_readers(type(span))
    return readers[0](span)


def fields_of(span: ReadableSpan) -> Fields:
    """Read all of a span that an encoder writes, in one call.

    A span may offer ``wire_fields()`` that returns them: for one that keeps its fields in
    private places, that spares a property call for each of twenty fields, two microseconds.
    """
    readers = _readers.get(type(span)) or _choose_readers(type(span))
    return readers[1](span)


def readable(span: ReadableSpan) -> tuple[ReadableSpan, Identity]:
    """Return a span with its identity; a copy of what can be read when it is broken.

    Raises:
        UnreadableSpanError: the span's ids cannot be read or do not fit.
    """
    try:
        return span, identity_of(span)
    except Exception:
        copy = salvage(span)
        return copy, identity_of(copy)


def remote_flags(trace_flags: int, is_remote: bool) -> int:
    """Return the OTLP flags: the W3C ones, and whether the parent or link came from outside.

    Source: SpanFlags in opentelemetry/proto/trace/v1/trace.proto
    """
    return (trace_flags & 0xFF) | (0x300 if is_remote else 0x100)


def refuse_beyond_64_bits(*numbers: int) -> None:
    """Let a span be salvaged whose ids or times do not fit: one would cost its whole batch.

    Raises:
        OverflowError: One is negative, or needs more than 64 bits.
    """
    for number in numbers:
        number.to_bytes(8, "big")


def _choose_readers(span_type: type) -> _Readers:
    is_plain = all(hasattr(span_type, name) for name in _PLAIN_NAMES)
    read_fields = _read_plain_fields if is_plain else _read_protocol_fields
    own = getattr(span_type, "wire_fields", read_fields)
    if len(_readers) >= _MAX_KINDS_OF_SPAN:
        _readers.clear()
    readers = _readers[span_type] = (_read_plain if is_plain else _read_protocol, own)
    return readers


def _read_protocol_fields(span: ReadableSpan) -> Fields:
    return (*_read_protocol(span), *_read_common(span))


def _read_protocol(span: ReadableSpan) -> Identity:
    context, parent, status = span.context, span.parent, span.status
    return (
        context.trace_id,
        context.span_id,
        parent.span_id if parent else 0,
        bool(parent and parent.is_remote),
        context.trace_flags,
        context.trace_state.to_header() if context.trace_state else "",
        status.status_code.value,
        status.description,
    )


def salvage(span: ReadableSpan) -> SpanRecord:
    """Copy what can be read of a span whose fields did not encode as they are.

    Every part is read by itself: a broken event costs that event, not the span.

    Raises:
        UnreadableSpanError: the ids cannot be read or do not fit their 128 and 64 bits.
    """
    return SpanRecord(
        name=_name(_attempt(lambda: span.name, "")),
        context=_own_context(span),
        parent=_attempt(lambda: _checked(span.parent), None),
        kind=_instance(lambda: span.kind, SpanKind, SpanKind.INTERNAL),
        start_time=_unsigned(_attempt(lambda: span.start_time, 0), 64),
        end_time=_unsigned(_attempt(lambda: span.end_time or 0, 0), 64) or None,
        attributes=plain_attributes(lambda: span.attributes),
        events=[event for item in _items(lambda: span.events) for event in _event(item)],
        links=[link for item in _items(lambda: span.links) for link in _link(item)],
        status=_attempt(lambda: _status(span.status), Status()),
        resource=_attempt(lambda: span.resource, Resource()),
        instrumentation_scope=_attempt(
            lambda: span.instrumentation_scope, InstrumentationScope("")
        ),
        dropped_attributes=_unsigned(_attempt(lambda: span.dropped_attributes, 0), 32),
        dropped_events=_unsigned(_attempt(lambda: span.dropped_events, 0), 32),
        dropped_links=_unsigned(_attempt(lambda: span.dropped_links, 0), 32),
    )


def plain_attributes(read: Callable[[], Any]) -> dict[str, Any]:
    """Return attributes with clean keys and exact values; none when they cannot be read."""
    attributes = _attempt(read, None)
    if not isinstance(attributes, Mapping):
        return {}
    nothing: list[tuple[object, object]] = []
    pairs = _attempt(lambda: list(islice(attributes.items(), MAX_ITEMS)), nothing)
    return {attribute_key(key): exact(value) for key, value in pairs}


def _own_context(span: ReadableSpan) -> SpanContext:
    try:
        context = _checked(span.context)
    except Exception as error:
        raise UnreadableSpanError("its ids cannot be read") from error
    if context is None:
        raise UnreadableSpanError("it has no ids")
    return context


def _checked(context: SpanContext | None) -> SpanContext | None:
    if context is None:
        return None
    context.trace_id.to_bytes(16, "big")
    context.span_id.to_bytes(8, "big")
    flags = _unsigned(_attempt(lambda: context.trace_flags, 0), 8)
    state = _attempt(lambda: context.trace_state if context.trace_state.to_header() else None, None)
    return SpanContext(
        context.trace_id, context.span_id, bool(context.is_remote), TraceFlags(flags), state
    )


def _attempt(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except Exception:
        replaced["unreadable field"] += 1
        return otherwise


def _instance(read: Callable[[], T], kind: type[T], otherwise: T) -> T:
    value = _attempt(read, otherwise)
    return value if isinstance(value, kind) else otherwise


def _name(value: object) -> str:
    found = exact(value)
    return found if isinstance(found, str) else str(found)


def _unsigned(value: object, bits: int) -> int:
    if not isinstance(value, int):
        replaced["number that is none"] += 1
        return 0
    kept = min(max(int(value), 0), (1 << bits) - 1)
    if kept != value:
        replaced["number out of range"] += 1
    return kept


def _status(status: Any) -> Status:
    code = status.status_code
    if not isinstance(code, StatusCode):
        return Status()
    described = code is StatusCode.ERROR and status.description is not None
    return Status(code, _name(status.description) if described else None)


def _items(read: Callable[[], Iterable[Any] | None]) -> list[Any]:
    return _attempt(lambda: list(islice(read() or (), MAX_ITEMS)), [])


def _event(event: Any) -> list[Event]:
    def copy() -> list[Event]:
        attributes = plain_attributes(lambda: event.attributes)
        moment = _unsigned(event.timestamp, 64)
        dropped = _unsigned(_attempt(lambda: event.dropped_attributes, 0), 32)
        return [Event(_name(event.name), attributes, moment, dropped)]

    return _attempt(copy, [])


def _link(link: Any) -> list[Link]:
    def copy() -> list[Link]:
        context = _checked(link.context)
        return [Link(context, plain_attributes(lambda: link.attributes))] if context else []

    return _attempt(copy, [])
