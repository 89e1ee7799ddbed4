"""Metrics about the tracer itself: https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from exporters.destinations import SOON, Destination, Reply
from programs import run
from tracekit.configure import configure
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.sdk import (
    ALWAYS_OFF,
    AlwaysRecordSampler,
    BatchSpanProcessor,
    InMemorySpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
    TracerProvider,
)

STARTED, LIVE = "otel.sdk.span.started", "otel.sdk.span.live"
QUEUE_SIZE = "otel.sdk.processor.span.queue.size"
QUEUE_CAPACITY = "otel.sdk.processor.span.queue.capacity"
PROCESSED = "otel.sdk.processor.span.processed"
INFLIGHT, EXPORTED = "otel.sdk.exporter.span.inflight", "otel.sdk.exporter.span.exported"
DURATION = "otel.sdk.exporter.operation.duration"
SPAN_METRICS = [STARTED, LIVE, QUEUE_SIZE, QUEUE_CAPACITY, PROCESSED, INFLIGHT, EXPORTED]

Points = list[tuple[Any, dict[str, Any]]]


class Meters:
    """A MeterProvider of opentelemetry-sdk, and what it collects."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for of_resource in (data.resource_metrics if data else ())
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        }

    def points(self, name: str) -> Points:
        """Return value (for a histogram: count) and attributes of each point."""
        return [
            (getattr(point, "value", None) if name != DURATION else point.count, attributes(point))
            for point in self.metrics()[name].data.data_points
        ]

    def total(self, name: str, **wanted: Any) -> int:
        """Return the sum of all points that have those attributes (``_`` for a dot)."""
        named = {key.replace("__", "."): value for key, value in wanted.items()}
        return sum(value for value, own in self.points(name) if named.items() <= own.items())


def attributes(point: Any) -> dict[str, Any]:
    return dict(point.attributes)


@pytest.fixture
def meters() -> Meters:
    return Meters()


class Waiting(SpanExporter):
    """Waits in ``export`` until it may go on."""

    def __init__(self, answer: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self._answer = answer

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.entered.set()
        self.may_go_on.wait(20)
        return self._answer


class Refusing(SpanExporter):
    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        return SpanExportResult.FAILURE


def test_names_units_and_kinds_of_instruments(meters: Meters) -> None:
    """Counters and up-down counters of {span}, and a histogram in seconds.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#span-metrics
    """
    provider = configure(exporters=InMemorySpanExporter(), meter_provider=meters.provider)
    provider.get_tracer("library").start_span("a").end()
    provider.force_flush()
    metrics = meters.metrics()
    assert sorted(metrics) == sorted([*SPAN_METRICS, DURATION])
    assert {metrics[name].unit for name in SPAN_METRICS} == {"{span}"}
    assert metrics[DURATION].unit == "s"
    monotonic = {name for name in SPAN_METRICS if metrics[name].data.is_monotonic}
    assert monotonic == {STARTED, PROCESSED, EXPORTED}


def test_all_spans_are_counted_when_they_start(meters: Meters) -> None:
    """otel.sdk.span.started counts all spans, those that do not record too.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkspanstarted
    """
    provider = configure(exporters="none", meter_provider=meters.provider)
    tracer = provider.get_tracer("library")
    counted = [meters.total(STARTED)]
    for sampler in (provider.sampler, ALWAYS_OFF, AlwaysRecordSampler(ALWAYS_OFF)):
        provider.reconfigure(sampler=sampler)
        tracer.start_span("a").end()
        counted.append(meters.total(STARTED))
    assert counted == [0, 1, 2, 3]
    results = {own["otel.span.sampling_result"]: value for value, own in meters.points(STARTED)}
    assert results == {"RECORD_AND_SAMPLE": 1, "DROP": 1, "RECORD_ONLY": 1}


def test_live_spans_are_those_that_record_and_have_not_ended(meters: Meters) -> None:
    """otel.sdk.span.live is of recording spans for which End was not called yet.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkspanlive
    """
    provider = configure(exporters="none", meter_provider=meters.provider)
    tracer = provider.get_tracer("library")
    spans = [tracer.start_span("a") for _ in range(3)]
    provider.reconfigure(sampler=ALWAYS_OFF)
    tracer.start_span("dropped")
    assert meters.total(LIVE) == 3
    for span in spans:
        span.end()
    assert meters.total(LIVE) == 0


def test_the_queue_has_a_size_and_a_capacity(meters: Meters) -> None:
    """Both are of one processor instance, which is named by type and number.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkprocessorspanqueuesize
    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkprocessorspanqueuecapacity
    """
    exporter = Waiting()
    processor = BatchSpanProcessor(exporter, max_queue_size=50, max_export_batch_size=10)
    provider = configure(exporters="none", processors=[processor], meter_provider=meters.provider)
    tracer = provider.get_tracer("library")
    for _ in range(10):
        tracer.start_span("a").end()
    assert exporter.entered.wait(10)
    for _ in range(5):
        tracer.start_span("a").end()
    assert (meters.total(QUEUE_SIZE), meters.total(QUEUE_CAPACITY)) == (5, 50)
    assert (meters.total(INFLIGHT), meters.total(PROCESSED)) == (10, 10)
    for name in (QUEUE_SIZE, QUEUE_CAPACITY, PROCESSED):
        ((_, own),) = meters.points(name)
        assert own["otel.component.type"] == "batching_span_processor"
        assert own["otel.component.name"].startswith("batching_span_processor/")
    exporter.may_go_on.set()
    assert provider.force_flush()
    assert (meters.total(QUEUE_SIZE), meters.total(INFLIGHT), meters.total(PROCESSED)) == (0, 0, 15)


def test_a_span_is_processed_when_it_is_handed_to_the_exporter(meters: Meters) -> None:
    """The outcome of the export does not affect otel.sdk.processor.span.processed.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkprocessorspanprocessed
    """
    provider = configure(exporters=Refusing(), meter_provider=meters.provider)
    provider.get_tracer("library").start_span("a").end()
    provider.force_flush()
    ((value, own),) = meters.points(PROCESSED)
    assert (value, "error.type" in own) == (1, False)
    assert meters.total(EXPORTED, error__type="refused") == 1


def test_what_finds_the_queue_full_is_an_error_of_that_name(meters: Meters) -> None:
    """Spans that are dropped for a full queue have error.type queue_full.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkprocessorspanprocessed
    """
    exporter = Waiting()
    processor = BatchSpanProcessor(exporter, max_queue_size=1)
    provider = configure(exporters="none", processors=[processor], meter_provider=meters.provider)
    tracer = provider.get_tracer("library")
    for _ in range(20):
        tracer.start_span("a").end()
    exporter.entered.wait(10)
    exporter.may_go_on.set()
    provider.force_flush()
    dropped = meters.total(PROCESSED, error__type="queue_full")
    assert dropped > 0
    assert meters.total(PROCESSED) == 20


def test_what_comes_after_shutdown_is_an_error_of_that_name(meters: Meters) -> None:
    """Spans that are dropped because of a shutdown have error.type already_shutdown.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkprocessorspanprocessed
    """
    provider = configure(exporters=InMemorySpanExporter(), meter_provider=meters.provider)
    span = provider.get_tracer("library").start_span("a")
    provider.shutdown()
    span.end()
    assert meters.total(PROCESSED, error__type="already_shutdown") == 1


@pytest.mark.parametrize("make", [SimpleSpanProcessor, BatchSpanProcessor])
def test_exported_spans_are_counted_by_outcome(meters: Meters, make: Any) -> None:
    """Success has no error.type, failure has its cause.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkexporterspanexported
    """
    parts = [make(InMemorySpanExporter()), make(Refusing())]
    provider = configure(exporters="none", processors=parts, meter_provider=meters.provider)
    provider.get_tracer("library").start_span("a").end()
    provider.force_flush()
    outcomes = {own.get("error.type"): value for value, own in meters.points(EXPORTED) if value}
    assert outcomes == {None: 1, "refused": 1}


def test_spans_that_a_server_rejects_count_as_failed(meters: Meters) -> None:
    """With partial success, rejected spans are failed ones and only the others succeeded.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkexporterspanexported
    """
    partial = ExportTracePartialSuccess(rejected_spans=1, error_message="no")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    reply = Reply(200, body, {"Content-Type": "application/x-protobuf"})
    with Destination(reply) as destination:
        exporter = OTLPSpanExporter(destination.url, retry_policy=SOON)
        provider = configure(exporters=exporter, meter_provider=meters.provider)
        tracer = provider.get_tracer("library")
        for _ in range(3):
            tracer.start_span("a").end()
        provider.force_flush()
        succeeded, failed = sorted(
            meters.points(EXPORTED), key=lambda point: "error.type" in point[1]
        )
        provider.shutdown()
    assert (succeeded[0], failed[0], failed[1]["error.type"]) == (2, 1, "rejected")
    assert succeeded[1]["otel.component.type"] == "otlp_http_span_exporter"
    assert succeeded[1]["server.address"] == "127.0.0.1"
    assert succeeded[1]["server.port"] == destination.port


def test_spans_that_wait_on_the_disk_are_in_flight_until_they_arrive(meters: Meters) -> None:
    """In flight is what the exporter was given and has neither exported nor lost.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkexporterspaninflight
    """
    with Destination(Reply(503)) as destination:
        exporter = OTLPSpanExporter(destination.url, retry_policy=SOON, timeout=0.1)
        provider = configure(exporters=exporter, meter_provider=meters.provider)
        for _ in range(3):
            provider.get_tracer("library").start_span("a").end()
        assert not provider.force_flush(1_000)
        kept = meters.total(INFLIGHT), meters.total(EXPORTED), meters.total(PROCESSED)
        destination.script[:] = [Reply()]
        assert provider.force_flush(10_000)
        sent = meters.total(INFLIGHT), meters.total(EXPORTED), meters.total(PROCESSED)
        provider.shutdown()
    assert (kept, sent) == ((3, 0, 3), (0, 3, 3))


def test_each_export_has_a_duration(meters: Meters) -> None:
    """One observation for an export with all its retries; error.type only when it failed.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkexporteroperationduration
    """
    provider = configure(
        exporters=[InMemorySpanExporter(), Refusing()], meter_provider=meters.provider
    )
    for _ in range(2):
        provider.get_tracer("library").start_span("a").end()
        provider.force_flush()
    counts = {own.get("error.type"): count for count, own in meters.points(DURATION)}
    assert counts == {None: 2, "refused": 2}


def test_an_export_that_is_given_up_has_a_duration_once(meters: Meters) -> None:
    """Exactly one observation is recorded per export operation.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkexporteroperationduration
    """
    exporter = Waiting()
    processor = BatchSpanProcessor(exporter, export_timeout_millis=50)
    provider = configure(exporters="none", processors=[processor], meter_provider=meters.provider)
    provider.get_tracer("library").start_span("a").end()
    provider.force_flush(10_000)
    exporter.may_go_on.set()
    provider.force_flush(10_000)
    ((count, own),) = meters.points(DURATION)
    assert (count, own["error.type"]) == (1, "timeout")


def test_components_keep_names_of_their_own(meters: Meters) -> None:
    """Names are unique within the SDK, and stay with their component.

    https://opentelemetry.io/docs/specs/semconv/registry/attributes/otel/
    """
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    provider = configure(exporters=exporters, meter_provider=meters.provider)
    names = [own["otel.component.name"] for _, own in meters.points(QUEUE_SIZE)]
    assert len(set(names)) == 2
    provider.get_tracer("library").start_span("a").end()
    assert [own["otel.component.name"] for _, own in meters.points(QUEUE_SIZE)] == names


def test_a_provider_made_by_hand_takes_a_meter_provider(meters: Meters) -> None:
    """The same metrics, through the argument that opentelemetry-sdk's provider has.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/
    """
    provider = TracerProvider(shutdown_on_exit=False, meter_provider=meters.provider)
    provider.get_tracer("library").start_span("a")
    assert (meters.total(STARTED), meters.total(LIVE)) == (1, 1)


def test_several_providers_are_told_of_as_a_sum(meters: Meters) -> None:
    """One instrument per name, whatever number of providers it tells of.

    https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/
    """
    kept = []
    for _ in range(2):
        kept.append(TracerProvider(shutdown_on_exit=False, meter_provider=meters.provider))
        kept[-1].get_tracer("library").start_span("a")
    assert meters.total(STARTED) == 2


PROGRAM = """
import json, sys
{before}
import tracekit
from tracekit.sdk import InMemorySpanExporter
tracekit.configure(exporters=InMemorySpanExporter())
with tracekit.span("a"):
    pass
tracekit.flush()
{after}
"""

SET = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
"""

READ = """
(of_resource,) = reader.get_metrics_data().resource_metrics
scopes = of_resource.scope_metrics
print(json.dumps({scope.scope.name: sorted(m.name for m in scope.metrics) for scope in scopes}))
"""


def test_a_global_meter_provider_is_used_without_being_told() -> None:
    """Metrics go to the MeterProvider that the program has set.

    https://opentelemetry.io/docs/specs/otel/error-handling/#self-diagnostics
    """
    ended = run(PROGRAM.format(before=SET, after=READ))
    assert json.loads(ended.stdout) == {"tracekit": sorted([*SPAN_METRICS, DURATION])}, ended.stderr


def test_without_one_the_metrics_api_is_not_even_imported() -> None:
    """Nobody who collects no metrics pays for them.

    https://opentelemetry.io/docs/specs/otel/error-handling/#self-diagnostics
    """
    ended = run(PROGRAM.format(before="", after="print('opentelemetry.metrics' in sys.modules)"))
    assert ended.stdout == "False\n", ended.stderr
