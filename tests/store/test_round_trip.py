"""What is written is what is read."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from exporters import shapes
from store.records import span, told
from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord
from tracekit.store import rows, values
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter

_texts = st.text(max_size=20).filter(lambda text: not _has_pair(text))
_scalars = st.one_of(
    _texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=50),
    st.none(),
    st.lists(_texts, max_size=3),
)
_nested = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_texts | st.just("$map") | st.just("$bytes"), inner, max_size=3)
    ),
    max_leaves=8,
)
_attributes = st.dictionaries(_texts, _nested, max_size=6)
_times = st.integers(0, 2**62)


def _has_pair(text: str) -> bool:
    """A high surrogate before a low one is, in JSON, the character that they encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") != text


_spans = st.builds(
    SpanRecord,
    name=_texts,
    context=shapes.contexts,
    parent=st.none() | shapes.contexts,
    kind=st.sampled_from(list(shapes.SpanKind)),
    start_time=_times,
    end_time=st.none() | _times,
    attributes=_attributes,
    events=st.lists(st.builds(Event, _texts, _attributes, _times, shapes.counts), max_size=2),
    links=st.lists(st.builds(Link, shapes.contexts, _attributes), max_size=2),
    status=shapes.statuses,
    resource=st.builds(Resource, _attributes, shapes.texts),
    instrumentation_scope=st.builds(
        InstrumentationScope, shapes.texts, st.none() | shapes.names, shapes.texts, _attributes
    ),
    dropped_attributes=shapes.counts,
    dropped_events=shapes.counts,
    dropped_links=shapes.counts,
)


@settings(max_examples=150)
@given(st.lists(_spans, min_size=1, max_size=5, unique_by=lambda found: found.context[:2]))
def test_a_span_of_any_shape_comes_back_as_it_was(spans: list[SpanRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.db"
        writer = StoreWriter(path)
        assert writer.write(spans) == []
        writer.close()
        with StoreReader(path) as reader:
            traces = {found.context.trace_id for found in spans}
            read = [found for trace in traces for found in reader.trace(trace)]
    by_id = {found.context[:2]: told(found) for found in read}
    assert by_id == {found.context[:2]: told(found) for found in spans}


@settings(max_examples=100)
@given(_attributes)
def test_every_value_is_valid_json_for_sqlite(attributes: dict[str, Any]) -> None:
    text = values.encode(values.clean_attributes(attributes))
    assert text.isascii()
    with sqlite3.connect(":memory:") as db:
        assert db.execute("SELECT json_valid(?)", (text,)).fetchone() == (1,)
    db.close()


def _stored(writer: StoreWriter, reader: StoreReader, **fields: Any) -> SpanRecord:
    assert writer.write([replace(span(1), **fields)]) == []
    return reader.trace(1)[0]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**100])
def test_an_integer_beyond_64_bits_becomes_text(
    writer: StoreWriter, reader: StoreReader, value: int
) -> None:
    assert _stored(writer, reader, attributes={"n": value}).attributes == {"n": str(value)}


def test_a_megabyte_of_text_is_cut_and_says_so(writer: StoreWriter, reader: StoreReader) -> None:
    found = _stored(writer, reader, attributes={"body": "x" * 1_000_000, "good": 1})
    assert found.attributes["good"] == 1
    assert len(found.attributes["body"]) < 300_000
    assert found.attributes["body"].endswith("…[cut, 1000000 characters]")


def test_a_megabyte_of_bytes_is_cut_and_says_so(writer: StoreWriter, reader: StoreReader) -> None:
    body = _stored(writer, reader, attributes={"body": b"x" * 1_000_000}).attributes["body"]
    assert len(body) < 300_000
    assert body.endswith(b"...[cut, 1000000 bytes]")


def test_a_span_of_many_large_values_is_bounded_and_counts_what_it_lost(
    writer: StoreWriter, reader: StoreReader
) -> None:
    huge = {f"key{number}": "x" * 200_000 for number in range(500)}
    events = [Event("e", {"text": "y" * 200_000}, 1) for _ in range(200)]
    found = _stored(writer, reader, attributes=huge, events=events)
    stored = rows.MAX_SPAN_CHARS
    assert sum(map(len, found.attributes.values())) < stored
    assert len(found.attributes) + found.dropped_attributes == 500
    assert len(found.events) + found.dropped_events == 200
    assert found.name == "work"


def test_one_huge_span_leaves_its_neighbours_whole(
    writer: StoreWriter, reader: StoreReader
) -> None:
    huge = {f"key{number}": "x" * 200_000 for number in range(50)}
    writer.write([span(1, attributes={"a": "y" * 1000}), span(2, attributes=huge)])
    assert reader.trace(1)[0].attributes == {"a": "y" * 1000}


def test_endless_and_recursive_values_are_cut(writer: StoreWriter, reader: StoreReader) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    wide = _stored(writer, reader, attributes={"loop": loop, "range": range(10**12)}).attributes
    assert wide["range"][:3] == (0, 1, 2)
    assert wide["range"][-1] == "…[cut]"
    assert wide["loop"][0] == 1


def test_numbers_that_are_equal_keep_their_types(writer: StoreWriter, reader: StoreReader) -> None:
    for number, value in enumerate((1, True, 1.0), 1):
        writer.write([span(number, attributes={"x": value})])
    assert [type(found.attributes["x"]) for found in reader.trace(1)] == [int, bool, float]


def test_a_time_beyond_64_bits_is_brought_within(writer: StoreWriter, reader: StoreReader) -> None:
    found = _stored(writer, reader, start_time=2**70, end_time=2**70 + 5)
    assert found.start_time == 2**63 - 1


def test_an_end_before_the_start_is_kept(writer: StoreWriter, reader: StoreReader) -> None:
    assert _stored(writer, reader, end_time=span(1).start_time - 5).duration_ns == -5


def test_a_parent_with_a_trace_state_of_its_own_is_kept(
    writer: StoreWriter, reader: StoreReader
) -> None:
    parent = SpanContext(1, 9, True, TraceFlags(1), TraceState([("vendor", "x")]))
    assert _stored(writer, reader, parent=parent).parent == parent


def test_spans_of_another_sdk_are_stored_whole(writer: StoreWriter, reader: StoreReader) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("lib", "1", "https://schema", {"scope": True})
    with (
        tracer.start_as_current_span("outer", attributes={"list": ["a", "b"], "n": 1}),
        pytest.raises(ZeroDivisionError),
        tracer.start_as_current_span("inner"),
    ):
        raise ZeroDivisionError("by design")
    inner, outer = memory.get_finished_spans()
    assert writer.write([inner, outer]) == []
    read = {found.name: found for found in reader.trace("last")}
    assert read["outer"].attributes == {"list": ("a", "b"), "n": 1}
    assert read["outer"].instrumentation_scope.attributes == {"scope": True}
    assert read["inner"].parent == outer.context
    assert read["inner"].events[0].attributes["exception.message"] == "by design"
    assert read["inner"].status.description == "ZeroDivisionError: by design"
    provider.shutdown()


def test_the_sql_view_shows_a_row_a_span(writer: StoreWriter, path: Path) -> None:
    writer.write([span(1, name="outer"), span(2, 1, 1, name="inner", attributes={"db.rows": 3})])
    db = sqlite3.connect(path)
    found = db.execute(
        "SELECT trace_id, parent_id, name, kind, duration_ns, status, service, scope, "
        "json_extract(attributes, '$.\"db.rows\"') FROM spans WHERE parent_id IS NOT NULL"
    ).fetchall()
    db.close()
    expected = f"{1:032x}", f"{1:016x}", "inner", "INTERNAL", 10_000_000, "UNSET", "shop", "made", 3
    assert found == [expected]
