"""The very same question asked more than once, within a service or by several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tracekit.findings._calls import Call, calls_of, label
from tracekit.findings._found import (
    Finder,
    by_cost,
    counted,
    finding,
    listed,
    number_of,
    percent,
)
from tracekit.findings._history import History
from tracekit.model import Finding
from tracekit.trace import Trace, covered_ns, format_duration

__all__ = ["plugin"]

KIND = "redundant_calls"
MIN_SHARE = 0.02
MIN_REPEATS = 5
"""A repeat that costs next to nothing is told only when there are so many."""


def redundant_calls(trace: Trace, history: History) -> Iterator[Finding]:
    """Find reads with equal query and parameters, or equal idempotent requests.

    A read that follows a write to the same thing is another question. Calls that failed are the
    business of ``retries``.
    """
    repeated = [group for group in _same_questions(calls_of(trace)) if _number(group) > 1]
    for of_database in (True, False):
        groups = [group for group in repeated if group[0].is_database is of_database]
        if groups:
            yield from _told(trace, groups, "database" if of_database else "HTTP")


def _same_questions(calls: Iterable[Call]) -> Iterable[Sequence[Call]]:
    groups: dict[tuple[object, ...], list[Call]] = {}
    versions: dict[tuple[str, str], int] = {}
    for call in calls:
        if not call.is_read:
            for target in call.targets or ("",):
                versions[call.peer, target] = versions.get((call.peer, target), 0) + 1
        elif call.identity is not None and not call.has_failed:
            # A write to something that nobody named may have changed anything.
            seen = [versions.get((call.peer, target), 0) for target in ("", *call.targets)]
            groups.setdefault((call.peer, call.identity, *seen), []).append(call)
    return groups.values()


def _told(trace: Trace, groups: Sequence[Sequence[Call]], what: str) -> Iterator[Finding]:
    groups = sorted(groups, key=lambda group: -_cost(group, trace))
    extra = [call.node for group in groups for call in _repeats(group)]
    cost = covered_ns(extra, trace.start, trace.end)
    repeats = sum(_number(group) - 1 for group in groups)
    if cost < MIN_SHARE * trace.latency_ns and repeats < MIN_REPEATS:
        return
    worst = groups[0]
    services = list(dict.fromkeys(call.node.service for call in worst))
    by = f" by {listed(services)}" if len(services) > 1 else f" by {services[0]}"
    others = f", and {counted(len(groups) - 1, 'other call')} repeated" if len(groups) > 1 else ""
    yield finding(
        trace,
        KIND,
        by_cost(cost / trace.latency_ns),
        f"{percent(cost, trace)} of the trace is redundant {what} work: "
        f"{label(worst[0].node, exact=True)} was asked {_number(worst)} times{by}, "
        f"{format_duration(_cost(worst, trace))} of it again for the same answer{others}",
        [call.node for group in groups for call in group],
        cost_ns=cost,
        advice=(
            "Pass the answer on with the request, or keep it in a cache that the services share."
            if len(services) > 1
            else "Ask once and keep the answer for the rest of the request."
        ),
        operation=label(worst[0].node),
    )


def _number(group: Sequence[Call]) -> int:
    return number_of(call.node for call in group)


def _repeats(group: Sequence[Call]) -> Sequence[Call]:
    # Of a first one that stands for many, nearly all are repeats.
    return group[1:] if group[0].node.count == 1 else group


def _cost(group: Sequence[Call], trace: Trace) -> int:
    return covered_ns((call.node for call in _repeats(group)), trace.start, trace.end)


plugin: Finder = redundant_calls
