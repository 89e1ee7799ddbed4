"""What becomes of a span afterwards: encoded, or written to the store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from benchmarks.encode import SPANS as SPANS_ENCODED
from benchmarks.encode import sdk_spans, tracekit_spans
from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Discard, both_sides
from benchmarks.spans import SPANS, trees


def _encode_theirs(spans: Sequence[Any]) -> bytes:
    encoded: bytes = encode_spans(spans).SerializeToString()
    return encoded


def _encoding(make: Callable[[], Sequence[Any]], encode: Callable[[Any], object]) -> Contestant:
    # Made anew each round: what is derived from a span is kept with it.
    spans: list[Any] = []

    def prepare() -> None:
        spans[:] = make()

    return Contestant(lambda items: encode(spans[:items]), prepare=prepare)


@row("encode.otlp", "encode to OTLP protobuf, 5 attributes", must=0.15, aim=0.10)
def encode(effort: Effort) -> Figures:
    from tracekit.exporters import _otlp_encoder

    theirs = _encoding(sdk_spans, _encode_theirs)
    ours = _encoding(tracekit_spans, _otlp_encoder.encode)
    return compare(theirs, ours, SPANS_ENCODED, effort)


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
