"""Row 40: children lie within their parents, whatever is done to the wall clock.

posthog-js PR#4908, sentry-python#631, tempo#3930.
"""

from __future__ import annotations

import threading
import time

import pytest

import tracekit
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor, TracerProvider
from tracekit.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def manual(clock):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, clock=clock.clock)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("t"), exporter


@pytest.mark.parametrize("step_s", [-86_400, -1, 1, 86_400])
def test_a_step_of_the_wall_clock_neither_moves_nor_stretches_what_is_under_way(
    manual, clock, step_s
):
    tracer, exporter = manual
    with tracer.start_as_current_span("root"):
        clock.advance(1)
        with tracer.start_as_current_span("child") as child:
            clock.step_wall_clock(step_s)
            clock.advance(2)
            child.add_event("event")
            tracer.start_span("sibling").end()
        clock.advance(1)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root, child = spans["root"], spans["child"]
    assert root.end_time - root.start_time == 4_000_000_000
    assert child.end_time - child.start_time == 2_000_000_000
    assert root.start_time + 1_000_000_000 == child.start_time
    assert child.start_time <= child.events[0].timestamp <= child.end_time
    assert child.end_time >= spans["sibling"].start_time


def test_the_next_root_has_the_new_wall_time(manual, clock):
    tracer, exporter = manual
    tracer.start_span("before").end()
    clock.step_wall_clock(3_600)
    tracer.start_span("after").end()
    before, after = exporter.get_finished_spans()
    assert after.start_time - before.start_time == 3_600_000_000_000


def test_real_children_lie_within_their_parents_to_the_nanosecond(exporter):
    def work():
        for _ in range(300):
            with tracekit.span("root"), tracekit.span("child"), tracekit.span("grandchild"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    assert len(spans) == 3_600
    for span in spans.values():
        assert span.end_time >= span.start_time
        if span.parent:
            parent = spans[span.parent.span_id]
            assert parent.start_time <= span.start_time
            assert span.end_time <= parent.end_time


def test_times_are_those_of_the_wall_clock(exporter):
    before = time.time_ns()
    with tracekit.span("a"):
        pass
    after = time.time_ns()
    (span,) = exporter.get_finished_spans()
    assert before - 1_000_000 <= span.start_time <= span.end_time <= after + 1_000_000
