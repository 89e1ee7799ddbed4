"""Live spans, which may be anybody's and hold anything, joined to traces."""

from __future__ import annotations

from collections.abc import Iterable

from tracekit.exporters._anyvalue import exact
from tracekit.exporters._readable import Identity, UnreadableSpanError, identity_of, salvage
from tracekit.interfaces import ReadableSpan
from tracekit.semconv import SERVICE_NAME
from tracekit.trace import Node, Trace, join

__all__ = ["build_forests"]

_ERROR = 2


def build_forests(spans: Iterable[ReadableSpan], service_name: str | None = None) -> list[Trace]:
    """Join spans to trees, one forest for each trace, in the order of their first spans.

    Args:
        service_name: Used instead of the resource's.

    Anything may be missing or wrong: parents that are not there, equal ids, spans that are each
    other's parents, spans that never ended. Spans that cannot be read are left out.
    Cost: n log n, without recursion.
    """
    traces: dict[int, list[Node]] = {}
    for span in spans:
        try:
            trace_id, node = _read(span, service_name)
        except UnreadableSpanError:
            continue
        traces.setdefault(trace_id, []).append(node)
    return [join(trace_id, nodes) for trace_id, nodes in traces.items()]


def _read(span: ReadableSpan, service_name: str | None) -> tuple[int, Node]:
    try:
        return _node(span, identity_of(span), service_name)
    except Exception:
        readable = salvage(span)
        return _node(readable, identity_of(readable), service_name)


def _service(span: ReadableSpan) -> str:
    try:
        found = exact(span.resource.attributes.get(SERVICE_NAME, ""))
    except Exception:
        return ""
    return found if isinstance(found, str) else repr(found)


def _node(span: ReadableSpan, identity: Identity, service_name: str | None) -> tuple[int, Node]:
    trace_id, span_id, parent_id, parent_is_remote, _, _, code, description = identity
    start, end = span.start_time, span.end_time
    node = Node(
        span=span,
        name=str(span.name),
        service=service_name or _service(span),
        span_id=span_id,
        parent_id=parent_id,
        parent_is_remote=parent_is_remote,
        start=start,
        end=max(start, end or 0),
        is_ended=end is not None,
        is_error=code == _ERROR,
        description=description,
        attributes=span.attributes,
        kind=span.kind,
    )
    return trace_id, node
