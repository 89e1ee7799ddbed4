"""Datadog's spans as JSON: what its agents answer and what its tracers write to a log.

Sources: https://docs.datadoghq.com/tracing/guide/send_traces_to_agent_by_api/ for the fields,
https://docs.datadoghq.com/opentelemetry/mapping/ for the names of tags, and for a span that was
OpenTelemetry's before https://docs.datadoghq.com/opentelemetry/mapping/semantic_mapping/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, TraceState

from tracekit.formats._datadog_events import LOW_64_BITS, events_of, identifier, links_of
from tracekit.formats._datadog_names import OF_RESOURCE, attributes_of, kind_of, named
from tracekit.formats._fields import Fields, double_in, integer_in
from tracekit.formats._format import TraceFormat, Unit, Unreadable
from tracekit.formats._kept_in_tags import numbers, scope_from, status_from
from tracekit.model import Resource, SpanRecord

__all__ = ["DatadogJsonFormat"]

_UPPER_HALF = "_dd.p.tid"
_MOST_KNOWN = 10_000


class DatadogJsonFormat(TraceFormat):
    """A list of traces that are lists of spans, ``{"traces": [...]}``, or spans by themselves.

    A span's service is the one that made it, not the name that an integration gave to what it
    calls. The upper half of a trace id is told once for the spans that travelled together.
    """

    name = "datadog_json"
    arrays = {"traces": "["}  # noqa: RUF012 - a table, declared once

    def recognises(self, unit: Unit) -> bool:
        return unit.key in ("", "traces") and any(_looks_like_span(i) for i in _items(unit)[:1])

    def read(self, units: Iterable[Unit]) -> Iterator[SpanRecord | Unreadable]:
        uppers: dict[int, int] = {}
        resources: dict[tuple[object, ...], Resource] = {}
        for unit in units:
            found = [Fields(item) for item in _items(unit)]
            for fields in found:
                _note_upper_half(fields, uppers)
            for fields in found:
                if not identifier(fields, "traceId") or not identifier(fields, "spanId"):
                    yield Unreadable(unit.line, 1, "a span without usable ids", spans=1)
                else:
                    yield _span(fields, uppers, resources)


def _items(unit: Unit) -> list[Any]:
    items = unit.value if isinstance(unit.value, list) else [unit.value]
    return [item for item in items if item is not None]


def _looks_like_span(item: Any) -> bool:
    return isinstance(item, Mapping) and {"trace_id", "span_id", "start", "resource"} <= set(item)


def _tags(fields: Fields) -> dict[str, Any]:
    """Return the texts and numbers of a span in one; whole numbers come as such."""
    texts, values = fields.values.get("meta"), fields.values.get("metrics")
    tags: dict[str, Any] = {
        str(key): value if isinstance(value, str) else str(value)
        for key, value in (texts if isinstance(texts, Mapping) else {}).items()
    }
    tags = numbers(tags)
    for key, value in (values if isinstance(values, Mapping) else {}).items():
        number = double_in(value)
        if number is not None:
            tags[str(key)] = int(number) if number.is_integer() else number
    return tags


# Ids -----------------------------------------------------------------------------------------


def _note_upper_half(fields: Fields, uppers: dict[int, int]) -> None:
    meta = fields.values.get("meta")
    try:
        upper = int(str(meta.get(_UPPER_HALF)) if isinstance(meta, Mapping) else "", 16)
    except ValueError:
        return
    if len(uppers) >= _MOST_KNOWN:
        uppers.pop(next(iter(uppers)))
    if 0 < upper <= LOW_64_BITS:
        uppers[identifier(fields, "traceId") & LOW_64_BITS] = upper


def _trace_id(fields: Fields, tags: dict[str, Any], uppers: Mapping[int, int]) -> int:
    own = identifier(fields, "traceId")
    said = str(tags.pop("otel.trace_id", ""))
    tags.pop(_UPPER_HALF, None)
    if own > LOW_64_BITS:
        return own
    try:
        if len(said) == 32 and int(said, 16) & LOW_64_BITS == own:
            return int(said, 16)
    except ValueError:
        pass
    return uppers.get(own, 0) << 64 | own


# A span --------------------------------------------------------------------------------------


def _span(
    fields: Fields, uppers: Mapping[int, int], resources: dict[tuple[object, ...], Resource]
) -> SpanRecord:
    tags = _tags(fields)
    trace_id = _trace_id(fields, tags, uppers)
    state = TraceState.from_header([str(tags.pop("w3c.tracestate", ""))])
    span_type, operation = fields.text("type"), fields.text("name")
    is_of_otel = "otel.status_code" in tags
    kind = kind_of(str(tags.pop("span.kind", "")), span_type)
    start, end = _times(fields)
    status = _status(fields, tags)
    events = events_of(fields, tags, end)
    scope = scope_from(tags)
    dropped = [integer_in(tags.pop(f"otel.dropped_{of}_count", 0)) or 0 for of in _COUNTED]
    resource = _resource(fields, tags, resources)
    attributes = attributes_of(tags)
    name = named(fields, attributes, span_type, is_of_otel)
    if operation not in (name, "") and not is_of_otel:
        attributes["operation.name"] = operation
    parent_id = identifier(fields, "parentId")
    return SpanRecord(
        name=name,
        context=SpanContext(
            trace_id, identifier(fields, "spanId") & LOW_64_BITS, False, TraceFlags(1), state
        ),
        parent=SpanContext(trace_id, parent_id, False, TraceFlags(1)) if parent_id else None,
        kind=kind,
        start_time=start,
        end_time=end,
        attributes=attributes,
        events=events,
        links=tuple(links_of(fields)),
        status=status,
        resource=resource,
        instrumentation_scope=scope,
        dropped_attributes=dropped[0],
        dropped_events=dropped[1],
        dropped_links=dropped[2],
    )


_COUNTED = ("attributes", "events", "links")


def _times(fields: Fields) -> tuple[int, int | None]:
    start, duration = fields.number("start"), fields.values.get("duration")
    return start, None if duration is None else start + (integer_in(duration) or 0)


def _resource(
    fields: Fields, tags: dict[str, Any], known: dict[tuple[object, ...], Resource]
) -> Resource:
    """Take the resource out of the tags; spans with an equal one share it."""
    own = str(tags.pop("_dd.base_service", "") or fields.text("service"))
    found: dict[str, Any] = {"service.name": own} if own else {}
    found |= {name: tags.pop(key) for key, name in OF_RESOURCE.items() if key in tags}
    if len(known) >= _MOST_KNOWN:
        known.clear()
    return known.setdefault((*found.items(),), Resource(found))


def _status(fields: Fields, tags: dict[str, Any]) -> Status:
    said = str(tags.get("error.message", tags.get("error.msg", "")))
    status = status_from(tags, said)
    if status.status_code is StatusCode.UNSET and fields.number("error") > 0:
        return Status(StatusCode.ERROR, said or None)
    return status


plugin: type[TraceFormat] = DatadogJsonFormat
