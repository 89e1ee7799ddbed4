"""A pytest plugin that puts tracekit's classes in the place of opentelemetry-sdk's.

For suites that were written on the SDK: `pytest -p in_place_of_sdk` with this folder on
PYTHONPATH. Metrics and logs stay the SDK's, which tracekit does not replace.
"""

from __future__ import annotations

import importlib

# Before anything is replaced: the SDK's other signals keep the classes that they were made with.
import opentelemetry.sdk._logs.export
import opentelemetry.sdk.metrics.export
import opentelemetry.sdk.resources
import opentelemetry.sdk.trace
import opentelemetry.sdk.trace.export
import opentelemetry.sdk.trace.export.in_memory_span_exporter
import opentelemetry.sdk.trace.id_generator
import opentelemetry.sdk.trace.sampling

import tracekit.sdk

REPLACED = (
    opentelemetry.sdk.resources,
    opentelemetry.sdk.trace,
    opentelemetry.sdk.trace.export,
    opentelemetry.sdk.trace.export.in_memory_span_exporter,
    opentelemetry.sdk.trace.id_generator,
    opentelemetry.sdk.trace.sampling,
)

# What is asked with isinstance() and inherited from stays: our objects must pass as these.
KEPT = {"Span", "ReadableSpan", "Sampler", "SpanProcessor", "SpanExporter", "IdGenerator"}

for _module in REPLACED:
    for _name in set(tracekit.sdk.__all__) - KEPT:
        if hasattr(_module, _name):
            setattr(_module, _name, getattr(tracekit.sdk, _name))


def pytest_sessionstart() -> None:
    """Refuse to run when the suite would be given anything else than tracekit's provider."""
    # Installed with the suites only, not with tracekit's own tests.
    test_base = importlib.import_module("opentelemetry.test.test_base")
    provider, exporter = test_base.TestBase.create_tracer_provider()
    assert type(provider) is tracekit.sdk.TracerProvider
    assert type(exporter) is tracekit.sdk.InMemorySpanExporter
