"""Span exporters: https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-exporter."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import threading
from collections.abc import Sequence
from typing import Any

import pytest

import tracekit.exporters
from tracekit.sdk import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    InMemorySpanExporter,
    SpanExporter,
    SpanExportResult,
)
from tracekit.testing import build_span

NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(tracekit.exporters.__path__)
    if not module.name.startswith("_")
)


@pytest.mark.parametrize("name", NAMES)
def test_the_three_functions(name: str) -> None:
    """An exporter must support Export, Shutdown and ForceFlush.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#interface-definition-1
    """
    plugin = importlib.import_module(f"tracekit.exporters.{name}").plugin
    for function in ("export", "shutdown", "force_flush"):
        assert callable(getattr(plugin, function))


def test_what_the_sdk_asks_of_exporters_concerning_threads_is_documented() -> None:
    """Implementations must document the concurrency that the SDK requires of exporters.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-exporter
    """
    assert "Concurrency:" in (SpanExporter.__doc__ or "")


def test_export_does_not_block_for_ever() -> None:
    """There is a reasonable upper limit, after which the call counts as failed.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#exportbatch
    """
    may_go_on = threading.Event()

    class Stuck(SpanExporter):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            may_go_on.wait(20)
            return SpanExportResult.SUCCESS

    processor = BatchSpanProcessor(Stuck(), export_timeout_millis=50)
    processor.on_end(build_span("a"))
    assert processor.force_flush(10_000) is False
    assert processor.stats()["exporters"][0]["failed"] == {"timeout": 1}
    may_go_on.set()
    processor.shutdown()


def test_a_batch_that_failed_is_dropped() -> None:
    """Failure means that the batch must be dropped: processors do not retry.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#exportbatch
    """
    seen: list[str] = []

    class Refusing(SpanExporter):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            seen.extend(span.name for span in spans)
            return SpanExportResult.FAILURE

    processor = BatchSpanProcessor(Refusing())
    for name in ("a", "b"):
        processor.on_end(build_span(name))
        processor.force_flush(10_000)
    processor.shutdown()
    assert seen == ["a", "b"]


def test_export_after_shutdown_fails() -> None:
    """After Shutdown, Export should return Failure.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown-2
    """
    exporter = InMemorySpanExporter()
    exporter.shutdown()
    assert exporter.export([build_span("a")]) is SpanExportResult.FAILURE


def test_the_in_memory_exporter_keeps_spans(tracer: Any, exporter: InMemorySpanExporter) -> None:
    """There is an in-memory exporter.

    https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/
    """
    tracer.start_span("a").end()
    assert [span.name for span in exporter.get_finished_spans()] == ["a"]


def test_the_standard_output_exporter_writes_spans() -> None:
    """There is an exporter to standard output, for debugging and learning.

    https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/stdout/
    """
    out = io.StringIO()
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None))
    exporter.export([build_span("checkout")])
    assert json.loads(out.getvalue())["name"] == "checkout"
