"""What other tracers and servers wrote is analysed like our own spans."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from tracekit.findings import find_all
from tracekit.formats._reading import TraceFile
from tracekit.model import Finding
from tracekit.trace import traces_of

FORMATS = Path(__file__).parents[1] / "formats"
SAMPLES, RECORDED = FORMATS / "samples", FORMATS / "recording"


def found_in(content: bytes) -> dict[str, Finding]:
    (trace,) = traces_of(TraceFile(io.BytesIO(content)))
    return {item.kind: item for item in find_all(trace)}


@pytest.mark.parametrize("server", ["datadog", "jaeger", "zipkin"])
def test_a_download_from_a_server_tells_the_story_of_the_checkout(server: str) -> None:
    found = found_in((SAMPLES / f"{server}_json.json").read_bytes())
    first = next(iter(found.values()))
    assert (first.kind, first.service) == ("slow_step", "payment")
    assert "until it timed out" in first.message
    assert first.cost_ns == pytest.approx(2_850_000_000, rel=0.01)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_what_another_tracer_recorded_tells_the_story_of_the_shop(path: Path) -> None:
    """``record.py`` beside the recordings made them: the same shop, under each tracer."""
    found = found_in(path.read_bytes())
    assert next(iter(found)) == "slow_step"
    assert {"slow_step", "redundant_calls", "first_failure"} <= {*found}
    slow, again = found["slow_step"], found["redundant_calls"]
    assert slow.message.startswith("front waited for back in GET /score until it timed out (")
    assert slow.share == pytest.approx(0.75, abs=0.05)
    assert "GET /users/7 was asked 3 times by front" in again.message
    assert len(again.spans) == 3
    if path.stem != "opentelemetry_js":  # a server on Node.js ends when its caller hangs up
        assert "front gave up on back after" in found["timeouts"].message
    assert "the request went on as if it had not" in found["first_failure"].message


def test_the_recordings_are_of_several_tracers() -> None:
    assert len([*RECORDED.glob("*.json")]) >= 4


@pytest.fixture
def sdk() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """OpenTelemetry's own SDK, and its own instrumentation of sqlite3."""
    provider = TracerProvider(resource=Resource.create({"service.name": "orders"}))
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    SQLite3Instrumentor().instrument(tracer_provider=provider)
    yield provider, exporter
    SQLite3Instrumentor().uninstrument()
    provider.shutdown()


def test_what_the_sdk_of_opentelemetry_wrote_is_analysed(sdk) -> None:
    provider, exporter = sdk
    database = sqlite3.connect(":memory:")
    cursor = database.cursor()  # a connection's own execute() is not traced by it
    cursor.execute("CREATE TABLE settings (name, value)")
    exporter.clear()
    with provider.get_tracer("test").start_as_current_span("GET /page") as root:
        for _ in range(8):
            cursor.execute("SELECT * FROM settings WHERE name = 'theme'").fetchone()
        root.set_status(Status(StatusCode.ERROR, "no theme"))
    database.close()
    # The protobuf library's own JSON: ids in base64, numbers of 64 bits as texts.
    written = MessageToJson(encode_spans(exporter.get_finished_spans()))
    found = found_in(written.encode())
    assert {"redundant_calls", "first_failure"} <= set(found)
    assert len(found["redundant_calls"].spans) == 8
    assert found["redundant_calls"].service == "orders"
