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
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

from tracekit.exporters._anyvalue import INT64, exact
from tracekit.exporters._readable import Fields, fields_of, plain_attributes, remote_flags, salvage
from tracekit.interfaces import ReadableSpan
from tracekit.model import InstrumentationScope, Resource

__all__ = ["OnSkip", "encode", "encode_batches", "encode_span"]

OnSkip = Callable[[ReadableSpan, Exception], None]

_MAX_KEYS = 512
_MAX_VALUES_OF_KEY = 32
_MAX_CACHED_LENGTH = 64
_MAX_NAMES = 1024
_MAX_HEADERS = 64


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_VARINTS = [_varint(number) for number in range(1024)]
_VARINTS_END = len(_VARINTS)
_SPAN_HEADS = [b"\x12" + varint for varint in _VARINTS]


def _length(size: int) -> bytes:
    return _VARINTS[size] if size < _VARINTS_END else _varint(size)


def _delimited(tag: bytes, body: bytes) -> bytes:
    return b"".join((tag, _length(len(body)), body))


# Span {trace_id=1, span_id=2, [parent_span_id=4], start=7, end=8}; ids are big-endian bytes,
# times little-endian fixed64.
_root_head = Struct("<BB16sBB8sBQBQ").pack
_child_head = Struct("<BB16sBB8sBB8sBQBQ").pack
_double = Struct("<d").pack
_two_bytes = Struct("BB").pack
_event_head = Struct("<BQ").pack
_link_head = Struct("<BB16sBB8sBI").pack
_flags_field = Struct("<BBI").pack

# Span {kind=6}: SpanKind counts from INTERNAL = 0, OTLP from UNSPECIFIED = 0.
_KINDS = (b"\x30\x01", b"\x30\x02", b"\x30\x03", b"\x30\x04", b"\x30\x05")

_Pieces = tuple[bytes, Resource, InstrumentationScope]


class _Key(NamedTuple):
    """What is written of an attribute before its value is known.

    Args:
        start: A KeyValue up to its value.
        heads: The field up to a text of so many bytes, or up to a varint of so many (negative).
        float_head: The field up to the eight bytes of a float.
        bools: The whole field, for False and True.
        room: One element for each value that may still be kept with its key.
    """

    start: bytes
    heads: dict[int, bytes]
    float_head: bytes
    bools: tuple[bytes, bytes]
    room: list[None]


class _Field(NamedTuple):
    """A message's attributes: the tag, what is kept of keys, and of keys with a usual value."""

    tag: bytes
    keys: dict[str, _Key]
    pairs: dict[tuple[str, object], bytes]


_span_field = _Field(b"\x4a", {}, {})
_event_field = _Field(b"\x1a", {}, {})
_link_field = _Field(b"\x22", {}, {})
_map_field = _Field(b"\x0a", {}, {})
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
            _SPAN_HEADS[length] if length < _VARINTS_END else b"\x12" + _varint(length),
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
        return b"".join([_delimited(b"\x0a", b"".join(parts)) for parts in resources.values()])


def _scope_spans(scope: bytes, bodies: list[bytes]) -> bytes:
    """ResourceSpans {scope_spans=2 {scope and schema_url, spans=2}}."""
    return _delimited(b"\x12", b"".join((scope, *bodies)))


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
                return _encode_fields(wire_fields(False), _refuse)
            except _NotPlainError:
                pass
        return _encode_fields(fields_of(span))
    except Exception:
        return _encode_fields(fields_of(salvage(span)))


class _NotPlainError(Exception):
    """An attribute has to be made exportable by the span itself."""


def _refuse(_value: object) -> Any:
    raise _NotPlainError


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
        _add_attributes(out, attributes, _span_field, convert)
    if events:
        out += [_delimited(b"\x5a", _encode_event(event)) for event in events]
    if links:
        out += [_delimited(b"\x6a", _encode_link(link)) for link in links]
    if state:
        out.append(_delimited(b"\x1a", state.encode()))
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
    field = _delimited(b"\x2a", name.encode())
    if len(_names) >= _MAX_NAMES:
        _names.clear()
    if len(field) <= 2 * _MAX_CACHED_LENGTH:
        _names[name] = field
    return field


def _encode_status(code: int, description: str, flags: int) -> bytes:
    """Span {status=15, flags=16} with a description; ``code`` is 0, 1 or 2."""
    status = _delimited(b"\x12", description.encode()) + bytes((0x18, code))
    return _delimited(b"\x7a", status) + _flags_field(0x85, 1, flags)


def _encode_tail(outcome: int) -> bytes:
    """Span {status=15, flags=16} without a description; trace flags, code and remote in one."""
    trace_flags, code, is_remote = outcome >> 3, outcome >> 1 & 3, bool(outcome & 1)
    if code == 3 or not 0 <= trace_flags <= 0xFF:
        raise ValueError("neither a status code nor trace flags")
    status = bytes((0x18, code)) if code else b""
    flags = _flags_field(0x85, 1, remote_flags(trace_flags, is_remote))
    tail = _tails[outcome] = _delimited(b"\x7a", status) + flags
    return tail


def _encode_dropped_counts(attributes: int, events: int, links: int) -> list[bytes]:
    """Span {dropped_attributes_count=10, dropped_events_count=12, dropped_links_count=14}."""
    counts = ((b"\x50", attributes), (b"\x60", events), (b"\x70", links))
    return [tag + _uint32(count) for tag, count in counts if count]


def _uint32(number: int) -> bytes:
    if not 0 <= number < 2**32:
        raise OverflowError("not an unsigned 32-bit count")
    return _length(number)


def _encode_event(event: Any) -> bytes:
    """Span.Event {time=1, name=2, attributes=3, dropped_attributes_count=4}."""
    out = [_event_head(9, event.timestamp), _delimited(b"\x12", event.name.encode())]
    if attributes := event.attributes:
        _add_attributes(out, attributes, _event_field)
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
        out.append(_delimited(b"\x1a", context.trace_state.to_header().encode()))
    if attributes := link.attributes:
        _add_attributes(out, attributes, _link_field)
    if dropped := link.dropped_attributes:
        out += (b"\x28", _uint32(dropped))
    return b"".join(out)


def _add_attributes(
    out: list[bytes],
    attributes: Mapping[Any, Any],
    field: _Field,
    convert: Callable[[Any], Any] = exact,
) -> None:
    """Append each attribute as a KeyValue {key=1, value=2} field of the message around it.

    ``convert`` makes a value exact that is neither text nor number; it may raise instead.
    """
    tag, keys, pairs = field
    append = out.append
    for pair in attributes.items():
        key, value = pair
        kind = type(value)
        if kind is str or kind is int:
            # An int equals no str, and a bool or float that equals an int is never looked up.
            if whole := pairs.get(pair):
                append(whole)
                continue
            start, heads, _, _, room = keys.get(key) or _encode_key(key, field, convert)
            if kind is str:
                encoded = value.encode()
                length = len(encoded)
            else:
                encoded = _integer(value)
                length = -len(encoded)
            head = heads.get(length) or _encode_head(tag, start, heads, length)
            if room and len(encoded) <= _MAX_CACHED_LENGTH:
                room.pop()
                pairs[pair] = head + encoded
            append(head)
            append(encoded)
            continue
        start, _, float_head, bools, _ = keys.get(key) or _encode_key(key, field, convert)
        if kind is float:
            append(float_head + _double(value))
        elif kind is bool:
            append(bools[value])
        else:
            body = _with_length(_encode_any(convert(value)))
            out += (tag, _length(len(start) + len(body)), start, body)


def _integer(value: int) -> bytes:
    """Return the varint of an attribute's value.

    Raises:
        OverflowError: 64 bits do not do. Its digits are what the span is read again for; kept
            as a usual value, they would be counted as a replacement once and then no more.
    """
    if 0 <= value < 0x4000:
        # Written out for the many numbers of a few digits.
        return _VARINTS[value] if value < 0x80 else _two_bytes(value & 0x7F | 0x80, value >> 7)
    if value in INT64:
        return _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    raise OverflowError("an integer beyond 64 bits")


def _encode_head(tag: bytes, start: bytes, heads: dict[int, bytes], length: int) -> bytes:
    """Return a field up to a text of ``length`` bytes, or up to a varint of ``-length``."""
    if length < 0:
        value = _length(1 - length) + b"\x18"
    else:
        text = b"\x0a" + _length(length)
        value = _length(len(text) + length) + text
    head = b"".join((tag, _length(len(start) + len(value) + abs(length)), start, value))
    if length <= _MAX_CACHED_LENGTH and len(start) <= _MAX_CACHED_LENGTH:
        heads[length] = head
    return head


def _encode_key(key: object, field: _Field, convert: Callable[[Any], Any]) -> _Key:
    """Return what is written of a key, and keep it unless it is unusual.

    Raises:
        TypeError, UnicodeEncodeError: It has to be replaced, which is done and counted where the
            whole span is read again: kept here, it would be counted once and then no more.
    """
    # An empty key is dropped by the span itself: it must not be found without being looked at.
    if convert is not exact and (type(key) is not str or not key):
        raise _NotPlainError
    if type(key) is not str:
        raise TypeError("the key is not a str")
    utf8 = key.encode()
    start = b"".join((b"\x0a", _length(len(utf8)), utf8, b"\x12"))
    bools = [
        b"".join((field.tag, _length(len(start) + 3), start, b"\x02\x10", bytes((value,))))
        for value in (False, True)
    ]
    float_head = b"".join((field.tag, _length(len(start) + 10), start, b"\x09\x21"))
    is_kept = bool(key) and len(start) <= _MAX_CACHED_LENGTH
    room = [None] * (_MAX_VALUES_OF_KEY if is_kept else 0)
    entry = _Key(start, {}, float_head, (bools[0], bools[1]), room)
    if is_kept:
        if len(field.keys) >= _MAX_KEYS:
            field.keys.clear()
            field.pairs.clear()
        field.keys[key] = entry
    return entry


def _with_length(body: bytes) -> bytes:
    return _length(len(body)) + body


def _encode_any(value: Any) -> bytes:
    """Return one AnyValue of a value that ``exact`` has made, so its depth is bounded."""
    if value is None:
        return b""
    kind = type(value)
    if kind is str:
        return _delimited(b"\x0a", value.encode())
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int:
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if kind is float:
        return b"\x21" + _double(value)
    if kind is bytes:
        return _delimited(b"\x3a", value)
    if kind is list:
        items = b"".join([_delimited(b"\x0a", _encode_any(item)) for item in value])
        return _delimited(b"\x2a", items)
    pairs: list[bytes] = []
    _add_attributes(pairs, value, _map_field)
    return _delimited(b"\x32", b"".join(pairs))


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
    body = _attributes_field(lambda: resource.attributes, _map_field)
    return _delimited(b"\x0a", body) + _text_field(b"\x1a", lambda: resource.schema_url)


def _encode_scope(scope: Any) -> bytes:
    """ScopeSpans {scope=1 {name=1, version=2, attributes=3}, schema_url=3}."""
    name = _text_field(b"\x0a", lambda: scope.name)
    version = _text_field(b"\x12", lambda: scope.version)
    body = name + version + _attributes_field(lambda: scope.attributes, _event_field)
    return _delimited(b"\x0a", body) + _text_field(b"\x1a", lambda: scope.schema_url)


def _attributes_field(read: Callable[[], Any], field: _Field) -> bytes:
    out: list[bytes] = []
    _add_attributes(out, plain_attributes(read), field)
    return b"".join(out)


def _text_field(tag: bytes, read: Callable[[], Any]) -> bytes:
    try:
        value = exact(read())
    except Exception:
        return b""
    return _delimited(tag, value.encode()) if isinstance(value, str) and value else b""
