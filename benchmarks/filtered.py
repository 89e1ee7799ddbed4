"""What drop rules and compression cost: on ordinary spans, and on those that they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, set_span_in_context

from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Discard
from benchmarks.spans import SPANS, trees
from tracekit.exporters._otlp_encoder import encode
from tracekit.processors.compress import CompressionProcessor
from tracekit.processors.drop import DropProcessor
from tracekit.sdk import BatchSpanProcessor, TracerProvider

RULES = "drop name=noise; drop route=/internal/* kind=server; pings"
CALLS, LOOP = 10, 200
CALL = {"db.system.name": "redis", "db.operation.name": "GET", "server.address": "cache"}


@contextmanager
def _both(stage: Callable[[Any], Any]) -> Iterator[tuple[TracerProvider, TracerProvider]]:
    """Make a provider without the stage and one with it, and shut both down at the end."""
    providers = (TracerProvider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False))
    without, with_rules = providers
    without.add_span_processor(BatchSpanProcessor(Discard(encode)))
    with_rules.add_span_processor(stage(BatchSpanProcessor(Discard(encode))))
    try:
        yield providers
    finally:
        for provider in providers:
            provider.shutdown()


def _compared(rules: Any, work: Any, effort: Effort) -> Figures:
    with _both(lambda following: DropProcessor(following, rules)) as providers:
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


@row(
    "filtered.compress", "requests of 200 equal calls, compressed, against none", must=1.2, aim=1.0
)
def compressed(effort: Effort) -> Figures:
    def loops(tracer: Any, items: int) -> None:
        for _ in range(items // LOOP):
            with tracer.start_as_current_span("GET"):
                for _ in range(LOOP - 1):
                    tracer.start_span("GET", kind=SpanKind.CLIENT, attributes=CALL).end()

    with _both(CompressionProcessor) as providers:
        sides = [_contestant(provider, loops) for provider in providers]
        return compare(sides[0], sides[1], SPANS, effort)


@row("filtered.checks", "health checks that are dropped, against recorded", must=1.0, aim=0.6)
def dropped(effort: Effort) -> Figures:
    def checks(tracer: Any, items: int) -> None:
        path = {"url.path": "/healthz", "http.request.method": "GET", "server.address": "shop"}
        for _ in range(items):
            tracer.start_span("GET", kind=SpanKind.SERVER, attributes=path).end()

    return _compared(True, checks, effort)
