"""The protobuf encoder, judged by the official messages and by the official exporter's encoder."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from exporters.made import (
    EPOCH,
    HOSTILE_SPANS,
    SCOPE,
    TRACE_ID,
    UNREADABLE_SPANS,
    checkout,
    context,
    made,
)
from exporters.shapes import few_shapes, spans
from tracekit.exporters import _otlp_attributes, _otlp_encoder
from tracekit.exporters._anyvalue import MAX_DEPTH, replaced
from tracekit.exporters._otlp_encoder import encode, encode_batches, encode_span
from tracekit.model import InstrumentationScope, Resource, SpanRecord


def decoded(body: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(body)


def only_span(body: bytes) -> Any:
    (resource_spans,) = decoded(body).resource_spans
    (scope_spans,) = resource_spans.scope_spans
    (span,) = scope_spans.spans
    return span


def python_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [python_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return python_attributes(value.kvlist_value.values)
    return getattr(value, kind)


def python_attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: python_value(pair.value) for pair in pairs}


def flags_of(trace_flags: int, *, is_remote: bool) -> int:
    return trace_flags | 0x100 | (0x200 if is_remote else 0)


def attribute_back(value: Any) -> Any:
    return python_attributes(only_span(encode([made(1, attributes={"key": value})])).attributes)[
        "key"
    ]


# --- what is put in comes out


@given(spans)
def test_every_field_of_a_span_arrives(span: SpanRecord) -> None:
    found = only_span(encode([span]))

    assert found.trace_id == span.context.trace_id.to_bytes(16, "big")
    assert found.span_id == span.context.span_id.to_bytes(8, "big")
    assert found.trace_state == span.context.trace_state.to_header()
    assert found.parent_span_id == (span.parent.span_id.to_bytes(8, "big") if span.parent else b"")
    is_remote = bool(span.parent and span.parent.is_remote)
    assert found.flags == flags_of(span.context.trace_flags, is_remote=is_remote)
    assert found.name == span.name
    assert found.kind == span.kind.value + 1
    assert found.start_time_unix_nano == span.start_time
    assert found.end_time_unix_nano == (span.end_time or 0)
    assert python_attributes(found.attributes) == span.attributes
    assert found.status.code == span.status.status_code.value
    assert found.status.message == (span.status.description or "")
    assert found.dropped_attributes_count == span.dropped_attributes
    assert found.dropped_events_count == span.dropped_events
    assert found.dropped_links_count == span.dropped_links


@given(spans)
def test_every_field_of_events_and_links_arrives(span: SpanRecord) -> None:
    found = only_span(encode([span]))

    assert [
        (e.name, python_attributes(e.attributes), e.time_unix_nano, e.dropped_attributes_count)
        for e in found.events
    ] == [(e.name, e.attributes, e.timestamp, e.dropped_attributes) for e in span.events]
    assert [
        (k.trace_id, k.span_id, k.trace_state, k.flags, python_attributes(k.attributes))
        for k in found.links
    ] == [
        (
            link.context.trace_id.to_bytes(16, "big"),
            link.context.span_id.to_bytes(8, "big"),
            link.context.trace_state.to_header(),
            flags_of(link.context.trace_flags, is_remote=link.context.is_remote),
            link.attributes,
        )
        for link in span.links
    ]


@given(spans)
def test_resource_and_scope_arrive(span: SpanRecord) -> None:
    (resource_spans,) = decoded(encode([span])).resource_spans
    (scope_spans,) = resource_spans.scope_spans
    scope = span.instrumentation_scope

    assert python_attributes(resource_spans.resource.attributes) == span.resource.attributes
    assert resource_spans.schema_url == span.resource.schema_url
    assert scope_spans.scope.name == scope.name
    assert scope_spans.scope.version == (scope.version or "")
    assert python_attributes(scope_spans.scope.attributes) == scope.attributes
    assert scope_spans.schema_url == scope.schema_url


@given(st.lists(few_shapes, max_size=8))
def test_no_span_is_lost_or_made_up(many: list[SpanRecord]) -> None:
    found = [
        span.span_id
        for resource_spans in decoded(encode(many)).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
    expected = [span.context.span_id.to_bytes(8, "big") for span in many]
    assert sorted(found) == sorted(expected)


def test_nothing_encodes_to_nothing() -> None:
    assert encode([]) == b""


# --- what the official encoder says of the same spans


def normalised(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Take out what differs on purpose.

    The official encoder writes neither the W3C trace flags of spans and links nor the trace
    state of links.
    """
    for resource_spans in request.resource_spans:
        resource_spans.resource.attributes.sort(key=lambda pair: pair.key)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                span.flags &= ~0xFF
                for link in span.links:
                    link.flags &= ~0xFF
                    link.trace_state = ""
    return request


def spans_of_the_sdk() -> list[Any]:
    ended = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ended))
    tracer = provider.get_tracer("lib", "2.1", "https://schema/1", {"scope": True})
    state = TraceState([("vendor", "x")])
    remote = SpanContext(TRACE_ID, 99, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    link = Link(remote, {"why": "batch"})
    from_remote = set_span_in_context(NonRecordingSpan(remote))
    with tracer.start_as_current_span("served", from_remote, SpanKind.SERVER, links=[link]):
        with tracer.start_as_current_span("called", kind=SpanKind.CLIENT) as child:
            child.set_attributes(
                {"s": "é", "b": True, "i": -3, "f": 1.5, "list": ["a", "b"], "ints": [1, 2]}
            )
            child.add_event("retry", {"attempt": 2}, timestamp=EPOCH)
            child.set_status(StatusCode.ERROR, "it broke")
        with tracer.start_as_current_span("fine") as child:
            child.set_status(StatusCode.OK)
    with provider.get_tracer("other").start_as_current_span("root"):
        pass
    return list(ended.get_finished_spans())


def test_sdk_spans_encode_as_the_official_encoder_does() -> None:
    spans = spans_of_the_sdk()
    assert normalised(decoded(encode(spans))) == normalised(encode_spans(spans))


# --- the live span's plain names


class Live:
    """A span with the plain names, of which the common ones must not be asked."""

    trace_id, span_id, parent_span_id, parent_is_remote = TRACE_ID, 7, 5, True
    trace_flags, trace_state_header = 3, "a=1"
    status_code, status_description = 2, "broke"
    name, kind, start_time, end_time = "live", SpanKind.CLIENT, 1, 2
    attributes = MappingProxyType({"n": 1})
    events = links = ()
    resource, instrumentation_scope = Resource(), SCOPE
    dropped_attributes = dropped_events = dropped_links = 0


def test_plain_names_are_read_where_a_span_has_them() -> None:
    found = only_span(encode([Live()]))

    assert found.span_id == (7).to_bytes(8, "big")
    assert found.parent_span_id == (5).to_bytes(8, "big")
    assert found.flags == 0x303
    assert found.trace_state == "a=1"
    assert (found.status.code, found.status.message) == (2, "broke")


class Wired(Live):
    """A span that hands over all of its fields in one call."""

    def wire_fields(self, checked: bool = True) -> tuple[Any, ...]:
        identity = (TRACE_ID, 8, 0, False, 1, "", 0, None)
        return (
            *identity,
            "wired",
            SpanKind.SERVER,
            3,
            4,
            {"n": 2},
            (),
            (),
            1,
            2,
            3,
            Resource(),
            SCOPE,
        )


def test_all_fields_are_taken_at_once_where_a_span_offers_them() -> None:
    found = only_span(encode([Wired()]))

    assert (found.name, found.kind) == ("wired", 2)
    assert found.span_id == (8).to_bytes(8, "big")
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (3, 4)
    assert python_attributes(found.attributes) == {"n": 2}
    assert (
        found.dropped_attributes_count,
        found.dropped_events_count,
        found.dropped_links_count,
    ) == (1, 2, 3)


# --- grouping


def test_spans_of_equal_resources_and_scopes_travel_together() -> None:
    spans = [
        made(1, service="a", instrumentation_scope=InstrumentationScope("x")),
        made(2, service="b"),
        made(3, service="a", instrumentation_scope=InstrumentationScope("x")),
        made(4, service="a", instrumentation_scope=InstrumentationScope("y")),
    ]
    found = decoded(encode(spans)).resource_spans
    assert [[len(group.spans) for group in item.scope_spans] for item in found] == [[2, 1], [1]]


def test_resources_that_differ_only_in_type_of_a_value_stay_apart() -> None:
    spans = [made(1, resource=Resource({"n": 1})), made(2, resource=Resource({"n": True}))]
    assert len(decoded(encode(spans)).resource_spans) == 2


# --- batches of a size


@given(st.lists(few_shapes, max_size=12), st.integers(100, 3000))
def test_batches_keep_to_the_size_and_hold_every_span_once(
    many: list[SpanRecord], max_bytes: int
) -> None:
    batches = list(encode_batches(many, max_bytes))

    assert [span for _, held in batches for span in held] == many
    assert all(len(body) <= max_bytes or len(held) == 1 for body, held in batches)
    for body, held in batches:
        assert body == encode(held)


def test_batches_are_filled_before_the_next_is_begun() -> None:
    many = [made(number) for number in range(1, 201)]
    size = len(encode_span(many[0]))
    batches = list(encode_batches(many, 10 * size))
    assert all(len(held) >= 7 for _, held in batches[:-1])


def test_a_span_larger_than_the_bound_comes_alone() -> None:
    large = made(2, attributes={"large": "x" * 5000})
    held = [batch for _, batch in encode_batches([made(1), large, made(3)], 1000)]
    assert [[span.context.span_id for span in batch] for batch in held] == [[1], [2], [3]]


# --- what cannot be represented


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_arrives_with_what_can_be_read(name: str) -> None:
    found = only_span(encode([HOSTILE_SPANS[name]]))
    assert python_attributes(found.attributes)["good"] == 1


@pytest.mark.parametrize("name", UNREADABLE_SPANS)
def test_a_span_without_ids_is_reported_and_costs_no_other(name: str) -> None:
    span, skipped = UNREADABLE_SPANS[name], []
    body = encode([made(1), span, made(2)], lambda span, error: skipped.append(span))
    assert len(skipped) == 1
    assert skipped[0] is span
    assert len(decoded(body).resource_spans[0].scope_spans[0].spans) == 2


def test_an_integer_beyond_64_bits_becomes_its_digits() -> None:
    assert attribute_back(2**64) == "18446744073709551616"


def test_a_lone_surrogate_becomes_its_escape() -> None:
    assert attribute_back("a\ud800b") == "a\\ud800b"


def test_not_a_number_stays_one() -> None:
    assert math.isnan(attribute_back(float("nan")))


def test_nesting_is_cut_where_decoders_would_give_up() -> None:
    value: Any = "bottom"
    for _ in range(200):
        value = {"in": value}
    found = attribute_back(value)
    for _ in range(MAX_DEPTH):
        found = found["in"]
    assert found == "[nested too deep]"


def test_a_container_in_itself_is_cut_where_it_closes() -> None:
    value: list[Any] = [1]
    value.append(value)
    assert attribute_back(value) == [1, "[recursive]"]


def test_a_value_of_an_unknown_type_is_its_bounded_repr() -> None:
    class Cart:
        def __repr__(self) -> str:
            return "Cart(" + "x" * 10_000 + ")"

    found = attribute_back(Cart())
    assert found.startswith("Cart(xxx")
    assert len(found) <= 1024


def test_true_one_and_one_point_nought_are_told_apart() -> None:
    found = [attribute_back(value) for value in (1, True, 1.0, 0, False, 0.0) * 2]
    assert [type(value) for value in found] == [int, bool, float] * 4


def test_what_is_replaced_is_counted() -> None:
    before = replaced["integer beyond 64 bits"]
    encode([made(1, attributes={"n": 2**70})])
    assert replaced["integer beyond 64 bits"] == before + 1


# --- caches


def test_caches_stay_bounded_whatever_the_program_does() -> None:
    for number in range(3000):
        span = made(
            number + 1,
            f"name {number}",
            attributes={f"key {number}": number, "id": f"id {number}", "size": number},
            service=f"service {number}",
        )
        encode([span])
    field = _otlp_attributes.SPAN_FIELD
    assert len(field.keys) <= _otlp_attributes.MAX_KEYS
    assert len(_otlp_encoder._names) <= _otlp_encoder._MAX_NAMES
    assert len(_otlp_encoder._headers) <= _otlp_encoder._MAX_HEADERS
    values = [value for key, value in field.pairs if key == "id"]
    assert 0 < len(values) <= _otlp_attributes.MAX_VALUES_OF_KEY


def test_a_resource_made_for_each_span_is_never_taken_for_another() -> None:
    # Objects that die give their id() to the next one.
    for number in range(500):
        body = encode([made(1, resource=Resource({"n": number}))])
        assert python_attributes(decoded(body).resource_spans[0].resource.attributes) == {
            "n": number
        }


def test_the_checkout_decodes_to_its_spans() -> None:
    found = decoded(encode(checkout())).resource_spans
    assert sum(len(scope.spans) for item in found for scope in item.scope_spans) == 22
    assert context(1).span_id.to_bytes(8, "big") in {
        span.span_id for item in found for scope in item.scope_spans for span in scope.spans
    }
