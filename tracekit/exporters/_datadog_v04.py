"""Datadog's v0.4 protocol: an array of chunks, each an array of spans with named fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tracekit.exporters._datadog_trace import Body, Trace, mark_roots
from tracekit.exporters._msgpack import array_header, pack
from tracekit.interfaces import ReadableSpan

__all__ = ["PATH", "bodies"]

PATH = "/v0.4/traces"

_HEADER_BYTES = 5


@dataclass
class _Chunk:
    bodies: list[bytes] = field(default_factory=list)
    spans: list[ReadableSpan] = field(default_factory=list)
    size: int = _HEADER_BYTES


def bodies(traces: Sequence[Trace], max_bytes: int) -> Iterator[Body]:
    """Yield the bodies of requests: see ``Layout``."""
    held: list[_Chunk] = []
    size = _HEADER_BYTES
    for trace in traces:
        for chunk in _chunks(trace, max_bytes - _HEADER_BYTES):
            if held and size + chunk.size > max_bytes:
                yield _body(held)
                held, size = [], _HEADER_BYTES
            held.append(chunk)
            size += chunk.size
    if held:
        yield _body(held)


def _body(chunks: list[_Chunk]) -> Body:
    parts = [array_header(len(chunks))]
    spans: list[ReadableSpan] = []
    for chunk in chunks:
        parts += (array_header(len(chunk.bodies)), *chunk.bodies)
        spans += chunk.spans
    return Body(b"".join(parts), spans, len(chunks))


def _chunks(trace: Trace, max_bytes: int) -> list[_Chunk]:
    """Pack a trace, in halves when it is too large; each half is a chunk with roots of its own."""
    mark_roots(trace)
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
