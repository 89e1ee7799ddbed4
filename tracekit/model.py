"""Immutable records: what a span is once it can no longer change, and what it refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    TraceState,
    format_span_id,
    format_trace_id,
)

__all__ = [
    "Attributes",
    "Decision",
    "Event",
    "Finding",
    "InstrumentationScope",
    "Link",
    "Resource",
    "SamplingResult",
    "Severity",
    "SpanRecord",
    "span_to_json",
]

Attributes = Mapping[str, Any]
"""Attribute values are those of OTLP's AnyValue: str, bool, int, float, bytes, None, and
sequences and string-keyed mappings of them."""

_EMPTY: Attributes = MappingProxyType({})


class Decision(Enum):
    """What becomes of a span that is about to start.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#shouldsample
    """

    DROP = 0
    RECORD_ONLY = 1
    RECORD_AND_SAMPLE = 2

    def is_recording(self) -> bool:
        return self is not Decision.DROP

    def is_sampled(self) -> bool:
        return self is Decision.RECORD_AND_SAMPLE


class SamplingResult:
    """A sampler's answer: the decision, attributes to add, and the trace state to carry.

    ``trace_state`` replaces the parent's; a sampler that does not care passes it on.
    """

    __slots__ = ("attributes", "decision", "trace_state")

    def __init__(
        self,
        decision: Decision,
        attributes: Attributes | None = None,
        trace_state: TraceState | None = None,
    ) -> None:
        self.decision = decision
        self.attributes: Attributes = attributes if attributes is not None else _EMPTY
        self.trace_state = trace_state

    def __repr__(self) -> str:
        return f"SamplingResult({self.decision}, attributes={dict(self.attributes)!r})"


@dataclass(frozen=True)
class Event:
    """Something that happened at one moment of a span; ``timestamp`` is in Unix nanoseconds."""

    name: str
    attributes: Attributes = field(default_factory=dict)
    timestamp: int = 0
    dropped_attributes: int = 0


@dataclass(frozen=True)
class InstrumentationScope:
    """The unit of code that made a span: library name and version, not the library watched."""

    name: str
    version: str | None = None
    schema_url: str = ""
    attributes: Attributes = field(default_factory=dict, hash=False)


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


class Resource:
    """The entity that makes spans: attributes of the service, process and host.

    Source: https://opentelemetry.io/docs/specs/otel/resource/sdk/
    """

    __slots__ = ("_attributes", "_schema_url")

    def __init__(self, attributes: Attributes | None = None, schema_url: str | None = None) -> None:
        self._attributes = MappingProxyType(dict(attributes or {}))
        self._schema_url = schema_url or ""

    @property
    def attributes(self) -> Attributes:
        return self._attributes

    @property
    def schema_url(self) -> str:
        return self._schema_url

    @classmethod
    def get_empty(cls) -> Resource:
        return cls()

    def merge(self, other: Resource) -> Resource:
        """Return a resource in which the values of ``other`` win.

        Two different, non-empty schema URLs cannot be reconciled; the specification leaves
        the result to us: the attributes are merged and the schema URL is dropped.
        """
        urls = {url for url in (self._schema_url, other.schema_url) if url}
        schema_url = urls.pop() if len(urls) == 1 else ""
        return type(self)({**self._attributes, **other.attributes}, schema_url)

    def to_json(self, indent: int | None = 4) -> str:
        import json

        return json.dumps(
            {"attributes": _jsonable(self._attributes), "schema_url": self._schema_url},
            indent=indent,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource):
            return NotImplemented
        return self._attributes == other._attributes and self._schema_url == other._schema_url

    def __hash__(self) -> int:
        return hash((self._schema_url, frozenset(self._attributes)))

    def __repr__(self) -> str:
        return f"Resource({dict(self._attributes)!r}, {self._schema_url!r})"


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


def span_to_json(span: Any, indent: int | None = 4) -> str:
    """Render any readable span in the JSON form that opentelemetry-sdk prints."""
    import json  # here and below: most programs import this module and never call these

    status = {"status_code": span.status.status_code.name}
    if span.status.description:
        status["description"] = span.status.description
    return json.dumps(
        {
            "name": span.name,
            "context": _context_json(span.context) if span.context else None,
            "kind": str(span.kind),
            "parent_id": f"0x{format_span_id(span.parent.span_id)}" if span.parent else None,
            "start_time": _iso(span.start_time),
            "end_time": _iso(span.end_time),
            "status": status,
            "attributes": _jsonable(span.attributes),
            "events": [_event_json(event) for event in span.events],
            "links": [_link_json(link) for link in span.links],
            "resource": json.loads(span.resource.to_json()),
        },
        indent=indent,
    )


def _context_json(context: SpanContext) -> dict[str, str]:
    return {
        "trace_id": f"0x{format_trace_id(context.trace_id)}",
        "span_id": f"0x{format_span_id(context.span_id)}",
        "trace_state": repr(context.trace_state),
    }


def _event_json(event: Event) -> dict[str, Any]:
    return {
        "name": event.name,
        "timestamp": _iso(event.timestamp),
        "attributes": _jsonable(event.attributes),
    }


def _link_json(link: Link) -> dict[str, Any]:
    return {"context": _context_json(link.context), "attributes": _jsonable(link.attributes or {})}


def _iso(time_ns: int | None) -> str | None:
    if not time_ns:
        return None
    from datetime import datetime, timezone

    moment = datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, int) and value.bit_length() > 4096:
        return hex(value)  # Python refuses to write it in decimal
    return value.hex() if isinstance(value, bytes) else value
