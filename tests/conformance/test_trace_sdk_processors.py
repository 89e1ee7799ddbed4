"""Span processors: https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-processor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from tracekit.sdk import (
    ALWAYS_OFF,
    ALWAYS_ON,
    BatchSpanProcessor,
    InMemorySpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
    SpanProcessor,
    TracerProvider,
)
from tracekit.testing import build_span


class Noting(SpanProcessor):
    """Notes its calls, with its name, into a list that several share."""

    def __init__(self, name: str = "", log: list[str] | None = None) -> None:
        self.name, self.log = name, [] if log is None else log
        self.contexts: list[Any] = []
        self.threads: list[int] = []

    def _note(self, call: str) -> None:
        self.log.append(f"{self.name}{call}")
        self.threads.append(threading.get_ident())

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self._note("start")
        self.contexts.append(parent_context)

    def on_ending(self, span: Any) -> None:
        self._note("ending")

    def on_end(self, span: Any) -> None:
        self._note("end")


class Ending(SpanProcessor):
    """Calls a function with the span that is ending."""

    def __init__(self, call: Callable[[Any], None]) -> None:
        self._call = call

    def on_ending(self, span: Any) -> None:
        self._call(span)


class Watchful(SpanExporter):
    """Notes how many calls of ``export`` ran at the same time, and all other calls."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.calls: list[str] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(0.001)
        with self._lock:
            self._now -= 1
        self.names.extend(span.name for span in spans)
        self.calls.append("export")
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.calls.append("force_flush")
        return True

    def shutdown(self) -> None:
        self.calls.append("shutdown")


BUILT_IN = [SimpleSpanProcessor, BatchSpanProcessor]


def test_the_interface_declares_its_methods() -> None:
    """OnStart, OnEnd, Shutdown, ForceFlush must, and OnEnding should be declared.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#interface-definition
    """
    for name in ("on_start", "on_ending", "on_end", "shutdown", "force_flush"):
        assert callable(getattr(SpanProcessor, name))


def test_processors_are_called_in_the_order_of_registration(make_provider: Any) -> None:
    """Callbacks are invoked in the order in which the processors were registered.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onstart
    """
    log: list[str] = []
    provider = make_provider(Noting("1.", log), Noting("2.", log))
    provider.get_tracer("library").start_span("a").end()
    assert log == ["1.start", "2.start", "1.ending", "2.ending", "1.end", "2.end"]


def test_a_method_that_was_set_on_the_object_is_called(make_provider: Any) -> None:
    """Users can implement and configure custom processors, in whatever way.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-processor
    """
    ended: list[Any] = []
    processor: Any = SpanProcessor()
    processor.on_end = ended.append
    span = make_provider(processor).get_tracer("library").start_span("a")
    span.end()
    assert ended == [span]


def test_they_are_called_only_for_recording_spans(make_provider: Any) -> None:
    """Processors are invoked only when IsRecording is true.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-processor
    """
    noting = Noting()
    make_provider(noting, sampler=ALWAYS_OFF).get_tracer("library").start_span("a").end()
    assert noting.log == []


def test_they_are_called_on_the_thread_of_the_caller(make_provider: Any) -> None:
    """OnStart, OnEnding and OnEnd are called synchronously.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onendspan
    """
    noting = Noting()
    make_provider(noting).get_tracer("library").start_span("a").end()
    assert noting.threads == [threading.get_ident()] * 3


def test_each_pipeline_can_end_with_an_exporter_of_its_own() -> None:
    """Each processor begins a pipeline, which can end with its own exporter.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-processor
    """
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    provider = TracerProvider(shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("library").start_span("a").end()
    provider.shutdown()
    assert [len(exporter.get_finished_spans()) for exporter in exporters] == [1, 1]


PARENT = trace.set_span_in_context(trace.NonRecordingSpan(SpanContext(1, 2, True)), Context())


@pytest.mark.parametrize("context", [PARENT, Context(), Context({"key": "value"})])
def test_on_start_gets_the_parent_context(make_provider: Any, context: Context) -> None:
    """OnStart gets the parent context that the SDK determined.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onstart
    """
    noting = Noting()
    tracer = make_provider(noting, sampler=ALWAYS_ON).get_tracer("library")
    tracer.start_span("a", context)
    assert noting.contexts == [context]


def test_on_start_gets_the_current_context_when_none_was_given(make_provider: Any) -> None:
    """The same: the current context is the one that was determined.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onstart
    """
    noting = Noting()
    tracer = make_provider(noting).get_tracer("library")
    with tracer.start_as_current_span("outer") as outer:
        tracer.start_span("inner").end()
    assert trace.get_current_span(noting.contexts[1]) is outer


# OnEnding ----------------------------------------------------------------------------------


def test_the_end_time_is_known_in_on_ending(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """The end timestamp has been computed: what OnEnding takes is not part of the span.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onending
    """
    seen: list[Any] = []

    def slow(span: Any) -> None:
        seen.append(span.end_time)
        time.sleep(0.05)

    make_provider(Ending(slow)).get_tracer("library").start_span("a").end()
    (span,) = exporter.get_finished_spans()
    assert seen == [span.end_time]
    assert span.end_time is not None
    assert span.end_time - span.start_time < 50_000_000


@pytest.mark.parametrize("scoped", [True, False])
def test_a_span_can_be_written_to_in_on_ending(
    make_provider: Any, exporter: InMemorySpanExporter, scoped: bool
) -> None:
    """The span is still mutable while OnEnding is called, also after it was read.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onending
    """

    def write(span: Any) -> None:
        assert span.is_recording()
        assert "late" not in span.attributes
        span.set_attribute("late", 1)
        span.add_event("late")
        span.add_link(SpanContext(1, 2, False))
        span.update_name("late")
        span.set_status(trace.StatusCode.ERROR, "late")

    tracer = make_provider(Ending(write)).get_tracer("library")
    if scoped:
        with tracer.start_as_current_span("a"):
            pass
    else:
        tracer.start_span("a").end()
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.attributes, len(span.links)) == ("late", {"late": 1}, 1)
    assert (span.events[0].name, span.status.description) == ("late", "late")


def test_no_other_thread_can_write_once_on_ending_has_begun(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """From OnEnding on, the span can no longer be modified by any other thread.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onending
    """

    def meanwhile(span: Any) -> None:
        other = threading.Thread(target=span.set_attribute, args=("other", 1))
        other.start()
        other.join()
        span.set_attribute("own", 1)

    make_provider(Ending(meanwhile)).get_tracer("library").start_span("a").end()
    assert exporter.get_finished_spans()[0].attributes == {"own": 1}


def test_two_threads_that_end_a_span_end_it_once(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """OnEnding is called within one End; later calls of End are ignored.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onending
    """
    endings: list[Any] = []

    def again(span: Any) -> None:
        endings.append(span)
        other = threading.Thread(target=span.end)
        other.start()
        other.join()
        span.end()

    make_provider(Ending(again)).get_tracer("library").start_span("a").end()
    assert len(endings) == len(exporter.get_finished_spans()) == 1


def test_after_on_ending_nothing_can_be_written(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """In OnEnd the span has ended, and modifying it is not allowed.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#onendspan
    """

    class Writing(Noting):
        def on_end(self, span: Any) -> None:
            assert not span.is_recording()
            span.set_attribute("late", 1)

    make_provider(Writing()).get_tracer("library").start_span("a").end()
    assert exporter.get_finished_spans()[0].attributes == {}


# The built-in processors -------------------------------------------------------------------


@pytest.mark.parametrize("processor_type", BUILT_IN)
def test_force_flush_exports_everything_and_flushes_the_exporter(processor_type: Any) -> None:
    """The built-in processors export what they have and then call the exporter's ForceFlush.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#forceflush-1
    """
    exporter = Watchful()
    processor = processor_type(exporter)
    for number in range(3):
        processor.on_end(build_span(str(number)))
    assert processor.force_flush(10_000) is True
    assert exporter.names == ["0", "1", "2"]
    assert exporter.calls[-1] == "force_flush"
    processor.shutdown()


@pytest.mark.parametrize("processor_type", BUILT_IN)
def test_shutdown_includes_the_effects_of_force_flush(processor_type: Any) -> None:
    """Shutdown exports what is queued, flushes the exporter, and shuts it down, once.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown-1
    """
    exporter = Watchful()
    processor = processor_type(exporter)
    processor.on_end(build_span("a"))
    processor.shutdown()
    processor.shutdown()
    assert exporter.calls == ["export", "force_flush", "shutdown"]


@pytest.mark.parametrize("processor_type", BUILT_IN)
def test_calls_after_shutdown_are_ignored_gracefully(processor_type: Any) -> None:
    """OnStart, OnEnd and ForceFlush are not allowed after Shutdown, and do no harm.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown-1
    """
    exporter = Watchful()
    processor = processor_type(exporter)
    processor.shutdown()
    processor.on_start(build_span("a"))
    processor.on_end(build_span("a"))
    processor.force_flush(100)
    assert exporter.names == []


@pytest.mark.parametrize("processor_type", BUILT_IN)
def test_export_is_not_called_concurrently(processor_type: Any) -> None:
    """The processors synchronise calls of Export.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#simple-processor
    https://opentelemetry.io/docs/specs/otel/trace/sdk/#batching-processor
    """
    exporter = Watchful()
    processor = processor_type(exporter)

    def work() -> None:
        for number in range(20):
            processor.on_end(build_span(str(number)))
            processor.force_flush(10_000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processor.shutdown()
    assert (exporter.most_at_once, len(exporter.names)) == (1, 80)


def test_a_flush_honours_its_timeout_before_it_finishes() -> None:
    """With a timeout, honouring it is more important than finishing all calls.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#forceflush-1
    """
    may_go_on = threading.Event()

    class Stuck(Watchful):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            may_go_on.wait(20)
            return super().export(spans)

    processor = BatchSpanProcessor(Stuck())
    processor.on_end(build_span("a"))
    begun = time.monotonic()
    assert processor.force_flush(100) is False
    assert time.monotonic() - begun < 5
    may_go_on.set()
    processor.shutdown()


def test_the_simple_processor_exports_when_a_span_ends() -> None:
    """The simple processor passes a span on as soon as it has ended.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#simple-processor
    """
    exporter = Watchful()
    SimpleSpanProcessor(exporter).on_end(build_span("a"))
    assert exporter.names == ["a"]
