"""Code that kept an event loop from running anything else, and what had to wait for it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tracekit import semconv
from tracekit.findings._calls import label, location_in
from tracekit.findings._found import Finder, by_cost, counted, finding, listed, percent
from tracekit.findings._history import History
from tracekit.model import Finding
from tracekit.trace import Node, Trace

__all__ = ["plugin"]

KIND = "blocked_loop"
MOST_MS = 1e9


class Blocking(NamedTuple):
    """A span that held the loop up: for how long at the longest, and what was noted each time."""

    node: Node
    blocked_ns: int
    events: Sequence[Any]

    @property
    def instants(self) -> list[int]:
        """Return times at which the loop stood still, on the trace's clock."""
        return [event.timestamp + self.node.skew_ns for event in self.events]

    @property
    def code(self) -> Mapping[str, Any]:
        """Return ``code.*`` of the line that ran, where it was seen."""
        told = (event.attributes or {} for event in self.events)
        return next((attributes for attributes in told if location_in(attributes)), {})


def blocked_loop(trace: Trace, history: History) -> Iterator[Finding]:
    """Find spans during which a loop stood still; those of one service are one finding."""
    services: dict[str, list[Blocking]] = {}
    for node in trace.nodes:
        if blocked_ns := _blocked_ns(node):
            services.setdefault(node.service, []).append(
                Blocking(node, blocked_ns, _events(node) if node.span is not None else ())
            )
    for found in services.values():
        found.sort(key=lambda blocking: -blocking.blocked_ns)
        yield _told(trace, found)


def _blocked_ns(node: Node) -> int:
    blocked = node.attributes.get(semconv.LOOP_BLOCKED)
    if not isinstance(blocked, (int, float)) or not 0 < blocked < MOST_MS:
        return 0
    # A clock that was set back, or a value from elsewhere: no longer than the span itself.
    return min(round(blocked * 1e6), node.duration_ns)


def _events(node: Node) -> list[Any]:
    return [event for event in node.span.events if event.name == semconv.LOOP_BLOCKED_EVENT]


def _told(trace: Trace, found: Sequence[Blocking]) -> Finding:
    worst = found[0]
    cost = sum(blocking.blocked_ns for blocking in found)
    waiting = _kept_waiting(trace, found)
    place = location_in(worst.code)
    function = str(worst.code.get(semconv.CODE_FUNCTION_NAME, "")) or label(worst.node)
    spans = f", {counted(len(found), 'time')}" if len(found) > 1 else ""
    others = f" while {listed(map(label, waiting))} had to wait" if waiting else ""
    return finding(
        trace,
        KIND,
        by_cost(cost / trace.latency_ns),
        f"{worst.node.service or 'the program'} kept its event loop from running anything else"
        f"{spans} in {function}: {percent(cost, trace)}{others}",
        [*(blocking.node for blocking in found), *waiting],
        cost_ns=cost,
        advice=(
            "Await what waits, and hand what computes to asyncio.to_thread() or to another process."
        ),
        place=place,
    )


def _kept_waiting(trace: Trace, found: Sequence[Blocking]) -> list[Node]:
    """Return the other spans that were open in the same process while its loop stood still.

    Those above a span that blocks are left out: they wait for it in any case.
    """
    apart = _with_ancestors(found)
    instants: dict[tuple[str, str], list[int]] = {}
    for blocking in found:
        key = (blocking.node.service, blocking.node.process)
        instants.setdefault(key, []).extend(blocking.instants)
    for times in instants.values():
        times.sort()
    return [
        node
        for node in trace.nodes
        if node not in apart
        and _is_open_at_one(node, instants.get((node.service, node.process), ()))
    ]


def _with_ancestors(found: Sequence[Blocking]) -> set[Node]:
    reached: set[Node] = set()
    for blocking in found:
        node: Node | None = blocking.node
        while node is not None and node not in reached:
            reached.add(node)
            node = node.parent
    return reached


def _is_open_at_one(node: Node, instants: Sequence[int]) -> bool:
    after_start = bisect_right(instants, node.start)
    return after_start < len(instants) and instants[after_start] <= node.end


plugin: Finder = blocked_loop
