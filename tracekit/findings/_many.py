"""Findings of many traces, put together: what wastes the most time altogether."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tracekit.findings._found import span_name
from tracekit.model import Finding, Severity
from tracekit.trace import Trace

__all__ = ["Pattern", "endpoint", "patterns"]

MAX_EXAMPLES = 5


@dataclass
class Pattern:
    """The same finding in several traces: kind, service and what it is about are equal.

    ``examples`` are the ones that cost most, worst first; ``endpoints`` says how many traces of
    each had it.
    """

    kind: str
    service: str
    operation: str
    traces: int = 0
    total_ns: int = 0
    severity: Severity = Severity.LOW
    examples: list[Finding] = field(default_factory=list)
    endpoints: dict[str, int] = field(default_factory=dict)

    def add(self, found: Finding, asked: str) -> None:
        self.traces += 1
        self.total_ns += found.cost_ns
        self.severity = max(self.severity, found.severity, key=lambda severity: severity.value)
        self.endpoints[asked] = self.endpoints.get(asked, 0) + 1
        self.examples.append(found)
        self.examples.sort(key=lambda example: -example.cost_ns)
        del self.examples[MAX_EXAMPLES:]


def patterns(found: Iterable[tuple[Trace, Iterable[Finding]]]) -> list[Pattern]:
    """Return the patterns of these traces: severe ones first, then by the time they waste."""
    known: dict[tuple[str, str, str], Pattern] = {}
    for trace, findings in found:
        for item in findings:
            key = (item.kind, item.service, item.operation)
            known.setdefault(key, Pattern(*key)).add(item, endpoint(trace))
    return sorted(
        known.values(),
        key=lambda pattern: (-pattern.total_ns, -pattern.severity.value, -pattern.traces),
    )


def endpoint(trace: Trace) -> str:
    """Return the service and name of what was asked."""
    return span_name(trace.asked)
