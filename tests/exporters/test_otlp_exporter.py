"""The OTLP exporter on the wire: HTTP with protobuf and JSON, gRPC, TLS, gzip."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import trustme
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from exporters.destinations import SOON, Destination, Reply, nobody, raw_destination, span_names
from exporters.grpc_destinations import Behaviour, grpc_destination, take
from exporters.made import checkout, made
from tracekit import __version__
from tracekit.exporters._otlp_encoder import encode
from tracekit.exporters._otlp_response import error_message, partial_success, retry_delay_s
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.interfaces import SpanExportResult

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
BATCH = checkout()
NAMES = [span.name for span in BATCH]

Make = Callable[..., OTLPSpanExporter]


@pytest.fixture
def make() -> Iterator[Make]:
    exporters: list[OTLPSpanExporter] = []

    def made_exporter(*arguments: Any, **named: Any) -> OTLPSpanExporter:
        exporter = OTLPSpanExporter(*arguments, **{"retry_policy": SOON, "timeout": 5, **named})
        exporters.append(exporter)
        return exporter

    yield made_exporter
    for exporter in exporters:
        exporter.shutdown()


# HTTP --------------------------------------------------------------------------------------


def test_a_trace_arrives_whole(make: Make) -> None:
    with Destination() as destination:
        assert make(destination.url).export(BATCH) is SUCCESS
        (received,) = destination.received
    assert (received.method, received.path) == ("POST", "/v1/traces")
    assert received.headers["content-type"] == "application/x-protobuf"
    assert "content-encoding" not in received.headers
    assert received.request() == ExportTraceServiceRequest.FromString(encode(BATCH))
    assert sorted(received.span_names()) == sorted(NAMES)


def test_the_exporter_says_who_it_is(make: Make) -> None:
    with Destination() as destination:
        make(destination.url).export(BATCH)
        (received,) = destination.received
    expected = f"tracekit/{__version__} OTel-OTLP-Exporter-Python/{__version__}"
    assert received.headers["user-agent"] == expected


def test_bodies_are_compressed_when_asked_for(make: Make) -> None:
    with Destination() as destination:
        make(destination.url, compression="gzip").export(BATCH)
        (received,) = destination.received
    assert received.headers["content-encoding"] == "gzip"
    assert len(received.raw) < len(encode(BATCH)) / 2
    assert sorted(received.span_names()) == sorted(NAMES)


def test_headers_are_sent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b,x-tenant=shop")
    with Destination() as destination:
        make(destination.url).export(BATCH)
        (received,) = destination.received
    assert received.headers["api-key"] == "a b"
    assert received.headers["x-tenant"] == "shop"


def test_the_environment_alone_is_enough(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with Destination() as destination:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{destination.url}/base/")
        assert make().export(BATCH) is SUCCESS
        assert destination.received[0].path == "/base/v1/traces"


def from_json(body: bytes) -> ExportTraceServiceRequest:
    """Decode OTLP JSON with the official messages, whose own JSON has ids in base64."""
    import base64

    def renamed(part: Any) -> Any:
        if isinstance(part, list):
            return [renamed(item) for item in part]
        if not isinstance(part, dict):
            return part
        ids = ("traceId", "spanId", "parentSpanId")
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in ids else renamed(value)
            for key, value in part.items()
        }

    return ParseDict(renamed(json.loads(body)), ExportTraceServiceRequest())


def test_json_says_the_same_as_protobuf(make: Make) -> None:
    with Destination() as destination:
        assert make(destination.url, protocol="http/json").export(BATCH) is SUCCESS
        (received,) = destination.received
    assert received.headers["content-type"] == "application/json"
    assert from_json(received.body) == ExportTraceServiceRequest.FromString(encode(BATCH))


def test_json_is_split_by_size_too(make: Make) -> None:
    spans = [made(n, f"span {n}") for n in range(1, 33)]
    with Destination() as destination:
        exporter = make(destination.url, protocol="http/json", max_request_bytes=2000)
        assert exporter.export([*spans, object()]) is SUCCESS
        requests_ = [received.body for received in destination.received]
    assert max(map(len, requests_)) <= 2000
    assert [n for body in requests_ for n in span_names(from_json(body))] == [s.name for s in spans]
    assert exporter.stats()["dropped"] == {"unreadable": 1}


def test_partial_success_in_json_is_read(make: Make) -> None:
    body = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}'
    with Destination(Reply(200, body, {"Content-Type": "application/json"})) as destination:
        exporter = make(destination.url, protocol="http/json")
        assert exporter.export(BATCH) is FAILURE
        assert exporter.stats()["rejected"] == 2


def test_a_session_of_the_program_is_used(make: Make) -> None:
    with Destination() as destination, requests.Session() as session:
        session.headers["x-from"] = "the program"
        assert make(destination.url, session=session).export(BATCH) is SUCCESS
        assert destination.received[0].headers["x-from"] == "the program"


def test_arguments_stand_where_opentelemetrys_exporter_has_them() -> None:
    with Destination() as destination, requests.Session() as session:
        url = f"{destination.url}/v1/traces"
        exporter = OTLPSpanExporter(url, None, None, None, {"a": "b"}, 5, None, session)
        assert exporter.export(BATCH) is SUCCESS
        assert destination.received[0].headers["a"] == "b"


# TLS ---------------------------------------------------------------------------------------


class Certificates:
    """A throw-away authority, a server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server = authority.issue_cert("localhost", "127.0.0.1")
        client = authority.issue_cert("me@example.com")
        self.old_server = authority.issue_cert(
            "localhost", not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        )
        self.authority = authority
        self.ca = self._file(folder / "ca.pem", authority.cert_pem)
        self.client_key = self._file(folder / "client.key", client.private_key_pem)
        self.client_certificate = self._file(folder / "client.pem", client.cert_chain_pems[0])
        self.client_both = self._file(folder / "both.pem", client.private_key_and_cert_chain_pem)

    @staticmethod
    def _file(path: Path, blob: trustme.Blob) -> str:
        blob.write_to_path(str(path))
        return str(path)

    def of_server(self, wants_client: bool = False, is_old: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (self.old_server if is_old else self.server).configure_cert(context)
        if wants_client:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_a_server_is_trusted_by_its_authority(make: Make, certificates: Certificates) -> None:
    with Destination(tls=certificates.of_server()) as destination:
        exporter = make(destination.url, certificate_file=certificates.ca)
        assert exporter.export(BATCH) is SUCCESS
        assert sorted(destination.span_names()) == sorted(NAMES)


def test_the_certificate_may_come_from_the_environment(
    make: Make, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.ca)
    with Destination(tls=certificates.of_server()) as destination:
        assert make(destination.url).export(BATCH) is SUCCESS


def test_an_unknown_server_gets_nothing(make: Make, certificates: Certificates) -> None:
    with Destination(tls=certificates.of_server()) as destination:
        exporter = make(destination.url, timeout=0.5)
        assert exporter.export(BATCH) is FAILURE
        assert destination.received == []
        assert "TLS:" in exporter.stats()["last_failure"]


def test_a_server_whose_time_is_over_gets_nothing(make: Make, certificates: Certificates) -> None:
    with Destination(tls=certificates.of_server(is_old=True)) as destination:
        exporter = make(destination.url, certificate_file=certificates.ca, timeout=0.5)
        assert exporter.export(BATCH) is FAILURE
        assert "expired" in exporter.stats()["last_failure"]


@pytest.mark.parametrize("in_one_file", [True, False])
def test_a_client_shows_who_it_is(
    make: Make, certificates: Certificates, in_one_file: bool
) -> None:
    own = (
        {"client_certificate_file": certificates.client_both}
        if in_one_file
        else {
            "client_certificate_file": certificates.client_certificate,
            "client_key_file": certificates.client_key,
        }
    )
    with Destination(tls=certificates.of_server(wants_client=True)) as destination:
        exporter = make(destination.url, certificate_file=certificates.ca, **own)
        assert exporter.export(BATCH) is SUCCESS


def test_a_client_that_does_not_is_turned_away(make: Make, certificates: Certificates) -> None:
    with Destination(tls=certificates.of_server(wants_client=True)) as destination:
        exporter = make(destination.url, certificate_file=certificates.ca, timeout=0.5)
        assert exporter.export(BATCH) is FAILURE
        assert destination.received == []


def test_tls_keeps_the_deadline_while_sending(make: Make, certificates: Certificates) -> None:
    huge = [made(n, attributes={"text": os.urandom(500_000).hex()}) for n in range(1, 9)]
    context = certificates.of_server()
    gone = threading.Event()

    def swallow(connection: Any) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
            gone.wait(10)

    with raw_destination(swallow) as url:
        exporter = make(
            url.replace("http://", "https://"),
            certificate_file=certificates.ca,
            timeout=0.4,
            max_request_bytes=10**8,
        )
        start = time.monotonic()
        assert exporter.export(huge) is FAILURE
        assert time.monotonic() - start < 2
        gone.set()


# gRPC --------------------------------------------------------------------------------------


def abort(code: grpc.StatusCode, details: str = "", *trailers: tuple[str, Any]) -> Behaviour:
    def answer(request: Any, context: Any) -> ExportTraceServiceResponse:
        context.set_trailing_metadata(trailers)
        context.abort(code, details)
        raise AssertionError("abort raises")

    return answer


def retry_info(seconds: float) -> tuple[str, bytes]:
    detail = AnyMessage()
    whole = int(seconds)
    delay = Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
    detail.Pack(RetryInfo(retry_delay=delay))
    return "grpc-status-details-bin", Status(code=14, details=[detail]).SerializeToString()


@pytest.fixture
def make_grpc(make: Make) -> Make:
    return lambda url, **arguments: make(url, protocol="grpc", **arguments)


def test_a_trace_arrives_by_grpc(make_grpc: Make) -> None:
    with grpc_destination() as destination:
        exporter = make_grpc(destination.url, headers={"Api-Key": "k"})
        assert exporter.export(BATCH) is SUCCESS
        (request,) = destination.received
        assert request == ExportTraceServiceRequest.FromString(encode(BATCH))
        (metadata,) = destination.metadata
        assert metadata["api-key"] == "k"
        assert metadata["user-agent"].startswith(f"tracekit/{__version__} OTel-OTLP-Exporter")
        assert exporter.stats()["sent"] == len(BATCH)


def test_metadata_that_grpc_cannot_send_is_no_reason_to_try_again(make_grpc: Make) -> None:
    with grpc_destination() as destination:
        exporter = make_grpc(destination.url, headers={"key": "caf\u00e9\u0080"})
        assert exporter.export(BATCH) is FAILURE
        assert exporter.stats()["rejected"] == len(BATCH)
        assert exporter.stats()["retried"] == 0


def test_grpc_compresses_when_asked_for(make_grpc: Make) -> None:
    with grpc_destination() as destination:
        assert make_grpc(destination.url, compression="gzip").export(BATCH) is SUCCESS
        assert sorted(destination.names()) == sorted(NAMES)


@pytest.mark.parametrize(
    "code",
    ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"],
)
def test_a_retryable_code_is_tried_again(make_grpc: Make, code: str) -> None:
    with grpc_destination(abort(grpc.StatusCode[code]), take) as destination:
        exporter = make_grpc(destination.url)
        assert exporter.export(BATCH) is SUCCESS
        assert exporter.stats()["retried"] == 1


@pytest.mark.parametrize(
    "code",
    [
        *("UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED"),
        *("UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "UNIMPLEMENTED"),
        "INTERNAL",
    ],
)
def test_any_other_code_is_final(make_grpc: Make, code: str) -> None:
    with grpc_destination(abort(grpc.StatusCode[code], "because"), take) as destination:
        exporter = make_grpc(destination.url)
        assert exporter.export(BATCH) is FAILURE
        assert exporter.stats()["rejected"] == len(BATCH)
        assert exporter.stats()["last_failure"] == f"{code}: because"


def test_retry_info_makes_exhaustion_retryable_and_is_honoured(make_grpc: Make) -> None:
    exhausted = abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", retry_info(0.4))
    with grpc_destination(exhausted, take) as destination:
        exporter, start = make_grpc(destination.url), time.monotonic()
        assert exporter.export(BATCH) is SUCCESS
        assert time.monotonic() - start >= 0.4


def test_what_grpc_could_not_send_is_kept_and_sent_as_it_was(
    make_grpc: Make, tmp_path: Any
) -> None:
    down = abort(grpc.StatusCode.UNAVAILABLE, "restarting")
    with grpc_destination(down) as destination:
        exporter = make_grpc(destination.url, timeout=0.2, spool=tmp_path / "spool.db")
        assert exporter.export(BATCH) is SUCCESS
        assert exporter.stats()["spooled"] == len(BATCH)
        destination.script[:] = [take]
        assert exporter.force_flush(10_000)
    assert exporter.stats()["recovered"] == len(BATCH)
    assert exporter.stats()["waiting"] == 0


def test_pushback_in_a_trailer_is_honoured(make_grpc: Make) -> None:
    busy = abort(grpc.StatusCode.UNAVAILABLE, "busy", ("grpc-retry-pushback-ms", "400"))
    with grpc_destination(busy, take) as destination:
        exporter, start = make_grpc(destination.url), time.monotonic()
        assert exporter.export(BATCH) is SUCCESS
        assert time.monotonic() - start >= 0.4


def test_a_message_over_the_servers_limit_is_sent_in_halves(make_grpc: Make) -> None:
    options = [("grpc.max_receive_message_length", 1500)]
    with grpc_destination(options=options) as destination:
        exporter = make_grpc(destination.url)
        assert exporter.export(BATCH) is SUCCESS
        assert sorted(destination.names()) == sorted(NAMES)
        assert exporter.stats()["split"] > 0


def test_partial_success_by_grpc_is_counted(make_grpc: Make) -> None:
    def keep_some(request: Any, context: Any) -> ExportTraceServiceResponse:
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = 4
        response.partial_success.error_message = "no room"
        return response

    with grpc_destination(keep_some) as destination:
        exporter = make_grpc(destination.url)
        assert exporter.export(BATCH) is FAILURE
        assert exporter.stats()["rejected"] == 4
        assert exporter.stats()["sent"] == len(BATCH) - 4


def test_nobody_at_a_grpc_port_is_given_up_within_the_time(make_grpc: Make) -> None:
    with nobody() as url:
        exporter, start = make_grpc(url, timeout=0.3), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < 2
        assert exporter.stats()["dropped"] == {"unreachable": len(BATCH)}
        assert "cannot be reached" in str(exporter.probe())


def test_a_grpc_probe_finds_its_server(make_grpc: Make) -> None:
    with grpc_destination() as destination:
        assert make_grpc(destination.url).probe() is None


def test_a_grpc_server_that_does_not_answer_costs_the_deadline(make_grpc: Make) -> None:
    released = threading.Event()

    def wait(request: Any, context: Any) -> ExportTraceServiceResponse:
        released.wait(10)
        return ExportTraceServiceResponse()

    with grpc_destination(wait) as destination:
        exporter, start = make_grpc(destination.url, timeout=0.3), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < 2
        released.set()


@pytest.mark.parametrize("wants_client", [False, True])
def test_grpc_over_tls(make_grpc: Make, certificates: Certificates, wants_client: bool) -> None:
    server = certificates.server
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        certificates.authority.cert_pem.bytes(),
        wants_client,
    )
    own = {
        "client_key_file": certificates.client_key,
        "client_certificate_file": certificates.client_certificate,
    }
    with grpc_destination(credentials=credentials) as destination:
        exporter = make_grpc(
            destination.url, certificate_file=certificates.ca, **(own if wants_client else {})
        )
        assert exporter.export(BATCH) is SUCCESS
        assert exporter.destination.startswith("grpcs://localhost:")


def test_shutdown_ends_a_call_under_way(make_grpc: Make) -> None:
    asked, released = threading.Event(), threading.Event()

    def wait(request: Any, context: Any) -> ExportTraceServiceResponse:
        asked.set()
        released.wait(10)
        return ExportTraceServiceResponse()

    with grpc_destination(wait) as destination:
        exporter = make_grpc(destination.url, timeout=30)
        worker = threading.Thread(target=exporter.export, args=(BATCH,))
        worker.start()
        assert asked.wait(10)
        exporter.shutdown()
        worker.join(5)
        assert not worker.is_alive()
        released.set()


# Answers, read by hand ---------------------------------------------------------------------


def test_a_retry_delay_is_found_among_other_details() -> None:
    _, status = retry_info(1.5)
    other = AnyMessage(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\x0a\x00")
    parsed = Status.FromString(status)
    parsed.details.insert(0, other)
    assert retry_delay_s(parsed.SerializeToString()) == 1.5
    assert retry_delay_s(Status(details=[other]).SerializeToString()) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x0a",
        b"\x0a\xff",
        b"\xff" * 20,
        b"\x0b\x00",
        b"\x0a\x02\x08",
        os.urandom(200),
        b"\x08\x01" * 2000,
    ],
    ids=range(8),
)
def test_bytes_that_are_no_answer_reject_nothing(body: bytes) -> None:
    assert partial_success(body, is_json=False) == (0, "")
    assert retry_delay_s(body) is None
    assert isinstance(error_message(body, "application/x-protobuf"), str)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'{"partialSuccess": 5}',
        b'{"partialSuccess":{"rejectedSpans":"x"}}',
        b"[" * 100_000,
    ],
    ids=range(7),
)
def test_json_that_is_no_answer_rejects_nothing(body: bytes) -> None:
    assert partial_success(body, is_json=True) == (0, "")
    assert isinstance(error_message(body, "application/json"), str)


def test_the_message_of_a_json_status_is_read() -> None:
    assert error_message(b'{"code": 3, "message": "no name"}', "application/json") == "no name"
    assert error_message(b"plain", "text/plain") == "plain"
