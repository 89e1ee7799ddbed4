"""The simple processor exports on the spot and survives its exporter."""

from __future__ import annotations

import threading

import pytest

from processors.doubles import Answering, Raising, Recording
from tracekit.sdk import SimpleSpanProcessor, SpanExportResult, TracerProvider
from tracekit.testing import build_span


def test_a_span_is_exported_when_it_ends():
    exporter = Recording()
    SimpleSpanProcessor(exporter).on_end(build_span("a"))
    assert exporter.names == ["a"]


@pytest.mark.parametrize(
    ("exporter", "failed"),
    [
        (Raising(), {"raised RuntimeError": 1}),
        (Answering(SpanExportResult.FAILURE), {"refused": 1}),
    ],
)
def test_a_failure_is_counted_and_reaches_nobody(exporter, failed):
    processor = SimpleSpanProcessor(exporter)
    processor.on_end(build_span("a"))
    assert processor.stats()["exporters"][0]["failed"] == failed


def test_a_span_that_the_exporter_makes_is_dropped_and_counted():
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("t")

    class Tracing(Recording):
        def export(self, spans):
            tracer.start_span("own").end()
            return super().export(spans)

    exporter = Tracing()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer.start_span("a").end()
    assert exporter.names == ["a"]
    (ledger,) = provider.stats()["processors"]
    assert ledger["received"] == 2
    assert ledger["exporters"][0]["dropped"] == {"made_by_exporter": 1}


def test_one_span_at_a_time_is_exported():
    busy, most = [0], [0]

    class Counting(Recording):
        def export(self, spans):
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            threading.Event().wait(0.001)
            busy[0] -= 1
            return super().export(spans)

    exporter = Counting()
    processor = SimpleSpanProcessor(exporter)
    span = build_span("a")
    threads = [
        threading.Thread(target=lambda: [processor.on_end(span) for _ in range(5)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(exporter.names)) == (1, 40)


def test_after_shutdown_spans_are_counted_only():
    exporter = Recording()
    processor = SimpleSpanProcessor(exporter)
    processor.shutdown()
    processor.shutdown()
    processor.on_end(build_span("a"))
    assert (exporter.names, exporter.shutdowns) == ([], 1)
    assert processor.stats()["exporters"][0]["dropped"] == {"after_shutdown": 1}
