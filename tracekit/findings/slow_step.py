"""The one step that takes longer than it does elsewhere, or most of the time."""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.trace import SpanKind

from tracekit.findings._calls import called_service, is_timeout, label
from tracekit.findings._critical_path import critical_path
from tracekit.findings._found import Finder, by_cost, finding, percent
from tracekit.findings._history import History, Usual, usual_for
from tracekit.model import Finding
from tracekit.trace import Node, Trace, format_duration

__all__ = ["plugin"]

KIND = "slow_step"
UNUSUAL = 2.0
"""So many times the usual 95th percentile is slow."""
MIN_OVER_NS = 20_000_000
MIN_SHARE = 0.20
DOMINATES = 0.5
DOMINATES_NS = 500_000_000
"""Without a history, a step that takes half of the trace is told from this duration on."""


def slow_step(trace: Trace, history: History) -> Iterator[Finding]:
    """Find the step with the most time of its own on the critical path, if that is unusual.

    What is below a call that was given up is time of that call: its caller waited for no longer.
    """
    given_up = _calls_that_gave_up(trace)
    times: dict[Node, int] = {}
    for node, start, end in critical_path(trace):
        step = given_up.get(node, node)
        times[step] = times.get(step, 0) + end - start
    for node, taken in sorted(times.items(), key=lambda item: -item[1]):
        if taken < MIN_SHARE * trace.latency_ns:
            return
        usual = usual_for(history, node)
        # Of one that stands for a loop, no step took long; n_plus_one and its like tell of it.
        if node.span is not None and node.count == 1 and _is_slow(trace, node, taken, usual):
            yield _told(trace, node, taken, usual)
            return


def _calls_that_gave_up(trace: Trace) -> dict[Node, Node]:
    """Return for each span below a call that timed out that call, the innermost one."""
    found: dict[Node, Node] = {}
    pending = [node for node in trace.nodes if node.kind is SpanKind.CLIENT and is_timeout(node)]
    found.update((node, node) for node in pending)
    while pending:
        node = pending.pop()
        below = [child for child in node.children if child not in found]
        found.update((child, found[node]) for child in below)
        pending += below
    return found


def _is_slow(trace: Trace, node: Node, taken: int, usual: Usual | None) -> bool:
    if usual is not None:
        over = node.duration_ns - usual.p95_ns
        return node.duration_ns >= UNUSUAL * usual.p95_ns and over >= MIN_OVER_NS
    dominates = taken >= DOMINATES * trace.latency_ns
    return dominates and taken >= DOMINATES_NS


def _told(trace: Trace, node: Node, taken: int, usual: Usual | None) -> Finding:
    than = f", usually {format_duration(usual.p50_ns)}" if usual else ""
    told = f"{_what(node)}: {percent(taken, trace)} of the trace{than}"
    cost = taken if usual is None else min(taken, node.duration_ns - usual.p50_ns)
    return finding(
        trace,
        KIND,
        by_cost(cost / trace.latency_ns),
        told,
        [node, *node.children],
        cost_ns=cost,
        advice=_advice(node),
    )


def _what(node: Node) -> str:
    if node.kind is not SpanKind.CLIENT:
        inside = " itself, with no span to say where" if node.children else ""
        return f"{node.service} worked in {label(node)}{inside}"
    waited = f"{node.service} waited for {called_service(node)} in {label(node)}"
    if is_timeout(node):
        why = node.attributes.get("error.type") or _beginning(node.description) or "timeout"
        return f"{waited} until it timed out ({why})"
    return waited


def _beginning(description: str | None) -> str:
    """Return the kind of an error whose description is ``ReadTimeout: HTTPConnectionPool(…``."""
    return (description or "").partition(":")[0].strip()


def _advice(node: Node) -> str:
    if is_timeout(node):
        return "Wait less, ask before it is needed, or go on without the answer."
    if node.kind is SpanKind.CLIENT:
        return "Look at the other side: an index, a cache, less data, or a shorter timeout."
    if node.children:
        return "Put spans around the parts of it to see which one takes the time."
    return "Profile it; move what the caller need not wait for into the background."


plugin: Finder = slow_step
