"""What the tests of context carry run in other threads and processes, and look at there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, get_current_span

from tracekit.instrumentation._patch import LibraryInstrumentor


class Seen(NamedTuple):
    """The current span, as the code that runs somewhere else sees it."""

    trace_id: int
    span_id: int
    is_remote: bool
    is_recording: bool
    pid: int
    thread: int


def see(*_: Any, **__: Any) -> Seen:
    span = get_current_span()
    at = span.get_span_context()
    pid, thread = os.getpid(), threading.get_ident()
    return Seen(at.trace_id, at.span_id, at.is_remote, span.is_recording(), pid, thread)


def ids(span: Span) -> tuple[int, int]:
    span_context = span.get_span_context()
    return span_context.trace_id, span_context.span_id


def ids_seen(*_: Any) -> tuple[int, int]:
    """Return what is current, as `ids` says it; (0, 0) outside every span."""
    return ids(get_current_span())


NOTHING = (0, 0)


class Spans:
    """An independent provider, and what it was told of."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    @contextmanager
    def span(self, name: str = "caller") -> Iterator[Span]:
        with self.tracer.start_as_current_span(name) as span:
            yield span

    @property
    def ended(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@contextmanager
def watched(*plugins: type[LibraryInstrumentor], **options: Any) -> Iterator[None]:
    """Instrument for the length of a test, which must leave nothing current behind."""
    instrumentors = [plugin() for plugin in plugins]
    for instrumentor in instrumentors:
        instrumentor.instrument(**options)
    try:
        yield
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()
    assert otel_context.get_current() == Context()


def entries(cls: Any) -> dict[str, int]:
    """Return which objects a class holds. A wrapper is equal to what it wraps, but not the same."""
    return {name: id(value) for name, value in vars(cls).items()}
