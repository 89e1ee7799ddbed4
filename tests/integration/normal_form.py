"""Two runs of one program made comparable: ids numbered, clock times and machine removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["normal_form"]

CLOCK_STARTS = 1_600_000_000_000_000_000
"""Times after this were read from the clock, those before were chosen by the program."""

MACHINE = ("host.", "os.", "process.", "service.instance.id", "telemetry.sdk.")
"""What begins like this says where and with what the program ran."""

W3C_FLAGS = 0xFF

_IDS = re.compile(r"\b(?:0x)?(?:[0-9a-f]{32}|[0-9a-f]{16})\b")
_ISO_NOW = re.compile(r"20[2-9]\d-\d\d-\d\dT[\d:.]+Z")
_FRAME = re.compile(
    r'^[ |+-]*File "(?P<file>[^"]*)".*\n(?:(?![ |+-]*File ")[ |+-]* {4,}.*\n)*', re.MULTILINE
)
_NOT_THE_PROGRAMS = re.compile(r"/(?:opentelemetry|tracekit|contextlib\.py|asyncio)\b")


def normal_form(request: ExportTraceServiceRequest, returned: Any) -> dict[str, Any]:
    """Return what a program exported and returned, as plain values without what differs by run."""
    names = _Names()
    whole = ExportTraceServiceRequest()
    whole.CopyFrom(request)
    for resource_spans in whole.resource_spans:
        _remove_the_machine(resource_spans)
    resources = [MessageToDict(each) for each in _joined(whole).resource_spans]
    for resource, spans in zip(resources, _joined(whole).resource_spans, strict=True):
        resource["scopeSpans"] = [
            {**MessageToDict(scope), "spans": [_span(span, names) for span in scope.spans]}
            for scope in spans.scope_spans
        ]
        resource["resource"] = sorted(
            (pair["key"], repr(pair["value"]))
            for pair in resource["resource"].get("attributes", ())
        )
    return {"exported": resources, "returned": _value(returned, names)}


def _joined(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Put the spans of equal resources and scopes together, however many requests they came in."""
    whole = ExportTraceServiceRequest()
    for theirs in request.resource_spans:
        ours = _same(whole.resource_spans, theirs, "resource")
        for scope_spans in theirs.scope_spans:
            _same(ours.scope_spans, scope_spans, "scope").spans.extend(scope_spans.spans)
    return whole


def _same(known: Any, wanted: Any, field: str) -> Any:
    key = (getattr(wanted, field), wanted.schema_url)
    for each in known:
        if (getattr(each, field), each.schema_url) == key:
            return each
    made = known.add(schema_url=wanted.schema_url)
    getattr(made, field).CopyFrom(getattr(wanted, field))
    return made


def _remove_the_machine(resource_spans: Any) -> None:
    attributes = resource_spans.resource.attributes
    kept = [pair for pair in attributes if not pair.key.startswith(MACHINE)]
    del attributes[:]
    attributes.extend(kept)
    # opentelemetry-sdk names no schema for what it detects; see the page on moving over.
    resource_spans.schema_url = ""


class _Names:
    """Ids by the order in which they are met."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, identifier: str) -> str:
        key = identifier.removeprefix("0x")
        return self._known.setdefault(key, f"<id {len(self._known) + 1}>")

    def in_text(self, text: str) -> str:
        return _ISO_NOW.sub("<now>", _IDS.sub(lambda match: self.of(match[0]), text))


def _span(span: Any, names: _Names) -> dict[str, Any]:
    return {
        "trace": names.of(span.trace_id.hex()),
        "id": names.of(span.span_id.hex()),
        "parent": names.of(span.parent_span_id.hex()) if span.parent_span_id else None,
        "state": span.trace_state,
        # What follows the eight bits of W3C; opentelemetry's encoder leaves those at zero.
        "flags": span.flags & ~W3C_FLAGS,
        "name": span.name,
        "kind": span.kind,
        "start": _time(span.start_time_unix_nano),
        "end": _time(span.end_time_unix_nano),
        "status": (span.status.code, span.status.message),
        "dropped": (
            span.dropped_attributes_count,
            span.dropped_events_count,
            span.dropped_links_count,
        ),
        "attributes": list(_attributes(span.attributes, names)),
        "events": [_event(event, names) for event in span.events],
        "links": [_link(link, names) for link in span.links],
    }


def _event(event: Any, names: _Names) -> dict[str, Any]:
    attributes = list(_attributes(event.attributes, names))
    time = _time(event.time_unix_nano)
    return {
        "name": event.name,
        "time": time,
        "attributes": attributes,
        "dropped": event.dropped_attributes_count,
    }


def _link(link: Any, names: _Names) -> dict[str, Any]:
    # Opentelemetry's encoder leaves out the link's trace state.
    return {
        "to": (names.of(link.trace_id.hex()), names.of(link.span_id.hex())),
        "attributes": list(_attributes(link.attributes, names)),
        "flags": link.flags & ~W3C_FLAGS,
        "dropped": link.dropped_attributes_count,
    }


def _attributes(pairs: Any, names: _Names) -> Iterator[tuple[str, Any]]:
    # OTLP gives their order no meaning, and the SDK moves one that is written again to the end.
    for pair in sorted(pairs, key=lambda pair: str(pair.key)):
        value = MessageToDict(pair.value)
        if pair.key == "exception.stacktrace":
            value = {"stringValue": _frames_of_the_program(pair.value.string_value)}
        yield pair.key, _value(value, names)


def _frames_of_the_program(stacktrace: str) -> str:
    return _FRAME.sub(
        lambda match: "" if _NOT_THE_PROGRAMS.search(match["file"]) else match[0], stacktrace
    )


def _time(nanoseconds: int) -> int | str:
    return "<now>" if nanoseconds > CLOCK_STARTS else nanoseconds


def _value(value: Any, names: _Names) -> Any:
    if isinstance(value, str):
        return names.in_text(value)
    if isinstance(value, dict):
        return {key: _value(each, names) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(each, names) for each in value]
    return value
