"""The JSON encoder, judged by protobuf's own JSON parser; and the decoder, by going round."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanKind, StatusCode

from exporters.made import HOSTILE_SPANS, TRACE_ID, UNREADABLE_SPANS, checkout, made
from exporters.shapes import spans
from tracekit.exporters import _otlp_encoder
from tracekit.exporters._otlp_json import decode, encode, encode_line
from tracekit.exporters._readable import identity_of
from tracekit.model import Event, SpanRecord

IDS = ("traceId", "spanId", "parentSpanId")


def as_protobuf_json(document: Any) -> Any:
    """Turn OTLP's hexadecimal ids into the base64 that plain protobuf JSON has."""
    if isinstance(document, list):
        return [as_protobuf_json(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode()
        if key in IDS
        else as_protobuf_json(value)
        for key, value in document.items()
    }


def parsed(document: dict[str, Any]) -> ExportTraceServiceRequest:
    return ParseDict(as_protobuf_json(document), ExportTraceServiceRequest())


def observable(span: Any) -> tuple[Any, ...]:
    return (
        span.name,
        identity_of(span),
        span.kind,
        (span.start_time, span.end_time),
        span.attributes,
        [(e.name, e.attributes, e.timestamp, e.dropped_attributes) for e in span.events],
        [(tuple(link.context), link.attributes) for link in span.links],
        (span.resource.attributes, span.resource.schema_url),
        span.instrumentation_scope,
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
    )


def attribute_back(value: Any) -> Any:
    (span,) = decode(encode([made(1, attributes={"key": value})]))
    return span.attributes["key"]


@given(spans)
def test_json_says_what_the_protobuf_says(span: SpanRecord) -> None:
    protobuf = ExportTraceServiceRequest.FromString(_otlp_encoder.encode([span]))
    assert parsed(encode([span])) == protobuf


@given(spans)
def test_a_span_survives_going_to_text_and_back(span: SpanRecord) -> None:
    (back,) = decode(encode_line([span]))
    expected = observable(span)
    # 0 is OTLP's way to say that a time is not known.
    assert observable(back) == (
        *expected[:3],
        (span.start_time, span.end_time or None),
        *expected[4:],
    )


def test_a_batch_is_one_line() -> None:
    line = encode_line([made(1, "two\nlines", attributes={"a": "b\nc"}), made(2)])
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


def test_ids_are_hexadecimal_and_long_numbers_are_strings() -> None:
    (resource_spans,) = encode([made(10, parent=9, attributes={"n": 5})])["resourceSpans"]
    (span,) = resource_spans["scopeSpans"][0]["spans"]
    assert span["traceId"] == f"{TRACE_ID:032x}"
    assert span["spanId"] == "000000000000000a"
    assert span["parentSpanId"] == "0000000000000009"
    assert span["startTimeUnixNano"] == "1700000000000000000"
    assert span["attributes"] == [{"key": "n", "value": {"intValue": "5"}}]
    assert span["kind"] == 1


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_lacks_are_written_by_name(value: float) -> None:
    line = encode_line([made(1, attributes={"key": value})])
    json.loads(line, parse_constant=pytest.fail)
    found = attribute_back(value)
    assert found == value or (math.isnan(found) and math.isnan(value))


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_arrives_with_what_can_be_read(name: str) -> None:
    line = encode_line([HOSTILE_SPANS[name]])
    (span,) = decode(line)
    assert span.attributes["good"] == 1
    parsed(json.loads(line))


@pytest.mark.parametrize("name", UNREADABLE_SPANS)
def test_a_span_without_ids_is_reported_and_costs_no_other(name: str) -> None:
    span, skipped = UNREADABLE_SPANS[name], []
    document = encode([made(1), span, made(2)], lambda span, error: skipped.append(span))
    assert len(skipped) == 1
    assert len(decode(document)) == 2


def test_spans_of_equal_resources_travel_together() -> None:
    document = encode([made(1, service="a"), made(2, service="b"), made(3, service="a")])
    sizes = [len(item["scopeSpans"][0]["spans"]) for item in document["resourceSpans"]]
    assert sizes == [2, 1]


# --- reading what others wrote


def test_several_lines_are_read_at_once() -> None:
    text = encode_line([made(1)]) + b"\n" + encode_line([made(2), made(3)])
    assert [span.context.span_id for span in decode(text)] == [1, 2, 3]


def test_text_that_is_not_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        decode("resourceSpans: none")


def test_text_that_is_nested_beyond_reason_is_an_error() -> None:
    with pytest.raises(ValueError, match="too deep"):
        decode("[" * 200_000)


def foreign(**span: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


HEX = {"traceId": f"{TRACE_ID:032x}", "spanId": "000000000000000a"}


def test_snake_case_enum_names_and_plain_numbers_are_read() -> None:
    (span,) = decode(
        {
            "resource_spans": [
                {
                    "scope_spans": [
                        {
                            "spans": [
                                {
                                    "trace_id": HEX["traceId"],
                                    "span_id": HEX["spanId"],
                                    "kind": "SPAN_KIND_SERVER",
                                    "start_time_unix_nano": 17,
                                    "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
                                    "attributes": [{"key": "n", "value": {"int_value": 5}}],
                                }
                            ]
                        }
                    ]
                }
            ]
        }
    )
    assert span.kind is SpanKind.SERVER
    assert span.start_time == 17
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no")
    assert span.attributes == {"n": 5}


def test_ids_in_base64_are_read() -> None:
    trace_id = base64.b64encode(TRACE_ID.to_bytes(16, "big")).decode()
    span_id = base64.b64encode((10).to_bytes(8, "big")).decode()
    (span,) = decode(foreign(traceId=trace_id, spanId=span_id))
    assert (span.context.trace_id, span.context.span_id) == (TRACE_ID, 10)


def test_the_older_name_of_scopes_is_read() -> None:
    library = {"instrumentationLibrary": {"name": "old"}, "spans": [HEX]}
    (span,) = decode({"resourceSpans": [{"instrumentationLibrarySpans": [library]}]})
    assert span.instrumentation_scope.name == "old"


@pytest.mark.parametrize(
    "broken",
    [
        {"traceId": "", "spanId": "000000000000000a"},
        {"traceId": "zz", "spanId": 5},
        {"traceId": "0" * 32, "spanId": "0" * 16},
        {},
    ],
)
def test_a_span_without_usable_ids_is_left_out(broken: dict[str, Any]) -> None:
    assert decode(foreign(**broken)) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = [
    *("parentSpanId", "traceState", "flags", "name", "kind", "startTimeUnixNano", "attributes"),
    *("endTimeUnixNano", "events", "links", "status", "droppedLinksCount"),
]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_a_field_that_makes_no_sense_counts_as_absent(fields: dict[str, Any]) -> None:
    (span,) = decode(foreign(**HEX, **fields))
    assert span.context.span_id == 10


@given(json_values)
def test_a_document_that_makes_no_sense_has_no_spans(document: Any) -> None:
    assert decode({"resourceSpans": document}) == []


def test_events_keep_their_time() -> None:
    (span,) = decode(encode([made(1, events=(Event("e", {"a": 1}, 5),))]))
    assert span.events == (Event("e", {"a": 1}, 5),)


def test_the_checkout_comes_back_whole() -> None:
    sent = checkout()
    back = decode(encode_line(sent))
    assert {observable(span)[1] for span in back} == {observable(span)[1] for span in sent}
