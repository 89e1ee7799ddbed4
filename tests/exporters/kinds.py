"""Exporters that speak HTTP, and how to read the names of the spans that they sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack

from exporters.destinations import Received
from tracekit.exporters.datadog import DatadogExporter
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.exporters.zipkin import ZipkinExporter


def otlp(url: str, **arguments: Any) -> OTLPSpanExporter:
    return OTLPSpanExporter(url, **arguments)


def otlp_json(url: str, **arguments: Any) -> OTLPSpanExporter:
    return OTLPSpanExporter(url, protocol="http/json", **arguments)


def otlp_gzip(url: str, **arguments: Any) -> OTLPSpanExporter:
    return OTLPSpanExporter(url, compression="gzip", **arguments)


def names_in_json(received: Received) -> list[str]:
    (of_resource,) = json.loads(received.body)["resourceSpans"]
    return [s["name"] for of_scope in of_resource["scopeSpans"] for s in of_scope["spans"]]


def names_in_zipkin(received: Received) -> list[str]:
    return [span["name"] for span in json.loads(received.body)]


def names_in_datadog(received: Received) -> list[str]:
    chunks = msgpack.unpackb(received.body)
    assert received.headers["x-datadog-trace-count"] == str(len(chunks))
    return [span["resource"] for chunk in chunks for span in chunk]


def names_in_otlp(received: Received) -> list[str]:
    return received.span_names()


KINDS: dict[str, tuple[Any, Callable[[Received], list[str]]]] = {
    "otlp": (otlp, names_in_otlp),
    "otlp_json": (otlp_json, names_in_json),
    "otlp_gzip": (otlp_gzip, names_in_otlp),
    "zipkin": (ZipkinExporter, names_in_zipkin),
    "datadog": (DatadogExporter, names_in_datadog),
}
