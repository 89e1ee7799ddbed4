"""What Datadog calls a span: its operation, its resource and its type.

The rules are those by which Datadog's agent reads OpenTelemetry spans, so that a span is called
the same whichever way it comes.
Source: https://docs.datadoghq.com/opentelemetry/mapping/service_entry_spans/ and
https://github.com/DataDog/datadog-agent/blob/main/pkg/trace/traceutil/otel_util.go
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit.exporters._tag_text import tag_text

__all__ = ["mapped_key", "operation_name", "resource_name", "span_type"]

Attributes = Mapping[str, Any]

# fmt: off
_SQL = frozenset({
    "actian.ingres", "adabas", "cache", "clickhouse", "cloudscape", "cockroachdb", "coldfusion",
    "db2", "derby", "edb", "filemaker", "firebird", "firstsql", "h2", "h2database", "hanadb",
    "hsqldb", "ibm.db2", "informix", "ingres", "instantdb", "interbase", "intersystems.cache",
    "mariadb", "maxdb", "microsoft.sql_server", "mssql", "mysql", "netezza", "oracle",
    "oracle.db", "other_sql", "pervasive", "pointbase", "postgresql", "progress", "redshift",
    "sap.hana", "sap.maxdb", "softwareag.adabas", "sqlite", "sybase", "teradata", "trino",
    "vertica",
})
# fmt: on
_OWN_TYPE = frozenset({"cassandra", "elasticsearch", "memcached", "mongodb", "opensearch", "redis"})

_MAPPED_KEYS = {
    "client.address": "http.client_ip",
    "http.request.body.size": "http.request.content_length",
    "http.request.method": "http.method",
    "http.response.body.size": "http.response.content_length",
    "http.response.status_code": "http.status_code",
    "network.protocol.version": "http.version",
    "server.address": "http.server_name",
    "url.full": "http.url",
    "user_agent.original": "http.useragent",
}
"""Datadog's names for attributes of HTTP spans."""

_HEADER, _DATADOG_HEADER = "http.request.header.", "http.request.headers."


def mapped_key(key: str) -> str:
    """Return Datadog's name for an attribute, or the attribute's own."""
    if key.startswith(_HEADER):
        return _DATADOG_HEADER + key.removeprefix(_HEADER)
    return _MAPPED_KEYS.get(key, key)


def _first(attributes: Attributes, *keys: str) -> str:
    for key in keys:
        value = attributes.get(key)
        if value is not None and (found := tag_text(value)):
            return found
    return ""


def _method(attributes: Attributes) -> str:
    return _first(attributes, "http.request.method", "http.method")


def _db_system(attributes: Attributes) -> str:
    return _first(attributes, "db.system.name", "db.system")


def _messaging_operation(attributes: Attributes) -> str:
    return _first(
        attributes,
        "messaging.operation.type",
        "messaging.operation.name",
        "messaging.operation",
    )


def span_type(kind: SpanKind, attributes: Attributes) -> str:
    """Return ``web``, ``http``, a kind of database, or ``custom``."""
    if own := _first(attributes, "span.type"):
        return own
    if kind is SpanKind.SERVER:
        return "web"
    if kind is not SpanKind.CLIENT:
        return "custom"
    system = _db_system(attributes)
    if not system:
        return "http"
    if system in _SQL:
        return "sql"
    return system if system in _OWN_TYPE else "db"


def operation_name(kind: SpanKind, attributes: Attributes) -> str:
    """Return what kind of operation it is, such as ``http.server.request``."""
    if own := _first(attributes, "operation.name"):
        return own
    side = {SpanKind.CLIENT: "client", SpanKind.SERVER: "server"}.get(kind, "")
    if side and _method(attributes):
        return f"http.{side}.request"
    if side == "client" and (system := _db_system(attributes)):
        return f"{system}.query"
    messaging = _first(attributes, "messaging.system")
    if messaging and kind is not SpanKind.INTERNAL and (done := _messaging_operation(attributes)):
        return f"{messaging}.{done}"
    if side and (found := _remote_call(side, attributes)):
        return found
    if _first(attributes, "graphql.operation.type"):
        return "graphql.server.request"
    if not side:
        return kind.name.lower()
    protocol = _first(attributes, "network.protocol.name")
    return f"{protocol}.{side}.request" if protocol else f"{side}.request"


def _remote_call(side: str, attributes: Attributes) -> str:
    """Return the operation of an RPC or of a function invoked somewhere else."""
    system = _first(attributes, "rpc.system.name", "rpc.system")
    if system == "aws-api" and side == "client":
        service = _first(attributes, "rpc.service")
        return f"aws.{service}.request" if service else "aws.client.request"
    if system:
        return f"{system}.{side}.request"
    if side == "server":
        trigger = _first(attributes, "faas.trigger")
        return f"{trigger}.invoke" if trigger else ""
    provider = _first(attributes, "faas.invoked_provider")
    invoked = _first(attributes, "faas.invoked_name")
    return f"{provider}.{invoked}.invoke" if provider and invoked else ""


def resource_name(name: str, kind: SpanKind, attributes: Attributes) -> str:
    """Return what the operation is done on: a route, a statement, a queue; or the span's name."""
    if own := _first(attributes, "resource.name"):
        return own
    if method := _method(attributes):
        verb = "HTTP" if method == "_OTHER" else method
        route = _first(attributes, "http.route") if kind is SpanKind.SERVER else ""
        return _joined(verb, route)
    if done := _messaging_operation(attributes):
        destination = ("messaging.destination.name", "messaging.destination")
        return _joined(done, _first(attributes, *destination))
    if call := _first(attributes, "rpc.method"):
        return _joined(call, _first(attributes, "rpc.service"))
    if query := _first(attributes, "graphql.operation.type"):
        return _joined(query, _first(attributes, "graphql.operation.name"))
    if _db_system(attributes):
        return _first(attributes, "db.query.text", "db.statement") or name
    return name


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
