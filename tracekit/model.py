"""Immutable records: what a span is once it can no longer change, and what it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import (
    Link,
    SpanContext,
    TraceState,
    format_span_id,
    format_trace_id,
)

if TYPE_CHECKING:
    from tracekit._records import Finding, Severity, SpanRecord

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


class _Record:
    """Compared and shown by its slots, and not changed once it is made.

    What ``dataclass`` would write, but for the 0.7 ms that it takes to: ``import tracekit`` would
    wait for it.
    """

    __slots__: tuple[str, ...] = ()

    def _fill(self, *values: Any) -> None:
        for name, value in zip(type(self).__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is not changed once it is made: {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is not changed once it is made: {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in type(self).__slots__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in type(self).__slots__)
        return f"{type(self).__name__}({', '.join(shown)})"


class Event(_Record):
    """Something that happened at one moment of a span; ``timestamp`` is in Unix nanoseconds."""

    __slots__ = ("name", "attributes", "timestamp", "dropped_attributes")  # noqa: RUF023 - as made

    name: str
    attributes: Attributes
    timestamp: int
    dropped_attributes: int

    def __init__(
        self,
        name: str,
        attributes: Attributes | None = None,
        timestamp: int = 0,
        dropped_attributes: int = 0,
    ) -> None:
        given = {} if attributes is None else attributes
        self._fill(name, given, timestamp, dropped_attributes)


class InstrumentationScope(_Record):
    """The unit of code that made a span: library name and version, not the library watched."""

    __slots__ = ("name", "version", "schema_url", "attributes")  # noqa: RUF023 - as made

    name: str
    version: str | None
    schema_url: str
    attributes: Attributes

    def __init__(
        self,
        name: str,
        version: str | None = None,
        schema_url: str = "",
        attributes: Attributes | None = None,
    ) -> None:
        self._fill(name, version, schema_url, {} if attributes is None else attributes)

    def __hash__(self) -> int:
        # Attributes cannot be hashed.
        return hash((self.name, self.version, self.schema_url))


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


def __getattr__(name: str) -> Any:
    """Load the records of what was read back when somebody asks for one.

    A program that is traced has no use for them, and making their classes takes 2 ms.
    """
    if name not in ("Finding", "Severity", "SpanRecord"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tracekit import _records

    record = globals()[name] = getattr(_records, name)
    return record
