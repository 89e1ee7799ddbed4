"""AWS Lambda: a real runtime interface client in front of a Runtime API of ours, and its events."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error
from instrumentation.test_celery_workers import Seen, read
from tracekit.errors import InvalidValueError
from tracekit.instrumentation.aws_lambda import AwsLambdaInstrumentor, _Invocations, traced_handler

PROGRAMS = Path(__file__).parent / "programs"
ARN = "arn:aws:lambda:eu-north-1:123456789012:function:resize"
TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SENDER}-01"


class RuntimeApi(ThreadingHTTPServer):
    """Hands out invocations one after the other, and takes what comes of them.

    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApi)
        self.waiting: queue.Queue[tuple[Any, Mapping[str, str]]] = queue.Queue()
        self.outcomes: queue.Queue[tuple[str, Any]] = queue.Queue()

    def invoke(self, event: Any, **headers: str) -> tuple[str, Any]:
        """Return ``response`` or ``error``, and the body that the function answered with."""
        self.waiting.put((event, headers))
        return self.outcomes.get(timeout=20)


class _RuntimeApi(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeApi

    def do_GET(self) -> None:
        event, headers = self.server.waiting.get()
        body = json.dumps(event).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "request-1")
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", f"{ARN}:live")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 10_000))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            body = self.rfile.read(size)
            self.rfile.readline()
            self.rfile.readline()
            self.rfile.readline()
        kind = self.path.rpartition("/")[2]
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.outcomes.put((kind, json.loads(body or b"null")))

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@contextlib.contextmanager
def function(folder: Path) -> Iterator[RuntimeApi]:
    """Run the function in an environment like AWS's; it is killed at the end, as AWS does."""
    api = RuntimeApi()
    threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    environ = os.environ | {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "resize",
        "LAMBDA_TASK_ROOT": str(PROGRAMS),
        "TRACEKIT_OTLP_FILE": str(folder / "spans.jsonl"),
        "PYTHONPATH": os.pathsep.join([str(PROGRAMS), *filter(None, sys.path)]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "lambda_function.handler"],
        env=environ,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield api
    finally:
        process.kill()
        process.wait(10)
        api.shutdown()
        api.server_close()


def test_spans_are_exported_before_the_answer_is_sent(tmp_path: Path) -> None:
    pytest.importorskip("awslambdaric")
    http = {
        "requestContext": {"http": {"method": "GET", "sourceIp": "10.0.0.9"}},
        "routeKey": "GET /orders/{id}",
        "rawPath": "/orders/7",
        "headers": {"traceparent": TRACEPARENT, "host": "api.example"},
        "answer": {"statusCode": 503},
    }
    with function(tmp_path) as api:
        assert api.invoke({"answer": 1}) == ("response", 1)
        assert [span.name for span in seen(tmp_path)] == ["inside", "resize"]
        kind, error = api.invoke({"fail": True})
        assert (kind, error["errorMessage"]) == ("error", "not today")
        assert api.invoke(http) == ("response", {"statusCode": 503})
        first, second, third = (span for span in seen(tmp_path) if span.name != "inside")
    assert {
        name: first.attributes[name]
        for name in ("faas.coldstart", "faas.trigger", "faas.invocation_id", "cloud.resource_id")
    } == {
        "faas.coldstart": True,
        "faas.trigger": "other",
        "faas.invocation_id": "request-1",
        "cloud.resource_id": ARN,
    }
    assert first.attributes["cloud.account.id"] == "123456789012"
    assert second.attributes["faas.coldstart"] is False
    assert (second.error, second.attributes["error.type"]) == ("not today", "ArithmeticError")
    assert (third.name, third.trace, third.parent) == ("GET /orders/{id}", TRACE, SENDER)
    assert third.attributes["error.type"] == "503"


def seen(folder: Path) -> list[Seen]:
    return list(read(folder / "spans.jsonl"))


# Kinds of events


class Context(SimpleNamespace):
    """What AWS passes beside the event."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(
            function_name="resize",
            aws_request_id="request-1",
            invoked_function_arn=ARN,
            client_context=None,
            **changes,
        )

    def get_remaining_time_in_millis(self) -> int:
        return 3000


def sqs(*headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-north-1:1:orders",
                "messageId": f"m{number}",
                "messageAttributes": {
                    name: {"stringValue": value, "dataType": "String"}
                    for name, value in sent.items()
                },
            }
            for number, sent in enumerate(headers)
        ]
    }


SNS = {
    "Records": [
        {
            "EventSource": "aws:sns",
            "Sns": {
                "TopicArn": "arn:aws:sns:eu-north-1:1:news",
                "MessageId": "m",
                "MessageAttributes": {"traceparent": {"Type": "String", "Value": TRACEPARENT}},
            },
        }
    ]
}
GATEWAY_1 = {
    "httpMethod": "POST",
    "resource": "/orders/{id}",
    "path": "/orders/7",
    "queryStringParameters": {"token": "secret", "page": "2"},
    "headers": {"Host": "api.example", "User-Agent": "test", "Traceparent": TRACEPARENT},
    "requestContext": {"identity": {"sourceIp": "10.0.0.9"}},
}
LOAD_BALANCER = {
    "httpMethod": "GET",
    "path": "/",
    "multiValueHeaders": {"traceparent": [TRACEPARENT], "host": ["lb.example"]},
    "requestContext": {"elb": {"targetGroupArn": "arn"}},
}
S3 = {
    "Records": [
        {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "photos"}, "object": {"key": "cat.png"}},
        }
    ]
}
BUS = {
    "detail-type": "Order placed",
    "source": "shop",
    "detail": {"_tracecontext": {"traceparent": TRACEPARENT}},
}


@pytest.mark.usefixtures("any_textmap")
@pytest.mark.parametrize(
    ("event", "name", "kind", "told"),
    [
        (
            GATEWAY_1,
            "POST /orders/{id}",
            SpanKind.SERVER,
            {
                "faas.trigger": "http",
                "http.request.method": "POST",
                "http.route": "/orders/{id}",
                "url.scheme": "https",
                "url.path": "/orders/7",
                "url.query": "token=REDACTED&page=2",
                "server.address": "api.example",
                "client.address": "10.0.0.9",
                "user_agent.original": "test",
            },
        ),
        (
            LOAD_BALANCER,
            "GET",
            SpanKind.SERVER,
            {
                "faas.trigger": "http",
                "http.request.method": "GET",
                "url.scheme": "https",
                "url.path": "/",
                "server.address": "lb.example",
            },
        ),
        (
            sqs({"traceparent": TRACEPARENT}),
            "process orders",
            SpanKind.CONSUMER,
            {
                "faas.trigger": "pubsub",
                "messaging.system": "aws_sqs",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": "orders",
                "messaging.message.id": "m0",
            },
        ),
        (
            SNS,
            "process news",
            SpanKind.CONSUMER,
            {
                "faas.trigger": "pubsub",
                "messaging.system": "aws.sns",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": "news",
                "messaging.message.id": "m",
            },
        ),
        (
            BUS,
            "process Order placed",
            SpanKind.CONSUMER,
            {
                "faas.trigger": "pubsub",
                "messaging.system": "aws.eventbridge",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": "Order placed",
            },
        ),
    ],
)
def test_an_event_names_its_span_and_its_parent(
    spans: Spans, event: Any, name: str, kind: SpanKind, told: dict[str, Any]
) -> None:
    watched(spans)(event, Context())
    span = spans.one()
    assert (span.name, span.kind) == (name, kind)
    assert f"{parent_id(span):016x}" == SENDER
    ours = ("faas.coldstart", "faas.invocation_id", "cloud.resource_id", "cloud.account.id")
    assert {k: v for k, v in (span.attributes or {}).items() if k not in ours} == told


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": TRACEPARENT, "host": "shop.example"},
        {"Traceparent": TRACEPARENT, "Host": "shop.example"},
        {"traceparent": TRACEPARENT, "host": "shop.example", "x-count": 7},
        {"traceparent": TRACEPARENT, "host": "shop.example", "baggage": "user=7"},
        {"traceparent": TRACEPARENT, "host": "shop.example", "tracestate": "a=b"},
    ],
)
@pytest.mark.usefixtures("any_textmap")
def test_headers_are_read_however_they_come(spans: Spans, headers: dict[str, Any]) -> None:
    event, before = {**GATEWAY_1, "headers": headers}, dict(headers)
    seen: list[object] = []
    watched(spans, lambda _event, _context: seen.append(baggage.get_baggage("user")))(
        event, Context()
    )
    span = spans.one()
    assert f"{parent_id(span):016x}" == SENDER
    assert (span.attributes or {})["server.address"] == "shop.example"
    assert seen == ["7" if "baggage" in headers else None]
    assert dict(span.context.trace_state) == ({"a": "b"} if "tracestate" in headers else {})
    assert (event["headers"], headers) == (before, before)


@pytest.mark.parametrize(
    ("event", "name", "trigger"),
    [
        (S3, "ObjectCreated:Put photos", "datasource"),
        ({"detail-type": "Scheduled Event", "detail": {}}, "Scheduled Event", "timer"),
        ({"some": "thing"}, "resize", "other"),
        ([1, 2], "resize", "other"),
        ("text", "resize", "other"),
        (None, "resize", "other"),
    ],
)
def test_other_events_are_roots(spans: Spans, event: Any, name: str, trigger: str) -> None:
    watched(spans)(event, Context())
    assert (spans.one().name, spans.one().parent) == (name, None)
    assert (spans.one().attributes or {})["faas.trigger"] == trigger


def test_a_batch_is_linked_to_each_sender(spans: Spans) -> None:
    other = TRACEPARENT.replace(SENDER, "00f067aa0ba902b7")
    watched(spans)(sqs({"traceparent": TRACEPARENT}, {"traceparent": other}, {}), Context())
    span = spans.one()
    assert span.parent is None
    linked = [f"{link.context.span_id:016x}" for link in span.links]
    assert linked == [SENDER, "00f067aa0ba902b7"]
    assert (span.attributes or {})["messaging.batch.message_count"] == 3


def test_a_function_that_was_invoked_is_below_its_caller(spans: Spans) -> None:
    custom = SimpleNamespace(custom={"traceparent": TRACEPARENT})
    context = Context()
    context.client_context = custom
    watched(spans)({}, context)
    assert f"{parent_id(spans.one()):016x}" == SENDER


@pytest.mark.parametrize(
    "event",
    [
        {"requestContext": {"http": 7}, "httpMethod": ["GET"], "headers": 5},
        {"requestContext": {}, "httpMethod": "GET", "headers": {1: 2}, "path": b"\xff"},
        {"requestContext": {}, "httpMethod": "GET", "headers": {"user-agent": "x" * 2**20}},
        {"Records": [{"eventSource": "aws:sqs", "messageAttributes": 5}, 7]},
        {"Records": [{"EventSource": "aws:sns", "Sns": "text"}]},
        {"Records": [{"eventSource": ["aws:s3"], "s3": 1}]},
        {"Records": [{"eventSource": "aws:s3", "s3": {"bucket": "b", "object": None}}]},
        {"Records": [{"eventSource": "aws:kinesis", "eventSourceARN": "x" * 2**20}]},
        {"detail-type": "x" * 2**20, "detail": "{}"},
    ],
)
def test_hostile_events_are_bounded_and_harmless(spans: Spans, event: Any) -> None:
    assert watched(spans, lambda event, context: 7)(event, Context()) == 7
    assert len(spans.one().name) < 1100
    assert all(len(str(told)) < 1100 for told in (spans.one().attributes or {}).values())


# Flushing


class Slow(TracerProvider):
    """Notes how long a flush may take."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.flushes: list[int] = []

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        self.flushes.append(timeout_millis)
        return True


@pytest.mark.parametrize(("left", "flushes"), [(60_000, [5000]), (1000, [900]), (50, [])])
def test_a_flush_takes_no_longer_than_there_is_time(left: int, flushes: list[int]) -> None:
    provider = Slow()
    context = Context()
    context.get_remaining_time_in_millis = lambda: left
    tracer = provider.get_tracer("tests")
    _Invocations(tracer, provider, 5000).watched(lambda event, context: None)({}, context)
    assert provider.flushes == flushes


def test_a_failed_invocation_is_flushed_too() -> None:
    provider = Slow()
    handler = _Invocations(provider.get_tracer("tests"), provider, 5000).watched(raise_error)
    with pytest.raises(ArithmeticError):
        handler({}, Context())
    assert len(provider.flushes) == 1


def test_a_flush_timeout_that_is_no_number_is_an_error(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_AWS_LAMBDA_FLUSH_TIMEOUT", "soon")
    with pytest.raises(InvalidValueError, match="milliseconds"):
        instrument(AwsLambdaInstrumentor)


def test_a_provider_that_raises_does_not_break_the_function() -> None:
    provider = BrokenProvider()
    handler = _Invocations(provider.get_tracer("tests"), provider, 5000).watched(lambda e, c: 7)
    assert handler({}, Context()) == 7
    assert handler({}, object()) == 7


def test_a_decorated_handler_keeps_its_name_and_is_watched_once(
    instrument: Instrument, spans: Spans
) -> None:
    def handler(event: Any, context: Any) -> int:
        return 7

    decorated = traced_handler(handler)
    assert (decorated.__name__, decorated({}, Context())) == ("handler", 7)
    bootstrap = pytest.importorskip("awslambdaric.bootstrap")
    instrumentor = instrument(AwsLambdaInstrumentor)
    given: list[Any] = []
    original = bootstrap.handle_event_request.__wrapped__
    assert instrumentor.status.active
    replaced = instrumentor._handle_event_request(lambda runtime, h: given.append(h), [1])
    replaced(None, decorated)
    assert given == [decorated]
    instrumentor.uninstrument()
    assert bootstrap.handle_event_request is original


def test_an_error_of_the_response_is_the_spans(spans: Spans) -> None:
    answers = iter([{"statusCode": 404}, {"statusCode": "502"}, {"statusCode": None}, "text"])
    handler = watched(spans, lambda event, context: next(answers))
    for _ in range(4):
        handler(GATEWAY_1, Context())
    codes = [(span.attributes or {}).get("http.response.status_code") for span in spans.watched]
    assert codes == [404, 502, None, None]
    errors = [span.status.status_code is StatusCode.ERROR for span in spans.watched]
    assert errors == [False, True, False, False]


def watched(spans: Spans, handler: Any = lambda event, context: None) -> Any:
    tracer = spans.provider.get_tracer("tracekit.instrumentation.aws_lambda")
    return _Invocations(tracer, spans.provider, 5000).watched(handler)
