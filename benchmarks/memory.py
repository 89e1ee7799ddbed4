"""Memory: of an ended span that is held, and of a process that is set up to trace."""

from __future__ import annotations

import gc
import statistics
import tracemalloc
from typing import Any

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from benchmarks.fresh import run_code
from benchmarks.harness import Effort, Figures, row
from benchmarks.sides import Side, both_sides
from benchmarks.spans import trees

HELD = 20_000
PORTION = 1000
"""Spans between two flushes: a queue that overflows would lose some."""

_REPORT = """
import json
from benchmarks.fresh import memory_mib
print(json.dumps(memory_mib()))
"""
_THEIRS = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(SpanExporter()))
trace.set_tracer_provider(provider)
"""
_OURS = """
import tracekit
from tracekit.interfaces import SpanExporter, SpanExportResult
class Discard(SpanExporter):
    def export(self, spans):
        return SpanExportResult.SUCCESS
tracekit.configure(exporters=[Discard()])
"""


class _Hold(SpanExporter):
    """Keep the spans themselves."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


@row("memory.span", "one ended span held, 5 attributes", must=0.35, aim=0.25, unit="B")
def held_span(effort: Effort) -> Figures:
    with both_sides(exporters=(_Hold(), _Hold())) as sides:
        theirs, ours = (_bytes_per_span(side, effort.items(HELD)) for side in sides)
    return Figures(theirs, ours, ours / theirs)


def _bytes_per_span(side: Side, count: int) -> float:
    held = side.exporter.spans
    _make(side, 10)
    held.clear()
    gc.collect()
    tracemalloc.start()
    for begun in range(0, count, PORTION):
        _make(side, min(PORTION, count - begun))
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / len(held)


def _make(side: Side, count: int) -> None:
    trees(side.tracer, count)
    side.provider.force_flush()


@row("memory.setup", "process imported and set up, over bare Python", unit="MiB")
def set_up(effort: Effort) -> Figures:
    rounds = [
        [run_code(code + _REPORT) for code in ("", _THEIRS, _OURS)]
        for _ in range(min(effort.rounds, 5))
    ]
    bare, theirs, ours = (statistics.median(found) for found in zip(*rounds, strict=True))
    ratio = (ours - bare) / (theirs - bare)
    return Figures(theirs - bare, ours - bare, ratio, note=f"bare Python {bare:.1f} MiB")
