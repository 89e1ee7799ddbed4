"""Records for the tests of the store, and what of a span can be compared."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracekit.model import InstrumentationScope, Resource, SpanRecord

EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000
SHOP = Resource({"service.name": "shop", "service.instance.id": "1", "process.pid": 7})
SCOPE = InstrumentationScope("made", "1.0")


def span(
    span_id: int,
    trace: int = 1,
    parent: int | None = None,
    *,
    name: str = "work",
    at_ms: float = 0,
    for_ms: float | None = 10,
    remote: bool = False,
    failed: bool = False,
    **fields: Any,
) -> SpanRecord:
    """Make a span of trace number ``trace``; ``for_ms=None`` for one that has not ended."""
    start = EPOCH + int(at_ms * MS)
    values: dict[str, Any] = {
        "kind": SpanKind.INTERNAL,
        "status": Status(StatusCode.ERROR, "broken") if failed else Status(),
        "resource": SHOP,
        "instrumentation_scope": SCOPE,
        **fields,
    }
    return SpanRecord(
        name,
        SpanContext(trace, span_id, False, TraceFlags(3)),
        None if parent is None else SpanContext(trace, parent, remote, TraceFlags(3)),
        start_time=start,
        end_time=None if for_ms is None else start + int(for_ms * MS),
        **values,
    )


def service(name: str) -> Resource:
    return Resource({"service.name": name})


def ids(spans: list[SpanRecord]) -> list[int]:
    return [found.context.span_id for found in spans]


def told(found: Any) -> dict[str, Any]:
    """Return everything that a span tells, in values that compare (Status and Link do not)."""
    return {
        **{name: getattr(found, name) for name in ("name", "context", "parent", "kind")},
        **{name: getattr(found, name) for name in ("start_time", "end_time")},
        "attributes": _plain(found.attributes),
        "events": [
            (e.name, e.timestamp, e.dropped_attributes, _plain(e.attributes)) for e in found.events
        ],
        "links": [(link.context, _plain(link.attributes or {})) for link in found.links],
        "status": (found.status.status_code, found.status.description),
        "resource": (_plain(found.resource.attributes), found.resource.schema_url),
        "scope": (
            found.instrumentation_scope.name,
            found.instrumentation_scope.version,
            found.instrumentation_scope.schema_url,
            _plain(found.instrumentation_scope.attributes),
        ),
        "dropped": (found.dropped_attributes, found.dropped_events, found.dropped_links),
    }


def _plain(value: Any) -> Any:
    """Tell 1 from True and 1.0, and NaN like NaN; a list and a tuple are one sequence."""
    if hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return type(value).__name__, repr(value)
