"""The sampler that records what another one drops."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

import tracekit
from tracekit.sdk import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AlwaysRecordSampler,
    InMemorySpanExporter,
    ParentBased,
    SimpleSpanProcessor,
    SpanProcessor,
    TraceIdRatioBased,
    TracerProvider,
)


class Noting(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[str] = []

    def on_end(self, span: Any) -> None:
        self.ended.append(span.name)


def traced_with(sampler: Any) -> tuple[list[str], list[str]]:
    """Make a root, a child and a grandchild; return what a processor and an exporter saw."""
    noting, exporter = Noting(), InMemorySpanExporter()
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(noting)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("library")
    with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
        tracer.start_span("grandchild").end()
    return noting.ended, [span.name for span in exporter.get_finished_spans()]


EVERYTHING = ["grandchild", "child", "root"]


@pytest.mark.parametrize(
    ("root", "exported"),
    [
        (ALWAYS_OFF, []),
        (ALWAYS_ON, EVERYTHING),
        (ParentBased(ALWAYS_OFF), []),
        (ParentBased(ALWAYS_ON), EVERYTHING),
        (TraceIdRatioBased(0.0), []),
    ],
)
def test_processors_see_every_span_and_exporters_what_is_sampled(
    root: Any, exported: list[str]
) -> None:
    assert traced_with(AlwaysRecordSampler(root)) == (EVERYTHING, exported)


def test_all_spans_of_an_unsampled_trace_are_unsampled_and_in_one_trace() -> None:
    provider = TracerProvider(AlwaysRecordSampler(ALWAYS_OFF), shutdown_on_exit=False)
    tracer = provider.get_tracer("library")
    with tracer.start_as_current_span("root") as root:
        child = tracer.start_span("child")
    contexts = [root.get_span_context(), child.get_span_context()]
    assert len({context.trace_id for context in contexts}) == 1
    assert not any(context.trace_flags.sampled for context in contexts)


def test_what_another_service_is_told_is_that_nothing_was_sampled() -> None:
    tracekit.configure(exporters="none", sampler=AlwaysRecordSampler(ALWAYS_OFF))
    with tracekit.span("a"):
        header = tracekit.inject({})["traceparent"]
    assert int(header.rpartition("-")[2], 16) & 1 == 0


def test_it_can_be_named() -> None:
    provider = tracekit.configure(exporters="none", sampler="alwaysrecord")
    assert provider.sampler.get_description() == "AlwaysRecordSampler{AlwaysOnSampler}"


def test_attributes_and_trace_state_of_the_other_sampler_are_passed_on() -> None:
    state = trace.TraceState([("vendor", "1")])
    context = trace.SpanContext(1, 2, True, trace.TraceFlags(0), state)
    parent = trace.set_span_in_context(trace.NonRecordingSpan(context), Context())
    result = AlwaysRecordSampler(ALWAYS_OFF).should_sample(parent, 1, "a")
    assert result.trace_state == state
