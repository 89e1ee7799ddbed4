"""Many small calls of different kinds to one peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tracekit.findings._calls import Call, calls_of_requests
from tracekit.findings._found import Finder, by_cost, finding, number_of, percent
from tracekit.findings._history import History
from tracekit.model import Finding
from tracekit.trace import Trace, covered_ns

__all__ = ["plugin"]

KIND = "chatty"
MIN_CALLS = 30
MIN_SHARE = 0.15
MIN_SHAPES = 5
MOST_OF_ONE_SHAPE = 0.5
"""Above this the calls are the same one again and again, which other findings tell better."""


def chatty(trace: Trace, history: History) -> Iterator[Finding]:
    """Find requests that made at least thirty calls to one peer, one after another."""
    for asked in calls_of_requests(trace, MIN_CALLS).values():
        peers: dict[str, list[Call]] = {}
        for call in asked:
            peers.setdefault(call.peer, []).append(call)
        for calls in peers.values():
            number = number_of(call.node for call in calls)
            if number >= MIN_CALLS and _is_mixed(calls) and _is_one_by_one(calls):
                yield from _told(trace, calls)


def _is_mixed(calls: Sequence[Call]) -> bool:
    shapes: Counter[str] = Counter()
    for call in calls:
        shapes[call.shape] += call.node.count
    (_, most), *_ = shapes.most_common(1)
    return len(shapes) >= MIN_SHAPES and most <= MOST_OF_ONE_SHAPE * shapes.total()


def _is_one_by_one(calls: Sequence[Call]) -> bool:
    took = calls[-1].node.end - calls[0].node.start
    return sum(call.node.total_ns for call in calls) <= 1.5 * max(1, took)


def _told(trace: Trace, calls: Sequence[Call]) -> Iterator[Finding]:
    nodes = [call.node for call in calls]
    busy = covered_ns(nodes, trace.start, trace.end)
    share = busy / trace.latency_ns
    if share < MIN_SHARE:
        return
    shapes = len({call.shape for call in calls})
    yield finding(
        trace,
        KIND,
        by_cost(share / 2),
        f"{nodes[0].service} made {number_of(nodes)} small calls of {shapes} kinds to "
        f"{calls[0].peer} for one request: {percent(busy, trace)}",
        nodes,
        cost_ns=busy // 2,
        advice="Ask for what belongs together in one call; each round trip has its price.",
    )


plugin: Finder = chatty
