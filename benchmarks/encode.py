"""What encoding an ended span to OTLP costs: tracekit's bytes against OpenTelemetry's messages.

Both encode the same values in the same run: tracekit its own span, opentelemetry-exporter-otlp
the span of opentelemetry-sdk. Run with ``python -m benchmarks.encode``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracekit.exporters import _otlp_encoder, _otlp_json
from tracekit.model import InstrumentationScope, Resource, SpanRecord

SPANS = 512
ROUNDS = 15
MUST, AIM = 0.15, 0.10


class LiveSpan:
    """An ended span that offers the plain names, as tracekit's own does."""

    __slots__ = (
        "attributes",
        "dropped_attributes",
        "dropped_events",
        "dropped_links",
        "end_time",
        "events",
        "instrumentation_scope",
        "kind",
        "links",
        "name",
        "parent_is_remote",
        "parent_span_id",
        "resource",
        "span_id",
        "start_time",
        "status_code",
        "status_description",
        "trace_flags",
        "trace_id",
        "trace_state_header",
    )

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


def sdk_spans(number: int = SPANS) -> list[Any]:
    """Make spans of five attributes with opentelemetry-sdk, seven below each root."""
    ended = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ended))
    tracer, ids = provider.get_tracer("benchmarks.encode", "1.0"), Random(7)
    while len(ended.get_finished_spans()) < number:
        with tracer.start_as_current_span("request", attributes=_attributes(ids)):
            for _ in range(7):
                with tracer.start_as_current_span("checkout", attributes=_attributes(ids)):
                    pass
    return list(ended.get_finished_spans()[:number])


def _attributes(ids: Random) -> dict[str, Any]:
    return {
        "http.request.method": "GET",
        "http.route": "/cart/{id}",
        "http.response.status_code": 200,
        "cart.id": f"cart-{ids.getrandbits(32):08x}",
        "amount": 12.5,
    }


def live_spans(spans: Sequence[Any]) -> list[Any]:
    """Copy SDK spans into the shape of tracekit's live span."""
    resource = Resource(spans[0].resource.attributes)
    scope = InstrumentationScope("benchmarks.encode", "1.0")
    return [
        LiveSpan(
            trace_id=span.context.trace_id,
            span_id=span.context.span_id,
            parent_span_id=span.parent.span_id if span.parent else 0,
            parent_is_remote=False,
            trace_flags=1,
            trace_state_header="",
            status_code=0,
            status_description=None,
            **_shared(span, resource, scope),
        )
        for span in spans
    ]


def records(spans: Sequence[Any]) -> list[SpanRecord]:
    """Copy SDK spans into the records that a store reads back."""
    resource = Resource(spans[0].resource.attributes)
    scope = InstrumentationScope("benchmarks.encode", "1.0")
    return [
        SpanRecord(
            context=span.context,
            parent=span.parent,
            status=span.status,
            **_shared(span, resource, scope),
        )
        for span in spans
    ]


def _shared(span: Any, resource: Resource, scope: InstrumentationScope) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "start_time": span.start_time,
        "end_time": span.end_time,
        "attributes": dict(span.attributes),
        "events": (),
        "links": (),
        "resource": resource,
        "instrumentation_scope": scope,
        "dropped_attributes": 0,
        "dropped_events": 0,
        "dropped_links": 0,
    }


def measure(*workloads: Callable[[], object]) -> list[float]:
    """Return the microseconds a span of each workload, the best round of several taken in turn.

    Rounds alternate, so that a busy moment of the machine does not hit only one of them.
    """
    best = [float("inf")] * len(workloads)
    gc.collect()
    for _ in range(ROUNDS):
        for index, workload in enumerate(workloads):
            started = perf_counter()
            workload()
            best[index] = min(best[index], perf_counter() - started)
    return [seconds / SPANS * 1e6 for seconds in best]


def rows() -> list[tuple[str, float, float]]:
    """Return (work, microseconds a span, ratio to OpenTelemetry's) of every encoder."""
    foreign = sdk_spans()
    live, stored = live_spans(foreign), records(foreign)
    names = ("opentelemetry OTLP", "OTLP, live span", "OTLP, stored span", "OTLP, SDK span", "JSON")
    times = measure(
        lambda: encode_spans(foreign).SerializeToString(),
        lambda: _otlp_encoder.encode(live),
        lambda: _otlp_encoder.encode(stored),
        lambda: _otlp_encoder.encode(foreign),
        lambda: _otlp_json.encode_line(live),
    )
    return [(name, time, time / times[0]) for name, time in zip(names, times, strict=True)]


def main() -> None:
    print(f"{'encode one ended span, 5 attributes':<38}{'µs':>8}{'ratio':>8}")
    for name, time, ratio in rows():
        print(f"{name:<38}{time:>8.2f}{ratio:>8.3f}")
    print(f"must <= {MUST}, aim <= {AIM} for a live span")


if __name__ == "__main__":
    main()
