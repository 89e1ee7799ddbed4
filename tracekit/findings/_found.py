"""What every finding is made of, and the words that several use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tracekit.findings._calls import label, location_in
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace, format_duration

__all__ = [
    "Finder",
    "Grouped",
    "by_cost",
    "counted",
    "finding",
    "listed",
    "number_of",
    "percent",
    "span_name",
]

Finder = Callable[[Trace, History], Iterable[Finding]]
"""What a file of this folder declares as its ``plugin``."""

MAX_SPANS = 200
"""Spans that a finding names; the number in its sentence is of all."""

Grouped = dict[tuple[object, ...], list[Node]]


def finding(
    trace: Trace,
    kind: str,
    severity: Severity,
    message: str,
    nodes: Sequence[Node],
    *,
    cost_ns: int = 0,
    advice: str,
    operation: str = "",
    place: str = "",
) -> Finding:
    """Make a finding about these spans, of which the first is the most telling.

    Args:
        place: File and line; else those of the first span that says them.
    """
    cost_ns = min(max(0, cost_ns), trace.duration_ns)
    return Finding(
        kind=kind,
        severity=severity,
        message=message,
        spans=tuple(node.span_id for node in nodes[:MAX_SPANS]),
        cost_ns=cost_ns,
        share=min(1.0, cost_ns / trace.latency_ns),
        advice=advice,
        service=nodes[0].service,
        operation=operation or label(nodes[0]),
        location=place or _location(nodes[0].service, nodes[:MAX_SPANS]),
        trace_id=trace.trace_id,
    )


def _location(service: str, nodes: Sequence[Node]) -> str:
    """Return the first line that is told, of the service that the finding is about."""
    places = (location_in(node.attributes) for node in nodes if node.service == service)
    return next(filter(None, places), "")


def by_cost(share: float) -> Severity:
    """Return how much a part of a trace's time matters."""
    if share >= 0.25:
        return Severity.HIGH
    return Severity.MEDIUM if share >= 0.10 else Severity.LOW


def number_of(nodes: Iterable[Node]) -> int:
    """Return how many spans these are, those included that compression put together."""
    return sum(node.count for node in nodes)


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(part_ns: int, trace: Trace) -> str:
    """Return a time with its share of the trace: ``2.87 s (93 %)``, in one line.

    What goes on after the answer may take longer than that: ``6.01 s (5.9 times the request)``.
    """
    share, spent = part_ns / trace.latency_ns, format_duration(part_ns)
    if share >= 1.05:
        return f"{spent} ({share:.1f} times the request)"
    return f"{spent} ({min(1.0, share):.0%})".replace("%", "\N{NO-BREAK SPACE}%")


def listed(words: Iterable[str], most: int = 4) -> str:
    """Return words as a sentence names them: ``a, b and c``; those too many are counted."""
    found = list(dict.fromkeys(words))
    if len(found) > most:
        found = [*found[: most - 1], f"{len(found) - most + 1} more"]
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else "".join(found)


def span_name(node: Node) -> str:
    return f"{node.service} ▸ {label(node)}" if node.service else label(node)
