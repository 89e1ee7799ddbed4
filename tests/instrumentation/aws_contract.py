"""The contract of clients of AWS, against moto's server on loopback, and against nothing at all.

A class of tests says how a client is had, whose methods return what came of a call.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error
from instrumentation.redis_contract import entries
from tracekit.instrumentation._patch import LibraryInstrumentor

_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Serve AWS on loopback; the URL where.

    In a process of its own: what is tested may be a version of botocore that moto cannot use.
    """
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command, pipe = [sys.executable, "-c", _SERVER], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


def calls(spans: Spans) -> list[ReadableSpan]:
    """Return the spans of calls, without those of the requests that they make."""
    return [span for span in spans.watched if "rpc.method" in (span.attributes or {})]


def attempts(spans: Spans) -> list[ReadableSpan]:
    return [span for span in spans.watched if "http.request.method" in (span.attributes or {})]


class AwsContract:
    """What each library's calls of AWS are held to."""

    plugin: ClassVar[type[LibraryInstrumentor]]
    calls_from: ClassVar[str] = __file__
    """The file that makes the calls, and the end of the name of the function that does."""
    calls_in: ClassVar[str] = "is_one_span_above_its_request"

    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(cls) -> Iterator[str]:
        with moto_server() as url:
            yield url

    @pytest.fixture(autouse=True)
    def credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def client(self, service: str, endpoint: str, **config: Any) -> Any:
        """Return a client of a service; `config` is botocore's."""
        raise NotImplementedError

    def before_each_call(self, client: Any, do: Callable[[], Any]) -> None:
        """Have the library do something for each call of a client, whatever comes of it."""
        raise NotImplementedError

    @pytest.fixture
    def queue(self, endpoint: str) -> Iterator[tuple[Any, str]]:
        sqs = self.client("sqs", endpoint)
        url = sqs.create_queue(QueueName="orders")["QueueUrl"]
        yield sqs, url
        sqs.delete_queue(QueueUrl=url)

    def test_a_call_is_one_span_above_its_request(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        instrument(self.plugin)
        s3 = self.client("s3", endpoint)
        place = {"LocationConstraint": "eu-north-1"}
        bucket = f"orders-{uuid.uuid4().hex}"  # a test that is run again finds none of its own
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        (call,), (attempt,) = calls(spans), attempts(spans)
        assert (call.name, call.kind) == ("S3.CreateBucket", SpanKind.CLIENT)
        assert (attempt.name, attempt.kind) == ("PUT", SpanKind.CLIENT)
        assert parent_id(attempt) == call.context.span_id
        told = dict(call.attributes or {})
        assert told.pop("code.file.path") == self.calls_from
        assert str(told.pop("code.function.name")).endswith(self.calls_in)
        assert isinstance(told.pop("code.line.number"), int)
        assert isinstance(told.pop("aws.request_id"), str)
        assert told == {
            "rpc.system.name": "aws-api",
            "rpc.method": "S3/CreateBucket",
            "cloud.region": "eu-north-1",
            "aws.s3.bucket": bucket,
            "server.address": "127.0.0.1",
            "server.port": int(endpoint.rpartition(":")[2]),
            "http.response.status_code": 200,
        }
        assert call.status.status_code is StatusCode.UNSET

    def test_an_error_of_the_service_is_told_by_its_code(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(ClientError):
            self.client("s3", endpoint).get_object(Bucket="no-such-bucket", Key="k")
        (call,), (attempt,) = calls(spans), attempts(spans)
        assert call.status.status_code is StatusCode.ERROR
        assert (call.attributes or {})["error.type"] == "NoSuchBucket"
        assert (call.attributes or {})["http.response.status_code"] == 404
        assert [event.name for event in call.events] == ["exception"]
        assert (attempt.attributes or {})["error.type"] == "404"

    def test_each_attempt_is_a_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with pytest.raises(EndpointConnectionError):
            self.client(
                "s3", "http://127.0.0.1:1", retries={"total_max_attempts": 2}
            ).list_buckets()
        (call,) = calls(spans)
        assert (call.attributes or {})["error.type"].endswith("EndpointConnectionError")
        resends = [
            (span.attributes or {}).get("http.request.resend_count") for span in attempts(spans)
        ]
        assert resends == [None, 1]
        assert {parent_id(span) for span in attempts(spans)} == {call.context.span_id}

    def test_attempts_that_a_server_refused_are_counted(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        url, retries = f"{server.url}/status/503", {"total_max_attempts": 2, "mode": "standard"}
        with pytest.raises(ClientError):
            self.client("dynamodb", url, retries=retries).list_tables()
        (call,) = calls(spans)
        assert (call.attributes or {})["http.request.resend_count"] == 1
        assert len(attempts(spans)) == 2
        sent = {request.headers["traceparent"].split("-")[2] for request in server.received}
        assert sent == {f"{span.context.span_id:016x}" for span in attempts(spans)}

    def test_a_timeout_is_an_error_and_says_the_limit(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(ReadTimeoutError):
            self.client(
                "sqs", f"{server.url}/slow", read_timeout=0.1, connect_timeout=3
            ).list_queues()
        (call,), (attempt,) = calls(spans), attempts(spans)
        assert (call.attributes or {})["error.type"] == "botocore.exceptions.ReadTimeoutError"
        assert (attempt.attributes or {})["tracekit.timeout.read_s"] == 0.1
        assert (attempt.attributes or {})["tracekit.timeout.connect_s"] == 3

    def test_a_message_carries_the_context_of_its_sender(
        self, instrument: Instrument, spans: Spans, queue: tuple[Any, str]
    ) -> None:
        sqs, url = queue
        instrument(self.plugin)
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
        self, instrument: Instrument, spans: Spans, queue: tuple[Any, str]
    ) -> None:
        sqs, url = queue
        instrument(self.plugin)
        entries = [{"Id": str(number), "MessageBody": "x"} for number in range(2)]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)
        assert all("MessageAttributes" not in entry for entry in entries)
        response = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        assert all(
            "traceparent" in message["MessageAttributes"] for message in response["Messages"]
        )
        assert (calls(spans)[0].attributes or {})["messaging.batch.message_count"] == 2

    def test_a_topic_passes_the_context_on(
        self, instrument: Instrument, spans: Spans, endpoint: str, queue: tuple[Any, str]
    ) -> None:
        sqs, url = queue
        sns = self.client("sns", endpoint)
        topic = sns.create_topic(Name="news")["TopicArn"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=attributes["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": "true"},
        )
        instrument(self.plugin)
        sns.publish(TopicArn=topic, Message="x")
        sqs.receive_message(QueueUrl=url)
        published, received = calls(spans)
        assert [link.context.span_id for link in received.links] == [published.context.span_id]
        assert (published.attributes or {})["messaging.destination.name"] == "news"
        assert (published.attributes or {})["aws.sns.topic.arn"] == topic

    def test_nothing_is_injected_on_request(
        self,
        instrument: Instrument,
        spans: Spans,
        queue: tuple[Any, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sqs, url = queue
        monkeypatch.setenv("TRACEKIT_BOTOCORE_INJECT", "false")
        instrument(self.plugin)
        sqs.send_message(QueueUrl=url, MessageBody="x")
        (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
        assert "MessageAttributes" not in message

    def test_below_an_unsampled_parent_nothing_is_recorded(
        self, instrument: Instrument, endpoint: str
    ) -> None:
        spans = Spans(ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("off"):
            self.client("s3", endpoint).list_buckets()
        assert spans.ended == []

    def test_a_suppressed_call_has_no_span_and_no_headers(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
        try:
            with contextlib.suppress(Exception):
                self.client("sqs", server.url).list_queues()
        finally:
            otel_context.detach(token)
        assert spans.ended == []
        assert "traceparent" not in server.received[0].headers

    def test_a_provider_that_raises_does_not_break_the_call(
        self, instrument: Instrument, endpoint: str
    ) -> None:
        instrument(self.plugin, tracer_provider=BrokenProvider())
        assert "Buckets" in self.client("s3", endpoint).list_buckets()

    def test_a_call_made_for_another_is_part_of_it(
        self, instrument: Instrument, spans: Spans, endpoint: str, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        s3, other = self.client("s3", endpoint), self.client("dynamodb", f"{server.url}/status/403")
        self.before_each_call(s3, other.list_tables)
        s3.list_buckets()
        (call,) = calls(spans)
        assert call.name == "S3.ListBuckets"
        told = [(span.attributes or {})["http.response.status_code"] for span in attempts(spans)]
        assert told == [403, 200]
        assert {parent_id(span) for span in attempts(spans)} == {call.context.span_id}

    @pytest.mark.parametrize("broken", ["set_attributes", "end", "is_recording", "add_link"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        queue: tuple[Any, str],
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        sqs, url = queue
        instrument(self.plugin)
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        before = otel_context.get_current()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        assert sqs.receive_message(QueueUrl=url)["Messages"]
        assert otel_context.get_current() is before

    def test_a_client_made_before_is_watched(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        s3 = self.client("s3", endpoint)
        instrument(self.plugin)
        s3.list_buckets()
        assert len(calls(spans)) == 1

    def test_uninstrumented_library_is_as_it_was_byte_for_byte(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        before = entries(self.plugin)
        instrumentor = instrument(self.plugin)
        assert any(entries(self.plugin)[place] is not before[place] for place in before)
        instrumentor.uninstrument()
        after = entries(self.plugin)
        assert after.keys() == before.keys()
        assert all(after[place] is before[place] for place in before)
        self.client("s3", endpoint).list_buckets()
        assert spans.ended == []
