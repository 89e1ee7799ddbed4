"""Spans as plain values with their types, from what was sent and from the OTLP JSON that came."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanContext

from tracekit.model import SpanRecord

__all__ = [
    "Plain",
    "differences",
    "from_json",
    "of_otlp",
    "of_protobuf",
    "of_record",
    "typed",
    "typed_all",
]

Plain = dict[str, Any]

_KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_CODES = ("UNSET", "OK", "ERROR")


def from_json(text: str) -> Any:
    """Read JSON with the sign of -0.0, which writers without a decimal point write as -0."""
    return json.loads(text, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))


def typed(value: object) -> tuple[str, object]:
    """Return a value beside the name of its type: True, 1 and 1.0 are three values."""
    if isinstance(value, bytes):
        return "bytes", b64encode(value).decode()
    if isinstance(value, Mapping):
        return "map", {str(key): typed(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "array", [typed(item) for item in value]
    if isinstance(value, float):
        return "float", repr(value)
    return type(value).__name__, value


def typed_all(attributes: Mapping[str, Any] | None) -> Plain:
    return {key: typed(value) for key, value in (attributes or {}).items()}


def _flags(context: SpanContext, is_remote: bool) -> int:
    # https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
    return int(context.trace_flags) | 0x100 | (0x200 if is_remote else 0)


def of_record(span: SpanRecord) -> Plain:
    """Return everything that OTLP says of a span."""
    context, parent = span.context, span.parent
    resource, scope = span.resource, span.instrumentation_scope
    return {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_span_id": f"{parent.span_id:016x}" if parent else "",
        "trace_state": context.trace_state.to_header(),
        "flags": _flags(context, bool(parent and parent.is_remote)),
        "name": span.name,
        "kind": span.kind.name,
        "start": span.start_time,
        "end": span.end_time or 0,
        "status": (span.status.status_code.name, span.status.description or ""),
        "attributes": typed_all(span.attributes),
        "events": [
            (each.timestamp, each.name, typed_all(each.attributes), each.dropped_attributes)
            for each in span.events
        ],
        "links": [
            {
                "trace_id": f"{each.context.trace_id:032x}",
                "span_id": f"{each.context.span_id:016x}",
                "trace_state": each.context.trace_state.to_header(),
                "flags": _flags(each.context, each.context.is_remote),
                "attributes": typed_all(each.attributes),
            }
            for each in span.links
        ],
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "resource": (typed_all(resource.attributes), resource.schema_url),
        "scope": (scope.name, scope.version or "", typed_all(scope.attributes), scope.schema_url),
    }


def of_otlp(request: Mapping[str, Any]) -> list[Plain]:
    """Return the spans of a request in OTLP's JSON form.

    Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
    """
    return [
        {
            **_span_of_otlp(span),
            "resource": (
                _attributes_of_otlp(of_resource.get("resource", {}).get("attributes")),
                of_resource.get("schemaUrl", ""),
            ),
            "scope": (*_scope_of_otlp(of_scope.get("scope", {})), of_scope.get("schemaUrl", "")),
        }
        for of_resource in request["resourceSpans"]
        for of_scope in of_resource["scopeSpans"]
        for span in of_scope["spans"]
    ]


def of_protobuf(request: ExportTraceServiceRequest) -> list[Plain]:
    """Return the spans of a request in OTLP's binary form, as the official package reads it."""
    spans = of_otlp(MessageToDict(request, use_integers_for_enums=True))
    for each in [item for span in spans for item in (span, *span["links"])]:
        for name in ("trace_id", "span_id", "parent_span_id"):
            if each.get(name):
                each[name] = b64decode(each[name]).hex()
    return spans


def _scope_of_otlp(scope: Mapping[str, Any]) -> tuple[str, str, Plain]:
    attributes = _attributes_of_otlp(scope.get("attributes"))
    return scope.get("name", ""), scope.get("version", ""), attributes


def _span_of_otlp(span: Mapping[str, Any]) -> Plain:
    status = span.get("status", {})
    counts = (f"dropped{name}Count" for name in ("Attributes", "Events", "Links"))
    return {
        "trace_id": span["traceId"],
        "span_id": span["spanId"],
        "parent_span_id": span.get("parentSpanId", ""),
        "trace_state": span.get("traceState", ""),
        "flags": span.get("flags", 0),
        "name": span.get("name", ""),
        "kind": _KINDS[span.get("kind", 0)],
        "start": int(span.get("startTimeUnixNano", 0)),
        "end": int(span.get("endTimeUnixNano", 0)),
        "status": (_CODES[status.get("code", 0)], status.get("message", "")),
        "attributes": _attributes_of_otlp(span.get("attributes")),
        "events": [
            (
                int(each.get("timeUnixNano", 0)),
                each.get("name", ""),
                _attributes_of_otlp(each.get("attributes")),
                each.get("droppedAttributesCount", 0),
            )
            for each in span.get("events", ())
        ],
        "links": [
            {
                "trace_id": each["traceId"],
                "span_id": each["spanId"],
                "trace_state": each.get("traceState", ""),
                "flags": each.get("flags", 0),
                "attributes": _attributes_of_otlp(each.get("attributes")),
            }
            for each in span.get("links", ())
        ],
        "dropped": tuple(span.get(name, 0) for name in counts),
    }


def _attributes_of_otlp(pairs: Sequence[Mapping[str, Any]] | None) -> Plain:
    return {pair.get("key", ""): _value_of_otlp(pair.get("value", {})) for pair in pairs or ()}


def _value_of_otlp(value: Mapping[str, Any]) -> tuple[str, object]:
    ((kind, held),) = value.items() or (("", None),)
    if kind == "arrayValue":
        return "array", [_value_of_otlp(item) for item in held.get("values", ())]
    if kind == "kvlistValue":
        return "map", _attributes_of_otlp(held.get("values"))
    if kind == "bytesValue":
        return "bytes", held
    if kind == "intValue":
        return typed(int(held))
    if kind == "doubleValue":
        return typed(float(held))
    return typed(held)


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Return one line for each field that is not as expected."""
    if not (isinstance(expected, dict) and isinstance(found, dict)):
        return [] if expected == found else [f"{where}: {expected!r} became {found!r}"]
    lines = [f"{where}/{key} is missing: {expected[key]!r}" for key in expected.keys() - found]
    lines += [f"{where}/{key} was not sent: {found[key]!r}" for key in found.keys() - expected]
    for key in expected.keys() & found:
        lines += differences(expected[key], found[key], f"{where}/{key}")
    return lines
