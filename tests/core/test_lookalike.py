"""Passing for opentelemetry-sdk's classes, when and only when that package is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import opentelemetry.sdk.trace as sdk
import pytest
from opentelemetry import trace

from tracekit.core.span import Span
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor, TracerProvider


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider(shutdown_on_exit=False)


def test_a_provider_is_an_instance_of_the_sdks(provider: TracerProvider) -> None:
    assert isinstance(provider, sdk.TracerProvider)
    assert isinstance(provider, TracerProvider)
    assert isinstance(provider, trace.TracerProvider)


@pytest.mark.parametrize("started", [True, False], ids=["started", "scoped"])
def test_a_span_is_an_instance_of_the_sdks(provider: TracerProvider, started: bool) -> None:
    tracer = provider.get_tracer("test")
    span = tracer.start_span("span") if started else tracer.start_as_current_span("span")
    assert isinstance(span, sdk.Span)
    assert isinstance(span, sdk.ReadableSpan)
    assert isinstance(span, Span)
    assert isinstance(span, trace.Span)


def test_an_ended_span_is_one_too(provider: TracerProvider) -> None:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("test").start_span("span").end()
    assert isinstance(exporter.get_finished_spans()[0], sdk.ReadableSpan)


def test_a_span_that_was_dropped_is_not() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    assert not isinstance(tracer.start_span("dropped"), sdk.Span)


def test_the_type_stays_our_own(provider: TracerProvider) -> None:
    assert type(provider) is TracerProvider
    assert not issubclass(TracerProvider, sdk.TracerProvider)


def test_a_third_party_that_asks_first_is_served(provider: TracerProvider) -> None:
    def enrich(span: Any) -> bool:
        if isinstance(span, sdk.ReadableSpan) and span.attributes is not None:
            return bool(span.attributes["a"])
        return False

    assert enrich(provider.get_tracer("test").start_span("span", attributes={"a": 1}))


@pytest.mark.parametrize(
    "sabotage",
    ["TracerProvider = None", "TracerProvider = 'not a class'", "unrelated = True"],
    ids=["none", "text", "missing"],
)
def test_a_strange_module_in_the_sdks_place_changes_nothing(sabotage: str) -> None:
    program = (
        "import sys, types\nfrom tracekit.sdk import TracerProvider\n"
        "module = types.ModuleType('opentelemetry.sdk.trace')\n"
        f"exec({sabotage!r}, vars(module))\n"
        "sys.modules['opentelemetry.sdk.trace'] = module\n"
        "provider = TracerProvider(shutdown_on_exit=False)\n"
        "assert provider.__class__ is TracerProvider\n"
    )
    assert _runs(program) == ""


def test_asking_does_not_import_the_sdk() -> None:
    program = (
        "import sys\nfrom tracekit.sdk import TracerProvider\n"
        "provider = TracerProvider(shutdown_on_exit=False)\n"
        "span = provider.get_tracer('x').start_span('x')\n"
        "assert provider.__class__ is TracerProvider and span.__class__ is type(span)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
    )
    assert _runs(program) == ""


def _runs(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr
