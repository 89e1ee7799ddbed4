"""Row 23: the global provider can be reconfigured, reset and kept apart in tests.

opentelemetry-python#4557, specification#3302, latitude PR#3147, py-shiny PR#2392.
"""

from __future__ import annotations

import pytest
from opentelemetry import trace

import tracekit
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor, TracerProvider
from tracekit.testing import capture_spans, reset

LIBRARY = trace.get_tracer("a library that took its tracer at import")


@pytest.mark.parametrize("turn", range(3))
def test_each_test_sees_its_own_spans_only(turn):
    with capture_spans() as exporter:
        LIBRARY.start_span(f"turn {turn}").end()
    assert [span.name for span in exporter.get_finished_spans()] == [f"turn {turn}"]


def test_after_a_reset_nothing_records_and_the_next_configure_works():
    tracekit.configure(exporters="memory")
    assert LIBRARY.start_span("a").is_recording()
    reset()
    assert not LIBRARY.start_span("b").is_recording()
    exporter = InMemorySpanExporter()
    tracekit.configure(exporters=[exporter])
    LIBRARY.start_span("c").end()
    assert tracekit.flush(10)
    assert [span.name for span in exporter.get_finished_spans()] == ["c"]


def test_settings_of_one_test_are_not_those_of_the_next():
    with capture_spans(service_name="first", sampler="always_off"):
        pass
    with capture_spans() as exporter, tracekit.span("a"):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] != "first"


def test_a_provider_of_ones_own_beside_the_global_one():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with capture_spans() as captured:
        provider.get_tracer("t").start_span("own").end()
        with tracekit.span("global"):
            pass
    assert [span.name for span in exporter.get_finished_spans()] == ["own"]
    assert [span.name for span in captured.get_finished_spans()] == ["global"]


def test_setting_a_provider_by_hand_and_configuring_it_later(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace._TRACER_PROVIDER_SET_ONCE, "_done", False)
    reset()
    from tracekit.configure import _state

    monkeypatch.setattr(_state, "provider", None)
    mine = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(mine)
    exporter = InMemorySpanExporter()
    assert tracekit.configure(exporters=[exporter]) is mine
    with tracekit.span("a"):
        pass
    assert tracekit.flush(10)
    assert [span.name for span in exporter.get_finished_spans()] == ["a"]
    reset()
