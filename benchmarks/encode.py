"""What encoding an ended span to OTLP costs: tracekit's bytes against OpenTelemetry's messages.

Both encode the same values in the same run, each the spans of its own tracer; and tracekit also
those that a store reads back and those of opentelemetry-sdk. tracekit's tracer leaves cleaning
the attributes to whoever reads them first, so its spans are made anew for each round, untimed.
Run with ``python -m benchmarks.encode``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor as SdkProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter as SdkExporter,
)

from tracekit.core.provider import TracerProvider
from tracekit.exporters import _otlp_encoder, _otlp_json
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.model import InstrumentationScope, Resource, SpanRecord
from tracekit.processors.simple import SimpleSpanProcessor
from tracekit.samplers import always_on

SPANS = 512
ROUNDS = 40
MUST, AIM = 0.15, 0.10

Encoder = Callable[[Sequence[Any]], object]
Maker = Callable[[], Sequence[Any]]


def sdk_spans(number: int = SPANS) -> list[Any]:
    """Make spans of five attributes with opentelemetry-sdk, seven below each root."""
    ended = SdkExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SdkProcessor(ended))
    _make_spans(provider.get_tracer("benchmarks.encode", "1.0"), number)
    return list(ended.get_finished_spans()[:number])


def tracekit_spans(number: int = SPANS) -> list[Any]:
    """Make the same with tracekit."""
    ended = InMemorySpanExporter()
    provider = TracerProvider(always_on.plugin(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ended))
    _make_spans(provider.get_tracer("benchmarks.encode", "1.0"), number)
    return list(ended.get_finished_spans()[:number])


def _make_spans(tracer: Any, number: int) -> None:
    ids = Random(7)
    for _ in range(-(-number // 8)):
        with tracer.start_as_current_span("request", attributes=_attributes(ids)):
            for _ in range(7):
                with tracer.start_as_current_span("checkout", attributes=_attributes(ids)):
                    pass


def _attributes(ids: Random) -> dict[str, Any]:
    return {
        "http.request.method": "GET",
        "http.route": "/cart/{id}",
        "http.response.status_code": 200,
        "cart.id": f"cart-{ids.getrandbits(32):08x}",
        "amount": 12.5,
    }


def records(spans: Sequence[Any]) -> list[SpanRecord]:
    """Copy spans into the records that a store reads back."""
    resource = Resource(spans[0].resource.attributes)
    scope = InstrumentationScope("benchmarks.encode", "1.0")
    return [
        SpanRecord(
            name=span.name,
            context=span.context,
            parent=span.parent,
            start_time=span.start_time,
            end_time=span.end_time,
            attributes=dict(span.attributes),
            resource=resource,
            instrumentation_scope=scope,
        )
        for span in spans
    ]


def measure(works: Sequence[tuple[Maker, Encoder]]) -> list[float]:
    """Return the microseconds a span of each encoder, the best of several rounds.

    Rounds take turns, so that a busy moment of the machine does not hit only one of them.
    """
    best = [float("inf")] * len(works)
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for index, (make, encode) in enumerate(works):
                spans = make()
                started = perf_counter()
                encode(spans)
                best[index] = min(best[index], perf_counter() - started)
    finally:
        gc.enable()
    return [seconds / SPANS * 1e6 for seconds in best]


def rows() -> list[tuple[str, float, float]]:
    """Return (work, microseconds a span, ratio to OpenTelemetry's) of every encoder."""
    foreign = sdk_spans()
    stored = records(foreign)
    works: dict[str, tuple[Maker, Encoder]] = {
        "opentelemetry, OTLP": (lambda: foreign, _encode_officially),
        "tracekit, OTLP, its own spans": (tracekit_spans, _otlp_encoder.encode),
        "tracekit, OTLP, stored spans": (lambda: stored, _otlp_encoder.encode),
        "tracekit, OTLP, spans of the SDK": (lambda: foreign, _otlp_encoder.encode),
        "tracekit, OTLP JSON, its own spans": (tracekit_spans, _otlp_json.encode_line),
    }
    times = measure(list(works.values()))
    return [(name, time, time / times[0]) for name, time in zip(works, times, strict=True)]


def _encode_officially(spans: Sequence[Any]) -> bytes:
    encoded: bytes = encode_spans(spans).SerializeToString()
    return encoded


def main() -> None:
    print(f"{'encode one ended span, 5 attributes':<38}{'µs':>8}{'ratio':>8}")
    for name, time, ratio in rows():
        print(f"{name:<38}{time:>8.2f}{ratio:>8.3f}")
    print(f"must <= {MUST}, aim <= {AIM} for tracekit's own spans")


if __name__ == "__main__":
    main()
