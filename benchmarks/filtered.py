"""What drop rules cost: ordinary spans with the default and with rules, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, set_span_in_context

from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Discard
from benchmarks.spans import SPANS, trees
from tracekit.exporters._otlp_encoder import encode
from tracekit.processors.drop import DropProcessor
from tracekit.sdk import BatchSpanProcessor, TracerProvider

RULES = "drop name=noise; drop route=/internal/* kind=server; pings"
CALLS = 10
CALL = {"db.system.name": "redis", "db.operation.name": "GET", "server.address": "cache"}


@contextmanager
def _both(rules: Any) -> Iterator[tuple[TracerProvider, TracerProvider]]:
    """Make a provider without the stage and one with it, and shut both down at the end."""
    providers = (TracerProvider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False))
    without, with_rules = providers
    without.add_span_processor(BatchSpanProcessor(Discard(encode)))
    with_rules.add_span_processor(DropProcessor(BatchSpanProcessor(Discard(encode)), rules))
    try:
        yield providers
    finally:
        for provider in providers:
            provider.shutdown()


def _compared(rules: Any, work: Any, effort: Effort) -> Figures:
    with _both(rules) as providers:
        sides = [_contestant(provider, work) for provider in providers]
        return compare(sides[0], sides[1], SPANS, effort)


def _contestant(provider: TracerProvider, work: Any) -> Contestant:
    tracer = provider.get_tracer("benchmarks", "1.0")
    return Contestant(lambda items: work(tracer, items), provider.force_flush)


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


@row("filtered.checks", "health checks that are dropped, against recorded", must=1.0, aim=0.6)
def dropped(effort: Effort) -> Figures:
    def checks(tracer: Any, items: int) -> None:
        path = {"url.path": "/healthz", "http.request.method": "GET", "server.address": "shop"}
        for _ in range(items):
            tracer.start_span("GET", kind=SpanKind.SERVER, attributes=path).end()

    return _compared(True, checks, effort)
