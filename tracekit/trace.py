"""A trace as trees: the spans of all its services in their places, whatever is missing or wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opentelemetry.trace import SpanKind, StatusCode

from tracekit.model import Resource, SpanRecord
from tracekit.semconv import (
    COMPRESSED_COUNT,
    COMPRESSED_MAX,
    COMPRESSED_TOTAL,
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
)

__all__ = ["Node", "Trace", "covered", "covered_ns", "format_duration", "join", "traces_of"]


@dataclass(eq=False, slots=True)
class Node:
    """One span in its place. Times are Unix nanoseconds; self time is what no child covers.

    ``note`` says what is odd about the place, and ``span`` is None for a place that a parent
    should have had which is not there. ``skew_ns`` was added to the times that were recorded.
    """

    span: Any
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
    kind: SpanKind = SpanKind.INTERNAL
    process: str = ""
    parent: Node | None = None
    children: Sequence[Node] = ()
    self_ns: int = 0
    note: str = ""
    skew_ns: int = 0

    def adopt(self, child: Node) -> None:
        """Take a span as the last of the children. Most spans have none, and no list for them."""
        if isinstance(self.children, list):
            self.children.append(child)
        else:
            self.children = [child]
        child.parent = self

    @property
    def duration_ns(self) -> int:
        return self.end - self.start

    @property
    def count(self) -> int:
        """For how many spans that were alike this one stands; 1 for most."""
        return _whole(self.attributes.get(COMPRESSED_COUNT), 1)

    @property
    def total_ns(self) -> int:
        """How long all of them took together."""
        return _whole(self.attributes.get(COMPRESSED_TOTAL), self.duration_ns)

    @property
    def max_ns(self) -> int:
        """How long the longest of them took."""
        return _whole(self.attributes.get(COMPRESSED_MAX), self.duration_ns)

    @property
    def busy_ns(self) -> int:
        """How long at least one of them ran, as far as that is known."""
        return min(self.duration_ns, self.total_ns)


def _whole(value: Any, otherwise: int) -> int:
    # A back end may have made a text or a float of it.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return max(1, int(value)) if is_number and abs(value) < 1e18 else otherwise


@dataclass(frozen=True, eq=False)
class Trace:
    """All that is known of one trace; ``nodes`` are in the order of their starts.

    ``derived`` keeps what several findings work out of it, so that it is done once.
    """

    trace_id: int
    roots: Sequence[Node]
    nodes: Sequence[Node]
    start: int
    end: int
    derived: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def duration_ns(self) -> int:
        return self.end - self.start

    @property
    def latency_ns(self) -> int:
        """How long whoever asked had to wait: the longest root, at least a nanosecond."""
        return max(1, *(root.duration_ns for root in self.roots))

    @property
    def asked(self) -> Node:
        """The span that says what was asked: the first root that is there."""
        return next((root for root in self.roots if root.span is not None), self.nodes[0])


def traces_of(spans: Iterable[SpanRecord]) -> list[Trace]:
    """Join records to traces, in the order of their first spans, with clocks brought together.

    A span that is there twice (read from two files, sent again after a lost answer) counts once.
    Anything else may be missing or wrong: parents that are not there, equal ids, spans that are
    each other's parents, negative durations, spans that never ended, clocks that disagree.

    Cost: n log n, without recursion; about 4 µs a span.
    """
    traces: dict[int, dict[object, Node]] = {}
    origins: dict[int, _Origin] = {}
    for span in spans:
        node = _node(span, origins)
        known = traces.get(span.context.trace_id)
        if known is None:
            known = traces[span.context.trace_id] = {}
        first = known.setdefault(node.span_id, node)
        if first is not node:
            _add_to_equal_ids(known, first, node)
    return [join(trace_id, [*nodes.values()], align=True) for trace_id, nodes in traces.items()]


class _Origin(NamedTuple):
    """Service and instance of a resource, which is kept so that no other gets its address."""

    service: str
    process: str
    resource: Resource


def _node(span: SpanRecord, origins: dict[int, _Origin]) -> Node:
    resource, parent, context = span.resource, span.parent, span.context
    origin = origins.get(id(resource))
    if origin is None:
        known = resource.attributes
        service, process = known.get(SERVICE_NAME, ""), known.get(SERVICE_INSTANCE_ID, "")
        origin = origins[id(resource)] = _Origin(str(service), str(process), resource)
    start, end, status = span.start_time, span.end_time, span.status
    # By position: with twenty names the call costs twice as much.
    return Node(
        span,
        span.name,
        origin[0],
        context.span_id,
        0 if parent is None else parent.span_id,
        parent is not None and parent.is_remote,
        start,
        start if end is None or end < start else end,
        end is not None,
        status.status_code is StatusCode.ERROR,
        status.description,
        span.attributes,
        span.kind,
        origin[1],
    )


def _add_to_equal_ids(known: dict[object, Node], first: Node, node: Node) -> None:
    """Keep a span whose id another has, unless it is the same one; of those the ended one."""
    own = (node.parent_id, node.kind.value, node.start, node.name)
    same = (first.parent_id, first.kind.value, first.start, first.name) == own
    key: object = node.span_id if same else (node.span_id, *own)
    if key not in known or node.is_ended > known[key].is_ended:
        known[key] = node


def join(trace_id: int, nodes: list[Node], *, align: bool = False) -> Trace:
    """Put the spans of one trace, at least one, below their parents.

    Args:
        align: Move the spans of a server whose clock disagrees into the call that it answered.

    Cost: n log n, without recursion.
    """
    nodes.sort(key=lambda node: node.start)
    _end_open_ones(nodes)
    by_id: dict[int, Node] = {}
    for node in nodes:
        by_id.setdefault(node.span_id, node)
    roots = _join(nodes, by_id)
    if align:
        _align_clocks(roots)
        nodes.sort(key=lambda node: node.start)
    for node in nodes:
        node.self_ns = node.end - node.start
        if len(node.children) == 1:
            (child,) = node.children
            until = min(_busy_until(child), node.end)
            node.self_ns -= max(0, until - max(child.start, node.start))
        elif node.children:
            node.self_ns -= covered_ns(node.children, node.start, node.end)
    return Trace(trace_id, roots, nodes, nodes[0].start, max(node.end for node in nodes))


def _end_open_ones(nodes: Sequence[Node]) -> None:
    """Let spans without an end reach to the end of what is known."""
    end = max(node.end for node in nodes)
    for node in nodes:
        if not node.is_ended:
            node.end = max(node.start, end)


# Places --------------------------------------------------------------------------------------


def _join(nodes: Sequence[Node], by_id: Mapping[int, Node]) -> list[Node]:
    roots: list[Node] = []
    orphans: list[Node] = []
    for node in nodes:
        parent = by_id.get(node.parent_id) if node.parent_id else None
        if parent is not None:
            parent.adopt(node)
        else:
            (orphans if node.parent_id else roots).append(node)
    roots += _open_cycles(nodes, [*roots, *orphans])
    roots += _place_orphans(orphans, is_partial=not roots)
    return sorted(roots, key=lambda node: node.start)


def _open_cycles(nodes: Sequence[Node], reachable_from: Sequence[Node]) -> list[Node]:
    """Make the first span of every circle of parents a root, so that all spans can be reached."""
    reached: set[Node] = set()
    _reach(reachable_from, reached)
    opened = []
    for node in nodes:
        if node in reached or node.parent is None:
            continue
        node.parent.children = [child for child in node.parent.children if child is not node]
        node.parent, node.note = None, "its own ancestor"
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
        stand_in.adopt(node)
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


# Clocks --------------------------------------------------------------------------------------


def _align_clocks(roots: Sequence[Node]) -> None:
    """Move the spans of another process as a whole to where its caller shows that they belong."""
    pending = list(roots)
    while pending:
        node = pending.pop()
        above = node.parent
        shift = 0
        if above is not None:
            shift = above.skew_ns
            if node.kind is SpanKind.SERVER and _is_answer(node, above):
                shift += _shift(node.start + shift, node.end + shift, above)
        if shift:
            node.start, node.end, node.skew_ns = node.start + shift, node.end + shift, shift
        pending += node.children


def _is_answer(node: Node, caller: Node) -> bool:
    """Whether a server's span answers a client's in another process: it lies within that."""
    if caller.kind is not SpanKind.CLIENT:
        return False
    return node.service != caller.service or node.process != caller.process


def _shift(start: int, end: int, caller: Node) -> int:
    """Return by how much a server's span must be moved to lie within its caller's.

    A server may go on after its caller has given up, and is then left where it is as long as
    it began while the caller waited. Otherwise it is put into the middle, as if the request
    had travelled for as long as the answer; that is what Jaeger does as well.
    Source: https://www.jaegertracing.io/docs/latest/architecture/#clock-skew-adjustment
    """
    if caller.start <= start <= caller.end and (end <= caller.end or caller.is_error):
        return 0
    spare = caller.duration_ns - (end - start)
    if spare < 0:
        return 0 if caller.start <= start <= caller.end else caller.start - start
    return caller.start + spare // 2 - start


# Times ---------------------------------------------------------------------------------------


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


def covered_ns(nodes: Iterable[Node], start: int, end: int) -> int:
    """Return for how long within [start, end] at least one of the spans ran.

    Of one that stands for many, as long as they took counts, not what lay between them.
    """
    spans = [(node.start, _busy_until(node)) for node in nodes]
    return sum(stop - begin for begin, stop in covered(spans, start, end))


def _busy_until(node: Node) -> int:
    if COMPRESSED_TOTAL in node.attributes:
        return node.start + node.busy_ns
    return node.end


def format_duration(duration_ns: int, micro: str = "µ") -> str:
    """Return a duration with three digits and its unit: ``12.3 ms``, ``2.85 s``, ``3m 05s``."""
    if duration_ns < 1_000:
        return f"{duration_ns} ns"
    for unit_ns, unit in ((1_000, f"{micro}s"), (1_000_000, "ms"), (1_000_000_000, "s")):
        amount = duration_ns / unit_ns
        if amount < 999.5:
            if unit == "s" and amount >= 100:
                break
            return f"{amount:.{2 if amount < 9.995 else 1 if amount < 99.95 else 0}f} {unit}"
    minutes, seconds = divmod(round(duration_ns / 1e9), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s"
