"""What single services of AWS add to a call: attributes, and context in the messages they carry.

A table by service and operation; whatever is not in it has what every call has. Parameters are
the program's own objects: what is added goes into a copy.
https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import Link

from tracekit import semconv
from tracekit.instrumentation._http import truncated
from tracekit.instrumentation._messages import links_to

__all__ = ["RECEIVE", "Carry", "Tell", "carrier_of", "links_from", "told_of"]

Params = Mapping[str, Any]
Tell = Callable[[Params, dict[str, Any]], None]
Carry = Callable[[Params, Mapping[str, str]], Params]

# One lookup less on the path of each call of what is called most.
AWS_S3_BUCKET = semconv.AWS_S3_BUCKET
AWS_S3_KEY = semconv.AWS_S3_KEY

_LONGEST = 1024
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
_MOST_MESSAGE_ATTRIBUTES = 10
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_LONGEST_DETAIL = 256 * 1024
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_LONGEST_CLIENT_CONTEXT = 3583
_DETAIL_KEY = "_tracecontext"
RECEIVE = ("SQS", "ReceiveMessage")
"""The operation whose answer is messages with the context of who sent them."""


# What parameters tell


def told_of(service: str, operation: str) -> tuple[Mapping[str, Any], Tell | None]:
    """Return what each call of an operation has in common, and what adds what parameters tell.

    None where they tell nothing. Values that may be secret are never told.
    """
    told = _TOLD.get(service)
    return ({}, None) if told is None else told(operation)


def _put(attributes: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, str) and value:
        attributes[name] = value if len(value) <= _LONGEST else truncated(value, _LONGEST)


def _count(attributes: dict[str, Any], entries: Any) -> None:
    if entries:
        attributes[semconv.MESSAGING_BATCH_MESSAGE_COUNT] = len(entries)


def _s3(_operation: str) -> tuple[Mapping[str, Any], Tell]:
    return {}, _tell_s3


def _tell_s3(params: Params, attributes: dict[str, Any]) -> None:
    bucket = params.get("Bucket")
    if type(bucket) is str and 0 < len(bucket) <= _LONGEST:  # _put(), without its frame
        attributes[AWS_S3_BUCKET] = bucket
    else:
        _put(attributes, AWS_S3_BUCKET, bucket)
    if "Key" in params:
        _put(attributes, AWS_S3_KEY, params["Key"])


_SQS_TYPES = {
    "SendMessage": "send",
    "SendMessageBatch": "send",
    "ReceiveMessage": "receive",
    "DeleteMessage": "settle",
    "DeleteMessageBatch": "settle",
}


def _messaging(system: str, operation: str, kind: str | None) -> Mapping[str, Any]:
    told = {semconv.MESSAGING_SYSTEM: system, semconv.MESSAGING_OPERATION_NAME: operation}
    return {**told, semconv.MESSAGING_OPERATION_TYPE: kind} if kind else told


def _sqs(operation: str) -> tuple[Mapping[str, Any], Tell]:
    return _messaging("aws_sqs", operation, _SQS_TYPES.get(operation)), _tell_sqs


def _tell_sqs(params: Params, attributes: dict[str, Any]) -> None:
    url = _text(params.get("QueueUrl"))
    name = url.rpartition("/")[2] or params.get("QueueName")
    _put(attributes, semconv.MESSAGING_DESTINATION_NAME, name)
    _put(attributes, semconv.AWS_SQS_QUEUE_URL, url)
    _count(attributes, params.get("Entries"))


def _sns(operation: str) -> tuple[Mapping[str, Any], Tell]:
    kind = "send" if operation.startswith("Publish") else None
    return _messaging("aws.sns", operation, kind), _tell_sns


def _tell_sns(params: Params, attributes: dict[str, Any]) -> None:
    arn = _text(params.get("TopicArn") or params.get("TargetArn"))
    _put(attributes, semconv.MESSAGING_DESTINATION_NAME, arn.rpartition(":")[2])
    _put(attributes, semconv.AWS_SNS_TOPIC_ARN, arn)
    _count(attributes, params.get("PublishBatchRequestEntries"))


def _dynamodb(operation: str) -> tuple[Mapping[str, Any], Tell]:
    told = {semconv.DB_SYSTEM_NAME: "aws.dynamodb", semconv.DB_OPERATION_NAME: operation}
    return told, _tell_dynamodb


def _tell_dynamodb(params: Params, attributes: dict[str, Any]) -> None:
    table = _text(params.get("TableName"))
    _put(attributes, semconv.DB_COLLECTION_NAME, table)
    tables = [table] if table else sorted(params.get("RequestItems") or ())
    if tables:
        attributes[semconv.AWS_DYNAMODB_TABLE_NAMES] = [_text(name) for name in tables[:100]]


def _lambda(operation: str) -> tuple[Mapping[str, Any], Tell | None]:
    if operation != "Invoke":
        return {}, None
    return {semconv.FAAS_INVOKED_PROVIDER: "aws"}, _tell_lambda


def _tell_lambda(params: Params, attributes: dict[str, Any]) -> None:
    parts = _text(params.get("FunctionName")).split(":")
    # A name, a partial ARN or a whole one, each perhaps with a version behind it.
    named = parts[parts.index("function") + 1] if "function" in parts[:-1] else parts[0]
    _put(attributes, semconv.FAAS_INVOKED_NAME, named)


_TOLD: Mapping[str, Callable[[str], tuple[Mapping[str, Any], Tell | None]]] = {
    "S3": _s3,
    "SQS": _sqs,
    "SNS": _sns,
    "DynamoDB": _dynamodb,
    "Lambda": _lambda,
}


def _text(value: Any) -> str:
    return truncated(value, _LONGEST) if isinstance(value, str) else ""


# Context in what is sent


def carrier_of(service: str, operation: str) -> Carry | None:
    """Return what puts trace headers into the parameters of an operation, or asks for them.

    It returns parameters that carry them, the same where they have no room; None where nothing
    carries any.
    """
    return _CARRIERS.get((service, operation))


def _with_attributes(params: Params, headers: Mapping[str, str]) -> Params:
    if not headers or "PhoneNumber" in params:  # a text message carries no attributes to anybody
        return params
    before = params.get("MessageAttributes") or {}
    added = {name: {"DataType": "String", "StringValue": value} for name, value in headers.items()}
    attributes = {**before, **added}
    if len(attributes) > _MOST_MESSAGE_ATTRIBUTES:
        return params
    return {**params, "MessageAttributes": attributes}


def _each(entries: str, carry: Carry) -> Carry:
    def carry_each(params: Params, headers: Mapping[str, str]) -> Params:
        changed = [carry(entry, headers) for entry in params.get(entries) or ()]
        return {**params, entries: changed}

    return carry_each


def _with_detail(entry: Params, headers: Mapping[str, str]) -> Params:
    """Put the headers into the detail of an event, which is an object as JSON."""
    detail = json.loads(entry.get("Detail") or "{}")
    if not headers or not isinstance(detail, dict):
        return entry
    text = json.dumps({**detail, _DETAIL_KEY: dict(headers)}, ensure_ascii=False)
    return entry if len(text.encode()) > _LONGEST_DETAIL else {**entry, "Detail": text}


def _with_client_context(params: Params, headers: Mapping[str, str]) -> Params:
    """Put the headers into the `custom` part of a function's client context."""
    try:
        before = json.loads(base64.b64decode(params.get("ClientContext") or "e30="))
    except (binascii.Error, ValueError):
        return params
    if not headers or not isinstance(before, dict):
        return params
    context = {**before, "custom": {**(before.get("custom") or {}), **headers}}
    encoded = base64.b64encode(json.dumps(context).encode()).decode()
    return (
        params if len(encoded) > _LONGEST_CLIENT_CONTEXT else {**params, "ClientContext": encoded}
    )


# Context in what is received


def _wanting_context(params: Params, _headers: Mapping[str, str]) -> Params:
    """Return the parameters of a receive that asks for the messages' trace headers too."""
    asked = list(params.get("MessageAttributeNames") or ())
    if "All" in asked or ".*" in asked:
        return params
    more = sorted(get_global_textmap().fields - set(asked))
    return {**params, "MessageAttributeNames": [*asked, *more]}


_CARRIERS: Mapping[tuple[str, str], Carry] = {
    ("SQS", "SendMessage"): _with_attributes,
    ("SQS", "SendMessageBatch"): _each("Entries", _with_attributes),
    ("SNS", "Publish"): _with_attributes,
    ("SNS", "PublishBatch"): _each("PublishBatchRequestEntries", _with_attributes),
    ("EventBridge", "PutEvents"): _each("Entries", _with_detail),
    ("Lambda", "Invoke"): _with_client_context,
    RECEIVE: _wanting_context,
}


def links_from(response: Any) -> Sequence[Link]:
    """Return links to who sent the messages that were received."""
    if not isinstance(response, dict):
        return ()
    return links_to(_contexts(response.get("Messages") or ()))


def _contexts(messages: Iterable[Params]) -> Iterable[Context]:
    for message in messages:
        attributes = message.get("MessageAttributes") or {}
        headers = {
            name: value["StringValue"]
            for name, value in attributes.items()
            if isinstance(value, dict) and isinstance(value.get("StringValue"), str)
        }
        yield get_global_textmap().extract(headers, Context())
