"""Row 24: what others do with a provider works on ours.

opentelemetry-python#4489, #3713, langfuse#10316, sentry-python#1976, pydantic-ai#4328.
"""

from __future__ import annotations

import inspect

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider as SdkProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor as SdkSimple
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter as SdkMemory,
)

import tracekit
from tracekit.sdk import TracerProvider


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def test_the_global_provider_takes_processors(exporter):
    theirs = SdkMemory()
    trace.get_tracer_provider().add_span_processor(SdkSimple(theirs))
    with tracekit.span("a", k=[1, 2]):
        pass
    (span,) = theirs.get_finished_spans()
    assert (span.name, dict(span.attributes)) == ("a", {"k": (1, 2)})
    assert '"name": "a"' in span.to_json()


@pytest.mark.parametrize("name", sorted(public(SdkProvider)))
def test_our_provider_has_each_public_name_of_the_sdks(name):
    assert hasattr(TracerProvider(shutdown_on_exit=False), name)


@pytest.mark.parametrize("name", ["start_span", "start_as_current_span"])
def test_our_tracer_takes_the_arguments_of_the_sdks(name):
    ours = inspect.signature(getattr(TracerProvider(shutdown_on_exit=False).get_tracer("t"), name))
    theirs = inspect.signature(getattr(SdkProvider().get_tracer("t"), name))
    assert list(ours.parameters) == list(theirs.parameters)


def test_whoever_asks_for_the_sdks_classes_is_told_yes():
    """Third parties test `isinstance(provider, TracerProvider)` before they use it."""
    provider = TracerProvider(shutdown_on_exit=False)
    assert isinstance(provider, SdkProvider)
    assert isinstance(provider, trace.TracerProvider)


def test_our_spans_are_spans_of_the_api():
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    assert isinstance(tracer, trace.Tracer)
    assert isinstance(tracer.start_span("a"), trace.Span)
