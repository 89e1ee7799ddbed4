"""How many requests a second one worker thread can feed to an OTLP server, and how large they are.

Each side has the batches of its own tracer encoded and sent over HTTP, one after the other, to a
Collector on loopback where ``make backends`` has built one, and to a receiver that keeps nothing
where not. The clock counts, since a worker thread waits for its answers.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as OfficialExporter,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor as OfficialProcessor

from benchmarks.backends import backends
from benchmarks.encode import SPANS, sdk_spans, tracekit_spans
from benchmarks.harness import Effort, Figures, row
from benchmarks.http import Worker

REQUESTS = 10
BATCHES, LATENCY_MS, SLOW_ROUNDS = 12, 200, 3

_Export = Callable[[Sequence[Any]], object]


@row("send.requests", "one request of 512 spans: encode, send, wait", unit="ms")
def requests(effort: Effort) -> Figures:
    from tracekit.exporters.otlp import OTLPSpanExporter

    with _server() as (server, url):
        endpoint = f"{url}/v1/traces"
        theirs, ours = OfficialExporter(endpoint), OTLPSpanExporter(endpoint)
        count = effort.items(REQUESTS)
        try:
            rounds = [
                _one_round(theirs.export, ours.export, count, number)
                for number in range(-1, effort.rounds)
            ][1:]
        finally:
            theirs.shutdown()
            ours.shutdown()
    other, mine = (statistics.median(found) for found in zip(*rounds, strict=True))
    ratios = [ours_ms / theirs_ms for theirs_ms, ours_ms in rounds]
    note = f"to {server}; requests a second: theirs {1000 / other:.0f}, ours {1000 / mine:.0f}"
    return Figures(other, mine, statistics.median(ratios), min(ratios), note)


def _one_round(theirs: _Export, ours: _Export, count: int, number: int) -> tuple[float, float]:
    if number % 2:
        mine = _ms_per_request(ours, tracekit_spans, count)
        return _ms_per_request(theirs, sdk_spans, count), mine
    return _ms_per_request(theirs, sdk_spans, count), _ms_per_request(ours, tracekit_spans, count)


def _ms_per_request(export: _Export, make: Callable[[], Sequence[Any]], count: int) -> float:
    # Made anew each round: what is derived from a span is kept with it.
    batches = [make() for _ in range(count)]
    began = time.perf_counter()
    for batch in batches:
        export(batch)
    return (time.perf_counter() - began) / count * 1e3


@contextmanager
def _server() -> Iterator[tuple[str, str]]:
    """Start what the requests are sent to; yield what it is, and its URL."""
    collector, missing = backends("collector"), backends("where").NotThereError
    with tempfile.TemporaryDirectory() as folder:
        try:
            with collector.start(Path(folder), keeps=False) as running:
                yield "a Collector", running.url
                return
        except missing:
            pass
    with _receiver() as url:
        yield "a receiver", url


@contextmanager
def _receiver(*latency_ms: int) -> Iterator[str]:
    receiver = Worker("benchmarks.loopback", *map(str, latency_ms))
    try:
        yield f"http://127.0.0.1:{receiver.read()}"
    finally:
        receiver.stop()


@row("send.slow", "12 batches to a server that takes 200 ms to answer, until the last", unit="s")
def slow(effort: Effort) -> Figures:
    from tracekit.exporters.otlp import OTLPSpanExporter
    from tracekit.processors.batch import BatchSpanProcessor

    with _receiver(LATENCY_MS) as url:
        theirs = OfficialProcessor(
            OfficialExporter(f"{url}/v1/traces"),
            max_queue_size=2 * BATCHES * SPANS,
            max_export_batch_size=SPANS,
        )
        ours = BatchSpanProcessor(OTLPSpanExporter(url), max_export_batch_size=SPANS)
        try:
            rounds = [
                (_s_until_sent(theirs, sdk_spans()), _s_until_sent(ours, tracekit_spans()))
                for _ in range(min(effort.rounds, SLOW_ROUNDS))
            ]
        finally:
            theirs.shutdown()
            ours.shutdown()
    other, mine = (statistics.median(found) for found in zip(*rounds, strict=True))
    ratios = [ours_s / theirs_s for theirs_s, ours_s in rounds]
    a_second = [f"{BATCHES * SPANS / seconds:.0f}" for seconds in (other, mine)]
    note = f"spans a second: theirs {a_second[0]}, ours {a_second[1]}"
    return Figures(other, mine, statistics.median(ratios), min(ratios), note)


def _s_until_sent(processor: Any, spans: Sequence[Any]) -> float:
    began = time.perf_counter()
    for _ in range(BATCHES):
        for span in spans:
            processor.on_end(span)
    if not processor.force_flush(60_000):
        raise RuntimeError("not all spans were sent")
    return time.perf_counter() - began


@row("send.bytes", "bytes of one span in a request of 512", unit="B")
def bytes_per_span(_effort: Effort) -> Figures:
    from tracekit.exporters import _otlp_encoder

    theirs = len(encode_spans(sdk_spans()).SerializeToString()) / SPANS
    ours = len(_otlp_encoder.encode(tracekit_spans())) / SPANS
    return Figures(theirs, ours, ours / theirs, ours / theirs)
