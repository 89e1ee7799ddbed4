"""Spans of every shape that OTLP can carry, as hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st
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

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
names = texts.filter(bool)
int64 = st.integers(-(2**63), 2**63 - 1)
scalars = st.one_of(
    texts, st.booleans(), int64, st.floats(allow_nan=False), st.binary(max_size=200), st.none()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
attributes = st.dictionaries(texts, values, max_size=6)
times = st.integers(0, 2**64 - 1)
counts = st.integers(0, 2**32 - 1)
trace_states = st.sampled_from([(), (("a", "1"),), (("a", "1"), ("tenant@vendor", "x y"))])
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.builds(TraceFlags, st.integers(0, 255)),
    st.builds(TraceState, trace_states),
)
statuses = st.one_of(
    st.just(Status()),
    st.just(Status(StatusCode.OK)),
    st.builds(Status, st.just(StatusCode.ERROR), st.none() | names),
)
scopes = st.builds(InstrumentationScope, texts, st.none() | names, texts, attributes)
spans = st.builds(
    SpanRecord,
    name=texts,
    context=contexts,
    parent=st.none() | contexts,
    kind=st.sampled_from(SpanKind),
    start_time=times,
    end_time=st.none() | times,
    attributes=attributes,
    events=st.lists(st.builds(Event, texts, attributes, times, counts), max_size=3),
    links=st.lists(st.builds(Link, contexts, attributes), max_size=3),
    status=statuses,
    resource=st.builds(Resource, attributes, texts),
    instrumentation_scope=scopes,
    dropped_attributes=counts,
    dropped_events=counts,
    dropped_links=counts,
)

few_shapes = st.builds(
    SpanRecord,
    name=texts,
    context=st.builds(SpanContext, st.just(1), st.integers(1, 2**64 - 1), st.just(False)),
    attributes=st.dictionaries(texts, texts, max_size=3),
    resource=st.sampled_from([Resource({"n": 1}), Resource({"n": 2}), Resource()]),
    instrumentation_scope=st.sampled_from([InstrumentationScope("a"), InstrumentationScope("b")]),
)
"""Spans of few places, for tests about many of them."""
