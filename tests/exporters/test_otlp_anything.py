"""Spans that hold anything: the official package reads from every payload what was put in.

What OTLP cannot carry (lone surrogates, integers beyond 64 bits, nesting without end) is replaced
by something that shows it, is counted, and costs no other span.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import Link, Status, StatusCode

import tracekit
from backends.normal import Plain, differences, from_json, of_otlp, of_protobuf, of_record
from exporters import shapes
from exporters.destinations import Destination
from exporters.made import UNREADABLE_SPANS, Raising, made
from tracekit.exporters import _otlp_json
from tracekit.exporters._anyvalue import MAX_DEPTH, replaced
from tracekit.exporters._otlp_encoder import encode, encode_batches
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord

pytestmark = pytest.mark.slow

Encode = Callable[[Sequence[Any]], list[Plain]]

# Any code point, so that some are halves of a surrogate pair.
texts = st.text(max_size=20)
scalars = st.one_of(
    texts,
    st.booleans(),
    st.integers(),
    st.integers(2**62, 2**200) | st.integers(-(2**200), -(2**62)),
    st.floats(),
    st.binary(max_size=20),
    st.none(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def _nested(value: object, levels: int) -> object:
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


deep = st.builds(_nested, values, st.integers(0, 3 * MAX_DEPTH))
attributes = st.dictionaries(texts, values | deep, max_size=4)

spans = st.builds(
    lambda span, **hostile: replace(span, **hostile),
    shapes.spans,
    name=texts,
    attributes=attributes,
    events=st.lists(st.builds(Event, texts, attributes, shapes.times, shapes.counts), max_size=2),
    links=st.lists(st.builds(Link, shapes.contexts, attributes), max_size=2),
    status=st.builds(Status, st.just(StatusCode.ERROR), st.none() | texts),
    resource=st.builds(Resource, attributes, texts),
    instrumentation_scope=st.builds(
        InstrumentationScope, texts, st.none() | texts, texts, attributes
    ),
)


def as_protobuf(spans: Sequence[Any]) -> list[Plain]:
    return of_protobuf(ExportTraceServiceRequest.FromString(encode(spans)))


def as_json(spans: Sequence[Any]) -> list[Plain]:
    return of_otlp(from_json(_otlp_json.encode_line(spans).decode()))


# What can be carried --------------------------------------------------------------------------


def carried(value: Any, depth: int = 0) -> Any:
    """Return what becomes of a value, said in another way than the encoder says it."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, (list, dict)) and depth == MAX_DEPTH:
        return "[nested too deep]"
    if isinstance(value, list):
        return [carried(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {carried(key): carried(item, depth + 1) for key, item in value.items()}
    return value


def all_carried(attributes: Any) -> dict[str, Any]:
    return {carried(key): carried(value) for key, value in (attributes or {}).items()}


def carried_span(span: SpanRecord) -> SpanRecord:
    scope, description = span.instrumentation_scope, span.status.description
    return replace(
        span,
        name=carried(span.name),
        attributes=all_carried(span.attributes),
        events=[
            Event(
                carried(each.name),
                all_carried(each.attributes),
                each.timestamp,
                each.dropped_attributes,
            )
            for each in span.events
        ],
        links=[Link(each.context, all_carried(each.attributes)) for each in span.links],
        status=Status(span.status.status_code, carried(description)),
        resource=Resource(all_carried(span.resource.attributes), carried(span.resource.schema_url)),
        instrumentation_scope=InstrumentationScope(
            carried(scope.name),
            carried(scope.version),
            carried(scope.schema_url),
            all_carried(scope.attributes),
        ),
    )


# The promises ---------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [as_protobuf, as_json])
@settings(max_examples=50)
@given(span=spans)
def test_what_was_put_in_is_read_or_its_replacement_which_is_counted(
    span: SpanRecord, written: Encode
) -> None:
    before, expected = sum(replaced.values()), of_record(carried_span(span))
    (found,) = written([span])
    assert differences(expected, found) == []
    is_counted = sum(replaced.values()) > before
    assert is_counted is (expected != of_record(span))


@pytest.mark.parametrize("written", [as_protobuf, as_json])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attributes": {"\ud800": 1}}, "lone surrogate"),
        ({"attributes": {"a": "\ud800"}}, "lone surrogate"),
        ({"name": "\ud800"}, "lone surrogate"),
        ({"attributes": {7: 1}}, "key that is no text"),
        ({"attributes": {Raising: Raising()}}, "unreadable value"),
        ({"attributes": {"n": 2**64}}, "integer beyond 64 bits"),
        ({"attributes": {"a": _nested(1, MAX_DEPTH + 1)}}, "nested too deep"),
        ({"attributes": {"a": object()}}, "unsupported type"),
        ({"start_time": -1}, "number out of range"),
        ({"dropped_events": 2**32}, "number out of range"),
        ({"end_time": "late"}, "number that is none"),
    ],
)
def test_each_replacement_is_counted_whenever_it_is_made(
    written: Encode, fields: dict[str, Any], reason: str
) -> None:
    for _ in range(2):
        before = replaced[reason]
        assert len(written([made(1, **fields)])) == 1
        assert replaced[reason] > before


@settings(max_examples=25)
@given(
    many=st.lists(spans | st.sampled_from(list(UNREADABLE_SPANS)), max_size=5),
    max_bytes=st.integers(200, 5000),
)
def test_no_span_costs_its_batch(many: list[Any], max_bytes: int) -> None:
    batch = [UNREADABLE_SPANS[each] if isinstance(each, str) else each for each in many]
    skipped: list[Any] = []
    bodies = [
        body
        for body, _ in encode_batches(batch, max_bytes, lambda span, error: skipped.append(error))
    ]
    found = [
        span["span_id"]
        for body in bodies
        for span in of_protobuf(ExportTraceServiceRequest.FromString(body))
    ]
    readable = [each for each in many if not isinstance(each, str)]
    assert sorted(found) == sorted(f"{each.context.span_id:016x}" for each in readable)
    assert len(skipped) == len(many) - len(readable)


def test_what_was_replaced_is_in_the_ledger() -> None:
    with Destination() as destination:
        tracekit.configure(exporters=[OTLPSpanExporter(destination.url)], sampler="always_on")
        before = tracekit.stats()["replaced"].get("integer beyond 64 bits", 0)
        with tracekit.span("counts", atoms=10**80):
            pass
        assert tracekit.flush()
        assert tracekit.stats()["replaced"]["integer beyond 64 bits"] > before
        (span,) = of_protobuf(destination.received[0].request())
    assert span["attributes"]["atoms"] == ("str", str(10**80))
