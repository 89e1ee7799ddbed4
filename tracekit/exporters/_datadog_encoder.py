"""Ended spans as Datadog's agent takes them, by trace; protocols lay them out in MessagePack.

Source: https://github.com/DataDog/datadog-agent/blob/main/pkg/proto/datadog/trace/span.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracekit.exporters import _datadog_v04
from tracekit.exporters._answer import OnSkip, Payload
from tracekit.exporters._datadog_semantics import operation_name, resource_name, span_type
from tracekit.exporters._datadog_tags import DatadogTags
from tracekit.exporters._datadog_trace import EncodedSpan, Layout, Trace
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

_UNNAMED = "unnamed-service"


class DatadogEncoder:
    """Write spans as payloads.

    Args:
        defaults: ``service``, ``env`` and ``version`` for resources that do not say.
    """

    def __init__(self, defaults: Mapping[str, str] | None = None) -> None:
        self._defaults = dict(defaults or {})

    def encode(
        self,
        spans: Sequence[ReadableSpan],
        max_bytes: int,
        on_skip: OnSkip,
        layout: Layout = _datadog_v04.bodies,
    ) -> Iterator[Payload]:
        """Yield payloads of at most ``max_bytes``; a span that is larger comes alone."""
        traces: dict[int, Trace] = {}
        for span in spans:
            try:
                encoded = self._encode(span)
            except Exception as error:
                on_skip(span, error)
                continue
            traces.setdefault(encoded.trace_id, []).append(encoded)
        container_id = _container_id(traces)
        for body in layout([*traces.values()], max_bytes):
            headers = [("x-datadog-trace-count", str(body.chunks))]
            if container_id:
                headers.append(("datadog-container-id", container_id))
            yield Payload(body.content, body.spans, tuple(headers))

    def _encode(self, span: ReadableSpan) -> EncodedSpan:
        try:
            return self._from_fields(span, fields_of(span))
        except Exception:
            return self._from_fields(span, fields_of(salvage(span)))

    def _from_fields(self, span: ReadableSpan, fields: Fields) -> EncodedSpan:
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
        return EncodedSpan(span, trace, own, parent, state or "", body, container_id)

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


def _container_id(traces: dict[int, Trace]) -> str:
    every = (encoded.container_id for trace in traces.values() for encoded in trace)
    return next((found for found in every if found), "")
