"""Events and links of Datadog's spans, and the error that their tags tell of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from tracekit import semconv
from tracekit.formats._fields import Fields, integer_in
from tracekit.model import Event

__all__ = ["LOW_64_BITS", "events_of", "identifier", "links_of"]

LOW_64_BITS = 2**64 - 1
_ERROR = {
    "error.type": semconv.EXCEPTION_TYPE,
    "error.message": semconv.EXCEPTION_MESSAGE,
    "error.msg": semconv.EXCEPTION_MESSAGE,  # the tracers' own name, before 2022
    "error.stack": semconv.EXCEPTION_STACKTRACE,
}


def identifier(fields: Fields, name: str) -> int:
    """Return an id: a number, its digits, or 16 or 32 hexadecimal ones as logs have them."""
    value = fields.values.get(name)
    if isinstance(value, str) and len(value) in (16, 32):
        return fields.short_identifier(name, 16)
    number = integer_in(value) or 0
    return number if not isinstance(value, (bool, float)) and number > 0 else 0


def events_of(fields: Fields, tags: dict[str, Any], end: int | None) -> tuple[Event, ...]:
    """Return a span's events; the error that tags tell of is one where no event does."""
    found = [_event(item) for item in fields.objects("spanEvents") or _noted(tags)]
    error = {name: tags.pop(key) for key, name in _ERROR.items() if key in tags}
    if exception := error.get(semconv.EXCEPTION_TYPE):
        tags[semconv.ERROR_TYPE] = exception
        if all(event.name != semconv.EXCEPTION_EVENT for event in found):
            found.append(Event(semconv.EXCEPTION_EVENT, error, end or fields.number("start")))
    return tuple(found)


def _noted(tags: dict[str, Any]) -> list[Fields]:
    """Take the events out of the tag that holds them as JSON."""
    try:
        found = json.loads(tags.get("events", "[]"))
    except (ValueError, TypeError, RecursionError):
        return []
    if not isinstance(found, list):
        return []
    tags.pop("events", None)
    return [Fields(item) for item in found if isinstance(item, Mapping)]


def _event(fields: Fields) -> Event:
    raw = fields.values.get("attributes")
    return Event(
        fields.text("name"),
        {str(key): _plain(value) for key, value in raw.items()} if isinstance(raw, Mapping) else {},
        fields.number("timeUnixNano"),
        fields.number("droppedAttributesCount"),
    )


def _plain(value: Any) -> Any:
    """Return an attribute of an event; the agent's own protocol says its type beside it.

    Source: https://github.com/DataDog/datadog-agent/blob/main/pkg/proto/datadog/trace/span.proto
    """
    if not isinstance(value, Mapping):
        return value
    array = value.get("array_value")
    if isinstance(array, Mapping) and isinstance(array.get("values"), list):
        return tuple(_plain(item) for item in array["values"])
    kinds = ("string_value", "int_value", "double_value", "bool_value")
    return next((value[kind] for kind in kinds if kind in value), str(dict(value)))


def links_of(fields: Fields) -> Iterator[Link]:
    for item in fields.objects("spanLinks"):
        raw = item.values.get("attributes")
        trace_id = identifier(item, "traceIdHigh") << 64 | identifier(item, "traceId")
        span_id = identifier(item, "spanId")
        if 0 < trace_id < 2**128 and 0 < span_id <= LOW_64_BITS:
            state = TraceState.from_header([item.text("tracestate")])
            context = SpanContext(
                trace_id, span_id, True, TraceFlags(item.number("flags") & 0xFF), state
            )
            yield Link(context, dict(raw) if isinstance(raw, Mapping) else {})
