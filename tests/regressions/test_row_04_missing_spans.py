"""Row 4: what became of every span can be asked, and flush tells the truth.

contrib#4916, #3696, vllm#56696, opentelemetry-python#3482, sentry-python#5308.
"""

from __future__ import annotations

import pytest

import tracekit
from processors.doubles import Answering, Raising, Recording
from tracekit.sdk import BatchSpanProcessor, SpanExportResult


def ends(stats):
    """Return where the spans of each exporter are."""
    return [
        (lane["exported"], sum(lane["failed"].values()), sum(lane["dropped"].values()))
        for part in stats["processors"]
        for lane in part["exporters"]
    ]


def spans(count):
    for _ in range(count):
        with tracekit.span("a"):
            pass


def test_ten_in_ten_out_and_the_ledger_says_so():
    exporter = Recording()
    tracekit.configure(exporters=[exporter])
    spans(10)
    assert tracekit.flush(10)
    stats = tracekit.stats()
    assert len(exporter.names) == 10
    assert (stats["started"], stats["ended"], stats["live"], ends(stats)) == (
        10,
        10,
        0,
        [(10, 0, 0)],
    )


@pytest.mark.parametrize("exporter", [Raising(), Answering(SpanExportResult.FAILURE)])
def test_flush_is_false_when_the_export_failed(exporter):
    tracekit.configure(exporters=[exporter])
    spans(3)
    assert tracekit.flush(10) is False
    assert ends(tracekit.stats()) == [(0, 3, 0)]


def test_flush_is_false_when_one_of_two_exporters_failed():
    alive = Recording()
    tracekit.configure(exporters=[Raising(), alive])
    spans(3)
    assert tracekit.flush(10) is False
    assert ends(tracekit.stats()) == [(0, 3, 0), (3, 0, 0)]


def test_flush_is_false_when_spans_were_dropped_since_the_last_one():
    exporter = Recording()
    batch = BatchSpanProcessor(exporter, max_queue_size=1, schedule_delay_millis=60_000)
    tracekit.configure(exporters="none", processors=[batch])
    batch._attention_at = 2  # as if the worker had been asked and had no turn yet
    spans(3)
    assert tracekit.flush(10) is False
    stats = tracekit.stats()
    dropped = sum(stats["processors"][0]["dropped"].values()) + ends(stats)[0][2]
    assert dropped == 3 - len(exporter.names) > 0
    assert tracekit.flush(10) is True


def test_sampled_out_late_and_open_spans_are_in_the_ledger():
    tracekit.configure(exporters="none", sampler="always_off")
    spans(5)
    assert tracekit.stats()["sampled_out"] == 5
    tracekit.configure(exporters="none", sampler="always_on")
    open_span = tracekit.get_tracer().start_span("open")
    assert tracekit.stats()["live"] == 1
    open_span.end()
    open_span.set_attribute("too", "late")
    stats = tracekit.stats()
    assert (stats["live"], stats["late_writes"]) == (0, 1)
