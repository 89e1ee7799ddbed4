"""What is usual: how long the operations of other traces took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from opentelemetry.trace import SpanKind

from tracekit.findings._calls import is_named_by_method
from tracekit.trace import Node, Trace

__all__ = ["NO_HISTORY", "History", "Usual", "history_from", "history_of", "usual_for"]

ENOUGH = 20
"""Spans of an operation from which its percentiles say something."""


class Usual(NamedTuple):
    """How many spans an operation had, and their durations in nanoseconds."""

    spans: int
    p50_ns: int
    p95_ns: int


History = Mapping[tuple[str, str, int], Usual]
"""What is usual for a service, span name and kind; what was seen too seldom is not there."""

NO_HISTORY: History = {}


class Figures(Protocol):
    """What a store knows of an operation."""

    @property
    def service(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def p50_ns(self) -> int: ...
    @property
    def p95_ns(self) -> int: ...


def history_from(operations: Iterable[Figures]) -> History:
    """Return what is usual by the figures of a store."""
    return {
        (each.service, each.name, each.kind): Usual(each.count, each.p50_ns, each.p95_ns)
        for each in operations
        if each.count >= ENOUGH
    }


def history_of(traces: Iterable[Trace]) -> History:
    """Return what is usual in these traces. Cost: n log n."""
    durations: dict[tuple[str, str, int], list[int]] = {}
    for trace in traces:
        for node in trace.nodes:
            if node.span is not None and node.is_ended and node.count == 1:
                durations.setdefault(_operation(node), []).append(node.duration_ns)
    return {
        key: Usual(len(found), found[len(found) // 2], found[len(found) * 95 // 100])
        for key, found in ((key, sorted(found)) for key, found in durations.items())
        if len(found) >= ENOUGH
    }


def usual_for(history: History, node: Node) -> Usual | None:
    """Return what is usual for a span like this one.

    A client's span that is named by its method alone is like no other: it may have called anyone.
    """
    if node.kind is SpanKind.CLIENT and is_named_by_method(node):
        return None
    return history.get(_operation(node))


def _operation(node: Node) -> tuple[str, str, int]:
    return node.service, node.name, node.kind.value
