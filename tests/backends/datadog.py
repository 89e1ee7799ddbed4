"""Datadog's test agent: takes what the real agent takes, checks it, and tells what came."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from backends.normal import Plain, from_json
from backends.running import fetched, free_ports, running
from backends.texts import as_json, as_texts
from backends.where import program
from tracekit.model import SpanRecord

__all__ = ["PROTOCOLS", "Datadog", "start"]

PROTOCOLS = ("v0.4", "v0.5")

CHECKS = (
    "trace_count_header",
    "meta_tracer_version_header",
    "trace_content_length",
    "meta_events_is_valid_json",
    "trace_peer_service",
    "trace_dd_service",
)


_LOWER = 2**64 - 1


class Datadog:
    """What a span is to Datadog's agent: texts in ``meta``, numbers in ``metrics``."""

    exporter = "datadog"

    def __init__(self, port: int, otlp_http: int, otlp_grpc: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.otlp_url = f"http://127.0.0.1:{otlp_http}"
        self.otlp_grpc_url = f"http://127.0.0.1:{otlp_grpc}"
        self.variables = {"DD_TRACE_AGENT_URL": self.url}

    def arguments(self, protocol: str) -> dict[str, Any]:
        return {"api_version": protocol}

    def found(self, trace_id: int) -> list[Plain]:
        return [_read(span) for span in self.spans(trace_id)]

    def spans(self, trace_id: int) -> list[Plain]:
        """Return the spans as they were sent."""
        # The agent knows a trace by the lower half of its id.
        answer = fetched(f"{self.url}/test/traces?trace_ids={trace_id & _LOWER}")
        assert answer.status_code == 200, answer.text
        return [span for trace in from_json(answer.text) for span in trace]

    def expected(self, span: SpanRecord) -> Plain:
        name, resource, span_type = _names(span)
        return {
            "span_id": f"{span.context.span_id:016x}",
            "trace_id": span.context.trace_id & _LOWER,
            "parent_id": span.parent.span_id if span.parent else 0,
            "service": span.resource.attributes["service.name"],
            "name": name,
            "resource": resource,
            "type": span_type,
            "start": span.start_time,
            "duration": (span.end_time or 0) - span.start_time,
            "error": int(span.status.status_code.name == "ERROR"),
            "meta": _meta(span),
            "metrics": _metrics(span),
            "events": [_event(each) for each in span.events],
            "span_links": [_link(each) for each in span.links],
        }

    def failures(self) -> str:
        """Return what the agent's checks have found so far."""
        answer = fetched(f"{self.url}/test/trace_check/failures?return_all=true")
        return "" if answer.status_code == 200 else answer.text

    def passed(self) -> dict[str, dict[str, int]]:
        """Return how often each check was made, and with which result."""
        return fetched(f"{self.url}/test/trace_check/summary?return_all=true").json()


def _read(span: Plain) -> Plain:
    meta = dict(span["meta"])
    return {
        **span,
        "span_id": f"{span['span_id']:016x}",
        "events": json.loads(meta.pop("events", "[]")),
        # These two are said once a chunk, on the spans that have no parent in it.
        "meta": {k: v for k, v in meta.items() if k not in ("_dd.p.tid", "_dd.span_links")},
        "metrics": {k: v for k, v in span["metrics"].items() if k != "_sampling_priority_v1"},
        "span_links": span.get("span_links") or _links_of_v05(meta),
    }


def _links_of_v05(meta: Plain) -> list[Plain]:
    """Return links that came as JSON in a tag, as v0.4 has them."""
    found: list[Plain] = json.loads(meta.get("_dd.span_links", "[]"))
    for link in found:
        trace_id = int(link["trace_id"], 16)
        link |= {"trace_id": trace_id & _LOWER, "trace_id_high": trace_id >> 64}
        link["span_id"] = int(link["span_id"], 16)
        link["flags"] |= 1 << 31
    return found


def _names(span: SpanRecord) -> tuple[str, str, str]:
    """Return operation, resource and type of the kinds of span that the tests send.

    Source: https://docs.datadoghq.com/opentelemetry/mapping/service_entry_spans/
    """
    attributes, kind = span.attributes, span.kind.name
    side = kind.lower()
    type_ = {"SERVER": "web", "CLIENT": "http"}.get(kind, "custom")
    if method := attributes.get("http.request.method"):
        route = attributes.get("http.route") if kind == "SERVER" else None
        return f"http.{side}.request", " ".join(filter(None, (method, route))), type_
    if system := attributes.get("db.system.name"):
        return f"{system}.query", attributes.get("db.query.text") or span.name, "sql"
    if kind in ("SERVER", "CLIENT"):
        return f"{side}.request", span.name, type_
    return side, span.name, type_


_RENAMED = {
    "deployment.environment.name": "env",
    "service.version": "version",
    "service.instance.id": "runtime-id",
    "telemetry.sdk.language": "language",
    "process.pid": "process_id",
    "http.request.method": "http.method",
    "http.response.status_code": "http.status_code",
    "network.protocol.version": "http.version",
    "server.address": "http.server_name",
    "client.address": "http.client_ip",
    "url.full": "http.url",
    "user_agent.original": "http.useragent",
    "http.request.body.size": "http.request.content_length",
    "http.response.body.size": "http.response.content_length",
}


def _is_number(key: str, value: Any) -> bool:
    if isinstance(value, bool) or key == "http.status_code":
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) <= 2**53  # what a double holds exactly


def _renamed(span: SpanRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    resource = {k: v for k, v in span.resource.attributes.items() if k != "service.name"}
    return tuple(
        {_RENAMED.get(key, key): value for key, value in attributes.items()}
        for attributes in (resource, span.attributes)
    )  # type: ignore[return-value]


def _meta(span: SpanRecord) -> dict[str, str]:
    resource, attributes = _renamed(span)
    scope, status = span.instrumentation_scope, span.status
    meta = as_texts({key: value for key, value in resource.items() if key != "process_id"})
    meta |= as_texts({k: v for k, v in attributes.items() if not _is_number(k, v)})
    for family in ("otel.scope", "otel.library"):
        meta[f"{family}.name"] = scope.name
        if scope.version:
            meta[f"{family}.version"] = scope.version
    meta["otel.trace_id"] = f"{span.context.trace_id:032x}"
    meta["otel.status_code"] = status.status_code.name.capitalize()
    meta["span.kind"] = span.kind.name.lower()
    if state := span.context.trace_state.to_header():
        meta["w3c.tracestate"] = state
    if status.description:
        meta["otel.status_description"] = status.description
    return meta | _error(span)


def _error(span: SpanRecord) -> dict[str, str]:
    names = {"type": "type", "message": "message", "stacktrace": "stack"}
    meta: dict[str, str] = {}
    for event in [each for each in span.events if each.name == "exception"]:
        meta["_dd.span_events.has_exception"] = "true"
        meta |= {
            f"error.{ours}": str(event.attributes[f"exception.{theirs}"])
            for theirs, ours in names.items()
            if f"exception.{theirs}" in event.attributes
        }
    if span.status.status_code.name == "ERROR" and "error.message" not in meta:
        code = span.attributes.get("http.response.status_code")
        fallback = f"{code} {HTTPStatus(code).phrase}" if code else ""
        if message := span.status.description or fallback:
            meta["error.message"] = message
    return meta


def _metrics(span: SpanRecord) -> dict[str, float]:
    resource, attributes = _renamed(span)
    numbers = {key: value for key, value in attributes.items() if _is_number(key, value)}
    if "process_id" in resource:
        numbers["process_id"] = resource["process_id"]
    counts = (span.dropped_attributes, span.dropped_events, span.dropped_links)
    for name, count in zip(("attributes", "events", "links"), counts, strict=True):
        if count:
            numbers[f"otel.dropped_{name}_count"] = count
    return {key: float(value) for key, value in numbers.items()}


def _event(event: Any) -> Plain:
    body: Plain = {"time_unix_nano": event.timestamp, "name": event.name}
    if event.attributes:
        body["attributes"] = json.loads(as_json(dict(event.attributes)))
    if event.dropped_attributes:
        body["dropped_attributes_count"] = event.dropped_attributes
    return body


def _link(link: Any) -> Plain:
    context = link.context
    body: Plain = {
        "trace_id": context.trace_id & _LOWER,
        "trace_id_high": context.trace_id >> 64,
        "span_id": context.span_id,
        "flags": int(context.trace_flags) | 1 << 31,
        "tracestate": context.trace_state.to_header(),
        "attributes": as_texts(link.attributes),
    }
    return {key: value for key, value in body.items() if value not in ("", {})}


@contextmanager
def start(folder: Path) -> Iterator[Datadog]:
    binary = program("datadog", "ddapm-test-agent")
    port, otlp_http, otlp_grpc = free_ports(3)
    server = Datadog(port, otlp_http, otlp_grpc)
    words = [binary, f"--port={port}", f"--otlp-http-port={otlp_http}"]
    words += [f"--otlp-grpc-port={otlp_grpc}", f"--snapshot-dir={folder}"]
    words += [f"--vcr-cassettes-directory={folder}", "--pool-trace-check-failures=true"]
    # Its flag of that name takes no list. Told of an agent, it would send on all that it gets.
    env = {"ENABLED_CHECKS": ",".join(CHECKS), "DD_TRACE_AGENT_URL": "", "DD_AGENT_URL": ""}
    with running(words, f"{server.url}/info", folder / "datadog.log", env):
        yield server
