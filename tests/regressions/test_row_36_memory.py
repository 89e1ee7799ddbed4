"""Row 36: memory is bounded: open spans, endless values, full queues, many reconfigurations.

sentry-python#2722, ddtrace#1484, #972, #680.
"""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref

import pytest

import tracekit
from processors.doubles import Hanging
from tracekit.processors import _lane
from tracekit.sdk import (
    BatchSpanProcessor,
    InMemorySpanExporter,
    SpanExporter,
    SpanExportResult,
    TracerProvider,
)
from tracekit.testing import build_span


def test_spans_that_are_never_ended_are_not_kept(exporter):
    tracer = tracekit.get_tracer()
    span = tracer.start_span("forgotten")
    reference = weakref.ref(span)
    del span
    gc.collect()
    assert reference() is None
    assert tracekit.stats()["live"] == 1


def test_spans_that_are_exported_are_not_kept_until_others_come():
    class Discarding(SpanExporter):
        def export(self, spans):
            return SpanExportResult.SUCCESS

    tracekit.configure(exporters=[Discarding()])
    gone = threading.Event()
    with tracekit.span("last") as span:
        reference = weakref.ref(span, lambda _: gone.set())
    del span
    tracekit.flush(10)
    assert gone.wait(10), reference()


def test_one_span_keeps_no_more_than_its_limits(exporter):
    with tracekit.span("busy") as span:
        for number in range(10_000):
            span.set_attribute(f"key{number}", number)
            span.add_event("event", {f"key{key}": key for key in range(200)})
            span.add_link(span.get_span_context())
    (ended,) = exporter.get_finished_spans()
    assert (len(ended.attributes), len(ended.events), len(ended.links)) == (128, 128, 128)
    assert ended.dropped_attributes == 10_000 - 128
    assert ended.dropped_events == 10_000 - 128
    assert ended.dropped_links == 10_000 - 128
    assert len(ended.events[0].attributes) == 128


def test_a_stack_trace_is_bounded(exporter):
    def fall(depth):
        if depth:
            fall(depth - 1)
        else:
            raise ValueError("x" * 10_000_000)

    with pytest.raises(ValueError, match="x"), tracekit.span("a"):
        fall(800)
    trace_text = exporter.get_finished_spans()[0].events[0].attributes["exception.stacktrace"]
    assert len(trace_text) < 300_000


def test_an_exporter_that_hangs_holds_a_bounded_number_of_bytes(monkeypatch):
    monkeypatch.setattr(_lane, "MAX_LANE_BYTES", 1_000_000)
    exporter = Hanging()
    processor = BatchSpanProcessor(exporter, schedule_delay_millis=5)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")
    for _ in range(200):
        tracer.start_span("fat", attributes={"fat": "x" * 50_000}).end()
    processor.force_flush(300)
    lane = processor.stats()["exporters"][0]
    assert 0 < lane["pending"] <= 20
    assert lane["dropped"]["queue_full"] == 200 - lane["pending"]
    exporter.may_go_on.set()
    provider.shutdown(5.0)


def test_configuring_again_and_again_leaves_no_threads_and_little_memory():
    def once():
        tracekit.configure(exporters=[InMemorySpanExporter()])
        with tracekit.span("a"):
            pass
        tracekit.flush(10)

    def kept_by(times: int) -> int:
        tracemalloc.start()
        for _ in range(times):
            once()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return kept

    for _ in range(5):
        once()
    threads = threading.active_count()
    # Tables of the interpreter grow by jumps, such as that of interned strings; not twice.
    kept = min(kept_by(15), kept_by(15))
    for thread in threading.enumerate():
        if thread.name.startswith("tracekit-") and threading.active_count() > threads:
            thread.join(10)
    assert threading.active_count() <= threads
    assert kept < 1_000_000


def test_processors_and_providers_that_are_dropped_are_gone():
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(InMemorySpanExporter())
    provider.add_span_processor(processor)
    processor.on_end(build_span("a"))
    provider.shutdown(5.0)
    references = [weakref.ref(provider), weakref.ref(processor)]
    for thread in threading.enumerate():
        if thread.name.startswith("tracekit-"):
            thread.join(5)
    del provider, processor
    gc.collect()
    assert [reference() for reference in references] == [None, None]
