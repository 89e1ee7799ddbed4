"""Time that was spent in a queue: for a free connection, or for somebody's lock."""

from __future__ import annotations

from collections.abc import Iterator

from tracekit import semconv
from tracekit.findings._calls import Call, calls_of, label
from tracekit.findings._found import Finder, by_cost, counted, finding, percent
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace

__all__ = ["plugin"]

KIND = "waiting"
MIN_SHARE = 0.05
MIN_NS = 5_000_000
# lock_not_available, deadlock_detected, serialization_failure; MySQL's lock wait and deadlock;
# SQLite's busy and locked.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
LOCKED = {"55P03", "40P01", "40001", "1205", "1213", "SQLITE_BUSY", "SQLITE_LOCKED"}


def waiting(trace: Trace, history: History) -> Iterator[Finding]:
    """Find waits for a pool, by service, and calls that failed for a lock."""
    queued: dict[str, list[tuple[int, Node]]] = {}
    for node in trace.nodes:
        if (waited := _waited_ns(node)) > 0:
            queued.setdefault(node.service, []).append((waited, node))
    for waits in queued.values():
        yield from _told_pool(trace, waits)
    locked = [call for call in calls_of(trace) if call.status in LOCKED and call.has_failed]
    if locked:
        yield _told_lock(trace, locked)


def _waited_ns(node: Node) -> int:
    waited = node.attributes.get(semconv.POOL_WAIT)
    if not isinstance(waited, (int, float)) or not 0 < waited < 1e6:
        return 0
    return round(waited * 1e9)


def _told_pool(trace: Trace, waits: list[tuple[int, Node]]) -> Iterator[Finding]:
    waits.sort(key=lambda wait: -wait[0])
    cost = sum(waited for waited, _ in waits)
    share = cost / trace.latency_ns
    if share < MIN_SHARE or cost < MIN_NS:
        return
    first = waits[0][1]
    yield finding(
        trace,
        KIND,
        by_cost(share),
        f"{first.service} waited for a free connection {counted(len(waits), 'time')} "
        f"before {label(first)}: {percent(cost, trace)}",
        [node for _, node in waits],
        cost_ns=cost,
        advice="Enlarge the pool, hold connections for less time, or admit fewer requests at once.",
    )


def _told_lock(trace: Trace, locked: list[Call]) -> Finding:
    nodes = [call.node for call in locked]
    return finding(
        trace,
        KIND,
        Severity.HIGH,
        f"{nodes[0].service} could not get a lock in {label(nodes[0])} ({locked[0].status}), "
        f"{counted(len(nodes), 'time')}",
        nodes,
        cost_ns=max(node.duration_ns for node in nodes),
        advice="Keep transactions short, and take locks in the same order everywhere.",
    )


plugin: Finder = waiting
