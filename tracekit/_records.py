"""Records of what was read back: ended spans, and what was found in them; part of ``model``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from opentelemetry.trace import Link, SpanContext, SpanKind, Status

from tracekit.model import Attributes, Event, InstrumentationScope, Resource, span_to_json

__all__ = ["Finding", "Severity", "SpanRecord"]


class Severity(Enum):
    """How much a finding matters; the value orders them."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a trace, and the spans that prove it.

    Args:
        kind: The name of the file in ``findings/`` that found it.
        message: One sentence for a person.
        spans: Ids of the spans that prove it, most telling first.
        cost_ns: Time that would be saved without it, also where nobody waits for it any more; 0
            where nobody can say.
        share: The same as a part of the time that whoever asked had to wait; at most 1.0.
        advice: What to do about it.
        service: Who has to mend it.
        operation: What it is about: a query, a route, a span's name.
        location: File and line of the code, where the spans say it.
    """

    kind: str
    severity: Severity
    message: str
    spans: tuple[int, ...]
    cost_ns: int = 0
    share: float = 0.0
    advice: str = ""
    service: str = ""
    operation: str = ""
    location: str = ""
    trace_id: int = 0


@dataclass(frozen=True)
class SpanRecord:
    """An ended span as read back from a store or built by a test.

    It reads like the live span (and like opentelemetry-sdk's ``ReadableSpan``). Times are in
    Unix nanoseconds; ``end_time`` is None for a span that never ended.
    """

    name: str
    context: SpanContext
    parent: SpanContext | None = None
    kind: SpanKind = SpanKind.INTERNAL
    start_time: int = 0
    end_time: int | None = None
    attributes: Attributes = field(default_factory=dict)
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    status: Status = field(default_factory=Status)
    resource: Resource = field(default_factory=Resource)
    instrumentation_scope: InstrumentationScope = field(
        default_factory=lambda: InstrumentationScope("")
    )
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0

    def get_span_context(self) -> SpanContext:
        return self.context

    @property
    def duration_ns(self) -> int | None:
        return None if self.end_time is None else self.end_time - self.start_time

    def to_json(self, indent: int | None = 4) -> str:
        return span_to_json(self, indent)
