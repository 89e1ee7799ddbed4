"""What tracekit gives to tests: captured spans, known ids and times, nothing left behind."""

from __future__ import annotations

import json
import sqlite3
import threading

import pytest
from opentelemetry import propagate, trace
from opentelemetry.trace import StatusCode

import tracekit
from tracekit.libraries import instrumentations
from tracekit.model import Event
from tracekit.testing import (
    ManualClock,
    SequentialIdGenerator,
    build_span,
    capture_spans,
    reset,
)


def test_captured_spans_are_there_as_soon_as_they_end():
    with capture_spans() as exporter:
        with tracekit.span("a"):
            pass
        assert [span.name for span in exporter.get_finished_spans()] == ["a"]


def test_a_library_that_was_watched_before_is_watched_in_each_block():
    statuses = {item.name: item for item in instrumentations()}
    tracekit.instrument("sqlite3")
    try:
        for _ in range(2):
            with capture_spans() as exporter:
                tracekit.instrument("smtplib")
                sqlite3.connect(":memory:").execute("SELECT 1").connection.close()
            assert [span.name for span in exporter.get_finished_spans()] == ["SELECT"]
            assert statuses["smtplib"].status.reason == "not instrumented"
    finally:
        tracekit.uninstrument("sqlite3")


def test_nothing_is_left_after_capturing():
    propagator, threads = propagate.get_global_textmap(), threading.active_count()
    with capture_spans(), tracekit.span("a"):
        pass
    assert propagate.get_global_textmap() is propagator
    assert threading.active_count() == threads
    assert tracekit.current_span() is trace.INVALID_SPAN
    with tracekit.span("b") as span:
        assert not span.is_recording()
    assert trace.get_tracer("t").start_span("c").is_recording() is False


def test_captures_follow_each_other_without_mixing():
    names = []
    for number in range(3):
        with capture_spans() as exporter:
            with tracekit.span(str(number)):
                pass
            names.append([span.name for span in exporter.get_finished_spans()])
            assert tracekit.stats()["started"] == 1
    assert names == [["0"], ["1"], ["2"]]


def test_a_tracer_taken_before_between_and_after_follows():
    tracer = trace.get_tracer("library")
    with capture_spans() as first:
        tracer.start_span("in first").end()
    between = trace.get_tracer("another")
    tracer.start_span("outside").end()
    with capture_spans() as second:
        tracer.start_span("in second").end()
        between.start_span("of between").end()
    assert [span.name for span in first.get_finished_spans()] == ["in first"]
    assert [span.name for span in second.get_finished_spans()] == ["in second", "of between"]


def test_capturing_takes_the_settings_of_configure():
    ids = SequentialIdGenerator()
    with capture_spans(service_name="s", id_generator=ids) as exporter, tracekit.span("a"):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == "s"
    assert (span.context.trace_id, span.context.span_id) == (1, 1)


def test_capturing_ends_also_when_the_block_fails():
    with pytest.raises(ValueError, match="no"), capture_spans():
        raise ValueError("no")
    with tracekit.span("b") as span:
        assert not span.is_recording()


def test_reset_before_anything_was_configured_and_twice():
    reset()
    reset()
    assert tracekit.flush() is True


def test_a_built_span_is_what_it_was_built_from():
    span = build_span(
        "pay",
        trace_id=5,
        span_id=6,
        parent_id=7,
        duration_ns=30,
        attributes={"a": 1},
        events=[Event("e", {}, 1)],
        status=StatusCode.ERROR,
        description="why",
        service_name="shop",
    )
    assert (span.context.trace_id, span.context.span_id, span.parent.span_id) == (5, 6, 7)
    assert span.end_time == span.start_time + 30
    assert dict(span.attributes) == {"a": 1}
    assert span.status.description == "why"
    assert span.resource.attributes["service.name"] == "shop"
    assert json.loads(span.to_json())["name"] == "pay"


def test_built_spans_have_ids_of_their_own():
    assert build_span().context.span_id != build_span().context.span_id


def test_a_manual_clock_moves_when_it_is_told_to():
    clock = ManualClock(1_000)
    assert clock.clock.wall_ns() == clock.clock.wall_ns() == 1_000
    clock.advance(1)
    clock.step_wall_clock(-1)
    assert clock.clock.wall_ns() == 1_000
    assert clock.clock.monotonic_ns() == 1_000_000_000
