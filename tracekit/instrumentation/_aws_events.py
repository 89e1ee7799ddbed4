"""What an event of AWS Lambda tells: who caused it, what it asks, where its trace began.

The kind of an event is told by its shape, as AWS documents it; one that looks like none of these
is an invocation like any other. Events are input from outside: whatever is not of the type that
it should be is left out.
https://opentelemetry.io/docs/specs/semconv/faas/aws-lambda/
https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._url_secrets import redact_query
from tracekit.instrumentation._http import truncated

__all__ = ["Invocation", "invocation_of"]

Headers = dict[str, str]

_SERVER = SpanKind.SERVER
# One lookup less on the path of each request.
CLIENT_ADDRESS = semconv.CLIENT_ADDRESS
FAAS_TRIGGER = semconv.FAAS_TRIGGER
HTTP_REQUEST_METHOD = semconv.HTTP_REQUEST_METHOD
HTTP_ROUTE = semconv.HTTP_ROUTE
SERVER_ADDRESS = semconv.SERVER_ADDRESS
URL_PATH = semconv.URL_PATH
URL_QUERY = semconv.URL_QUERY
URL_SCHEME = semconv.URL_SCHEME
USER_AGENT_ORIGINAL = semconv.USER_AGENT_ORIGINAL

_NOTHING: Mapping[str, Any] = {}
_TEXT_ONLY = frozenset((str,))
_LONGEST = 1024
_MOST_MESSAGES = 128
_DETAIL_KEY = "_tracecontext"


@dataclass(slots=True)
class Invocation:
    """An event, read. Not frozen, which would take five times as long to make.

    Attributes:
        name: What the span is named for; empty for the function's own name.
        headers: Of the one who caused it; or
        senders: of each message of several.
        is_http: Whether the result is a response with a status code.
    """

    name: str = ""
    kind: SpanKind = SpanKind.SERVER
    attributes: Mapping[str, Any] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    senders: Sequence[Headers] = ()
    is_http: bool = False


def invocation_of(event: Any) -> Invocation:
    """Read an event, whatever it is."""
    if not isinstance(event, dict):
        return _OTHER
    if isinstance(event.get("requestContext"), dict):
        return _request(event)
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        source = records[0].get("eventSource") or records[0].get("EventSource")
        read = _RECORDS.get(source if isinstance(source, str) else "")
        return _OTHER if read is None else read([r for r in records if isinstance(r, dict)])
    if isinstance(event.get("detail-type"), str):
        return _bus_event(event)
    return _OTHER


_OTHER = Invocation(attributes={semconv.FAAS_TRIGGER: "other"})


def _request(event: Mapping[str, Any]) -> Invocation:
    """Read a request of API Gateway (both formats), of a function's URL, or of a load balancer."""
    about = event["requestContext"]
    http = about.get("http")
    if not isinstance(http, dict):
        http = _NOTHING
    # _text() only of what may be another thing than a text, or a long one: a frame less for each.
    method = event.get("httpMethod") or http.get("method")
    if type(method) is not str or len(method) > _LONGEST:
        method = _text(method)
    if not method:
        return _OTHER  # a WebSocket's message, or something new
    headers = _headers_of(event)
    route = _route_of(event, about)
    # Each only where there is one; in the order of the conventions.
    attributes: dict[str, Any] = {FAAS_TRIGGER: "http", HTTP_REQUEST_METHOD: method}
    if route:
        attributes[HTTP_ROUTE] = route
    scheme = headers.get("x-forwarded-proto") or "https"
    attributes[URL_SCHEME] = scheme if len(scheme) <= _LONGEST else _text(scheme)
    path = event.get("path") or event.get("rawPath")
    if type(path) is not str or len(path) > _LONGEST:
        path = _text(path)
    if path:
        attributes[URL_PATH] = path
    parameters = event.get("queryStringParameters")
    raw = event.get("rawQueryString")
    if query := (raw and _text(raw)) or (parameters and _query_of(parameters)):
        attributes[URL_QUERY] = redact_query(query)
    if server := headers.get("host") or _text(about.get("domainName")):
        attributes[SERVER_ADDRESS] = server if len(server) <= _LONGEST else _text(server)
    client = http.get("sourceIp") or _identity_of(about).get("sourceIp")
    if type(client) is not str or len(client) > _LONGEST:
        client = _text(client)
    if client:
        attributes[CLIENT_ADDRESS] = client
    if agent := headers.get("user-agent"):
        attributes[USER_AGENT_ORIGINAL] = agent if len(agent) <= _LONGEST else _text(agent)
    name = f"{method} {route}" if route else method
    return Invocation(name, _SERVER, attributes, headers, (), True)


def _headers_of(event: Mapping[str, Any]) -> Headers:
    found: dict[str, str] = {}
    several = event.get("multiValueHeaders")
    if isinstance(several, dict):
        found.update(
            (name.lower(), ",".join(map(_text, values)))
            for name, values in several.items()
            if isinstance(values, list)
        )
    single = event.get("headers")
    if not isinstance(single, dict):
        return found
    if not found:
        # As they are in the newer format, found out in three calls of C for however many.
        names = "".join(single)
        if names == names.lower() and _TEXT_ONLY.issuperset(map(type, single.values())):
            return single
    first = {name.lower(): value for name, value in single.items() if type(value) is str}
    return {**found, **first} if found else first


def _identity_of(about: Mapping[str, Any]) -> Mapping[str, Any]:
    identity = about.get("identity")
    return identity if type(identity) is dict else _NOTHING


def _route_of(event: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    resource = event.get("resource") or about.get("resourcePath")
    if resource and (route := _text(resource)):
        return route
    # "GET /orders/{id}", or "$default" for everything that matches nothing else.
    key = event.get("routeKey")
    if type(key) is not str or len(key) > _LONGEST:
        key = _text(key)
    return key.partition(" ")[2]


def _query_of(parameters: Any) -> str:
    if not isinstance(parameters, dict):
        return ""
    return truncated("&".join(f"{name}={value}" for name, value in parameters.items()), _LONGEST)


def _messages(system: str, name: str, ids: Sequence[Any], headers: Iterable[Headers]) -> Invocation:
    senders = list(headers)
    attributes: dict[str, Any] = {
        semconv.FAAS_TRIGGER: "pubsub",
        semconv.MESSAGING_SYSTEM: system,
        semconv.MESSAGING_OPERATION_NAME: "process",
        semconv.MESSAGING_OPERATION_TYPE: "process",
        semconv.MESSAGING_DESTINATION_NAME: name,
    }
    if len(ids) > 1:
        attributes[semconv.MESSAGING_BATCH_MESSAGE_COUNT] = len(ids)
    elif isinstance(ids[0], str):
        attributes[semconv.MESSAGING_MESSAGE_ID] = _text(ids[0])
    alone = senders[0] if len(senders) == 1 else {}
    beside = senders[:_MOST_MESSAGES] if len(senders) > 1 else ()
    return Invocation(f"process {name}", SpanKind.CONSUMER, attributes, alone, beside)


def _sqs(records: Sequence[Mapping[str, Any]]) -> Invocation:
    name = _text(records[0].get("eventSourceARN")).rpartition(":")[2]
    headers = (_values(record.get("messageAttributes"), "stringValue") for record in records)
    return _messages("aws_sqs", name, [record.get("messageId") for record in records], headers)


def _sns(records: Sequence[Mapping[str, Any]]) -> Invocation:
    inner = [record["Sns"] for record in records if isinstance(record.get("Sns"), dict)]
    if not inner:
        return _OTHER
    name = _text(inner[0].get("TopicArn")).rpartition(":")[2]
    headers = (_values(message.get("MessageAttributes"), "Value") for message in inner)
    return _messages("aws.sns", name, [message.get("MessageId") for message in inner], headers)


def _s3(records: Sequence[Mapping[str, Any]]) -> Invocation:
    about = records[0].get("s3")
    about = about if isinstance(about, dict) else {}
    bucket, key = (
        _text(part.get(name)) if isinstance(part := about.get(where), dict) else ""
        for where, name in (("bucket", "name"), ("object", "key"))
    )
    attributes = {
        semconv.FAAS_TRIGGER: "datasource",
        semconv.AWS_S3_BUCKET: bucket,
        semconv.AWS_S3_KEY: key,
    }
    name = _text(records[0].get("eventName")) or "S3"
    given = {name: value for name, value in attributes.items() if value}
    return Invocation(f"{name} {bucket}".rstrip(), SpanKind.CONSUMER, given)


def _stream(records: Sequence[Mapping[str, Any]]) -> Invocation:
    """Read changes of a DynamoDB table or records of a Kinesis stream."""
    name = _text(records[0].get("eventSourceARN")).partition("/")[2].partition("/")[0]
    source = _text(records[0].get("eventSource"))
    return Invocation(
        f"process {name}", SpanKind.CONSUMER, {semconv.FAAS_TRIGGER: _TRIGGERS.get(source, "other")}
    )


_TRIGGERS = {"aws:dynamodb": "datasource", "aws:kinesis": "pubsub"}
_RECORDS = {
    "aws:sqs": _sqs,
    "aws:sns": _sns,
    "aws:s3": _s3,
    "aws:dynamodb": _stream,
    "aws:kinesis": _stream,
}


def _bus_event(event: Mapping[str, Any]) -> Invocation:
    kind = _text(event["detail-type"])
    if kind == "Scheduled Event":
        return Invocation(kind, SpanKind.CONSUMER, {semconv.FAAS_TRIGGER: "timer"})
    detail = event.get("detail")
    headers = detail.get(_DETAIL_KEY) if isinstance(detail, dict) else None
    attributes = {
        semconv.FAAS_TRIGGER: "pubsub",
        semconv.MESSAGING_SYSTEM: "aws.eventbridge",
        semconv.MESSAGING_OPERATION_NAME: "process",
        semconv.MESSAGING_OPERATION_TYPE: "process",
        semconv.MESSAGING_DESTINATION_NAME: kind,
    }
    return Invocation(f"process {kind}", SpanKind.CONSUMER, attributes, _texts(headers))


def _values(attributes: Any, key: str) -> Headers:
    if not isinstance(attributes, dict):
        return {}
    return _texts(
        {name: value.get(key) for name, value in attributes.items() if isinstance(value, dict)}
    )


def _texts(headers: Any) -> Headers:
    if not isinstance(headers, dict):
        return {}
    return {str(name).lower(): value for name, value in headers.items() if isinstance(value, str)}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return value if len(value) <= _LONGEST else truncated(value, _LONGEST)
