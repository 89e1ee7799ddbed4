"""What only Jaeger's files have."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from formats.written import one_line, read
from tracekit.model import SpanRecord


def span(**fields: Any) -> SpanRecord:
    (found,) = read(one_line({"data": [trace(**fields)]}))[1]
    return found


def trace(**fields: Any) -> dict[str, Any]:
    return {
        "traceID": "abc",
        "spans": [{"traceID": "abc", "spanID": "1", "processID": "p1", "startTime": 5, **fields}],
        "processes": {"p1": {"serviceName": "shop", "tags": [tag("host", "h", "string")]}},
    }


def tag(key: str, value: Any, kind: str) -> dict[str, Any]:
    return {"key": key, "value": value, "type": kind}


@pytest.mark.parametrize("layout", [lambda t: {"data": [t]}, lambda t: [t], lambda t: t])
def test_a_download_a_list_and_a_single_trace_are_read(layout: Any) -> None:
    file, (found,) = read(one_line(layout(trace())))
    assert file.format == "jaeger_json"
    assert found.resource.attributes == {"service.name": "shop", "host": "h"}


def test_ids_may_lack_their_zeros_and_times_are_in_microseconds() -> None:
    found = span(duration=7)
    assert (found.context.trace_id, found.context.span_id) == (0xABC, 1)
    assert (found.start_time, found.end_time) == (5000, 12_000)


def test_tags_have_types() -> None:
    tags = [
        tag("text", "5", "string"),
        tag("number", 9007199254740993, "int64"),
        tag("number as text", "9", "int64"),
        tag("ratio", 0.5, "float64"),
        tag("flag", False, "bool"),
        tag("bytes", "AP8=", "binary"),
    ]
    assert span(tags=tags).attributes == {
        "text": "5",
        "number": 9007199254740993,
        "number as text": 9,
        "ratio": 0.5,
        "flag": False,
        "bytes": b"\x00\xff",
    }


def test_kind_status_and_scope_are_taken_out_of_the_tags() -> None:
    found = span(
        tags=[
            tag("span.kind", "server", "string"),
            tag("error", True, "bool"),
            tag("otel.status_description", "declined", "string"),
            tag("otel.scope.name", "lib", "string"),
            tag("otel.scope.version", "2", "string"),
            tag("w3c.tracestate", "a=1", "string"),
        ]
    )
    assert found.attributes == {}
    assert found.kind is SpanKind.SERVER
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, "declined")
    assert (found.instrumentation_scope.name, found.instrumentation_scope.version) == ("lib", "2")
    assert found.context.trace_state == {"a": "1"}


def test_an_error_that_says_something_stays_an_attribute() -> None:
    found = span(tags=[tag("error", "timeout", "string")])
    assert found.status.status_code is StatusCode.ERROR
    assert found.attributes == {"error": "timeout"}
    assert span(tags=[tag("error", False, "bool")]).status.status_code is StatusCode.UNSET


def test_the_first_child_of_is_the_parent_and_the_rest_are_links() -> None:
    def reference(kind: str, span_id: str, trace_id: str = "abc") -> dict[str, str]:
        return {"refType": kind, "traceID": trace_id, "spanID": span_id}

    found = span(
        references=[
            reference("FOLLOWS_FROM", "7"),
            reference("CHILD_OF", "5", "def"),
            reference("CHILD_OF", "8"),
        ]
    )
    assert found.parent is not None
    assert found.parent.span_id == 8
    assert [(link.context.trace_id, link.context.span_id) for link in found.links] == [
        (0xABC, 7),
        (0xDEF, 5),
    ]
    assert found.links[0].attributes == {"opentracing.ref_type": "follows_from"}


def test_logs_become_events_by_the_name_that_they_have() -> None:
    logs = [
        {"timestamp": 6, "fields": [tag("event", "retry", "string"), tag("n", 2, "int64")]},
        {"timestamp": 7, "fields": [tag("message", "hello", "string")]},
    ]
    events = span(logs=logs).events
    assert [(event.name, event.timestamp, event.attributes) for event in events] == [
        ("retry", 6000, {"n": 2}),
        ("log", 7000, {"message": "hello"}),
    ]


def test_warnings_of_jaegers_are_kept() -> None:
    assert span(warnings=["clock skew"]).attributes == {"jaeger.warnings": ["clock skew"]}
