"""The client's part of OTLP, and its settings.

https://opentelemetry.io/docs/specs/otlp/ and https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import gzip
import json
import logging
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.trace import SpanKind

from exporters.destinations import OK, SOON, Destination, Received, Reply, raw_destination
from tracekit.exporters._retry import RetryPolicy
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.sdk import BatchSpanProcessor, SpanExportResult
from tracekit.testing import build_span

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
SPANS = [build_span("one", kind=SpanKind.SERVER), build_span("two")]

Make = Callable[..., OTLPSpanExporter]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make exporters that do not wait long before they try again."""
    made: list[OTLPSpanExporter] = []

    def exporter(endpoint: str | None = None, **arguments: Any) -> OTLPSpanExporter:
        arguments = {"retry_policy": SOON, "timeout": 5, "spool": False, **arguments}
        made.append(OTLPSpanExporter(endpoint, **arguments))
        return made[-1]

    yield exporter
    for one in made:
        one.shutdown()


def sent(make: Make, **arguments: Any) -> Received:
    """Export to a server, and return the request that it got."""
    with Destination(OK) as destination:
        assert make(destination.url, **arguments).export(SPANS) is SUCCESS
    (received,) = destination.received
    return received


# Requests ----------------------------------------------------------------------------------


def test_a_request_is_a_post_of_protobuf(make: Make) -> None:
    """OTLP/HTTP uses POST; binary payloads have Content-Type application/x-protobuf.

    https://opentelemetry.io/docs/specs/otlp/#binary-protobuf-encoding
    """
    received = sent(make)
    assert (received.method, received.path) == ("POST", "/v1/traces")
    assert received.headers["content-type"] == "application/x-protobuf"
    assert received.span_names() == ["one", "two"]


def test_a_json_request_says_so(make: Make) -> None:
    """JSON payloads have Content-Type application/json.

    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
    """
    received = sent(make, protocol="http/json")
    assert received.headers["content-type"] == "application/json"


def test_json_has_hex_ids_whole_number_enums_and_camel_case(make: Make) -> None:
    """Ids are hex, enums are integers (names must not be used), keys are lowerCamelCase.

    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
    """
    body = json.loads(sent(make, protocol="http/json").body)
    (span, _) = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["traceId"] == f"{SPANS[0].context.trace_id:032x}"
    assert span["spanId"] == f"{SPANS[0].context.span_id:016x}"
    assert span["kind"] == 2
    assert span["startTimeUnixNano"] == str(SPANS[0].start_time)
    assert not [key for key in span if "_" in key]


def test_a_compressed_request_says_so(make: Make) -> None:
    """A gzipped body must come with Content-Encoding: gzip.

    https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
    """
    received = sent(make, compression="gzip")
    assert received.headers["content-encoding"] == "gzip"
    assert gzip.decompress(received.raw)
    assert "content-encoding" not in sent(make, compression="none").headers


def test_requests_are_bounded_in_size(make: Make) -> None:
    """The client limits the size of a request before compression.

    https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
    """
    many = [build_span(f"span {number}", attributes={"a": "x" * 500}) for number in range(50)]
    with Destination(OK) as destination:
        assert make(destination.url, max_request_bytes=5_000).export(many) is SUCCESS
    assert max(len(received.body) for received in destination.received) <= 5_000
    assert destination.span_names() == [span.name for span in many]


def test_no_empty_envelope_is_sent(make: Make) -> None:
    """Senders should not create envelopes with no spans.

    https://opentelemetry.io/docs/specs/otlp/#empty-telemetry-envelopes
    """
    with Destination(OK) as destination:
        assert make(destination.url).export([]) is SUCCESS
    assert destination.received == []


def test_the_exporter_says_who_it_is(make: Make) -> None:
    """User-Agent identifies the exporter, its language and its version.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent
    """
    assert "OTel-OTLP-Exporter-Python/" in sent(make).headers["user-agent"]


# Responses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_transient_errors_are_tried_again(make: Make, status: int) -> None:
    """Transient errors are handled with a retry strategy.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#retry
    """
    with Destination(Reply(status), OK) as destination:
        assert make(destination.url).export(SPANS) is SUCCESS
    assert len(destination.received) == 2


FINAL = [400, 401, 403, 404, 405, 413, 415, 500, 501, 505]


@pytest.mark.parametrize("status", FINAL)
def test_all_other_errors_are_not_tried_again(make: Make, status: int) -> None:
    """All other 4xx and 5xx must not be retried, 400 and 413 among them; the data is dropped.

    https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
    """
    with Destination(Reply(status), OK) as destination:
        exporter = make(destination.url)
        assert exporter.export(SPANS[:1]) is FAILURE
        assert sum(exporter.stats()["dropped"].values()) + exporter.stats()["rejected"] == 1
    assert len(destination.received) == 1


def test_delays_grow_exponentially_with_jitter() -> None:
    """The retry strategy is an exponential back-off with jitter.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#retry
    """
    policy = RetryPolicy(first_delay_s=1, max_delay_s=1000, jitter=0.2)
    for _ in range(20):
        delays = policy.delays()
        for number in range(8):
            assert 0.8 * 2**number <= next(delays) <= 1.2 * 2**number
    assert len({next(policy.delays()) for _ in range(20)}) > 10


def test_a_wish_to_be_left_alone_is_honoured(make: Make) -> None:
    """The interval of Retry-After is waited for.

    https://opentelemetry.io/docs/specs/otlp/#otlphttp-throttling
    """
    with Destination(Reply(503, headers={"Retry-After": "1"}), OK) as destination:
        begun = time.monotonic()
        assert make(destination.url).export(SPANS) is SUCCESS
        assert time.monotonic() - begun >= 1


def test_a_server_that_hangs_up_is_tried_again(make: Make) -> None:
    """If the server disconnects without a response, the same request is sent again.

    https://opentelemetry.io/docs/specs/otlp/#all-other-responses
    """
    connections: list[Any] = []

    def hang_up(connection: Any) -> None:
        connections.append(connection.recv(1))
        # Reset instead of closed: nothing that could be taken for an answer.
        connection.setsockopt(1, 13, struct.pack("ii", 1, 0))

    with raw_destination(hang_up) as url:
        assert make(url, timeout=0.3).export(SPANS) is FAILURE
    assert len(connections) > 1


@pytest.mark.parametrize("rejected", [1, 0])
def test_partial_success_is_not_tried_again_and_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture, rejected: int
) -> None:
    """A response with partial_success must not be retried; what it says is logged.

    https://opentelemetry.io/docs/specs/otlp/#partial-success-1
    """
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message="too old")
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with Destination(Reply(200, body, {"Content-Type": "application/x-protobuf"})) as destination:
        exporter = make(destination.url)
        assert exporter.export(SPANS) is (FAILURE if rejected else SUCCESS)
    assert len(destination.received) == 1
    assert (exporter.stats()["sent"], exporter.stats()["rejected"]) == (2 - rejected, rejected)
    assert any("too old" in record.getMessage() for record in caplog.records)


def test_several_destinations_do_not_block_each_other(make: Make) -> None:
    """Queuing, acknowledgement and retrying are done per destination.

    https://opentelemetry.io/docs/specs/otlp/#multi-destination-exporting
    """
    with Destination(Reply(503)) as dead, Destination(OK) as alive:
        processor = BatchSpanProcessor([make(dead.url, timeout=30), make(alive.url)])
        for span in SPANS:
            processor.on_end(span)
        assert processor.force_flush(500) is False
        assert alive.span_names() == ["one", "two"]
        processor.shutdown(200)


def test_an_unreachable_server_raises_nothing(make: Make) -> None:
    """An exporter throws no exception when it cannot reach its endpoint.

    https://opentelemetry.io/docs/specs/otel/error-handling/#basic-error-handling-principles
    """
    with raw_destination(lambda connection: connection.close()) as url:
        pass
    assert make(url, timeout=0.2).export(SPANS) is FAILURE


# Settings ----------------------------------------------------------------------------------


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return where an exporter would send to under the given variables."""

    def resolved(**variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        return OTLPSpanExporter().settings.endpoint

    return resolved


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"ENDPOINT": "http://collector:4318"}, "http://collector:4318/v1/traces"),
        ({"ENDPOINT": "http://collector:4318/my/"}, "http://collector:4318/my/v1/traces"),
        ({"ENDPOINT": "https://collector"}, "https://collector/v1/traces"),
        ({"TRACES_ENDPOINT": "http://c:4318/any"}, "http://c:4318/any"),
        ({"TRACES_ENDPOINT": "http://c:4318/v1/traces/"}, "http://c:4318/v1/traces/"),
        ({"ENDPOINT": "http://a:1", "TRACES_ENDPOINT": "http://b:2/x"}, "http://b:2/x"),
    ],
)
def test_urls(endpoint: Any, variables: dict[str, str], expected: str) -> None:
    """A per-signal URL is used as it is; of the general one `v1/traces` is relative.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp
    """
    assert endpoint(**variables) == expected


def test_a_signals_url_without_a_path_is_the_root(make: Make, monkeypatch: Any) -> None:
    """If the per-signal URL has no path, the root path is used.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp
    """
    with Destination(OK) as destination:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", destination.url)
        assert make().export(SPANS) is SUCCESS
    assert destination.received[0].path == "/"


OPTIONS = {
    "HEADERS": ("a=1", "a=2", "headers", (("a", "1"),), (("a", "2"),)),
    "COMPRESSION": ("none", "gzip", "compressed", False, True),
    "TIMEOUT": ("3000", "4000", "timeout_s", 3.0, 4.0),
    "PROTOCOL": ("http/protobuf", "http/json", "protocol", "http/protobuf", "http/json"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_can_be_overridden_for_traces(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """Each configuration option can be overridden by one for the signal.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#configuration-options
    """
    general, specific, attribute, before, after = OPTIONS[option]
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{option}", general)
    assert getattr(OTLPSpanExporter().settings, attribute) == before
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_TRACES_{option}", specific)
    assert getattr(OTLPSpanExporter().settings, attribute) == after


@pytest.mark.parametrize("name", ["CERTIFICATE", "CLIENT_CERTIFICATE"])
def test_certificate_files_can_be_overridden_for_traces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str
) -> None:
    """The same, for trusted and client certificates.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#configuration-options
    """
    for variable in (f"OTEL_EXPORTER_OTLP_{name}", f"OTEL_EXPORTER_OTLP_TRACES_{name}"):
        file = tmp_path / f"{variable}.pem"
        file.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
        monkeypatch.setenv(variable, str(file))
        assert getattr(OTLPSpanExporter().settings, name.lower()) == str(file)


def test_headers_are_texts_in_the_form_of_baggage(make: Make, monkeypatch: Any) -> None:
    """Headers are key=value pairs, percent-encoded as in W3C Baggage; values are strings.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%3D, n=1")
    headers = sent(make).headers
    assert (headers["api-key"], headers["n"]) == ("a b=", "1")


@pytest.mark.parametrize("name", ["PROTOCOL", "COMPRESSION"])
def test_an_unknown_choice_is_reported_and_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Options must be of those that are listed; others give a warning.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    before = OTLPSpanExporter().settings
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "nobody")
    assert OTLPSpanExporter().settings == before
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize("text", ["-1", "soon"])
def test_a_timeout_that_is_none_is_reported_and_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """A timeout is a whole number of milliseconds that is not negative.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#timeout
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", text)
    assert OTLPSpanExporter().settings.timeout_s == 10
    assert len(caplog.records) == 1
