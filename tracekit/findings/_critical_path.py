"""The critical path: at each moment the one span that the end of its root waited for.

The way is walked from the end. Of a span's children the one that ended last is what the span
waited for; before that one began, it was the child that ended last by then; and the moments in
which it waited for no child are the span's own. A child that was still running when the next
one began delayed nobody, so none of it is on the path. What of a child lies outside of its parent
is cut off: whoever has given up does not wait. The sections add up to the duration of the root.

The consumer of a message, a child that begins after its parent has ended, and what only follows
from its parent, as OpenTracing calls it, are waited for by nobody. They are not on the path; as
work that was done all the same they have paths of their own.

Source: the same rules as the critical path in Jaeger's user interface, at
https://github.com/jaegertracing/jaeger-ui (TracePage/CriticalPath)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry.trace import SpanKind

from tracekit.findings._calls import label
from tracekit.findings._once import once
from tracekit.semconv import OPENTRACING_REF_TYPE
from tracekit.trace import Node, Trace

__all__ = ["Section", "Spent", "by_service", "by_step", "critical_path", "own_times"]


class Section(NamedTuple):
    """A span, and a stretch of time in which it alone was what its root waited for."""

    node: Node
    start: int
    end: int


@dataclass(frozen=True)
class Spent:
    """How long a trace spent in the spans of one service, or of one service and name."""

    service: str
    name: str
    duration_ns: int
    spans: int


@once
def critical_path(trace: Trace) -> list[Section]:
    """Return the sections of every root, the latest first. Cost: n log n, without recursion."""
    found = [section for root in trace.roots for section in _walk(root, [])]
    return sorted(found, key=lambda section: -section.end)


def own_times(trace: Trace) -> dict[Node, int]:
    """Return for how long each span was on its path itself, work that nobody waited for too."""
    times: dict[Node, int] = {}
    pending = list(trace.roots)
    while pending:
        for node, start, end in _walk(pending.pop(), pending):
            times[node] = times.get(node, 0) + end - start
    return times


def by_service(trace: Trace) -> list[Spent]:
    """Return the time of each service, longest first."""
    return _summed((node.service, "", taken) for node, taken in own_times(trace).items())


def by_step(trace: Trace) -> list[Spent]:
    """Return the time of each service and span name, longest first."""
    return _summed((node.service, label(node), taken) for node, taken in own_times(trace).items())


def _summed(times: Iterable[tuple[str, str, int]]) -> list[Spent]:
    spent: dict[tuple[str, str], list[int]] = {}
    for service, name, taken in times:
        spent.setdefault((service, name), []).append(taken)
    parts = [Spent(*key, sum(taken), len(taken)) for key, taken in spent.items()]
    return sorted(parts, key=lambda part: (-part.duration_ns, part.service, part.name))


def _walk(top: Node, detached: list[Node]) -> Iterator[Section]:
    """Yield the sections below one span, and put aside those that nobody waited for."""
    pending = [Section(top, top.start, top.end)]
    while pending:
        node, start, end = pending.pop()
        left = end
        for child in sorted(node.children, key=lambda child: (-min(child.end, end), child.start)):
            if _is_left_alone(child, node):
                detached.append(child)
                continue
            begin, stop = max(child.start, start), min(child.end, end)
            if begin >= stop or stop > left:
                continue
            if stop < left:
                yield Section(node, stop, left)
            pending.append(Section(child, begin, stop))
            left = begin
        if start < left:
            yield Section(node, start, left)


def _is_left_alone(child: Node, node: Node) -> bool:
    """Whether a span does not wait for this child of it."""
    if child.kind is SpanKind.CONSUMER or child.start >= node.end > node.start:
        return True
    links = child.span.links if child.span is not None else ()
    return any(
        link.context.span_id == node.span_id
        and (link.attributes or {}).get(OPENTRACING_REF_TYPE) == "follows_from"
        for link in links or ()
    )
