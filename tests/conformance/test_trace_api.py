"""The tracing API under our provider: https://opentelemetry.io/docs/specs/otel/trace/api/."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TraceState,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
    use_span,
)

from tracekit.propagators.tracecontext import TraceContextPropagator
from tracekit.sdk import ALWAYS_OFF, InMemorySpanExporter, TracerProvider

REMOTE = SpanContext(0xA1, 0xB2, True, TraceFlags(1), TraceState([("vendor", "value")]))


def context_of(span_context: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(span_context), Context())


# TracerProvider and Context ----------------------------------------------------------------


def test_a_tracer_takes_name_version_schema_url_and_attributes(provider: TracerProvider) -> None:
    """Get a Tracer accepts name, version, schema URL and attributes.

    https://opentelemetry.io/docs/specs/otel/trace/api/#get-a-tracer
    """
    assert provider.get_tracer("name")
    assert provider.get_tracer("name", "1.2", "https://schema", {"key": "value"})


def test_tracers_need_not_be_obtained_again(provider: TracerProvider) -> None:
    """Users must not have to obtain a tracer again to pick up configuration changes.

    https://opentelemetry.io/docs/specs/otel/trace/api/#get-a-tracer
    """
    tracer = provider.get_tracer("name")
    provider.reconfigure(sampler=ALWAYS_OFF)
    assert not tracer.start_span("a").is_recording()


def test_a_span_goes_into_a_context_and_comes_out(tracer: Tracer) -> None:
    """A span can be combined with a context and extracted from it.

    https://opentelemetry.io/docs/specs/otel/trace/api/#context-interaction
    """
    span = tracer.start_span("a")
    given = Context({"key": "value"})
    combined = set_span_in_context(span, given)
    assert get_current_span(combined) is span
    assert (given, combined["key"]) == ({"key": "value"}, "value")


def test_the_active_span_can_be_set_and_got(tracer: Tracer) -> None:
    """The active span can be got from, and set into, the implicit context.

    https://opentelemetry.io/docs/specs/otel/trace/api/#context-interaction
    """
    span = tracer.start_span("a")
    with use_span(span):
        assert get_current_span() is span
    assert get_current_span() is INVALID_SPAN


# SpanContext -------------------------------------------------------------------------------


def test_ids_are_there_as_lower_case_hex_and_as_bytes(tracer: Tracer) -> None:
    """Trace ids are 32 hex characters or 16 bytes, span ids 16 or 8.

    https://opentelemetry.io/docs/specs/otel/trace/api/#retrieving-the-traceid-and-spanid
    """
    context = tracer.start_span("a").get_span_context()
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    assert (len(trace_id), len(span_id)) == (32, 16)
    assert trace_id + span_id == (trace_id + span_id).lower()
    assert bytes.fromhex(trace_id) == context.trace_id.to_bytes(16, "big")
    assert bytes.fromhex(span_id) == context.span_id.to_bytes(8, "big")


@pytest.mark.parametrize("provider_options", [{}, {"sampler": ALWAYS_OFF}])
def test_every_span_context_that_we_make_is_valid_and_local(
    make_provider: Any, provider_options: Any
) -> None:
    """IsValid is true for non-zero ids; IsRemote is false for spans made here, children too.

    https://opentelemetry.io/docs/specs/otel/trace/api/#isremote
    """
    tracer = make_provider(**provider_options).get_tracer("library")
    for context in (Context(), context_of(REMOTE)):
        made = tracer.start_span("a", context).get_span_context()
        assert made.is_valid
        assert not made.is_remote


def test_what_was_extracted_is_remote() -> None:
    """IsRemote is true for a SpanContext that a propagator extracted.

    https://opentelemetry.io/docs/specs/otel/trace/api/#isremote
    """
    header = f"00-{'a' * 32}-{'b' * 16}-01"
    context = TraceContextPropagator().extract({"traceparent": header}, Context())
    assert get_current_span(context).get_span_context().is_remote


def test_trace_state_operations_return_new_ones() -> None:
    """Get, add, update and delete; each change returns a new trace state.

    https://opentelemetry.io/docs/specs/otel/trace/api/#tracestate
    """
    header = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=1,b=2"}
    context = TraceContextPropagator().extract(header, Context())
    state = get_current_span(context).get_span_context().trace_state
    assert state.get("b") == "2"
    assert state.add("c", "3").to_header() == "c=3,a=1,b=2"
    assert state.update("b", "4").to_header() == "b=4,a=1"
    assert state.delete("a").to_header() == "b=2"
    assert state.to_header() == "a=1,b=2"


@pytest.mark.parametrize(("key", "value"), [("UPPER", "1"), ("a b", "1"), ("a", "x=y"), ("a", "")])
def test_trace_state_never_holds_what_is_invalid(key: str, value: str) -> None:
    """Input is validated: a trace state with invalid data is never returned, nor an exception.

    https://opentelemetry.io/docs/specs/otel/trace/api/#tracestate
    """
    header = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "b=2"}
    context = TraceContextPropagator().extract(header, Context())
    state = get_current_span(context).get_span_context().trace_state
    assert state.add(key, value).to_header() == "b=2"
    assert state.update(key, value).to_header() == "b=2"


# Creating spans ----------------------------------------------------------------------------


def test_a_new_span_is_not_active(tracer: Tracer) -> None:
    """Creating a span does not make it active; that is a separate operation.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    before = get_current()
    tracer.start_span("a")
    assert get_current() == before


@pytest.mark.parametrize("parent", [REMOTE, NonRecordingSpan(REMOTE)])
def test_only_a_context_is_a_parent(tracer: Tracer, parent: Any) -> None:
    """A span or a span context is not accepted as parent, and does no harm either.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    assert tracer.start_span("a", parent).get_span_context().trace_id != 0xA1


def test_what_was_not_said_has_its_defaults(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """Kind defaults to INTERNAL, attributes to none.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    tracer.start_span("a").end()
    (span,) = exporter.get_finished_spans()
    assert (span.kind, span.attributes, span.links) == (SpanKind.INTERNAL, {}, ())


def test_a_root_span_can_be_created_under_an_active_one(tracer: Tracer) -> None:
    """There is an option to create a root span; each has a new trace id.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    with tracer.start_as_current_span("outer") as outer:
        roots = [tracer.start_span("root", Context()) for _ in range(2)]
    ids = {span.get_span_context().trace_id for span in (outer, *roots)}
    assert len(ids) == 3


def test_the_active_span_is_the_default_parent(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """The span in the current context is the parent; with none it is a root span.

    https://opentelemetry.io/docs/specs/otel/trace/api/#determining-the-parent-span-from-a-context
    """
    with tracer.start_as_current_span("outer") as outer:
        tracer.start_span("inner").end()
    inner, root = exporter.get_finished_spans()
    assert (inner.parent, root.parent) == (outer.get_span_context(), None)


def test_a_child_has_the_trace_id_and_trace_state_of_its_parent(tracer: Tracer) -> None:
    """The trace id is the parent's, and so are all trace state values by default.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    child = tracer.start_span("child", context_of(REMOTE))
    grandchild = tracer.start_span("grandchild", set_span_in_context(child, Context()))
    for span in (child, grandchild):
        span_context = span.get_span_context()
        assert (span_context.trace_id, span_context.trace_state) == (0xA1, REMOTE.trace_state)


def test_a_remote_parent_is_known_to_be_remote(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """A span with a parent of another process has a remote parent.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    tracer.start_span("a", context_of(REMOTE)).end()
    parent = exporter.get_finished_spans()[0].parent
    assert parent == REMOTE
    assert parent is not None
    assert parent.is_remote


def test_that_attributes_belong_to_the_creation_is_documented() -> None:
    """The documentation states that adding attributes at creation is preferred.

    https://opentelemetry.io/docs/specs/otel/trace/api/#span-creation
    """
    from tracekit.core.tracer import Tracer as OurTracer

    assert "sampler" in (OurTracer.start_span.__doc__ or "")


# Without a recording span ------------------------------------------------------------------


def test_a_wrapped_span_context_is_a_span_that_does_nothing() -> None:
    """GetContext returns what was wrapped, IsRecording is false, all else has no effect.

    https://opentelemetry.io/docs/specs/otel/trace/api/#wrapping-a-spancontext-in-a-span
    """
    span = get_current_span(
        TraceContextPropagator().extract({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, Context())
    )
    before = span.get_span_context()
    span.set_attribute("key", 1)
    span.update_name("name")
    span.end()
    assert (span.is_recording(), span.get_span_context()) == (False, before)


def test_without_an_sdk_the_parents_context_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The no-op API returns a non-recording span with the span context of the parent.

    https://opentelemetry.io/docs/specs/otel/trace/api/#behavior-of-the-api-in-the-absence-of-an-installed-sdk
    """
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("library")
    assert tracer.start_span("a", context_of(REMOTE)).get_span_context() == REMOTE
    assert not tracer.start_span("a", Context()).get_span_context().is_valid


# Concurrency -------------------------------------------------------------------------------


def in_threads(work: Any, count: int = 8) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        together.wait(10)
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_provider_and_tracer_may_be_used_by_many_threads(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """All methods of TracerProvider and Tracer are safe to be called concurrently.

    https://opentelemetry.io/docs/specs/otel/trace/api/#concurrency-requirements
    """
    tracers = []

    def work(number: int) -> None:
        for turn in range(100):
            tracer = provider.get_tracer(f"library{turn % 5}")
            tracers.append(tracer)
            tracer.start_span(f"{number}.{turn}").end()

    in_threads(work)
    names = [span.name for span in exporter.get_finished_spans()]
    assert sorted(names) == sorted(f"{n}.{turn}" for n in range(8) for turn in range(100))
    assert len({id(tracer) for tracer in tracers}) == 5


def test_a_span_may_be_used_by_many_threads(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """All methods of Span are safe to be called concurrently; it ends once.

    https://opentelemetry.io/docs/specs/otel/trace/api/#concurrency-requirements
    """
    span = tracer.start_span("a")

    def work(number: int) -> None:
        for turn in range(10):
            span.set_attribute(f"{number}.{turn}", turn)
            span.add_event(f"{number}.{turn}")
            span.add_link(SpanContext(1, 1 + number, False))
            span.set_status(trace.StatusCode.ERROR, str(number))
            span.update_name(str(number))

    in_threads(work)
    in_threads(lambda _number: span.end())
    (read,) = exporter.get_finished_spans()
    assert (len(read.attributes), len(read.events), len(read.links)) == (80, 80, 80)


def test_a_dropped_span_has_one_span_id_for_all_threads(make_provider: Any) -> None:
    """The SpanContext is the same for the entire lifetime of a span.

    https://opentelemetry.io/docs/specs/otel/trace/api/#get-context
    """
    spans = [make_provider(sampler=ALWAYS_OFF).get_tracer("x").start_span("a") for _ in range(50)]
    seen: list[list[int]] = [[] for _ in spans]

    def work(_number: int) -> None:
        for place, span in enumerate(spans):
            seen[place].append(span.get_span_context().span_id)

    in_threads(work)
    assert [len(set(ids)) for ids in seen] == [1] * 50
