"""boto3 against moto's server on loopback: the contract of clients of AWS, and their messages."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor as ContribInstrumentor

from instrumentation.aws_contract import AwsContract, attempts, calls
from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import parent_id, run
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
