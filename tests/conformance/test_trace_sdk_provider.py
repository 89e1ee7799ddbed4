"""The tracing SDK, provider and tracer: https://opentelemetry.io/docs/specs/otel/trace/sdk/."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

from tracekit.sdk import (
    ALWAYS_OFF,
    InMemorySpanExporter,
    Resource,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
)
from tracekit.testing import SequentialIdGenerator


class Noting(SpanProcessor):
    """Notes what it is called for."""

    def __init__(self, flushed: bool = True) -> None:
        self.calls: list[str] = []
        self.spans: list[Any] = []
        self._flushed = flushed

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.calls.append("on_start")
        self.spans.append(span)

    def on_end(self, span: Any) -> None:
        self.calls.append("on_end")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.calls.append("force_flush")
        return self._flushed

    def shutdown(self, timeout_millis: int = 30_000) -> None:
        self.calls.append("shutdown")


def test_the_provider_gives_tracers(provider: TracerProvider) -> None:
    """The provider implements Get a Tracer.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#tracer-creation
    """
    assert isinstance(provider, trace.TracerProvider)
    assert isinstance(provider.get_tracer("library"), trace.Tracer)


def test_what_was_given_is_the_scope_of_the_tracer(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Name, version, schema URL and attributes make an InstrumentationScope kept by the tracer.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#tracer-creation
    """
    provider.get_tracer("library", "1.2", "https://schema", {"team": "cart"}).start_span("a").end()
    scope = exporter.get_finished_spans()[0].instrumentation_scope
    assert (scope.name, scope.version, scope.schema_url) == ("library", "1.2", "https://schema")
    assert scope.attributes == {"team": "cart"}


@pytest.mark.parametrize("name", ["", None])
def test_without_a_name_a_working_tracer_is_returned_and_it_is_said(
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
    name: Any,
) -> None:
    """An invalid name gives a working tracer with an empty name, and a message.

    https://opentelemetry.io/docs/specs/otel/trace/api/#get-a-tracer
    """
    provider.get_tracer(name).start_span("a").end()
    assert exporter.get_finished_spans()[0].instrumentation_scope.name == ""
    assert len(caplog.records) == 1


def test_configuration_is_owned_by_the_provider() -> None:
    """Processors, id generator, limits and sampler belong to the provider and can be given.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#configuration
    """
    ids, limits, processor = SequentialIdGenerator(), SpanLimits(max_attributes=1), Noting()
    provider = TracerProvider(
        ALWAYS_OFF, Resource({}), False, processor, id_generator=ids, span_limits=limits
    )
    assert (provider.sampler, provider.id_generator) == (ALWAYS_OFF, ids)
    assert provider.span_processors == (processor,)


def test_a_new_configuration_applies_to_tracers_already_returned() -> None:
    """An updated configuration also applies to all tracers that were returned before.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#configuration
    """
    provider = TracerProvider(shutdown_on_exit=False)
    tracer, processor = provider.get_tracer("library"), Noting()
    tracer.start_span("before").end()
    provider.add_span_processor(processor)
    tracer.start_span("after").end()
    assert processor.calls == ["on_start", "on_end"]


def test_shutdown_is_done_once() -> None:
    """Shutdown is called only once per provider; more calls do nothing.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown
    """
    processor = Noting()
    provider = TracerProvider(shutdown_on_exit=False, active_span_processor=processor)
    provider.shutdown()
    provider.shutdown()
    assert processor.calls == ["shutdown"]


def test_shutdown_reaches_all_processors() -> None:
    """Shutdown is implemented at least by invoking Shutdown of all processors.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown
    """

    class Failing(Noting):
        def shutdown(self, timeout_millis: int = 30_000) -> None:
            super().shutdown()
            raise RuntimeError("no")

    processors = [Failing(), Noting(), Noting()]
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    provider.shutdown()
    assert [processor.calls for processor in processors] == [["shutdown"]] * 3


def test_tracers_after_shutdown_record_nothing(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """After shutdown a tracer that does nothing is returned.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown
    """
    before = provider.get_tracer("before")
    provider.shutdown()
    for tracer in (before, provider.get_tracer("after")):
        span = tracer.start_span("a")
        assert not span.is_recording()
        span.end()
    assert exporter.get_finished_spans() == ()


def test_shutdown_and_force_flush_end_within_their_time() -> None:
    """Both complete or abort within some timeout.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#forceflush
    """

    class Slow(Noting):
        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            time.sleep(5)
            return True

        def shutdown(self, timeout_millis: int = 30_000) -> None:
            time.sleep(5)

    provider = TracerProvider(shutdown_on_exit=False, active_span_processor=Slow())
    begun = time.monotonic()
    assert provider.force_flush(100) is False
    provider.shutdown(0.1)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(("answers", "expected"), [((True, True), True), ((False, True), False)])
def test_force_flush_reaches_all_processors_and_tells(
    answers: tuple[bool, bool], expected: bool
) -> None:
    """ForceFlush invokes ForceFlush on all processors and lets the caller know whether it worked.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#forceflush
    """
    processors = [Noting(answer) for answer in answers]
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    assert provider.force_flush() is expected
    assert [processor.calls for processor in processors] == [["force_flush"]] * 2


def test_a_processor_without_those_methods_is_no_obstacle() -> None:
    """The SDK throws no unhandled exceptions for what third parties leave out.

    https://opentelemetry.io/docs/specs/otel/error-handling/#basic-error-handling-principles
    """

    class EndOnly:
        def on_end(self, span: Any) -> None: ...

    provider = TracerProvider(shutdown_on_exit=False, active_span_processor=EndOnly())
    provider.get_tracer("library").start_span("a").end()
    assert provider.force_flush() is True
    provider.shutdown()


# Additional span interfaces ----------------------------------------------------------------


def test_a_readable_span_tells_all_that_was_added(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """Everything that was added to a span can be read, with its scope and resource.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#additional-span-interfaces
    """
    parent = SpanContext(7, 8, True, TraceFlags(1))
    context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    provider = make_provider(resource=Resource({"service.name": "shop"}))
    span = provider.get_tracer("library", "1.2").start_span(
        "old", context, SpanKind.SERVER, {"a": 1}, [Link(parent, {"l": 1})], start_time=5
    )
    span.add_event("event", {"e": 1}, 6)
    span.set_status(StatusCode.ERROR, "why")
    span.update_name("name")
    span.end(9)
    (read,) = exporter.get_finished_spans()
    assert (read.name, read.kind, read.start_time, read.end_time) == ("name", SpanKind.SERVER, 5, 9)
    assert (read.context, read.parent) == (span.get_span_context(), parent)
    assert read.attributes == {"a": 1}
    assert [(link.context, link.attributes) for link in read.links] == [(parent, {"l": 1})]
    assert [(e.name, e.attributes, e.timestamp) for e in read.events] == [("event", {"e": 1}, 6)]
    assert (read.status.status_code, read.status.description) == (StatusCode.ERROR, "why")
    assert read.resource.attributes == {"service.name": "shop"}
    assert read.instrumentation_scope.name == "library"


def test_the_instrumentation_library_can_be_read_too(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """For older exporters the scope is there as InstrumentationLibrary, with name and version.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#additional-span-interfaces
    """
    provider.get_tracer("library", "1.2").start_span("a").end()
    span: Any = exporter.get_finished_spans()[0]
    assert (span.instrumentation_info.name, span.instrumentation_info.version) == ("library", "1.2")


def test_whether_a_span_has_ended_can_be_told(make_provider: Any) -> None:
    """Whoever reads a span can reliably tell whether it has ended.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#additional-span-interfaces
    """
    processor = Noting()
    span = make_provider(processor).get_tracer("library").start_span("a")
    assert processor.spans[0].end_time is None
    span.end()
    assert processor.spans[0].end_time is not None


def test_what_did_not_fit_is_counted(make_provider: Any, exporter: InMemorySpanExporter) -> None:
    """Exporters can report how many attributes, events and links were dropped.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#additional-span-interfaces
    """
    limits = SpanLimits(max_attributes=1, max_events=1, max_links=1)
    link = Link(SpanContext(1, 2, False))
    span = make_provider(span_limits=limits).get_tracer("library").start_span("a", links=[link] * 4)
    span.set_attributes({"a": 1, "b": 2})
    for name in "abc":
        span.add_event(name)
    span.end()
    (read,) = exporter.get_finished_spans()
    assert (read.dropped_attributes, read.dropped_events, read.dropped_links) == (1, 2, 3)


def test_on_start_gets_the_span_that_the_caller_gets(make_provider: Any) -> None:
    """A read/write span is the same span that its creation returned.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#additional-span-interfaces
    """
    processor = Noting()
    span = make_provider(processor).get_tracer("library").start_span("a")
    assert processor.spans == [span]
    span.end()
