"""A great many calls at the same time from one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracekit.findings._calls import Call, calls_of, grouped, label
from tracekit.findings._found import Finder, finding, number_of, percent
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace

__all__ = ["plugin"]

KIND = "fan_out"
MIN_AT_ONCE = 20


def fan_out(trace: Trace, history: History) -> Iterator[Finding]:
    """Find spans below which at least twenty calls ran at the same time."""
    groups = grouped(calls_of(trace), lambda call: _asking(call.node), MIN_AT_ONCE)
    for asking, calls in groups.items():
        if asking is not None:
            at_once = _most_at_once([call.node for call in calls])
            if at_once >= MIN_AT_ONCE:
                yield _told(trace, calls, at_once)


def _asking(node: Node) -> Node | None:
    """Return the span that fans out: above the call, or above the task that makes it."""
    above = node.parent
    if above is not None and len(above.children) == 1 and above.parent is not None:
        return above.parent
    return above


def _most_at_once(nodes: Sequence[Node]) -> int:
    # An end sorts before a start at the same moment.
    ends = [(node.end, 0, -_at_once(node)) for node in nodes]
    moments = sorted([*ends, *((node.start, 1, _at_once(node)) for node in nodes)])
    running = most = 0
    for _, _, more in moments:
        running += more
        most = max(most, running)
    return most


def _at_once(node: Node) -> int:
    """Return how many of those that a span stands for ran at the same time, on average."""
    return min(node.count, max(1, round(node.total_ns / max(1, node.duration_ns))))


def _told(trace: Trace, calls: Sequence[Call], at_once: int) -> Finding:
    nodes = sorted((call.node for call in calls), key=lambda node: -node.end)
    ends = sorted(node.end for node in nodes)
    tail = ends[-1] - ends[len(ends) // 2]
    return finding(
        trace,
        KIND,
        Severity.LOW if at_once < 5 * MIN_AT_ONCE else Severity.MEDIUM,
        f"{nodes[0].service} made {number_of(nodes)} calls such as {label(nodes[0])}, {at_once} of "
        f"them at the same time: the slowest half took {percent(tail, trace)} longer than the rest",
        nodes,
        cost_ns=tail,
        advice="Ask for many in one request, or limit how many run at once.",
    )


plugin: Finder = fan_out
