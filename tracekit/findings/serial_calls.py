"""Questions that were asked one after another, and could have been asked at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracekit.findings._calls import Call, calls_below
from tracekit.findings._critical_path import critical_path
from tracekit.findings._found import Finder, finding, listed, percent
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace, format_duration

__all__ = ["plugin"]

KIND = "serial_calls"
MIN_CALLS = 3
MIN_SHARE = 0.3
MAX_GAP = 0.05
"""What lies between two questions, as a part of them: more says that the first answer was used."""


def serial_calls(trace: Trace, history: History) -> Iterator[Finding]:
    """Find at least three different reads of one span, one right after the other.

    Nobody but the program knows whether one needs the answer of another. That nothing happens
    between them says that probably none does.
    """
    waited_for = {section.node for section in critical_path(trace)}
    for parent, calls in calls_below(trace, MIN_CALLS).items():
        for run in _runs(calls) if parent is not None else ():
            if len({call.shape for call in run}) >= MIN_CALLS and run[0].node in waited_for:
                yield from _told(trace, run)


def _runs(calls: Sequence[Call]) -> Iterator[list[Call]]:
    run: list[Call] = []
    for call in calls:
        if not call.is_read or call.has_failed:
            yield run
            run = []
            continue
        if run and not _follows_at_once(run[-1].node, call.node):
            yield run
            run = []
        run.append(call)
    yield run


def _follows_at_once(before: Node, after: Node) -> bool:
    gap = after.start - before.end
    return 0 <= gap <= MAX_GAP * min(before.duration_ns, after.duration_ns)


def _told(trace: Trace, run: Sequence[Call]) -> Iterator[Finding]:
    nodes = [call.node for call in run]
    took = nodes[-1].end - nodes[0].start
    saved = took - max(node.duration_ns for node in nodes)
    if saved < MIN_SHARE * trace.latency_ns:
        return
    yield finding(
        trace,
        KIND,
        Severity.LOW,
        f"{nodes[0].service} asked {len(run)} questions one after another "
        f"({listed(call.shape for call in run)}) in {format_duration(took)}: at once they would "
        f"take {percent(saved, trace)} less",
        nodes,
        cost_ns=saved,
        advice="If none needs another's answer, send them together (gather, a pool, one query).",
    )


plugin: Finder = serial_calls
