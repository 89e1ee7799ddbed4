"""Datadog's v0.5 protocol: every text once, in a table, and spans as twelve values.

The body is an array of two: the texts, and the chunks. A span names texts by their places in the
table, so what all spans of a request have in common (the resource's tags, keys) travels once.
It has no field for links; they are JSON in a tag, as Datadog's own tracers write them then.
Source: https://github.com/DataDog/datadog-agent/blob/main/pkg/trace/api/version.go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracekit.exporters._datadog_trace import Body, Trace, mark_roots
from tracekit.exporters._msgpack import array_header, map_header, pack
from tracekit.exporters._tag_text import plain_json

__all__ = ["PATH", "bodies"]

PATH = "/v0.5/traces"

_PAIR, _SPAN = array_header(2), array_header(12)
_FLAGS = 0xFF


def bodies(traces: Sequence[Trace], max_bytes: int) -> Iterator[Body]:
    """Yield the bodies of requests: see ``Layout``.

    How large one is shows when it is written: what is shared is there once. One that turns out
    too large is written again in halves.
    """
    body = _body(traces)
    if len(body.content) <= max_bytes or len(body.spans) == 1:
        if body.spans:
            yield body
        return
    for half in _halves(traces):
        yield from bodies(half, max_bytes)


def _halves(traces: Sequence[Trace]) -> Iterator[Sequence[Trace]]:
    if len(traces) > 1:
        middle = len(traces) // 2
        yield from (traces[:middle], traces[middle:])
        return
    (trace,) = traces
    middle = len(trace) // 2
    yield from ([trace[:middle]], [trace[middle:]])


class _Texts(dict[str, bytes]):
    """The place of each text, packed; a text that is new gets the next one."""

    def __missing__(self, text: str) -> bytes:
        place = self[text] = pack(len(self))
        return place


def _body(traces: Sequence[Trace]) -> Body:
    # The agent takes place 0 for no text.
    texts = _Texts({"": pack(0)})
    parts = [array_header(len(traces))]
    for trace in traces:
        mark_roots(trace)
        parts.append(array_header(len(trace)))
        for encoded in trace:
            _write_span(parts, encoded.fields, texts)
    table = [array_header(len(texts)), *map(pack, texts)]
    spans = [encoded.span for trace in traces for encoded in trace]
    return Body(b"".join((_PAIR, *table, *parts)), spans, len(traces))


def _write_span(parts: list[bytes], fields: Mapping[str, Any], texts: _Texts) -> None:
    parts += (_SPAN, texts[fields["service"]], texts[fields["name"]], texts[fields["resource"]])
    parts += map(
        pack, [fields[name] for name in ("trace_id", "span_id", "parent_id", "start", "duration")]
    )
    parts.append(pack(fields["error"]))
    meta: dict[str, str] = fields["meta"]
    if links := fields.get("span_links"):
        meta = {**meta, "_dd.span_links": plain_json([_link(link) for link in links])}
    parts.append(map_header(len(meta)))
    for key, text in meta.items():
        parts += (texts[key], texts[text])
    metrics: dict[str, float] = fields["metrics"]
    parts.append(map_header(len(metrics)))
    for key, number in metrics.items():
        parts += (texts[key], pack(number))
    parts.append(texts[fields["type"]])


def _link(link: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "trace_id": f"{link['trace_id_high']:016x}{link['trace_id']:016x}",
        "span_id": f"{link['span_id']:016x}",
        "tracestate": link.get("tracestate"),
        "attributes": link.get("attributes"),
        "flags": link["flags"] & _FLAGS,
    }
    return {name: value for name, value in found.items() if value is not None}
