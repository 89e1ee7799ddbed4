"""Row 17: whatever is instrumented or configured twice, spans come once.

contrib#439, opentelemetry-python#3275, #1043, azure-sdk#19573, openinference#2101.
"""

from __future__ import annotations

import flask
import pytest
import requests

import tracekit
from http_servers import werkzeug_server
from tracekit.sdk import InMemorySpanExporter
from tracekit.testing import reset


@pytest.fixture
def app():
    app = flask.Flask("app")

    @app.get("/")
    def index():
        return "ok"

    return app


def test_instrumented_thrice_a_call_is_one_span(ended, watch, app):
    for _ in range(3):
        watch("requests", "flask", "wsgi")
    watch()
    with werkzeug_server(app) as client:
        assert requests.get(f"http://127.0.0.1:{client.port}/").text == "ok"
        ended.server()
    assert sorted(span.kind.name for span in ended.all()) == ["CLIENT", "SERVER"]


def test_beside_opentelemetrys_own_instrumentation_a_call_is_one_span(ended, watch, slow_chunks):
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    theirs = RequestsInstrumentor()
    theirs.instrument()
    try:
        watch()
        requests.get(slow_chunks)
    finally:
        theirs.uninstrument()
    assert [span.kind.name for span in ended.all()] == ["CLIENT"]


def test_configured_twice_a_span_is_exported_once():
    before, exporter = InMemorySpanExporter(), InMemorySpanExporter()
    tracekit.configure(exporters=[before])
    tracekit.configure(exporters=[exporter, exporter])
    with tracekit.span("once"):
        pass
    assert tracekit.flush(10)
    assert [span.name for span in exporter.get_finished_spans()] == ["once"]
    assert before.get_finished_spans() == ()


def test_an_exporter_that_stays_over_a_reconfiguration_goes_on_working():
    exporter = InMemorySpanExporter()
    tracekit.configure(exporters=[exporter])
    tracekit.configure("renamed", exporters=[exporter])
    with tracekit.span("after"):
        pass
    assert tracekit.flush(10)
    assert [span.name for span in exporter.get_finished_spans()] == ["after"]


def test_decorated_twice_is_twice_because_it_was_said_twice(exporter):
    @tracekit.traced(name="outer")
    @tracekit.traced(name="inner")
    def work():
        pass

    work()
    assert [span.name for span in exporter.get_finished_spans()] == ["inner", "outer"]


def test_taken_off_and_put_on_again_a_call_is_one_span(watch, slow_chunks):
    for _ in range(2):
        exporter = InMemorySpanExporter()
        tracekit.configure(exporters=[exporter])
        watch("requests")
        requests.get(slow_chunks)
        assert tracekit.flush(10)
        assert len(exporter.get_finished_spans()) == 1
        reset()
    assert "tracekit" not in requests.Session.send.__module__
