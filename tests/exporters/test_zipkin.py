"""Zipkin V2 JSON: each row of the mapping, and what goes over the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from exporters.destinations import SOON, Destination, Reply
from exporters.made import EPOCH, HOSTILE_SPANS, UNREADABLE_SPANS, checkout, made
from exporters.shapes import spans as any_span
from tracekit.errors import ConfigurationError
from tracekit.exporters._zipkin_encoder import ZipkinEncoder
from tracekit.exporters.zipkin import ZipkinExporter
from tracekit.interfaces import SpanExportResult
from tracekit.model import Event, InstrumentationScope, Resource

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


def ignore(span: Any, error: Exception) -> None:
    pass


def zipkin(span: Any, **settings: Any) -> dict[str, Any]:
    """Return the span as Zipkin would see it."""
    (payload,) = ZipkinEncoder(**settings).encode([span], 10**9, ignore)
    (body,) = json.loads(payload.body)
    return body


def tags(**fields: Any) -> dict[str, str]:
    return zipkin(made(1, **fields))["tags"]


# The rows of the mapping -------------------------------------------------------------------


def test_ids_are_hexadecimal_and_a_root_has_no_parent() -> None:
    child = zipkin(made(0xA2, "work", 0xA1))
    assert child["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (child["id"], child["parentId"]) == ("00000000000000a2", "00000000000000a1")
    assert "parentId" not in zipkin(made(1))


def test_the_service_name_is_the_local_endpoint() -> None:
    span = made(1, resource=Resource({"service.name": "shop", "service.namespace": "eu"}))
    assert zipkin(span)["localEndpoint"] == {"serviceName": "shop"}
    assert zipkin(span)["tags"]["service.namespace"] == "eu"
    assert "service.name" not in zipkin(span)["tags"]
    assert zipkin(made(1, resource=Resource()))["localEndpoint"]["serviceName"] == "unknown_service"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (SpanKind.CLIENT, "CLIENT"),
        (SpanKind.SERVER, "SERVER"),
        (SpanKind.PRODUCER, "PRODUCER"),
        (SpanKind.CONSUMER, "CONSUMER"),
        (SpanKind.INTERNAL, None),
    ],
)
def test_kinds(kind: SpanKind, expected: str | None) -> None:
    assert zipkin(made(1, kind=kind)).get("kind") == expected


def test_the_scope_is_written_under_its_new_and_its_old_names() -> None:
    found = tags(instrumentation_scope=InstrumentationScope("lib", "1.2"))
    assert found["otel.scope.name"] == found["otel.library.name"] == "lib"
    assert found["otel.scope.version"] == found["otel.library.version"] == "1.2"
    assert "otel.scope.version" not in tags(instrumentation_scope=InstrumentationScope("lib"))


def test_times_are_cut_to_what_zipkin_reads() -> None:
    # "Expected a long": one such number costs all spans of its request.
    late = zipkin(made(1, for_ms=1e20, events=(Event("later still", {}, 2**70),)))
    early = zipkin(made(1, start_ms=-(10**13)))
    numbers = [late["duration"], late["annotations"][0]["timestamp"], early["timestamp"]]
    assert all(0 < number < 2**63 for number in numbers)
    assert late["annotations"][0]["value"] == "later still"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        ("text", "text"),
        (7, "7"),
        (-(2**62), "-4611686018427387904"),
        (1.5, "1.5"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ([1, 2], "[1,2]"),
        (("a", 'b"', None), '["a","b\\"",null]'),
        ([True, float("nan")], '[true,"NaN"]'),
        ({"a": [1]}, '{"a":[1]}'),
        (b"\x00\xff", "AP8="),
        ([b"\x00"], '["AA=="]'),
        (None, ""),
        ("\ud800", "\\ud800"),
    ],
)
def test_attribute_values_are_texts(value: object, text: str) -> None:
    assert tags(attributes={"key": value})["key"] == text


def test_attributes_of_the_span_stand_before_those_of_the_resource() -> None:
    resource = Resource({"service.name": "shop", "a": "resource", "b": "resource"})
    found = tags(resource=resource, attributes={"a": "span"})
    assert (found["a"], found["b"]) == ("span", "resource")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (Status(), None, None),
        (Status(StatusCode.OK), "OK", None),
        (Status(StatusCode.ERROR, "broken"), "ERROR", "broken"),
        (Status(StatusCode.ERROR), "ERROR", ""),
    ],
)
def test_status(status: Status, code: str | None, error: str | None) -> None:
    found = tags(status=status)
    assert (found.get("otel.status_code"), found.get("error")) == (code, error)


@pytest.mark.parametrize("value", [False, "false", "False"])
def test_an_error_of_false_is_left_out(value: object) -> None:
    assert "error" not in tags(attributes={"error": value})
    assert tags(attributes={"error": value}, error="broken")["error"] == "broken"


def test_events_become_annotations() -> None:
    events = (
        Event("cache miss", {"key": "k", "size": 3}, EPOCH + 1999),
        Event("plain", {}, EPOCH),
    )
    assert zipkin(made(1, events=events))["annotations"] == [
        {"timestamp": EPOCH // 1000 + 1, "value": '"cache miss": {"key":"k","size":3}'},
        {"timestamp": EPOCH // 1000, "value": "plain"},
    ]
    assert "annotations" not in zipkin(made(1))


@pytest.mark.parametrize(
    ("duration_ns", "micros"), [(1234, 1), (400, 1), (0, 1), (10_999, 10), (10**9, 10**6)]
)
def test_times_are_whole_microseconds(duration_ns: int, micros: int) -> None:
    found = zipkin(made(1, start_time=EPOCH + 999, end_time=EPOCH + 999 + duration_ns))
    assert (found["timestamp"], found["duration"]) == (EPOCH // 1000, micros)
    assert type(found["timestamp"]) is type(found["duration"]) is int


def test_a_span_that_has_not_ended_has_no_duration() -> None:
    assert "duration" not in zipkin(made(1, for_ms=None))


@pytest.mark.parametrize(
    ("attributes", "endpoint"),
    [
        ({"peer.service": "db", "server.address": "host"}, {"serviceName": "db"}),
        ({"server.address": "host", "net.peer.name": "old"}, {"serviceName": "host"}),
        ({"net.peer.name": "old", "network.peer.address": "10.0.0.1"}, {"serviceName": "old"}),
        (
            {"network.peer.address": "10.0.0.1", "network.peer.port": 80, "peer.hostname": "x"},
            {"ipv4": "10.0.0.1", "port": 80},
        ),
        ({"network.peer.address": "2001:db8::1"}, {"ipv6": "2001:db8::1"}),
        ({"network.peer.address": "/run/x.sock"}, {"serviceName": "/run/x.sock"}),
        ({"network.peer.address": "10.0.0.1", "network.peer.port": "no"}, {"ipv4": "10.0.0.1"}),
        ({"server.socket.domain": "d", "server.socket.address": "1.2.3.4"}, {"serviceName": "d"}),
        (
            {"server.socket.address": "1.2.3.4", "server.socket.port": 5},
            {"ipv4": "1.2.3.4", "port": 5},
        ),
        ({"net.sock.peer.name": "n", "net.sock.peer.addr": "1.2.3.4"}, {"serviceName": "n"}),
        (
            {"net.sock.peer.addr": "1.2.3.4", "net.sock.peer.port": 5},
            {"ipv4": "1.2.3.4", "port": 5},
        ),
        ({"peer.hostname": "h", "peer.address": "a"}, {"serviceName": "h"}),
        ({"peer.address": "a", "db.name": "orders"}, {"serviceName": "a"}),
        ({"db.name": "orders"}, {"serviceName": "orders"}),
        ({"peer.service": ""}, None),
        ({}, None),
    ],
)
def test_the_remote_endpoint_by_rank(attributes: dict[str, Any], endpoint: object) -> None:
    span = made(1, kind=SpanKind.CLIENT, attributes=attributes)
    assert zipkin(span).get("remoteEndpoint") == endpoint


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.INTERNAL])
def test_only_who_calls_has_a_remote_endpoint(kind: SpanKind) -> None:
    assert "remoteEndpoint" not in zipkin(made(1, kind=kind, attributes={"peer.service": "x"}))


def test_dropped_counts_are_tags() -> None:
    found = tags(dropped_attributes=1, dropped_events=2, dropped_links=3)
    assert found["otel.dropped_attributes_count"] == "1"
    assert found["otel.dropped_events_count"] == "2"
    assert found["otel.dropped_links_count"] == "3"
    assert not [name for name in tags() if "dropped" in name]


def test_links_and_tracestate_are_written_as_the_collector_writes_them() -> None:
    state = TraceState([("a", "1")])
    linked = SpanContext(0xABC, 0xDEF, True, trace_state=state)
    span = made(
        1, context=SpanContext(1, 2, False, trace_state=state), links=[Link(linked, {"k": 1})]
    )
    found = zipkin(span)["tags"]
    assert found["w3c.tracestate"] == "a=1"
    assert found["otlp.link.0"] == f'{0xABC:032x}|{0xDEF:016x}|a=1|{{"k":1}}|0'


def test_long_values_are_cut_when_asked_for() -> None:
    span = made(1, attributes={"text": "x" * 100})
    assert zipkin(span, max_tag_value_length=10)["tags"]["text"] == "x" * 10


# Any span at all ---------------------------------------------------------------------------


@given(span=any_span)
def test_every_span_becomes_valid_json(span: Any) -> None:
    found = zipkin(span)
    assert found["id"] == f"{span.context.span_id:016x}"
    assert all(isinstance(value, str) for value in found["tags"].values())


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_arrives_with_what_is_good(name: str) -> None:
    assert zipkin(HOSTILE_SPANS[name])["tags"]["good"] == "1"


def test_unreadable_spans_are_left_out() -> None:
    skipped: list[Any] = []
    encode = ZipkinEncoder().encode
    spans = [made(1), *UNREADABLE_SPANS.values(), made(2)]
    (payload,) = encode(spans, 10**9, lambda span, error: skipped.append(span))
    assert [span["id"][-1] for span in json.loads(payload.body)] == ["1", "2"]
    assert len(skipped) == len(UNREADABLE_SPANS)


def test_arrays_are_split_by_size() -> None:
    spans = [made(n) for n in range(1, 51)]
    payloads = list(ZipkinEncoder().encode(spans, 2000, ignore))
    assert max(len(payload.body) for payload in payloads) <= 2000
    assert [s["id"] for p in payloads for s in json.loads(p.body)] == [
        f"{n:016x}" for n in range(1, 51)
    ]
    assert [span for payload in payloads for span in payload.spans] == spans


# The wire ----------------------------------------------------------------------------------


def test_a_trace_arrives() -> None:
    with Destination(Reply(202)) as destination:
        exporter = ZipkinExporter(f"{destination.url}/api/v2/spans", retry_policy=SOON)
        assert exporter.export(checkout()) is SUCCESS
        exporter.shutdown()
    (received,) = destination.received
    assert (received.method, received.path) == ("POST", "/api/v2/spans")
    assert received.headers["content-type"] == "application/json"
    assert len(json.loads(received.body)) == len(checkout())


def test_a_failing_server_is_tried_again_and_a_probe_is_empty() -> None:
    with Destination(Reply(202), Reply(503), Reply(202)) as destination:
        exporter = ZipkinExporter(destination.url, retry_policy=SOON)
        assert exporter.probe() is None
        assert exporter.export([made(1)]) is SUCCESS
        exporter.shutdown()
    probe, first, second = (json.loads(received.body) for received in destination.received)
    assert (probe, first) == ([], second)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ZipkinExporter().destination == "http://localhost:9411/api/v2/spans"
    with Destination(Reply(503)) as destination:
        monkeypatch.setenv("OTEL_EXPORTER_ZIPKIN_ENDPOINT", f"{destination.url}/z")
        monkeypatch.setenv("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "100")
        exporter = ZipkinExporter(retry_policy=SOON)
        assert exporter.destination == f"{destination.url}/z"
        assert exporter.export([made(1)]) is FAILURE
        exporter.shutdown()


def test_where_this_process_is_may_be_said() -> None:
    with Destination(Reply(202)) as destination:
        exporter = ZipkinExporter(destination.url, "10.1.2.3", "::1", 8000, retry_policy=SOON)
        exporter.export([made(1)])
        exporter.shutdown()
    (span,) = json.loads(destination.received[0].body)
    assert span["localEndpoint"] == {
        "serviceName": "shop",
        "ipv4": "10.1.2.3",
        "ipv6": "::1",
        "port": 8000,
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"endpoint": "localhost:9411"}, "endpoint"),
        ({"timeout": -1}, "timeout"),
        ({"local_node_ipv4": "::1"}, "local_node_ipv4"),
        ({"local_node_ipv6": "here"}, "local_node_ipv6"),
        ({"local_node_port": 70_000}, "local_node_port"),
        ({"max_request_bytes": 0}, "max_request_bytes"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ZipkinExporter(**arguments)
