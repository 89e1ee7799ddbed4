"""Jaeger's all-in-one with spans in memory, sent OTLP and asked by both of its query APIs."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.normal import Plain, from_json, of_otlp, of_record, typed_all
from backends.running import fetched, free_ports, running
from backends.where import program
from tracekit.model import SpanRecord

__all__ = ["PROTOCOLS", "Jaeger", "start"]

PROTOCOLS = ("http/protobuf", "http/json", "grpc")

_WARNINGS = "@jaeger@warnings"


class Jaeger:
    """What a span is in Jaeger: ``otlp`` by its query API v3, ``page`` as its own page has it.

    Both are read from a model older than OTLP: lists and maps are JSON texts there; flags, schema
    URLs, counts of what was dropped, and attributes of links and scopes are not kept. Its page
    cannot show a trace that holds a number which is not finite.
    """

    exporter = "jaeger"

    def __init__(self, query: int, otlp_http: int, otlp_grpc: int) -> None:
        self.url = f"http://127.0.0.1:{query}"
        self.grpc_url = f"http://127.0.0.1:{otlp_grpc}"
        self.variables = {"TRACEKIT_JAEGER_ENDPOINT": f"http://127.0.0.1:{otlp_http}"}

    def arguments(self, protocol: str) -> dict[str, Any]:
        endpoint = {"endpoint": self.grpc_url} if protocol == "grpc" else {}
        return {"protocol": protocol, **endpoint}

    def found(self, trace_id: int) -> list[Plain]:
        page = self.page(trace_id)
        return [
            {
                "span_id": span["span_id"],
                "otlp": span,
                "page": page.get(int(span["span_id"], 16), {}),
            }
            for span in self.otlp(trace_id)
        ]

    def otlp(self, trace_id: int) -> list[Plain]:
        answer = fetched(f"{self.url}/api/v3/traces/{trace_id:032x}")
        if answer.status_code != 200:
            return []
        spans = of_otlp(from_json(answer.text)["result"])
        for span in spans:
            span["attributes"].pop(_WARNINGS, None)
        return spans

    def page(self, trace_id: int) -> dict[int, Plain]:
        answer = fetched(f"{self.url}/api/traces/{trace_id:032x}")
        if answer.status_code != 200:
            return {}
        (trace,) = from_json(answer.text)["data"]
        return {
            int(span["spanID"], 16): _of_page(span, trace["processes"]) for span in trace["spans"]
        }

    def expected(self, span: SpanRecord) -> Plain:
        return {
            "span_id": f"{span.context.span_id:016x}",
            "otlp": _expected_otlp(span),
            "page": _expected_page(span) if _is_shown(span) else {},
        }


def _is_shown(span: SpanRecord) -> bool:
    numbers = [value for value in span.attributes.values() if isinstance(value, float)]
    return all(map(math.isfinite, numbers))


def _of_page(span: Mapping[str, Any], processes: Mapping[str, Any]) -> Plain:
    process = processes[span["processID"]]
    return {
        "trace_id": int(span["traceID"], 16),
        "name": span["operationName"],
        "references": [
            (each["refType"], int(each["traceID"], 16), int(each["spanID"], 16))
            for each in span["references"]
        ],
        "start_us": span["startTime"],
        "duration_us": span["duration"],
        "tags": _tags_of_page(span["tags"]),
        "logs": [(each["timestamp"], _tags_of_page(each["fields"])) for each in span["logs"]],
        "process": (process["serviceName"], _tags_of_page(process["tags"])),
    }


def _tags_of_page(tags: list[dict[str, Any]]) -> Plain:
    # Integers that JavaScript would round are texts.
    read = {"int64": int, "float64": lambda value: repr(float(value))}
    return {
        tag["key"]: (tag["type"], read.get(tag["type"], lambda value: value)(tag["value"]))
        for tag in tags
    }


def _expected_otlp(span: SpanRecord) -> Plain:
    resource, scope = span.resource.attributes, span.instrumentation_scope
    follows = typed_all({"opentracing.ref_type": "follows_from"})
    plain = of_record(span)
    links = [each | {"trace_state": "", "flags": 0} for each in plain["links"]]
    return plain | {
        "flags": 0,
        # "Negative duration detected", says Jaeger of one that is none.
        "end": max(plain["end"], plain["start"] + 1),
        "attributes": _kept(span.attributes),
        "events": sorted(
            ((each.timestamp, each.name, _kept(each.attributes), 0) for each in span.events),
            key=lambda event: event[1],
        ),
        "links": [each | {"attributes": follows} for each in links],
        "dropped": (0, 0, 0),
        "resource": (_kept(resource), ""),
        "scope": (scope.name, scope.version or "", {}, ""),
    }


def _kept(attributes: Mapping[str, Any] | None) -> Plain:
    return typed_all({key: _as_kept(value) for key, value in (attributes or {}).items()})


def _as_kept(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(_as_go_writes(value), ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, float):
        return value or 0.0  # without a sign
    return value


def _as_go_writes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_go_writes(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_as_go_writes(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _expected_page(span: SpanRecord) -> Plain:
    trace_id, parent = span.context.trace_id, span.parent
    resource = dict(span.resource.attributes)
    above = [("CHILD_OF", trace_id, parent.span_id)] if parent else []
    follows = [("FOLLOWS_FROM", each.context.trace_id, each.context.span_id) for each in span.links]
    return {
        "trace_id": trace_id,
        "name": span.name,
        "references": above + follows,
        "start_us": span.start_time // 1000,
        "duration_us": ((span.end_time or 0) - span.start_time) // 1000,
        "tags": _page_tags(span.attributes) | _page_tags(_own_tags(span)),
        "logs": [
            (each.timestamp // 1000, _page_tags({**each.attributes, "event": each.name}))
            for each in sorted(span.events, key=lambda event: event.timestamp)
        ],
        "process": (resource.pop("service.name"), _page_tags(resource)),
    }


def _own_tags(span: SpanRecord) -> dict[str, Any]:
    """Return what is a field of a span elsewhere, and a tag here."""
    scope, status = span.instrumentation_scope, span.status
    tags: dict[str, Any] = {
        "span.kind": span.kind.name.lower(),
        "otel.scope.name": scope.name,
        "otel.scope.version": scope.version,
        "w3c.tracestate": span.context.trace_state.to_header(),
        "otel.status_description": status.description,
    }
    if status.status_code.name != "UNSET":
        tags["otel.status_code"] = status.status_code.name
    if status.status_code.name == "ERROR":
        tags["error"] = True
    return {key: value for key, value in tags.items() if value}


def _page_tags(attributes: Mapping[str, Any] | None) -> Plain:
    return {key: _page_tag(_as_kept(value)) for key, value in (attributes or {}).items()}


def _page_tag(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, float):
        return "float64", repr(value)
    if isinstance(value, bytes):
        return "binary", b64encode(value).decode()
    return ("int64" if isinstance(value, int) else "string"), value


@contextmanager
def start(folder: Path) -> Iterator[Jaeger]:
    binary = program("jaeger", "jaeger")
    query, otlp_http, otlp_grpc, *others = free_ports(7)
    server = Jaeger(query, otlp_http, otlp_grpc)
    listening = {
        "query.http-server": query,
        "collector.otlp.http": otlp_http,
        "collector.otlp.grpc": otlp_grpc,
        "query.grpc-server": others[0],
        "admin.http": others[1],
        "collector.grpc-server": others[2],
        "collector.http-server": others[3],
    }
    flags = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in listening.items()]
    with running([binary, *flags], server.url, folder / "jaeger.log"):
        yield server
