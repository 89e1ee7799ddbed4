"""OTLP in its JSON form: spans to documents and one-line text, and documents back to records.

Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, isnan
from typing import Any

from tracekit.exporters._anyvalue import INT64, attribute_key, exact, text
from tracekit.exporters._readable import identity_of, plain_attributes, remote_flags, salvage
from tracekit.formats.otlp_json import decode
from tracekit.interfaces import ReadableSpan

__all__ = ["decode", "encode", "encode_line"]

OnSkip = Callable[[ReadableSpan, Exception], None]
Json = dict[str, Any]

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encode_line(spans: Sequence[ReadableSpan], on_skip: OnSkip | None = None) -> bytes:
    """Return one TracesData document as UTF-8 text in one line, with the line's end."""
    return f"{_dumps(encode(spans, on_skip))}\n".encode()


def encode(spans: Sequence[ReadableSpan], on_skip: OnSkip | None = None) -> Json:
    """Return one TracesData document, made of what ``json`` can write.

    Args:
        on_skip: Told of each span that could not be encoded at all, with the reason.
    """
    tree: dict[str, dict[str, tuple[Json, Json, list[Json]]]] = {}
    headers: dict[int, tuple[object, str, Json]] = {}
    for span in spans:
        try:
            body, resource, scope = _pieces(span)
        except Exception as error:
            if on_skip:
                on_skip(span, error)
            continue
        resource_key, resource_part = _header(headers, resource, _resource_part)
        scope_key, scope_part = _header(headers, scope, _scope_part)
        scopes = tree.setdefault(resource_key, {})
        scopes.setdefault(scope_key, (resource_part, scope_part, []))[2].append(body)
    return {"resourceSpans": [_resource_spans(scopes.values()) for scopes in tree.values()]}


def _pieces(span: ReadableSpan) -> tuple[Json, Any, Any]:
    try:
        return _span(span), span.resource, span.instrumentation_scope
    except Exception:
        readable = salvage(span)
        return _span(readable), readable.resource, readable.instrumentation_scope


def _resource_spans(scopes: Iterable[tuple[Json, Json, list[Json]]]) -> Json:
    parts = list(scopes)
    scope_spans = [{**scope, "spans": bodies} for _, scope, bodies in parts]
    return {**parts[0][0], "scopeSpans": scope_spans}


def _header(
    headers: dict[int, tuple[object, str, Json]], owner: Any, render: Callable[[Any], Json]
) -> tuple[str, Json]:
    """Return a resource's or scope's part with its text, by which equal ones are recognised."""
    known = headers.get(id(owner))
    if known is None:
        part = render(owner)
        known = headers[id(owner)] = (owner, _dumps(part), part)
    return known[1], known[2]


def _resource_part(resource: Any) -> Json:
    attributes = _attributes(plain_attributes(lambda: resource.attributes))
    part: Json = {"resource": {"attributes": attributes}}
    return _with_text(part, schemaUrl=lambda: resource.schema_url)


def _scope_part(scope: Any) -> Json:
    inner = _with_text({}, name=lambda: scope.name, version=lambda: scope.version)
    if attributes := plain_attributes(lambda: scope.attributes):
        inner["attributes"] = _attributes(attributes)
    return _with_text({"scope": inner}, schemaUrl=lambda: scope.schema_url)


def _with_text(part: Json, **fields: Callable[[], Any]) -> Json:
    for name, read in fields.items():
        try:
            value = exact(read())
        except Exception:
            continue
        if isinstance(value, str) and value:
            part[name] = value
    return part


def _span(span: ReadableSpan) -> Json:
    trace_id, span_id, parent, parent_is_remote, flags, state, code, description = identity_of(span)
    body: Json = {
        "traceId": trace_id.to_bytes(16, "big").hex(),
        "spanId": span_id.to_bytes(8, "big").hex(),
        "flags": remote_flags(flags, parent_is_remote),
        "name": _text(span.name),
        "kind": span.kind._value_ + 1,
        "startTimeUnixNano": _fixed64(span.start_time),
        "endTimeUnixNano": _fixed64(span.end_time or 0),
    }
    if parent:
        body["parentSpanId"] = parent.to_bytes(8, "big").hex()
    if state:
        body["traceState"] = _text(state)
    if attributes := span.attributes:
        body["attributes"] = _attributes(attributes)
    if events := span.events:
        body["events"] = [_event(event) for event in events]
    if links := span.links:
        body["links"] = [_link(link) for link in links]
    body["status"] = _status(code, description)
    if span.dropped_attributes or span.dropped_events or span.dropped_links:
        body["droppedAttributesCount"] = _uint32(span.dropped_attributes)
        body["droppedEventsCount"] = _uint32(span.dropped_events)
        body["droppedLinksCount"] = _uint32(span.dropped_links)
    return body


def _status(code: int, description: str | None) -> Json:
    if code not in (0, 1, 2):
        raise ValueError("not a status code")
    status: Json = {"code": code} if code else {}
    if description:
        status["message"] = _text(description)
    return status


def _event(event: Any) -> Json:
    body: Json = {"timeUnixNano": _fixed64(event.timestamp), "name": _text(event.name)}
    if attributes := event.attributes:
        body["attributes"] = _attributes(attributes)
    if dropped := event.dropped_attributes:
        body["droppedAttributesCount"] = _uint32(dropped)
    return body


def _link(link: Any) -> Json:
    context = link.context
    body: Json = {
        "traceId": context.trace_id.to_bytes(16, "big").hex(),
        "spanId": context.span_id.to_bytes(8, "big").hex(),
        "flags": remote_flags(context.trace_flags, context.is_remote),
    }
    if context.trace_state:
        body["traceState"] = _text(context.trace_state.to_header())
    if attributes := link.attributes:
        body["attributes"] = _attributes(attributes)
    if dropped := link.dropped_attributes:
        body["droppedAttributesCount"] = _uint32(dropped)
    return body


def _text(value: str) -> str:
    if type(value) is not str:
        raise TypeError("not a str")
    return value if value.isascii() else text(value)


def _fixed64(number: int) -> str:
    number.to_bytes(8, "big")  # raises for what 64 bits do not hold
    return str(number)


def _uint32(number: int) -> int:
    number.to_bytes(4, "big")
    return number


def _attributes(attributes: Mapping[Any, Any]) -> list[Json]:
    return [
        {"key": attribute_key(key), "value": _any_value(value)} for key, value in attributes.items()
    ]


def _any_value(value: Any) -> Json:
    kind = type(value)
    if kind is str:
        return {"stringValue": value if value.isascii() else text(value)}
    if kind is bool:
        return {"boolValue": value}
    if kind is int and value in INT64:
        return {"intValue": str(value)}
    if kind is float:
        return {"doubleValue": value if isfinite(value) else _not_finite(value)}
    return _exact_value(exact(value))


def _not_finite(value: float) -> str:
    """Return the names that the JSON form of protobuf has for what JSON numbers cannot say."""
    if isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _exact_value(value: Any) -> Json:
    """Return the AnyValue of what ``exact`` has made, so its depth is bounded."""
    kind = type(value)
    if value is None:
        return {}
    if kind is bytes:
        return {"bytesValue": b64encode(value).decode()}
    if kind is list:
        return {"arrayValue": {"values": [_exact_value(item) for item in value]}}
    if kind is dict:
        pairs = [{"key": key, "value": _exact_value(item)} for key, item in value.items()]
        return {"kvlistValue": {"values": pairs}}
    return _any_value(value)
