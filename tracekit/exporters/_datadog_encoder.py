"""Ended spans as Datadog's agent takes them: traces of the v0.4 protocol in MessagePack.

A payload is an array of chunks, a chunk an array of the spans of one trace that travel together.
What is true of a whole chunk (sampling priority, upper half of the trace id, origin) is written
on the spans whose parents are not in it.
Source: https://github.com/DataDog/datadog-agent/blob/main/pkg/proto/datadog/trace/span.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracekit.exporters._answer import OnSkip, Payload
from tracekit.exporters._datadog_semantics import operation_name, resource_name, span_type
from tracekit.exporters._datadog_tags import DatadogTags
from tracekit.exporters._msgpack import array_header, pack
from tracekit.exporters._readable import (
    Fields,
    fields_of,
    plain_attributes,
    refuse_beyond_64_bits,
    salvage,
)
from tracekit.exporters._tag_text import tag_text, text_tags
from tracekit.interfaces import ReadableSpan

__all__ = ["DatadogEncoder"]

_LOW_64_BITS = 2**64 - 1
_MAX_INT64 = 2**63 - 1
_HAS_FLAGS = 1 << 31
_HEADER_BYTES = 5

_UNNAMED = "unnamed-service"


@dataclass
class _Encoded:
    """One span on its way: its fields, and where it belongs."""

    span: ReadableSpan
    trace_id: int
    span_id: int
    parent_id: int
    state: str
    fields: dict[str, Any]
    container_id: str


@dataclass
class _Chunk:
    bodies: list[bytes] = field(default_factory=list)
    spans: list[ReadableSpan] = field(default_factory=list)
    size: int = _HEADER_BYTES


class DatadogEncoder:
    """Write spans as payloads of the v0.4 protocol.

    Args:
        defaults: ``service``, ``env`` and ``version`` for resources that do not say.
    """

    def __init__(self, defaults: Mapping[str, str] | None = None) -> None:
        self._defaults = dict(defaults or {})

    def encode(
        self, spans: Sequence[ReadableSpan], max_bytes: int, on_skip: OnSkip
    ) -> Iterator[Payload]:
        """Yield payloads of at most ``max_bytes``; a span that is larger comes alone."""
        traces: dict[int, list[_Encoded]] = {}
        for span in spans:
            try:
                encoded = self._encode(span)
            except Exception as error:
                on_skip(span, error)
                continue
            traces.setdefault(encoded.trace_id, []).append(encoded)
        container_id = _container_id(traces)
        held: list[_Chunk] = []
        size = _HEADER_BYTES
        for trace in traces.values():
            for chunk in _chunks(trace, max_bytes - _HEADER_BYTES):
                if held and size + chunk.size > max_bytes:
                    yield _payload(held, container_id)
                    held, size = [], _HEADER_BYTES
                held.append(chunk)
                size += chunk.size
        if held:
            yield _payload(held, container_id)

    def _encode(self, span: ReadableSpan) -> _Encoded:
        try:
            return self._from_fields(span, fields_of(span))
        except Exception:
            return self._from_fields(span, fields_of(salvage(span)))

    def _from_fields(self, span: ReadableSpan, fields: Fields) -> _Encoded:
        # fmt: off
        (
            trace, own, parent, _, _, state, code, description,
            name, kind, start, end, given, events, links,
            dropped_attributes, dropped_events, dropped_links, resource, scope,
        ) = fields
        # fmt: on
        # What raises here and in _link cannot raise when the chunk is packed.
        trace.to_bytes(16, "big")
        refuse_beyond_64_bits(own, parent, *(event.timestamp for event in events or ()))
        attributes = plain_attributes(lambda: given)
        of_resource = plain_attributes(lambda: resource.attributes)
        tags = DatadogTags(self._defaults)
        tags.add_resource(of_resource)
        tags.add_scope(scope)
        tags.add_attributes(attributes)
        tags.add_events(events or ())
        tags.set_status(code, tag_text(description or ""), attributes)
        tags.set_dropped((dropped_attributes, dropped_events, dropped_links))
        tags.meta["otel.trace_id"] = f"{trace:032x}"
        tags.meta["span.kind"] = kind.name.lower()
        if state:
            tags.meta["w3c.tracestate"] = tag_text(state)
        begin = max(0, min(start, _MAX_INT64))
        body: dict[str, Any] = {
            "service": self._service(attributes, of_resource),
            "name": operation_name(kind, attributes),
            "resource": resource_name(tag_text(name), kind, attributes),
            "type": span_type(kind, attributes),
            "trace_id": trace & _LOW_64_BITS,
            "span_id": own,
            "parent_id": parent,
            "start": begin,
            "duration": max(0, min(end or start, _MAX_INT64) - begin),
            "error": int(code == 2),
            "meta": tags.meta,
            "metrics": tags.metrics,
        }
        if links:
            body["span_links"] = [_link(link) for link in links]
        container_id = tag_text(of_resource.get("container.id") or "")
        return _Encoded(span, trace, own, parent, state or "", body, container_id)

    def _service(self, attributes: Mapping[str, Any], of_resource: Mapping[str, Any]) -> str:
        if own := tag_text(attributes.get("service.name") or ""):
            return own
        named = tag_text(of_resource.get("service.name") or "")
        if named and not named.startswith("unknown_service"):
            return named
        return self._defaults.get("service") or named or _UNNAMED


def _link(link: Any) -> dict[str, Any]:
    context = link.context
    context.trace_id.to_bytes(16, "big")
    context.span_id.to_bytes(8, "big")
    body: dict[str, Any] = {
        "trace_id": context.trace_id & _LOW_64_BITS,
        "trace_id_high": context.trace_id >> 64,
        "span_id": context.span_id,
        # The highest bit says that the flags are known.
        "flags": int(context.trace_flags) | _HAS_FLAGS,
    }
    if context.trace_state:
        body["tracestate"] = tag_text(context.trace_state.to_header())
    if attributes := text_tags(link.attributes):
        body["attributes"] = attributes
    return body


def _container_id(traces: dict[int, list[_Encoded]]) -> str:
    every = (encoded.container_id for trace in traces.values() for encoded in trace)
    return next((found for found in every if found), "")


def _payload(chunks: list[_Chunk], container_id: str) -> Payload:
    parts = [array_header(len(chunks))]
    spans: list[ReadableSpan] = []
    for chunk in chunks:
        parts += (array_header(len(chunk.bodies)), *chunk.bodies)
        spans += chunk.spans
    headers = [("x-datadog-trace-count", str(len(chunks)))]
    if container_id:
        headers.append(("datadog-container-id", container_id))
    return Payload(b"".join(parts), spans, tuple(headers))


def _chunks(trace: list[_Encoded], max_bytes: int) -> list[_Chunk]:
    """Pack a trace, in halves when it is too large; each half is a chunk with roots of its own."""
    for root in _roots(trace):
        _mark_root(root)
    chunk = _Chunk()
    for encoded in trace:
        body = pack(encoded.fields)
        chunk.bodies.append(body)
        chunk.spans.append(encoded.span)
        chunk.size += len(body)
    if chunk.size <= max_bytes or len(trace) == 1:
        return [chunk]
    middle = len(trace) // 2
    return [*_chunks(trace[:middle], max_bytes), *_chunks(trace[middle:], max_bytes)]


def _roots(trace: list[_Encoded]) -> list[_Encoded]:
    """Return the spans whose parents travel elsewhere; the first when parents go in a circle."""
    here = {encoded.span_id for encoded in trace}
    return [encoded for encoded in trace if encoded.parent_id not in here] or trace[:1]


def _mark_root(encoded: _Encoded) -> None:
    meta, metrics = encoded.fields["meta"], encoded.fields["metrics"]
    said = _said_by_caller(encoded.state)
    # Only sampled spans come here: 1 keeps them as sampled by us, 2 as wanted by somebody.
    priority = said.get("s", "")
    metrics["_sampling_priority_v1"] = 2.0 if priority == "2" else 1.0
    if upper := encoded.trace_id >> 64:
        meta["_dd.p.tid"] = f"{upper:016x}"
    if "o" in said:
        meta["_dd.origin"] = said["o"]
    for name, value in said.items():
        if name.startswith("t."):
            meta[f"_dd.p.{name.removeprefix('t.')}"] = value


def _said_by_caller(state: str) -> dict[str, str]:
    """Return the parts of Datadog's own member of a tracestate.

    Source: https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/
    """
    for member in state.split(","):
        key, _, value = member.strip().partition("=")
        if key == "dd":
            pairs = (part.partition(":") for part in value.split(";"))
            # "=" cannot stand in a tracestate value, so it travels as "~".
            return {name: text.replace("~", "=") for name, colon, text in pairs if colon}
    return {}
