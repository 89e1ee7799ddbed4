"""Making and ending spans, through the whole batch pipeline."""

from __future__ import annotations

from typing import Any

import tracekit
from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Side, both_sides, configured

__all__ = ["roots", "trees"]

SPANS = 4000
"""In a round: enough that its one flush weighs little, as it does in a program."""

CHILDREN = 9


def roots(tracer: Any, items: int) -> None:
    for _ in range(items):
        with tracer.start_as_current_span("checkout"):
            pass


def _start_and_end(tracer: Any, items: int) -> None:
    for _ in range(items):
        tracer.start_span("checkout").end()


def trees(tracer: Any, items: int) -> None:
    """Make ``items`` spans: roots with nine children each, five attributes on every one."""
    for number in range(0, items, 1 + CHILDREN):
        with tracer.start_as_current_span("request", attributes=_attributes(number)):
            for _ in range(CHILDREN):
                # Written out, as a program does: a call would be measured too.
                attributes = {
                    "http.request.method": "GET",
                    "http.route": "/cart/{id}",
                    "http.response.status_code": 200,
                    "cart.id": number,
                    "amount": 12.5,
                }
                with tracer.start_as_current_span("step", attributes=attributes):
                    pass


def _attributes(number: int) -> dict[str, Any]:
    return {
        "http.request.method": "POST",
        "http.route": "/checkout",
        "http.response.status_code": 201,
        "cart.id": number,
        "amount": 112.5,
    }


def _face(items: int) -> None:
    for _ in range(items):
        with tracekit.span("checkout"):
            pass


@row("spans.root", "recorded root span, context manager", must=0.12, aim=0.07)
def recorded_root(effort: Effort) -> Figures:
    with both_sides() as (theirs, ours):
        return compare(theirs.contestant(roots), ours.contestant(roots), SPANS, effort)


@row("spans.face", "the same as tracekit.span()", must=0.12, aim=0.07)
def recorded_root_by_face(effort: Effort) -> Figures:
    with both_sides() as (theirs, _), configured() as ours:
        return compare(theirs.contestant(roots), _by_face(ours), SPANS, effort)


def _by_face(side: Side) -> Contestant:
    return Contestant(_face, side.provider.force_flush)


@row("spans.start_end", "start_span().end()", must=0.12, aim=0.07)
def start_and_end(effort: Effort) -> Figures:
    with both_sides() as (theirs, ours):
        work = _start_and_end
        return compare(theirs.contestant(work), ours.contestant(work), SPANS, effort)


@row("spans.tree", "root + 9 children, 5 attributes, per span", must=0.10, aim=0.065)
def tree(effort: Effort) -> Figures:
    with both_sides() as (theirs, ours):
        return compare(theirs.contestant(trees), ours.contestant(trees), SPANS, effort)
