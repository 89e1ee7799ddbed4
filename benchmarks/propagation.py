"""Carrying a span's context out of and into headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Side, both_sides, configured
from tracekit.propagators.tracecontext import TraceContextPropagator

HEADERS = 5000
CARRIER = {
    "accept": "*/*",
    "host": "shop.example",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

_Inject = Callable[[dict[str, str]], object]
_Extract = Callable[[dict[str, str]], Any]


def _injecting(side: Side, inject: _Inject, propagator: Any = None) -> Contestant:
    def run(items: int) -> None:
        with side.tracer.start_as_current_span("request"):
            for _ in range(items):
                inject({})

    return Contestant(run, prepare=lambda: _use(propagator))


def _extracting(extract: _Extract, propagator: Any = None) -> Contestant:
    def run(items: int) -> None:
        for _ in range(items):
            extract(CARRIER)

    return Contestant(run, prepare=lambda: _use(propagator))


def _reading(extract: _Extract, propagator: Any = None) -> Contestant:
    def run(items: int) -> None:
        for _ in range(items):
            trace.get_current_span(extract(CARRIER)).get_span_context()

    return Contestant(run, prepare=lambda: _use(propagator))


def _use(propagator: Any) -> None:
    if propagator is not None:
        propagate.set_global_textmap(propagator)


def _direct() -> tuple[Any, Any]:
    return TraceContextTextMapPropagator(), TraceContextPropagator()


def _default() -> tuple[Any, Any]:
    """Return what each side makes OpenTelemetry's global propagator: tracecontext and baggage."""
    theirs = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    return theirs, propagate.get_global_textmap()


@row("propagation.inject", "inject, global propagator", must=0.5, aim=0.3)
def inject(effort: Effort) -> Figures:
    with both_sides() as (theirs, _), configured() as ours:
        first, second = _default()
        other = _injecting(theirs, propagate.inject, first)
        mine = _injecting(ours, propagate.inject, second)
        return compare(other, mine, HEADERS, effort)


@row("propagation.inject_direct", "inject, traceparent only", must=0.5, aim=0.3)
def inject_directly(effort: Effort) -> Figures:
    with both_sides() as (theirs, ours):
        first, second = _direct()
        other, mine = _injecting(theirs, first.inject), _injecting(ours, second.inject)
        return compare(other, mine, HEADERS, effort)


@row("propagation.extract", "extract, global propagator", must=0.4, aim=0.2)
def extract(effort: Effort) -> Figures:
    with configured():
        first, second = _default()
        other = _extracting(propagate.extract, first)
        return compare(other, _extracting(propagate.extract, second), HEADERS, effort)


@row("propagation.extract_direct", "extract, traceparent only", must=0.4, aim=0.2)
def extract_directly(effort: Effort) -> Figures:
    first, second = _direct()
    return compare(_extracting(first.extract), _extracting(second.extract), HEADERS, effort)


@row("propagation.extract_read", "extract and read, global propagator", must=0.4, aim=0.2)
def extract_and_read(effort: Effort) -> Figures:
    with configured():
        first, second = _default()
        other = _reading(propagate.extract, first)
        return compare(other, _reading(propagate.extract, second), HEADERS, effort)


@row("propagation.extract_read_direct", "extract and read, traceparent only", must=0.4, aim=0.2)
def extract_and_read_directly(effort: Effort) -> Figures:
    first, second = _direct()
    return compare(_reading(first.extract), _reading(second.extract), HEADERS, effort)
