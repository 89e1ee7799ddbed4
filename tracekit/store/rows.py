"""One span as a JSON array, and an array as a SpanRecord.

``[span_id, parent_id, flags, name, kind, start_ns, duration_ns, status, scope, attributes]``
and, where a span has more than that, an object at the end with ``events``, ``links``,
``description``, ``trace_state``, ``parent``, ``dropped``. Ids are hexadecimal text; duration
is null for a span that has not ended. Positions are part of the schema version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord
from tracekit.store.values import clean, clean_attributes, encode, restore_attributes

__all__ = ["MAX_SPAN_CHARS", "Row", "SpanDecoder", "clean_row", "more_of", "shrink_row"]

Row = list[Any]

MAX_SPAN_CHARS = 1024 * 1024
_MAX_TIME = (1 << 63) - 1
_REMOTE, _PARENT_REMOTE = 0x100, 0x200

# --- writing ---------------------------------------------------------------------------------


def more_of(span: Any, context: SpanContext, parent: SpanContext | None) -> dict[str, Any]:
    """Return what few spans have; ``encode`` accepts it. Empty for most."""
    more: dict[str, Any] = {}
    if span.events:
        more["events"] = [_event(event) for event in span.events]
    if span.links:
        more["links"] = [_link(link) for link in span.links]
    if span.status.description:
        more["description"] = clean(span.status.description)
    if context.trace_state:
        more["trace_state"] = list(context.trace_state.items())
    if parent is not None and not _follows(parent, context):
        more["parent"] = _foreign_context(parent)
    dropped = [span.dropped_attributes, span.dropped_events, span.dropped_links]
    if any(dropped):
        more["dropped"] = [int(count or 0) for count in dropped]
    return more


def _follows(parent: SpanContext, context: SpanContext) -> bool:
    return (
        parent.trace_id == context.trace_id
        and parent.trace_flags == context.trace_flags
        and parent.trace_state == context.trace_state
    )


def _foreign_context(context: SpanContext) -> list[Any]:
    state = list(context.trace_state.items()) if context.trace_state else []
    return [
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        int(context.trace_flags),
        bool(context.is_remote),
        state,
    ]


def _event(event: Any) -> list[Any]:
    fields = [clean(event.name), event.timestamp or 0, clean_attributes(event.attributes)]
    # opentelemetry-sdk keeps the count on the attributes, not on the event.
    dropped = getattr(event, "dropped_attributes", 0)
    return [*fields, dropped] if dropped else fields


def _link(link: Link) -> list[Any]:
    return [*_foreign_context(link.context), clean_attributes(link.attributes)]


def clean_row(row: Row) -> None:
    """Make every field of a row such that ``encode`` accepts it."""
    row[3] = clean(row[3])
    start, duration = row[5], row[6]
    row[5] = _time(start)
    if duration is not None:
        row[6] = _time(start + duration) - row[5]
    row[9] = clean_attributes(row[9])


def _time(value: Any) -> int:
    return max(-_MAX_TIME, min(int(value or 0), _MAX_TIME))


def shrink_row(row: Row) -> None:
    """Cut a span that is larger than ``MAX_SPAN_CHARS``, more and more until it fits.

    What is left out of a list is added to the span's dropped counts.
    """
    for max_chars, max_items in ((4096, 128), (256, 32), (0, 0)):
        _cut_row(row, max_chars, max_items)
        if len(encode(row)) <= MAX_SPAN_CHARS:
            return


def _cut_row(row: Row, max_chars: int, max_items: int) -> None:
    more = row[10] if len(row) > 10 else {}
    dropped = more.get("dropped", [0, 0, 0])
    parts = (row[9], more.get("events", []), more.get("links", []))
    row[3] = _trim(row[3], 1024, 1024)
    row[9], events, links = (_head(part, max_chars, max_items) for part in parts)
    kept = (row[9], events, links)
    counts = [n + len(old) - len(new) for n, old, new in zip(dropped, parts, kept, strict=True)]
    more = more | {"events": events, "links": links, "dropped": counts}
    if "description" in more:
        more["description"] = _trim(more["description"], max_chars, 0)
    row[10:] = [{key: value for key, value in more.items() if value}]


def _head(part: Any, max_chars: int, max_items: int) -> Any:
    if isinstance(part, dict):
        pairs = list(part.items())[:max_items]
        return {key: _trim(value, max_chars, max_items) for key, value in pairs}
    return [_trim(item, max_chars, max_items) for item in part[:max_items]]


def _trim(value: Any, max_chars: int, max_items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= max_chars else f"{value[:max_chars]}…[cut]"
    if isinstance(value, dict) and "$bytes" in value:
        # A multiple of four characters of base64 is still base64.
        head = value["$bytes"][: max_chars // 4 * 4]
        return value if head == value["$bytes"] else {"$cut": 0} | value | {"$bytes": head}
    if isinstance(value, (dict, list)):
        return _head(value, max_chars, max_items)
    return value


# --- reading ---------------------------------------------------------------------------------

_NO_STATE = TraceState()
_FLAGS = [TraceFlags(bits) for bits in range(256)]
_KINDS = list(SpanKind)
_CODES = list(StatusCode)
_PLAIN = [Status(code) for code in _CODES]


class SpanDecoder:
    """Turn the rows of one trace into records; scopes and resources are shared among them."""

    def __init__(self, trace_id: int, scopes: Mapping[int, InstrumentationScope]) -> None:
        self._trace_id = trace_id
        self._scopes = scopes
        self._parents: dict[tuple[str, int, int, int], SpanContext] = {}

    def decode(self, row: Row, resource: Resource) -> SpanRecord:
        """Return the record. Cost: about 5 µs with five attributes."""
        more = row[10] if len(row) > 10 else None
        flags, duration = row[2], row[6]
        state = _state(more["trace_state"]) if more and "trace_state" in more else _NO_STATE
        context = SpanContext(
            self._trace_id, int(row[0], 16), flags & _REMOTE != 0, _FLAGS[flags & 255], state
        )
        record = SpanRecord.__new__(SpanRecord)
        # The frozen constructor sets each field through object.__setattr__, 3 µs in all.
        record.__dict__.update(
            name=row[3],
            context=context,
            parent=self._parent(row, more, context),
            kind=_KINDS[row[4]],
            start_time=row[5],
            end_time=None if duration is None else row[5] + duration,
            attributes=restore_attributes(row[9]),
            status=_PLAIN[row[7]],
            resource=resource,
            instrumentation_scope=self._scopes[row[8]],
            events=(),
            links=(),
            dropped_attributes=0,
            dropped_events=0,
            dropped_links=0,
        )
        if more:
            record.__dict__.update(_more_fields(row, more))
        return record

    def _parent(self, row: Row, more: Any, context: SpanContext) -> SpanContext | None:
        if row[1] is None:
            return None
        if more and "parent" in more:
            return _read_context(more["parent"])
        key = row[1], row[2] & _PARENT_REMOTE, context.trace_flags, id(context.trace_state)
        found = self._parents.get(key)
        if found is None:
            found = self._parents[key] = SpanContext(
                self._trace_id,
                int(row[1], 16),
                key[1] != 0,
                context.trace_flags,
                context.trace_state,
            )
        return found


def _more_fields(row: Row, more: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "events" in more:
        fields["events"] = tuple([_read_event(*event) for event in more["events"]])
    if "links" in more:
        fields["links"] = tuple([_read_link(link) for link in more["links"]])
    if "description" in more:
        fields["status"] = _status(row[7], more["description"])
    if "dropped" in more:
        names = ("dropped_attributes", "dropped_events", "dropped_links")
        fields.update(zip(names, more["dropped"], strict=True))
    return fields


def _status(code: int, description: str) -> Status:
    # Only an ERROR may have a description: Status logs a warning otherwise, and drops it.
    return Status(_CODES[code], description) if code == 2 else _PLAIN[code]


def _read_event(name: str, timestamp: int, attributes: Any, dropped: int = 0) -> Event:
    return Event(name, restore_attributes(attributes), timestamp, dropped)


def _read_link(fields: list[Any]) -> Link:
    return Link(_read_context(fields), restore_attributes(fields[5]))


def _read_context(fields: list[Any]) -> SpanContext:
    trace_id, span_id, flags, remote, state = fields[:5]
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), remote, _FLAGS[flags & 255], _state(state)
    )


def _state(pairs: list[Any]) -> TraceState:
    return TraceState([(key, value) for key, value in pairs]) if pairs else _NO_STATE
