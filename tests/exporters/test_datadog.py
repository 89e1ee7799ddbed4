"""Datadog's v0.4 protocol: mapping, chunks and what goes to the agent."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from exporters.destinations import SOON, Destination, Reply
from exporters.made import EPOCH, HOSTILE_SPANS, TRACE_ID, UNREADABLE_SPANS, checkout, made
from exporters.shapes import spans as any_span
from tracekit import __version__
from tracekit.errors import ConfigurationError
from tracekit.exporters._datadog_encoder import DatadogEncoder
from tracekit.exporters._datadog_semantics import operation_name, resource_name, span_type
from tracekit.exporters._msgpack import pack
from tracekit.exporters.datadog import DatadogExporter
from tracekit.interfaces import SpanExportResult
from tracekit.model import Event, InstrumentationScope, Resource

SUCCESS = SpanExportResult.SUCCESS
CLIENT, SERVER, INTERNAL = SpanKind.CLIENT, SpanKind.SERVER, SpanKind.INTERNAL
PRODUCER, CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER


def ignore(span: Any, error: Exception) -> None:
    pass


def chunks(*spans: Any, **defaults: str) -> list[list[dict[str, Any]]]:
    (payload,) = DatadogEncoder(defaults).encode(spans, 10**9, ignore)
    return msgpack.unpackb(payload.body)


def datadog(span: Any, **defaults: str) -> dict[str, Any]:
    ((body,),) = chunks(span, **defaults)
    return body


def test_the_time_of_an_event_is_cut_and_stays_a_number() -> None:
    body = datadog(made(1, events=(Event("later", {}, 2**70),)))
    assert json.loads(body["meta"]["events"])[0]["time_unix_nano"] == 2**63 - 1


# MessagePack -------------------------------------------------------------------------------

numbers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(st.characters(exclude_categories=("Cs",)))
scalars = st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=50
)


@given(value=values)
def test_messagepack_is_what_the_reference_reads(value: Any) -> None:
    assert msgpack.unpackb(pack(value)) == value


@given(number=numbers)
def test_integers_are_as_short_as_the_reference_writes_them(number: int) -> None:
    assert pack(number) == msgpack.packb(number)


@pytest.mark.parametrize("size", [15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_sizes_at_the_borders_between_forms(size: int) -> None:
    for value in ("x" * size, b"x" * size, [0] * size, {str(n): n for n in range(size)}):
        assert pack(value) == msgpack.packb(value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, [2**70]])
def test_integers_beyond_64_bits_are_refused(value: object) -> None:
    with pytest.raises(OverflowError):
        pack(value)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        pack({1, 2})


# One span ----------------------------------------------------------------------------------


def test_ids_are_unsigned_64_bits_and_the_rest_of_the_trace_id_is_a_tag() -> None:
    found = datadog(made(2**64 - 1, "work", 7))
    assert found["trace_id"] == TRACE_ID & (2**64 - 1)
    assert found["meta"]["_dd.p.tid"] == "4bf92f3577b34da6"
    assert (found["span_id"], found["parent_id"]) == (2**64 - 1, 7)
    assert datadog(made(1))["parent_id"] == 0


def test_a_trace_id_of_64_bits_has_no_upper_half() -> None:
    assert "_dd.p.tid" not in datadog(made(1, trace_id=0xABC))["meta"]


def test_times_are_nanoseconds() -> None:
    found = datadog(made(1, start_ms=5, for_ms=10))
    assert (found["start"], found["duration"]) == (EPOCH + 5_000_000, 10_000_000)
    assert datadog(made(1, for_ms=None))["duration"] == 0
    assert datadog(made(1, for_ms=-5))["duration"] == 0


def test_numbers_are_metrics_and_everything_else_is_meta() -> None:
    attributes = {
        "int": 7,
        "float": 1.5,
        "bool": True,
        "text": "t",
        "list": [1, "a"],
        "nan": float("nan"),
        "huge": 2**60,
        "none": None,
    }
    found = datadog(made(1, attributes=attributes))
    assert {k: v for k, v in found["metrics"].items() if k in attributes} == {
        "int": 7,
        "float": 1.5,
    }
    assert {k: v for k, v in found["meta"].items() if k in attributes} == {
        "bool": "true",
        "text": "t",
        "list": '[1,"a"]',
        "nan": "NaN",
        "huge": str(2**60),
        "none": "",
    }


def test_the_resource_is_tagged_by_datadogs_names() -> None:
    resource = Resource(
        {
            "service.name": "shop",
            "service.version": "1.2",
            "deployment.environment.name": "prod",
            "service.instance.id": "abc",
            "process.pid": 42,
            "host.name": "h",
        }
    )
    found = datadog(made(1, resource=resource))
    assert found["service"] == "shop"
    meta = found["meta"]
    assert (meta["version"], meta["env"], meta["runtime-id"]) == ("1.2", "prod", "abc")
    assert meta["host.name"] == "h"
    assert found["metrics"]["process_id"] == 42
    assert "service.name" not in meta


@pytest.mark.parametrize(
    ("named", "default", "expected"),
    [
        ("shop", "fallback", "shop"),
        ("unknown_service", "fallback", "fallback"),
        ("unknown_service:python", "", "unknown_service:python"),
        (None, "fallback", "fallback"),
        (None, "", "unnamed-service"),
    ],
)
def test_the_service(named: str | None, default: str, expected: str) -> None:
    resource = Resource({"service.name": named} if named else {})
    assert datadog(made(1, resource=resource), service=default)["service"] == expected


def test_defaults_stand_behind_the_resource() -> None:
    resource = Resource({"service.name": "shop", "deployment.environment": "prod"})
    meta = datadog(made(1, resource=resource), env="dev", version="9")["meta"]
    assert (meta["env"], meta["version"]) == ("prod", "9")


def test_scope_kind_status_and_dropped_counts_are_tags() -> None:
    found = datadog(
        made(
            1,
            kind=CLIENT,
            instrumentation_scope=InstrumentationScope("lib", "1"),
            dropped_events=3,
        )
    )
    meta = found["meta"]
    assert meta["otel.scope.name"] == meta["otel.library.name"] == "lib"
    assert meta["otel.scope.version"] == "1"
    assert (meta["span.kind"], meta["otel.status_code"]) == ("client", "Unset")
    assert meta["otel.trace_id"] == f"{TRACE_ID:032x}"
    assert found["metrics"]["otel.dropped_events_count"] == 3
    assert found["error"] == 0


@pytest.mark.parametrize(
    ("status", "attributes", "events", "expected"),
    [
        (Status(StatusCode.ERROR, "broken"), {}, (), {"error.message": "broken"}),
        (Status(StatusCode.ERROR), {}, (), {}),
        (
            Status(StatusCode.ERROR),
            {"http.response.status_code": 503},
            (),
            {"error.message": "503 Service Unavailable"},
        ),
        (
            Status(StatusCode.ERROR, "outer"),
            {},
            (
                Event("exception", {"exception.type": "First"}),
                Event(
                    "exception",
                    {
                        "exception.type": "ValueError",
                        "exception.message": "bad",
                        "exception.stacktrace": "Traceback",
                    },
                ),
            ),
            {"error.type": "ValueError", "error.message": "bad", "error.stack": "Traceback"},
        ),
    ],
)
def test_an_error_says_what_it_was(
    status: Status, attributes: dict[str, Any], events: Any, expected: dict[str, str]
) -> None:
    found = datadog(made(1, status=status, attributes=attributes, events=events))
    assert found["error"] == 1
    assert {k: v for k, v in found["meta"].items() if k.startswith("error.")} == expected


def test_an_exception_that_was_handled_is_no_error() -> None:
    found = datadog(made(1, events=(Event("exception", {"exception.type": "KeyError"}),)))
    assert found["error"] == 0
    assert found["meta"]["_dd.span_events.has_exception"] == "true"


def test_events_are_json_in_a_tag() -> None:
    events = (Event("cache", {"hit": True, "n": 1}, EPOCH), Event("bare", {}, EPOCH + 1))
    assert json.loads(datadog(made(1, events=events))["meta"]["events"]) == [
        {"time_unix_nano": EPOCH, "name": "cache", "attributes": {"hit": True, "n": 1}},
        {"time_unix_nano": EPOCH + 1, "name": "bare"},
    ]


def test_links_keep_all_bits_of_their_trace_ids() -> None:
    linked = SpanContext(TRACE_ID, 5, True, trace_state=TraceState([("a", "1")]))
    assert datadog(made(1, links=[Link(linked, {"n": 1})]))["span_links"] == [
        {
            "trace_id": TRACE_ID & (2**64 - 1),
            "trace_id_high": TRACE_ID >> 64,
            "span_id": 5,
            "flags": 1 << 31,
            "tracestate": "a=1",
            "attributes": {"n": "1"},
        }
    ]


def test_http_attributes_get_datadogs_names() -> None:
    attributes = {
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "url.full": "http://x/",
        "http.request.header.x-id": ["a"],
        "http.route": "/x",
    }
    meta = datadog(made(1, attributes=attributes))["meta"]
    assert (meta["http.method"], meta["http.status_code"]) == ("GET", "404")
    assert (meta["http.url"], meta["http.route"]) == ("http://x/", "/x")
    assert meta["http.request.headers.x-id"] == '["a"]'


@pytest.mark.parametrize(
    ("kind", "attributes", "operation", "resource", "type_"),
    [
        (INTERNAL, {}, "internal", "work", "custom"),
        (PRODUCER, {}, "producer", "work", "custom"),
        (SERVER, {}, "server.request", "work", "web"),
        (CLIENT, {}, "client.request", "work", "http"),
        (CLIENT, {"network.protocol.name": "smtp"}, "smtp.client.request", "work", "http"),
        (
            SERVER,
            {"http.request.method": "GET", "http.route": "/cart/{id}"},
            "http.server.request",
            "GET /cart/{id}",
            "web",
        ),
        (
            CLIENT,
            {"http.request.method": "GET", "http.route": "/ignored"},
            "http.client.request",
            "GET",
            "http",
        ),
        (SERVER, {"http.request.method": "_OTHER"}, "http.server.request", "HTTP", "web"),
        (
            CLIENT,
            {"db.system.name": "postgresql", "db.query.text": "SELECT ?"},
            "postgresql.query",
            "SELECT ?",
            "sql",
        ),
        (CLIENT, {"db.system": "redis"}, "redis.query", "work", "redis"),
        (CLIENT, {"db.system": "neo4j", "db.statement": "MATCH"}, "neo4j.query", "MATCH", "db"),
        (
            CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": "orders",
            },
            "kafka.process",
            "process orders",
            "custom",
        ),
        (
            CLIENT,
            {"rpc.system": "grpc", "rpc.method": "Pay", "rpc.service": "Payments"},
            "grpc.client.request",
            "Pay Payments",
            "http",
        ),
        (
            CLIENT,
            {"rpc.system": "aws-api", "rpc.service": "S3"},
            "aws.S3.request",
            "work",
            "http",
        ),
        (SERVER, {"faas.trigger": "timer"}, "timer.invoke", "work", "web"),
        (
            CLIENT,
            {"faas.invoked_provider": "aws", "faas.invoked_name": "f"},
            "aws.f.invoke",
            "work",
            "http",
        ),
        (
            SERVER,
            {"graphql.operation.type": "query", "graphql.operation.name": "Cart"},
            "graphql.server.request",
            "query Cart",
            "web",
        ),
        (
            SERVER,
            {"operation.name": "own", "resource.name": "mine", "span.type": "llm"},
            "own",
            "mine",
            "llm",
        ),
    ],
)
def test_what_datadog_calls_a_span(
    kind: SpanKind, attributes: dict[str, Any], operation: str, resource: str, type_: str
) -> None:
    assert operation_name(kind, attributes) == operation
    assert resource_name("work", kind, attributes) == resource
    assert span_type(kind, attributes) == type_
    found = datadog(made(1, kind=kind, attributes=attributes))
    assert (found["name"], found["resource"], found["type"]) == (operation, resource, type_)


# Chunks ------------------------------------------------------------------------------------


def test_spans_of_one_trace_travel_together() -> None:
    spans = [made(1, trace_id=1), made(2, trace_id=2), made(3, trace_id=1)]
    assert [[s["span_id"] for s in chunk] for chunk in chunks(*spans)] == [[1, 3], [2]]


def test_what_is_true_of_a_chunk_is_on_the_spans_whose_parents_are_elsewhere() -> None:
    (chunk,) = chunks(made(1, "root", 99), made(2, "child", 1), made(3, "other", 98))
    marked = [span["span_id"] for span in chunk if "_sampling_priority_v1" in span["metrics"]]
    assert marked == [1, 3]
    assert [span["span_id"] for span in chunk if "_dd.p.tid" in span["meta"]] == [1, 3]


def test_a_circle_of_parents_has_a_root_all_the_same() -> None:
    (chunk,) = chunks(made(1, "a", 2), made(2, "b", 1))
    assert [s["metrics"].get("_sampling_priority_v1") for s in chunk] == [1.0, None]


@pytest.mark.parametrize(
    ("state", "priority", "meta"),
    [
        ([], 1.0, {}),
        ([("dd", "s:2;o:rum;t.dm:-4;t.usr:a~b")], 2.0, {"_dd.origin": "rum", "_dd.p.dm": "-4"}),
        ([("other", "x"), ("dd", "s:-1")], 1.0, {}),
    ],
)
def test_what_the_caller_decided_goes_on(
    state: list[tuple[str, str]], priority: float, meta: dict[str, str]
) -> None:
    span = made(1, context=SpanContext(1, 1, False, trace_state=TraceState(state)))
    found = datadog(span)
    assert found["metrics"]["_sampling_priority_v1"] == priority
    assert meta.items() <= found["meta"].items()


def test_payloads_are_split_by_size_and_a_trace_too_if_need_be() -> None:
    spans = [made(n, "work", 1 if n % 10 else None, trace_id=n // 10 + 1) for n in range(10, 60)]
    for limit in (100, 1500, 6000):
        payloads = list(DatadogEncoder().encode(spans, limit, ignore))
        found = [msgpack.unpackb(payload.body) for payload in payloads]
        sent = [s["span_id"] for payload in found for chunk in payload for s in chunk]
        assert sorted(sent) == list(range(10, 60))
        assert [len(p) for p in found] == [
            int(dict(p.headers)["x-datadog-trace-count"]) for p in payloads
        ]
        if limit > 100:
            assert max(len(payload.body) for payload in payloads) <= limit
        for payload in found:
            for chunk in payload:
                assert any("_sampling_priority_v1" in s["metrics"] for s in chunk)


@given(span=any_span)
def test_every_span_becomes_a_valid_payload(span: Any) -> None:
    found = datadog(span)
    assert found["span_id"] == span.context.span_id
    assert 0 <= found["start"] < 2**63
    assert 0 <= found["duration"] < 2**63
    assert all(type(value) is str for value in found["meta"].values())
    assert all(type(value) is float for value in found["metrics"].values())


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_arrives_with_what_is_good(name: str) -> None:
    assert datadog(HOSTILE_SPANS[name])["metrics"]["good"] == 1


def test_unreadable_spans_are_left_out() -> None:
    skipped: list[Any] = []
    spans = [made(1), *UNREADABLE_SPANS.values(), made(2)]
    encode = DatadogEncoder().encode
    (payload,) = encode(spans, 10**9, lambda span, error: skipped.append(span))
    assert [s["span_id"] for chunk in msgpack.unpackb(payload.body) for s in chunk] == [1, 2]
    assert len(skipped) == len(UNREADABLE_SPANS)


# The agent ---------------------------------------------------------------------------------


def test_a_trace_arrives_with_the_headers_that_the_agent_wants() -> None:
    with Destination(Reply(200, b'{"rate_by_service":{"service:,env:":1}}')) as destination:
        exporter = DatadogExporter(destination.url, retry_policy=SOON)
        assert exporter.probe() is None
        resource = Resource({"service.name": "shop", "container.id": "c0ffee"})
        assert exporter.export([*checkout(), made(1, trace_id=9, resource=resource)]) is SUCCESS
        exporter.shutdown()
    probe, received = destination.received
    assert msgpack.unpackb(probe.body) == []
    assert (received.method, received.path) == ("PUT", "/v0.4/traces")
    assert received.headers["content-type"] == "application/msgpack"
    assert received.headers["x-datadog-trace-count"] == "2"
    assert received.headers["datadog-meta-lang"] == "python"
    assert received.headers["datadog-meta-tracer-version"] == f"tracekit-{__version__}"
    assert received.headers["datadog-container-id"] == "c0ffee"
    assert sum(map(len, msgpack.unpackb(received.body))) == len(checkout()) + 1


@pytest.mark.parametrize(
    ("variables", "destination"),
    [
        ({}, "http://localhost:8126/v0.4/traces"),
        ({"DD_AGENT_HOST": "agent"}, "http://agent:8126/v0.4/traces"),
        ({"DD_AGENT_HOST": "agent", "DD_TRACE_AGENT_PORT": "9"}, "http://agent:9/v0.4/traces"),
        ({"DD_AGENT_HOST": "::1"}, "http://[::1]:8126/v0.4/traces"),
        (
            {"DD_TRACE_AGENT_URL": "https://a:1/base/", "DD_AGENT_HOST": "no"},
            "https://a:1/base/v0.4/traces",
        ),
        ({"DD_TRACE_AGENT_URL": "unix:///run/apm.socket"}, "unix:///run/apm.socket"),
    ],
)
def test_where_the_agent_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], destination: str
) -> None:
    for name in ("DD_AGENT_HOST", "DD_TRACE_AGENT_PORT", "DD_TRACE_AGENT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert DatadogExporter().destination == destination


def test_the_agents_usual_socket_is_used_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = tmp_path / "apm.socket"
    usual.touch()
    monkeypatch.setattr("tracekit.exporters.datadog.DEFAULT_SOCKET", str(usual))
    assert DatadogExporter().destination == f"unix://{usual}"
    monkeypatch.setenv("DD_AGENT_HOST", "agent")
    assert DatadogExporter().destination == "http://agent:8126/v0.4/traces"


@contextlib.contextmanager
def agent_on_a_socket(path: Path) -> Iterator[list[bytes]]:
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

        def address_string(self) -> str:
            return "socket"

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield bodies
        server.shutdown()
        thread.join()


def test_an_agent_behind_a_unix_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    path = tmp_path / "apm.socket"
    with agent_on_a_socket(path) as bodies:
        exporter = DatadogExporter(f"unix://{path}", 5, retry_policy=SOON)
        assert exporter.export(checkout()) is SUCCESS
        assert exporter.export([made(1)]) is SUCCESS
        exporter.shutdown()
    assert sum(map(len, msgpack.unpackb(bodies[0]))) == len(checkout())


def test_a_socket_that_is_not_there_is_said(tmp_path: Path) -> None:
    exporter = DatadogExporter(f"unix://{tmp_path}/none", 0.1, retry_policy=SOON)
    exporter.export([made(1)])
    assert exporter.stats()["dropped"] == {"unreachable": 1}
    assert "no such file" in exporter.stats()["last_failure"]
    exporter.shutdown()


@pytest.mark.parametrize(
    ("variables", "arguments", "named"),
    [
        ({"DD_TRACE_AGENT_URL": "agent:8126"}, {}, "DD_TRACE_AGENT_URL"),
        ({"DD_TRACE_AGENT_PORT": "http"}, {}, "DD_TRACE_AGENT_PORT"),
        ({"DD_AGENT_HOST": "a b"}, {}, "DD_AGENT_HOST"),
        ({"DD_TRACE_AGENT_TIMEOUT_SECONDS": "soon"}, {}, "DD_TRACE_AGENT_TIMEOUT_SECONDS"),
        ({"DD_TRACE_AGENT_TIMEOUT_SECONDS": "-1"}, {}, "DD_TRACE_AGENT_TIMEOUT_SECONDS"),
        ({}, {"agent_url": "unix://apm.socket"}, "agent_url"),
        ({}, {"timeout": -1}, "timeout"),
        ({}, {"max_request_bytes": 0}, "max_request_bytes"),
    ],
)
def test_what_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: dict[str, Any],
    named: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=named):
        DatadogExporter(**arguments)
