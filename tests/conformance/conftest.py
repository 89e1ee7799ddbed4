"""A provider that hands each ended span straight to an exporter in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import Tracer

from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor, TracerProvider

MakeProvider = Callable[..., TracerProvider]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def make_provider(exporter: InMemorySpanExporter) -> Iterator[MakeProvider]:
    """Make providers that export to ``exporter``; they are shut down with the test."""
    made: list[TracerProvider] = []

    def make(*processors: Any, **options: Any) -> TracerProvider:
        provider = TracerProvider(shutdown_on_exit=False, **options)
        for processor in (*processors, SimpleSpanProcessor(exporter)):
            provider.add_span_processor(processor)
        made.append(provider)
        return provider

    yield make
    for provider in made:
        provider.shutdown()


@pytest.fixture
def provider(make_provider: MakeProvider) -> TracerProvider:
    return make_provider()


@pytest.fixture
def tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("conformance")
