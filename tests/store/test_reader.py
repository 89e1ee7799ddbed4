"""The questions that commands ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind

from store.records import EPOCH, MS, ids, service, span
from tracekit.errors import StoreError
from tracekit.store.query import SpanFilter, TraceFilter
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter


@pytest.fixture
def shop(writer: StoreWriter) -> StoreWriter:
    """Three traces: 1 is fast, 2 slow, 3 failed; 3 started last."""
    gateway, orders = service("gateway"), service("orders")
    writer.write(
        [
            span(10, 1, name="GET /", at_ms=0, for_ms=10, resource=gateway, kind=SpanKind.SERVER),
            span(11, 1, 10, name="query", at_ms=1, for_ms=5, attributes={"db.rows": 3}),
            span(20, 2, name="GET /slow", at_ms=100, for_ms=3000, resource=gateway),
            span(21, 2, 20, name="query", at_ms=101, for_ms=2900, attributes={"db.rows": 9}),
            span(30, 3, name="POST /", at_ms=200, for_ms=50, resource=gateway),
            span(31, 3, 30, name="charge", at_ms=210, for_ms=20, resource=orders, failed=True),
        ]
    )
    return writer


def _traces(reader: StoreReader, **conditions: object) -> list[int]:
    return [found.trace_id for found in reader.traces(**conditions)]  # type: ignore[arg-type]


@pytest.mark.usefixtures("shop")
class TestLists:
    def test_newest_first(self, reader: StoreReader) -> None:
        assert _traces(reader) == [3, 2, 1]

    def test_slowest_first(self, reader: StoreReader) -> None:
        assert _traces(reader, order="slowest") == [2, 3, 1]

    def test_as_many_as_asked_for(self, reader: StoreReader) -> None:
        assert _traces(reader, limit=2) == [3, 2]
        assert _traces(reader, limit=0) == []

    def test_a_summary_tells_the_trace(self, reader: StoreReader) -> None:
        summary = reader.summary(3)
        assert (summary.name, summary.service) == ("POST /", "gateway")
        assert summary.services == ("gateway", "orders")
        assert (summary.span_count, summary.error_count, summary.failed) == (2, 1, False)
        assert (summary.start_ns, summary.duration_ns) == (EPOCH + 200 * MS, 50 * MS)

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (TraceFilter(errors_only=True), [3]),
            (TraceFilter(min_duration_ns=50 * MS), [3, 2]),
            (TraceFilter(max_duration_ns=50 * MS), [3, 1]),
            (TraceFilter(since_ns=EPOCH + 100 * MS), [3, 2]),
            (TraceFilter(until_ns=EPOCH + 100 * MS), [1]),
            (TraceFilter(since_ns=EPOCH + 1, until_ns=EPOCH + 150 * MS), [2]),
        ],
    )
    def test_by_conditions_on_the_trace(
        self, reader: StoreReader, where: TraceFilter, expected: list[int]
    ) -> None:
        assert _traces(reader, where=where) == expected

    @pytest.mark.parametrize(
        ("spans", "expected"),
        [
            (SpanFilter(name="query"), [2, 1]),
            (SpanFilter(name="quer"), []),
            (SpanFilter(service="orders"), [3]),
            (SpanFilter(service="orders", name="query"), []),
            (SpanFilter(attributes={"db.rows": 9}), [2]),
            (SpanFilter(attributes={"db.rows": "9"}), [2]),
            (SpanFilter(attributes={"db.rows": 9.0}), [2]),
            (SpanFilter(attributes={"db.rows": 10}), []),
            (SpanFilter(attributes={"service.name": "orders"}), [3]),
            (SpanFilter(attributes={"service.name": "nobody"}), []),
            (SpanFilter(min_duration_ns=2900 * MS), [2]),
            (SpanFilter(errors_only=True), [3]),
            (SpanFilter(errors_only=True, name="POST /"), []),
        ],
    )
    def test_by_conditions_on_one_span(
        self, reader: StoreReader, spans: SpanFilter, expected: list[int]
    ) -> None:
        assert _traces(reader, spans=spans) == expected

    def test_conditions_must_be_met_by_the_same_span(
        self, reader: StoreReader, shop: StoreWriter
    ) -> None:
        shop.write([span(1, 4, attributes={"a": 1}), span(2, 4, 1, attributes={"b": 2})])
        assert _traces(reader, spans=SpanFilter(attributes={"a": 1, "b": 2})) == []
        shop.write([span(3, 4, 1, attributes={"a": 1, "b": 2})])
        assert _traces(reader, spans=SpanFilter(attributes={"a": 1, "b": 2})) == [4]

    def test_both_kinds_of_condition_hold(self, reader: StoreReader) -> None:
        where, spans = TraceFilter(max_duration_ns=100 * MS), SpanFilter(name="query")
        assert _traces(reader, where=where, spans=spans) == [1]

    def test_spans_that_match(self, reader: StoreReader) -> None:
        assert ids(reader.spans(spans=SpanFilter(name="query"))) == [21, 11]
        assert ids(reader.spans(limit=1, spans=SpanFilter(name="query"))) == [21]

    def test_services(self, reader: StoreReader) -> None:
        assert reader.services() == ["gateway", "orders", "shop"]

    def test_size_and_counts(self, reader: StoreReader, path: Path) -> None:
        stats = reader.stats()
        assert (stats.traces, stats.spans, stats.unfinished) == (3, 6, 0)
        assert (stats.oldest_ns, stats.newest_ns) == (EPOCH, EPOCH + 200 * MS)
        assert stats.size_bytes >= path.stat().st_size


@pytest.mark.parametrize(
    ("stored", "wanted", "is_found"),
    [
        (True, True, True),
        (True, "true", True),
        (True, 1, False),
        (1, True, False),
        (1.5, "1.5", True),
        (None, None, True),
        (b"x", b"x", True),
        (b"x", b"y", False),
        (("a", "b"), "b", True),
        (("a", "b"), ("a", "b"), True),
        (("a", "b"), "c", False),
        (["a", "b"], "b", True),
        ({"in": 1}, {"in": 1}, True),
        (2**70, 2**70, True),
        (2**70, str(2**70), True),
        ("x" * 400_000, "x", False),
        ("naïve ☃", "naïve ☃", True),
        ("\ud800", "\ud800", True),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        ("200", 200, False),
        ("007", "7", False),
    ],
)
def test_attributes_of_every_type_are_found(
    writer: StoreWriter, reader: StoreReader, stored: object, wanted: object, is_found: bool
) -> None:
    writer.write([span(1, attributes={"key": stored, "other": 1})])
    found = reader.traces(spans=SpanFilter(attributes={"key": wanted}))
    assert bool(found) is is_found


def test_a_rare_match_is_found_among_many_traces(writer: StoreWriter, reader: StoreReader) -> None:
    for first in range(0, 5000, 500):
        writer.write(
            [
                span(1, trace, at_ms=trace, attributes={"n": trace, "all": "same"})
                for trace in range(first + 1, first + 501)
            ]
        )
    assert _traces(reader, spans=SpanFilter(attributes={"n": 17})) == [17]
    assert _traces(reader, limit=3, spans=SpanFilter(attributes={"all": "same"})) == [
        *(5000, 4999, 4998)
    ]
    slow = TraceFilter(until_ns=EPOCH + 4000 * MS)
    assert _traces(reader, limit=1, where=slow, spans=SpanFilter(attributes={"all": "same"})) == [
        3999
    ]


# --- naming a trace ---------------------------------------------------------------------------


def test_last_is_the_trace_whose_local_root_started_last(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(1, 1, at_ms=50)])
    writer.write([span(1, 2, at_ms=40)])
    writer.write([span(2, 3, 1, at_ms=60, name="orphan")])
    assert reader.resolve("last") == 1


def test_last_may_still_be_under_way(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1, 1)])
    writer.write_started([span(1, 2, at_ms=5)])
    assert reader.resolve("last") == 2


def test_a_store_of_orphans_has_a_last_trace_too(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(2, 3, 1)])
    assert reader.resolve() == 3


@pytest.mark.parametrize(
    "text", ["a1", "A1B", "0xa1b2", "a1b2" + "0" * 27 + "1", 0xA1B2 << 112 | 1]
)
def test_the_beginning_of_an_id_is_enough(
    writer: StoreWriter, reader: StoreReader, text: str | int
) -> None:
    writer.write([span(1, 0xA1B2 << 112 | 1), span(1, 0xA2 << 120 | 1)])
    assert reader.resolve(text) == 0xA1B2 << 112 | 1


def test_an_ambiguous_beginning_lists_the_traces(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1, 0xA1 << 120 | 1), span(1, 0xA2 << 120 | 1)])
    with pytest.raises(StoreError, match=r"several traces begin with 'a': a10.*a20.*give more"):
        reader.trace("a")


@pytest.mark.parametrize("text", ["zz", "x" * 32, "1" * 33])
def test_what_is_no_id_is_refused(writer: StoreWriter, reader: StoreReader, text: str) -> None:
    writer.write([span(1)])
    with pytest.raises(StoreError, match="not a trace id"):
        reader.trace(text)


def test_an_unknown_trace_says_where_to_look(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1)])
    with pytest.raises(StoreError, match=r"no trace 'beef'.*tracekit ls"):
        reader.trace("beef")


def test_an_emptied_store_says_so(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1)])
    writer.clear()
    assert reader.traces() == []
    with pytest.raises(StoreError, match="no traces in"):
        reader.trace()


# --- operations and changes -------------------------------------------------------------------


def test_figures_of_operations(writer: StoreWriter, reader: StoreReader) -> None:
    spans = [span(n, n, name="op", for_ms=n, failed=n > 95) for n in range(1, 101)]
    writer.write([*spans, span(1, 200, name="other", kind=SpanKind.CLIENT)])
    op, other = reader.operations()
    assert (op.service, op.name, op.count, op.error_count) == ("shop", "op", 100, 5)
    assert (op.p50_ns, op.p95_ns, op.p99_ns, op.max_ns) == (50 * MS, 95 * MS, 99 * MS, 100 * MS)
    assert (other.name, other.kind, other.count, other.p99_ns) == ("other", 2, 1, 10 * MS)


def test_figures_of_one_operation(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1, name="a"), span(2, name="b"), span(3, name="a", resource=service("z"))])
    assert [(found.service, found.name) for found in reader.operations(name="a")] == [
        ("shop", "a"),
        ("z", "a"),
    ]
    assert [found.service for found in reader.operations(service="z")] == ["z"]


def test_figures_within_a_time(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1, 1, at_ms=0)])
    writer.write([span(1, 2, at_ms=1000)])
    (found,) = reader.operations(since_ns=EPOCH + 500 * MS)
    assert found.count == 1
    (found,) = reader.operations(until_ns=EPOCH + 500 * MS)
    assert found.count == 1


def test_changes_since_the_last_look(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1, 1)])
    before = reader.changes_since()
    assert before.trace_ids == ()
    assert reader.changes_since(before.cursor).trace_ids == ()
    writer.write([span(2, 1, 1), span(1, 2, at_ms=1)])
    writer.write_started([span(1, 3, at_ms=2)])
    after = reader.changes_since(before.cursor)
    assert after.trace_ids == (3, 2, 1)
    assert reader.changes_since(after.cursor).trace_ids == ()


def test_changes_are_seen_after_the_store_was_cleared(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(1, 1)])
    cursor = reader.changes_since().cursor
    writer.clear()
    writer.write([span(1, 2)])
    assert reader.changes_since(cursor).trace_ids == (2,)


def test_a_cursor_of_somebody_elses_is_refused(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1)])
    with pytest.raises(StoreError, match="not a cursor"):
        reader.changes_since("yesterday")


def test_a_reader_goes_on_after_a_refused_question(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(1)])
    with pytest.raises(StoreError):
        reader.trace("zz")
    assert ids(reader.trace()) == [1]
