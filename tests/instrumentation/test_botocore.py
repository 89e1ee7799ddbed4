"""boto3 against moto's server on loopback: the contract of clients of AWS, and their messages."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.httpsession import URLLib3Session
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor as ContribInstrumentor
from urllib3.connection import HTTPConnection

from instrumentation.aws_contract import AwsContract, attempts, calls
from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import parent_id, run
from tracekit.instrumentation._aws_requests import PlainHeaders
from tracekit.instrumentation._aws_services import carrier_of, told_of
from tracekit.instrumentation.botocore import BotocoreInstrumentor

KEYS = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "eu-north-1"}


class TestBotocore(AwsContract):
    plugin = BotocoreInstrumentor

    def client(self, service: str, endpoint: str, **config: Any) -> Any:
        config.setdefault("retries", {"total_max_attempts": 1})
        return boto3.session.Session().client(
            service, region_name="eu-north-1", endpoint_url=endpoint, config=Config(**config)
        )

    def before_each_call(self, client: Any, do: Callable[[], Any]) -> None:
        def ask(**_event: Any) -> None:
            with contextlib.suppress(ClientError):
                do()

        client.meta.events.register("before-call", ask)

    def test_calls_at_the_same_time_have_the_right_parents(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        instrument(self.plugin)
        s3 = self.client("s3", endpoint)

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

    def test_library_that_contrib_watches_is_left_to_it(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        contrib = ContribInstrumentor()
        contrib.instrument(tracer_provider=spans.provider)
        try:
            instrumentor = instrument(self.plugin)
            self.client("s3", endpoint).list_buckets()
        finally:
            contrib.uninstrument()
        reason = "already instrumented by opentelemetry-instrumentation-botocore"
        assert instrumentor.status.reason == reason
        assert len(spans.watched) == 1

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_order_of_import_and_instrumentation_does_not_matter(
        self, endpoint: str, order: str
    ) -> None:
        steps = ["plugin().instrument(tracer_provider=spans.provider)", "import boto3"]
        program = [
            "from instrumentation.conftest import Spans",
            "from tracekit.instrumentation.botocore import plugin",
            "spans = Spans()",
            *(steps if order == "before" else reversed(steps)),
            f"keys = {KEYS!r}",
            f"boto3.client('s3', endpoint_url={endpoint!r}, **keys).list_buckets()",
            "print(*(span.name for span in spans.watched))",
        ]
        assert run("\n".join(program)) == "S3.ListBuckets GET"

    def test_a_body_that_the_program_reads_is_no_part_of_its_attempt(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        body = self.client("s3", server.url).get_object(Bucket="chunks", Key="3")["Body"]
        (attempt,) = attempts(spans)
        server.release.set()
        assert body.read() == b"data" * 3
        assert attempts(spans) == [attempt]

    def test_an_attempt_names_the_other_end_of_its_connection(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        for url in (server.url, server.other_host):
            with contextlib.suppress(Exception):
                self.client("sqs", url).list_queues()
        ends = [
            (
                (span.attributes or {})["server.address"],
                (span.attributes or {})["network.peer.port"],
            )
            for span in attempts(spans)
        ]
        assert ends == [("127.0.0.1", server.server_port), ("localhost", server.server_port)]

    def test_what_others_put_on_the_connections_of_urllib3_later_is_called(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        instrument(self.plugin)
        inner: Any = HTTPConnection.getresponse
        called: list[Any] = []

        def getresponse(connection: Any) -> Any:
            called.append(connection)
            return inner(connection)

        monkeypatch.setattr(HTTPConnection, "getresponse", getresponse)
        with contextlib.suppress(Exception):
            self.client("sqs", server.url).list_queues()
        assert (len(called), len(attempts(spans))) == (1, 1)


# What is in the head of a request


@pytest.fixture
def heads() -> Iterator[Heads]:
    """Answer every request alike, and keep the head of each as it was sent."""
    server = Heads(("127.0.0.1", 0), _KeepHead)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Heads(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sent: list[list[str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _KeepHead(socketserver.StreamRequestHandler):
    server: Heads

    def handle(self) -> None:
        while line := self.rfile.readline():
            lines = [line]
            while (line := self.rfile.readline()).strip():
                lines.append(line)
            self.server.sent.append([line.decode("latin-1").strip() for line in lines])
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def ask(url: str, **headers: str) -> None:
    """Ask for a bucket, in a request to which the program adds headers."""
    s3 = botocore.session.get_session().create_client("s3", endpoint_url=url, **KEYS)

    def add(request: Any, **_event: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    s3.meta.events.register("before-send", add)
    s3.head_bucket(Bucket="orders")


def without_what_differs(lines: list[str]) -> list[str]:
    """Return a head without what is another in each request."""
    differs = ("traceparent:", "x-amz-date:", "authorization:", "amz-sdk-invocation-id:")
    return [line for line in lines if not line.lower().startswith(differs)]


@pytest.mark.parametrize(
    "added",
    [{}, {"X-Tenant": "acme"}, {"expect": "now"}, {"EXPECT": "now"}],
    ids=["none", "of its own", "that are spelled otherwise", "that are written in capitals"],
)
def test_the_head_of_a_request_is_what_it_is_untraced(
    instrument: Instrument, spans: Spans, heads: Heads, added: dict[str, str]
) -> None:
    ask(heads.url, **added)
    instrument(BotocoreInstrumentor)
    ask(heads.url, **added)
    bare, traced = heads.sent
    assert without_what_differs(traced) == without_what_differs(bare)
    assert len(traced) == len(bare) + 1
    (attempt,) = attempts(spans)
    context = attempt.context
    assert f"traceparent: 00-{context.trace_id:032x}-{context.span_id:016x}-0" in "\n".join(traced)


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_a_trace_header_of_the_programs_own_is_replaced(
    instrument: Instrument, spans: Spans, heads: Heads, name: str
) -> None:
    instrument(BotocoreInstrumentor)
    ask(heads.url, **{name: "00-mine"})
    (head,) = heads.sent
    (sent,) = [line for line in head if line.lower().startswith("traceparent:")]
    assert sent.split("-")[2] == f"{attempts(spans)[0].context.span_id:016x}"


@pytest.mark.parametrize("port", [None, 1], ids=["answered", "not answered"])
def test_a_request_has_its_own_headers_again(
    instrument: Instrument, spans: Spans, heads: Heads, port: int | None
) -> None:
    instrument(BotocoreInstrumentor)
    url = f"http://127.0.0.1:{port}" if port else heads.url
    request = AWSRequest("GET", url, headers={"X-Id": "7"}).prepare()
    before = request.headers
    with contextlib.suppress(EndpointConnectionError):
        URLLib3Session().send(request)
    assert request.headers is before
    assert dict(before) == {"X-Id": "7"}
    assert len(attempts(spans)) == 1


def test_headers_are_handed_on_as_they_are_where_somebody_else_sends() -> None:
    def send(_session: Any, _request: Any) -> None:
        """Be somebody else's."""

    headers = HeadersDict({"X-Id": "7"})
    assert PlainHeaders(URLLib3Session.send).of(headers) == {"X-Id": "7"}
    assert PlainHeaders(send).of(headers) is headers


def test_headers_of_somebody_elses_class_are_handed_on_as_they_are() -> None:
    headers = {"X-Id": "7"}
    assert PlainHeaders(URLLib3Session.send).of(headers) is headers


def test_names_of_headers_are_kept_up_to_a_bound() -> None:
    plain = PlainHeaders(URLLib3Session.send)
    for number in range(2000):
        assert type(plain.of(HeadersDict({f"x-amz-meta-{number}": "1"}))) is dict
    assert len(plain._usual) < 1000


# What is in messages


HEADERS = {"traceparent": "00-x"}


def carrying(service: str, operation: str, params: Any, headers: Any) -> Any:
    carry = carrier_of(service, operation)
    assert carry is not None
    return carry(params, headers)


def told_by(service: str, operation: str, params: Any) -> dict[str, Any]:
    told, tell = told_of(service, operation)
    attributes = dict(told)
    assert tell is not None
    tell(params, attributes)
    return attributes


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
    ],
)
def test_what_has_no_room_is_left_alone(service: str, operation: str, params: Any) -> None:
    assert carrying(service, operation, params, HEADERS) is params


def test_what_carries_nothing_is_not_asked_to() -> None:
    assert carrier_of("S3", "PutObject") is None


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
