"""OTLP JSON read back to span records, from whoever wrote it."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
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

__all__ = ["decode"]

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
_SNAKE = re.compile(r"_([a-z])")


def decode(document: Mapping[str, Any] | str | bytes) -> list[SpanRecord]:
    """Return the spans of an OTLP JSON document, or of a text of several (as JSON lines are).

    Tolerant, for files come from many writers: field names in snake case, enum names for their
    numbers, numbers for their strings, ids in base64, the older ``instrumentationLibrarySpans``.
    A span that has no usable ids is left out; a field that makes no sense counts as absent.

    Raises:
        ValueError: the text is not JSON.
    """
    documents = [document] if isinstance(document, Mapping) else _documents(document)
    return [span for item in documents for span in _traces(_Fields(item))]


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


class _Fields:
    """An object of the document, read by lowerCamelCase names and without surprises."""

    __slots__ = ("values",)

    def __init__(self, values: object) -> None:
        pairs = values.items() if isinstance(values, Mapping) else ()
        self.values = {_SNAKE.sub(lambda m: m[1].upper(), str(key)): item for key, item in pairs}

    def object(self, name: str) -> _Fields:
        return _Fields(self.values.get(name))

    def objects(self, *names: str) -> list[_Fields]:
        for name in names:
            if isinstance(found := self.values.get(name), list):
                return [_Fields(item) for item in found]
        return []

    def text(self, name: str) -> str:
        found = self.values.get(name)
        return found if isinstance(found, str) else ""

    def number(self, name: str) -> int:
        return _integer(self.values.get(name)) or 0

    def choice(self, name: str, names: Mapping[str, int]) -> int:
        found = self.values.get(name)
        return names.get(found, 0) if isinstance(found, str) else self.number(name)

    def identifier(self, name: str, size: int) -> int:
        """Return an id of ``size`` bytes; 0, which is no id, for what is none."""
        found = self.text(name)
        try:
            is_hex = len(found) == 2 * size
            raw = bytes.fromhex(found) if is_hex else b64decode(found, validate=True)
        except ValueError:
            return 0
        return int.from_bytes(raw, "big") if len(raw) == size else 0

    def attributes(self, name: str = "attributes") -> dict[str, Any]:
        return _pairs(self.values.get(name), MAX_DEPTH)


def _traces(document: _Fields) -> Iterator[SpanRecord]:
    for batch in document.objects("resourceSpans"):
        resource = Resource(batch.object("resource").attributes(), batch.text("schemaUrl"))
        for group in batch.objects("scopeSpans", "instrumentationLibrarySpans"):
            scope = _scope(group)
            for fields in group.objects("spans"):
                if fields.identifier("traceId", 16) and fields.identifier("spanId", 8):
                    yield _span(fields, resource, scope)


def _scope(group: _Fields) -> InstrumentationScope:
    fields = group.object("scope" if "scope" in group.values else "instrumentationLibrary")
    return InstrumentationScope(
        fields.text("name"),
        fields.text("version") or None,
        group.text("schemaUrl"),
        fields.attributes(),
    )


def _span(fields: _Fields, resource: Resource, scope: InstrumentationScope) -> SpanRecord:
    kind = fields.choice("kind", _KINDS)
    return SpanRecord(
        name=fields.text("name"),
        context=_context(fields, is_remote=False),
        parent=_parent(fields),
        kind=SpanKind(kind - 1) if 1 <= kind <= 5 else SpanKind.INTERNAL,
        start_time=fields.number("startTimeUnixNano"),
        end_time=fields.number("endTimeUnixNano") or None,
        attributes=fields.attributes(),
        events=tuple(_event(item) for item in fields.objects("events")),
        links=tuple(_link(item) for item in fields.objects("links")),
        status=_status(fields.object("status")),
        resource=resource,
        instrumentation_scope=scope,
        dropped_attributes=fields.number("droppedAttributesCount"),
        dropped_events=fields.number("droppedEventsCount"),
        dropped_links=fields.number("droppedLinksCount"),
    )


def _context(fields: _Fields, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        fields.identifier("traceId", 16),
        fields.identifier("spanId", 8),
        is_remote,
        TraceFlags(fields.number("flags") & 0xFF),
        TraceState.from_header([state]) if (state := fields.text("traceState")) else None,
    )


def _parent(fields: _Fields) -> SpanContext | None:
    parent_id = fields.identifier("parentSpanId", 8)
    if not parent_id:
        return None
    flags = fields.number("flags")
    is_remote = bool(flags & _IS_REMOTE)
    return SpanContext(
        fields.identifier("traceId", 16), parent_id, is_remote, TraceFlags(flags & 0xFF)
    )


def _status(fields: _Fields) -> Status:
    code = fields.choice("code", _CODES)
    if code == 2:
        return Status(StatusCode.ERROR, fields.text("message") or None)
    return Status(StatusCode.OK if code == 1 else StatusCode.UNSET)


def _event(fields: _Fields) -> Event:
    return Event(
        fields.text("name"),
        fields.attributes(),
        fields.number("timeUnixNano"),
        fields.number("droppedAttributesCount"),
    )


def _link(fields: _Fields) -> Link:
    is_remote = bool(fields.number("flags") & _IS_REMOTE)
    return Link(_context(fields, is_remote=is_remote), fields.attributes())


def _pairs(values: object, depth: int) -> dict[str, Any]:
    if not isinstance(values, list):
        return {}
    fields = [_Fields(item) for item in values]
    return {item.text("key"): _value(item.values.get("value"), depth) for item in fields}


def _value(any_value: object, depth: int) -> Any:
    """Return the Python value of an AnyValue; None for an empty one, or one that makes no sense."""
    if depth <= 0 or not isinstance(any_value, Mapping) or not any_value:
        return None
    ((name, value),) = list(_Fields(any_value).values.items())[:1]
    if name == "arrayValue":
        items = value.get("values") if isinstance(value, Mapping) else None
        return [_value(item, depth - 1) for item in items] if isinstance(items, list) else []
    if name == "kvlistValue":
        return _pairs(value.get("values") if isinstance(value, Mapping) else None, depth - 1)
    if name == "intValue":
        return _integer(value)
    if name == "doubleValue":
        return _double(value)
    if name == "bytesValue":
        return _bytes(value)
    expected = {"stringValue": str, "boolValue": bool}.get(name, ())
    return value if isinstance(value, expected) else None


def _integer(value: object) -> int | None:
    """Return a number in 64 bits, signed or not, that JSON holds as a number or as its digits."""
    if isinstance(value, str) and len(value) > 20:
        return None
    try:
        number = int(value) if isinstance(value, (int, str, float)) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and -(2**63) <= number < 2**64 else None


def _double(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None


def _bytes(value: object) -> bytes | None:
    try:
        return b64decode(value) if isinstance(value, str) else None
    except ValueError:
        return None
