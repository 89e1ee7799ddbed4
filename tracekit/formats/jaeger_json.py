"""Jaeger's JSON, as its page downloads it and its query API answers.

Source: https://github.com/jaegertracing/jaeger/blob/main/internal/uimodel/model.go, and for what
of OpenTelemetry is kept in tags:
https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/ and
https://opentelemetry.io/docs/specs/otel/common/mapping-to-non-otlp/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
)

from tracekit import semconv
from tracekit.formats._fields import Fields, bytes_in, double_in, integer_in, micros
from tracekit.formats._format import TraceFormat, Unit, Unreadable
from tracekit.formats._kept_in_tags import scope_from, status_from
from tracekit.model import Event, Resource, SpanRecord

__all__ = ["JaegerJsonFormat"]

_KINDS = {
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
WARNINGS = "jaeger.warnings"


class JaegerJsonFormat(TraceFormat):
    """``{"data": [TRACE, ...]}``, a list of traces, or one; a trace has ``spans``, ``processes``.

    The service of a span is told by its process, which follows behind all spans: a trace is held.
    """

    name = "jaeger_json"
    arrays = {"data": "{["}  # noqa: RUF012 - a table, declared once

    def recognises(self, unit: Unit) -> bool:
        return isinstance(unit.value, Mapping) and isinstance(unit.value.get("spans"), list)

    def read(self, units: Iterable[Unit]) -> Iterator[SpanRecord | Unreadable]:
        for unit in units:
            if not self.recognises(unit):
                yield Unreadable(unit.line, 1, "not a trace of Jaeger's: it has no spans")
                continue
            trace = Fields(unit.value)
            processes = _Processes(trace)
            for fields in trace.objects("spans"):
                yield _span(fields, processes) or Unreadable(
                    unit.line, 1, "a span without usable ids", spans=1
                )


class _Processes:
    """The processes of a trace as resources; spans of one process share one."""

    def __init__(self, trace: Fields) -> None:
        table = trace.values.get("processes")
        self._raw: Mapping[str, Any] = table if isinstance(table, Mapping) else {}
        self._found: dict[str, Resource] = {}

    def resource(self, span: Fields) -> Resource:
        key = span.text("processID")
        if not key:
            return _resource(span.object("process"))
        if key not in self._found:
            self._found[key] = _resource(Fields(self._raw.get(key)))
        return self._found[key]


def _resource(process: Fields) -> Resource:
    tags = _tags(process, "tags")
    if service := process.text("serviceName"):
        tags["service.name"] = service
    return Resource(tags)


def _span(fields: Fields, processes: _Processes) -> SpanRecord | None:
    trace_id, span_id = _ids(fields)
    if not trace_id or not span_id:
        return None
    tags = _tags(fields, "tags")
    state = TraceState.from_header([str(tags.pop("w3c.tracestate", ""))])
    flags = TraceFlags(fields.number("flags") & 0xFF if "flags" in fields.values else 1)
    kind = _KINDS.get(str(tags.get("span.kind", "")).lower())
    if kind is not None:
        del tags["span.kind"]
    if warnings := _texts(fields.values.get("warnings")):
        tags[WARNINGS] = warnings
    status, scope = status_from(tags), scope_from(tags)
    start = micros(fields.values.get("startTime"))
    duration = fields.values.get("duration")
    parent, links = _references(fields, trace_id, flags)
    return SpanRecord(
        name=fields.text("operationName"),
        context=SpanContext(trace_id, span_id, False, flags, state),
        parent=parent,
        kind=kind or SpanKind.INTERNAL,
        start_time=start,
        end_time=None if duration is None else start + micros(duration),
        attributes=tags,
        events=tuple(_event(log) for log in fields.objects("logs")),
        links=tuple(links),
        status=status,
        resource=processes.resource(fields),
        instrumentation_scope=scope,
    )


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _ids(fields: Fields) -> tuple[int, int]:
    return fields.short_identifier("traceID", 16), fields.short_identifier("spanID", 8)


def _references(
    fields: Fields, trace_id: int, flags: TraceFlags
) -> tuple[SpanContext | None, list[Link]]:
    """Return the parent, and every other reference as a link.

    The parent is the first CHILD_OF within the trace, else the first FOLLOWS_FROM within it; which
    stays a link as well, because nobody waits for what only follows.
    """
    found = [(_ids(item), item.text("refType")) for item in fields.objects("references")]
    if old := fields.short_identifier("parentSpanID", 8):
        found.append(((trace_id, old), "CHILD_OF"))
    within = [reference for reference in found if reference[0][0] == trace_id and reference[0][1]]
    within.sort(key=lambda reference: reference[1] != "CHILD_OF")
    chosen = within[0] if within else None
    links = [
        Link(SpanContext(*ids, True, TraceFlags(0)), {semconv.OPENTRACING_REF_TYPE: kind.lower()})
        for ids, kind in found
        if ((ids, kind) != chosen or kind == "FOLLOWS_FROM") and all(ids)
    ]
    parent = SpanContext(*chosen[0], False, flags) if chosen else None
    return parent, links


def _event(log: Fields) -> Event:
    attributes = _tags(log, "fields")
    # Jaeger keeps an event's name in the field `event`; OpenTracing's own logs have `message`.
    name = attributes.pop("event", None)
    return Event(
        str(name if name is not None else "log"), attributes, micros(log.values.get("timestamp"))
    )


def _tags(fields: Fields, name: str) -> dict[str, Any]:
    return {
        tag.text("key"): _value(tag.values.get("value"), tag.text("type").lower())
        for tag in fields.objects(name)
    }


def _value(value: object, kind: str) -> Any:
    if kind in ("int64", "int32"):
        return integer_in(value)
    if kind == "float64":
        return double_in(value)
    if kind in ("bool", "boolean"):
        return value if isinstance(value, bool) else str(value).lower() == "true"
    if kind == "binary":
        return bytes_in(value)
    return value if isinstance(value, (str, bool, int, float)) or value is None else str(value)


plugin: type[TraceFormat] = JaegerJsonFormat
