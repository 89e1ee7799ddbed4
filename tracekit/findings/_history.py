"""What is usual: how long the operations of other traces took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tracekit.trace import Trace

__all__ = ["NO_HISTORY", "History", "Usual", "history_of"]

ENOUGH = 20
"""Spans of an operation from which its percentiles say something."""


class Usual(NamedTuple):
    """How many spans an operation had, and their durations in nanoseconds."""

    spans: int
    p50_ns: int
    p95_ns: int


History = Mapping[tuple[str, str], Usual]
"""What is usual for a service and span name; operations that were seen too seldom are not there."""

NO_HISTORY: History = {}


def history_of(traces: Iterable[Trace]) -> History:
    """Return what is usual in these traces. Cost: n log n."""
    durations: dict[tuple[str, str], list[int]] = {}
    for trace in traces:
        for node in trace.nodes:
            if node.span is not None and node.is_ended:
                durations.setdefault((node.service, node.name), []).append(node.duration_ns)
    return {
        key: Usual(len(found), found[len(found) // 2], found[len(found) * 95 // 100])
        for key, found in ((key, sorted(found)) for key, found in durations.items())
        if len(found) >= ENOUGH
    }
