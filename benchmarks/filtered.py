"""What drop rules and compression cost: on ordinary spans, and on those that they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, set_span_in_context

from benchmarks.harness import Effort, Figures, compare, row
from benchmarks.sides import Discard, with_and_without
from benchmarks.spans import SPANS, trees
from tracekit.exporters._otlp_encoder import encode
from tracekit.processors.compress import CompressionProcessor
from tracekit.processors.drop import DropProcessor

RULES = "drop name=noise; drop route=/internal/* kind=server; pings"
CALLS, LOOP = 10, 200
CALL = {"db.system.name": "redis", "db.operation.name": "GET", "server.address": "cache"}


def _compared(rules: Any, work: Any, effort: Effort) -> Figures:
    return _with(lambda following: DropProcessor(following, rules), work, effort)


def _with(stage: Callable[[Any], Any], work: Any, effort: Effort) -> Figures:
    with with_and_without(stage, lambda: Discard(encode)) as (without, with_stage):
        return compare(without.contestant(work), with_stage.contestant(work), SPANS, effort)


def requests(tracer: Any, items: int) -> None:
    """Make server spans with nine calls each, started as instrumentations do."""
    path = {"url.path": "/orders/17", "http.request.method": "GET", "server.address": "shop"}
    for _ in range(items // CALLS):
        server = tracer.start_span("GET", kind=SpanKind.SERVER, attributes=path)
        token = attach(set_span_in_context(server))
        for _ in range(CALLS - 1):
            tracer.start_span("GET", kind=SpanKind.CLIENT, attributes=CALL).end()
        detach(token)
        server.end()


@row("filtered.default", "spans beside the default drop rules, against none", must=1.05, aim=1.02)
def beside_the_default(effort: Effort) -> Figures:
    return _compared(True, trees, effort)


@row("filtered.requests", "requests beside the default, against none", must=1.10, aim=1.05)
def requests_beside_the_default(effort: Effort) -> Figures:
    return _compared(True, requests, effort)


@row("filtered.rules", "requests beside three rules of one's own, against none", must=2.0, aim=1.5)
def requests_beside_rules(effort: Effort) -> Figures:
    return _compared(RULES, requests, effort)


@row(
    "filtered.compress", "requests of 200 equal calls, compressed, against none", must=1.2, aim=1.0
)
def compressed(effort: Effort) -> Figures:
    def loops(tracer: Any, items: int) -> None:
        for _ in range(items // LOOP):
            with tracer.start_as_current_span("GET"):
                for _ in range(LOOP - 1):
                    tracer.start_span("GET", kind=SpanKind.CLIENT, attributes=CALL).end()

    return _with(CompressionProcessor, loops, effort)


@row("filtered.checks", "health checks that are dropped, against recorded", must=1.0, aim=0.6)
def dropped(effort: Effort) -> Figures:
    def checks(tracer: Any, items: int) -> None:
        path = {"url.path": "/healthz", "http.request.method": "GET", "server.address": "shop"}
        for _ in range(items):
            tracer.start_span("GET", kind=SpanKind.SERVER, attributes=path).end()

    return _compared(True, checks, effort)
