"""The spans of a trace joined to trees: who is below whom, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracekit.exporters._anyvalue import exact
from tracekit.exporters._readable import Identity, UnreadableSpanError, identity_of, salvage
from tracekit.interfaces import ReadableSpan
from tracekit.semconv import SERVICE_NAME

__all__ = ["Forest", "Node", "build_forests", "covered"]

_ERROR = 2


@dataclass(eq=False)
class Node:
    """One span in its place. Times are Unix nanoseconds; self time is what no child covers.

    ``note`` says what is odd about the place, and ``span`` is None for a place that a parent
    should have had which is not there.
    """

    span: ReadableSpan | None
    name: str
    service: str
    span_id: int
    parent_id: int
    parent_is_remote: bool
    start: int
    end: int
    is_ended: bool
    is_error: bool
    description: str | None
    attributes: Mapping[str, Any]
    children: list[Node] = field(default_factory=list)
    self_ns: int = 0
    note: str = ""

    @property
    def duration_ns(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Forest:
    """All that is known of one trace."""

    trace_id: int
    roots: Sequence[Node]
    nodes: Sequence[Node]
    start: int
    end: int


def build_forests(spans: Iterable[ReadableSpan], service_name: str | None = None) -> list[Forest]:
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
    return [_forest(trace_id, nodes) for trace_id, nodes in traces.items()]


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
    )
    return trace_id, node


def _forest(trace_id: int, nodes: list[Node]) -> Forest:
    nodes.sort(key=lambda node: node.start)
    end = max(node.end for node in nodes)
    for node in nodes:
        if not node.is_ended:
            node.end = max(node.start, end)
    by_id: dict[int, Node] = {}
    for node in nodes:
        by_id.setdefault(node.span_id, node)
    roots = _join(nodes, by_id)
    for node in nodes:
        busy = covered([(child.start, child.end) for child in node.children], node.start, node.end)
        node.self_ns = node.duration_ns - sum(stop - start for start, stop in busy)
    return Forest(trace_id, roots, nodes, nodes[0].start, end)


def _join(nodes: Sequence[Node], by_id: Mapping[int, Node]) -> list[Node]:
    roots: list[Node] = []
    orphans: list[Node] = []
    for node in nodes:
        parent = by_id.get(node.parent_id) if node.parent_id else None
        if parent is not None:
            parent.children.append(node)
        else:
            (orphans if node.parent_id else roots).append(node)
    roots += _open_cycles(nodes, [*roots, *orphans])
    roots += _place_orphans(orphans, is_partial=not roots)
    return sorted(roots, key=lambda node: node.start)


def _open_cycles(nodes: Sequence[Node], reachable_from: Sequence[Node]) -> list[Node]:
    """Make the first span of every circle of parents a root, so that all spans can be reached."""
    reached: set[Node] = set()
    _reach(reachable_from, reached)
    by_id = {node.span_id: node for node in reversed(nodes)}
    opened = []
    for node in nodes:
        if node in reached:
            continue
        by_id[node.parent_id].children.remove(node)
        node.note = "its own ancestor"
        opened.append(node)
        _reach([node], reached)
    return opened


def _reach(start: Iterable[Node], reached: set[Node]) -> None:
    pending = list(start)
    while pending:
        node = pending.pop()
        reached.add(node)
        pending += node.children


def _place_orphans(orphans: Sequence[Node], *, is_partial: bool) -> list[Node]:
    """Put spans whose parent is absent below a stand-in for it, one for each absent parent.

    Where only a part of the trace is at hand, a span with a remote parent is no orphan: it is
    where the trace came in.
    """
    roots: list[Node] = []
    stand_ins: dict[int, Node] = {}
    for node in orphans:
        if is_partial and node.parent_is_remote:
            node.note = f"remote parent {node.parent_id:016x}"
            roots.append(node)
            continue
        stand_in = stand_ins.get(node.parent_id)
        if stand_in is None:
            stand_in = stand_ins[node.parent_id] = _stand_in(node)
            roots.append(stand_in)
        stand_in.children.append(node)
        stand_in.end = max(stand_in.end, node.end)
    return roots


def _stand_in(child: Node) -> Node:
    return Node(
        span=None,
        name=f"(missing parent {child.parent_id:016x})",
        service="",
        span_id=child.parent_id,
        parent_id=0,
        parent_is_remote=False,
        start=child.start,
        end=child.end,
        is_ended=True,
        is_error=False,
        description=None,
        attributes={},
    )


def covered(intervals: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Return the union of intervals within [start, end], in order and not touching."""
    union: list[tuple[int, int]] = []
    for begin, stop in sorted(intervals):
        low, high = max(begin, start), min(stop, end)
        if low >= high:
            continue
        if union and low <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], high))
        else:
            union.append((low, high))
    return union
