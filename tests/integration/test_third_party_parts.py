"""Exporters, processors and other parts from the package index, in tracekit's pipeline.

They are real and unchanged; what they would send goes to a server on the loopback interface or to
a client that keeps it. A part that is not installed is skipped by name: only those of the `dev`
extra are there everywhere.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.trace import SpanKind

import tracekit
from integration.otlp_receiver import Receiver, receiving
from tracekit.configure import TracerProvider, current_provider
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor
from tracekit.testing import capture_spans


def third_party(module: str, package: str) -> Any:
    """Import somebody else's part, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(module)
        except ImportError as error:
            pytest.skip(f"{package} is not installed ({error})")


class Posts:
    """The requests that arrived: path and body."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.received: list[tuple[str, bytes]] = []


@pytest.fixture
def posts() -> Iterator[Posts]:
    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            kept.received.append((self.path, body))
            answer = b'{"itemsReceived": 1, "itemsAccepted": 1, "errors": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keeping) as server:
        kept = Posts(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def serve_one_request() -> None:
    """Make a server span with an event and a client span that failed."""
    tracer = trace.get_tracer("shop", "1.0")
    served = {"http.request.method": "GET", "url.path": "/cart", "http.response.status_code": 200}
    with tracer.start_as_current_span("GET /cart", kind=SpanKind.SERVER, attributes=served) as span:
        span.add_event("looked up", {"items": 3})
        try:
            with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT):
                raise ValueError("no such table")
        except ValueError:
            pass


def test_otlp_exporter_over_http(receiver: Receiver) -> None:
    exporter = third_party(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry-exporter-otlp-proto-http",
    ).OTLPSpanExporter(endpoint=receiver.endpoint)
    tracekit.configure(service_name="shop", exporters=exporter)
    serve_one_request()
    assert tracekit.flush(10)
    spans = {span.name: span for span in receiver.spans()}
    assert sorted(spans) == ["GET /cart", "SELECT"]
    assert spans["SELECT"].parent_span_id == spans["GET /cart"].span_id
    assert spans["SELECT"].status.message == "ValueError: no such table"


def test_otlp_exporter_by_the_name_of_its_entry_point(receiver: Receiver) -> None:
    third_party("opentelemetry.exporter.otlp.proto.http", "opentelemetry-exporter-otlp-proto-http")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", receiver.endpoint)
        patch.setenv("OTEL_TRACES_EXPORTER", "otlp_proto_http")
        tracekit.configure()
        serve_one_request()
        assert tracekit.flush(10)
    assert len(receiver.spans()) == 2


def test_the_sdks_own_batch_processor_and_console_exporter() -> None:
    export = third_party("opentelemetry.sdk.trace.export", "opentelemetry-sdk")
    stream = io.StringIO()
    processor = export.BatchSpanProcessor(export.ConsoleSpanExporter(out=stream))
    tracekit.configure(exporters="none", processors=[processor])
    serve_one_request()
    assert tracekit.flush(10)
    shown = stream.getvalue()
    assert '"name": "GET /cart"' in shown
    assert '"exception.message": "no such table"' in shown


AZURE = """
import sys, tracekit
from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter
from integration.test_third_party_parts import serve_one_request
key = "00000000-0000-0000-0000-000000000001"
connection = f"InstrumentationKey={key};IngestionEndpoint={sys.argv[1]}/"
exporter = AzureMonitorTraceExporter(connection_string=connection, disable_offline_storage=True)
tracekit.configure(service_name="shop", exporters=exporter)
serve_one_request()
assert tracekit.flush(10)
"""


def test_azure_monitor_exporter(posts: Posts, repository: Any) -> None:
    """In a process of its own: it starts threads that live as long as their process."""
    third_party("azure.monitor.opentelemetry.exporter", "azure-monitor-opentelemetry-exporter")
    alone = {
        "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "True",
        "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "True",
        "PYTHONPATH": str(repository / "tests"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AZURE, posts.base],
        env=os.environ | alone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sent = {each["data"]["baseType"]: each for _, body in posts.received for each in _items(body)}
    request, dependency = sent["RequestData"], sent["RemoteDependencyData"]
    assert request["data"]["baseData"]["name"] == "GET /cart"
    assert dependency["data"]["baseData"]["success"] is False
    assert dependency["tags"]["ai.cloud.role"] == "shop"
    assert dependency["tags"]["ai.operation.id"] == request["tags"]["ai.operation.id"]
    assert sent["ExceptionData"]["data"]["baseData"]["exceptions"][0]["typeName"] == "ValueError"


def _items(body: bytes) -> list[Any]:
    text = body.decode()
    try:
        items: list[Any] = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]
    return items


class _CloudTrace:
    """The client of Google's Cloud Trace, which keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def batch_write_spans(self, request: Any) -> None:
        self.spans.extend(request.spans)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_google_cloud_trace_exporter() -> None:
    package = third_party("opentelemetry.exporter.cloud_trace", "opentelemetry-exporter-gcp-trace")
    client = _CloudTrace()
    exporter = package.CloudTraceSpanExporter("project", client, resource_regex="service.*")
    tracekit.configure(service_name="shop", exporters=exporter)
    serve_one_request()
    assert tracekit.flush(10)
    spans = {span.display_name.value: span for span in client.spans}
    served, query = spans["GET /cart"], spans["SELECT"]
    assert query.parent_span_id == served.span_id
    assert query.status.message == "ValueError: no such table"
    labels = served.attributes.attribute_map
    assert labels["service.name"].string_value.value == "shop"
    assert served.time_events.time_event[0].annotation.description.value == "looked up"


def test_baggage_processor() -> None:
    package = third_party("opentelemetry.processor.baggage", "opentelemetry-processor-baggage")
    processor = package.BaggageSpanProcessor(package.ALLOW_ALL_BAGGAGE_KEYS)
    exporter = InMemorySpanExporter()
    chain = [processor, SimpleSpanProcessor(exporter)]
    tracekit.configure(exporters="none", processors=chain)
    token = context_api.attach(baggage.set_baggage("tenant", "acme"))
    try:
        serve_one_request()
    finally:
        context_api.detach(token)
    assert [span.attributes["tenant"] for span in exporter.get_finished_spans()] == ["acme"] * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openinference_tracer() -> None:
    package = third_party("openinference.instrumentation", "openinference-instrumentation")
    with capture_spans() as spans:
        config = package.TraceConfig(hide_inputs=True)
        tracer = package.OITracer(trace.get_tracer("llm"), config)
        with package.using_session("session 1"), tracer.start_as_current_span("ask") as span:
            span.set_attribute("input.value", "secret")
            span.set_attribute("output.value", "answer")
            with tracer.start_as_current_span("inner"):
                pass
    inner, ask = spans.get_finished_spans()
    assert ask.attributes["input.value"] == "__REDACTED__"
    assert ask.attributes["output.value"] == "answer"
    assert inner.attributes["session.id"] == "session 1"
    assert inner.parent.span_id == ask.context.span_id


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openinference_decorators() -> None:
    package = third_party("openinference.instrumentation", "openinference-instrumentation")
    with capture_spans() as spans:
        tracer = package.OITracer(trace.get_tracer("llm"), package.TraceConfig())

        @tracer.chain
        def double(number: int) -> int:
            return number * 2

        assert double(4) == 8
    (span,) = spans.get_finished_spans()
    assert (span.name, span.attributes["openinference.span.kind"]) == ("double", "CHAIN")
    assert span.attributes["output.value"] == "8"


@pytest.mark.parametrize("by_name", [True, False])
def test_aws_xray_id_generator(by_name: bool) -> None:
    package = third_party(
        "opentelemetry.sdk.extension.aws.trace", "opentelemetry-sdk-extension-aws"
    )
    with pytest.MonkeyPatch.context() as patch:
        if by_name:
            patch.setenv("OTEL_PYTHON_ID_GENERATOR", "xray")
        given = {} if by_name else {"id_generator": package.AwsXRayIdGenerator()}
        with capture_spans(**given) as spans:
            serve_one_request()
    (query, served) = spans.get_finished_spans()
    started_s = query.context.trace_id >> 96
    assert abs(started_s - served.start_time // 10**9) <= 1
    # Its trace ids begin with the time, so nothing is promised about their randomness.
    assert query.context.trace_flags == 1


def test_azure_resource_detector_by_name() -> None:
    third_party("opentelemetry.resource.detector.azure", "opentelemetry-resource-detector-azure")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEBSITE_SITE_NAME", "my-site")
        patch.setenv("REGION_NAME", "westeurope")
        patch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "azure_app_service")
        provider = tracekit.configure(exporters="none")
    assert provider.resource.attributes["cloud.region"] == "westeurope"
    assert provider.resource.attributes["cloud.platform"] == "azure_app_service"


def test_the_sdks_samplers() -> None:
    sampling = third_party("opentelemetry.sdk.trace.sampling", "opentelemetry-sdk")
    sampler = sampling.ParentBased(sampling.ALWAYS_OFF)
    with capture_spans(sampler=sampler) as spans:
        serve_one_request()
        remote = trace.SpanContext(7, 7, True, trace.TraceFlags(1))
        parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        trace.get_tracer("shop").start_span("sampled by the caller", parent).end()
    assert [span.name for span in spans.get_finished_spans()] == ["sampled by the caller"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langfuse(posts: Posts) -> None:
    langfuse = third_party("langfuse", "langfuse")
    provider = TracerProvider(shutdown_on_exit=False)
    keys = {"public_key": "pk-test", "secret_key": "sk-test"}
    client = langfuse.Langfuse(**keys, base_url=posts.base, tracer_provider=provider)
    with client.start_as_current_observation(name="answer", as_type="generation", model="m") as it:
        it.update(output="42")
    client.flush()
    client.shutdown()
    provider.shutdown()
    assert [path for path, _ in posts.received] == ["/api/public/otel/v1/traces"]
    assert b"answer" in posts.received[0][1]


def test_a_provider_in_use_takes_another_processor() -> None:
    export = third_party("opentelemetry.sdk.trace.export", "opentelemetry-sdk")
    memory = third_party("opentelemetry.sdk.trace.export.in_memory_span_exporter", "sdk")
    with capture_spans() as ours:
        provider = current_provider()
        assert provider is not None
        theirs = memory.InMemorySpanExporter()
        provider.add_span_processor(export.SimpleSpanProcessor(theirs))
        serve_one_request()
        names = [span.name for span in theirs.get_finished_spans()]
    assert names == [span.name for span in ours.get_finished_spans()] == ["SELECT", "GET /cart"]
