"""OTLP JSON read back to span records, from whoever wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
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

from tracekit.formats._fields import Fields, bytes_in, double_in, integer_in
from tracekit.formats._format import TraceFormat, Unit, Unreadable
from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord

__all__ = ["OtlpJsonFormat", "decode"]

MAX_DEPTH = 64
_KINDS = {
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_CODES = {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_IS_REMOTE = 0x200


def decode(document: Mapping[str, Any] | str | bytes) -> list[SpanRecord]:
    """Return the spans of an OTLP JSON document, or of a text of several (as JSON lines are).

    Tolerant, for files come from many writers: field names in snake case, enum names for their
    numbers, numbers for their strings, ids in base64, the older ``instrumentationLibrarySpans``.
    A span that has no usable ids is left out; a field that makes no sense counts as absent.

    Raises:
        ValueError: the text is not JSON.
    """
    documents = [document] if isinstance(document, Mapping) else _documents(document)
    return [span for item in documents for span in _traces(Fields(item))]


def _documents(source: str | bytes) -> Iterator[Any]:
    content = source.decode("utf-8-sig", "replace") if isinstance(source, bytes) else source
    decoder, position = json.JSONDecoder(), 0
    while (start := _next_text(content, position)) is not None:
        try:
            item, position = decoder.raw_decode(content, start)
        except RecursionError:
            raise ValueError("the JSON is nested too deep") from None
        yield item


def _next_text(content: str, position: int) -> int | None:
    match = re.compile(r"[^\s\ufeff]").search(content, position)
    return match.start() if match else None


def _traces(document: Fields) -> Iterator[SpanRecord]:
    for batch in document.objects("resourceSpans", "batches"):
        yield from (span for span in _batch(batch) if span is not None)


def _batch(batch: Fields) -> Iterator[SpanRecord | None]:
    """Yield the spans of one resource, None for each that has no usable ids."""
    resource = Resource(attributes_of(batch.object("resource")), batch.text("schemaUrl"))
    for group in batch.objects("scopeSpans", "instrumentationLibrarySpans"):
        scope = _scope(group)
        for fields in group.objects("spans"):
            has_ids = fields.identifier("traceId", 16) and fields.identifier("spanId", 8)
            yield _span(fields, resource, scope) if has_ids else None


class OtlpJsonFormat(TraceFormat):
    """One document, or one a line as the Collector and the exporter ``otlp_file`` write them.

    ``batches`` is Grafana Tempo's name for ``resourceSpans``; its API, and Jaeger's third, put
    the document into an object ``trace`` or ``result``.
    """

    name = "otlp_json"
    arrays = dict.fromkeys(("resourceSpans", "resource_spans", "batches"), "{[{[")

    def recognises(self, unit: Unit) -> bool:
        return unit.key in self.arrays or any(True for _ in _batches(unit))

    def read(self, units: Iterable[Unit]) -> Iterator[SpanRecord | Unreadable]:
        for unit in units:
            found = 0
            for batch in _batches(unit):
                found += 1
                for span in _batch(batch):
                    yield span or Unreadable(unit.line, 1, "a span without usable ids", spans=1)
            if not found:
                yield Unreadable(unit.line, 1, "not OTLP JSON: it has no resourceSpans")


def _batches(unit: Unit) -> Iterator[Fields]:
    if unit.key in OtlpJsonFormat.arrays:
        yield Fields(unit.value)
        return
    document = Fields(unit.value)
    for inner in (document, document.object("result"), document.object("trace")):
        yield from inner.objects("resourceSpans", "batches")


def _scope(group: Fields) -> InstrumentationScope:
    fields = group.object("scope" if "scope" in group.values else "instrumentationLibrary")
    return InstrumentationScope(
        fields.text("name"),
        fields.text("version") or None,
        group.text("schemaUrl"),
        attributes_of(fields),
    )


def _span(fields: Fields, resource: Resource, scope: InstrumentationScope) -> SpanRecord:
    kind = fields.choice("kind", _KINDS)
    return SpanRecord(
        name=fields.text("name"),
        context=_context(fields, is_remote=False),
        parent=_parent(fields),
        kind=SpanKind(kind - 1) if 1 <= kind <= 5 else SpanKind.INTERNAL,
        start_time=fields.number("startTimeUnixNano"),
        end_time=fields.number("endTimeUnixNano") or None,
        attributes=attributes_of(fields),
        events=tuple(_event(item) for item in fields.objects("events")),
        links=tuple(_link(item) for item in fields.objects("links")),
        status=_status(fields.object("status")),
        resource=resource,
        instrumentation_scope=scope,
        dropped_attributes=fields.number("droppedAttributesCount"),
        dropped_events=fields.number("droppedEventsCount"),
        dropped_links=fields.number("droppedLinksCount"),
    )


def _context(fields: Fields, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        fields.identifier("traceId", 16),
        fields.identifier("spanId", 8),
        is_remote,
        TraceFlags(fields.number("flags") & 0xFF),
        TraceState.from_header([state]) if (state := fields.text("traceState")) else None,
    )


def _parent(fields: Fields) -> SpanContext | None:
    parent_id = fields.identifier("parentSpanId", 8)
    if not parent_id:
        return None
    flags = fields.number("flags")
    is_remote = bool(flags & _IS_REMOTE)
    return SpanContext(
        fields.identifier("traceId", 16), parent_id, is_remote, TraceFlags(flags & 0xFF)
    )


def _status(fields: Fields) -> Status:
    code = fields.choice("code", _CODES)
    if code == 2:
        return Status(StatusCode.ERROR, fields.text("message") or None)
    return Status(StatusCode.OK if code == 1 else StatusCode.UNSET)


def attributes_of(fields: Fields) -> dict[str, Any]:
    return _pairs(fields.values.get("attributes"), MAX_DEPTH)


def _event(fields: Fields) -> Event:
    return Event(
        fields.text("name"),
        attributes_of(fields),
        fields.number("timeUnixNano"),
        fields.number("droppedAttributesCount"),
    )


def _link(fields: Fields) -> Link:
    is_remote = bool(fields.number("flags") & _IS_REMOTE)
    return Link(_context(fields, is_remote=is_remote), attributes_of(fields))


def _pairs(values: object, depth: int) -> dict[str, Any]:
    if not isinstance(values, list):
        return {}
    fields = [Fields(item) for item in values]
    return {item.text("key"): _value(item.values.get("value"), depth) for item in fields}


def _value(any_value: object, depth: int) -> Any:
    """Return the Python value of an AnyValue; None for an empty one, or one that makes no sense."""
    if depth <= 0 or not isinstance(any_value, Mapping) or not any_value:
        return None
    ((name, value),) = list(Fields(any_value).values.items())[:1]
    if name == "arrayValue":
        items = value.get("values") if isinstance(value, Mapping) else None
        return [_value(item, depth - 1) for item in items] if isinstance(items, list) else []
    if name == "kvlistValue":
        return _pairs(value.get("values") if isinstance(value, Mapping) else None, depth - 1)
    if name == "intValue":
        return integer_in(value)
    if name == "doubleValue":
        return double_in(value)
    if name == "bytesValue":
        return bytes_in(value)
    expected = {"stringValue": str, "boolValue": bool}.get(name, ())
    return value if isinstance(value, expected) else None


plugin: type[TraceFormat] = OtlpJsonFormat
