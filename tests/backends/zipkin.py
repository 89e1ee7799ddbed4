"""The Zipkin server: OpenTelemetry's mapping to Zipkin V2 JSON, as Zipkin gives it back.

Source: https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.normal import Plain, from_json
from backends.running import fetched, free_ports, running
from backends.texts import as_json, as_texts
from backends.where import java, program
from tracekit.model import SpanRecord

__all__ = ["PROTOCOLS", "Zipkin", "start"]

PROTOCOLS = ("v2 json",)


class Zipkin:
    """What a span is in Zipkin: names in lower case, times in microseconds, values as text."""

    exporter = "zipkin"

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.variables = {"OTEL_EXPORTER_ZIPKIN_ENDPOINT": f"{self.url}/api/v2/spans"}

    def arguments(self, _protocol: str) -> dict[str, Any]:
        return {}

    def found(self, trace_id: int) -> list[Plain]:
        answer = fetched(f"{self.url}/api/v2/trace/{trace_id:032x}")
        if answer.status_code != 200:
            return []
        spans = from_json(answer.text)
        # An id of 64 bits comes back with 16 digits.
        return [
            {**span, "span_id": span["id"], "traceId": int(span["traceId"], 16)} for span in spans
        ]

    def expected(self, span: SpanRecord) -> Plain:
        duration_us = ((span.end_time or 0) - span.start_time) // 1000
        span_id = f"{span.context.span_id:016x}"
        fields: Plain = {
            "traceId": span.context.trace_id,
            "id": span_id,
            "span_id": span_id,
            "parentId": span.parent and f"{span.parent.span_id:016x}",
            "kind": None if span.kind.name == "INTERNAL" else span.kind.name,
            "name": span.name.lower(),
            "timestamp": span.start_time // 1000,
            "duration": max(1, duration_us),
            "localEndpoint": {"serviceName": span.resource.attributes["service.name"].lower()},
            "remoteEndpoint": _remote(span),
            "annotations": [
                {"timestamp": each.timestamp // 1000, "value": _annotation(each)}
                for each in span.events
            ],
            "tags": _tags(span),
        }
        return {key: value for key, value in fields.items() if value}


def _annotation(event: Any) -> str:
    if not event.attributes:
        return event.name
    return f"{as_json(event.name)}: {as_json(dict(event.attributes))}"


def _remote(span: SpanRecord) -> dict[str, str] | None:
    if span.kind.name not in ("CLIENT", "PRODUCER"):
        return None
    ranks = ("peer.service", "server.address")
    found = [span.attributes[name] for name in ranks if name in span.attributes]
    return {"serviceName": str(found[0]).lower()} if found else None


def _tags(span: SpanRecord) -> dict[str, str]:
    resource = as_texts(span.resource.attributes)
    del resource["service.name"]
    scope, status = span.instrumentation_scope, span.status
    tags = {**resource, **as_texts(span.attributes)}
    for family in ("otel.scope", "otel.library"):
        tags[f"{family}.name"] = scope.name
        if scope.version:
            tags[f"{family}.version"] = scope.version
    if status.status_code.name != "UNSET":
        tags["otel.status_code"] = status.status_code.name
    if status.status_code.name == "ERROR":
        tags["error"] = status.description or ""
    if state := span.context.trace_state.to_header():
        tags["w3c.tracestate"] = state
    counts = (span.dropped_attributes, span.dropped_events, span.dropped_links)
    for name, count in zip(("attributes", "events", "links"), counts, strict=True):
        if count:
            tags[f"otel.dropped_{name}_count"] = str(count)
    # As the Collector's own exporter writes them, and its receiver finds them again.
    for number, link in enumerate(span.links):
        context, attributes = link.context, as_json(dict(link.attributes or {}))
        ids = f"{context.trace_id:032x}|{context.span_id:016x}"
        tags[f"otlp.link.{number}"] = f"{ids}|{context.trace_state.to_header()}|{attributes}|0"
    return tags


@contextmanager
def start(folder: Path) -> Iterator[Zipkin]:
    jar = program("zipkin", "zipkin.jar")
    (port,) = free_ports(1)
    server = Zipkin(port)
    options = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    # It would bind to every address.
    address = ("ip=127.0.0.1", f"port={port}", "protocols[0]=http")
    words = [java(), *options, "-jar", jar, *(f"--armeria.ports[0].{each}" for each in address)]
    with running(words, f"{server.url}/health", folder / "zipkin.log", {"QUERY_PORT": str(port)}):
        yield server
