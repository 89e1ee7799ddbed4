"""Limits that do not nest: work that goes on after whoever asked for it has given up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tracekit import semconv
from tracekit.findings._calls import called_service, is_timeout, label
from tracekit.findings._found import Finder, by_cost, finding, percent
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace, format_duration

__all__ = ["plugin"]

KIND = "timeouts"
TOLERANCE_NS = 10_000_000
LIMITS = (semconv.TIMEOUT_TOTAL, semconv.TIMEOUT_READ)


class Abandoned(NamedTuple):
    """A call that was given up, and until when the service that it asked worked on."""

    call: Node
    worked_until: int

    @property
    def over_ns(self) -> int:
        return self.worked_until - self.call.end


def timeouts(trace: Trace, history: History) -> Iterator[Finding]:
    """Find calls that timed out while their callee went on; those of one trace are one finding."""
    given_up = [node for node in trace.nodes if is_timeout(node)]
    ends = _ends_elsewhere(trace) if given_up else {}
    found = [Abandoned(node, ends.get(node, 0)) for node in given_up]
    found = [item for item in found if item.over_ns > TOLERANCE_NS]
    if found:
        found.sort(key=lambda item: -item.over_ns)
        yield _told(trace, found)


def _ends_elsewhere(trace: Trace) -> dict[Node, int]:
    """Return for each span when the last of the work in other services below it ended."""
    order: list[Node] = []
    pending = list(trace.roots)
    while pending:
        node = pending.pop()
        order.append(node)
        pending += node.children
    ends: dict[Node, int] = {}
    for node in reversed(order):
        ends[node] = max(
            (
                child.end if child.service != node.service else ends.get(child, 0)
                for child in node.children
            ),
            default=0,
        )
    return ends


def _told(trace: Trace, found: Sequence[Abandoned]) -> Finding:
    worst = found[0]
    steps = [
        f"{item.call.service} gave up on {called_service(item.call)} after "
        f"{format_duration(item.call.duration_ns)}{_limit(item.call)}"
        for item in sorted(found, key=lambda item: item.call.end)[:3]
    ]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    cost = worst.over_ns
    return finding(
        trace,
        KIND,
        _severity(found, cost / trace.latency_ns),
        f"limits do not nest: {', '.join(steps)}{more}; "
        f"{called_service(worst.call)} went on for {percent(cost, trace)} with nobody waiting",
        [item.call for item in found],
        cost_ns=cost,
        advice=(
            "Give each callee less time than its caller has left: pass a deadline on, and stop "
            "when the caller has gone."
        ),
        operation=label(worst.call),
    )


def _severity(found: Sequence[Abandoned], share: float) -> Severity:
    return Severity.HIGH if len(found) > 1 and share >= 0.10 else by_cost(share)


def _limit(call: Node) -> str:
    for key in LIMITS:
        limit = call.attributes.get(key)
        if isinstance(limit, (int, float)) and limit > 0:
            return f" (limit {limit:g} s)"
    return ""


plugin: Finder = timeouts
