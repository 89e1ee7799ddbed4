"""The two sides: the same pipeline on opentelemetry-sdk and on tracekit, given explicitly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import opentelemetry.sdk.trace as sdk_trace
from opentelemetry.sdk.trace.export import BatchSpanProcessor as SdkBatchSpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import tracekit
from benchmarks.harness import Contestant
from tracekit.sdk import BatchSpanProcessor, TracerProvider
from tracekit.testing import reset

__all__ = ["Discard", "Side", "both_sides", "configured", "with_and_without"]


class Discard(SpanExporter):
    """Count spans and keep nothing of them.

    Args:
        encode: Called with each batch; its result is dropped.
    """

    def __init__(self, encode: Callable[[Sequence[Any]], object] | None = None) -> None:
        self.received = 0
        self._encode = encode

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.received += len(spans)
        if self._encode is not None:
            self._encode(spans)
        return SpanExportResult.SUCCESS


@dataclass(frozen=True)
class Side:
    """A provider with a batch processor of default settings in front of an exporter."""

    provider: Any
    tracer: Any
    exporter: Any

    def contestant(self, work: Callable[[Any, int], object]) -> Contestant:
        """Return work that is given this side's tracer; done when everything is exported."""
        tracer = self.tracer
        return Contestant(lambda items: work(tracer, items), self.provider.force_flush)


@contextmanager
def both_sides(
    samplers: tuple[Any, Any] = (None, None),
    exporters: tuple[Any, Any] | None = None,
) -> Iterator[tuple[Side, Side]]:
    """Make opentelemetry's side and ours, and shut both down at the end."""
    theirs = sdk_trace.TracerProvider(sampler=samplers[0], shutdown_on_exit=False)
    ours = TracerProvider(sampler=samplers[1], shutdown_on_exit=False)
    pair: tuple[Any, Any] = exporters or (Discard(), Discard())
    others, mine = pair
    theirs.add_span_processor(SdkBatchSpanProcessor(others))
    ours.add_span_processor(BatchSpanProcessor(mine))
    try:
        yield (
            Side(theirs, theirs.get_tracer("benchmarks", "1.0"), others),
            Side(ours, ours.get_tracer("benchmarks", "1.0"), mine),
        )
    finally:
        theirs.shutdown()
        ours.shutdown()


@contextmanager
def with_and_without(
    stage: Callable[[Any], Any], exporter: Callable[[], Any]
) -> Iterator[tuple[Side, Side]]:
    """Make ours twice, the second time with a stage in front of the batch processor."""
    sides = []
    for put in (lambda batch: batch, stage):
        provider, made = TracerProvider(shutdown_on_exit=False), exporter()
        provider.add_span_processor(put(BatchSpanProcessor(made)))
        sides.append(Side(provider, provider.get_tracer("benchmarks", "1.0"), made))
    try:
        yield sides[0], sides[1]
    finally:
        for side in sides:
            side.provider.shutdown()


@contextmanager
def configured() -> Iterator[Side]:
    """Set tracekit up as a program does, and undo it at the end."""
    exporter = Discard()
    provider = tracekit.configure(exporters=[exporter])
    try:
        yield Side(provider, provider.get_tracer("benchmarks", "1.0"), exporter)
    finally:
        reset()
