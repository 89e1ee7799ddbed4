"""Zipkin's V2 JSON: what is posted to it, and what its query API answers.

Source: https://github.com/openzipkin/zipkin-api/blob/master/zipkin2-api.yaml, and for what of
OpenTelemetry is kept in tags: https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceFlags, TraceState

from tracekit.formats._fields import Fields, integer_in, micros
from tracekit.formats._format import TraceFormat, Unit, Unreadable
from tracekit.formats._kept_in_tags import numbers, scope_from, status_from
from tracekit.model import Event, Resource, SpanRecord

__all__ = ["ZipkinJsonFormat"]

_KINDS = {
    "CLIENT": SpanKind.CLIENT,
    "SERVER": SpanKind.SERVER,
    "PRODUCER": SpanKind.PRODUCER,
    "CONSUMER": SpanKind.CONSUMER,
}
# Exporters of OpenTelemetry mix the resource into the tags; these are its namespaces.
_OF_RESOURCE = re.compile(
    r"(?:service|telemetry|host|os|process|deployment|k8s|container|cloud|faas|device|webengine)\."
)
_LINK = re.compile(r"otlp\.link\.\d+")
_EVENT = re.compile(r'("(?:[^"\\]|\\.)*"): (\{.*\})', re.DOTALL)
_MOST_TOGETHER = 1000


class ZipkinJsonFormat(TraceFormat):
    """A list of spans, a list of traces that are lists of spans, or spans on lines of their own.

    Zipkin lets client and server share one span id. Here the server's span gets one of its own,
    made from the shared one, and becomes the client's child; what the server's service made
    below the shared id becomes its child.
    """

    name = "zipkin_json"

    def recognises(self, unit: Unit) -> bool:
        return unit.key == "" and any(_looks_like_span(item) for item in _items(unit)[:1])

    def read(self, units: Iterable[Unit]) -> Iterator[SpanRecord | Unreadable]:
        held: list[tuple[Fields, int]] = []
        for unit in units:
            for item in _items(unit):
                fields = Fields(item)
                if reason := _hindrance(fields):
                    yield Unreadable(unit.line, 1, reason, spans=1)
                    continue
                if held and (_trace_id(held[0][0]) != _trace_id(fields) or _is_full(held)):
                    yield from _trace(held)
                    held = []
                held.append((fields, unit.line))
        yield from _trace(held)


def _is_full(held: list[Any]) -> bool:
    return len(held) >= _MOST_TOGETHER


def _items(unit: Unit) -> list[Any]:
    items = unit.value if isinstance(unit.value, list) else [unit.value]
    return [item for item in items if item is not None]


def _looks_like_span(item: Any) -> bool:
    return isinstance(item, Mapping) and "traceId" in item and "id" in item


def _hindrance(fields: Fields) -> str:
    if "binaryAnnotations" in fields.values:
        return "a span of Zipkin's first format, which is not read: ask its API for V2"
    if not _trace_id(fields) or not fields.short_identifier("id", 8):
        return "a span without usable ids"
    if not _start(fields):
        return "a span without a time"
    return ""


def _trace_id(fields: Fields) -> int:
    return fields.short_identifier("traceId", 16)


def _start(fields: Fields) -> int:
    """Return when a span began, by its first annotation where it says nothing itself."""
    own = micros(fields.values.get("timestamp"))
    times = [micros(item.values.get("timestamp")) for item in fields.objects("annotations")]
    return own or min((time for time in times if time), default=0)


def _trace(held: list[tuple[Fields, int]]) -> Iterator[SpanRecord]:
    """Yield spans of one trace that came together."""
    servers = {
        (fields.short_identifier("id", 8), _service(fields)): _own_id(fields)
        for fields, _ in held
        if fields.values.get("shared") is True
    }
    for fields, _ in held:
        span = _span(fields)
        if fields.values.get("shared") is True:
            shared = span.context
            own = SpanContext(shared.trace_id, _own_id(fields), False, shared.trace_flags)
            yield replace(span, context=own, parent=_remote(shared))
        elif span.parent and (span.parent.span_id, _service(fields)) in servers:
            parent_id = servers[span.parent.span_id, _service(fields)]
            parent = SpanContext(span.parent.trace_id, parent_id, False, TraceFlags(1))
            yield replace(span, parent=parent)
        else:
            yield span


def _remote(context: SpanContext) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, True, context.trace_flags)


def _own_id(fields: Fields) -> int:
    """Make an id for the server's half of a shared span: the same each time, and no other's."""
    shared = fields.short_identifier("id", 8)
    digest = hashlib.blake2b(shared.to_bytes(8, "big"), digest_size=8, person=b"zipkin-shared")
    return int.from_bytes(digest.digest(), "big") or 1


def _service(fields: Fields) -> str:
    return fields.object("localEndpoint").text("serviceName")


def _span(fields: Fields) -> SpanRecord:
    raw = fields.values.get("tags")
    tags = {key: str(value) for key, value in (raw if isinstance(raw, Mapping) else {}).items()}
    status = _status(tags)
    scope = scope_from(tags)
    state = TraceState.from_header([tags.pop("w3c.tracestate", "")])
    dropped = [_taken_number(tags, name) for name in ("attributes", "events", "links")]
    links = tuple(_links(tags))
    resource = {key: tags.pop(key) for key in list(tags) if _OF_RESOURCE.match(key)}
    if service := _service(fields):
        resource["service.name"] = service
    start = _start(fields)
    duration = fields.values.get("duration")
    trace_id, parent_id = _trace_id(fields), fields.short_identifier("parentId", 8)
    own = SpanContext(
        trace_id, fields.short_identifier("id", 8), False, TraceFlags(1), state or None
    )
    return SpanRecord(
        name=fields.text("name"),
        context=own,
        parent=SpanContext(trace_id, parent_id, False, TraceFlags(1)) if parent_id else None,
        kind=_KINDS.get(fields.text("kind").upper(), SpanKind.INTERNAL),
        start_time=start,
        end_time=None if duration is None else start + micros(duration),
        attributes=numbers(tags) | _remote_endpoint(fields, tags),
        events=tuple(_event(item) for item in fields.objects("annotations")),
        links=links,
        status=status,
        resource=Resource(numbers(resource)),
        instrumentation_scope=scope,
        dropped_attributes=dropped[0],
        dropped_events=dropped[1],
        dropped_links=dropped[2],
    )


def _status(tags: dict[str, str]) -> Status:
    # The tag `error` holds the description, if there is one.
    said = tags.get("error", "")
    return status_from(tags, "" if said.lower() in ("true", "false") else said)


def _taken_number(tags: dict[str, str], name: str) -> int:
    return integer_in(tags.pop(f"otel.dropped_{name}_count", "0")) or 0


def _remote_endpoint(fields: Fields, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the other side, unless tags say it already."""
    remote = fields.object("remoteEndpoint")
    found: dict[str, Any] = {"peer.service": remote.text("serviceName")}
    found["network.peer.address"] = remote.text("ipv4") or remote.text("ipv6")
    found["network.peer.port"] = remote.number("port")
    told = set(tags.values())
    return {
        key: value
        for key, value in found.items()
        if value and key not in tags and str(value) not in told
    }


def _event(fields: Fields) -> Event:
    """Return an annotation as an event: ``"name": {attributes}`` where OpenTelemetry wrote it."""
    text, when = fields.text("value"), micros(fields.values.get("timestamp"))
    match = _EVENT.fullmatch(text)
    if match:
        try:
            return Event(json.loads(match[1]), json.loads(match[2]), when)
        except (ValueError, RecursionError):
            pass
    return Event(text, {}, when)


def _links(tags: dict[str, str]) -> Iterator[Link]:
    """Take links out of tags, in which ``otlp.link.N`` has ids, state and attributes."""
    for key in [key for key in tags if _LINK.fullmatch(key)]:
        link = _link(tags[key])
        if link is not None:
            del tags[key]
            yield link


def _link(text: str) -> Link | None:
    try:
        trace_id, span_id, state, rest = text.split("|", 3)
        attributes = json.loads(rest.rpartition("|")[0])
        kept = TraceState.from_header([state]) if state else None
        context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(0), kept)
    except (ValueError, RecursionError):
        return None
    return Link(context, attributes) if isinstance(attributes, dict) else None


plugin: type[TraceFormat] = ZipkinJsonFormat
