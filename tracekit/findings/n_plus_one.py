"""One query for a list, then one more for each of its items."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tracekit.findings._calls import Call, calls_of_requests, label, location_in
from tracekit.findings._found import Finder, by_cost, finding, number_of, percent
from tracekit.findings._history import History
from tracekit.model import Finding
from tracekit.trace import Trace, covered_ns

__all__ = ["plugin"]

KIND = "n_plus_one"
MIN_CALLS = 5
MIN_SHARE = 0.05
MIN_NS = 10_000_000
MOSTLY = 0.8
MIN_PART = 1 / 3
"""Of what goes on between the first and the last of them, a loop's calls are at least this part;
equal calls that are scattered over a request are no loop."""


def n_plus_one(trace: Trace, history: History) -> Iterator[Finding]:
    """Find equal calls with different parameters, one after another, from one place."""
    for asked in calls_of_requests(trace, MIN_CALLS).values():
        beside = [call.node.start for call in asked]
        for calls in _places(asked):
            if _asks_differently(calls) and _is_one_by_one(calls) and _is_loop(calls, beside):
                yield from _told(trace, calls)


def _places(asked: Sequence[Call]) -> Iterator[list[Call]]:
    """Yield calls of one shape that were made from one place, where they are many."""
    groups: dict[tuple[str, ...], list[Call]] = {}
    for call in asked:
        if not call.has_failed:
            key = (call.peer, call.shape, location_in(call.node.attributes))
            groups.setdefault(key, []).append(call)
    return (calls for calls in groups.values() if _number(calls) >= MIN_CALLS)


def _number(calls: Sequence[Call]) -> int:
    return number_of(call.node for call in calls)


def _is_loop(calls: Sequence[Call], beside: Sequence[int]) -> bool:
    """Whether these calls are what mostly happens between the first and the last of them."""
    nodes = [call.node for call in calls]
    began, ended = nodes[0].start, max(node.end for node in nodes)
    among = bisect_right(beside, nodes[-1].start) - bisect_left(beside, began)
    busy = covered_ns(nodes, began, ended)
    return number_of(nodes) >= MIN_PART * among and busy >= MIN_PART * (ended - began)


def _asks_differently(calls: Sequence[Call]) -> bool:
    known = {call.identity for call in calls if call.identity is not None}
    # One that stands for many has an identity only where all of them asked for the same.
    asked = sum(call.node.count for call in calls if call.node.count == 1 or call.identity)
    return not known or len(known) >= MOSTLY * asked


def _is_one_by_one(calls: Sequence[Call]) -> bool:
    pairs = pairwise(calls)
    in_turn = sum(after.node.start >= before.node.end for before, after in pairs)
    together = [call.node for call in calls if call.node.total_ns <= call.node.duration_ns]
    in_turn += sum(node.count - 1 for node in together)
    return in_turn >= MOSTLY * (number_of(call.node for call in calls) - 1)


def _told(trace: Trace, calls: Sequence[Call]) -> Iterator[Finding]:
    nodes = [call.node for call in calls]
    longest = max(node.max_ns for node in nodes)
    cost = covered_ns(nodes, trace.start, trace.end) - longest
    share = cost / trace.latency_ns
    if share < MIN_SHARE or cost < MIN_NS:
        return
    yield finding(
        trace,
        KIND,
        by_cost(share),
        f"{nodes[0].service} made the call {label(nodes[0])} {number_of(nodes)} times, one after "
        f"another: a single one for all would save up to {percent(cost, trace)}",
        nodes,
        cost_ns=cost,
        advice="Ask for all of them at once: a join, an IN list, a batch or bulk request.",
    )


plugin: Finder = n_plus_one
