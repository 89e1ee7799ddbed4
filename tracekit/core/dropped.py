"""What stands for a span that the sampler dropped."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace as trace_api
from opentelemetry.trace import Link, SpanContext, SpanKind, Status

from tracekit._otel_context import span_context
from tracekit.core.attributes import EMPTY
from tracekit.core.binding import Binding, LocalTrace
from tracekit.model import Attributes, Event, InstrumentationScope, Resource, span_to_json

__all__ = ["DroppedSpan"]


class DroppedSpan(trace_api.NonRecordingSpan):
    """Stands for a span that the sampler dropped: carries the context, records nothing.

    It has the readable names of a recording span, because third parties read them without
    asking first. https://github.com/pydantic/logfire/issues/1541
    """

    __slots__ = ("_binding", "_name", "_span_id", "_trace")

    kind = SpanKind.INTERNAL
    parent: SpanContext | None = None
    start_time: int | None = None
    end_time: int | None = None
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    attributes: Attributes = EMPTY
    dropped_attributes = dropped_events = dropped_links = 0
    status = Status()
    resource = Resource()
    instrumentation_scope = InstrumentationScope("")

    def __init__(self, binding: Binding, trace: LocalTrace, name: str) -> None:
        self._binding = binding
        self._trace = trace
        self._name = name
        self._span_id = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        # The id is drawn when somebody propagates it, which nobody does for most spans.
        if not self._span_id:
            # One call, so that two threads which ask at the same time get the same id.
            drawn = self._binding.random_bits(64) or 1
            self._span_id = vars(self).setdefault("_drawn_span_id", drawn)
        trace = self._trace
        return span_context(trace[0], self._span_id, False, trace[1], trace[2])

    @property
    def context(self) -> SpanContext:
        return self._context

    def get_span_context(self) -> SpanContext:
        return self._context

    def to_json(self, indent: int | None = 4) -> str:
        return span_to_json(self, indent)
