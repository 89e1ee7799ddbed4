"""What stands for a span that the sampler dropped."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace as trace_api
from opentelemetry.trace import Link, SpanContext, SpanKind, Status

from tracekit._otel_context import span_context
from tracekit.core.attributes import EMPTY
from tracekit.core.binding import Anchor, Binding
from tracekit.model import Attributes, Event, InstrumentationScope, Resource, span_to_json

__all__ = ["DROPPED", "RECORDING", "DroppedSpan"]

DROPPED: set[type] = set()
"""The classes that stand for dropped spans: what starts below one of them is dropped as well."""

RECORDING: set[type] = set()
"""The classes of our recording spans: a parent of one of them is local and passes things on."""


class DroppedSpan(trace_api.NonRecordingSpan):
    """Stands for a span that the sampler dropped: carries the context, records nothing.

    It has the readable names of a recording span, because third parties read them without
    asking first. https://github.com/pydantic/logfire/issues/1541
    """

    __slots__ = ("_anchor", "_binding", "_name", "_trace_id")

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

    def __init__(self, binding: Binding, trace_id: int, anchor: Anchor, name: str) -> None:
        self._binding = binding
        self._trace_id = trace_id
        self._anchor = anchor
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        # The id is drawn when somebody propagates it, which nobody does for most spans. One
        # call, so that two threads which ask at the same time get the same id.
        span_id = vars(self).get("_span_id") or vars(self).setdefault(
            "_span_id", self._binding.random_bits(64) or 1
        )
        flags, state, _, _ = self._anchor
        return span_context(self._trace_id, span_id, False, flags, state)

    @property
    def context(self) -> SpanContext:
        return self._context

    def get_span_context(self) -> SpanContext:
        return self._context

    def keep(self, reason: str = "asked") -> None:
        """Do nothing: the trace is dropped."""

    @property
    def kept(self) -> bool | None:
        """None where there is no tail sampler, which does not change what the sampler decided."""
        return None if self._binding.new_local_trace is None else False

    def to_json(self, indent: int | None = 4) -> str:
        return span_to_json(self, indent)


DROPPED.add(DroppedSpan)
