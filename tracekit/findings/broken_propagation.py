"""Places where a trace does not hang together: parents that are gone, clocks that disagree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opentelemetry.trace import SpanKind

from tracekit.findings._found import Finder, counted, finding, listed, span_name
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace, format_duration

__all__ = ["plugin"]

KIND = "broken_propagation"
MAX_SKEW_NS = 1_000_000_000
MAX_BEFORE_PARENT_NS = 1_000_000


def broken_propagation(trace: Trace, history: History) -> Iterator[Finding]:
    """Find missing parents, several roots, circles of parents, and clocks beyond correction."""
    missing = [root.children[0] for root in trace.roots if root.span is None]
    if missing:
        yield _told(
            trace,
            missing,
            f"{counted(len(missing), 'parent')} of spans of "
            f"{listed(node.service for node in missing)} did not arrive, so parts of the trace "
            "hang in the air",
            "Ask `tracekit doctor` of the services above them where their spans went.",
        )
    roots = [root for root in trace.roots if root.span is not None and not root.note]
    if len(roots) > 1:
        yield _told(
            trace,
            roots,
            f"the trace has {len(roots)} roots ({listed(map(span_name, roots))}): one of them "
            "lost its parent on the way",
            "Carry the context into the thread, task or message in which the second one starts.",
        )
    circles = [root for root in trace.roots if root.note == "its own ancestor"]
    if circles:
        yield _told(
            trace,
            circles,
            f"{span_name(circles[0])} is its own ancestor: span ids are not unique",
            "Let every process make its ids with a random generator of its own.",
        )
    skewed = [node for node in trace.nodes if _is_skewed(node)]
    if skewed:
        yield _told_skew(trace, skewed)


def _told(trace: Trace, nodes: Sequence[Node], message: str, advice: str) -> Finding:
    return finding(trace, KIND, Severity.MEDIUM, message, nodes, advice=advice)


def _is_skewed(node: Node) -> bool:
    """Whether a span's times cannot be right, or its clock was far off."""
    above = node.parent
    if above is None or above.span is None or node.kind is SpanKind.CONSUMER:
        return False
    if abs(node.skew_ns - above.skew_ns) > MAX_SKEW_NS:
        return True
    return above.start - node.start > MAX_BEFORE_PARENT_NS


def _told_skew(trace: Trace, skewed: Sequence[Node]) -> Finding:
    first = max(skewed, key=lambda node: abs(node.skew_ns))
    off = abs(first.skew_ns) or (first.parent.start - first.start if first.parent else 0)
    return finding(
        trace,
        KIND,
        Severity.LOW,
        f"clocks disagree: {span_name(first)} is off by {format_duration(off)} against its caller; "
        "times across these services are estimates",
        skewed,
        advice="Synchronise the clocks of the machines (NTP, chrony).",
    )


plugin: Finder = broken_propagation
