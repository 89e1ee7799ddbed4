"""boto3 against moto's server on loopback, and against nothing at all."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from moto.server import ThreadedMotoServer
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor as ContribInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error, run
from instrumentation.redis_contract import entries
from tracekit.instrumentation._aws_services import carrying, told_by
from tracekit.instrumentation.botocore import BotocoreInstrumentor


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def client(service: str, endpoint: str, **config: Any) -> Any:
    config.setdefault("retries", {"total_max_attempts": 1})
    return boto3.session.Session().client(
        service, region_name="eu-north-1", endpoint_url=endpoint, config=Config(**config)
    )


def calls(spans: Spans) -> list[ReadableSpan]:
    """Return the spans of calls, without those of the requests that they make."""
    return [span for span in spans.watched if "rpc.method" in (span.attributes or {})]


def attempts(spans: Spans) -> list[ReadableSpan]:
    return [span for span in spans.watched if "http.request.method" in (span.attributes or {})]


def test_a_call_is_one_span_above_its_request(
    instrument: Instrument, spans: Spans, endpoint: str
) -> None:
    instrument(BotocoreInstrumentor)
    client("s3", endpoint).create_bucket(
        Bucket="orders", CreateBucketConfiguration={"LocationConstraint": "eu-north-1"}
    )
    (call,), (attempt,) = calls(spans), attempts(spans)
    assert (call.name, call.kind) == ("S3.CreateBucket", SpanKind.CLIENT)
    assert (attempt.name, attempt.kind) == ("PUT", SpanKind.CLIENT)
    assert parent_id(attempt) == call.context.span_id
    told = dict(call.attributes or {})
    assert told.pop("code.file.path") == __file__
    assert str(told.pop("code.function.name")).endswith("is_one_span_above_its_request")
    assert isinstance(told.pop("code.line.number"), int)
    assert isinstance(told.pop("aws.request_id"), str)
    assert told == {
        "rpc.system.name": "aws-api",
        "rpc.method": "S3/CreateBucket",
        "cloud.region": "eu-north-1",
        "aws.s3.bucket": "orders",
        "server.address": "127.0.0.1",
        "server.port": int(endpoint.rpartition(":")[2]),
        "http.response.status_code": 200,
    }
    assert call.status.status_code is StatusCode.UNSET


def test_an_error_of_the_service_is_told_by_its_code(
    instrument: Instrument, spans: Spans, endpoint: str
) -> None:
    instrument(BotocoreInstrumentor)
    with pytest.raises(ClientError):
        client("s3", endpoint).get_object(Bucket="no-such-bucket", Key="k")
    (call,), (attempt,) = calls(spans), attempts(spans)
    assert call.status.status_code is StatusCode.ERROR
    assert (call.attributes or {})["error.type"] == "NoSuchBucket"
    assert (call.attributes or {})["http.response.status_code"] == 404
    assert [event.name for event in call.events] == ["exception"]
    assert (attempt.attributes or {})["error.type"] == "404"


def test_each_attempt_is_a_span(instrument: Instrument, spans: Spans) -> None:
    instrument(BotocoreInstrumentor)
    with pytest.raises(EndpointConnectionError):
        client("s3", "http://127.0.0.1:1", retries={"total_max_attempts": 2}).list_buckets()
    (call,) = calls(spans)
    assert (call.attributes or {})["error.type"].endswith("EndpointConnectionError")
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in attempts(spans)]
    assert resends == [None, 1]
    assert {parent_id(span) for span in attempts(spans)} == {call.context.span_id}


def test_attempts_that_a_server_refused_are_counted(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(BotocoreInstrumentor)
    url, retries = f"{server.url}/status/503", {"total_max_attempts": 2, "mode": "standard"}
    with pytest.raises(ClientError):
        client("dynamodb", url, retries=retries).list_tables()
    (call,) = calls(spans)
    assert (call.attributes or {})["http.request.resend_count"] == 1
    assert len(attempts(spans)) == 2
    sent = {request.headers["traceparent"].split("-")[2] for request in server.received}
    assert sent == {f"{span.context.span_id:016x}" for span in attempts(spans)}


def test_a_timeout_is_an_error_and_says_the_limit(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(BotocoreInstrumentor)
    with pytest.raises(ReadTimeoutError):
        client("sqs", f"{server.url}/slow", read_timeout=0.1, connect_timeout=3).list_queues()
    (call,), (attempt,) = calls(spans), attempts(spans)
    assert (call.attributes or {})["error.type"] == "botocore.exceptions.ReadTimeoutError"
    assert (attempt.attributes or {})["tracekit.timeout.read_s"] == 0.1
    assert (attempt.attributes or {})["tracekit.timeout.connect_s"] == 3


# Messages


@pytest.fixture
def queue(endpoint: str) -> Iterator[tuple[Any, str]]:
    sqs = client("sqs", endpoint)
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    yield sqs, url
    sqs.delete_queue(QueueUrl=url)


def test_a_message_carries_the_context_of_its_sender(
    instrument: Instrument, spans: Spans, queue: tuple[Any, str]
) -> None:
    sqs, url = queue
    instrument(BotocoreInstrumentor)
    own = {"tenant": {"DataType": "String", "StringValue": "acme"}}
    params = {"QueueUrl": url, "MessageBody": "x", "MessageAttributes": own}
    sqs.send_message(**params)
    assert list(own) == ["tenant"]
    (sent,) = calls(spans)
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["tenant"])["Messages"]
    received = calls(spans)[1]
    assert sorted(message["MessageAttributes"]) == ["tenant", "traceparent"]
    assert [link.context.span_id for link in received.links] == [sent.context.span_id]
    told = dict(sent.attributes or {})
    assert told["messaging.system"] == "aws_sqs"
    assert told["messaging.destination.name"] == "orders"
    assert told["messaging.operation.type"] == "send"
    assert told["messaging.message.id"] == message["MessageId"]
    assert told["aws.sqs.queue.url"] == url
    assert (received.attributes or {})["messaging.batch.message_count"] == 1


def test_each_message_of_a_batch_carries_it(
    instrument: Instrument, spans: Spans, queue: tuple[Any, str]
) -> None:
    sqs, url = queue
    instrument(BotocoreInstrumentor)
    entries = [{"Id": str(number), "MessageBody": "x"} for number in range(2)]
    sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert all("MessageAttributes" not in entry for entry in entries)
    response = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    assert all("traceparent" in message["MessageAttributes"] for message in response["Messages"])
    assert (calls(spans)[0].attributes or {})["messaging.batch.message_count"] == 2


def test_a_topic_passes_the_context_on(
    instrument: Instrument, spans: Spans, endpoint: str, queue: tuple[Any, str]
) -> None:
    sqs, url = queue
    sns = client("sns", endpoint)
    topic = sns.create_topic(Name="news")["TopicArn"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=attributes["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    instrument(BotocoreInstrumentor)
    sns.publish(TopicArn=topic, Message="x")
    sqs.receive_message(QueueUrl=url)
    published, received = calls(spans)
    assert [link.context.span_id for link in received.links] == [published.context.span_id]
    assert (published.attributes or {})["messaging.destination.name"] == "news"
    assert (published.attributes or {})["aws.sns.topic.arn"] == topic


def test_nothing_is_injected_on_request(
    instrument: Instrument, spans: Spans, queue: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, url = queue
    monkeypatch.setenv("TRACEKIT_BOTOCORE_INJECT", "false")
    instrument(BotocoreInstrumentor)
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert "MessageAttributes" not in message


HEADERS = {"traceparent": "00-x"}


def test_an_event_carries_it_in_its_detail() -> None:
    entries = [{"Detail": '{"order": 7}'}, {"Detail": "[]"}, {}]
    carried: Any = carrying("EventBridge", "PutEvents", {"Entries": entries}, HEADERS)
    details = [json.loads(entry["Detail"]) for entry in carried["Entries"]]
    assert details == [
        {"order": 7, "_tracecontext": HEADERS},
        [],
        {"_tracecontext": HEADERS},
    ]
    assert entries[0] == {"Detail": '{"order": 7}'}


def test_an_invocation_carries_it_in_its_client_context() -> None:
    before = base64.b64encode(b'{"custom": {"tenant": "acme"}, "env": {}}').decode()
    carried: Any = carrying("Lambda", "Invoke", {"ClientContext": before}, HEADERS)
    context = json.loads(base64.b64decode(carried["ClientContext"]))
    assert context == {"custom": {"tenant": "acme", **HEADERS}, "env": {}}


@pytest.mark.parametrize(
    ("service", "operation", "params"),
    [
        ("Lambda", "Invoke", {"ClientContext": "not base64"}),
        ("Lambda", "Invoke", {"ClientContext": base64.b64encode(b"x" * 4000).decode()}),
        ("SQS", "SendMessage", {"MessageAttributes": {str(n): {} for n in range(10)}}),
        ("SNS", "Publish", {"PhoneNumber": "+4512345678"}),
        ("S3", "PutObject", {"Body": b"x"}),
    ],
)
def test_what_has_no_room_is_left_alone(service: str, operation: str, params: Any) -> None:
    assert carrying(service, operation, params, HEADERS) is params


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("resize", "resize"),
        ("resize:live", "resize"),
        ("arn:aws:lambda:eu-north-1:123456789012:function:resize:7", "resize"),
        ("123456789012:function:resize", "resize"),
    ],
)
def test_an_invoked_function_is_named(name: str, shown: str) -> None:
    assert told_by("Lambda", "Invoke", {"FunctionName": name})["faas.invoked_name"] == shown


def test_a_table_is_named() -> None:
    assert told_by("DynamoDB", "GetItem", {"TableName": "orders", "Key": {"id": 1}}) == {
        "db.system.name": "aws.dynamodb",
        "db.operation.name": "GetItem",
        "db.collection.name": "orders",
        "aws.dynamodb.table_names": ["orders"],
    }


def test_hostile_values_are_bounded() -> None:
    assert len(told_by("S3", "GetObject", {"Key": "k" * 2**20})["aws.s3.key"]) == 1024
    assert told_by("S3", "GetObject", {"Key": b"\xff", "Bucket": 7}) == {}


# Parents, suppression, harm


def test_calls_at_the_same_time_have_the_right_parents(
    instrument: Instrument, spans: Spans, endpoint: str
) -> None:
    instrument(BotocoreInstrumentor)
    s3 = client("s3", endpoint)

    def call(number: int) -> None:
        with (
            contextlib.suppress(ClientError),
            spans.tracer.start_as_current_span(str(number)),
        ):
            s3.get_object(Bucket="none", Key=str(number))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_id = {span.context.span_id: span for span in spans.ended}
    for span in calls(spans):
        assert by_id[parent_id(span) or 0].name == (span.attributes or {})["aws.s3.key"]
    for span in attempts(spans):
        assert str((span.attributes or {})["url.full"]).endswith(
            str((by_id[parent_id(span) or 0].attributes or {})["aws.s3.key"])
        )
    assert (len(calls(spans)), len(attempts(spans))) == (6, 6)


def test_below_an_unsampled_parent_nothing_is_recorded(
    instrument: Instrument, endpoint: str
) -> None:
    spans = Spans(ALWAYS_OFF)
    instrument(BotocoreInstrumentor, tracer_provider=spans.provider)
    with spans.tracer.start_as_current_span("off"):
        client("s3", endpoint).list_buckets()
    assert spans.ended == []


def test_a_suppressed_call_has_no_span_and_no_headers(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(BotocoreInstrumentor)
    token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
    try:
        with contextlib.suppress(Exception):
            client("sqs", server.url).list_queues()
    finally:
        otel_context.detach(token)
    assert spans.ended == []
    assert "traceparent" not in server.received[0].headers


def test_a_provider_that_raises_does_not_break_the_call(
    instrument: Instrument, endpoint: str
) -> None:
    instrument(BotocoreInstrumentor, tracer_provider=BrokenProvider())
    assert "Buckets" in client("s3", endpoint).list_buckets()


@pytest.mark.parametrize("broken", ["set_attributes", "end", "is_recording", "add_link"])
def test_a_span_that_raises_does_not_break_the_call(
    instrument: Instrument,
    spans: Spans,
    queue: tuple[Any, str],
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    sqs, url = queue
    instrument(BotocoreInstrumentor)
    monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
    before = otel_context.get_current()
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert sqs.receive_message(QueueUrl=url)["Messages"]
    assert otel_context.get_current() is before


def test_a_client_made_before_is_watched(
    instrument: Instrument, spans: Spans, endpoint: str
) -> None:
    s3 = client("s3", endpoint)
    instrument(BotocoreInstrumentor)
    s3.list_buckets()
    assert len(calls(spans)) == 1


def test_uninstrumented_library_is_as_it_was_byte_for_byte(
    instrument: Instrument, spans: Spans, endpoint: str
) -> None:
    before = entries(BotocoreInstrumentor)
    instrumentor = instrument(BotocoreInstrumentor)
    assert any(entries(BotocoreInstrumentor)[place] is not before[place] for place in before)
    instrumentor.uninstrument()
    after = entries(BotocoreInstrumentor)
    assert after.keys() == before.keys()
    assert all(after[place] is before[place] for place in before)
    client("s3", endpoint).list_buckets()
    assert spans.ended == []


def test_library_that_contrib_watches_is_left_to_it(
    instrument: Instrument, spans: Spans, endpoint: str
) -> None:
    contrib = ContribInstrumentor()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        instrumentor = instrument(BotocoreInstrumentor)
        client("s3", endpoint).list_buckets()
    finally:
        contrib.uninstrument()
    reason = "already instrumented by opentelemetry-instrumentation-botocore"
    assert instrumentor.status.reason == reason
    assert len(spans.watched) == 1


@pytest.mark.parametrize("order", ["before", "after"])
def test_order_of_import_and_instrumentation_does_not_matter(endpoint: str, order: str) -> None:
    steps = ["plugin().instrument(tracer_provider=spans.provider)", "import boto3"]
    program = [
        "from instrumentation.conftest import Spans",
        "from tracekit.instrumentation.botocore import plugin",
        "spans = Spans()",
        *(steps if order == "before" else reversed(steps)),
        "keys = dict(aws_access_key_id='x', aws_secret_access_key='x', region_name='eu-north-1')",
        f"boto3.client('s3', endpoint_url={endpoint!r}, **keys).list_buckets()",
        "print(*(span.name for span in spans.watched))",
    ]
    assert run("\n".join(program)) == "S3.ListBuckets GET"
