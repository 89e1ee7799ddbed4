"""Ended spans as Zipkin V2 JSON.

Source: https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/
What that page leaves open (links, tracestate) is written as the Collector writes it, so that a
Collector which receives it finds them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit.exporters._answer import OnSkip, Payload
from tracekit.exporters._anyvalue import exact
from tracekit.exporters._readable import (
    fields_of,
    plain_attributes,
    refuse_beyond_64_bits,
    salvage,
)
from tracekit.exporters._tag_text import json_text, plain_json, tag_text, text_tags
from tracekit.interfaces import ReadableSpan

__all__ = ["ZipkinEncoder"]

Json = dict[str, Any]

_KINDS = {
    SpanKind.CLIENT: "CLIENT",
    SpanKind.SERVER: "SERVER",
    SpanKind.PRODUCER: "PRODUCER",
    SpanKind.CONSUMER: "CONSUMER",
}

# By rank; the second column is the port that belongs to an address.
_REMOTE_NAMES_AND_ADDRESSES = (
    ("peer.service", None),
    ("server.address", None),
    ("net.peer.name", None),
    ("network.peer.address", "network.peer.port"),
    ("server.socket.domain", None),
    ("server.socket.address", "server.socket.port"),
    ("net.sock.peer.name", None),
    ("net.sock.peer.addr", "net.sock.peer.port"),
    ("peer.hostname", None),
    ("peer.address", None),
    ("db.name", None),
)

_STATUS_NAMES = {1: "OK", 2: "ERROR"}


class ZipkinEncoder:
    """Write spans as JSON arrays.

    Args:
        local: Address and port of this process, beside its service name.
        max_tag_value_length: Longer values are cut; None for no limit.
    """

    def __init__(
        self, local: Mapping[str, Any] | None = None, max_tag_value_length: int | None = None
    ) -> None:
        self._local = dict(local or {})
        self._max_length = max_tag_value_length

    def encode(
        self, spans: Sequence[ReadableSpan], max_bytes: int, on_skip: OnSkip
    ) -> Iterator[Payload]:
        """Yield arrays of at most ``max_bytes``; a span that is larger comes alone."""
        bodies: list[bytes] = []
        held: list[ReadableSpan] = []
        size = 2
        for span in spans:
            try:
                body = plain_json(self._span(span)).encode()
            except Exception as error:
                on_skip(span, error)
                continue
            if held and size + len(body) + 1 > max_bytes:
                yield _payload(bodies, held)
                bodies, held, size = [], [], 2
            bodies.append(body)
            held.append(span)
            size += len(body) + 1
        if held:
            yield _payload(bodies, held)

    def _span(self, span: ReadableSpan) -> Json:
        try:
            return self._from_fields(fields_of(span))
        except Exception:
            return self._from_fields(fields_of(salvage(span)))

    def _from_fields(self, fields: tuple[Any, ...]) -> Json:
        # fmt: off
        (
            trace, own, parent, _, _, state, code, description,
            name, kind, start, end, attributes, events, links,
            dropped_attributes, dropped_events, dropped_links, resource, scope,
        ) = fields
        # fmt: on
        refuse_beyond_64_bits(start, end or 0, *(event.timestamp for event in events or ()))
        of_resource = text_tags(plain_attributes(lambda: resource.attributes))
        service = of_resource.pop("service.name", "unknown_service")
        dropped = (dropped_attributes, dropped_events, dropped_links)
        tags = of_resource | text_tags(attributes) | _scope_tags(scope) | _dropped_tags(dropped)
        _set_status(tags, code, description)
        if state:
            tags["w3c.tracestate"] = tag_text(state)
        tags |= {f"otlp.link.{number}": _link(link) for number, link in enumerate(links or ())}
        body: Json = {
            "traceId": trace.to_bytes(16, "big").hex(),
            "id": own.to_bytes(8, "big").hex(),
            "name": tag_text(name),
            "timestamp": max(1, start // 1000),
            "localEndpoint": {"serviceName": service, **self._local},
            "tags": self._cut(tags),
        }
        if parent:
            body["parentId"] = parent.to_bytes(8, "big").hex()
        if kind in _KINDS:
            body["kind"] = _KINDS[kind]
        if end:
            # "durations of less than one microsecond are rounded up to 1":
            # https://github.com/openzipkin/zipkin-api/blob/master/zipkin2-api.yaml
            body["duration"] = max(1, (end - start) // 1000)
        if events:
            body["annotations"] = [_annotation(event) for event in events]
        if kind in (SpanKind.CLIENT, SpanKind.PRODUCER) and (remote := _remote(attributes or {})):
            body["remoteEndpoint"] = remote
        return body

    def _cut(self, tags: dict[str, str]) -> dict[str, str]:
        if self._max_length is None:
            return tags
        return {key: value[: self._max_length] for key, value in tags.items()}


def _payload(bodies: list[bytes], spans: list[ReadableSpan]) -> Payload:
    return Payload(b"[" + b",".join(bodies) + b"]", spans)


def _scope_tags(scope: Any) -> dict[str, str]:
    """Return the scope under its names, and under those they had before.

    Source: https://opentelemetry.io/docs/specs/otel/common/mapping-to-non-otlp/
    """
    tags: dict[str, str] = {}
    for part in ("name", "version"):
        try:
            value = exact(getattr(scope, part))
        except Exception:
            continue
        if value:
            tags[f"otel.scope.{part}"] = tags[f"otel.library.{part}"] = tag_text(value)
    return tags


def _dropped_tags(counts: tuple[int, int, int]) -> dict[str, str]:
    names = ("attributes", "events", "links")
    pairs = zip(names, counts, strict=True)
    return {f"otel.dropped_{name}_count": str(count) for name, count in pairs if count}


def _set_status(tags: dict[str, str], code: int, description: str | None) -> None:
    # Zipkin takes a span with any tag "error" for failed, also with the value false.
    if tags.get("error", "").lower() == "false":
        del tags["error"]
    if code in _STATUS_NAMES:
        tags["otel.status_code"] = _STATUS_NAMES[code]
    if code == 2:
        tags["error"] = tag_text(description or "")


def _link(link: Any) -> str:
    context = link.context
    state = context.trace_state.to_header() if context.trace_state else ""
    ids = f"{context.trace_id:032x}|{context.span_id:016x}"
    dropped = getattr(link, "dropped_attributes", 0)
    return f"{ids}|{tag_text(state)}|{json_text(link.attributes or {})}|{dropped}"


def _annotation(event: Any) -> Json:
    value = tag_text(event.name)
    if event.attributes:
        value = f"{json_text(value)}: {json_text(event.attributes)}"
    return {"timestamp": max(1, event.timestamp // 1000), "value": value}


def _remote(attributes: Mapping[str, Any]) -> Json | None:
    for name, port_name in _REMOTE_NAMES_AND_ADDRESSES:
        if name in attributes and (value := tag_text(attributes[name])):
            return _address(value, attributes, port_name) or {"serviceName": value}
    return None


def _address(value: str, attributes: Mapping[str, Any], port_name: str | None) -> Json | None:
    if port_name is None:
        return None
    try:
        address = ip_address(value)
    except ValueError:
        return None
    endpoint: Json = {f"ipv{address.version}": str(address)}
    port = attributes.get(port_name)
    if isinstance(port, int) and 0 < port < 65536:
        endpoint["port"] = port
    return endpoint
