"""Where a trace's time went: every moment of its roots given to the one step that took it.

Self times add up to more than the trace where steps run at once, and a child that outlives its
parent (a server that works on after its client gave up) has more of it than anybody waited for.
So the way is walked from the end: at each moment the child that ended last was what its parent
waited for, and a parent has the moments in which it waited for none. The parts add up to the
duration of the roots, exactly. A child that begins after its parent has ended, such as the
consumer of a message, was waited for by nobody and adds its own duration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tracekit.exporters._forest import Forest, Node

__all__ = ["Spent", "by_service", "by_step"]


@dataclass(frozen=True)
class Spent:
    """How long a trace spent in the spans of one service, or of one service and name."""

    service: str
    name: str
    duration_ns: int
    spans: int


def by_service(forest: Forest) -> list[Spent]:
    """Return the time of each service, longest first."""
    return _summed((node.service, "", node, taken) for node, taken in _shares(forest))


def by_step(forest: Forest) -> list[Spent]:
    """Return the time of each service and span name, longest first."""
    return _summed((node.service, node.name, node, taken) for node, taken in _shares(forest))


def _summed(shares: Iterable[tuple[str, str, Node, int]]) -> list[Spent]:
    spent: dict[tuple[str, str], int] = {}
    spans: dict[tuple[str, str], set[Node]] = {}
    for service, name, node, taken in shares:
        key = service, name
        spent[key] = spent.get(key, 0) + taken
        spans.setdefault(key, set()).add(node)
    parts = [Spent(*key, taken, len(spans[key])) for key, taken in spent.items()]
    return sorted(parts, key=lambda part: (-part.duration_ns, part.service, part.name))


def _shares(forest: Forest) -> Iterator[tuple[Node, int]]:
    """Yield spans with the time that each took itself. Cost: n log n, without recursion."""
    pending = [(root, root.start, root.end) for root in forest.roots]
    while pending:
        node, start, end = pending.pop()
        own = 0
        for child in sorted(node.children, key=lambda child: -child.end):
            if child.start >= node.end:
                pending.append((child, child.start, child.end))
                continue
            stop = min(child.end, end)
            begin = max(child.start, start)
            if begin >= stop:
                continue
            own += end - stop
            pending.append((child, begin, stop))
            end = begin
        yield node, own + end - start
