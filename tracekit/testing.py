"""What tests need: spans captured in memory, known ids and times, and spans made of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from tracekit.captured import CapturedSpans
from tracekit.configure import configure, forget, reset
from tracekit.core.clock import Clock
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.libraries import instrumented_only_within
from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord

__all__ = [
    "CapturedSpans",
    "ManualClock",
    "SequentialIdGenerator",
    "build_span",
    "capture_spans",
    "reset",
]

_serial = count(1)


class SequentialIdGenerator:
    """Ids 1, 2, 3, …: a whole trace becomes literal data."""

    def __init__(self) -> None:
        self._traces, self._spans = count(1), count(1)

    def generate_trace_id(self) -> int:
        return next(self._traces)

    def generate_span_id(self) -> int:
        return next(self._spans)

    def is_trace_id_random(self) -> bool:
        return False


class ManualClock:
    """A clock that stands still until it is moved; ``clock`` is what a provider takes."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._wall_ns, self._monotonic_ns = start_ns, 0
        self.clock = Clock(lambda: self._wall_ns, lambda: self._monotonic_ns)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._wall_ns += round(seconds * 1e9)
        self._monotonic_ns += round(seconds * 1e9)

    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        self._wall_ns += round(seconds * 1e9)


@contextmanager
def capture_spans(**settings: Any) -> Iterator[InMemorySpanExporter]:
    """Configure tracekit to keep ended spans in memory, and undo it at the end.

    Spans are there as soon as they have ended: they are exported one by one. Libraries that were
    instrumented before the block stay so, those that are in the block do not.
    """
    from tracekit.processors.simple import SimpleSpanProcessor

    exporter = InMemorySpanExporter()
    with instrumented_only_within():
        configure(exporters="none", processors=[SimpleSpanProcessor(exporter)], **settings)
        try:
            yield exporter
        finally:
            forget()


def build_span(
    name: str = "span",
    *,
    trace_id: int = 1,
    span_id: int | None = None,
    parent_id: int | None = None,
    parent_is_remote: bool = False,
    kind: SpanKind = SpanKind.INTERNAL,
    start_time: int = 1_700_000_000_000_000_000,
    end_time: int | None = None,
    duration_ns: int = 1_000_000,
    attributes: Mapping[str, Any] | None = None,
    events: Sequence[Event] = (),
    links: Sequence[Link] = (),
    status: StatusCode = StatusCode.UNSET,
    description: str | None = None,
    service_name: str = "service",
    resource: Mapping[str, Any] | None = None,
    scope: str = "test",
    trace_state: TraceState | None = None,
) -> SpanRecord:
    """Build an ended span from given values; what is not given is plausible.

    Args:
        span_id: The next of a series when not given.
        end_time: Unix nanoseconds; wins over ``duration_ns``.
    """

    def context(identifier: int, is_remote: bool) -> SpanContext:
        return SpanContext(
            trace_id, identifier, is_remote, TraceFlags(TraceFlags.SAMPLED), trace_state
        )

    return SpanRecord(
        name=name,
        context=context(next(_serial) if span_id is None else span_id, False),
        parent=None if parent_id is None else context(parent_id, parent_is_remote),
        kind=kind,
        start_time=start_time,
        end_time=start_time + duration_ns if end_time is None else end_time,
        attributes=dict(attributes or {}),
        events=tuple(events),
        links=tuple(links),
        status=Status(status, description),
        resource=Resource({"service.name": service_name, **(resource or {})}),
        instrumentation_scope=InstrumentationScope(scope),
    )
