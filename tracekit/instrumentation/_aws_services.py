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

__all__ = ["carries", "carrying", "links_from", "told_by", "wanting_context"]

Params = Mapping[str, Any]

_LONGEST = 1024
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
_MOST_MESSAGE_ATTRIBUTES = 10
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_LONGEST_DETAIL = 256 * 1024
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_LONGEST_CLIENT_CONTEXT = 3583
_DETAIL_KEY = "_tracecontext"
_RECEIVE = ("SQS", "ReceiveMessage")


# What parameters tell


def told_by(service: str, operation: str, params: Params) -> dict[str, Any]:
    """Return what the parameters of a call tell of it, without values that may be secret."""
    told = _TOLD.get(service)
    return {} if told is None else {k: v for k, v in told(operation, params).items() if v}


def _s3(_operation: str, params: Params) -> dict[str, Any]:
    return {
        semconv.AWS_S3_BUCKET: _text(params.get("Bucket")),
        semconv.AWS_S3_KEY: _text(params.get("Key")),
    }


_SQS_TYPES = {
    "SendMessage": "send",
    "SendMessageBatch": "send",
    "ReceiveMessage": "receive",
    "DeleteMessage": "settle",
    "DeleteMessageBatch": "settle",
}


def _sqs(operation: str, params: Params) -> dict[str, Any]:
    url = _text(params.get("QueueUrl"))
    name = url.rpartition("/")[2] or _text(params.get("QueueName"))
    return {
        semconv.MESSAGING_SYSTEM: "aws_sqs",
        semconv.MESSAGING_OPERATION_NAME: operation,
        semconv.MESSAGING_OPERATION_TYPE: _SQS_TYPES.get(operation),
        semconv.MESSAGING_DESTINATION_NAME: name,
        semconv.MESSAGING_BATCH_MESSAGE_COUNT: len(params.get("Entries") or ()),
        semconv.AWS_SQS_QUEUE_URL: url,
    }


def _sns(operation: str, params: Params) -> dict[str, Any]:
    arn = _text(params.get("TopicArn") or params.get("TargetArn"))
    return {
        semconv.MESSAGING_SYSTEM: "aws.sns",
        semconv.MESSAGING_OPERATION_NAME: operation,
        semconv.MESSAGING_OPERATION_TYPE: "send" if operation.startswith("Publish") else None,
        semconv.MESSAGING_DESTINATION_NAME: arn.rpartition(":")[2],
        semconv.MESSAGING_BATCH_MESSAGE_COUNT: len(params.get("PublishBatchRequestEntries") or ()),
        semconv.AWS_SNS_TOPIC_ARN: arn,
    }


def _dynamodb(operation: str, params: Params) -> dict[str, Any]:
    table = _text(params.get("TableName"))
    tables = [table] if table else sorted(params.get("RequestItems") or ())
    return {
        semconv.DB_SYSTEM_NAME: "aws.dynamodb",
        semconv.DB_OPERATION_NAME: operation,
        semconv.DB_COLLECTION_NAME: table,
        semconv.AWS_DYNAMODB_TABLE_NAMES: [_text(name) for name in tables[:100]],
    }


def _lambda(operation: str, params: Params) -> dict[str, Any]:
    if operation != "Invoke":
        return {}
    name = _text(params.get("FunctionName"))
    parts = name.split(":")
    # A name, a partial ARN or a whole one, each perhaps with a version behind it.
    named = parts[parts.index("function") + 1] if "function" in parts[:-1] else parts[0]
    return {semconv.FAAS_INVOKED_NAME: named, semconv.FAAS_INVOKED_PROVIDER: "aws"}


_TOLD: Mapping[str, Callable[[str, Params], dict[str, Any]]] = {
    "S3": _s3,
    "SQS": _sqs,
    "SNS": _sns,
    "DynamoDB": _dynamodb,
    "Lambda": _lambda,
}


def _text(value: Any) -> str:
    return truncated(value, _LONGEST) if isinstance(value, str) else ""


# Context in what is sent


def carries(service: str, operation: str) -> bool:
    """Say whether an operation sends something that can carry context, or receives it."""
    return (service, operation) in _CARRIERS or (service, operation) == _RECEIVE


def carrying(service: str, operation: str, params: Params, headers: Mapping[str, str]) -> Params:
    """Return parameters whose messages carry `headers`; the same where nothing carries any."""
    carry = _CARRIERS.get((service, operation))
    return params if carry is None or not headers else carry(params, headers)


def _with_attributes(params: Params, headers: Mapping[str, str]) -> Params:
    if "PhoneNumber" in params:  # a text message carries no attributes to anybody
        return params
    before = params.get("MessageAttributes") or {}
    added = {name: {"DataType": "String", "StringValue": value} for name, value in headers.items()}
    attributes = {**before, **added}
    if len(attributes) > _MOST_MESSAGE_ATTRIBUTES:
        return params
    return {**params, "MessageAttributes": attributes}


def _each(
    entries: str, carry: Callable[[Params, Mapping[str, str]], Params]
) -> Callable[[Params, Mapping[str, str]], Params]:
    def carry_each(params: Params, headers: Mapping[str, str]) -> Params:
        changed = [carry(entry, headers) for entry in params.get(entries) or ()]
        return {**params, entries: changed}

    return carry_each


def _with_detail(entry: Params, headers: Mapping[str, str]) -> Params:
    """Put the headers into the detail of an event, which is an object as JSON."""
    detail = json.loads(entry.get("Detail") or "{}")
    if not isinstance(detail, dict):
        return entry
    text = json.dumps({**detail, _DETAIL_KEY: dict(headers)}, ensure_ascii=False)
    return entry if len(text.encode()) > _LONGEST_DETAIL else {**entry, "Detail": text}


def _with_client_context(params: Params, headers: Mapping[str, str]) -> Params:
    """Put the headers into the `custom` part of a function's client context."""
    try:
        before = json.loads(base64.b64decode(params.get("ClientContext") or "e30="))
    except (binascii.Error, ValueError):
        return params
    if not isinstance(before, dict):
        return params
    context = {**before, "custom": {**(before.get("custom") or {}), **headers}}
    encoded = base64.b64encode(json.dumps(context).encode()).decode()
    return (
        params if len(encoded) > _LONGEST_CLIENT_CONTEXT else {**params, "ClientContext": encoded}
    )


_CARRIERS: Mapping[tuple[str, str], Callable[[Params, Mapping[str, str]], Params]] = {
    ("SQS", "SendMessage"): _with_attributes,
    ("SQS", "SendMessageBatch"): _each("Entries", _with_attributes),
    ("SNS", "Publish"): _with_attributes,
    ("SNS", "PublishBatch"): _each("PublishBatchRequestEntries", _with_attributes),
    ("EventBridge", "PutEvents"): _each("Entries", _with_detail),
    ("Lambda", "Invoke"): _with_client_context,
}


# Context in what is received


def wanting_context(service: str, operation: str, params: Params) -> Params:
    """Return the parameters of a receive that asks for the messages' trace headers too."""
    if (service, operation) != _RECEIVE:
        return params
    asked = list(params.get("MessageAttributeNames") or ())
    if "All" in asked or ".*" in asked:
        return params
    more = sorted(get_global_textmap().fields - set(asked))
    return {**params, "MessageAttributeNames": [*asked, *more]}


def links_from(service: str, operation: str, response: Any) -> Sequence[Link]:
    """Return links to who sent the messages that were received."""
    if (service, operation) != _RECEIVE or not isinstance(response, dict):
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
