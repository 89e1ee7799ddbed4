"""What becomes of a span afterwards: encoded, or written to the store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.encode import sdk_spans
from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Discard, both_sides
from benchmarks.spans import SPANS, trees

BATCH = 512


def _encode_theirs(spans: Sequence[Any]) -> bytes:
    return encode_spans(spans).SerializeToString()


@row("encode.otlp", "encode to OTLP protobuf, 5 attributes", must=0.15, aim=0.10)
def encode(effort: Effort) -> Figures:
    from tracekit.exporters import _otlp_encoder

    foreign, fresh = sdk_spans(effort.items(BATCH)), _Fresh()
    theirs = Contestant(lambda items: _encode_theirs(foreign[:items]))
    ours = Contestant(lambda items: _otlp_encoder.encode(fresh.spans[:items]), prepare=fresh.make)
    return compare(theirs, ours, BATCH, effort)


class _Fresh:
    """Spans of ours that nobody has read: what is derived from one is kept with it."""

    def __init__(self) -> None:
        self.spans: tuple[Any, ...] = ()

    def make(self) -> None:
        ended = InMemorySpanExporter()
        with both_sides(exporters=(Discard(), ended)) as (_, ours):
            trees(ours.tracer, BATCH)
        self.spans = ended.get_finished_spans()


@row("encode.make", "make + encode, all threads", must=0.12, aim=0.08)
def make_and_encode(effort: Effort) -> Figures:
    from tracekit.exporters import _otlp_encoder

    exporters = (Discard(_encode_theirs), Discard(_otlp_encoder.encode))
    with both_sides(exporters=exporters) as (theirs, ours):
        return compare(theirs.contestant(trees), ours.contestant(trees), SPANS, effort)


@row("store.make", "make + write to the store, against make + encode", must=0.25, aim=0.15)
def make_and_store(effort: Effort) -> Figures:
    from tracekit.exporters.store import StoreExporter

    with tempfile.TemporaryDirectory() as folder:
        exporters = (Discard(_encode_theirs), StoreExporter(Path(folder) / "traces.db"))
        with both_sides(exporters=exporters) as (theirs, ours):
            return compare(theirs.contestant(trees), ours.contestant(trees), SPANS, effort)
