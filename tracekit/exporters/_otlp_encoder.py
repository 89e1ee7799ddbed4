"""OTLP protobuf written straight to bytes: ended spans to ExportTraceServiceRequest.

How it is fast. A protobuf message is tag, length and bytes, so everything that repeats from span
to span is written once and kept: an attribute's key with its tags, a key with one of its usual
values, the span's name, a resource, a scope. What is left for a span is one ``struct`` for its
ids and times, a look-up for each attribute, and one join. Only exact built-in types take this
way; whatever is unusual (a subclass, a container, text that UTF-8 cannot hold) is first reduced
by ``_anyvalue``, and a span that fails anywhere is read again piece by piece by ``_readable``.

Fields are not written in the order of their numbers; protobuf does not ask for it.
Source: opentelemetry/proto/trace/v1/trace.proto, https://protobuf.dev/programming-guides/encoding/
Concurrency: any thread, at the same time; the caches are only ever read, added to and cleared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Any

from tracekit.exporters._anyvalue import exact
from tracekit.exporters._otlp_attributes import (
    EVENT_FIELD,
    LINK_FIELD,
    MAP_FIELD,
    SPAN_FIELD,
    Field,
    NotPlainError,
    add_attributes,
    refuse,
)
from tracekit.exporters._protobuf import VARINTS, VARINTS_END, delimited, length_of, varint
from tracekit.exporters._readable import Fields, fields_of, plain_attributes, remote_flags, salvage
from tracekit.interfaces import ReadableSpan
from tracekit.model import InstrumentationScope, Resource

__all__ = ["OnSkip", "encode", "encode_batches", "encode_span"]

OnSkip = Callable[[ReadableSpan, Exception], None]

_MAX_CACHED_LENGTH = 64
_MAX_NAMES = 1024
_MAX_HEADERS = 64


_SPAN_HEADS = [b"\x12" + size for size in VARINTS]


# Span {trace_id=1, span_id=2, [parent_span_id=4], start=7, end=8}; ids are big-endian bytes,
# times little-endian fixed64.
_root_head = Struct("<BB16sBB8sBQBQ").pack
_child_head = Struct("<BB16sBB8sBB8sBQBQ").pack
_event_head = Struct("<BQ").pack
_link_head = Struct("<BB16sBB8sBI").pack
_flags_field = Struct("<BBI").pack

# Span {kind=6}: SpanKind counts from INTERNAL = 0, OTLP from UNSPECIFIED = 0.
_KINDS = (b"\x30\x01", b"\x30\x02", b"\x30\x03", b"\x30\x04", b"\x30\x05")

_Pieces = tuple[bytes, Resource, InstrumentationScope]


_names: dict[str, bytes] = {}
_tails: dict[int, bytes] = {}
_headers: dict[int, tuple[object, bytes]] = {}


def encode(spans: Sequence[ReadableSpan], on_skip: OnSkip | None = None) -> bytes:
    """Return the bytes of one ExportTraceServiceRequest that holds all of ``spans``.

    Args:
        on_skip: Told of each span that could not be encoded at all, with the reason.
    """
    return b"".join(body for body, _ in encode_batches(spans, None, on_skip))


def encode_batches(
    spans: Sequence[ReadableSpan], max_bytes: int | None, on_skip: OnSkip | None = None
) -> Iterator[tuple[bytes, list[ReadableSpan]]]:
    """Yield requests of at most ``max_bytes``, each with the spans that it holds.

    A span that is larger than ``max_bytes`` comes alone, in a request of its own: whether to
    send it is the caller's decision.
    """
    request, place = _Request(), (b"", b"")
    resource: object = None
    scope: object = None
    limit = max_bytes or sys.maxsize
    for span in spans:
        try:
            body, its_resource, its_scope = _pieces(span)
            if its_resource is not resource or its_scope is not scope:
                place = (_resource_header(its_resource), _scope_header(its_scope))
                resource, scope = its_resource, its_scope
                request.enter(place)
        except Exception as error:
            if on_skip:
                on_skip(span, error)
            continue
        length = len(body)
        size = request.size + length + _FRAME
        if size > limit and request.spans:
            yield request.to_bytes(), request.spans
            request = _Request()
            request.enter(place)
            size = request.size + length + _FRAME
        request.size = size
        request.bodies += (
            _SPAN_HEADS[length] if length < VARINTS_END else b"\x12" + varint(length),
            body,
        )
        request.spans.append(span)
    if request.spans:
        yield request.to_bytes(), request.spans


_Place = tuple[bytes, bytes]
"""The encoded resource and scope of a span, each with its schema URL: equal bytes, same place."""

_FRAME = 11
"""A tag and the longest length there is."""


class _Request:
    """Encoded spans gathered by place; its size is never below that of the finished bytes."""

    __slots__ = ("bodies", "places", "size", "spans")

    def __init__(self) -> None:
        self.places: dict[_Place, list[bytes]] = {}
        self.spans: list[ReadableSpan] = []
        self.size = 0
        # Of the place that was entered last: the field ScopeSpans {spans=2} of each span, in two
        # pieces.
        self.bodies: list[bytes] = []

    def enter(self, place: _Place) -> None:
        """Let the bodies that follow be of spans from ``place``."""
        if place not in self.places:
            self.places[place] = []
            self.size += len(place[0]) + len(place[1]) + 2 * _FRAME
        self.bodies = self.places[place]

    def to_bytes(self) -> bytes:
        resources: dict[bytes, list[bytes]] = {}
        for (resource, scope), bodies in self.places.items():
            if not bodies:
                continue  # entered by a span that then did not fit
            resources.setdefault(resource, [resource]).append(_scope_spans(scope, bodies))
        return b"".join([delimited(b"\x0a", b"".join(parts)) for parts in resources.values()])


def _scope_spans(scope: bytes, bodies: list[bytes]) -> bytes:
    """ResourceSpans {scope_spans=2 {scope and schema_url, spans=2}}."""
    return delimited(b"\x12", b"".join((scope, *bodies)))


def encode_span(span: ReadableSpan) -> bytes:
    """Return the bytes of one Span message, without tag and length.

    Raises:
        UnreadableSpanError: the span's ids cannot be read or do not fit.
    """
    return _pieces(span)[0]


def _pieces(span: Any) -> _Pieces:
    """Encode a span; a live one whose attributes are texts and numbers as they were written.

    Having them checked first would go through all of them twice, a tenth of the whole cost.
    """
    try:
        wire_fields = getattr(span, "wire_fields", None)
        if wire_fields is not None:
            try:
                return _encode_fields(wire_fields(False), refuse)
            except NotPlainError:
                pass
        return _encode_fields(fields_of(span))
    except Exception:
        return _encode_fields(fields_of(salvage(span)))


def _encode_fields(fields: Fields, convert: Callable[[Any], Any] = exact) -> _Pieces:
    # fmt: off
    (
        trace, own, parent, parent_is_remote, flags, state, code, description,
        name, kind, start, end, attributes, events, links,
        dropped_attributes, dropped_events, dropped_links, resource, scope,
    ) = fields
    # fmt: on
    trace_id, span_id = trace.to_bytes(16, "big"), own.to_bytes(8, "big")
    if parent:
        above = parent.to_bytes(8, "big")
        head = _child_head(
            10, 16, trace_id, 18, 8, span_id, 34, 8, above, 0x39, start, 0x41, end or 0
        )
    else:
        head = _root_head(10, 16, trace_id, 18, 8, span_id, 0x39, start, 0x41, end or 0)
    out = [head, _names.get(name) or _encode_name(name), _KINDS[kind._value_]]
    if attributes:
        add_attributes(out, attributes, SPAN_FIELD, convert)
    if events:
        out += [delimited(b"\x5a", _encode_event(event)) for event in events]
    if links:
        out += [delimited(b"\x6a", _encode_link(link)) for link in links]
    if state:
        out.append(delimited(b"\x1a", state.encode()))
    if dropped_attributes or dropped_events or dropped_links:
        out += _encode_dropped_counts(dropped_attributes, dropped_events, dropped_links)
    if description:
        out.append(_encode_status(code, description, remote_flags(flags, parent_is_remote)))
    else:
        outcome = flags << 3 | code << 1 | parent_is_remote
        out.append(_tails.get(outcome) or _encode_tail(outcome))
    return b"".join(out), resource, scope


def _encode_name(name: str) -> bytes:
    if type(name) is not str:
        raise TypeError("the name is not a str")
    field = delimited(b"\x2a", name.encode())
    if len(_names) >= _MAX_NAMES:
        _names.clear()
    if len(field) <= 2 * _MAX_CACHED_LENGTH:
        _names[name] = field
    return field


def _encode_status(code: int, description: str, flags: int) -> bytes:
    """Span {status=15, flags=16} with a description; ``code`` is 0, 1 or 2."""
    status = delimited(b"\x12", description.encode()) + bytes((0x18, code))
    return delimited(b"\x7a", status) + _flags_field(0x85, 1, flags)


def _encode_tail(outcome: int) -> bytes:
    """Span {status=15, flags=16} without a description; trace flags, code and remote in one."""
    trace_flags, code, is_remote = outcome >> 3, outcome >> 1 & 3, bool(outcome & 1)
    if code == 3 or not 0 <= trace_flags <= 0xFF:
        raise ValueError("neither a status code nor trace flags")
    status = bytes((0x18, code)) if code else b""
    flags = _flags_field(0x85, 1, remote_flags(trace_flags, is_remote))
    tail = _tails[outcome] = delimited(b"\x7a", status) + flags
    return tail


def _encode_dropped_counts(attributes: int, events: int, links: int) -> list[bytes]:
    """Span {dropped_attributes_count=10, dropped_events_count=12, dropped_links_count=14}."""
    counts = ((b"\x50", attributes), (b"\x60", events), (b"\x70", links))
    return [tag + _uint32(count) for tag, count in counts if count]


def _uint32(number: int) -> bytes:
    if not 0 <= number < 2**32:
        raise OverflowError("not an unsigned 32-bit count")
    return length_of(number)


def _encode_event(event: Any) -> bytes:
    """Span.Event {time=1, name=2, attributes=3, dropped_attributes_count=4}."""
    out = [_event_head(9, event.timestamp), delimited(b"\x12", event.name.encode())]
    if attributes := event.attributes:
        add_attributes(out, attributes, EVENT_FIELD)
    if dropped := event.dropped_attributes:
        out += (b"\x20", _uint32(dropped))
    return b"".join(out)


def _encode_link(link: Any) -> bytes:
    """Span.Link {trace_id=1, span_id=2, trace_state=3, attributes=4, dropped=5, flags=6}."""
    context = link.context
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    flags = remote_flags(context.trace_flags, context.is_remote)
    out = [_link_head(10, 16, trace_id, 18, 8, span_id, 0x35, flags)]
    if context.trace_state:
        out.append(delimited(b"\x1a", context.trace_state.to_header().encode()))
    if attributes := link.attributes:
        add_attributes(out, attributes, LINK_FIELD)
    if dropped := link.dropped_attributes:
        out += (b"\x28", _uint32(dropped))
    return b"".join(out)


def _resource_header(resource: Any) -> bytes:
    known = _headers.get(id(resource))
    return known[1] if known else _keep_header(resource, _encode_resource)


def _scope_header(scope: Any) -> bytes:
    known = _headers.get(id(scope))
    return known[1] if known else _keep_header(scope, _encode_scope)


def _keep_header(owner: Any, encode_header: Callable[[Any], bytes]) -> bytes:
    # The owner is kept beside its bytes, so its id() cannot become somebody else's.
    header = encode_header(owner)
    if len(_headers) >= _MAX_HEADERS:
        _headers.clear()
    _headers[id(owner)] = (owner, header)
    return header


def _encode_resource(resource: Any) -> bytes:
    """ResourceSpans {resource=1, schema_url=3}, or an empty Resource for what is none."""
    body = _attributes_field(lambda: resource.attributes, MAP_FIELD)
    return delimited(b"\x0a", body) + _text_field(b"\x1a", lambda: resource.schema_url)


def _encode_scope(scope: Any) -> bytes:
    """ScopeSpans {scope=1 {name=1, version=2, attributes=3}, schema_url=3}."""
    name = _text_field(b"\x0a", lambda: scope.name)
    version = _text_field(b"\x12", lambda: scope.version)
    body = name + version + _attributes_field(lambda: scope.attributes, EVENT_FIELD)
    return delimited(b"\x0a", body) + _text_field(b"\x1a", lambda: scope.schema_url)


def _attributes_field(read: Callable[[], Any], field: Field) -> bytes:
    out: list[bytes] = []
    add_attributes(out, plain_attributes(read), field)
    return b"".join(out)


def _text_field(tag: bytes, read: Callable[[], Any]) -> bytes:
    try:
        value = exact(read())
    except Exception:
        return b""
    return delimited(tag, value.encode()) if isinstance(value, str) and value else b""
