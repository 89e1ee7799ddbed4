"""Calls that failed and were sent again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from tracekit import semconv
from tracekit.findings._calls import Call, called_service, calls_below, grouped, label
from tracekit.findings._found import Finder, finding, listed, number_of, percent
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace, covered_ns

__all__ = ["plugin"]

KIND = "retries"
# What the same request will be answered with again.
HOPELESS = {"400", "401", "403", "404", "405", "406", "409", "410", "411", "413", "414", "415"}
HOPELESS |= {"422", "431", "451", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS"}
HOPELESS |= {"PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "OUT_OF_RANGE"}


class Run(NamedTuple):
    """Attempts of one call, in order; all but the last have failed."""

    attempts: Sequence[Call]

    @property
    def first(self) -> Node:
        return self.attempts[0].node

    @property
    def gave_up(self) -> bool:
        return self.attempts[-1].has_failed

    @property
    def failed(self) -> Sequence[Call]:
        return self.attempts if self.gave_up else self.attempts[:-1]


def retries(trace: Trace, history: History) -> Iterator[Finding]:
    """Find repeated attempts; those of one service at one place are one finding."""
    places: dict[tuple[str, str, str], list[Run]] = {}
    runs = list(_runs(trace))
    if not runs:
        return
    for run in runs:
        call = run.attempts[0]
        places.setdefault((run.first.service, call.peer, call.shape), []).append(run)
    attempts = {call.node: len(run.attempts) for run in runs for call in run.attempts}
    layers = _layers(trace, attempts)
    for found in places.values():
        yield _told(trace, found, layers)


def _runs(trace: Trace) -> Iterator[Run]:
    for siblings in calls_below(trace, 2).values():
        for calls in grouped(siblings, _asked, 2).values():
            yield from _split(calls)


def _asked(call: Call) -> tuple[str, str, str]:
    asked = (call.system == "http" and call.identity) or call.shape
    return call.node.service, call.peer, asked


def _split(calls: Sequence[Call]) -> Iterator[Run]:
    """Yield runs of attempts: each begins after the one before it has failed.

    Where nobody counted the attempts (``http.request.resend_count``), equal calls of which only
    some failed may be work of a loop; it is a retry only if nothing else was asked there.
    """
    run = [calls[0]]
    found: list[list[Call]] = [run]
    for call in calls[1:]:
        before = run[-1]
        if before.has_failed and call.node.start >= before.node.end:
            run.append(call)
        else:
            run = [call]
            found.append(run)
    for attempts in found:
        is_told = any(semconv.HTTP_REQUEST_RESEND_COUNT in a.node.attributes for a in attempts)
        if len(attempts) > 1 and (len(found) == 1 or is_told):
            yield Run(attempts)


class Layers(NamedTuple):
    """Retries above retries: how often each layer above an attempt, and it itself, tried."""

    tries: dict[Node, tuple[int, ...]]
    outer: set[Node]


def _layers(trace: Trace, attempts: dict[Node, int]) -> Layers:
    found = Layers({}, set())
    pending: list[tuple[Node, Node | None]] = [(root, None) for root in trace.roots]
    while pending:
        node, above = pending.pop()
        if node in attempts:
            found.tries[node] = (*(found.tries[above] if above else ()), attempts[node])
            if above is not None:
                found.outer.add(above)
            above = node
        pending += [(child, above) for child in node.children]
    return found


def _told(trace: Trace, runs: Sequence[Run], layers: Layers) -> Finding:
    attempts = [call for run in runs for call in run.attempts]
    failed = [call for run in runs for call in run.failed]
    cost = covered_ns((call.node for call in failed), trace.start, trace.end) + _waits(runs)
    times_failed = number_of(call.node for call in failed)
    first, total = runs[0].first, number_of(call.node for call in attempts)
    gave_up = all(run.gave_up for run in runs)
    statuses = [call.status or call.node.description or "an error" for call in failed]
    words = [
        f"{first.service} sent {label(first)} to {called_service(first)} {total} times",
        f" in {len(runs)} rounds" if len(runs) > 1 else "",
        ", and every attempt failed" if gave_up else f", {times_failed} of which failed",
        f" ({listed(statuses, 3)}): {percent(cost, trace)}",
    ]
    stacked = layers.tries.get(first, ())
    passes_on = any(call.node in layers.outer for call in failed)
    if len(stacked) > 1:
        product = " × ".join(map(str, stacked))
        words.append(f"; callers retry as well, so attempts multiply ({product})")
    nodes = [call.node for call in (*failed, *attempts)]
    return finding(
        trace,
        KIND,
        _severity(passes_on, gave_up, cost / trace.latency_ns),
        "".join(words),
        list(dict.fromkeys(nodes)),
        cost_ns=cost,
        advice=_advice(failed, gave_up, len(stacked) > 1),
    )


def _waits(runs: Sequence[Run]) -> int:
    """Return what was waited between attempts."""
    return sum(
        max(0, after.node.start - before.node.end)
        for run in runs
        for before, after in pairwise(run.attempts)
    )


def _severity(passes_on: bool, gave_up: bool, share: float) -> Severity:
    if passes_on:
        return Severity.LOW  # what a retry further down could not mend
    if gave_up:
        return Severity.HIGH
    return Severity.MEDIUM if share >= 0.10 else Severity.LOW


def _advice(failed: Sequence[Call], gave_up: bool, stacked: bool) -> str:
    if any(call.status in HOPELESS for call in failed):
        return "Do not send again what was refused for what it says: the answer stays the same."
    if stacked:
        return "Retry in one layer only, with a budget, and break the circuit when it is used up."
    if gave_up:
        return "Break the circuit after the first failures, and fail at once while it is open."
    return "Look why the first attempt fails; limit attempts to a share of the traffic."


plugin: Finder = retries
