"""What can be done with a span: https://opentelemetry.io/docs/specs/otel/trace/api/#span."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from tracekit.sdk import BatchSpanProcessor, InMemorySpanExporter, SpanExporter, TracerProvider

OTHER = SpanContext(1, 2, False)


def ended(exporter: InMemorySpanExporter) -> Any:
    (span,) = exporter.get_finished_spans()
    return span


def test_the_span_context_stays_the_same(tracer: Tracer) -> None:
    """The returned SpanContext is the same for the entire lifetime, and after the end.

    https://opentelemetry.io/docs/specs/otel/trace/api/#get-context
    """
    span = tracer.start_span("a")
    before = span.get_span_context()
    span.update_name("b")
    span.end()
    assert span.get_span_context() == before


def test_an_ended_span_is_not_recording(tracer: Tracer) -> None:
    """IsRecording is true while data is captured, and false after the end.

    https://opentelemetry.io/docs/specs/otel/trace/api/#isrecording
    """
    span = tracer.start_span("a")
    assert span.is_recording()
    span.end()
    assert not span.is_recording()


def test_attributes_can_be_set_one_by_one_and_together(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """A span can have attributes; the same key again overwrites.

    https://opentelemetry.io/docs/specs/otel/trace/api/#set-attributes
    """
    span = tracer.start_span("a", attributes={"a": 1, "b": 1})
    span.set_attribute("b", 2)
    span.set_attributes({"c": 3})
    span.end()
    assert ended(exporter).attributes == {"a": 1, "b": 2, "c": 3}


def test_events_have_name_time_and_attributes(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """An event takes its time from the caller, or it is the time of the call; order is kept.

    https://opentelemetry.io/docs/specs/otel/trace/api/#add-events
    """
    span = tracer.start_span("a")
    before = time.time_ns()
    span.add_event("now")
    after = time.time_ns()
    span.add_event("then", {"key": 1}, timestamp=7)
    span.end()
    now, then = ended(exporter).events
    slack = 5_000_000  # wall clock and monotonic clock may drift apart by a little
    assert before - slack <= now.timestamp <= after + slack
    assert (now.name, then.name, then.attributes, then.timestamp) == ("now", "then", {"key": 1}, 7)


def test_links_can_be_recorded_at_the_start_and_later_in_order(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """Links can be given at creation and be added afterwards; their order is kept.

    https://opentelemetry.io/docs/specs/otel/trace/api/#specifying-links
    https://opentelemetry.io/docs/specs/otel/trace/api/#add-link
    """
    contexts = [SpanContext(1, number, False) for number in (3, 1, 2)]
    span = tracer.start_span("a", links=[Link(context) for context in contexts[:2]])
    span.add_link(contexts[2], {"key": 1})
    span.end()
    links = ended(exporter).links
    assert [link.context for link in links] == contexts
    assert links[2].attributes == {"key": 1}


@pytest.mark.parametrize(
    ("context", "attributes", "kept"),
    [
        (SpanContext(0, 0, False), {"key": 1}, 1),
        (SpanContext(0, 0, False, trace_state=TraceState([("a", "1")])), None, 1),
        (SpanContext(0, 0, False), None, 0),
    ],
)
def test_links_without_a_valid_context_are_kept_if_they_say_something(
    tracer: Tracer, exporter: InMemorySpanExporter, context: Any, attributes: Any, kept: int
) -> None:
    """A link with all-zero ids is recorded as long as it has attributes or trace state.

    https://opentelemetry.io/docs/specs/otel/trace/api/#link
    """
    span = tracer.start_span("a", links=[Link(context, attributes)])
    span.add_link(context, attributes)
    span.end()
    assert len(ended(exporter).links) == 2 * kept


OK, ERROR, UNSET = StatusCode.OK, StatusCode.ERROR, StatusCode.UNSET


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], (UNSET, None)),
        ([(ERROR, "why")], (ERROR, "why")),
        ([(OK, "ignored")], (OK, None)),
        ([(UNSET, "ignored")], (UNSET, None)),
        ([(ERROR, "why"), (UNSET, None)], (ERROR, "why")),
        ([(ERROR, "why"), (OK, None)], (OK, None)),
        ([(OK, None), (ERROR, "why")], (OK, None)),
        ([(ERROR, "why"), (ERROR, "last")], (ERROR, "last")),
    ],
)
def test_status(
    tracer: Tracer, exporter: InMemorySpanExporter, calls: Any, expected: tuple[Any, Any]
) -> None:
    """Ok > Error > Unset; Ok is final; a description is for errors only, ignored otherwise.

    https://opentelemetry.io/docs/specs/otel/trace/api/#set-status
    """
    span = tracer.start_span("a")
    for code, description in calls:
        span.set_status(code, description)
    span.end()
    status: Status = ended(exporter).status
    assert (status.status_code, status.description) == expected


def test_the_name_can_be_updated(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """The new name supersedes whatever was passed in at the start.

    https://opentelemetry.io/docs/specs/otel/trace/api/#updatename
    """
    span = tracer.start_span("old")
    span.update_name("new")
    span.end()
    assert ended(exporter).name == "new"


def test_nothing_changes_after_the_end(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """Name, attributes, events, links and status do not change after the end time has been set.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span
    """
    span = tracer.start_span("a")
    span.end(5)
    span.update_name("b")
    span.set_attribute("key", 1)
    span.add_event("event")
    span.add_link(OTHER)
    span.set_status(OK)
    span.record_exception(ValueError())
    span.end(9)
    read = ended(exporter)
    assert (read.name, read.end_time, read.attributes) == ("a", 5, {})
    assert (read.events, read.links, read.status.status_code) == ((), (), UNSET)


def test_the_end_time_is_now_unless_it_is_given(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """An omitted end timestamp is equivalent to the current time.

    https://opentelemetry.io/docs/specs/otel/trace/api/#end
    """
    before = time.time_ns()
    tracer.start_span("now").end()
    tracer.start_span("given", start_time=5).end(7)
    now, given = exporter.get_finished_spans()
    assert now.end_time is not None
    slack = 5_000_000
    assert before - slack <= now.start_time <= now.end_time <= time.time_ns() + slack
    assert (given.start_time, given.end_time) == (5, 7)


def test_ending_a_span_leaves_its_children_alone(tracer: Tracer) -> None:
    """End has no effect on child spans.

    https://opentelemetry.io/docs/specs/otel/trace/api/#end
    """
    parent = tracer.start_span("parent")
    child = tracer.start_span("child", set_span_in_context(parent, Context()))
    parent.end()
    assert child.is_recording()


def test_an_ended_span_stays_active_where_it_is(tracer: Tracer) -> None:
    """End does not inactivate the span in any context.

    https://opentelemetry.io/docs/specs/otel/trace/api/#end
    """
    with tracer.start_as_current_span("a") as span:
        span.end()
        assert get_current_span() is span


def test_an_ended_span_can_still_be_a_parent(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """An ended span can be put into a context and be the parent of new spans.

    https://opentelemetry.io/docs/specs/otel/trace/api/#end
    """
    parent = tracer.start_span("parent")
    parent.end()
    tracer.start_span("child", set_span_in_context(parent, Context())).end()
    assert exporter.get_finished_spans()[1].parent == parent.get_span_context()


def test_leaving_a_with_block_calls_end(provider: TracerProvider, monkeypatch: Any) -> None:
    """Other ways of ending a span end it as End does: what listens to End hears of it.

    https://opentelemetry.io/docs/specs/otel/trace/api/#end
    """
    from tracekit.sdk import SpanProcessor

    class Noting(SpanProcessor):
        names: list[str] = []

        def on_end(self, span: Any) -> None:
            self.names.append(span.name)

    provider.add_span_processor(Noting())
    tracer = provider.get_tracer("library")
    with tracer.start_as_current_span("current"), tracer.start_span("block"):
        pass
    assert Noting.names == ["block", "current"]


def test_end_does_no_blocking_work_for_the_batch_processor() -> None:
    """End must not perform blocking I/O on the calling thread.

    https://opentelemetry.io/docs/specs/otel/trace/api/#end
    """
    import threading

    threads: list[int] = []

    class Noting(SpanExporter):
        def export(self, spans: Any) -> Any:
            threads.append(threading.get_ident())

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Noting()))
    provider.get_tracer("library").start_span("a").end()
    provider.shutdown()
    assert threads
    assert threading.get_ident() not in threads


def test_an_exception_is_an_event_named_exception(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """RecordException adds an event `exception` with type, message and stack trace.

    https://opentelemetry.io/docs/specs/otel/trace/api/#record-exception
    """
    span = tracer.start_span("a")
    span.record_exception(ValueError("why"))
    span.end()
    (event,) = ended(exporter).events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "why"
    assert "ValueError: why" in event.attributes["exception.stacktrace"]


def test_additional_attributes_of_an_exception_take_precedence(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """Additional event attributes are accepted and win over the generated ones.

    https://opentelemetry.io/docs/specs/otel/trace/api/#record-exception
    """
    span = tracer.start_span("a")
    span.record_exception(ValueError("why"), {"exception.message": "mine", "key": 1}, 7)
    span.end()
    (event,) = ended(exporter).events
    assert (event.attributes["exception.message"], event.attributes["key"]) == ("mine", 1)
    assert event.timestamp == 7


@pytest.mark.parametrize("kind", list(SpanKind))
def test_every_kind(tracer: Tracer, exporter: InMemorySpanExporter, kind: SpanKind) -> None:
    """SERVER, CLIENT, PRODUCER, CONSUMER and INTERNAL.

    https://opentelemetry.io/docs/specs/otel/trace/api/#spankind
    """
    tracer.start_span("a", kind=kind).end()
    assert ended(exporter).kind is kind


NONSENSE: list[Any] = [None, 1, object(), b"\xff", float("nan"), [1]]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_wrong_arguments_raise_nothing(
    tracer: Tracer, exporter: InMemorySpanExporter, nonsense: Any
) -> None:
    """API methods do not throw unhandled exceptions when they are used incorrectly.

    https://opentelemetry.io/docs/specs/otel/error-handling/#basic-error-handling-principles
    """
    span = tracer.start_span(nonsense, nonsense, nonsense, nonsense, nonsense)
    span.set_attribute(nonsense, nonsense)
    span.set_attributes(nonsense)
    span.add_event(nonsense, nonsense, nonsense)
    span.add_link(nonsense, nonsense)
    span.set_status(nonsense, nonsense)
    span.record_exception(nonsense, nonsense, nonsense)
    span.update_name(nonsense)
    span.end(nonsense)
    read = ended(exporter)
    assert isinstance(read.name, str)
    assert isinstance(read.kind, SpanKind)
    assert trace.get_current_span() is trace.INVALID_SPAN
