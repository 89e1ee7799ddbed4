"""What Datadog's tags are called by OpenTelemetry, and what its types of span are.

Sources: https://docs.datadoghq.com/opentelemetry/mapping/semantic_mapping/ and
https://docs.datadoghq.com/opentelemetry/mapping/service_entry_spans/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._sql_summary import summary_of
from tracekit.formats._fields import Fields

__all__ = ["OF_RESOURCE", "attributes_of", "kind_of", "named"]

_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_KINDS_OF_TYPES = {"web": SpanKind.SERVER, "worker": SpanKind.CONSUMER, "queue": SpanKind.PRODUCER}
_CALLS = {"http", "sql", "db", "cache", "redis", "memcached", "mongodb", "cassandra"}
_CALLS |= {"elasticsearch", "opensearch"}
OF_RESOURCE = {
    "env": "deployment.environment.name",
    "version": "service.version",
    "runtime-id": "service.instance.id",
    "language": "telemetry.sdk.language",
    "process_id": "process.pid",
}
_NAMES = {
    "http.method": semconv.HTTP_REQUEST_METHOD,
    "http.status_code": semconv.HTTP_RESPONSE_STATUS_CODE,
    "http.url": semconv.URL_FULL,
    "http.useragent": semconv.USER_AGENT_ORIGINAL,
    "http.version": semconv.NETWORK_PROTOCOL_VERSION,
    "http.client_ip": "client.address",
    "http.server_name": semconv.SERVER_ADDRESS,
    "http.request.content_length": semconv.HTTP_REQUEST_BODY_SIZE,
    "http.response.content_length": semconv.HTTP_RESPONSE_BODY_SIZE,
    "out.host": semconv.SERVER_ADDRESS,
    "out.port": semconv.SERVER_PORT,
    "network.destination.name": semconv.SERVER_ADDRESS,
    "network.destination.port": semconv.SERVER_PORT,
    "db.system": semconv.DB_SYSTEM_NAME,
    "db.name": semconv.DB_NAMESPACE,
    "sql.query": semconv.DB_QUERY_TEXT,
    "redis.raw_command": semconv.DB_QUERY_TEXT,
    "mongodb.query": semconv.DB_QUERY_TEXT,
    "_dd.code_origin.frames.0.file": semconv.CODE_FILE_PATH,
    "_dd.code_origin.frames.0.line": semconv.CODE_LINE_NUMBER,
    "_dd.code_origin.frames.0.method": semconv.CODE_FUNCTION_NAME,
}


def kind_of(said: str, span_type: str) -> SpanKind:
    if said in _KINDS:
        return _KINDS[said]
    return (
        SpanKind.CLIENT
        if span_type in _CALLS
        else _KINDS_OF_TYPES.get(span_type, SpanKind.INTERNAL)
    )


def attributes_of(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags that say something of the span; Datadog's own book-keeping is left out."""
    return {
        _NAMES.get(key, key): value
        for key, value in tags.items()
        if key in _NAMES or not key.startswith(("_dd.", "_sampling_priority", "_top_level"))
    }


def named(fields: Fields, attributes: dict[str, Any], span_type: str, is_of_otel: bool) -> str:
    """Return what OpenTelemetry calls the span: a query's summary, an endpoint, else its name."""
    resource = fields.text("resource")
    if span_type == "sql" or semconv.DB_SYSTEM_NAME in attributes:
        text = attributes.setdefault(semconv.DB_QUERY_TEXT, resource)
        attributes.setdefault(semconv.DB_SYSTEM_NAME, span_type)
        summary = attributes.get(semconv.DB_QUERY_SUMMARY) or summary_of(str(text))
        return str(summary) or resource
    if resource and (is_of_otel or span_type not in ("", "custom")):
        return resource
    return fields.text("name") or resource
